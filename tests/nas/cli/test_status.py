"""Where a search stands: told from outside, in every state that a run can be in, and nothing is written."""

import hashlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import typer

from nas.record.lock import STALE_AFTER, Driver, lock_folder
from nas.record.run_folder import open_run
from nas.session.cost_model import CostModel
from nas.session.session import Session
from nas.status import STOPPED, status
from nas.study.lease import Lease, Report, Sign, Speed
from tests.nas.gate import Gate
from tests.nas.programs import PATIENCE, QUICK, ROOT, Program, listening_to_ctrl_c
from tests.nas.runs import NUM_IMAGES, make_run, make_study, open_folder

_HOLDER = """
import sys
from contextlib import ExitStack
from pathlib import Path
from nas.record.lock import lock_folder, lock_study
with ExitStack() as stack:
    stack.enter_context(lock_folder(Path(sys.argv[1])))
    if len(sys.argv) > 2:
        stack.enter_context(lock_study(sys.argv[2], sys.argv[3]))
    print("holds", flush=True)
    sys.stdin.read()
"""
SPEED = Speed(base=1e-4, per_gmac=0.05)
KEYS = {
    None: {"version", "run", "folder", "at", "state", "study", "budget", "rate", "expected_end", "driver", "trials"}
    | {"running", "testing", "hypervolume", "outlook", "front", "log"},
    "study": {"space", "data", "recipe", "epochs", "objectives", "sampler", "stopper", "confirm", "until", "seed"},
    "budget": {"text", "device", "device_seconds"}
    | {f"{part}_device_seconds" for part in ("spent", "lost", "confirm", "reserved", "unreported", "left")},
    "rate": {"trials_per_hour", "device_seconds_per_second", "over_seconds"},
    "driver": {"alive", "host", "pid", "since", "last_sign_of_life"},
    "trials": {"complete", "running", "stopped", "failed", "waiting"},
}


@contextmanager
def driver_of(folder: Path, *shared: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds a run as its driver does, until its input is closed."""
    command = [sys.executable, "-c", _HOLDER, str(folder), *shared]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "holds\n"
        yield process
        process.kill()


def kill(driver: subprocess.Popen[str]) -> None:
    driver.kill()
    driver.wait()


def next_lease(session: Session) -> Lease:
    lease = session.next()
    assert lease is not None
    return lease


def report(epoch: int) -> Report:
    return Report(epoch=epoch, val_accuracy=epoch / 10, train_loss=1.0, checkpoint=f"{epoch}.pt")


def begin(path: Path, **changes: object) -> Session:
    """A search in its second trial, which has come to 30 % of its second epoch; the first is complete."""
    run, session = open_folder(path, make_study(**changes))
    run.record.note(num_images=NUM_IMAGES, speed=SPEED.model_dump())
    first = next_lease(session)
    for epoch in (1, 2, 3):
        session.report(first.name, report(epoch), device_seconds=float(epoch))
    session.finish(first.name, device_seconds=3.5)
    second = next_lease(session)
    session.report(second.name, report(1), device_seconds=1.0)
    session.sign(second.name, Sign(step=30, num_steps=100), device_seconds=1.25)
    session.beat({second.name: 1.75})
    run.record.close()
    return session


def ask(folder: Path, capsys: pytest.CaptureFixture[str], **options: Any) -> tuple[int, dict[str, Any]]:
    """The exit code of the program, and what it says in JSON."""
    capsys.readouterr()
    code = 0
    try:
        status(str(folder), as_json=True, **options)
    except typer.Exit as ended:
        code = ended.exit_code
    return code, json.loads(capsys.readouterr().out)


def digests(folder: Path) -> dict[str, str]:
    """Of all files below a folder, but for the index that SQLite shares between processes and may make anew."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".db-shm"
    }


def test_a_search_that_runs_tells_its_driver_its_trials_and_its_budget(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    session = begin(folder)
    with driver_of(folder) as driver:
        before = digests(folder)
        code, said = ask(folder, capsys)
        assert digests(folder) == before
    assert (code, said["state"], said["run"]) == (0, "running", "run")
    told = said["driver"]
    assert (told["alive"], told["host"], told["pid"]) == (True, socket.gethostname(), driver.pid)
    assert told["since"] <= said["at"]
    [trial] = said["running"]
    assert (trial["trial"], trial["attempt"], trial["epoch"], trial["epoch_fraction"]) == (1, 1, 1, 0.3)
    assert (trial["val_accuracy"], trial["device_seconds"]) == (0.1, 1.25)
    assert said["trials"] == {"complete": 1, "running": 1, "stopped": 0, "failed": 0, "waiting": 1}
    budget = said["budget"]
    assert budget["spent_device_seconds"] == pytest.approx(4.75)
    assert budget["left_device_seconds"] == pytest.approx(360 - 4.75)
    assert budget["unreported_device_seconds"] == pytest.approx(0.5)
    costs = CostModel(SPEED, NUM_IMAGES, correction=session.record.notes.correction)
    macs = session.record.trials[1].macs
    assert budget["reserved_device_seconds"] == pytest.approx(costs.train_seconds(macs, epochs=1) * (3 - 1.3))
    assert [member["trial"] for member in said["front"]] == [0]


def test_the_json_has_the_keys_that_are_promised(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    begin(folder)
    with lock_folder(folder):
        said = ask(folder, capsys)[1]
    for part, keys in KEYS.items():
        assert set(said if part is None else said[part]) == keys, part


def test_a_driver_that_was_killed_leaves_a_search_that_is_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    begin(folder)
    with driver_of(folder) as driver:
        kill(driver)
        before = digests(folder)
        code, said = ask(folder, capsys)
        assert digests(folder) == before
    assert (code, said["state"]) == (STOPPED, "stopped")
    assert (said["driver"]["alive"], said["driver"]["pid"]) == (False, driver.pid)
    assert said["running"] == []
    assert said["trials"]["waiting"] == 2  # its trial, and a hand-designed model
    assert said["budget"]["reserved_device_seconds"] == 0
    assert said["expected_end"] is None


def test_a_driver_that_was_stopped_leaves_a_search_that_is_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    begin(folder)
    with lock_folder(folder):
        pass
    code, said = ask(folder, capsys)
    assert (code, said["state"], said["driver"]) == (STOPPED, "stopped", None)


def test_a_search_that_came_to_its_end_has_ended_also_with_budget_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    run = make_run(folder, max_trials=3)
    run.record.close()
    before = digests(folder)
    code, said = ask(folder, capsys)
    assert (code, said["state"]) == (0, "ended")
    assert said["budget"]["left_device_seconds"] > 0
    assert digests(folder) == before
    assert {member["trial"] for member in said["front"]} <= {trial.number for trial in run.record.complete}


def test_a_search_that_is_taken_up_again_has_not_ended_until_it_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    make_run(folder, max_trials=3).record.close()
    run, session = open_folder(folder, make_study(max_trials=5))
    assert session.next() is not None
    run.record.close()
    assert ask(folder, capsys)[1]["state"] == "stopped"


@pytest.mark.parametrize(
    ("notes", "state"),
    [
        ({"overhead_device_seconds": 400.0}, "ended"),  # the budget is spent
        ({"speed": {"base": 1e3, "per_gmac": 0.0}}, "ended"),  # what is left pays for no trial
        ({"speed": {"base": 1e-6, "per_gmac": 0.0}}, "stopped"),
        ({}, "stopped"),
    ],
)
def test_a_study_of_before_ends_were_noted_is_judged_by_what_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], notes: dict[str, object], state: str
) -> None:
    run = make_run(tmp_path / "run", max_trials=3)
    run.record.note(finished=False, **notes)
    run.record.close()
    code, said = ask(run.folder.path, capsys)
    assert (code, said["state"]) == (STOPPED if state == "stopped" else 0, state)


@pytest.mark.parametrize("is_fresh", [True, False])
def test_a_driver_of_another_machine_lives_as_long_as_the_study_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], is_fresh: bool
) -> None:
    folder = tmp_path / "run"
    begin(folder)
    (folder / ".driver").write_text(Driver(host="elsewhere", pid=1, since="some day").model_dump_json())
    if not is_fresh:
        long_ago = (folder / "study.db").stat().st_mtime - 2 * STALE_AFTER.total_seconds()
        os.utime(folder / "study.db", (long_ago, long_ago))
    code, said = ask(folder, capsys)
    assert (said["state"], code) == (("running", 0) if is_fresh else ("stopped", STOPPED))
    assert (said["driver"]["host"], said["driver"]["since"]) == ("elsewhere", None)


def test_a_shared_database_tells_of_the_driver_without_its_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, folder = f"sqlite:///{tmp_path / 'shared.db'}", tmp_path / "run"
    begin(folder, storage=url, storage_name="run-1")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(folder / "study.yaml", elsewhere)
    assert ask(elsewhere, capsys)[1]["driver"] is None  # nor is there a table of drivers yet
    with driver_of(folder, url, "run-1") as driver:
        code, said = ask(elsewhere, capsys)
        assert (code, said["state"], said["driver"]["pid"]) == (0, "running", driver.pid)
        kill(driver)
        code, said = ask(elsewhere, capsys)
        assert (code, said["state"], said["driver"]["alive"]) == (STOPPED, "stopped", False)
    assert list(elsewhere.iterdir()) == [elsewhere / "study.yaml"]


def test_a_run_on_a_disk_that_cannot_be_written_is_told_of(
    tmp_path: Path, small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begin(tmp_path / "run")
    shutil.copytree(tmp_path / "run", small_disk / "run")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert ask(small_disk / "run", capsys)[1]["trials"]["waiting"] == 2


def test_it_reads_while_a_driver_is_in_the_middle_of_a_write(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    begin(folder)
    with closing(sqlite3.connect(folder / "study.db", isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("DELETE FROM trial_user_attributes")
        assert ask(folder, capsys)[1]["trials"]["complete"] == 1
        writer.execute("ROLLBACK")


def test_the_text_says_the_same_line_by_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    begin(folder)
    (folder / "run.log").write_text("".join(f"line {i}\x1b[31m\n" for i in range(9)), encoding="utf-8")
    with lock_folder(folder):
        status(str(folder), lines=2)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"running  process {os.getpid()} on {socket.gethostname()}, since 20")
    titles = [line.split()[0] for line in lines]
    assert titles[1:6] == ["study", "recipe", "budget", "rate", "trials"]
    assert "6cpu-minutes: 4.75cpu-seconds spent, " in lines[3]
    assert lines[5] == "trials   1 done, 1 running, 0 stopped, 0 failed, 1 waiting"
    assert lines[6].startswith("trial    metaformer_ppaa_s12_224: ")
    assert lines[6].endswith(", epoch 1.3 of 3, 10.00%, attempt 1")
    assert "Pareto front: 1 architecture" in lines
    assert lines[-2:] == ["log      line 7\\x1b[31m", "log      line 8\\x1b[31m"]


def test_a_killed_driver_is_named_with_what_it_left_unreported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    begin(folder)
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    note = Driver(host=socket.gethostname(), pid=gone.pid, since="2026-01-01 12:00:00 UTC")
    (folder / ".driver").write_text(note.model_dump_json())
    with pytest.raises(typer.Exit):
        status(str(folder))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"stopped  process {gone.pid} on ")
    assert ", was killed; last sign of life " in lines[0]
    assert lines[3].endswith("; 0.5cpu-seconds more were used when the driver was killed")


@contextmanager
def watching(folder: Path, driver: ExitStack) -> Iterator[subprocess.Popen[str]]:
    """A process that watches a run, and has shown it once; until `driver` is closed, this process is its driver."""
    driver.enter_context(lock_folder(folder))
    command = [sys.executable, "-m", "nas.status", str(folder), "--watch", "0.05"]
    with listening_to_ctrl_c():
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("running ")
            yield process
        finally:
            process.kill()


@pytest.mark.slow
def test_a_watch_ends_when_the_driver_does(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    begin(folder)
    with ExitStack() as driver, watching(folder, driver) as watch:
        driver.close()
        out, errors = watch.communicate(timeout=PATIENCE)
    assert (watch.returncode, errors) == (STOPPED, "")
    blocks = [block.split()[0] for block in out.split("\n\n") if block.strip()]
    assert blocks[-1] == "stopped"
    assert set(blocks[1:-1]) <= {"running"}


@pytest.mark.slow
def test_ctrl_c_ends_a_watch_and_is_no_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    begin(folder)
    with ExitStack() as driver, watching(folder, driver) as watch:
        watch.send_signal(signal.SIGINT)
        errors = watch.communicate(timeout=PATIENCE)[1]
        assert ask(folder, capsys)[1]["state"] == "running"
    assert (watch.returncode, errors) == (0, "")


@pytest.mark.slow
def test_a_watch_of_a_search_that_has_ended_shows_it_once(tmp_path: Path) -> None:
    make_run(tmp_path / "run", max_trials=2).record.close()
    command = [sys.executable, "-m", "nas.status", str(tmp_path / "run"), "--watch"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("ended ")
    assert done.stdout.count("Pareto front") == 1


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
def test_a_real_search_is_followed_from_its_second_epoch_over_a_kill_to_its_end(tmp_path: Path) -> None:
    gate, folder = Gate(tmp_path / "gate"), tmp_path / "run"
    arguments = (*QUICK, "--references", "none", "--data", gate.data, "--max-trials", 2)
    arguments += ("--runs", tmp_path, "--name", "run")

    def ask_from_outside() -> tuple[int, dict[str, Any]]:
        command = [sys.executable, "-m", "nas.status", str(folder), "--json"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.stderr == ""
        return done.returncode, json.loads(done.stdout)

    with Program(*arguments, logs=tmp_path / "logs-1") as program:
        program.wait_until(lambda: gate.reached(0)() and (folder / "study.yaml").exists())
        code, said = ask_from_outside()
        assert (code, said["state"], said["driver"]["pid"]) == (0, "running", program.pid)
        [trial] = said["running"]
        assert (trial["trial"], trial["attempt"], trial["epoch"]) == (0, 1, 2)
        assert said["budget"]["reserved_device_seconds"] > 0
        assert said["rate"]["device_seconds_per_second"] > 0
        assert "trial 0 begins, attempt 1" in said["log"][-1]
        program.kill()
        assert ask_from_outside()[0] == STOPPED
    gate.open_for_all()
    with Program(*arguments, logs=tmp_path / "logs-2") as program:
        assert program.wait().code == 0
    code, said = ask_from_outside()
    assert (code, said["state"], said["driver"]) == (0, "ended", None)
    assert said["trials"] == {"complete": 2, "running": 0, "stopped": 0, "failed": 0, "waiting": 0}
    assert said["rate"]["trials_per_hour"] > 0
    assert next(iter(open_run(folder).record)).progress.leases[0].end == "interrupted"
