"""Where leases are carried out: what a backend must do, and how its outcomes reach the session."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple, Self

from metaformer.architecture import Architecture
from nas.session.session import Decision, Session
from nas.study.lease import EpochDone, Evaluated, Failed, Halted, Lost, Measured, Outcome, SignOfLife, Step
from nas.study.recipe import Recipe


class Steps(NamedTuple):
    """What a few architectures take of a device, one after another."""

    steps: list[Step]
    device_seconds: float  # that measuring took in all
    start_seconds: float = 0.0  # of them the worker's start


class Backend(ABC):
    """A place to carry out leases. A context manager: nothing is started before it is entered.

    Attributes:
        num_workers: Trials at a time, once the context is entered.
        devices_per_trial: Devices that a lease is charged for, likewise.
        lease_seconds: Seconds that a warm worker takes to begin and end a lease, beside its work.
    """

    num_workers: int
    devices_per_trial: float
    lease_seconds: float = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End what was started."""
        return

    @abstractmethod
    def measure(self, archs: Sequence[Architecture], recipe: Recipe, *, objectives: Sequence[str] = ()) -> Steps:
        """What a step of training takes for each architecture.

        Args:
            objectives: Those to measure as well, by name.
        Raises:
            UserError: Not even a step of training works.
        """

    @abstractmethod
    def run(self, session: Session, *, on_event: Callable[[], None] = lambda: None) -> None:
        """Carry out the session's leases until it has no more.

        Args:
            on_event: Called after each answer to the session.
        Raises:
            UserError: The study cannot be written.
        """

    def pack(self, peak_bytes: int) -> None:
        """Let as many trials share a device as the measured memory allows, where the backend can do so."""
        del peak_bytes


def tell(session: Session, name: str, outcome: Outcome, *, device_seconds: float) -> Decision:
    """Tell the session an outcome of a lease; whether the lease goes on.

    Args:
        device_seconds: What the lease has used so far.
    """
    match outcome:
        case EpochDone(report=report, metrics=metrics):
            decision = session.report(name, report, device_seconds=device_seconds, metrics=metrics)
        case SignOfLife(sign=sign):
            decision = session.sign(name, sign, device_seconds=device_seconds)
        case Measured(measurement=measurement):
            decision = session.measured(name, measurement, device_seconds=device_seconds)
        case Evaluated(accuracy=accuracy):
            session.tested(name, accuracy, device_seconds=device_seconds)
            return Decision.STOP
        case Failed(reason=reason):
            session.fail(name, reason, device_seconds=device_seconds)
            return Decision.STOP
        case Lost(reason=reason, cause=cause):
            session.fail(name, reason, device_seconds=device_seconds, lost=cause)
            return Decision.STOP
        case Halted(reason=reason):
            session.halt(name, reason, device_seconds=device_seconds)
            return Decision.STOP
    if decision is Decision.STOP:
        session.finish(name, device_seconds=device_seconds)
    return decision
