"""Processes of a pool: they end when their program does, and not before it is told to."""

import os
import signal
import threading
from multiprocessing import parent_process


def belong_to_program() -> None:
    """Called in a process of a pool: leave Ctrl-C to the program, which ends the pool, and end when it was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_program, daemon=True, name="end-with-program").start()


def _end_with_program() -> None:
    """Without this a process whose program was killed would wait for work for ever."""
    program = parent_process()
    if program is not None:
        program.join()
        os._exit(1)
