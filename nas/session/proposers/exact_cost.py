"""The sampler that knows the costs: a model of the error alone, and the exact expectation of what a candidate adds.

Parameters and MACs are known in closed form before anything is trained. Only the error is uncertain, so that the
expected improvement of the hypervolume is one-dimensional (see `improvement`).
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import moocore
import numpy as np
from scipy.special import expit

from metaformer.errors import UserError
from nas.record.trials import TrialRecord, TrialState
from nas.session.certainty.ends import Foretold, foretell_rest, logit_of
from nas.session.proposers.base import FreshGenes, Proposer
from nas.session.proposers.catalogue import Catalogue, Floats, Rows
from nas.session.proposers.earlier import LEAST_ERROR, Earlier, does_agree, slope
from nas.session.proposers.gaussian_process import (
    LEAST_COMPLETE,
    POINTS_TO_FIT,
    POINTS_TO_PREDICT,
    GaussianProcess,
    Hyperparameters,
    fit,
    fit_sizes,
    thinned,
)
from nas.session.proposers.improvement import undominated
from nas.study.objectives import ACCURACY, ExactObjective, Objectives
from nas.study.prior import Prior
from search_spaces.space import Genes, Limits, SearchSpace, SpaceError

_FIRST = 20  # trials that are spread over the costs, hand-designed ones not counted
_FIRST_AFTER_EARLIER = 8  # the same where an earlier search agrees
_REMEMBERED = (2, 5, 8)  # places of first ones that are of the earlier front
_DRAWS_FOR_FIRST = 4  # from which the one nearest to the wanted cost is taken
_POWER_FOR_FIRST = 3.0  # of positions between 0 and 1, so that an eighth of the range has half of the first ones
_STEPS_FOR_FIRST = 30  # gene by gene, towards the wanted cost
_INHERITED = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.5, 0.5, 0.75, 0.75)  # of fresh samples, from the trial that they follow
_TRIALS_WITH_SAMPLES = 100  # the youngest; each has as many fresh samples as the line above
_GOLDEN = (5**0.5 - 1) / 2
_MOST_CANDIDATES = 1500
_SAME_FOR_ALL = 0.5  # time that any training takes beside that of its MACs; that of the median MACs is 1
_MOST_STOPPED = 100  # trials that teach where they would have ended, and complete ones from which it is foretold
_MOST_RUNNING = 0.1  # of the trials of a fit


def exact_costs(objectives: Objectives) -> list[ExactObjective]:
    """The objectives that are known before training.

    Raises:
        UserError: Others but accuracy are measured, or more than two are exact.
    """
    exact = [objective for objective in objectives if isinstance(objective, ExactObjective)]
    others = [o.name for o in objectives if not isinstance(o, ExactObjective) and o.name != ACCURACY]
    if others or not 1 <= len(exact) <= 2:
        raise UserError(
            "sampler: must be another than exact_cost unless objectives are accuracy and one or two exact costs, "
            f"got {','.join(objectives.names)}"
        )
    return exact


class ExactCost(Proposer):
    """The candidate of most expected hypervolume improvement, by a Gaussian process on the logarithm of the error.

    Where a search pays for device time, it is the one of most improvement for the time that it takes.

    The hypervolume is the sum of two, over the logarithm of the costs and over the costs, so that the choice does not
    hang on one of them alone. Candidates are all changes of one gene of the front's members and some fresh samples.
    Every other suggestion uses a model in which the worst errors are cut down, since it may see what the other model
    misses. Running trials count as if they had ended at what the model expects. Trials that were stopped early teach
    where they would have ended, with the uncertainty of `certainty.ends`; failed ones teach nothing.

    With a prior the process is on what is left of the error when a part of what the earlier search expects is taken
    away: the part that the complete trials bear out.
    """

    def __init__(
        self, space: SearchSpace, objectives: Objectives, prior: Prior | None = None, *, per_trial: bool = False
    ) -> None:
        """Begin with a history of no trials.

        Args:
            prior: An earlier search to start from.
            per_trial: Whether the search pays for trials, not for device time. If so, the first ones are spread evenly
                over the costs; else most are cheap, and what counts is the improvement per device-second.
        Raises:
            UserError: Objectives are measured, or more than two are exact.
        """
        exact = exact_costs(objectives)
        self._per_trial = per_trial
        self._fresh = FreshGenes(space)
        self._known = Catalogue(space, exact)
        self._earlier = None if prior is None else Earlier(self._known, prior)
        self._rows: Rows = np.empty(0, dtype=np.int64)  # of the history, by place
        self._log_errors: Floats = np.empty(0)  # by place; NaN of trials that are not complete
        self._stopped: list[int] = []  # places of trials that were stopped, as they ended
        self._running: list[int] = []  # places
        self._members: Rows = np.empty(0, dtype=np.int64)  # of the front: places
        self._samples: dict[int, tuple[int, ...]] = {}  # rows, by place of the trial that they follow
        self._fitted: dict[bool, tuple[tuple[int, ...], _Fit]] = {}  # by whether errors are cut; places of the trials

    def propose(self, history: Sequence[TrialRecord], *, limits: Limits, seed: int) -> Genes | None:
        self._read(history)
        rng = random.Random(seed)
        num_first = sum(not trial.references for trial in history[: 2 * _FIRST + 50])
        row = None
        complete = np.flatnonzero(np.isfinite(self._log_errors))
        if len(complete) < LEAST_COMPLETE or num_first < _FIRST_AFTER_EARLIER or self._needs_more(num_first, complete):
            row = self._remembered(limits, rng) if num_first in _REMEMBERED else None
            row = self._spread(limits, rng) if row is None else row
        else:
            row = self._best(history, complete, limits, rng)
        return self._fresh.draw(limits, rng) if row is None else self._known.genes(row)

    def _read(self, history: Sequence[TrialRecord]) -> None:
        """Take note of trials that are new, and of those that have ended since."""
        self._fresh.read(history)
        known = range(len(self._rows), len(history))
        rows = [self._known.row_of(history[place].architecture) for place in known]
        for row in rows:
            self._known.mark_tried(row)
        self._rows = np.concatenate([self._rows, np.array(rows, dtype=np.int64)])
        self._log_errors = np.concatenate([self._log_errors, np.full(len(rows), np.nan)])
        complete = []
        for place in [*self._running, *known]:
            trial = history[place]
            if trial.state is TrialState.COMPLETE and trial.val_accuracy is not None:
                self._log_errors[place] = np.log(max(1 - trial.val_accuracy, LEAST_ERROR))
                complete.append(place)
            elif trial.state is TrialState.STOPPED and trial.progress.curve:
                self._stopped.append(place)
        self._running = [place for place in [*self._running, *known] if history[place].state is TrialState.RUNNING]
        if complete:
            self._members = self._front(np.sort(np.concatenate([self._members, complete])))

    # ------------------------------------------------------------------ the first trials

    def _spread(self, limits: Limits, rng: random.Random) -> int | None:
        """A row near the next of positions that fill the range of costs; None where none new was met.

        A position is the mean of those of the costs. The wanted ones are multiples of the golden ratio, modulo 1, to a
        power that makes most of them cheap where the search pays for device time.
        """
        bounded = self._fresh.space.within(limits)
        try:
            drawn = [self._known.row_of(bounded.sample(rng)) for _ in range(_DRAWS_FOR_FIRST)]
        except SpaceError:  # nothing satisfies the limits
            return None
        rows = self._known.new_within(drawn, limits)
        if not len(rows):
            return None
        even = (len(self._rows) * _GOLDEN + rng.random() / _FIRST) % 1
        wanted = self._most_position(limits) * (even if self._per_trial else even**_POWER_FOR_FIRST)
        best = int(rows[np.argmin(np.abs(self._position(rows) - wanted))])
        for _ in range(_STEPS_FOR_FIRST):
            other = self._known.row(self._fresh.mutate(self._known.genes(best), rng))
            [distance, least] = np.abs(self._position(np.array([other, best])) - wanted)
            if distance < least and len(self._known.new_within([other], limits)):
                best = other
        return best

    def _needs_more(self, num_first: int, complete: Rows) -> bool:
        """Whether more trials are spread over the costs: not where an earlier search is seen to agree."""
        if num_first >= _FIRST or self._earlier is None:
            return num_first < _FIRST
        return not does_agree(self._earlier.errors(self._rows[complete]), self._log_errors[complete])

    def _remembered(self, limits: Limits, rng: random.Random) -> int | None:
        """A row of the earlier search's front; None where none is left."""
        rows = self._known.new_within([] if self._earlier is None else self._earlier.front.tolist(), limits)
        return rng.choice(rows.tolist()) if len(rows) else None

    def _position(self, rows: Rows) -> Floats:
        mean: Floats = self._known.positions(rows)[:, : self._known.num_costs].mean(1)
        return mean

    def _most_position(self, limits: Limits) -> float:
        return float(np.mean(self._known.most_positions(limits)))

    # ------------------------------------------------------------------ the others

    def _best(self, history: Sequence[TrialRecord], complete: Rows, limits: Limits, rng: random.Random) -> int | None:
        """The row of the candidate of most expected improvement; None where none is new."""
        fitted = self._fit(complete, is_cut=len(self._rows) % 2 == 1)
        stopped, foretold = self._foretell(history, complete)
        used = self._choose(complete, self._members, POINTS_TO_PREDICT - len(stopped))
        log_errors, stds = self._log_errors[used], np.zeros(len(used))
        if len(stopped):
            errors = expit(foretold.mean)
            used = np.concatenate([used, stopped])
            log_errors = np.concatenate([log_errors, np.log(errors)])
            stds = np.concatenate([stds, (1 - errors) * foretold.scale])  # of a logarithm, from that of a logit
        targets = fitted.scale(log_errors - fitted.slope * self._said(self._rows[used]))
        extra = (stds / fitted.std) ** 2
        process = GaussianProcess(fitted.parameters, self._known.groups, self._features(used), targets, extra)
        members, errors = self._members, np.exp(self._log_errors[self._members])
        if self._running:
            running = self._features(self._running)
            scaled, _ = process.predict(running)
            expected = fitted.unscale(scaled) + fitted.slope * self._said(self._rows[self._running])
            members = np.concatenate([members, self._running])
            errors = np.concatenate([errors, np.exp(expected)])
            process = process.with_running(running)
        candidates = self._candidates(limits, rng)
        if not len(candidates):
            return None
        scaled, std = process.predict(self._known.features(candidates))
        mean = fitted.unscale(scaled) + fitted.slope * self._said(candidates)
        gains = np.zeros(len(candidates))
        for costs in (self._known.positions, self._known.shares):
            boxes = undominated(costs(self._rows[members]), errors)
            gains += boxes.expected_gain(costs(candidates), mean, fitted.std * std)
        return int(candidates[np.argmax(gains if self._per_trial else gains / self._times(candidates))])

    def _times(self, candidates: Rows) -> Floats:
        """How long trainings take, as parts of that of the median MACs; by costs, so that no clock decides."""
        macs, tried = (np.exp(self._known.log_costs(rows)[:, 1]) for rows in (candidates, self._rows))
        times: Floats = macs / np.median(tried) + _SAME_FOR_ALL
        return times

    def _foretell(self, history: Sequence[TrialRecord], complete: Rows) -> tuple[Rows, Foretold]:
        """The youngest of the trials that were stopped early, and where they would have ended."""
        end = history[complete[-1]].num_epochs
        stopped = [place for place in sorted(self._stopped)[-_MOST_STOPPED:] if history[place].num_epochs < end]
        places = [*complete[-_MOST_STOPPED:].tolist(), *stopped]
        curves = {place: {each.epoch: each.val_accuracy for each in history[place].progress.curve} for place in places}
        epochs = [*sorted({history[place].num_epochs for place in stopped}), end]
        whole = [place for place in places if curves[place].keys() >= set(epochs)]
        if not whole:
            return np.empty(0, dtype=np.int64), Foretold(np.empty(0), np.empty(0), 1.0)
        known = np.array([*whole, *stopped], dtype=np.int64)
        accuracies = np.array([[curves[place].get(epoch, np.nan) for epoch in epochs] for place in known.tolist()])
        found = foretell_rest(logit_of(accuracies), self._known.log_costs(self._rows[known]))
        return known[len(whole) :], found

    def _candidates(self, limits: Limits, rng: random.Random) -> Rows:
        """Neighbours of the front, and fresh samples; new ones within the limits, in an order that history decides."""
        rows: list[int] = [] if self._earlier is None else self._earlier.front.tolist()
        for row in self._rows[self._members]:
            rows.extend(self._known.neighbours(int(row)))
        num = len(self._rows)
        for place in range(max(0, num - _TRIALS_WITH_SAMPLES), num):
            if place not in self._samples:
                self._samples[place] = self._sample(
                    random.Random(str(self._known.genes(int(self._rows[place])))), place
                )
            rows.extend(self._samples[place])
        rows.extend(self._sample(rng, num - 1))
        found = self._known.new_within(rows, limits)
        if len(found) > _MOST_CANDIDATES:
            found = found[sorted(rng.sample(range(len(found)), _MOST_CANDIDATES))]
        return found

    def _sample(self, rng: random.Random, place: int) -> tuple[int, ...]:
        parent = int(self._rows[place])
        return tuple(self._known.draw(rng, parent=parent, inherited=share) for share in _INHERITED)

    def _front(self, places: Rows) -> Rows:
        """Those of some complete trials that no other of them dominates."""
        points = np.column_stack([self._known.positions(self._rows[places]), self._log_errors[places]])
        found: Rows = places[moocore.is_nondominated(points)]
        return found

    # ------------------------------------------------------------------ the model

    def _fit(self, complete: Rows, *, is_cut: bool) -> "_Fit":
        """Hyperparameters from the complete ones of the first trials, of which few may still run.

        They depend on the history alone, and change when the number of trials has grown by a factor.
        """
        settled = self._settled(complete)
        front = self._front(settled) if len(settled) > POINTS_TO_FIT else settled
        chosen = self._choose(settled, front, POINTS_TO_FIT)
        key = tuple(chosen.tolist())
        if is_cut not in self._fitted or self._fitted[is_cut][0] != key:
            errors, said = self._log_errors[chosen], self._said(self._rows[chosen])
            part = 0.0 if self._earlier is None else slope(said, errors)
            targets = errors - part * said
            most = 2 * float(np.median(targets)) - float(targets.min()) if is_cut else np.inf
            targets = np.minimum(targets, most)
            mean, std = float(targets.mean()), max(float(targets.std()), 1e-3)
            parameters = fit(self._features(chosen), (targets - mean) / std, self._known.groups)
            self._fitted[is_cut] = (key, _Fit(parameters, mean, std, most, part))
        return self._fitted[is_cut][1]

    def _said(self, rows: Rows) -> Floats:
        """What an earlier search expects of their errors; 0 where there is none."""
        return np.zeros(len(rows)) if self._earlier is None else self._earlier.errors(rows)

    def _settled(self, complete: Rows) -> Rows:
        """The complete trials among the first N, for the largest N of a fixed sequence below which few still run."""
        for number in reversed(fit_sizes(len(self._rows) - 1)):
            num_running = sum(place < number for place in self._running)
            num_complete = int(np.searchsorted(complete, number))
            if num_running <= _MOST_RUNNING * number and num_complete >= LEAST_COMPLETE:
                return complete[:num_complete]
        return complete

    def _choose(self, places: Rows, front: Rows, most: int) -> Rows:
        """At most so many of them, members of their front first."""
        return places[thinned(len(places), np.searchsorted(places, front).tolist(), most)]

    def _features(self, places: Rows | Sequence[int]) -> Floats:
        return self._known.features(self._rows[places])


@dataclass(frozen=True)
class _Fit:
    """Hyperparameters, and the scale of the targets that they are for.

    Cut targets are at most as far above their median as the least is below it.
    """

    parameters: Hyperparameters
    mean: float
    std: float
    most: float  # to which larger targets are cut
    slope: float  # of the earlier search's errors, which are taken away before; 0 where there is none

    def scale(self, targets: Floats) -> Floats:
        return (np.minimum(targets, self.most) - self.mean) / self.std

    def unscale(self, scaled: Floats) -> Floats:
        return self.mean + self.std * scaled
