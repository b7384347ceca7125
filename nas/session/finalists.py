"""The front of a study, and which models are evaluated on the test split at its end."""

import bisect
from collections.abc import Callable, Sequence

from nas.record.replicates import mean_trial
from nas.record.trials import TrialRecord
from nas.session.pareto import HypervolumeScale, front_of


class Finalists:
    """The front so far, and the completed hand-designed models beside it; or all completed trials, if asked for.

    Attributes:
        front: The completed trials that no other dominates, by rising parameters; those of one architecture as one,
            with the number of the first and mean accuracies.
        hypervolume: Part of the unit cube that the front dominates.
        members: The front's trainings and those beside it, each once, the first of each architecture first. Their
            weights are kept.
        to_test: The members that have no accuracy on the test split yet.
        checkpointed: Trials whose checkpoints hold the weights of completed ones.
    """

    def __init__(self, scale: HypervolumeScale, *, takes_all: bool = False) -> None:
        """There is no completed trial yet.

        Args:
            takes_all: Whether every completed trial is a member, and is tested.
        """
        self.front: list[TrialRecord] = []
        self.hypervolume = 0.0
        self.members: list[TrialRecord] = []
        self.to_test: list[TrialRecord] = []
        self.checkpointed: set[int] = set()
        self._scale = scale
        self._takes_all = takes_all
        self._others: list[TrialRecord] = []  # members that need not be on the front
        self._trainings: dict[str, list[TrialRecord]] = {}  # complete ones by architecture, each by rising number
        self._tried: set[int] = set()  # numbers of trials that have been given to a device for their test

    def add(self, completed: Sequence[TrialRecord]) -> None:
        """Add trials that have been trained to the end."""
        self._others += [trial for trial in completed if trial.references or self._takes_all]
        self.checkpointed.update(trial.checkpoint_trial for trial in completed)
        are_new = True
        for trial in completed:
            trainings = self._trainings.setdefault(trial.digest, [])
            bisect.insort(trainings, trial, key=lambda training: training.number)
            are_new = are_new and len(trainings) == 1
        # A mean that falls may leave the front, and what it dominated come back.
        candidates = [*self.front, *completed] if are_new else [mean_trial(each) for each in self._trainings.values()]
        self.front = front_of(candidates, self._scale.objectives)
        self.hypervolume = self._scale.hypervolume([self._scale.objectives.values(trial) for trial in self.front])
        self._list_members()

    def note_test(self) -> None:
        """Take note of an accuracy on the test split that one of the trials has got."""
        self.front = [mean_trial(self._trainings[member.digest]) for member in self.front]
        self._list_members()

    def _list_members(self) -> None:
        trainings = [self._trainings[member.digest] for member in self.front]
        firsts = [first for first, *_ in trainings]
        again = [trial for _, *others in trainings for trial in others]
        self.members = list({trial.number: trial for trial in (*firsts, *self._others, *again)}.values())
        self.to_test = [trial for trial in self.members if trial.test_accuracy is None]

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
