"""The front of a search, and which models are evaluated on the test split at its end."""

from collections.abc import Callable, Sequence

from nas.record.trials import TrialRecord
from nas.session.pareto import HypervolumeScale, front_of


class Finalists:
    """The front so far, and the completed hand-designed models beside it.

    Attributes:
        front: The completed trials that no other dominates, by rising parameters.
        hypervolume: Part of the unit cube that the front dominates.
    """

    def __init__(self, scale: HypervolumeScale) -> None:
        """There is no completed trial yet."""
        self.front: list[TrialRecord] = []
        self.hypervolume = 0.0
        self._scale = scale
        self._references: list[TrialRecord] = []
        self._tried: set[int] = set()  # numbers of trials that have been given to a device for their test

    def add(self, completed: Sequence[TrialRecord]) -> None:
        """Add trials that have been trained to the end."""
        self._references += [trial for trial in completed if trial.references]
        self.front = front_of([*self.front, *completed], self._scale.objectives)
        self.hypervolume = self._scale.hypervolume([self._scale.objectives.values(trial) for trial in self.front])

    @property
    def members(self) -> list[TrialRecord]:
        """The front and the completed hand-designed models, each once; their weights are kept."""
        return list({trial.number: trial for trial in (*self.front, *self._references)}.values())

    @property
    def to_test(self) -> list[TrialRecord]:
        """The members that have no accuracy on the test split yet."""
        return [trial for trial in self.members if trial.test_accuracy is None]

    @property
    def untried(self) -> list[TrialRecord]:
        """The members that have never been given to a device for their test."""
        return [trial for trial in self.to_test if trial.number not in self._tried]

    def next_to_test(self, is_affordable: Callable[[TrialRecord], bool]) -> TrialRecord | None:
        """A member to test now, each once; None where none is left or affordable."""
        trial = next(filter(is_affordable, self.untried), None)
        if trial is not None:
            self._tried.add(trial.number)
        return trial
