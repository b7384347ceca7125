"""The driver's storage: Optuna's own contract, and the same rows as Optuna writes."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from optuna.storages import BaseStorage
from optuna.testing.pytest_storages import StorageTestCase

from nas.record.storage import close_storage, open_storage, sqlite_url
from tests.nas.record.rows import check_rows_as_optuna_writes


@pytest.fixture(scope="module")
def no_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with Optuna's tables and nothing in them."""
    path = tmp_path_factory.mktemp("storage") / "empty.db"
    close_storage(open_storage(sqlite_url(path), writes=True))
    return path


def test_its_trials_are_those_that_optuna_writes(no_study: Path, tmp_path: Path) -> None:
    check_rows_as_optuna_writes(lambda: sqlite_url(Path(shutil.copy(no_study, tmp_path / f"{uuid4()}.db"))))


@pytest.mark.slow
class TestDriverStorage(StorageTestCase):
    """What Optuna asks of every storage."""

    @pytest.fixture
    def storage(self, no_study: Path, tmp_path: Path) -> Iterator[BaseStorage]:
        path = shutil.copy(no_study, tmp_path / "study.db")
        storage = open_storage(sqlite_url(Path(path)), writes=True)
        yield storage
        close_storage(storage)
