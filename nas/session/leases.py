"""The leases that are out: what each orders, and what it has used so far."""

import logging
from dataclasses import dataclass

from nas.record.record import Record
from nas.record.trials import LeaseEnd, StopReason, TrialRecord
from nas.session.ledger import Ledger
from nas.study.lease import WEIGHTS, Lease, Speed, Task
from nas.study.study import Study
from nas.training.checkpoints import folder_of

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """Where a session's leases are carried out, as far as it must know."""

    speed: Speed  # measured, on one device
    num_images: dict[str, int]  # in the splits train, val and test
    num_workers: int  # trials at a time
    checkpoints: str  # path or URI of the folder with one folder for each trial
    lease_seconds: float = 0.0  # device-seconds that a warm worker takes to begin and end a lease, beside its work
    start_seconds: float = 0.0  # that a worker takes to start, which its first lease is charged; 0: not known


@dataclass
class OpenLease:
    """A lease that is out, and how it will end (None: it goes on)."""

    lease: Lease
    trial: TrialRecord
    is_warm: bool  # the next report tells what an epoch takes: its worker has started, and no part was trained before
    epoch_start: float = 0.0  # device-seconds that the lease had used when its current epoch began
    end: LeaseEnd | None = None
    stop_reason: StopReason | None = None
    reason: str | None = None


class OpenLeases:
    """Opens, charges and closes leases, in the ledger and in their trials."""

    def __init__(self, study: Study, record: Record, ledger: Ledger, *, place: Place) -> None:
        """No lease is out yet."""
        self._study, self._record, self._ledger, self._place = study, record, ledger, place
        self._open: dict[str, OpenLease] = {}
        self._num_opened = 0
        self.num_training = 0
        self.training_macs = 0  # of all models in training together

    def __bool__(self) -> bool:
        return bool(self._open)

    def __getitem__(self, name: str) -> OpenLease:
        return self._open[name]

    @property
    def start_seconds(self) -> float:
        """Device-seconds of a worker's start before the next lease; 0 once there were as many leases as workers."""
        return 0.0 if self._num_opened >= self._place.num_workers else self._place.start_seconds

    @property
    def trials(self) -> list[TrialRecord]:
        """The trials of the leases that are out."""
        return [out.trial for out in list(self._open.values())]

    def open_training(self, trial: TrialRecord, *, expected: float) -> Lease:
        """A lease to train a trial to its end, for which the expected device-seconds are reserved."""
        attempt = trial.begin_lease()
        self._record.save(trial)
        label = f" ({trial.reference})" if trial.references else ""
        _LOG.info("trial %d begins, attempt %d%s", trial.number, attempt, label)
        self.num_training += 1
        self.training_macs += trial.macs
        return self._open_lease(trial, "train", attempt=attempt, checkpoint=trial.checkpoint, expected=expected)

    def open_test(self, trial: TrialRecord, *, expected: float) -> Lease:
        """A lease to evaluate a trial's weights on the test split, likewise."""
        return self._open_lease(trial, "test", attempt=1, checkpoint=WEIGHTS, expected=expected)

    def _open_lease(
        self, trial: TrialRecord, task: Task, *, attempt: int, checkpoint: str | None, expected: float
    ) -> Lease:
        measured = self._record.objectives.measured if task == "train" else ()
        lease = Lease(
            task=task,
            trial=trial.number,
            attempt=attempt,
            architecture=trial.architecture,
            recipe=self._study.recipe,
            epochs=self._study.recipe.epochs,
            seed=self._study.seed if trial.seed is None else trial.seed,
            folder=folder_of(self._place.checkpoints, trial.checkpoint_trial),
            checkpoint=checkpoint,
            checkpoint_every=self._study.checkpoint_seconds,
            measure=tuple(objective.name for objective in measured if objective.name not in trial.measured),
            keep_best=self._study.finals is not None,
        )
        self._ledger.open(lease.name, expected=expected)
        is_warm = self._num_opened >= self._place.num_workers and trial.progress.sign is None
        self._open[lease.name] = OpenLease(lease, trial, is_warm=is_warm)
        self._num_opened += 1
        return lease

    def charge(self, name: str, device_seconds: float) -> OpenLease:
        """Charge what a lease has used so far."""
        out = self._open[name]
        charged = self._ledger.charge(name, device_seconds)
        if out.lease.task == "train":
            out.trial.charge(charged)
        return out

    def close(self, name: str, device_seconds: float) -> OpenLease:
        """Charge a lease for the last time, and free what it had reserved beyond that."""
        out = self.charge(name, device_seconds)
        alive = self._record.notes.alive
        if name in alive:  # before the lease is charged for the last time, so that it is never charged twice
            self._record.note(alive={other: seconds for other, seconds in alive.items() if other != name})
        if out.lease.task == "train":
            self.num_training -= 1
            self.training_macs -= out.trial.macs
        else:
            self._record.add_overhead(device_seconds)
        self._ledger.close(name)
        del self._open[name]
        return out
