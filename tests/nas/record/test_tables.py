"""Reading a study in bulk."""

from pathlib import Path

from nas.record.storage import sqlite_url
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
