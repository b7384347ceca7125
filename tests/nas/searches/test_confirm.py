"""A real search that trains again what is in doubt; its driver is killed while it does."""

import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from nas.record.run_folder import open_run
from nas.record.trials import TrialState
from nas.results.picks import kept_weights
from nas.results.results import Results
from tests.nas.programs import QUICK, Program

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ray_2"), pytest.mark.timeout(1800)]

NUM_TRIALS, SECONDS, PART = 3, 400.0, 0.03


def count_seeds(run: Path) -> int:
    """Trainings with further seeds that have begun."""
    if not (run / "study.db").exists():
        return 0
    query = "SELECT COUNT(*) FROM trial_user_attributes WHERE key = 'seed'"
    try:
        with closing(sqlite3.connect(f"file:{run / 'study.db'}?mode=ro", uri=True)) as connection:
            return int(connection.execute(query).fetchone()[0])
    except sqlite3.OperationalError:  # it is being made
        return 0


def test_a_killed_search_goes_on_with_new_seeds_and_keeps_to_their_part(tmp_path: Path) -> None:
    command = (*QUICK, "--epochs", "2", "--references", "none", "--max-trials", NUM_TRIALS, "--confirm", f"{PART:.0%}")
    command += ("--budget", f"{SECONDS:g}cpu-seconds", "--runs", tmp_path, "--name", "run")
    with Program(*command, logs=tmp_path / "first") as program:
        program.wait_until(lambda: count_seeds(tmp_path / "run") > 1)
        program.kill()
    with Program(*command, logs=tmp_path / "second") as program:
        outcome = program.wait()
    assert outcome.code == 0, outcome.err
    assert "3 % of the budget, for new seeds" in outcome.out
    run = open_run(tmp_path / "run")
    trials = list(run.record)
    again = [trial for trial in trials if trial.seed is not None]
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    assert len(trials) - len(again) == NUM_TRIALS
    assert set(Counter((trial.architecture.digest, trial.seed) for trial in trials).values()) == {1}
    # One training at a time, and none begins where the part is spent; the last may take longer than was foreseen
    assert run.record.confirm_seconds <= PART * SECONDS + max(
        trial.device_seconds + trial.lost_seconds for trial in again
    )
    results = Results(run)
    assert any(len(group) > 1 for group in results.replicates)
    for member in results.front:
        assert member.test_accuracy is not None
        with kept_weights(run, member):
            pass  # those of the first of its trainings are there
