"""New seeds of the trials whose membership of the front is most in doubt, from a part of a search's budget."""

import random
from collections import Counter
from statistics import fmean
from typing import NamedTuple

import numpy as np

from metaformer.cost import count_cost
from nas.record.record import Record
from nas.record.trials import TrialRecord, TrialState
from nas.session.certainty.front import MOST_CANDIDATES, Drawn, choose, draw_fronts
from nas.session.certainty.noise import Ints, fit
from nas.session.certainty.seen import Seen
from nas.session.cost_model import CostModel
from nas.study.budget import Budget, parse_share
from nas.study.finals import MOST_SEEDS
from nas.study.lease import Measurement
from nas.study.study import Study
from search_spaces.space import SearchSpace

KEPT = 0.01  # probability of membership from which a trial's weights are kept
_AUTO = 0.2  # of the budget
_FEWEST = 100  # full trainings of a mean architecture that the budget pays for; below that, auto is off
_NUM_SAMPLES = 64  # architectures that stand for the space


class _Estimated(NamedTuple):
    """What is believed after some complete trials."""

    firsts: list[TrialRecord]  # the first of each architecture
    group_N: Ints  # the architecture of each complete trial
    drawn: Drawn  # with one trial of each architecture


class Confirmation:
    """Says which trial to train again, and what of the budget is kept for that.

    Decisions follow from the record, so that a session that goes on decides like one that never stopped.
    """

    def __init__(self, study: Study, record: Record, costs: CostModel) -> None:
        """Nothing has been estimated yet."""
        self._study, self._record, self._costs = study, record, costs
        self.share = _share(study, record.space, costs)
        self._seconds = self.share * Budget.parse(study.budget).seconds
        self._again: list[TrialRecord] = []  # trainings with further seeds
        self._num_read = 0  # trials of the record
        self._estimated: _Estimated | None = None

    @property
    def left(self) -> float:
        """Device-seconds of the part that are neither spent nor meant for what is under way."""
        return max(0.0, self._seconds - sum(map(self._taken, self._trainings()))) if self.share else 0.0

    def next(self, free: float) -> TrialRecord | None:
        """A trial of an architecture that is trained again; None where none is affordable or would change the front.

        Args:
            free: Device-seconds of the whole budget that a training and its test may take.
        """
        left = self.left
        known = self._estimate() if left > 0 else None
        if known is None:
            return None
        firsts, drawn = known.firsts, known.drawn
        again = self._trainings()
        failed = {trial.architecture.digest for trial in again if trial.state is TrialState.FAILED}
        pending = Counter(trial.architecture.digest for trial in again if trial.state is TrialState.RUNNING)
        seconds_G = np.array([self._train_seconds(first) for first in firsts])
        test_seconds_G = np.array([self._costs.test_seconds(first.macs) for first in firsts])
        has_failed_G = np.array([first.architecture.digest in failed for first in firsts])
        best = choose(
            drawn,
            num_pending_G=np.array([pending[first.architecture.digest] for first in firsts]),
            seconds_G=seconds_G,
            is_allowed_G=(seconds_G <= left) & (seconds_G + test_seconds_G <= free) & ~has_failed_G,
        )
        return None if best is None else self._begin(firsts[best])

    def in_doubt(self) -> list[TrialRecord]:
        """The complete trials that are on the front with a probability of at least `KEPT`."""
        known = self._estimate()
        if known is None:
            return []
        p_N = known.drawn.membership()[known.group_N]
        return [trial for trial, p in zip(self._record.complete, p_N.tolist(), strict=True) if p >= KEPT]

    def _begin(self, first: TrialRecord) -> TrialRecord:
        """A trial with the next seed, none of which finals of the search would use; what was measured is known."""
        digest, own = first.architecture.digest, self._study.seed
        used = {trial.seed for trial in self._trainings() if trial.architecture.digest == digest}
        step = -1 if own + MOST_SEEDS + len(used) + 1 >= 2**63 else 1  # a seed has 64 bits
        seed = own + step * (MOST_SEEDS + len(used) + 1)
        trial = self._record.start(first.architecture, references=first.references, seed=seed)
        if first.progress.device is not None:
            trial.add_measurement(Measurement(values=dict(first.measured), device=first.progress.device))
        return trial

    def _estimate(self) -> "_Estimated | None":
        """What all complete trials show; None where there are none."""
        num_val = self._costs.num_images["val"]
        complete = self._record.complete
        if not complete or not num_val:
            return None
        if self._estimated is None or len(self._estimated.group_N) != len(complete):
            accuracy_N, costs_NC, group_N = Seen.of(complete, self._study.goals)
            rows = np.unique(group_N, return_index=True)[1]
            posterior = fit(accuracy_N, costs_NC, group_N, num_images=num_val)
            drawn = draw_fronts(posterior, costs_NC[rows], most=MOST_CANDIDATES)
            self._estimated = _Estimated([complete[row] for row in rows], group_N, drawn)
        return self._estimated

    def _trainings(self) -> list[TrialRecord]:
        """All trainings with further seeds so far."""
        trials = self._record.trials
        self._again += [trial for trial in trials[self._num_read :] if trial.seed is not None]
        self._num_read = len(trials)
        return self._again

    def _taken(self, trial: TrialRecord) -> float:
        """Device-seconds that a training has used, and will yet use."""
        return (
            trial.device_seconds
            + trial.lost_seconds
            + (self._train_seconds(trial) if trial.state is TrialState.RUNNING else 0.0)
        )

    def _train_seconds(self, trial: TrialRecord) -> float:
        """Device-seconds to the end of a running training, or of training an ended one again."""
        num_done = trial.num_epochs if trial.state is TrialState.RUNNING else 0
        return self._costs.train_seconds(trial.macs, epochs=self._study.recipe.epochs - num_done)


def _share(study: Study, space: SearchSpace, costs: CostModel) -> float:
    """The part of a study's budget that goes to new seeds; `auto` is decided by what was measured before it began."""
    share = parse_share("confirm", study.confirm) if study.finals is None else 0.0
    if share is not None:
        return share
    rng = random.Random(0)
    mean_macs = int(fmean(count_cost(space.sample(rng)).macs for _ in range(_NUM_SAMPLES)))
    seconds = CostModel(costs.speed, costs.num_images).train_seconds(mean_macs, epochs=study.recipe.epochs)
    return _AUTO if Budget.parse(study.budget).seconds >= _FEWEST * seconds else 0.0
