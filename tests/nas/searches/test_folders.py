"""A run's folder that is taken away or shared while a search writes in it, and a report that is cut off."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.nas.conftest import GoodRun
from tests.nas.gate import Gate
from tests.nas.programs import QUICK, ROOT, Outcome, Program, read_study, run_program
from tests.thorough import with_all_strikes

pytestmark = [pytest.mark.xdist_group("ray"), pytest.mark.slow]

COMMAND = (*QUICK, "--max-trials", "3")


@contextmanager
def replaced_by_a_file(folder: Path) -> Iterator[None]:
    """A file in the place of a folder."""
    aside = folder.with_name(f"{folder.name}-aside")
    folder.rename(aside)
    folder.write_text("", encoding="utf-8")
    try:
        yield
    finally:
        folder.unlink()
        aside.rename(folder)


@contextmanager
def unchangeable(folder: Path) -> Iterator[None]:
    """A folder in which root too makes and removes no file; skips the test where there is no such thing."""
    made = subprocess.run(["chattr", "+i", str(folder)], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"no folder can be made unchangeable here: {made.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", str(folder)], check=True)


def check_one_line(outcome: Outcome) -> None:
    assert outcome.code == 2, outcome.err
    [line] = outcome.err.splitlines()
    assert line.startswith("error: ")
    assert len(line) <= 300


@pytest.mark.parametrize("taken", [replaced_by_a_file, pytest.param(unchangeable, marks=with_all_strikes)])
def test_a_run_whose_folder_cannot_be_written_any_more_ends_in_one_line_and_goes_on(
    tmp_path: Path, taken: Callable[[Path], AbstractContextManager[None]], good_run: GoodRun
) -> None:
    gate = Gate(tmp_path / "gate")
    gate.open(0)
    run = tmp_path / "runs" / "taken"
    arguments = (*COMMAND, "--data", gate.data, "--name", run.name, "--runs", run.parent)
    with Program(*arguments, logs=tmp_path / "logs-1") as program:
        program.wait_until(gate.reached(1))
        with taken(run):
            gate.open_for_all()
            outcome = program.wait()
            program.wait_for_survivors()
    check_one_line(outcome)
    again = run_program(*arguments, logs=tmp_path / "logs")
    assert again.code == 0, again.err
    assert read_study(run).results == good_run.study.results


def test_a_search_that_is_killed_while_it_writes_its_report_has_a_whole_one_the_next_time(
    tmp_path: Path, good_run: GoodRun
) -> None:
    run = tmp_path / "runs" / "cut"
    arguments = (*COMMAND, "--json", "--name", run.name, "--runs", run.parent)
    with Program(*arguments, logs=tmp_path / "logs") as program:
        program.wait_until((run / "front").exists)
        program.kill()
        program.wait_for_survivors()
    assert read_study(run).results == good_run.study.results
    command = [sys.executable, "-m", "nas.report", str(run), "--json"]
    summary = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    files = {path.name for path in (good_run.folder / "front").iterdir()}
    assert {path.name for path in (run / "front").iterdir()} == files
    assert len(summary["front"]) == len(files)
    assert not list(run.rglob("*.part"))


def test_of_two_drivers_that_start_together_one_searches_and_nothing_is_lost(tmp_path: Path, good_run: GoodRun) -> None:
    run = tmp_path / "runs" / "both"
    arguments = (*COMMAND, "--name", run.name, "--runs", run.parent)
    with (
        Program(*arguments, logs=tmp_path / "logs-1") as first,
        Program(*arguments, logs=tmp_path / "logs-2") as second,
    ):
        outcomes = [first.wait(), second.wait()]
    refused = [outcome for outcome in outcomes if outcome.code]
    assert len(refused) <= 1  # none where one came to the lock when the other had ended
    for outcome in refused:
        check_one_line(outcome)
        assert "must not be in use by another program" in outcome.err
    assert read_study(run).results == good_run.study.results
