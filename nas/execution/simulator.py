"""A session in virtual time: the decisions of a search without its training.

Learning curves come from a table that the project's own trainer has recorded, or are made up. A device is busy from a
lease's start to its end; the driver answers one event at a time.
"""

import csv
import heapq
import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, Protocol

from metaformer.architecture import Architecture
from metaformer.documents import read_text
from metaformer.errors import unknown_name
from nas.execution.backend import Backend, Steps, tell
from nas.session.session import Decision, Session
from nas.study.lease import EpochDone, Evaluated, Lease, Measured, Measurement, Outcome, Report, Step
from nas.study.recipe import Recipe
from nas.study.study import StudyError
from search_spaces.space import SearchSpace

_TEST_SHARE = 0.1  # of an epoch's time, for evaluating on the test split


class Curve(NamedTuple):
    """How an architecture does when it is trained to full length."""

    epoch_seconds: float  # on one device
    val_accuracies: tuple[float, ...]  # after each epoch
    measured: Mapping[str, float] = {}  # by objective

    def measurement(self, names: Sequence[str]) -> Measurement:
        """What a device would measure.

        Raises:
            StudyError: The curve does not know one of the objectives.
        """
        for name in names:
            if name not in self.measured:
                raise StudyError(unknown_name("objectives", name, self.measured))
        return Measurement(values={name: self.measured[name] for name in names}, device="simulated")


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


class Simulator(Backend):
    """Devices that exist in virtual time only."""

    devices_per_trial = 1.0

    def __init__(
        self,
        curves: Curves,
        *,
        num_devices: int,
        images_per_epoch: float = 1.0,
        slowness: Mapping[int, float] | None = None,
        driver_takes_time: bool = False,
        keeps_history: bool = True,
    ) -> None:
        """Describe the devices; nothing runs yet.

        Args:
            images_per_epoch: What turns the curves' seconds an epoch into seconds an image, where speed is measured.
            slowness: Factor on the seconds of each device, by its number; 1 where it is not named.
            driver_takes_time: Whether the real time that the session takes passes in virtual time as well, in which
                devices wait for their next lease.
            keeps_history: Whether the result holds the hypervolume after every event.
        """
        self.num_workers = num_devices
        self._curves = curves
        self._images_per_epoch = images_per_epoch
        self.slowness = slowness or {}
        self.driver_takes_time = driver_takes_time
        self.keeps_history = keeps_history

    def measure(self, archs: Sequence[Architecture], recipe: Recipe, *, objectives: Sequence[str] = ()) -> Steps:
        curves = [self._curves.curve(arch) for arch in archs]
        steps = [
            Step(
                seconds_per_image=curve.epoch_seconds / self._images_per_epoch,
                peak_bytes=0,
                measurement=curve.measurement(objectives) if objectives else None,
            )
            for curve in curves
        ]
        return Steps(steps, 0.0)

    def run(self, session: Session, *, on_event: Callable[[], None] = lambda: None) -> None:
        simulation = self.begin(session)
        while simulation.step():
            on_event()

    def begin(self, session: Session) -> "Simulation":
        """A search that passes event by event."""
        return Simulation(self, session, self._curves)


class Simulation:
    """One session on a simulator's devices."""

    def __init__(self, simulator: Simulator, session: Session, curves: Curves) -> None:
        self.session = session
        self.result = Simulated()
        self._simulator = simulator
        self._curves = curves
        self._now = 0.0
        self._order = itertools.count()
        self._events: list[tuple[float, int, Running]] = []
        self._idle = list(range(simulator.num_workers))

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

    def fill(self) -> None:
        """Give every idle device a lease, as far as the session has any."""
        while self._idle:
            with self._driving():
                lease = self.session.next()
            if lease is None:
                return
            trial = self.session.record.trials[lease.trial]
            curve = self._curves.curve(lease.architecture)
            device = self._idle.pop()
            seconds = curve.epoch_seconds * self._simulator.slowness.get(device, 1.0)
            if lease.task == "test":
                seconds *= _TEST_SHARE
            running = Running(lease, device, self._now, curve, seconds, epoch=trial.num_epochs + 1)
            if lease.measure:
                with self._driving():
                    measured = Measured(measurement=curve.measurement(lease.measure))
                    decision = tell(self.session, lease.name, measured, device_seconds=0.0)
                if decision is Decision.STOP:
                    self._idle.append(device)
                    continue
            self._schedule(running, self._now)

    def step(self) -> bool:
        """Pass to the next event, an epoch of one lease or its test, and give out leases; whether there was one."""
        self.fill()
        if not self._events:
            return False
        at, _, running = heapq.heappop(self._events)
        self._now = max(self._now, at)
        self.result.num_events += 1
        with self._driving():
            decision = tell(self.session, running.lease.name, running.outcome(), device_seconds=at - running.start)
        if decision is Decision.STOP:
            self.result.busy_seconds += at - running.start
            self._idle.append(running.device)
        else:
            running.epoch += 1
            self._schedule(running, at)
        self.fill()
        self.result.seconds = self._now
        if self._simulator.keeps_history:
            self.result.hypervolumes.append((self.session.ledger.spent, self.session.hypervolume))
        return True

    def _schedule(self, running: "Running", since: float) -> None:
        heapq.heappush(self._events, (since + running.step_seconds, next(self._order), running))

    @contextmanager
    def _driving(self) -> Iterator[None]:
        """Add the real time of the block to the driver's."""
        start = time.perf_counter()
        yield
        seconds = time.perf_counter() - start
        self.result.driver_seconds += seconds
        if self._simulator.driver_takes_time:
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

    def outcome(self) -> Outcome:
        """What the lease has come to at its next event."""
        if self.lease.task == "test":
            return Evaluated(accuracy=self.curve.val_accuracies[-1])
        report = Report(
            epoch=self.epoch,
            val_accuracy=self.curve.val_accuracies[self.epoch - 1],
            train_loss=1.0,
            checkpoint=f"epoch-{self.epoch:04d}.pt",
        )
        return EpochDone(report=report)
