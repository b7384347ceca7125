"""How sure a run's accuracies are, and with them its front: intervals, probabilities, and what to expect on test."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from nas.record.trials import TrialRecord
from nas.session.certainty.front import MOST_RIVALS, membership
from nas.session.certainty.noise import Floats, Ints, expected_on_test, fit, mean_accuracy
from nas.session.certainty.seen import Seen
from nas.study.objectives import Objectives

CLEAR = 0.9  # from this probability on one model is said to dominate another; down to 1 - CLEAR they are tied


@dataclass(frozen=True)
class Estimate:
    """What is believed of a trial; accuracies lie in [0, 1]."""

    low: float  # end of the interval that holds its architecture's true accuracy with probability 0.9
    high: float
    expected: float  # mean true accuracy of its architecture, over seeds and all images
    expected_test: float  # mean accuracy of its own weights on new images
    p_on_front: float  # probability that no other trial dominates it, by true accuracy and costs


class Uncertainty:
    """How sure the accuracies of a run's complete trials are.

    Attributes:
        num_val: Images of the validation split.
        num_replicates: Trials beyond the first of their architecture, from which the spread between seeds is learned.
    """

    def __init__(
        self,
        trials: Sequence[TrialRecord],
        objectives: Objectives,
        *,
        num_val: int,
        seed: int = 0,
        settings: Sequence[int] | None = None,
    ) -> None:
        """Estimate everything that is said of single trials.

        Args:
            trials: Complete ones.
            num_val: Images of the validation split.
            seed: Of the draws.
            settings: How each trial was trained, such as the number of its recipe; those of one architecture are
                replicates within a setting alone. None: all alike.
        Raises:
            ValueError: There are no trials or images.
        """
        if not trials or num_val < 1:
            raise ValueError(f"trials, num_val: must be at least one, got {len(trials)} and {num_val}")
        self.num_val = num_val
        self._row = {trial.number: row for row, trial in enumerate(trials)}
        self._asked: tuple[Sequence[TrialRecord], Ints] = ((), np.empty(0, dtype=np.int64))
        self._seen = Seen.of(trials, objectives, settings)
        accuracy_N, costs_NC, group_N = self._seen
        self.num_replicates = len(trials) - int(group_N.max()) - 1
        self._posterior = fit(accuracy_N, costs_NC, group_N, num_images=num_val, seed=seed)
        self._estimates = self._estimate_all()

    @classmethod
    def of(cls, trials: Sequence[TrialRecord], objectives: Objectives, num_val: int | None) -> Self | None:
        """The same; None where no trial is complete, or the number of validation images is not known."""
        return cls(trials, objectives, num_val=num_val) if trials and num_val else None

    @property
    def seed_sd(self) -> float:
        """Standard deviation between seeds on the logit scale; times a (1 - a) it is that of an accuracy a."""
        return self._posterior.hyper.seed_sd

    def estimate(self, trial: TrialRecord) -> Estimate:
        """What is believed of one of the trials."""
        return self._estimates[self._row[trial.number]]

    def p_dominates(self, others: Sequence[TrialRecord], trial: TrialRecord) -> Floats:
        """For each of some other trials, the probability that it costs no more and is more accurate than a trial.

        Accuracy is that of the architectures, so no trial dominates another one of its own architecture.
        """
        _, costs_NC, group_N = self._seen
        rows, own = self._rows(others), self._row[trial.number]
        costs_no_more = np.logical_and.reduce([costs_N[rows] <= costs_N[own] for costs_N in costs_NC.T])
        p_M = np.zeros(len(rows))
        p_M[costs_no_more] = self._posterior.p_greater(group_N[rows[costs_no_more]], int(group_N[own]))
        return p_M

    def p_dominates_each(self, trial: TrialRecord, others: Sequence[TrialRecord]) -> list[float]:
        """The same the other way round: the probability that a trial costs no more and is more accurate than each."""
        _, costs_NC, group_N = self._seen
        rows, own = self._rows(others), self._row[trial.number]
        groups_M, group = group_N[rows], int(group_N[own])
        can = (costs_NC[own] <= costs_NC[rows]).all(axis=1) & (groups_M != group)
        p_M: Floats = np.where(can, 1 - self._posterior.p_greater(groups_M, group), 0.0)
        return p_M.tolist()

    def p_dominated(self, trial: TrialRecord, *, by: Sequence[TrialRecord], each: Floats | None = None) -> float:
        """Probability that at least one of some other trials dominates a trial.

        Args:
            each: What `p_dominates` says of them, where that is known.
        """
        p_M = self.p_dominates(by, trial) if each is None else each
        likeliest = np.argsort(-p_M, kind="stable")[:MOST_RIVALS]
        likeliest = likeliest[p_M[likeliest] > 0]
        if not len(likeliest):
            return 0.0
        rows = [self._row[each.number] for each in (trial, *(by[i] for i in likeliest))]
        theta_RS = self._posterior.draw(self._seen.group_N[rows])
        return max(float((theta_RS[1:].max(axis=0) > theta_RS[0]).mean()), float(p_M.max()))

    def _rows(self, trials: Sequence[TrialRecord]) -> Ints:
        """Where some trials stand among all; of the same sequence it is often asked one after the other."""
        if trials is not self._asked[0]:
            self._asked = trials, np.array([self._row[trial.number] for trial in trials], dtype=np.int64)
        return self._asked[1]

    def expected_drop(self, trials: Sequence[TrialRecord]) -> float:
        """By how much the mean accuracy of some trials' own weights is expected to fall from val to test, in [0, 1].

        Those of one architecture count by their mean.
        """
        return self._excess(trials, [estimate.expected_test for estimate in self._estimates])

    def optimism(self, trials: Sequence[TrialRecord]) -> float:
        """By how much some trials' mean val accuracy exceeds what other seeds are expected to reach on test."""
        return self._excess(trials, [estimate.expected for estimate in self._estimates])

    def _excess(self, trials: Sequence[TrialRecord], expected: Sequence[float]) -> float:
        if not trials:
            return 0.0
        group_N = self._seen.group_N
        excess_N = self._seen.accuracy_N - np.array(expected)
        excess_G = np.bincount(group_N, excess_N) / np.bincount(group_N)
        return float(excess_G[group_N[[self._row[trial.number] for trial in trials]]].mean())

    def _estimate_all(self) -> list[Estimate]:
        posterior, group_N = self._posterior, self._seen.group_N
        low_G, high_G = posterior.interval()
        expected_G = mean_accuracy(posterior.mean, posterior.sd**2)
        test_N = expected_on_test(posterior, group_N)
        p_N = membership(posterior, self._seen.costs_NC, group_N)
        columns = (low_G[group_N], high_G[group_N], expected_G[group_N], test_N, p_N)
        return [Estimate(*row) for row in np.column_stack(columns).tolist()]
