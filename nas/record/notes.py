"""What a study notes beside its trials, each under its own name and of its own type."""

from enum import StrEnum

from pydantic import Field, NonNegativeFloat, NonNegativeInt

from metaformer.specs import Spec
from nas.study.lease import Speed
from nas.study.recipe import Fraction, Recipe


class EventKind(StrEnum):
    """What a run did without being asked."""

    CHECKPOINT = "checkpoint"  # one could not be read; training went on from an older one, or began again
    LEASE_LOST = "lease lost"
    UNTESTED = "untested"
    IMAGES_LEFT_OUT = "images left out"
    DEADLINE = "deadline"
    CONVERGED = "converged"  # the rest of the budget is expected to add too little
    SHORTENED = "shortened"  # trainings, so that the budget pays for some
    TRACKER = "tracker"  # it could not be told any more


class Event(Spec):
    """Something that a run did without being asked, once."""

    kind: EventKind
    text: str
    at: str  # UTC, ISO 8601
    trial: NonNegativeInt | None = None

    def __str__(self) -> str:
        return self.text if self.trial is None else f"trial {self.trial}: {self.text}"


class Correction(Spec):
    """Device-seconds of the epochs seen so far: what the measured speed predicted, and what they took."""

    expected: NonNegativeFloat = 0.0
    actual: NonNegativeFloat = 0.0

    @property
    def factor(self) -> float:
        """By how much predictions are multiplied."""
        return self.actual / self.expected if self.expected and self.actual else 1.0


class Notes(Spec):
    """All notes of a study; None and empty where nothing has been noted."""

    identity: str | None = None  # the study file has the same
    num_images: dict[str, NonNegativeInt] | None = None  # by split
    whole_recipe: Recipe | None = None  # before the budget shortened it: that of finals
    speed: Speed | None = None
    peak_bytes: NonNegativeInt | None = None  # of a trial, on its device
    alive: dict[str, NonNegativeFloat] = Field(
        default_factory=dict
    )  # device-seconds of each open lease at the driver's last sign of life
    finished: bool = False  # a driver came to the end: nothing more could be begun
    overhead_device_seconds: NonNegativeFloat = 0.0  # outside training leases: measuring before, testing after
    images_left_out: tuple[str, ...] = ()
    correction: Correction = Correction()
    device: str | None = None  # the one kind of device that has measured objectives
    hardware: str | None = None  # how many devices of which kind the run began on
    bounds: dict[str, tuple[NonNegativeFloat, NonNegativeFloat]] = Field(
        default_factory=dict
    )  # of measured objectives, for the hypervolume
    events: tuple[Event, ...] = ()
    baselines: dict[str, tuple[Fraction, Fraction]] = Field(
        default_factory=dict
    )  # by name: accuracy on val and on test
