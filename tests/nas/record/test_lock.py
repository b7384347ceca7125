"""One driver at a time: who is turned away, what it is told, and when a dead one is taken over."""

import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from nas.record import lock as driver
from nas.record.lock import lock_folder, lock_study
from nas.study.study import StudyError
from tests.nas.programs import PATIENCE, ROOT

_HOLDER = """
import sys
from pathlib import Path
from nas.record.lock import lock_folder, lock_study
with lock_folder(Path(sys.argv[1])), lock_study(sys.argv[2], "search"):
    print("holds", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'shared.db'}"


@pytest.fixture
def other(tmp_path: Path, url: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the folder and the study."""
    command = [sys.executable, "-c", _HOLDER, str(tmp_path), url]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "holds\n"
        yield process
        process.kill()


def change_row(url: str, **values: object) -> None:
    with create_engine(url, poolclass=NullPool).begin() as connection:
        for column, value in values.items():
            change = f"UPDATE metaformer_nas_drivers SET {column} = :value"  # noqa: S608  a name from this file
            connection.execute(text(change), {"value": value})


def test_a_driver_is_told_who_holds_what_it_wants_until_that_process_is_killed(
    tmp_path: Path, url: str, other: subprocess.Popen[str]
) -> None:
    holder = f"held by process {other.pid} on {re.escape(socket.gethostname())}, since 20.* UTC$"
    with ExitStack() as stack, pytest.raises(StudyError, match=f"^run: must not be in use by .*, got .*, {holder}"):
        stack.enter_context(lock_folder(tmp_path))
    with ExitStack() as stack, pytest.raises(StudyError, match=f"^storage: study search must not be .*, {holder}"):
        stack.enter_context(lock_study(url, "search"))
    with lock_study(url, "another"):
        pass
    other.kill()
    other.wait()
    with lock_folder(tmp_path), lock_study(url, "search"):
        pass


def test_a_driver_of_another_machine_is_taken_for_dead_when_it_gives_no_sign_for_minutes(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "BEAT_EVERY", 1e6)  # no sign of the outer one comes between
    with lock_study(url, "search"):
        change_row(url, host="elsewhere", pid=1)
        with ExitStack() as stack, pytest.raises(StudyError, match="held by process 1 on elsewhere"):
            stack.enter_context(lock_study(url, "search"))
        change_row(url, beat="2020-01-01 00:00:00")
        with lock_study(url, "search"):
            pass


def test_a_driver_that_was_taken_for_dead_is_told(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "BEAT_EVERY", 0.01)
    lost = threading.Event()
    with lock_study(url, "search") as hold:
        hold.on_lost = lost.set
        change_row(url, token="of another")  # noqa: S106  no password
        assert lost.wait(timeout=PATIENCE)
    change_row(url, pid=os.getppid())
    with ExitStack() as stack, pytest.raises(StudyError, match=f"held by process {os.getppid()}"):  # nothing freed
        stack.enter_context(lock_study(url, "search"))


def test_a_driver_that_lives_keeps_its_study(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "BEAT_EVERY", 0.01)
    with lock_study(url, "search"):
        change_row(url, host="elsewhere", beat="2020-01-01 00:00:00")
        with create_engine(url, poolclass=NullPool).connect() as connection:
            while connection.execute(text("SELECT beat FROM metaformer_nas_drivers")).scalar_one() < "2021":
                connection.rollback()
        with ExitStack() as stack, pytest.raises(StudyError, match="on elsewhere"):
            stack.enter_context(lock_study(url, "search"))
