"""What travels between the session and a worker: orders one way, outcomes the other; plain values, JSON both ways."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, TypeAdapter

from metaformer.architecture import Architecture
from metaformer.specs import Spec
from nas.study.recipe import Fraction, Precision, Recipe

Task = Literal["train", "test"]
WEIGHTS = "weights.pt"  # file in a trial's folder, left by its last epoch
BEST = "best.pt"  # beside it, where a lease keeps them: the weights of the epoch with the highest accuracy on val
_FORWARD_SHARE = 1 / 3  # of the time of forward and backward pass


class Start(Spec):
    """Weights from which training begins, instead of random ones."""

    file: str  # absolute path: safetensors or torch, under our names, the official ones or timm's
    num_classes: PositiveInt  # that they tell apart; where the data have others, the classifier begins at random


class Lease(Spec):
    """The order to train one trial, on one device, from its last checkpoint up to `epochs`, or to test its weights."""

    task: Task = "train"
    trial: NonNegativeInt
    attempt: PositiveInt  # 1 for the first lease of a trial, 2 for the one after an interruption, …
    architecture: Architecture
    recipe: Recipe
    epochs: PositiveInt
    seed: int
    folder: str  # absolute path or fsspec URI that the trial's checkpoints are written to
    checkpoint: str | None = None  # file in `folder` to go on from; None: from the start
    start: Start | None = None  # what the start is; None: random weights
    checkpoint_every: PositiveFloat | None = None  # seconds between checkpoints within an epoch; None: none there
    measure: tuple[str, ...] = ()  # objectives to measure before the first epoch
    keep_best: bool = False  # whether the weights of the best epoch are kept beside the last ones

    @property
    def name(self) -> str:
        """`trial-attempt`, or `trial-test`; unique among open leases."""
        return lease_name(self.trial, self.attempt if self.task == "train" else None)


def lease_name(trial: int, attempt: int | None) -> str:
    """The name of a lease; attempt None: of that which tests the trial."""
    return f"{trial:05d}-{'test' if attempt is None else attempt}"


class Report(Spec):
    """What one epoch of a lease gave; its number may be one that an earlier lease of the trial had reached."""

    epoch: PositiveInt  # epochs trained so far, over all attempts
    val_accuracy: Fraction
    train_loss: NonNegativeFloat
    checkpoint: str  # file in the lease's folder
    note: str | None = None  # what went wrong before it without ending anything


class Metrics(Spec):
    """What one epoch gave beside its report, for people: no decision hangs on it, and times differ from run to run."""

    epoch: PositiveInt
    val_top5: Fraction | None = None  # None where the data have 5 classes or fewer
    images_per_s: NonNegativeFloat  # in training; of an epoch that went on from within, after that point
    waiting: Fraction  # part of the training time in which the loop waited for its next batch
    peak_mib: NonNegativeFloat | None = None  # of a GPU, what torch held at most; None on a CPU, which trials share
    device_seconds: NonNegativeFloat | None = None  # charged since the report before; None: the session has not seen it


class Sign(Spec):
    """A sign of life: how far a lease has come within an epoch, and what it left there."""

    step: PositiveInt  # steps of the epoch trained so far
    num_steps: PositiveInt  # of the whole epoch
    checkpoint: str | None = None  # file in the lease's folder, from which training goes on after this step

    @property
    def fraction(self) -> float:
        """How much of the epoch is trained."""
        return min(1.0, self.step / self.num_steps)


class Measurement(Spec):
    """What a device measured of an architecture before its first epoch."""

    values: dict[str, PositiveFloat]  # by the objective's name, in its unit
    device: str  # the kind of device, such as `NVIDIA H100 80GB HBM3`


class LossCause(StrEnum):
    """What a lease was lost with; its trial is tried again, more often where the machine went away."""

    WORKER = "worker"
    NODE = "node"
    STORAGE = "storage"


class EpochDone(Spec):
    """The lease has trained an epoch."""

    kind: Literal["epoch"] = "epoch"
    report: Report
    metrics: Metrics | None = None


class SignOfLife(Spec):
    """The lease is within an epoch."""

    kind: Literal["sign"] = "sign"
    sign: Sign


class Measured(Spec):
    """The lease has measured what it was asked to."""

    kind: Literal["measured"] = "measured"
    measurement: Measurement


class Evaluated(Spec):
    """The lease has evaluated its weights on the test split, and ends."""

    kind: Literal["evaluated"] = "evaluated"
    accuracy: Fraction


class Failed(Spec):
    """The trial cannot be trained; the lease ends."""

    kind: Literal["failed"] = "failed"
    reason: str


class Lost(Spec):
    """The lease was lost through no fault of its trial, and ends."""

    kind: Literal["lost"] = "lost"
    reason: str
    cause: LossCause


class Halted(Spec):
    """The lease met what every other would meet, such as a full disk, and ends."""

    kind: Literal["halted"] = "halted"
    reason: str


Outcome = EpochDone | SignOfLife | Measured | Evaluated | Failed | Lost | Halted
OUTCOME: TypeAdapter[Outcome] = TypeAdapter(Annotated[Outcome, Field(discriminator="kind")])


class Speed(Spec):
    """Seconds to train on one image on one device: `base` + `per_gmac` for every 10^9 MACs of the model."""

    base: NonNegativeFloat
    per_gmac: NonNegativeFloat
    reading: NonNegativeFloat = 0.0  # part of `base`

    def seconds_per_image(self, macs: int, *, num_models: int = 1) -> float:
        """Of a model of so many MACs, or of several that have them together."""
        return self.base * num_models + self.per_gmac * macs / 1e9

    def eval_seconds_per_image(self, macs: int, *, num_models: int = 1) -> float:
        """To evaluate them: an image is read as in training, and there is no backward pass."""
        reading = self.reading * num_models
        return reading + (self.seconds_per_image(macs, num_models=num_models) - reading) * _FORWARD_SHARE


class Step(Spec):
    """What a step of training takes of a device, and what the device measured of the model."""

    seconds_per_image: NonNegativeFloat
    reading: NonNegativeFloat = 0.0  # of them the reading of the image
    peak_bytes: NonNegativeInt  # most memory, of a GPU what torch holds there, on a CPU what the process grew by
    precision: Precision | None = None  # the fastest by measurement, where the recipe leaves it open
    measurement: Measurement | None = None  # where the study has objectives that are measured
    device: str | None = None  # the kind of device, as `Measurement` has it

    def of_devices(self, count: float) -> "Step":
        """The same in device-seconds, where a model has so many devices."""
        seconds, reading = count * self.seconds_per_image, count * self.reading
        return self.model_copy(update={"seconds_per_image": seconds, "reading": reading})
