"""A session in virtual time: the decisions of a search without its training.

Learning curves come from a table that the project's own trainer has recorded, or are made up. A device is busy from a
lease's start to its end; the driver answers one event at a time.
"""

import heapq
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from metaformer.architecture import Architecture
from nas.execution.backend import Backend, Steps, tell
from nas.execution.curves import Curve, Curves
from nas.session.session import Decision, Session
from nas.study.lease import EpochDone, Evaluated, Lease, Measured, Outcome, Report, Step
from nas.study.recipe import Recipe

_TEST_SHARE = 0.1  # of an epoch's time, for evaluating on the test split


@dataclass
class Simulated:
    """What a simulated search took."""

    seconds: float = 0.0  # from its start to its end, virtual
    busy_seconds: float = 0.0  # device-seconds in leases, virtual
    driver_seconds: float = 0.0  # in the session, real
    processor_seconds: float = 0.0  # of a core, in the session, real; what else runs on the machine does not count
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
        start, processor_start = time.perf_counter(), time.process_time()
        yield
        seconds = time.perf_counter() - start
        self.result.processor_seconds += time.process_time() - processor_start
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
