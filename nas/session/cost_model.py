"""What the work of a search takes of a device, predicted from a measured speed and corrected by what it took."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from nas.record.notes import Correction
from nas.study.lease import Speed

_EVAL_SHARE = 1 / 3  # of a training step's time: a forward pass without the backward one


@dataclass
class CostModel:
    """Device-seconds of epochs and tests of a model with so many MACs."""

    speed: Speed  # as measured, before any correction
    num_images: Mapping[str, int]  # by split: train, val, test
    lease_seconds: float = 0.0  # that a warm worker takes to begin and end a lease
    correction: Correction = field(default_factory=Correction)

    def train_seconds(self, macs: int, *, epochs: int) -> float:
        """Of training for `epochs`, evaluation on val included."""
        return self.speed.seconds_per_image(macs) * self._images_per_epoch * epochs * self.correction.factor

    def test_seconds(self, macs: int, *, num_models: int = 1) -> float:
        """Of evaluating models that have so many MACs together on the test split."""
        per_image = self.speed.seconds_per_image(macs, num_models=num_models) * _EVAL_SHARE * self.correction.factor
        return per_image * self.num_images["test"] + self.lease_seconds * num_models

    def affordable_macs(self, seconds: float, *, epochs: int) -> int:
        """The most MACs of a model that can be trained for `epochs`, and tested, in so many device-seconds."""
        num_images = self._images_per_epoch * epochs + self.num_images["test"] * _EVAL_SHARE
        per_image = (seconds - self.lease_seconds) / (num_images * self.correction.factor)
        if self.speed.per_gmac == 0:
            return 10**18 if per_image >= self.speed.base else 0
        return max(0, int((per_image - self.speed.base) / self.speed.per_gmac * 1e9))

    def observe_epoch(self, macs: int, seconds: float) -> None:
        """Learn from what an epoch took."""
        predicted = self.speed.seconds_per_image(macs) * self._images_per_epoch
        self.correction = Correction(
            expected=self.correction.expected + predicted, actual=self.correction.actual + max(0.0, seconds)
        )

    @property
    def _images_per_epoch(self) -> float:
        return self.num_images["train"] + self.num_images["val"] * _EVAL_SHARE
