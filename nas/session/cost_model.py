"""What the work of a search takes of a device, predicted from a measured speed and corrected by what it took."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from nas.record.notes import Correction
from nas.study.lease import Speed


@dataclass
class CostModel:
    """Device-seconds of epochs and tests of a model with so many MACs."""

    speed: Speed  # as measured, before any correction
    num_images: Mapping[str, int]  # by split: train, val, test
    lease_seconds: float = 0.0  # that a warm worker takes to begin and end a lease
    correction: Correction = field(default_factory=Correction)

    def train_seconds(self, macs: int, *, epochs: int) -> float:
        """Of training for `epochs`, evaluation on val included."""
        return self._epoch_seconds(macs) * epochs * self.correction.factor

    def test_seconds(self, macs: int, *, num_models: int = 1) -> float:
        """Of evaluating models that have so many MACs together on the test split."""
        per_image = self.speed.eval_seconds_per_image(macs, num_models=num_models) * self.correction.factor
        return per_image * self.num_images["test"] + self.lease_seconds * num_models

    def affordable_macs(self, seconds: float, *, epochs: int) -> int:
        """The most MACs of a model that can be trained for `epochs`, and tested, in so many device-seconds."""
        of_none, of_a_giga = (self.train_seconds(macs, epochs=epochs) + self.test_seconds(macs) for macs in (0, 10**9))
        if of_a_giga == of_none:
            return 10**18 if seconds >= of_none else 0
        return max(0, int((seconds - of_none) / (of_a_giga - of_none) * 1e9))

    def observe_epoch(self, macs: int, seconds: float) -> None:
        """Learn from what an epoch took."""
        self.correction = Correction(
            expected=self.correction.expected + self._epoch_seconds(macs),
            actual=self.correction.actual + max(0.0, seconds),
        )

    def _epoch_seconds(self, macs: int) -> float:
        """Before any correction."""
        train, val = self.num_images["train"], self.num_images["val"]
        return self.speed.seconds_per_image(macs) * train + self.speed.eval_seconds_per_image(macs) * val
