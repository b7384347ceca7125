"""What a run refuses: another driver at the same time, and a database that is gone."""

from pathlib import Path

import pytest
import yaml

from nas.data import open_dataset
from nas.make_study import make_study
from nas.study.request import Request
from tests.nas.programs import QUICK, Program, epochs_seen, run_here

pytestmark = pytest.mark.xdist_group("ray_2")


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_study_that_another_driver_began_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    """The first look at the run is long past when the program measures; the lock is taken after that."""
    run = tmp_path / "runs" / "twice"
    with Program(
        *QUICK, "--budget", "900cpu-seconds", "--name", "twice", "--runs", run.parent, logs=tmp_path
    ) as second:
        second.wait_until(lambda: second.says("starting workers"))
        study = make_study(Request(budget="9cpu-minutes", epochs=7), {}, open_dataset("digits", resolution=16).info)
        run.mkdir(parents=True)
        (run / "study.yaml").write_text(yaml.safe_dump(study.model_dump(mode="json")), encoding="utf-8")
        before = (run / "study.yaml").read_bytes()
        outcome = second.wait()
    assert outcome.code == 2
    assert "must be " in outcome.err
    assert f"as the study in {run} has it" in outcome.err
    assert (run / "study.yaml").read_bytes() == before
    assert not (run / "study.db").exists()
