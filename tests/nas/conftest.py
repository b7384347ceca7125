"""Runs that tests of several files look at; those files share one worker of xdist, so that each run is made once."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.nas.disks import disk
from tests.nas.photographs import prepare, write_photographs
from tests.nas.programs import PATIENCE, QUICK, Outcome, Recorded, read_study, run_program

# Of xdist; each has one search or cluster at a time, "ray" the run below, and "browser" its pages
PATIENT_GROUPS = ("ray", "ray_2", "ray_3", "postgresql", "commands", "browser")


class GoodRun(NamedTuple):
    """A search that nobody disturbed: a reference and three trials, one after another, on digits."""

    folder: Path
    arguments: tuple[str, ...]
    outcome: Outcome
    study: Recorded
    seconds: float  # from its start to its end


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that wait for whole searches, or for pages, have time for it where other programs run beside them."""
    for item in items:
        group = item.get_closest_marker("xdist_group")
        if group and group.args[0] in PATIENT_GROUPS and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(2 * PATIENCE))


@pytest.fixture(scope="session")
def good_run(tmp_path_factory: pytest.TempPathFactory) -> GoodRun:
    runs = tmp_path_factory.mktemp("runs")
    arguments = (*QUICK, "--max-trials", "3", "--json", "--runs", str(runs))
    start = time.monotonic()
    outcome = run_program(*arguments, "--name", "good", logs=runs / "logs")
    seconds = time.monotonic() - start
    return GoodRun(runs / "good", (*arguments, "--name", "good"), outcome, read_study(runs / "good"), seconds)


class PreparedFolder(NamedTuple):
    """JPEGs of 40 x 40 pixels in two classes, 36 each in train, and what they were prepared to, for 32 pixels."""

    folder: Path
    prepared: Path


@pytest.fixture(scope="session")
def prepared_folder(tmp_path_factory: pytest.TempPathFactory) -> PreparedFolder:
    root = tmp_path_factory.mktemp("photographs")
    folder = write_photographs(root / "folder", side=40)
    return PreparedFolder(folder, prepare(folder, root / "prepared", resolution=32, side=40))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """An empty disk of 2 MiB."""
    with disk(tmp_path / "disk", size="2m") as path:
        yield path
