"""A study that version 0.1 began, and was killed in, goes on to its end."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from nas.record.run_folder import open_run
from nas.record.trials import StopReason, TrialState
from nas.study.study import Study
from tests.nas.programs import ROOT, Outcome, Recorded, read_study, run_program
from tests.nas.runs import open_folder

pytestmark = pytest.mark.xdist_group("ray_2")

WRITTEN = ROOT / "tests" / "golden" / "study_0_1"


def restore(path: Path) -> Path:
    """The run's folder as the killed driver left it."""
    shutil.copytree(WRITTEN, path, ignore=shutil.ignore_patterns("*.sql", "*.md"))
    with closing(sqlite3.connect(path / "study.db")) as connection:
        connection.executescript((WRITTEN / "study.sql").read_text(encoding="utf-8"))
    return path


def test_a_report_reads_it(tmp_path: Path) -> None:
    run = open_run(restore(tmp_path / "begun"))
    states = [trial.state for trial in run.record]
    assert states.count(TrialState.RUNNING) == 1
    assert {trial.stop_reason for trial in run.record if trial.state is TrialState.STOPPED} == {StopReason.STOPPER}
    assert run.study.objectives == ("accuracy", "params", "macs")
    assert run.record.notes.speed is not None
    assert run.record.notes.num_images == {"train": 1079, "val": 359, "test": 359}


def test_a_trial_that_its_budget_had_stopped_goes_on(tmp_path: Path) -> None:
    """Version 0.1 said so in a sentence alone."""
    folder = restore(tmp_path / "begun")
    with closing(sqlite3.connect(folder / "study.db")) as connection:
        [[trial_id]] = connection.execute("SELECT trial_id FROM trials WHERE state = 'RUNNING'").fetchall()
        connection.execute("UPDATE trials SET state = 'PRUNED' WHERE trial_id = ?", [trial_id])
        reason = '"the budget was spent before its last epoch"'
        row = [trial_id, "reason", reason]
        connection.execute("INSERT INTO trial_user_attributes (trial_id, key, value_json) VALUES (?, ?, ?)", row)
        connection.commit()
    study = Study.from_file(folder / "study.yaml")
    _, session = open_folder(folder, study)
    lease = session.next()
    assert lease is not None
    trial = session.record.trials[lease.trial]
    assert (trial.checkpoint_trial, lease.checkpoint) == (6, "epoch-0002.pt")


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return read_study(restore(tmp_path_factory.mktemp("before") / "begun"))


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """The same command, though the defaults of the digits have changed since."""
    runs = tmp_path_factory.mktemp("runs")
    folder = restore(runs / "begun")
    command = ("--space", "hybrid_stages", "--budget", "900cpu-seconds", "--max-trials", "9", "--name", "begun")
    return folder, run_program(*command, "--runs", runs, logs=runs / "logs")


@pytest.mark.slow
def test_it_goes_on_to_its_end_and_loses_nothing(ended: tuple[Path, Outcome], before: Recorded) -> None:
    folder, outcome = ended
    assert outcome.code == 0, outcome.err
    after = read_study(folder)
    assert len(after.trials) == 9
    assert {trial.state.name for trial in after.trials} <= {"COMPLETE", "PRUNED"}
    assert after.results[:6] == before.results[:6]
    trial = after.trials[6]
    assert trial.user_attrs["progress"]["curve"][:2] == before.trials[6].user_attrs["progress"]["curve"]
    assert [lease["attempt"] for lease in trial.user_attrs["progress"]["leases"]] == [1, 2]
    assert after.spent > before.spent
    assert "events" not in after.notes  # no checkpoint had to be given up
    run = open_run(folder)
    assert all(trial.test_accuracy is not None for trial in run.record if trial.number in {1, 3})
