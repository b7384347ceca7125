"""SIGTERM and SIGHUP do what one Ctrl-C does."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.nas.gate import Gate
from tests.nas.programs import QUICK, Program, read_study

pytestmark = pytest.mark.xdist_group("ray_2")

COMMAND = (*QUICK, "--max-trials", 3, "--name", "ended")


def terminate(program: Program) -> None:
    program.send(signal.SIGTERM)


@pytest.mark.slow
@pytest.mark.parametrize("end", [terminate, Program.close_terminal])
def test_in_a_trial_it_reports_is_saved_and_can_go_on(tmp_path: Path, end: Callable[[Program], None]) -> None:
    run = tmp_path / "runs" / "ended"
    gate = Gate(tmp_path / "gate")
    with Program(*COMMAND, "--data", gate.data, "--runs", run.parent, logs=tmp_path / "logs") as program:
        program.wait_until(gate.reached(0))
        end(program)
        gate.open(0)
        outcome = program.wait()
        program.wait_for_survivors()
    assert outcome.code == 0, outcome.err
    assert outcome.err == ""
    assert "the same command goes on with what is left of the budget" in " ".join(outcome.out.split())
    [trial] = read_study(run).trials
    assert trial.state.name == "RUNNING"
    assert [lease["end"] for lease in trial.user_attrs["progress"]["leases"]] == ["interrupted"]
    assert (run / "report.html").exists()


@pytest.mark.slow
def test_before_anything_runs_it_ends_the_program_without_a_trace(tmp_path: Path) -> None:
    """Where Ray has started, measuring is what it ends."""
    with Program(*COMMAND, "--runs", tmp_path / "runs", logs=tmp_path / "logs") as program:
        program.wait_until(lambda: program.says("measuring the speed"))
        terminate(program)
        outcome = program.wait()
        program.wait_for_survivors()
    assert outcome.code == 130
    assert outcome.err == ""
    assert not (tmp_path / "runs").exists()
