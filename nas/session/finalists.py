"""The front of a study, and which models are evaluated on the test split at its end."""

from collections.abc import Callable, Sequence

from nas.record.trials import TrialRecord
from nas.session.pareto import HypervolumeScale, front_of


class Finalists:
    """The front so far, and the completed hand-designed models beside it; or all completed trials, if asked for.

    Attributes:
        front: The completed trials that no other dominates, by rising parameters.
        hypervolume: Part of the unit cube that the front dominates.
    """

    def __init__(self, scale: HypervolumeScale, *, takes_all: bool = False) -> None:
        """There is no completed trial yet.

        Args:
            takes_all: Whether every completed trial is a member, and is tested.
        """
        self.front: list[TrialRecord] = []
        self.hypervolume = 0.0
        self._scale = scale
        self._takes_all = takes_all
        self._others: list[TrialRecord] = []  # members that need not be on the front
        self._tried: set[int] = set()  # numbers of trials that have been given to a device for their test

    def add(self, completed: Sequence[TrialRecord]) -> None:
        """Add trials that have been trained to the end."""
        self._others += [trial for trial in completed if trial.references or self._takes_all]
        self.front = front_of([*self.front, *completed], self._scale.objectives)
        self.hypervolume = self._scale.hypervolume([self._scale.objectives.values(trial) for trial in self.front])

    @property
    def members(self) -> list[TrialRecord]:
        """The front and those beside it, each once; their weights are kept."""
        return list({trial.number: trial for trial in (*self.front, *self._others)}.values())

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
