"""A trial of a study: what it trains, what it costs, where it stands, and how it came to that.

States and ends are enums, since decisions hang on them; the sentences beside them are for people.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from typing import Annotated

from pydantic import Field, NonNegativeFloat, PositiveInt

from metaformer.architecture import Architecture
from metaformer.specs import Spec
from nas.study.lease import Measurement, Metrics, Report, Sign
from nas.study.recipe import Fraction


class TrialState(StrEnum):
    """Where a trial stands; `stopped` ones were ended early on purpose, with a reason."""

    RUNNING = "running"
    COMPLETE = "complete"
    STOPPED = "stopped"
    FAILED = "failed"


class StopReason(StrEnum):
    """Why a trial was stopped before its last epoch."""

    BUDGET = "budget"  # it goes on when there is more
    STOPPER = "stopper"
    LIMIT = "limit"  # its device measured more than the study allows


class LeaseEnd(StrEnum):
    """How a lease ended."""

    COMPLETE = "complete"
    STOPPED = "stopped"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    LOST = "lost"  # with its worker, or with the storage of its checkpoints
    NODE_LOST = "node lost"


class LeaseCharge(Spec):
    """What one lease of a trial was charged, and how it ended (None: it has not)."""

    attempt: PositiveInt
    device_seconds: NonNegativeFloat = 0.0
    lost: NonNegativeFloat = 0.0  # device-seconds after that, until the last sign of life of a driver that was killed
    end: LeaseEnd | None = None


class Progress(Spec):
    """All that is known of a trial's training so far."""

    leases: tuple[LeaseCharge, ...] = ()
    curve: tuple[Report, ...] = ()
    metrics: tuple[Metrics, ...] = ()  # of the curve's epochs, as far as they are known
    sign: Sign | None = None  # the last checkpoint after the curve's end, within the next epoch
    within: Fraction = 0.0  # how much of that epoch is trained, by the last sign of life
    measured: dict[str, NonNegativeFloat] = Field(default_factory=dict)  # by objective
    device: str | None = None  # that measured


class Attributes(Spec):
    """What is written of a trial beside its genes and state; the attributes of others are no part of it."""

    home: Annotated[int, Field(strict=True, ge=0)]  # the trial whose checkpoints it uses
    seed: Annotated[int, Field(strict=True)] | None = None
    references: tuple[str, ...] | None = None
    reference: str | None = None  # as version 0.1 wrote them, joined into one text
    stop_reason: StopReason | None = None
    reason: str | None = None
    progress: Progress = Progress()
    test_accuracy: Fraction | None = None  # kept with the study, since an ended trial takes no more attributes

    @property
    def names_of_references(self) -> tuple[str, ...]:
        """The names of the hand-designed models that the trial is."""
        if self.references is not None:
            return self.references
        return tuple(self.reference.split(" = ")) if self.reference else ()


@dataclass
class TrialRecord:
    """One trial, as it is kept in memory and on disk."""

    number: int
    architecture: Architecture
    params: int
    macs: int
    checkpoint_trial: int  # whose checkpoints it uses: its own number, or that of the trial it goes on with
    references: tuple[str, ...] = ()  # names of the hand-designed models that it is; several may be one network here
    seed: int | None = None  # of its training; None: that of the study
    state: TrialState = TrialState.RUNNING
    stop_reason: StopReason | None = None
    reason: str | None = None  # the sentence: why it was stopped or failed
    progress: Progress = field(default_factory=Progress)
    test_accuracy: float | None = None
    begun_at: datetime | None = field(default=None, compare=False)  # UTC, by the driver's clock; for people
    ended_at: datetime | None = field(default=None, compare=False)  # likewise; None: it has not, or was not read

    @cached_property
    def digest(self) -> str:
        """That of its architecture, which a trial keeps."""
        return self.architecture.digest

    @property
    def is_suggested(self) -> bool:
        """Whether it counts for a study's limit: no hand-designed model, no further seed, and goes on with no other."""
        return not self.references and self.seed is None and self.checkpoint_trial == self.number

    @property
    def reference(self) -> str | None:
        """The names of the hand-designed models as one label; None where it is none."""
        return " = ".join(self.references) or None

    @property
    def val_accuracy(self) -> float | None:
        """Accuracy in [0, 1] after the last epoch reported."""
        return self.progress.curve[-1].val_accuracy if self.progress.curve else None

    @property
    def measured(self) -> Mapping[str, float]:
        """What a device measured, by objective."""
        return self.progress.measured

    @property
    def within(self) -> float:
        """How much of the epoch after the curve is trained, as last heard of."""
        return self.progress.within

    @property
    def num_epochs(self) -> int:
        return self.progress.curve[-1].epoch if self.progress.curve else 0

    @property
    def checkpoint(self) -> str | None:
        """The file from which its training goes on; None: from the start."""
        if self.progress.sign is not None:
            return self.progress.sign.checkpoint
        return self.progress.curve[-1].checkpoint if self.progress.curve else None

    @property
    def device_seconds(self) -> float:
        return sum(lease.device_seconds for lease in self.progress.leases)

    @property
    def lost_seconds(self) -> float:
        return sum(lease.lost for lease in self.progress.leases)

    def begin_lease(self) -> int:
        """Add a lease; its number."""
        attempt = len(self.progress.leases) + 1
        sign = self.progress.sign
        within = 0.0 if sign is None else sign.fraction
        self.progress = self.progress.model_copy(update={"within": within})
        self._set_leases((*self.progress.leases, LeaseCharge(attempt=attempt)))
        return attempt

    def charge(self, device_seconds: float) -> None:
        """Note what the last lease has used so far."""
        *before, last = self.progress.leases
        self._set_leases((*before, last.model_copy(update={"device_seconds": device_seconds})))

    def lose(self, device_seconds: float) -> float:
        """Note that the last lease, which its driver left open, had used so much in all; what of it nobody reported."""
        *before, last = self.progress.leases
        lost = max(0.0, device_seconds - last.device_seconds)
        self._set_leases((*before, last.model_copy(update={"lost": lost})))
        return lost

    def end_lease(self, end: LeaseEnd) -> None:
        """Note how the last lease ended, unless there was none or that has been noted."""
        if self.progress.leases and self.progress.leases[-1].end is None:
            *before, last = self.progress.leases
            self._set_leases((*before, last.model_copy(update={"end": end})))

    def count_ends(self, end: LeaseEnd) -> int:
        """How many leases ended so."""
        return sum(lease.end is end for lease in self.progress.leases)

    def add_epoch(self, report: Report, metrics: Metrics | None = None) -> None:
        """Add an epoch to the curve, whose later part goes where training had to fall back."""
        before = (earlier for earlier in self.progress.curve if earlier.epoch < report.epoch)
        curve = (*before, report.model_copy(update={"note": None}))
        kept = tuple(earlier for earlier in self.progress.metrics if earlier.epoch < report.epoch)
        known = kept if metrics is None else (*kept, metrics)
        self.progress = self.progress.model_copy(update={"curve": curve, "metrics": known, "sign": None, "within": 0.0})

    def add_sign(self, sign: Sign) -> None:
        """Note how far the epoch that follows the curve has come, and a checkpoint within it, where it left one."""
        kept = self.progress.sign if sign.checkpoint is None else sign
        self.progress = self.progress.model_copy(update={"sign": kept, "within": sign.fraction})

    def add_measurement(self, measurement: Measurement) -> None:
        """Note what a device measured."""
        values = {**self.progress.measured, **measurement.values}
        self.progress = self.progress.model_copy(update={"measured": values, "device": measurement.device})

    def _set_leases(self, leases: tuple[LeaseCharge, ...]) -> None:
        self.progress = self.progress.model_copy(update={"leases": leases})
