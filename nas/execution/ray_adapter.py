"""Tune's questions and answers, passed on to the session: which lease next, go on or stop, what broke."""

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray import cloudpickle, tune
from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError, RayTaskError, WorkerCrashedError
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from nas.execution.backend import tell
from nas.execution.slots import Slots
from nas.session.session import Decision, Session
from nas.study.lease import OUTCOME, Failed, Lease, LossCause, Lost, Outcome

BEAT_EVERY = 20.0  # seconds between signs of life, at least
_WORKER_LOST = (RayActorError, NodeDiedError, WorkerCrashedError, OutOfMemoryError)


class Adapter:
    """Which lease each of Tune's trials carries out and since when, and the session's answers to them."""

    def __init__(self, session: Session, *, num_devices: float, slots: Slots, on_event: Callable[[], None]) -> None:
        self.session = session
        self._num_devices = num_devices
        self._slots = slots
        self._on_event = on_event
        self._leases: dict[str, tuple[str, float]] = {}
        self._last_beat = time.monotonic()

    def __getstate__(self) -> dict[str, object]:
        """Nothing: Tune pickles what it is given to restore from it, and nothing is ever restored from there."""
        return {}

    def beat(self) -> None:
        """Tell the session, now and then, what open leases have used: all that is known where the driver is killed."""
        now = time.monotonic()
        if self._leases and now - self._last_beat >= BEAT_EVERY:
            self._last_beat = now
            self.session.beat({name: (now - start) * self._num_devices for name, start in self._leases.values()})

    def begin(self, trial_id: str) -> Lease | None:
        """A lease for one of Tune's trials; its time runs from here, so that the start of its worker is charged.

        None where the session has none now, or the cluster no slot.
        """
        if len(self._leases) >= self._slots.number:
            return None
        lease = self.session.next()
        if lease is not None:
            self._leases[trial_id] = (lease.name, time.monotonic())
            self._on_event()
        return lease

    def result(self, trial_id: str, result: dict[str, Any]) -> Decision:
        """Pass on what a worker's step gave."""
        self.session.leave_out(result["left_out"])
        return self._tell(trial_id, OUTCOME.validate_json(result["outcome"]))

    def broke(self, trial_id: str, error: Exception | None) -> None:
        """Pass on that a worker ended without an outcome."""
        if trial_id not in self._leases:
            return  # its lease has ended; what broke was the actor on its way out
        reason = reason_of(error)
        if _is_node_lost(error):
            self._tell(trial_id, Lost(reason=reason, cause=LossCause.NODE))
        elif isinstance(error, _WORKER_LOST):
            self._tell(trial_id, Lost(reason=reason, cause=LossCause.WORKER))
        else:
            self._tell(trial_id, Failed(reason=reason))

    def _tell(self, trial_id: str, outcome: Outcome) -> Decision:
        name, start = self._leases[trial_id]
        seconds = (time.monotonic() - start) * self._num_devices
        decision = tell(self.session, name, outcome, device_seconds=seconds)
        if decision is Decision.STOP:
            del self._leases[trial_id]
        self._on_event()
        return decision


class Beat(tune.Callback):
    """Tune's event loop as the driver's sign of life."""

    def __init__(self, adapter: Adapter) -> None:
        self._adapter = adapter

    def on_step_end(self, iteration: int, trials: list[Trial], **info: object) -> None:
        self._adapter.beat()


class LeaseSearcher(Searcher):
    """Tune's question for the next trial, passed on to the session; it keeps no state of its own."""

    def __init__(self, adapter: Adapter) -> None:
        super().__init__()
        self._adapter = adapter

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]  # ray's own FINISHED
        lease = self._adapter.begin(trial_id)
        if lease is None:
            return Searcher.FINISHED if self._adapter.session.finished else None
        return {"lease": lease.model_dump_json()}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: the scheduler has told the session."""

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing: the study on disk is the only truth."""


class LeaseScheduler(FIFOScheduler):
    """Tune's results and errors, passed on to the session."""

    def __init__(self, adapter: Adapter) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._adapter = adapter

    def on_trial_result(self, tune_controller: object, trial: Trial, result: dict[str, Any]) -> str:
        decision = self._adapter.result(trial.trial_id, result)
        return str(FIFOScheduler.STOP if decision is Decision.STOP else FIFOScheduler.CONTINUE)

    def on_trial_error(self, tune_controller: object, trial: Trial) -> None:
        self._adapter.broke(trial.trial_id, _error_of(trial))


def reason_of(error: Exception | None) -> str:
    """One line that says what broke: the cause in the worker rather than ray's wrapping."""
    if error is None:
        return "the worker broke and left no reason"
    cause = error.cause if isinstance(error, RayTaskError) and error.cause else error
    lines = [line for line in str(cause).splitlines() if line.strip()]
    return f"{type(cause).__name__}: {lines[-1].strip() if lines else 'no message'}"[:500]


def _error_of(trial: Trial) -> Exception | None:
    """What broke a trial, from the driver's own file: `get_pickled_error` reads a copy that is made later."""
    path = trial.pickled_error_file
    error: Exception | None = cloudpickle.loads(Path(path).read_bytes()) if path and Path(path).exists() else None
    return error


def _is_node_lost(error: Exception | None) -> bool:
    """Whether a worker was lost with its machine.

    The worker is often missed seconds before the machine is, so any machine that has fallen silent is taken for its.
    """
    if isinstance(error, NodeDiedError) or (isinstance(error, RayActorError) and error.preempted):
        return True
    return isinstance(error, _WORKER_LOST) and ("node has died" in str(error) or any(map(_is_silent, ray.nodes())))


def _is_silent(node: dict[str, Any]) -> bool:
    """Whether a machine that ray still counts on does not answer."""
    if not node["Alive"]:
        return False
    try:
        socket.create_connection((node["NodeManagerAddress"], node["NodeManagerPort"]), timeout=2).close()
    except OSError:
        return True
    return False
