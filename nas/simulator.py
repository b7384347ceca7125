"""A session in virtual time: the decisions of a search without its training.

Learning curves come from a table that the project's own trainer has recorded, or are made up. A device is busy from a
lease's start to its end; the driver answers one event at a time.
"""

import csv
import heapq
import itertools
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, Protocol

from metaformer.architecture import Architecture
from metaformer.documents import read_text
from nas.lease import Lease, Report
from nas.session import Decision, Session
from nas.study import StudyError
from search_spaces.space import SearchSpace

_TEST_SHARE = 0.1  # of an epoch's time, for evaluating on the test split


class Curve(NamedTuple):
    """How an architecture does when it is trained to full length."""

    epoch_seconds: float  # on one device
    val_accuracies: tuple[float, ...]  # after each epoch


class Curves(Protocol):
    """Where the simulator reads how an architecture does."""

    def curve(self, architecture: Architecture) -> Curve: ...


class CurveTable:
    """Recorded learning curves by architecture, as `benchmarks/record_curves.py` writes them."""

    def __init__(self, path: Path, space: SearchSpace) -> None:
        """Read a CSV file of a space's genes, seconds an epoch and accuracies.

        Raises:
            StudyError: There is no such file, or it is no such table.
        """
        text = read_text(path, "curves", error=StudyError)
        self._curves: dict[str, Curve] = {}
        self.architectures: list[Architecture] = []
        try:
            for row in csv.DictReader(text.splitlines()):
                architecture = space.decode(json.loads(row["genes"]))
                accuracies = tuple(float(row[name]) for name in row if name.startswith("epoch_") and name[6:].isdigit())
                self._curves[architecture.digest] = Curve(float(row["epoch_seconds"]), accuracies)
                self.architectures.append(architecture)
        except (KeyError, TypeError, ValueError) as error:
            raise StudyError(
                f"curves: must be a table of genes, epoch_seconds, epoch_1, …, got {path} ({error})"
            ) from None

    @property
    def num_epochs(self) -> int:
        """Epochs of the longest curve."""
        return max(len(curve.val_accuracies) for curve in self._curves.values())

    def curve(self, architecture: Architecture) -> Curve:
        """The recorded curve.

        Raises:
            StudyError: It was not recorded.
        """
        if architecture.digest not in self._curves:
            raise StudyError(f"curves: must hold every architecture tried, got none of {architecture.digest}")
        return self._curves[architecture.digest]


@dataclass
class Simulated:
    """What a simulated search took."""

    seconds: float = 0.0  # from its start to its end, virtual
    busy_seconds: float = 0.0  # device-seconds in leases, virtual
    driver_seconds: float = 0.0  # in the session, real
    num_events: int = 0
    hypervolumes: list[tuple[float, float]] = field(default_factory=list)  # (device-seconds so far, hypervolume)


class Simulator:
    """Carries out the leases of a session on devices that exist in virtual time only."""

    def __init__(
        self,
        session: Session,
        curves: Curves,
        *,
        num_devices: int,
        slowness: Mapping[int, float] | None = None,
        driver_takes_time: bool = False,
        keeps_history: bool = True,
    ) -> None:
        """Take a session that has not begun.

        Args:
            slowness: Factor on the seconds of each device, by its number; 1 where it is not named.
            driver_takes_time: Whether the real time that the session takes passes in virtual time as well, in which
                devices wait for their next lease.
            keeps_history: Whether the result holds the hypervolume after every event.
        """
        self.session = session
        self.result = Simulated()
        self._curves = curves
        self._num_devices = num_devices
        self._slowness = slowness or {}
        self._driver_takes_time = driver_takes_time
        self._keeps_history = keeps_history
        self._now = 0.0
        self._order = itertools.count()
        self._events: list[tuple[float, int, Running]] = []
        self._idle = list(range(num_devices))
        self._fill()

    def run(self) -> Simulated:
        """Go on until the session has no more leases."""
        while self.step():
            pass
        return self.result

    @property
    def running(self) -> "list[Running]":
        """The leases that are out."""
        return [running for _, _, running in self._events]

    def snapshot(self) -> Simulated:
        """The result as if the search had ended now: what leases that are out have used counts as busy."""
        out = sum(self._now - running.start for running in self.running)
        return replace(self.result, seconds=self._now, busy_seconds=self.result.busy_seconds + out)

    def step(self) -> bool:
        """Pass to the next event, an epoch of one lease or its test, and give out leases; whether there was one."""
        if not self._events:
            return False
        at, _, running = heapq.heappop(self._events)
        self._now = max(self._now, at)
        self.result.num_events += 1
        if self._answer(running, at):
            self.result.busy_seconds += at - running.start
            self._idle.append(running.device)
        self._fill()
        self.result.seconds = self._now
        if self._keeps_history:
            self.result.hypervolumes.append((self.session.ledger.spent, self.session.hypervolume))
        return True

    def _answer(self, running: "Running", at: float) -> bool:
        """Tell the session what a lease has come to; whether the lease ends."""
        session, lease = self.session, running.lease
        used = at - running.start
        with self._driving():
            if lease.task == "test":
                session.tested(lease.name, running.curve.val_accuracies[-1], device_seconds=used)
                return True
            epoch = running.epoch
            report = Report(
                epoch=epoch,
                val_accuracy=running.curve.val_accuracies[epoch - 1],
                train_loss=1.0,
                checkpoint=f"epoch-{epoch:04d}.pt",
            )
            if session.report(lease.name, report, device_seconds=used) is Decision.STOP:
                session.finish(lease.name, device_seconds=used)
                return True
        running.epoch += 1
        self._schedule(running, at)
        return False

    def _fill(self) -> None:
        """Give every idle device a lease, as far as the session has any."""
        while self._idle:
            with self._driving():
                lease = self.session.next()
            if lease is None:
                return
            trial = self.session.record.trials[lease.trial]
            curve = self._curves.curve(lease.architecture)
            device = self._idle.pop()
            seconds = curve.epoch_seconds * self._slowness.get(device, 1.0)
            if lease.task == "test":
                seconds *= _TEST_SHARE
            running = Running(lease, device, self._now, curve, seconds, epoch=trial.num_epochs + 1)
            self._schedule(running, self._now)

    def _schedule(self, running: "Running", since: float) -> None:
        heapq.heappush(self._events, (since + running.step_seconds, next(self._order), running))

    def _driving(self) -> "_Stopwatch":
        return _Stopwatch(self)

    def _passed(self, seconds: float) -> None:
        self.result.driver_seconds += seconds
        if self._driver_takes_time:
            self._now += seconds


@dataclass
class Running:
    """A lease on a device."""

    lease: Lease
    device: int
    start: float
    curve: Curve
    step_seconds: float  # of an epoch, or of the test
    epoch: int  # the next that will be reported


class _Stopwatch:
    """Adds the real time of a block to a simulator's driver."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._simulator._passed(time.perf_counter() - self._start)
