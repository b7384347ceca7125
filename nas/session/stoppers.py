"""When to stop a trial early: asynchronous successive halving (arXiv:1810.05934) for several objectives.

All objectives but accuracy are known before the first epoch, so the only question is whether a trial's accuracy can
still add something at its cost. It is asked at rungs, epochs a constant factor apart. What trials had reached there
stands in their curves, so a stopper keeps nothing that the study does not hold: one made anew from it decides alike.

n trials; a point has one value for each objective, in the study's order.
"""

import bisect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from nas.record.trials import TrialRecord
from nas.session.certainty.ends import Step, fit, foretell, logit_of
from nas.session.pareto import Gains, HypervolumeScale, ranks
from nas.study.objectives import ACCURACY, Objectives, Point
from nas.study.study import Study

FACTOR = 2  # epochs from rung to rung
_HALF = 1 / 2  # of the trials at a rung, which go on
FEWEST = 4  # trials at a rung, or trained to the end, below which none is stopped there
_MOST = 256  # trials at a rung that one is compared with, the newest
_NEAREST = 12  # trials trained to the end, of like accuracy at the rung, from which a trial's end is predicted
_QUANTILE = 0.1  # of the part of the error that is left at the end: how well it may go yet
_FAIR = 0.2  # chance to add to the front below which a trial is stopped
_LATEST = 32  # trials from which chances are foretold: those that a sampler proposes later get on in other ways
_TO_THE_END = 1 / 8  # of the trials, at least, before one is stopped
_ROUNDING = 1e-12  # of hypervolumes: gains that differ by less are equal
_Floats = npt.NDArray[np.float64]


def rungs(epochs: int, *, first: int, factor: int = FACTOR) -> tuple[int, ...]:
    """Epochs at which trials are judged: `epochs` divided by `factor` again and again, down to `first`."""
    steps = []
    epoch = epochs // factor
    while epoch >= max(first, 1):
        steps.append(epoch)
        epoch //= factor
    return tuple(reversed(steps))


class Stopper(ABC):
    """Says of a trial that has come to a rung whether it goes on."""

    going_on: ClassVar[float] = _HALF  # of the trials at a rung, as a plan expects

    def __init__(self, *, epochs: int, first_rung: int, objectives: Objectives, scale: HypervolumeScale) -> None:
        """Nothing has been observed yet.

        Args:
            epochs: Of a trial that is not stopped.
            first_rung: Epochs before which no trial is stopped.
            scale: What hypervolumes are measured on.
        """
        self.epochs = epochs
        self.rungs = rungs(epochs, first=first_rung)
        self._objectives = objectives
        self._accuracy = objectives.names.index(ACCURACY)  # its place in a point
        self._scale = scale
        self._at: dict[int, dict[int, Point]] = {rung: {} for rung in (*self.rungs, epochs)}
        self._numbers: dict[int, list[int]] = {rung: [] for rung in self._at}  # the same trials, oldest first

    def observe(self, trial: TrialRecord) -> None:
        """Take note of the rungs that a trial has reached by now, unless it is a further seed of one that did."""
        if trial.seed is not None:
            return
        for report in reversed(trial.progress.curve):
            at_rung = self._at.get(report.epoch)
            if at_rung is not None:
                if trial.checkpoint_trial in at_rung:
                    return  # and so it is in the rungs below
                at_rung[trial.checkpoint_trial] = self._objectives.values(trial, accuracy=report.val_accuracy)
                bisect.insort(self._numbers[report.epoch], trial.checkpoint_trial)

    def reason_to_stop(self, trial: TrialRecord, front: Sequence[TrialRecord]) -> str | None:
        """Why a trial that has been observed goes no further, or None; `front` is that of the trials trained fully."""
        rung = trial.num_epochs
        if rung not in self.rungs or trial.references or trial.seed is not None or len(self._at[rung]) < FEWEST:
            return None
        return self._judge(trial, rung, front)

    @abstractmethod
    def _judge(self, trial: TrialRecord, rung: int, front: Sequence[TrialRecord]) -> str | None: ...

    def _others(self, trial: TrialRecord, rung: int) -> list[int]:
        """The newest other trials at a rung, by their numbers."""
        newest = self._numbers[rung][-_MOST - 1 :]
        return [number for number in newest if number != trial.checkpoint_trial][-_MOST:]


class NeverStop(Stopper):
    """Every trial is trained to its end."""

    def __init__(self, *, epochs: int, first_rung: int, objectives: Objectives, scale: HypervolumeScale) -> None:
        super().__init__(epochs=epochs, first_rung=epochs, objectives=objectives, scale=scale)

    def _judge(self, trial: TrialRecord, rung: int, front: Sequence[TrialRecord]) -> str | None:
        return None


class RankStopper(Stopper):
    """The better half at each rung goes on, by non-dominated rank (arXiv:2106.12639)."""

    def _judge(self, trial: TrialRecord, rung: int, front: Sequence[TrialRecord]) -> str | None:
        points = [self._at[rung][number] for number in (trial.checkpoint_trial, *self._others(trial, rung))]
        rank = ranks(points, self._objectives)
        num_better = int((rank < rank[0]).sum())
        if num_better < len(points) * _HALF:
            return None
        return f"at epoch {rung} {num_better} of {len(points) - 1} others were of better non-dominated rank"


class HypervolumeStopper(Stopper):
    """At each rung keep the half of the trials that could still add most hypervolume to the front.

    A trial could add what its costs are worth with the accuracy that it may reach. That is predicted from the trials
    trained to the end whose error at the rung was most like its own: of the errors e at the rung and e' at the end of
    the `_NEAREST` such trials, the ratio e'/e is taken at a low quantile q, and the trial with error e may reach
    1 - q e. The quantile leaves room for a trial that does better than most.
    """

    def __init__(self, *, epochs: int, first_rung: int, objectives: Objectives, scale: HypervolumeScale) -> None:
        super().__init__(epochs=epochs, first_rung=first_rung, objectives=objectives, scale=scale)
        # What follows is kept as long as it holds: the front changes rarely, and predictions with each complete trial.
        self._seen: Sequence[TrialRecord] | None = None  # the front
        self._members: dict[int, int] = {}  # of the front, by whose checkpoints: their places in it
        self._front = Gains([], num_objectives=len(objectives))
        self._gains: dict[tuple[int, int], _Gain] = {}  # by rung and trial
        self._predicted: dict[int, _Predicted] = {}  # by rung

    def _judge(self, trial: TrialRecord, rung: int, front: Sequence[TrialRecord]) -> str | None:
        number = trial.checkpoint_trial
        known = self._numbers[self.epochs][-_MOST:]
        if len(known) < FEWEST:
            return None
        others = self._others(trial, rung)
        reached = self._reached(rung, [number, *others], known)
        self._look_at(front)
        own = self._gain(rung, number, reached[number])
        if own <= _ROUNDING:
            return f"at epoch {rung} even an accuracy of {reached[number]:.2%} would add nothing to the front"
        num_better = sum(self._gain(rung, other, reached[other]) > own + _ROUNDING for other in others)
        if num_better < (len(others) + 1) * _HALF:
            return None
        return f"at epoch {rung} {num_better} of {len(others)} others could add more hypervolume to the front"

    def _look_at(self, front: Sequence[TrialRecord]) -> None:
        """Forget what was added to another front, where that may differ, and what nobody asks for any more."""
        if front is self._seen:
            return
        places = [self._scale.in_cube(self._objectives.values(member)) for member in front]
        before, self._front = self._front, Gains(places, num_objectives=len(self._objectives))
        members = {member.checkpoint_trial: index for index, member in enumerate(front)}
        oldest = {rung: numbers[-_MOST:][0] for rung, numbers in self._numbers.items() if numbers}
        gains = {
            (rung, number): known
            for (rung, number), known in self._gains.items()
            if number >= oldest[rung] and number not in members and number not in self._members
        }
        keeps = self._front.keeps(before, [known.place for known in gains.values()])
        self._gains = {key: known for (key, known), is_kept in zip(gains.items(), keeps, strict=True) if is_kept}
        self._seen, self._members = front, members

    def _gain(self, rung: int, number: int, accuracy: float) -> float:
        """What a trial at a rung adds to the front of the others, should it reach an accuracy."""
        known = self._gains.get((rung, number))
        if known is None or known.accuracy != accuracy:
            point = list(self._at[rung][number])
            point[self._accuracy] = accuracy
            place = self._scale.in_cube(tuple(point))
            gain = self._front.of(place, replacing=self._members.get(number))
            known = self._gains[rung, number] = _Gain(accuracy, place, gain)
        return known.gain

    def _reached(self, rung: int, numbers: list[int], known: list[int]) -> Mapping[int, float]:
        """The accuracies that trials at a rung may reach, by number.

        Args:
            known: The trials trained to the end from which it is predicted.
        """
        predicted = self._predicted.get(rung)
        if predicted is None or predicted.num_ends != len(self._numbers[self.epochs]):
            at_rung, ends = self._at[rung], self._at[self.epochs]
            then = np.array([1 - at_rung[number][self._accuracy] for number in known])
            left = np.array([1 - ends[number][self._accuracy] for number in known]) / np.maximum(then, 1e-9)
            predicted = self._predicted[rung] = _Predicted(len(self._numbers[self.epochs]), then, left)
        new = [number for number in numbers if number not in predicted.reached]
        if new:
            accuracies = np.array([self._at[rung][number][self._accuracy] for number in new])
            predicted.reached.update(zip(new, predicted.reach(accuracies).tolist(), strict=True))
        return predicted.reached


class _Gain(NamedTuple):
    """What a trial at a rung adds to the front."""

    accuracy: float  # that it reaches
    place: Point  # in the cube, with that accuracy
    gain: float


@dataclass
class _Predicted:
    """What trials at a rung may reach, by the m newest trials that were trained to the end."""

    num_ends: int  # trials trained to the end when this was made
    then: _Floats  # error of the m trials at the rung
    left: _Floats  # part of it that was left at the end
    reached: dict[int, float] = field(default_factory=dict)  # accuracy by trial

    def reach(self, accuracies: _Floats) -> _Floats:
        """The accuracies, shape (n,), that trials with these accuracies at the rung, shape (n,), may reach."""
        distances = np.abs(self.then - (1 - accuracies)[:, None])
        nearest = np.argsort(distances, axis=1, kind="stable")[:, :_NEAREST]
        part = np.sort(self.left[nearest], axis=1)[:, int(_QUANTILE * nearest.shape[1])]
        reached: _Floats = 1 - (1 - accuracies) * part
        return reached


class ChanceStopper(Stopper):
    """A trial goes on while it has a fair chance to add to the front at its costs.

    The chance is that of `certainty.ends`, from all curves so far: a rung that has not been seen to tell the end leaves
    it fair. Some trials are trained to the end whatever their chance, so that it can be seen.
    """

    going_on = 2 / 3  # between what is seen on the digits and on CIFAR-10 (studies/early_stopping.md)

    def __init__(self, *, epochs: int, first_rung: int, objectives: Objectives, scale: HypervolumeScale) -> None:
        super().__init__(epochs=epochs, first_rung=first_rung, objectives=objectives, scale=scale)
        self._steps: dict[int, tuple[list[int], Step]] = {}  # from each rung to the next, by place; and whose moves
        self._seen: Sequence[TrialRecord] | None = None  # the front, whose numbers and points follow
        self._members, self._points = np.empty(0, dtype=np.int64), np.empty((0, len(objectives)))
        self._signs = np.where(objectives.is_maximised, -1.0, 1.0)

    def _judge(self, trial: TrialRecord, rung: int, front: Sequence[TrialRecord]) -> str | None:
        num_ends, num_all = len(self._at[self.epochs]), len(self._at[self.rungs[0]])
        if num_ends < max(FEWEST, _TO_THE_END * num_all):
            return None
        chance = self.chance(trial, rung, front)
        return f"at epoch {rung} its chance to add to the front was {chance:.1%}" if chance < _FAIR else None

    def chance(self, trial: TrialRecord, rung: int, front: Sequence[TrialRecord]) -> float:
        """Probability that a trial at a rung ends where no member of the front dominates it; some must have ended."""
        own = np.array([self._at[rung][trial.checkpoint_trial]])
        best = self.best_at(trial, rung, front)
        if best is None:
            return 1.0
        steps = [self._step(place) for place in range(self.rungs.index(rung), len(self.rungs))]
        foretold = foretell(steps, logit_of(own[:, self._accuracy]), self._log_costs(own))
        return float(foretold.chance_below(logit_of(np.array([best])))[0])

    def _step(self, place: int) -> Step:
        before, after = (*self.rungs, self.epochs)[place : place + 2]
        numbers = self._numbers[after][-_LATEST:]
        if place not in self._steps or self._steps[place][0] != numbers:
            points = np.array([(self._at[before][number], self._at[after][number]) for number in numbers])
            logits = logit_of(points[:, :, self._accuracy])
            self._steps[place] = numbers, fit(logits[:, 0], logits[:, 1], self._log_costs(points[:, 0]))
        return self._steps[place][1]

    def _log_costs(self, points: _Floats) -> _Floats:
        found: _Floats = np.log(np.maximum(np.delete(points, self._accuracy, axis=1), _ROUNDING))
        return found

    def best_at(self, trial: TrialRecord, rung: int, front: Sequence[TrialRecord]) -> float | None:
        """The best accuracy of the front's other members that are no worse in all else; None: there is none."""
        if front is not self._seen:
            self._members = np.array([member.checkpoint_trial for member in front], dtype=np.int64)
            points = [self._objectives.values(member) for member in front]
            self._points = np.array(points).reshape(-1, len(self._objectives))
            self._seen = front
        is_no_worse = (self._points - self._at[rung][trial.checkpoint_trial]) * self._signs <= 0
        is_no_worse[:, self._accuracy] = self._members != trial.checkpoint_trial
        found = self._points[is_no_worse.all(axis=1), self._accuracy]
        return float(found.max()) if len(found) else None


_STOPPERS: dict[str, type[Stopper]] = {
    "chance": ChanceStopper,
    "hypervolume": HypervolumeStopper,
    "rank": RankStopper,
    "none": NeverStop,
}


def names() -> list[str]:
    """Names of all stoppers."""
    return list(_STOPPERS)


def make_stopper(study: Study, scale: HypervolumeScale) -> Stopper:
    """The stopper that a study names; the first rung is where its warm-up ends."""
    recipe = study.recipe
    return _STOPPERS[study.stopper](
        epochs=recipe.epochs, first_rung=recipe.warmup_epochs, objectives=scale.objectives, scale=scale
    )
