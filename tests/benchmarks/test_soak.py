"""The soak: a short one, and that its check finds what may be lost."""

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.soak.check import FAULTS, KILL_WORKER, find_losses
from nas.record.run_folder import Run
from nas.record.trials import LeaseCharge, TrialState
from tests.nas.programs import ROOT
from tests.nas.runs import FAILURE, make_run
from tests.thorough import with_all_strikes


def losses(run: Run, **struck: int) -> list[str]:
    return find_losses(run, Counter(struck), spent=run.record.spent_seconds, most_spent=1e6)


def leave_running(run: Run) -> None:
    run.record.trials[3].state = TrialState.RUNNING


def stop(run: Run) -> None:
    run.record.trials[3].state = TrialState.STOPPED


def try_twice(run: Run) -> None:
    number = len(run.record.trials)
    run.record.trials.append(replace(run.record.trials[3], number=number, checkpoint_trial=number))


def lose(run: Run) -> None:
    del run.record.trials[3]


def lose_an_epoch(run: Run) -> None:
    trial = run.record.trials[3]
    trial.progress = trial.progress.model_copy(update={"curve": trial.progress.curve[1:]})


def leave_a_lease_open(run: Run) -> None:
    trial = run.record.trials[3]
    trial.progress = trial.progress.model_copy(update={"leases": (LeaseCharge(attempt=1),)})


def lose_a_worker(run: Run) -> None:
    trial = run.record.trials[3]
    lost = LeaseCharge(attempt=1, end="lost"), LeaseCharge(attempt=2, end="complete")
    trial.progress = trial.progress.model_copy(update={"leases": lost})


@pytest.mark.parametrize(
    ("damage", "loss"),
    [
        (leave_running, "trial 3 is left running"),
        (stop, "trial 3 was stopped: None"),
        (try_twice, r"\w+ was tried 2 times"),
        (lose, "trials are missing: "),
        (lose_an_epoch, r"trial 3 is complete with epochs \[2, 3\]"),
        (leave_a_lease_open, "trial 3 has leases"),
        (lose_a_worker, "1 leases lost their worker, 0 were killed"),
    ],
)
def test_the_check_finds_one_loss(tmp_path: Path, damage: Callable[[Run], None], loss: str) -> None:
    run = make_run(tmp_path, fail_every=1000, max_trials=4)
    assert losses(run) == []
    damage(run)
    [found] = losses(run)
    assert re.match(loss, found)


def test_a_worker_that_was_killed_is_no_loss(tmp_path: Path) -> None:
    run = make_run(tmp_path, fail_every=1000, max_trials=4)
    lose_a_worker(run)
    assert losses(run, **{KILL_WORKER: 1}) == []


def test_a_failure_that_nobody_caused_is_a_loss(tmp_path: Path) -> None:
    run = make_run(tmp_path, fail_every=5, max_trials=4)
    assert losses(run) == [f"1 trials failed by {FAILURE}, which struck 0 times"]


def test_charges_must_be_what_the_program_says_and_no_more_than_there_was(tmp_path: Path) -> None:
    run = make_run(tmp_path, fail_every=1000, max_trials=4)
    [said, most] = find_losses(run, Counter(), spent=0.0, most_spent=0.0)
    assert said.endswith("device-seconds are charged, 0.0 are said to be spent")
    assert most.endswith("device-seconds are charged where there were 0")


@pytest.mark.slow
@with_all_strikes
@pytest.mark.xdist_group("ray_2")
def test_a_soak_in_which_every_fault_strikes_once_loses_nothing() -> None:
    command = [sys.executable, "-m", "benchmarks.soak", "--minutes", "0.275", "--every", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == f"{len(FAULTS)} faults, 0 losses"
