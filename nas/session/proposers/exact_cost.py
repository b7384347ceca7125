"""The sampler that knows the costs: a model of the error alone, and the exact expectation of what a candidate adds.

Parameters and MACs are known in closed form before anything is trained. Only the error is uncertain, so that the
expected improvement of the hypervolume is one-dimensional (see `improvement`).
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import moocore
import numpy as np

from metaformer.errors import UserError
from nas.record.trials import TrialRecord, TrialState
from nas.session.proposers.base import FreshGenes, Proposer
from nas.session.proposers.catalogue import Catalogue, Floats, Rows
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
from search_spaces.space import Genes, Limits, SearchSpace, SpaceError

_FIRST = 20  # trials that are spread over the costs, hand-designed ones not counted
_DRAWS_FOR_FIRST = 4  # from which the one nearest to the wanted cost is taken
_STEPS_FOR_FIRST = 30  # gene by gene, towards the wanted cost
_INHERITED = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.5, 0.5, 0.75, 0.75)  # of fresh samples, from the trial that they follow
_TRIALS_WITH_SAMPLES = 100  # the youngest; each has as many fresh samples as the line above
_GOLDEN = (5**0.5 - 1) / 2
_LEAST_ERROR = 1e-4  # whose logarithm is taken
_MOST_CANDIDATES = 1500
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

    The hypervolume is the sum of two, over the logarithm of the costs and over the costs, so that the choice does not
    hang on one of them alone. Candidates are all changes of one gene of the front's members and some fresh samples.
    Every other suggestion uses a model in which the worst errors are cut down, since it may see what the other model
    misses. Running trials count as if they had ended at what the model expects. Trials that were stopped or failed
    are not proposed again, and teach nothing.
    """

    def __init__(self, space: SearchSpace, objectives: Objectives) -> None:
        """Raises UserError where objectives are measured or where more than two are exact."""
        exact = exact_costs(objectives)
        self._fresh = FreshGenes(space)
        self._known = Catalogue(space, exact)
        self._rows: list[int] = []  # of the history, by place
        self._log_errors: dict[int, float] = {}  # of the complete trials, by place
        self._samples: dict[int, tuple[int, ...]] = {}  # rows, by place of the trial that they follow
        self._fitted: dict[bool, tuple[tuple[int, ...], _Fit]] = {}  # by whether errors are cut; places of the trials

    def propose(self, history: Sequence[TrialRecord], *, limits: Limits, seed: int) -> Genes | None:
        self._read(history)
        rng = random.Random(seed)
        num_first = sum(not trial.references for trial in history[: 2 * _FIRST + 50])
        row = None
        if num_first < _FIRST or len(self._log_errors) < LEAST_COMPLETE:
            row = self._spread(limits, rng)
        else:
            row = self._best(history, limits, rng)
        return self._fresh.draw(limits, rng) if row is None else self._known.genes(row)

    def _read(self, history: Sequence[TrialRecord]) -> None:
        """Take note of trials that are new, and of those that have been completed since."""
        self._fresh.read(history)
        for trial in history[len(self._rows) :]:
            self._rows.append(self._known.row_of(trial.architecture))
            self._known.mark_tried(self._rows[-1])
        for place, trial in enumerate(history):
            if trial.state is TrialState.COMPLETE and place not in self._log_errors and trial.val_accuracy is not None:
                self._log_errors[place] = float(np.log(max(1 - trial.val_accuracy, _LEAST_ERROR)))

    # ------------------------------------------------------------------ the first trials

    def _spread(self, limits: Limits, rng: random.Random) -> int | None:
        """A row near the next of positions that fill the range of costs evenly; None where none new was met.

        A position is the mean of those of the costs. The wanted ones are multiples of the golden ratio, modulo 1.
        """
        bounded = self._fresh.space.within(limits)
        try:
            drawn = [self._known.row_of(bounded.sample(rng)) for _ in range(_DRAWS_FOR_FIRST)]
        except SpaceError:  # nothing satisfies the limits
            return None
        rows = self._known.new_within(drawn, limits)
        if not len(rows):
            return None
        wanted = self._most_position(limits) * ((len(self._rows) * _GOLDEN + rng.random() / _FIRST) % 1)
        best = int(rows[np.argmin(np.abs(self._position(rows) - wanted))])
        for _ in range(_STEPS_FOR_FIRST):
            other = self._known.row(self._fresh.mutate(self._known.genes(best), rng))
            [distance, least] = np.abs(self._position(np.array([other, best])) - wanted)
            if distance < least and len(self._known.new_within([other], limits)):
                best = other
        return best

    def _position(self, rows: Rows) -> Floats:
        mean: Floats = self._known.positions(rows)[:, : self._known.num_costs].mean(1)
        return mean

    def _most_position(self, limits: Limits) -> float:
        return float(np.mean(self._known.most_positions(limits)))

    # ------------------------------------------------------------------ the others

    def _best(self, history: Sequence[TrialRecord], limits: Limits, rng: random.Random) -> int | None:
        """The row of the candidate of most expected improvement; None where none is new."""
        complete = sorted(self._log_errors)
        running = [place for place, trial in enumerate(history) if trial.state is TrialState.RUNNING]
        is_cut = len(history) % 2 == 1
        fitted = self._fit(history, is_cut=is_cut)
        used = self._choose(complete, POINTS_TO_PREDICT)
        targets = fitted.scale(self._targets(used))
        process = GaussianProcess(fitted.parameters, self._known.groups, self._features(used), targets)
        tried = self._rows_at([*complete, *running])
        errors = np.exp(self._targets(complete))
        if running:
            expected, _ = process.predict(self._features(running))
            errors = np.concatenate([errors, np.exp(fitted.unscale(expected))])
            process = process.with_running(self._features(running))
        candidates = self._candidates(complete, limits, rng)
        if not len(candidates):
            return None
        mean, std = process.predict(self._known.features(candidates))
        gains = np.zeros(len(candidates))
        members = moocore.is_nondominated(np.column_stack([self._known.positions(tried), errors]))
        for costs in (self._known.positions, self._known.shares):
            boxes = undominated(costs(tried[members]), errors[members])
            gains += boxes.expected_gain(costs(candidates), fitted.unscale(mean), fitted.std * std)
        return int(candidates[np.argmax(gains)])

    def _candidates(self, complete: Sequence[int], limits: Limits, rng: random.Random) -> Rows:
        """Neighbours of the front, and fresh samples; new ones within the limits, in an order that history decides."""
        rows: list[int] = []
        for place in self._front(complete):
            rows.extend(self._known.neighbours(self._rows[place]))
        num = len(self._rows)
        for place in range(max(0, num - _TRIALS_WITH_SAMPLES), num):
            if place not in self._samples:
                self._samples[place] = self._sample(random.Random(str(self._known.genes(self._rows[place]))), place)
            rows.extend(self._samples[place])
        rows.extend(self._sample(rng, num - 1))
        found = self._known.new_within(rows, limits)
        if len(found) > _MOST_CANDIDATES:
            found = found[sorted(rng.sample(range(len(found)), _MOST_CANDIDATES))]
        return found

    def _sample(self, rng: random.Random, place: int) -> tuple[int, ...]:
        parent = self._rows[place]
        return tuple(self._known.draw(rng, parent=parent, inherited=share) for share in _INHERITED)

    def _front(self, complete: Sequence[int]) -> list[int]:
        """Places of the complete trials that no other dominates."""
        points = np.column_stack([self._known.positions(self._rows_at(complete)), self._targets(complete)])
        return [complete[int(i)] for i in np.flatnonzero(moocore.is_nondominated(points))]

    # ------------------------------------------------------------------ the model

    def _fit(self, history: Sequence[TrialRecord], *, is_cut: bool) -> "_Fit":
        """Hyperparameters from the complete ones of the first trials, of which few may still run.

        They depend on the history alone, and change when the number of trials has grown by a factor.
        """
        chosen = self._choose(self._settled(history), POINTS_TO_FIT)
        key = tuple(chosen)
        if is_cut not in self._fitted or self._fitted[is_cut][0] != key:
            targets = self._targets(chosen)
            most = 2 * float(np.median(targets)) - float(targets.min()) if is_cut else np.inf
            targets = np.minimum(targets, most)
            mean, std = float(targets.mean()), max(float(targets.std()), 1e-3)
            parameters = fit(self._features(chosen), (targets - mean) / std, self._known.groups)
            self._fitted[is_cut] = (key, _Fit(parameters, mean, std, most))
        return self._fitted[is_cut][1]

    def _settled(self, history: Sequence[TrialRecord]) -> list[int]:
        """The complete trials among the first N, for the largest N of a fixed sequence below which few still run."""
        running = np.cumsum([trial.state is TrialState.RUNNING for trial in history])
        for number in reversed(fit_sizes(len(history) - 1)):
            if running[number - 1] <= _MOST_RUNNING * number:
                complete = [place for place in range(number) if place in self._log_errors]
                if len(complete) >= LEAST_COMPLETE:
                    return complete
        return sorted(self._log_errors)

    def _choose(self, places: Sequence[int], most: int) -> list[int]:
        """At most so many of them."""
        front = map(places.index, self._front(places)) if len(places) > most else ()
        return [places[i] for i in thinned(len(places), list(front), most)]

    def _rows_at(self, places: Sequence[int]) -> Rows:
        return np.array([self._rows[place] for place in places], dtype=np.int64)

    def _features(self, places: Sequence[int]) -> Floats:
        return self._known.features(self._rows_at(places))

    def _targets(self, places: Sequence[int]) -> Floats:
        return np.array([self._log_errors[place] for place in places])


@dataclass(frozen=True)
class _Fit:
    """Hyperparameters, and the scale of the targets that they are for.

    Cut targets are at most as far above their median as the least is below it.
    """

    parameters: Hyperparameters
    mean: float
    std: float
    most: float  # to which larger targets are cut

    def scale(self, targets: Floats) -> Floats:
        return (np.minimum(targets, self.most) - self.mean) / self.std

    def unscale(self, scaled: Floats) -> Floats:
        return self.mean + self.std * scaled
