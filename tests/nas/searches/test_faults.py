"""Searches that run out of room, or meet images that cannot be read, and go on with the same command."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.nas.conftest import GoodRun
from tests.nas.disks import disk
from tests.nas.gate import Gate
from tests.nas.images import write_folder
from tests.nas.programs import QUICK, Outcome, Program, read_study, run_program

pytestmark = [pytest.mark.xdist_group("ray"), pytest.mark.slow]

COMMAND = (*QUICK, "--max-trials", "3")


@pytest.fixture
def disk_of_16_mib(tmp_path: Path) -> Iterator[Path]:
    with disk(tmp_path / "disk", size="16m") as path:
        yield path


def fill_up(path: Path) -> Path:
    """A file that leaves no room on its disk."""
    ballast = path / "ballast"
    with pytest.raises(OSError, match="No space left"):
        ballast.write_bytes(bytes(2**24))
    return ballast


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    """Where each trial waits after its second epoch; trial 0 comes there first and passes."""
    gate = Gate(tmp_path / "gate")
    gate.open(0)
    return gate


def run_out_of_room(path: Path, gate: Gate, *arguments: object, logs: Path) -> tuple[Outcome, Path]:
    """A search whose disk is full from the second epoch of trial 1 on, and what fills the disk."""
    with Program(*arguments, logs=logs) as program:
        program.wait_until(gate.reached(1))
        ballast = fill_up(path)
        gate.open_for_all()
        return program.wait(), ballast


def check_one_line(outcome: Outcome, start: str) -> None:
    assert outcome.code == 2, outcome.err
    [line] = outcome.err.splitlines()
    assert line.startswith(f"error: {start}")


def test_a_disk_full_of_everything_ends_the_search_and_the_same_command_goes_on(
    disk_of_16_mib: Path, tmp_path: Path, gate: Gate, good_run: GoodRun
) -> None:
    arguments = (*COMMAND, "--data", gate.data, "--name", "full", "--runs", disk_of_16_mib)
    outcome, ballast = run_out_of_room(disk_of_16_mib, gate, *arguments, logs=disk_of_16_mib / "logs")
    check_one_line(outcome, "")
    assert "must" in outcome.err
    assert not [path.name for path in disk_of_16_mib.rglob("*.part")]
    ballast.unlink()
    again = run_program(*arguments, logs=tmp_path / "logs")
    assert again.code == 0, again.err
    assert read_study(disk_of_16_mib / "full").results == good_run.study.results


def test_a_full_disk_of_checkpoints_interrupts_the_trials_that_write_to_it(
    disk_of_16_mib: Path, tmp_path: Path, gate: Gate, good_run: GoodRun
) -> None:
    """The checkpoints lie at a URI; the study does not, and says how the lease ended."""
    study = tmp_path / "study.yaml"
    study.write_text(yaml.safe_dump({"checkpoints": f"file://{disk_of_16_mib}/of-this-run"}), encoding="utf-8")
    arguments = (*COMMAND, "--data", gate.data, "--study", study, "--name", "full", "--runs", tmp_path / "runs")
    run = tmp_path / "runs" / "full"
    outcome, ballast = run_out_of_room(disk_of_16_mib, gate, *arguments, logs=tmp_path / "logs-1")
    check_one_line(outcome, "checkpoints: must be writable and have room, got file://")
    assert (run / "report.html").exists()
    _, trial = read_study(run).trials
    assert trial.user_attrs["progress"]["leases"][-1]["end"] == "interrupted"
    ballast.unlink()
    again = run_program(*arguments, logs=tmp_path / "logs")
    assert again.code == 0, again.err
    assert read_study(run).results == good_run.study.results
    assert not (run / "checkpoints").exists()
    assert list(disk_of_16_mib.glob("of-this-run/*/weights.pt"))


def test_a_bad_image_stops_the_search_and_is_skipped_where_that_is_asked_for(tmp_path: Path) -> None:
    counts = {"a": 30, "b": 30}
    root = write_folder(tmp_path / "data", train=counts, val={"a": 5, "b": 5})
    bad = root / "val/b/3.jpg"  # of the test split, which is looked at last
    bad.write_bytes(b"not an image")
    study = tmp_path / "study.yaml"
    study.write_text(yaml.safe_dump({"bad_images": "skip"}), encoding="utf-8")
    quick = ("--data", f"folder:{root}", "--resolution", "32", "--batch-size", "16", "--epochs", "1", "--workers", "1")
    quick += ("--references", "none", "--max-trials", "1", "--max-macs", "9M", "--budget", "9cpu-hours")
    arguments = (*quick, "--name", "bad", "--runs", tmp_path / "runs")
    stopped = run_program(*arguments, logs=tmp_path / "logs-1")
    check_one_line(stopped, f"image: must be readable, got '{bad}'")
    skipped = run_program(*arguments, "--study", study, logs=tmp_path / "logs-2")
    assert skipped.code == 0, skipped.err
    assert "1 image could not be read and took no part: val/b/3.jpg" in skipped.out
    study_left = read_study(tmp_path / "runs" / "bad")
    assert study_left.notes["images_left_out"] == ["val/b/3.jpg"]
    assert study_left.notes["test_accuracy:0"] in [n / 9 for n in range(10)]  # of the other images
