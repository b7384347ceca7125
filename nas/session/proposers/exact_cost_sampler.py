"""The sampler that knows the costs, for any study of Optuna's: `exact_cost` on declared parameters.

One objective is uncertain. The others follow from the parameters before the trial, so that the expected improvement of
the hypervolume is one-dimensional (see `improvement`).

n trials, m candidates.
"""

import math
import random
import secrets
import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import moocore
import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from metaformer.errors import UserError, check_type, shown
from nas.record.record import distribution
from nas.record.trials import TrialRecord
from nas.record.trials import TrialState as RecordState
from nas.session.proposers.exact_cost import ExactCost, exact_costs
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
from nas.session.proposers.parameters import Costs, Parameters, Params, Point
from nas.study.lease import Report
from nas.study.objectives import ACCURACY, DEFAULT, Objectives, choose
from search_spaces.space import Genes, SearchSpace

Floats = NDArray[np.float64]
_DRAWS_FOR_FIRST = 50  # from which the one nearest to the wanted cost is taken
_FRESH = 200  # candidates drawn uniformly, and as many children of the front
_MOST_CANDIDATES = 1000
_MOST_ENUMERATED = 1000  # points of a space all of which are candidates
_GOLDEN = (5**0.5 - 1) / 2
_MARGIN = 0.1  # of the reference point beyond the front's worst, as part of the front's range (BoTorch's rule)
_LEAST_ERROR = 1e-4  # whose logarithm is taken, as part of the worst


class _Seeded(BaseSampler):
    """What depends on a seed, the number of the trial and the trials before it alone; threads may share it."""

    def __init__(self, seed: int | None) -> None:
        self._seed = secrets.randbits(32) if seed is None else seed
        self._lock = threading.RLock()
        self._forget()

    def _forget(self) -> None:
        """Know nothing of trials that have ended, which are read again."""

    def reseed_rng(self) -> None:
        self._seed = secrets.randbits(32)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A parameter that was not declared, uniformly."""
        sampler = RandomSampler(seed=zlib.crc32(f"{self._seed} {trial.number} {param_name}".encode()))
        return sampler.sample_independent(study, trial, param_name, param_distribution)

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_lock", "_ended", "_met")}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._lock = threading.RLock()
        self._forget()


class ExactCostSampler(_Seeded):
    """Suggests the point of most expected hypervolume improvement, where all objectives but one are known exactly.

    A Gaussian process models the uncertain objective. The first trials are spread over the costs. Running trials count
    as if they had ended at what the model expects; points of failed and pruned trials are not suggested again and
    teach nothing. Points repeat only where a finite space has no other left. Parameters that are not declared are drawn
    uniformly. What is suggested depends on the seed, the number of the trial and the trials before it alone.
    """

    def __init__(
        self,
        search_space: Mapping[str, BaseDistribution],
        costs: Callable[[Params], Sequence[float]],
        *,
        uncertain: int = 0,
        best_possible: float | None = None,
        canonical: Callable[[Params], Mapping[str, Any]] | None = None,
        n_startup_trials: int = 20,
        seed: int | None = None,
    ) -> None:
        """Describe the objectives; nothing is computed yet.

        Args:
            search_space: Every parameter that the objective function suggests, by name, with its distribution.
            costs: From parameters to the values of the objectives other than the uncertain one, in the study's order:
                none, one or two. It is called for up to a thousand candidates a trial, so it must take microseconds.
            uncertain: Place of the uncertain objective among the study's directions.
            best_possible: Its best value: 1 of an accuracy, 0 of an error rate. The distance from it is modelled by its
                logarithm. None: the values are modelled as they are.
            canonical: From parameters to the same ones in one form, where several stand for one point.
            n_startup_trials: Trials that are spread over the costs before the model is asked.
            seed: None: another one every time.

        Raises:
            UserError: An argument is not as described.
        """
        for name, function in {"costs": costs, **({} if canonical is None else {"canonical": canonical})}.items():
            if not callable(function):
                raise UserError(f"{name}: must be a function of the parameters, got {shown(function)}")
        for name, number, least in (("uncertain", uncertain, 0), ("n_startup_trials", n_startup_trials, 1)):
            rule = f"{name}: must be a whole number of {least} or more"
            check_type(number, int, rule, error=UserError)
            if number < least:
                raise UserError(f"{rule}, got {number}")
        super().__init__(seed)
        self._space = Parameters(search_space, canonical)
        self._known = Costs(self._space, costs)
        self._uncertain, self._best_possible, self._num_first = uncertain, best_possible, n_startup_trials
        self._suggested: dict[tuple[str, int], Point] = {}  # by study and trial, of those that have not ended
        self._fitted: tuple[tuple[Point, ...], tuple[float, ...], Hyperparameters] | None = None

    def _forget(self) -> None:
        self._ended: dict[tuple[str, int], tuple[Params, Point | None]] = {}  # by study and trial

    @staticmethod
    def of(
        space: SearchSpace, objectives: Sequence[str] = DEFAULT, *, seed: int | None = None
    ) -> "ArchitectureSampler":
        """The sampler for an objective function that calls `space.suggest(trial)`.

        Args:
            objectives: Accuracy, and one or two of `params` and `macs`, in the order of the study's directions.

        Raises:
            UserError: The objectives are others, or the space has limits, which a suggestion would not keep.
        """
        return ArchitectureSampler(space, objectives, seed=seed)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return dict(self._space.distributions)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Parameters of a whole point, those of them that `search_space` names.

        Raises:
            UserError: The study has other objectives than the sampler.
        """
        with self._lock:
            history = self._read(study, trial)
            rng = random.Random(f"{self._seed} {trial.number}")
            point = self._suggest(history, rng)
            self._suggested[study.study_name, trial.number] = point
        params = self._space.params(point)
        return {name: params[name] for name in search_space if name in params}

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        with self._lock:
            self._suggested.pop((study.study_name, trial.number), None)

    # ------------------------------------------------------------------ the history

    def _read(self, study: Study, own: FrozenTrial) -> "_History":
        """The trials of a study but one, by number; errors are what is minimised."""
        if self._uncertain >= len(study.directions):
            raise UserError(
                f"uncertain: must be below the study's number of objectives, {len(study.directions)}, "
                f"got {self._uncertain}"
            )
        others = [direction for place, direction in enumerate(study.directions) if place != self._uncertain]
        self._known.set_directions([direction is StudyDirection.MAXIMIZE for direction in others])
        is_maximised = study.directions[self._uncertain] is StudyDirection.MAXIMIZE
        history = _History()
        for trial in study.get_trials(deepcopy=False):
            if trial.number == own.number or trial.state is TrialState.WAITING:
                continue
            history.num += 1
            point = self._point_of(study.study_name, trial)
            if point is None and trial.state is TrialState.RUNNING:
                point = self._suggested.get((study.study_name, trial.number))
            if point is None:
                continue
            history.tried.add(point)
            if trial.state is TrialState.RUNNING:
                history.running.append(point)
            elif trial.state is TrialState.COMPLETE and math.isfinite(trial.values[self._uncertain]):
                history.points.append(point)
                history.errors.append(self._error(trial.values[self._uncertain], is_maximised=is_maximised))
        return history

    def _point_of(self, study_name: str, trial: FrozenTrial) -> Point | None:
        """Where a trial lies, which is known of one that had ended before: its parameters are looked at once."""
        params, key = trial.params, (study_name, trial.number)
        if not trial.state.is_finished():
            return self._space.point(params)
        known = self._ended.get(key)
        if known is None or (known[0] is not params and known[0] != params):  # another study of the same name
            known = self._ended[key] = params, self._space.point(params)
        return known[1]

    def _error(self, value: float, *, is_maximised: bool) -> float:
        sign = -1 if is_maximised else 1
        if self._best_possible is None:
            return sign * value
        error = sign * (value - self._best_possible)
        if error < 0:
            raise UserError(f"best_possible: must be the best value that a trial can have, got {value} in the study")
        return error

    # ------------------------------------------------------------------ what to try next

    def _suggest(self, history: "_History", rng: random.Random) -> Point:
        few = len(history.points) < min(LEAST_COMPLETE, self._num_first)
        if history.num < self._num_first or few:
            return self._spread(history, rng)
        candidates = self._candidates(history, rng)
        return self._best(history, candidates) if candidates else self._space.draw(rng, 1)[0]

    def _spread(self, history: "_History", rng: random.Random) -> Point:
        """Of some draws the new one nearest to the next of positions that fill the range of the costs evenly."""
        drawn = self._every or self._space.draw(rng, _DRAWS_FOR_FIRST)
        new = [point for point in drawn if point not in history.tried] or self._space.draw(rng, 1)
        rng.shuffle(new)
        wanted = (history.num * _GOLDEN + rng.random() / self._num_first) % 1
        position = self._known.views(new)[0][:, : max(self._known.num, 1)].mean(axis=1)
        return new[int(np.argmin(np.abs(position - wanted)))]

    @cached_property
    def _every(self) -> list[Point]:
        """All points of a small space; of a large one none."""
        return self._space.every() if self._space.size <= _MOST_ENUMERATED else []

    def _candidates(self, history: "_History", rng: random.Random) -> list[Point]:
        """All points of a small space, else neighbours and children of the front, and fresh draws; new ones."""
        found = self._every
        if not found:
            front = [history.points[place] for place in self._front(history)]
            found = [other for point in front for other in self._space.neighbours(point, rng)]
            for _ in range(_FRESH // 2):
                found += self._space.children(rng.choice(front), rng)
            found += self._space.draw(rng, _FRESH)
        new = [point for point in dict.fromkeys(found) if point not in history.tried]
        if len(new) > _MOST_CANDIDATES:
            new = [new[place] for place in sorted(rng.sample(range(len(new)), _MOST_CANDIDATES))]
        return new

    def _front(self, history: "_History") -> list[int]:
        """Places of the complete trials that no other dominates."""
        if history.front is None:
            costs = self._known.oriented(history.points)
            is_member = moocore.is_nondominated(np.column_stack([costs, history.errors]))
            history.front = [int(place) for place in np.flatnonzero(is_member)]
        return history.front

    def _best(self, history: "_History", candidates: list[Point]) -> Point:
        """The candidate of most expected growth of the hypervolumes over the costs and over their logarithms."""
        errors = np.array(history.errors)
        front = self._front(history)
        best, worst = errors[front].min(), errors[front].max()
        reach = (worst - best) or float(np.ptp(errors)) or max(abs(worst), 1.0)
        top = worst + _MARGIN * reach  # of the unit cube, in the units of errors
        is_log = self._best_possible is not None
        bottom = 0.0 if is_log else best - (top - best)
        errors = (errors - bottom) / (top - bottom)
        targets = np.log(np.maximum(errors, _LEAST_ERROR)) if is_log else errors
        mean, std = float(targets.mean()), max(float(targets.std()), 1e-3)
        used = thinned(len(targets), front, POINTS_TO_PREDICT)
        process = GaussianProcess(
            self._fit(history),
            self._groups(),
            self._features([history.points[place] for place in used]),
            (targets[used] - mean) / std,
        )
        members, member_errors = [history.points[place] for place in front], errors[front]
        if history.running:
            running = self._features(history.running)
            expected = mean + std * process.predict(running)[0]
            members = members + history.running
            member_errors = np.concatenate([member_errors, np.exp(expected) if is_log else expected])
            process = process.with_running(running)
        predicted, spread = process.predict(self._features(candidates))
        gains = np.zeros(len(candidates))
        for view in self._known.views([*members, *candidates]):
            boxes = undominated(view[: len(members)], member_errors)
            gains += boxes.expected_gain(view[len(members) :], mean + std * predicted, std * spread, is_log=is_log)
        return candidates[int(np.argmax(gains))]

    def _fit(self, history: "_History") -> Hyperparameters:
        """Hyperparameters from the first complete trials; anew when their number has grown by a factor."""
        num = max(fit_sizes(len(history.errors)), default=len(history.errors))
        used = thinned(num, [], POINTS_TO_FIT)
        points = tuple(history.points[place] for place in used)
        errors = tuple(history.errors[place] for place in used)
        if self._fitted is None or self._fitted[:2] != (points, errors):
            chosen = np.array(errors)
            if self._best_possible is not None:
                chosen = np.log(np.maximum(chosen / (chosen.max() or 1.0), _LEAST_ERROR))
            scaled = (chosen - chosen.mean()) / max(float(chosen.std()), 1e-3)
            self._fitted = (points, errors, fit(self._features(points), scaled, self._groups()))
        return self._fitted[2]

    def _features(self, points: Sequence[Point]) -> Floats:
        positions = self._known.positions(points)
        return np.column_stack([self._space.features(points), positions])

    def _groups(self) -> NDArray[np.int64]:
        first = int(self._space.groups[-1]) + 1
        return np.concatenate([self._space.groups, first + np.arange(self._known.num)])


class _History:
    """What the trials of a study have come to; points and errors are those of the complete ones, by number."""

    def __init__(self) -> None:
        self.num = 0  # trials that have begun
        self.points: list[Point] = []
        self.errors: list[float] = []
        self.running: list[Point] = []
        self.tried: set[Point] = set()
        self.front: list[int] | None = None  # places of the members; None: not asked for yet


class ArchitectureSampler(_Seeded):
    """What a search with `--sampler exact_cost` tries, for a study of one's own: see `ExactCostSampler.of`.

    Running trials count as if they had ended at what the model expects. Failed and pruned ones are not suggested again
    and teach nothing. Architectures repeat only where no other is left.
    """

    def __init__(self, space: SearchSpace, objectives: Sequence[str], *, seed: int | None) -> None:
        """Raises UserError as `ExactCostSampler.of`."""
        self._space, self._goals = space, choose(objectives)
        exact_costs(self._goals)
        limits = space.settings.limits
        if limits != type(limits)():
            raise UserError(f"settings.limits: must be none for a sampler of your own study, got {shown(limits)}")
        super().__init__(seed)
        self._suggested: dict[tuple[str, int], Genes] = {}  # by study and trial, of those that have not ended

    def _forget(self) -> None:
        self._met: _Met | None = None

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {choice.name: distribution(choice) for choice in self._space.choices}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The genes of an architecture.

        Raises:
            UserError: The study has other objectives than the sampler, or a trial an accuracy above 1.
        """
        if [direction is StudyDirection.MAXIMIZE for direction in study.directions] != self._goals.is_maximised:
            wanted = ", ".join("maximize" if up else "minimize" for up in self._goals.is_maximised)
            found = ", ".join(each.name.lower() for each in study.directions)
            raise UserError(f"directions: must be {wanted} ({', '.join(self._goals.names)}), got {found}")
        with self._lock:
            trials = {each.number: each for each in study.get_trials(deepcopy=False) if each.number != trial.number}
            if self._met is None or not self._met.is_of(trials):
                self._met = _Met(self._space, self._goals)
            own = {number: genes for (name, number), genes in self._suggested.items() if name == study.study_name}
            self._met.update(trials, own)
            rng = random.Random(f"{self._seed} {trial.number}")
            seed = rng.getrandbits(32)
            genes = self._met.proposer.propose(self._met.history, limits=self._space.settings.limits, seed=seed)
            if genes is None:
                genes = self._space.encode(self._space.sample(rng))
            self._suggested[study.study_name, trial.number] = genes
        return {name: genes[name] for name in search_space if name in genes}

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        with self._lock:
            self._suggested.pop((study.study_name, trial.number), None)


class _Met:
    """The trials of one study as proposers read them, in the order in which they were met."""

    def __init__(self, space: SearchSpace, goals: Objectives) -> None:
        self._space, self._accuracy = space, goals.names.index(ACCURACY)
        self.proposer = ExactCost(space, goals, per_trial=True)
        self.history: list[TrialRecord] = []
        self._params: dict[int, Mapping[str, Any]] = {}  # by number, of those in the history
        self._places: dict[int, int] = {}  # likewise

    def is_of(self, trials: Mapping[int, FrozenTrial]) -> bool:
        """Whether all trials that were met are among these, with the parameters that they had or were to get."""
        return all(
            (trial := trials.get(number)) is not None
            and (not trial.state.is_finished() or trial.params is params or trial.params == params)
            for number, params in self._params.items()
        )

    def update(self, trials: Mapping[int, FrozenTrial], suggested: Mapping[int, Genes]) -> None:
        """Take note of what is new; a trial without an architecture of the space is left out.

        Args:
            suggested: Genes that running trials are about to have.
        """
        for number, trial in trials.items():
            if number not in self._places:
                params: Mapping[str, Any] = trial.params
                if not trial.state.is_finished():
                    params = suggested.get(number, params)
                if any(params.get(choice.name) not in choice.values for choice in self._space.choices):
                    continue
                self._places[number], self._params[number] = len(self.history), params
                self.history.append(self._begun(params))
            record = self.history[self._places[number]]
            if record.state is RecordState.RUNNING and trial.state.is_finished():
                self._end(record, trial)

    def _begun(self, params: Mapping[str, Any]) -> TrialRecord:
        arch = self._space.decode({choice.name: params[choice.name] for choice in self._space.choices})
        cost, number = self._space.cost(arch), len(self.history)
        return TrialRecord(number, arch, cost.params, cost.macs, checkpoint_trial=number)

    def _end(self, record: TrialRecord, trial: FrozenTrial) -> None:
        accuracy = trial.values[self._accuracy] if trial.state is TrialState.COMPLETE else math.nan
        if not math.isfinite(accuracy):
            record.state = RecordState.FAILED
            return
        if accuracy > 1:
            raise UserError(f"accuracy: must be at most 1, got {accuracy} of trial {trial.number}")
        record.add_epoch(Report(epoch=1, val_accuracy=max(accuracy, 0.0), train_loss=0.0, checkpoint=""))
        record.state = RecordState.COMPLETE
