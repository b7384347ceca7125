"""The front of a study, and which models are evaluated on the test split at its end."""

import bisect
from collections.abc import Callable, Sequence

from nas.record.replicates import mean_trial
from nas.record.trials import TrialRecord
from nas.session.pareto import HypervolumeScale, front
from nas.study.objectives import Point


class Finalists:
    """The front so far, and the completed hand-designed models beside it; or all completed trials, if asked for.

    Attributes:
        front: The completed trials that no other dominates, by rising parameters; those of one architecture as one,
            with the number of the first and mean accuracies. The same list as long as nothing in it changes.
        hypervolume: Part of the unit cube that the front dominates.
        members: The front's trainings and those beside it, each once, the first of each architecture first. Their
            weights are kept.
        to_test: The members that have no accuracy on the test split yet.
        to_test_macs: MACs of these in all.
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
        self.to_test_macs = 0
        self.checkpointed: set[int] = set()
        self._scale = scale
        self._takes_all = takes_all
        self._others: list[TrialRecord] = []  # members that need not be on the front
        self._trainings: dict[str, list[TrialRecord]] = {}  # complete ones by architecture, each by rising number
        self._means: dict[str, tuple[TrialRecord, Point]] = {}  # of these, likewise
        self._tried: set[int] = set()  # numbers of trials that have been given to a device for their test

    def add(self, completed: Sequence[TrialRecord]) -> None:
        """Add trials that have been trained to the end."""
        others = [trial for trial in completed if trial.references or self._takes_all]
        self._others += others
        self.checkpointed.update(trial.checkpoint_trial for trial in completed)
        changed = dict.fromkeys(trial.digest for trial in completed)
        for trial in completed:
            bisect.insort(self._trainings.setdefault(trial.digest, []), trial, key=lambda training: training.number)
        for digest in changed:
            mean = mean_trial(self._trainings[digest])
            self._means[digest] = mean, self._scale.objectives.values(mean)
        members = [member.digest for member in self.front]
        if changed.keys().isdisjoint(members):
            found = self._front_of([*members, *changed])
            if found != members:
                self._set_front(found)
            elif others:
                self._list_members()
        else:  # a mean that falls may leave the front, and what it dominated come back
            self._set_front(self._front_of(list(self._means)))

    def note_test(self) -> None:
        """Take note of an accuracy on the test split that one of the trials has got."""
        for member in self.front:
            self._means[member.digest] = mean_trial(self._trainings[member.digest]), self._means[member.digest][1]
        self.front = [self._means[member.digest][0] for member in self.front]
        self._list_members()

    def _front_of(self, digests: Sequence[str]) -> list[str]:
        """The architectures among these that no other dominates, by rising parameters."""
        found = [digests[i] for i in front([self._means[each][1] for each in digests], self._scale.objectives)]
        return sorted(found, key=self._place)

    def _place(self, digest: str) -> tuple[int, int, int]:
        mean, _ = self._means[digest]
        return mean.params, mean.macs, mean.number

    def _set_front(self, digests: Sequence[str]) -> None:
        self.front = [self._means[each][0] for each in digests]
        self.hypervolume = self._scale.hypervolume([self._means[each][1] for each in digests])
        self._list_members()

    def _list_members(self) -> None:
        trainings = [self._trainings[member.digest] for member in self.front]
        firsts = [first for first, *_ in trainings]
        again = [trial for _, *others in trainings for trial in others]
        self.members = list({trial.number: trial for trial in (*firsts, *self._others, *again)}.values())
        self.to_test = [trial for trial in self.members if trial.test_accuracy is None]
        self.to_test_macs = sum(trial.macs for trial in self.to_test)

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
