"""What travels between the session and a worker: plain values, JSON both ways."""

from typing import Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt

from metaformer.architecture import Architecture
from metaformer.specs import Spec
from nas.recipe import Fraction, Recipe

Task = Literal["train", "test"]
WEIGHTS = "weights.pt"  # file in a trial's folder, left by its last epoch


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

    @property
    def name(self) -> str:
        """`trial-attempt`, or `trial-test`; unique among open leases."""
        return f"{self.trial:05d}-{self.attempt if self.task == 'train' else 'test'}"


class Report(Spec):
    """What one epoch of a lease gave; its number may be one that an earlier lease of the trial had reached."""

    epoch: PositiveInt  # epochs trained so far, over all attempts
    val_accuracy: Fraction
    train_loss: NonNegativeFloat
    checkpoint: str  # file in the lease's folder
    note: str | None = None  # what went wrong before it without ending anything


class Speed(Spec):
    """Seconds to train on one image on one device: `base` + `per_gmac` for every 10^9 MACs of the model."""

    base: NonNegativeFloat
    per_gmac: NonNegativeFloat

    def seconds_per_image(self, macs: int, *, num_models: int = 1) -> float:
        """Of a model of so many MACs, or of several that have them together."""
        return self.base * num_models + self.per_gmac * macs / 1e9


class Measured(Spec):
    """What a step of training takes of a device."""

    seconds_per_image: NonNegativeFloat
    peak_bytes: NonNegativeInt  # most memory, of a GPU what torch holds there, on a CPU what the process grew by
