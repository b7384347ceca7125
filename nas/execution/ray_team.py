"""What runs in the processes of a trial: an actor of Tune's, and with it others where several train one model.

It imports nothing of the session, which takes a worker most of a second.

Several are not Ray Train's trainers. Their controller restarts what it loses, keeps checkpoints of its own and reports
to a driver of its own, while here the session alone decides what goes on, each second is charged to one lease, and a
lost process is an outcome like any other. What they do beside that is torch.distributed.
"""

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.util.placement_group import get_current_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from metaformer.network.part import Part
from nas.execution.devices import Devices
from nas.execution.worker import Data, Worker
from nas.study.lease import OUTCOME, EpochDone, Evaluated, Failed, Halted, Lease, LossCause, Lost, Outcome
from nas.training.errors import ProcessLostError

_PATIENCE = 10.0  # seconds in which the others say what ended them, once one has ended
_ENVIRONMENT = {"GLOO_SOCKET_IFNAME": "lo"}  # all processes of a model are on one machine
_WAS_LOST = "lost a process of the model"


class TrialWorker(tune.Trainable):
    """An actor of Tune's: one step is one outcome of the lease it holds. Broken trials are results too, so it stays."""

    def setup(self, config: dict[str, Any]) -> None:
        data, devices = Data.model_validate(config["data"]), Devices.model_validate(config["devices"])
        self._worker = Worker(data, devices) if devices.processes == 1 else Team(data, devices)
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._worker.begin(Lease.model_validate_json(new_config["lease"]))
        return True

    def step(self) -> dict[str, Any]:
        """The next outcome of the lease as JSON, and images that were left out."""
        outcome = self._worker.step()
        return {"outcome": outcome.model_dump_json(), "left_out": self._worker.newly_left_out()}

    def cleanup(self) -> None:
        """End the processes of a model at once; Ray would take its time."""
        if isinstance(self._worker, Team):
            self._worker.end()


class _Member:
    """One of the processes, in an actor of its own."""

    def __init__(self, data: Data, devices: Devices, part: Part) -> None:
        self._worker, self._part, self._joined = Worker(data, devices, part), part, ExitStack()

    def join(self, meeting: str) -> None:
        """Meet the others; blocks until all are there."""
        from nas.training.processes import joined

        self._joined.enter_context(joined(self._part, Path(meeting), self._worker.device))

    def begin(self, lease: str) -> None:
        self._worker.begin(Lease.model_validate_json(lease))

    def step(self) -> tuple[str, list[str]]:
        return self._worker.step().model_dump_json(), self._worker.newly_left_out()


class Team:
    """The processes of one model, to whoever holds the lease. The first gives its outcomes; where one ends, all do."""

    def __init__(self, data: Data, devices: Devices) -> None:
        """Nothing is started yet."""
        self._data, self._devices = data, devices
        self._members: list[Any] = []
        self._lease: Lease | None = None
        self._asked: dict[int, Any] = {}  # by rank, the answer that is awaited or was not needed yet
        self._left_out: list[str] = []
        self._meeting: tempfile.TemporaryDirectory[str] | None = None  # where the processes find each other

    def begin(self, lease: Lease) -> None:
        """Take a lease; processes that are still within the one before are given up."""
        if self._asked:
            self.end()
        self._lease = lease

    def step(self) -> Outcome:
        """The next outcome of the lease, which is the first process's, or what ended any of them."""
        try:
            self._start()
            for rank, member in enumerate(self._members):
                if rank not in self._asked:
                    self._asked[rank] = member.step.remote()
            return self._first_outcome()
        except RayError as error:
            self.end()
            cause = error.cause if isinstance(error, RayTaskError) else error
            if isinstance(cause, RayActorError | ProcessLostError):
                return Lost(reason=f"{_WAS_LOST}: {_one_line(cause)}", cause=LossCause.WORKER)
            raise

    def newly_left_out(self) -> list[str]:
        """Images that were found unreadable since this was last asked."""
        found, self._left_out = sorted(set(self._left_out)), []
        return found

    def end(self) -> None:
        """End all processes at once, whatever they do."""
        for member in self._members:
            ray.kill(member)
        self._members, self._asked = [], {}
        if self._meeting is not None:
            self._meeting.cleanup()
            self._meeting = None

    def _start(self) -> None:
        """Start the processes that are not there, and hand them a new lease."""
        if not self._members:
            number = self._devices.processes
            self._members = [self._make(Part(rank, number)) for rank in range(number)]
            self._meeting = tempfile.TemporaryDirectory(prefix="nas-meeting-")
            store = str(Path(self._meeting.name) / "store")
            _get_all([member.join.remote(store) for member in self._members])
        if self._lease is not None:
            _get_all([member.begin.remote(self._lease.model_dump_json()) for member in self._members])
            self._lease = None

    def _make(self, part: Part) -> Any:
        group = get_current_placement_group()
        if group is None:
            raise RuntimeError("placement group: must be that of a trial, got none")
        place = PlacementGroupSchedulingStrategy(
            group,
            placement_group_bundle_index=part.rank,
            placement_group_capture_child_tasks=True,
        )
        resources = self._devices.resources
        actor = ray.remote(num_cpus=resources["CPU"], num_gpus=resources["GPU"])(_Member)
        options = actor.options(scheduling_strategy=place, runtime_env={"env_vars": _ENVIRONMENT})
        return options.remote(self._data, self._devices, part)

    def _first_outcome(self) -> Outcome:
        """The answer of the first process, once those of the others are there that come with it."""
        pending = dict(self._asked)
        while pending:
            [ready], _ = ray.wait(list(pending.values()), num_returns=1)
            rank = next(rank for rank, answer in pending.items() if answer is ready)
            del pending[rank]
            outcome = self._hear(rank)
            if isinstance(outcome, Failed | Lost | Halted):
                return self._worst(outcome)
            if rank == 0 and not isinstance(outcome, EpochDone | Evaluated):
                del self._asked[0]
                return outcome  # a sign of life; the others are on their way through the epoch
            if rank == 0:
                first = outcome
        self._asked = {}
        return first

    def _hear(self, rank: int) -> Outcome:
        try:
            outcome, left_out = ray.get(self._asked[rank])
        except RayActorError as error:
            return Lost(reason=f"{_WAS_LOST} {rank}: {_one_line(error)}", cause=LossCause.WORKER)
        self._left_out += left_out
        return OUTCOME.validate_json(outcome)

    def _worst(self, outcome: Outcome) -> Outcome:
        """What ended the processes, after one has ended: a reason of its own is worth more than that of the loss."""
        answers = list(self._asked.values())
        heard, _ = ray.wait(answers, num_returns=len(answers), timeout=_PATIENCE)
        found = [outcome, *(self._hear(rank) for rank, answer in self._asked.items() if answer in heard)]
        self.end()
        return min(found, key=_rank_of_reason)


def _rank_of_reason(outcome: Outcome) -> int:
    """What a lost process did to the others comes last, and before it that one was lost."""
    if isinstance(outcome, Failed | Halted):
        return 0
    if not isinstance(outcome, Lost):
        return 4
    if outcome.cause is not LossCause.WORKER:
        return 1
    return 2 if outcome.reason.startswith(_WAS_LOST) else 3


def _get_all(answers: list[Any]) -> None:
    """Wait for all answers; raises for the first that fails, which others may wait for in vain."""
    while answers:
        [ready], answers = ray.wait(answers, num_returns=1)
        ray.get(ready)


def _one_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:300]
