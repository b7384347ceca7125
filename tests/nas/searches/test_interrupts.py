"""Searches that are cut short, by Ctrl-C and by kill -9, and gone on with; and checkpoints that were damaged meanwhile.

One study goes through all of it: interrupted in trial 1, robbed of its worker in trial 2, killed in trial 3, and at
last left to end. It has the seed of the search that nobody disturbed, so the two must agree.
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from nas.data import open_dataset
from nas.record.trials import TrialState
from nas.session.session import Decision
from nas.study.study import Study
from nas.training.loop import train
from tests.nas.conftest import GoodRun
from tests.nas.gate import Gate
from tests.nas.programs import QUICK, Outcome, Program, Recorded, lease_seconds, read_study
from tests.nas.runs import open_folder

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ray")]


class Part(NamedTuple):
    """One start of the program, and the study after it."""

    folder: Path
    outcome: Outcome | None  # None: it was killed
    study: Recorded


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Gate:
    """Where each trial waits after its second epoch; trial 0 comes there first and passes."""
    gate = Gate(tmp_path_factory.mktemp("gates") / "gate")
    gate.open(0)
    return gate


def start(runs: Path, gate: Gate, *, logs: Path) -> Program:
    arguments = (*QUICK, "--data", gate.data, "--max-trials", 3, "--runs", runs, "--name", "disturbed")
    return Program(*arguments, logs=logs)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def interrupted(runs: Path, gate: Gate) -> Part:
    """Ctrl-C while trial 1 trains."""
    with start(runs, gate, logs=runs / "logs-1") as program:
        program.wait_until(gate.reached(1))
        program.press_ctrl_c()
        gate.open(1)
        outcome = program.wait()
        program.wait_for_survivors()
    return Part(runs / "disturbed", outcome, read_study(runs / "disturbed"))


@pytest.fixture(scope="module")
def killed(interrupted: Part, runs: Path, gate: Gate) -> Part:
    """The same command again, kill -9 of the worker in trial 2, of the driver in trial 3; a copy of what that left."""
    with start(runs, gate, logs=runs / "logs-2") as program:
        program.wait_until(gate.reached(2))
        program.kill_worker()
        gate.open(3)  # trial 2 comes again
        program.wait_until(gate.reached(4))
        program.kill()
        copy = shutil.copytree(interrupted.folder, runs / "copy")
    return Part(copy, None, read_study(interrupted.folder))


@pytest.fixture(scope="module")
def completed(killed: Part, interrupted: Part, runs: Path, gate: Gate) -> Part:
    """The same command once more, to its end."""
    gate.open_for_all()
    with start(runs, gate, logs=runs / "logs-3") as program:
        outcome = program.wait()
    return Part(interrupted.folder, outcome, read_study(interrupted.folder))


def leases(study: Recorded, number: int) -> list[tuple[int, str | None]]:
    """Number and end of each lease of a trial."""
    return [(lease["attempt"], lease["end"]) for lease in study.trials[number].user_attrs["progress"]["leases"]]


def test_ctrl_c_ends_the_program_with_a_summary_and_code_0(interrupted: Part) -> None:
    assert interrupted.outcome is not None
    assert interrupted.outcome.code == 0, interrupted.outcome.err
    assert interrupted.outcome.err == ""
    said = " ".join(interrupted.outcome.out.split())
    assert "1 done, 0 running, 0 stopped, 1 waiting" in said
    assert "the same command goes on with what is left of the budget" in said
    assert (interrupted.folder / "report.html").exists()


def test_ctrl_c_leaves_the_running_trial_ready_to_go_on(interrupted: Part) -> None:
    assert [trial.state.name for trial in interrupted.study.trials] == ["COMPLETE", "RUNNING"]
    assert leases(interrupted.study, 1) == [(1, "interrupted")]


def test_the_trial_before_ctrl_c_is_that_of_another_search_with_this_seed(interrupted: Part, good_run: GoodRun) -> None:
    assert interrupted.study.results[0] == good_run.study.results[0]


def test_after_ctrl_c_the_same_command_completes_the_trial_from_its_checkpoint(
    interrupted: Part, killed: Part, good_run: GoodRun
) -> None:
    assert killed.study.results[0] == interrupted.study.results[0]
    assert leases(killed.study, 1) == [(1, "interrupted"), (2, "complete")]
    assert killed.study.results[1] == good_run.study.results[1]
    assert lease_seconds(killed.study.trials[1])[0] == lease_seconds(interrupted.study.trials[1])[0]


def test_a_lost_worker_is_replaced_and_its_trial_goes_on_from_its_checkpoint(killed: Part, good_run: GoodRun) -> None:
    assert leases(killed.study, 2) == [(1, "lost"), (2, "complete")]
    assert killed.study.results[2] == good_run.study.results[2]


def test_kill_leaves_what_was_reported_in_the_study(killed: Part) -> None:
    assert [trial.state.name for trial in killed.study.trials] == ["COMPLETE"] * 3 + ["RUNNING"]
    assert leases(killed.study, 3) == [(1, None)]
    assert lease_seconds(killed.study.trials[3])[0] > 0


def test_after_kill_the_same_command_loses_no_trial_and_makes_none_twice(completed: Part, good_run: GoodRun) -> None:
    assert completed.outcome is not None
    assert completed.outcome.code == 0, completed.outcome.err
    assert leases(completed.study, 3) == [(1, "interrupted"), (2, "complete")]
    assert completed.study.results == good_run.study.results


def test_spent_time_never_falls(interrupted: Part, killed: Part, completed: Part) -> None:
    assert interrupted.study.spent < killed.study.spent < completed.study.spent


def truncate(checkpoint: Path) -> None:
    """Half of the file is lost."""
    checkpoint.write_bytes(checkpoint.read_bytes()[: checkpoint.stat().st_size // 2])


class Payload:
    """What runs a command where it is unpickled."""

    def __init__(self, written: Path) -> None:
        self.written = written

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return (Path.touch, (self.written,))


def lace(checkpoint: Path) -> None:
    """The file is replaced by one that carries code."""
    payload = Payload(checkpoint.with_name("written"))
    torch.save({"version": 1, "epoch": 1, "model": payload, "optimizer": {}}, checkpoint)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Torch on one core, as in a worker of Ray."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("damage", [truncate, lace, Path.unlink])
def test_a_damaged_checkpoint_costs_an_epoch_and_no_trial(
    killed: Part, good_run: GoodRun, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    """The session, the record and the training are real; a loop stands for Ray, whose start takes ten seconds."""
    folder = shutil.copytree(killed.folder, tmp_path / "run")
    study = Study.from_file(folder / "study.yaml")
    run, session = open_folder(folder, study)
    [trial] = [trial for trial in run.record if trial.state is TrialState.RUNNING]
    name = trial.progress.curve[-1].checkpoint
    checkpoint = folder / "checkpoints" / f"{trial.checkpoint_trial:05d}" / name
    damage(checkpoint)
    dataset = open_dataset("digits", resolution=study.settings.resolution)
    while (lease := session.next()) and lease.task == "train":
        for report in train(lease, dataset, device=torch.device("cpu")):
            if session.report(lease.name, report, device_seconds=report.epoch) is Decision.STOP:
                session.finish(lease.name, device_seconds=report.epoch)
    [event] = session.events
    assert str(event).startswith(f"trial 3: checkpoint {name} could not be read (")
    assert read_study(folder).results == good_run.study.results
    assert not checkpoint.with_name("written").exists()
