"""The Pareto front of a study's objectives, and the hypervolume it dominates.

n points; a point has one value for each objective, in the study's order.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import moocore
import numpy as np
from numpy.typing import NDArray

from nas.record.trials import TrialRecord, TrialState
from nas.study.objectives import ExactObjective, Objectives, Point
from search_spaces.space import SearchSpace

Bounds = tuple[float, float]


def front(points: Sequence[Point] | NDArray[np.float64], objectives: Objectives) -> list[int]:
    """Indices of the points that no other dominates, in their order; equal points all stay."""
    if not len(points):
        return []
    matrix = np.asarray(points, dtype=float)
    kept = moocore.is_nondominated(matrix, maximise=objectives.is_maximised, keep_weakly=True)
    return [int(i) for i in np.flatnonzero(kept)]


def front_of(
    trials: Sequence[TrialRecord], objectives: Objectives, *, points: NDArray[np.float64] | None = None
) -> list[TrialRecord]:
    """The completed trials among these that no other dominates, by rising parameters.

    Args:
        points: Their objectives, a row each, where these are known and all of the trials are complete.
    """
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE] if points is None else trials
    rows = [objectives.values(trial) for trial in complete] if points is None else points
    members = [complete[i] for i in front(rows, objectives)]
    return sorted(members, key=lambda trial: (trial.params, trial.macs, trial.number))


def ranks(points: Sequence[Point] | NDArray[np.float64], objectives: Objectives) -> NDArray[np.int64]:
    """The rank of each of n > 0 points: 0 for those no other dominates, 1 for those only these dominate, and so on."""
    found: NDArray[np.int64] = moocore.pareto_rank(np.asarray(points, dtype=float) * _signs(objectives))
    return found


def dominates(first: Point, second: Point, objectives: Objectives) -> bool:
    """Whether `first` is at least as good in every objective and better in one."""
    losses = np.asarray([first, second], dtype=float) * _signs(objectives)
    return bool((losses[0] <= losses[1]).all() and (losses[0] < losses[1]).any())


@dataclass(frozen=True)
class HypervolumeScale:
    """Bounds that turn objectives into a unit cube in which less is better.

    A value v with bounds (low, high) lies at log(v / low) / log(high / low), cut off at 0 and 1; accuracy a lies at
    1 - a.
    """

    objectives: Objectives
    bounds: tuple[Bounds | None, ...]  # of each objective; None for accuracy

    @classmethod
    def of(cls, space: SearchSpace, objectives: Objectives, measured: Mapping[str, Bounds] | None = None) -> Self:
        """From the least to the most cost in a space, or to its limit where it has one.

        Args:
            measured: Bounds of the objectives that are measured, by name, as the study has noted them.
        Raises:
            KeyError: A measured objective has none.
        """
        found: list[Bounds | None] = []
        for objective in objectives:
            if isinstance(objective, ExactObjective):
                found.append(objective.bounds(space))
            else:
                found.append((measured or {})[objective.name] if objective.is_logarithmic else None)
        return cls(objectives, tuple(found))

    def hypervolume(self, points: Sequence[Point]) -> float:
        """Part of the cube that the points dominate, in [0, 1]; points at or beyond an upper bound add nothing."""
        if not points:
            return 0.0
        cube = np.array([self.in_cube(point) for point in points])
        return float(moocore.hypervolume(cube, ref=[1] * len(self.bounds)))

    def in_cube(self, point: Point) -> tuple[float, ...]:
        """Where a point lies."""
        return tuple(
            _log_position(value, bounds) if bounds else 1 - value
            for value, bounds in zip(point, self.bounds, strict=True)
        )


class Gains:
    """How much larger the part of the cube that n points dominate gets by one more point, for many of these.

    A point p adds its box, from p to the corner 1, without what the others dominate there. A point q dominates the box
    of max(q, p) there, element by element.
    """

    def __init__(self, places: Sequence[Point], *, num_objectives: int) -> None:
        """Take the points that are there, by where they lie in the cube."""
        self._rows = np.array(places).reshape(-1, num_objectives)
        self._measure = moocore.Hypervolume(ref=[1.0] * num_objectives)

    def of(self, place: Point, *, replacing: int | None = None) -> float:
        """What a point adds; exactly 0 where another is no worse in anything.

        Args:
            place: Where it lies in the cube.
            replacing: The index of the point that it stands in for, which is left out.
        """
        own = np.array(place)
        boxes = np.maximum(self._rows, own)
        if replacing is not None:
            boxes[replacing] = 1.0
        if (boxes == own).all(axis=1).any():
            return 0.0
        inside = boxes[(boxes < 1.0).all(axis=1)]
        covered = float(self._measure(inside)) if len(inside) else 0.0
        return math.prod(1.0 - side for side in place) - covered

    def keeps(self, before: "Gains", places: Sequence[Point]) -> NDArray[np.bool_]:
        """Which of n points surely add what they added to the points before; of shape (n,).

        That is so where these dominate all that those did, and each that is new adds nothing within the point's box.
        """
        num_objectives = self._rows.shape[1]
        mine, others = (set(map(tuple, gains._rows.tolist())) for gains in (self, before))
        new, gone = (np.array([*rows]).reshape(-1, num_objectives) for rows in (mine - others, others - mine))
        if not np.any(np.all(new <= gone[:, None], axis=2), axis=1).all():
            return np.zeros(len(places), dtype=bool)
        boxes = np.maximum(np.array(places).reshape(-1, 1, num_objectives), new)
        is_covered = np.any(np.all(before._rows <= boxes[:, :, None], axis=3), axis=2) | np.any(boxes >= 1.0, axis=2)
        kept: NDArray[np.bool_] = np.all(is_covered, axis=1)
        return kept


def knee(points: Sequence[Point], objectives: Objectives) -> int:
    """Index of the front's member nearest to the ideal corner.

    Distances are Euclidean, with every objective scaled to [0, 1] over the front, costs by their logarithm.

    Raises:
        ValueError: There are no points.
    """
    if not points:
        raise ValueError("points: must hold at least one, got none")
    members = front(points, objectives)
    columns = np.asarray([points[i] for i in members], dtype=float)
    for column, objective in enumerate(objectives):
        if objective.is_logarithmic:
            columns[:, column] = np.log(np.maximum(columns[:, column], np.finfo(float).tiny))
    columns = columns * _signs(objectives)
    spans = np.ptp(columns, axis=0)
    scaled = (columns - columns.min(axis=0)) / np.where(spans > 0, spans, 1)
    return members[int(np.argmin(np.linalg.norm(scaled, axis=1)))]


def _signs(objectives: Objectives) -> NDArray[np.float64]:
    """What turns the larger-is-better objectives into losses."""
    return np.where(objectives.is_maximised, -1.0, 1.0)


def _log_position(value: float, bounds: Bounds) -> float:
    if value <= bounds[0]:
        return 0.0  # also where the bounds are one
    return min(math.log(value / bounds[0]) / math.log(bounds[1] / bounds[0]), 1.0) if bounds[1] > bounds[0] else 1.0
