"""Reading a study in bulk."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from optuna.storages import RDBStorage

from nas.record.run_folder import open_run
from nas.record.storage import newest_tables, sqlite_url
from nas.record.tables.reading import NEWEST
from nas.study.study import StudyError
from tests.nas.record.odd_trials import check_read_as_optuna_reads, fill_with_odd_trials
from tests.nas.runs import make_run


def test_trials_are_read_in_bulk_as_optuna_reads_them(tmp_path: Path) -> None:
    """Complete, failed, stopped, running and queued ones, beside another study in the same database."""
    run = make_run(tmp_path / "run", max_trials=8)
    run.record.start(next(iter(run.space.references().values())))
    url = sqlite_url(run.folder.database)
    fill_with_odd_trials(url)
    check_read_as_optuna_reads(url)
    check_read_as_optuna_reads(url, "other")


def test_tables_of_another_version_are_left_to_optuna(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", max_trials=2)
    assert RDBStorage(sqlite_url(run.folder.database)).get_head_version() == NEWEST
    assert newest_tables(sqlite_url(run.folder.database)) is not None
    assert len(open_run(run.folder.path).record.trials) == len(run.record.trials)
    with closing(sqlite3.connect(run.folder.database)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v3.0.0.a'")
    assert newest_tables(sqlite_url(run.folder.database)) is None
    with pytest.raises(StudyError, match="optuna storage upgrade"):
        open_run(run.folder.path)


def test_progress_that_is_no_json_is_one_line(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", max_trials=2)
    with closing(sqlite3.connect(run.folder.database)) as connection, connection:
        connection.execute("UPDATE trial_user_attributes SET value_json = '{' WHERE key = 'progress'")
    with pytest.raises(StudyError, match=r"^storage: trial 0: progress: Invalid JSON: [^\n]*$"):
        open_run(run.folder.path)
