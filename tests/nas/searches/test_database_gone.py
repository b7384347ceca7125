"""A database that goes away while the search writes to it."""

from pathlib import Path

import pytest

from tests.nas.programs import QUICK, Program, epochs_seen, run_here

pytestmark = pytest.mark.xdist_group("ray")


def test_a_database_that_is_deleted_is_told_and_the_budget_is_not_spent_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "runs" / "gone"
    command = (*QUICK, "--budget", "900cpu-seconds", "--max-trials", 1, "--name", "gone", "--runs", run.parent)
    with Program(*command, logs=tmp_path / "logs") as program:
        program.wait_until(lambda: epochs_seen(run) >= 1)
        for path in run.glob("study.db*"):
            path.unlink()
        outcome = program.wait()
    assert outcome.code == 2
    [line] = outcome.err.splitlines()
    assert line.startswith("error: storage: ")
    again = run_here(*command, capsys=capsys, monkeypatch=monkeypatch)
    assert again.code == 2
    assert "put the run's own database back, or begin another run with another --name" in again.err
    assert not (run / "study.db").exists()
