"""Searches whose epochs are long: cut short within one, they go on from there."""

import signal
from pathlib import Path

import pytest

from tests.nas.gate import Gate
from tests.nas.programs import QUICK, Program, progress_seen
from tests.thorough import with_all_strikes

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ray_2")]


def sign_of(run: Path) -> dict[str, object] | None:
    """The newest checkpoint within an epoch that the study knows of."""
    signs = [progress["sign"] for progress in progress_seen(run)]
    return signs[-1] if signs else None


@pytest.mark.parametrize("cut", ["ctrl_c", pytest.param("terminate", marks=with_all_strikes), "kill"])
def test_what_was_trained_of_the_epoch_is_kept(tmp_path: Path, cut: str) -> None:
    """Each step leaves a checkpoint; the program ends within the first epoch, and the next lease begins there."""
    gate = Gate(tmp_path / "gate", data="tests.nas.gated_within")
    arguments = (*QUICK, "--data", gate.data, "--batch-size", 64, "--epochs", 2, "--max-trials", 1)
    arguments += ("--references", "none", "--checkpoint-every", "0.001s", "--runs", tmp_path, "--name", "run")
    run = tmp_path / "run"
    with Program(*arguments, logs=tmp_path / "logs-1") as program:
        program.wait_until(lambda: gate.reached(0)() and sign_of(run) is not None)
        if cut == "kill":
            program.kill()
        else:
            program.press_ctrl_c() if cut == "ctrl_c" else program.send(signal.SIGTERM)
            gate.open(0)
            assert program.wait().code == 0
            program.wait_for_survivors()
    sign = sign_of(run)
    assert sign is not None
    assert (run / "checkpoints" / "00000" / str(sign["checkpoint"])).exists()
    assert progress_seen(run)[0]["curve"] == []
    gate.open_for_all()
    with Program(*arguments, logs=tmp_path / "logs-2") as program:
        assert program.wait().code == 0
    [progress] = progress_seen(run)
    assert [report["epoch"] for report in progress["curve"]] == [1, 2]
    assert progress["sign"] is None
    assert [lease["end"] for lease in progress["leases"]] == ["interrupted", "complete"]
