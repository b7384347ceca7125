"""What asks a program to end: Ctrl-C, SIGTERM (Kubernetes, Slurm, docker stop), and SIGHUP (a terminal that closes)."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_OUTPUTS = (1, 2)  # file descriptors


@contextmanager
def interruptible() -> Iterator[None]:
    """Inside, each of the signals is an ordinary KeyboardInterrupt."""
    before = _heeded()
    _set(before, signal.default_int_handler)
    try:
        yield
    finally:
        _restore(before)


@contextmanager
def guarded() -> Iterator[None]:
    """Undo what a block does to the handlers of the signals.

    Ray's start installs its own for SIGTERM: one that exits, and then one that prints a native stack trace and aborts.
    What it starts does not see SIGHUP, which a terminal sends to all; the program itself sees it after the block.
    """
    before = _heeded()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
    try:
        yield
    except SystemExit:
        raise KeyboardInterrupt from None
    finally:
        _restore(before)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextmanager
def held() -> Iterator[None]:
    """Let SIGTERM wait while a block installs handlers of its own, which are undone before it is delivered.

    Threads that the block starts never see it; `metaformer.cli.deaf_threads` is for those that were there before.
    """
    before = _heeded()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    try:
        yield
    finally:
        _restore(before)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextmanager
def heard() -> Iterator[None]:
    """Inside `held`: let SIGTERM come, also to processes that the block starts, which inherit whether it does."""
    mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextmanager
def stop_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Turn the first of the signals into a call of `stop`; after it only Ctrl-C is a KeyboardInterrupt.

    A terminal that closes may send SIGHUP twice, from the kernel and from its shell.
    After the first it is ignored until the program ends.
    """
    before = _heeded()
    terminals = [output for output in _OUTPUTS if os.isatty(output)]

    def ask(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            _write_to_nowhere(terminals)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        stop()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    _set(before, ask)
    try:
        yield
    finally:
        _restore(before)


_Handlers = dict[signal.Signals, Callable[[int, FrameType | None], object] | int | None]


def _heeded() -> _Handlers:
    """The signals and their handlers, but for a SIGHUP that is ignored, as under nohup.

    A shell lets programs in the background ignore SIGINT; whoever sends it to a search all the same means it.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    found: _Handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    if found[signal.SIGHUP] is signal.SIG_IGN:
        del found[signal.SIGHUP]
    return found


def _set(numbers: _Handlers, handler: Callable[[int, FrameType | None], object]) -> None:
    for number in numbers:
        signal.signal(number, handler)


def _restore(handlers: _Handlers) -> None:
    for number, handler in handlers.items():
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def _write_to_nowhere(outputs: list[int]) -> None:
    """Let what is printed vanish, since a terminal that was closed cannot be written to."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for output in outputs:
        os.dup2(nowhere, output)
    os.close(nowhere)
