"""For how many trials at a time a cluster has devices, and whether its head answers; asked without ray."""

import os
import re
import socket
import sys
import threading
from collections.abc import Callable
from typing import Self

from metaformer.errors import shown
from nas.study.study import StudyError

_LARGEST_PORT = 65535
_LOOK_EVERY = 1.0  # seconds between looks at the cluster
_HEAD_PATIENCE = 30.0  # seconds without an answer of the head; ray itself breaks the program off after 60


class Slots:
    """Trials at a time that the cluster has devices for, while nodes come and go. A context manager.

    Where the head stops answering nothing can be saved any more but the record, and that is on disk: the program ends
    before ray breaks it off, with a line that says why.
    """

    def __init__(self, count: Callable[[], int], *, head: str, number: int) -> None:
        """Begin to look when the context is entered.

        Args:
            count: Says how many trials fit now; OSError where that cannot be known.
            head: `host:port` of the cluster's head.
            number: Trials that fit, until the first look.
        """
        self.number = number
        self._count = count
        self._head = head
        self._unanswered = 0.0  # seconds of looking without an answer; a program that was suspended has not looked
        self._ended = threading.Event()
        self._asker, self._watch = (threading.Thread(target=run, daemon=True) for run in (self._ask, self._wait))

    def __enter__(self) -> Self:
        self._asker.start()
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._watch.join()

    def _ask(self) -> None:
        while not self._ended.wait(_LOOK_EVERY):
            try:
                check_answers(self._head)
                self.number = self._count()
                self._unanswered = 0.0
            except OSError:
                self.number = 0  # what is lost now is tried again once the head is back

    def _wait(self) -> None:
        """Give up where nothing answers; a thread of its own, since a question to a lost head may never return."""
        while self._asker.is_alive():
            self._asker.join(_LOOK_EVERY)
            self._unanswered += _LOOK_EVERY
            if self._unanswered > _HEAD_PATIENCE:
                self._give_up()

    def _give_up(self) -> None:
        sys.stderr.write(
            f"error: ray_address: head {self._head} must keep answering, got nothing for {_HEAD_PATIENCE:.0f} s; "
            "the record is whole, and the same command on a running cluster goes on\n"
        )
        sys.stderr.flush()
        os._exit(2)  # ray's calls never return now, those that would end it neither


def check_address(address: str | None) -> None:
    """Check that a cluster can have this address.

    Raises:
        StudyError: None can.
    """
    if address is None or address == "auto":
        return
    if "://" in address:
        raise StudyError(
            "ray_address: must be auto or host:port of a machine of the cluster, since ray's client cannot carry a "
            f"search, got {shown(address)}"
        )
    host, _, port = address.rpartition(":")
    is_port = re.fullmatch("[0-9]{1,5}", port) and int(port) <= _LARGEST_PORT
    if not host or not host.isprintable() or " " in host or not is_port:
        raise StudyError(f"ray_address: must be auto or host:port, got {shown(address)}")


def check_answers(address: str | None) -> None:
    """Check that something answers at `host:port`; ray itself would try for minutes.

    Raises:
        OSError: Nothing does.
        ValueError: The address is none.
    """
    host, _, port = (address or "").rpartition(":")
    if host:
        socket.create_connection((host, int(port)), timeout=10).close()
