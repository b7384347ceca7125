"""What asks a program to end, and what it does then."""

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nas.execution.signals import guarded, interruptible, stop_on_signals
from tests.nas.programs import PATIENCE, QUICK, ROOT

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PROGRAM = """
import os
import signal
import sys
from pathlib import Path
from time import sleep
from nas.execution.signals import stop_on_signals
asked = []
with stop_on_signals(lambda: asked.append(True)):
    print("runs", flush=True)
    while not asked:  # an Event that is set while it is waited for may wait for itself
        sleep(0.01)
    print("a summary", flush=True)
os.kill(os.getpid(), signal.SIGHUP)  # the shell's, after the kernel's
Path(sys.argv[1]).touch()
"""


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """Begin with the handlers of a program in a terminal, also under nohup, and put back those that were there."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def raise_in(number: int) -> None:
    with interruptible():
        os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_before_a_search_runs_each_is_a_keyboard_interrupt(number: int) -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with pytest.raises(KeyboardInterrupt):
        raise_in(number)
    assert [signal.getsignal(number) for number in SIGNALS] == before


@pytest.mark.parametrize("number", SIGNALS)
def test_while_it_runs_the_first_asks_to_stop_and_only_ctrl_c_breaks_off(number: int) -> None:
    asked: list[int] = []

    def run() -> None:
        with stop_on_signals(lambda: asked.append(number)):
            for each in (number, signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                os.kill(os.getpid(), each)

    with pytest.raises(KeyboardInterrupt):
        run()
    assert 1 <= len(asked) <= 3


def test_what_is_ignored_stays_so() -> None:
    """A program under nohup outlives its terminal."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        raise_in(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_handlers_that_a_block_installs_go_with_it() -> None:
    before = signal.getsignal(signal.SIGTERM)

    def start() -> None:
        with guarded():
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(15))
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        start()
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_program_whose_terminal_closes_comes_to_its_end(tmp_path: Path) -> None:
    master, terminal = pty.openpty()
    command = [sys.executable, "-c", _PROGRAM, str(tmp_path / "ended")]
    with subprocess.Popen(command, cwd=ROOT, stdout=terminal, stderr=terminal) as program:
        os.close(terminal)
        said = b""
        while not said.endswith(b"\n"):  # of what is still being written the rest would fail
            said += os.read(master, 100)
        assert said == b"runs\r\n"
        os.close(master)
        program.send_signal(signal.SIGHUP)
        try:
            assert program.wait(timeout=60) == 0
        finally:
            program.kill()  # or leaving the block would wait for a program that does not end
    assert (tmp_path / "ended").exists()


_TOLD_WHILE_RAY_STARTS = """
import os, signal, sys
from metaformer.cli import deaf_threads
with deaf_threads():
    import nas.launch
    from ray._private import worker
connect = worker.connect
def told(*args, **options):
    connect(*args, **options)
    os.kill(os.getpid(), signal.SIGTERM)  # Ray's native handler is installed, and ours is not yet back
worker.connect = told
from nas import cli
from nas.search import search
cli.run(search)
"""


@pytest.mark.slow
@pytest.mark.xdist_group("ray_2")
def test_sigterm_while_ray_starts_ends_the_program_and_does_not_abort_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _TOLD_WHILE_RAY_STARTS, *QUICK, "--runs", str(tmp_path / "runs")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (130, "")
    assert "measuring" not in done.stdout
    assert not (tmp_path / "runs").exists()
