"""The Pareto front of accuracy, parameters and MACs, and the hypervolume it dominates.

n points; an objective is a triple (accuracy, params, macs), of which the first is to be large and the others small.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import moocore
import numpy as np
from numpy.typing import NDArray

from metaformer.cost import count_cost
from search_spaces.space import SearchSpace

Objectives = tuple[float, int, int]
_MAXIMISE = [True, False, False]


def front(points: Sequence[Objectives]) -> list[int]:
    """Indices of the points that no other dominates, in their order; equal points all stay."""
    if not points:
        return []
    kept = moocore.is_nondominated(np.asarray(points, dtype=float), maximise=_MAXIMISE, keep_weakly=True)
    return [int(i) for i in np.flatnonzero(kept)]


def ranks(points: Sequence[Objectives]) -> NDArray[np.int64]:
    """The rank of each of n > 0 points: 0 for those no other dominates, 1 for those only these dominate, and so on."""
    matrix = np.asarray(points, dtype=float) * [-1, 1, 1]
    found: NDArray[np.int64] = moocore.pareto_rank(matrix)
    return found


def dominates(first: Objectives, second: Objectives) -> bool:
    """Whether `first` is at least as good in every objective and better in one."""
    no_worse = first[0] >= second[0] and first[1] <= second[1] and first[2] <= second[2]
    return no_worse and first != second


@dataclass(frozen=True)
class HypervolumeScale:
    """Bounds that turn objectives into a unit cube: error as it is, costs by their logarithm between these bounds."""

    params: tuple[int, int]
    macs: tuple[int, int]

    @classmethod
    def of(cls, space: SearchSpace) -> Self:
        """From the smallest to the largest cost in a space, or to its limit where it has one."""
        return cls(
            params=(count_cost(space.smallest("params")).params, space.largest_cost("params")),
            macs=(count_cost(space.smallest("macs")).macs, space.largest_cost("macs")),
        )

    def hypervolume(self, points: Sequence[Objectives]) -> float:
        """Part of the cube that the points dominate, in [0, 1]; points at or beyond an upper bound add nothing."""
        if not points:
            return 0.0
        return float(moocore.hypervolume(np.array([self._in_cube(point) for point in points]), ref=[1, 1, 1]))

    def gains(
        self, points: Sequence[Objectives], more: Sequence[Objectives], *, replacing: Sequence[int | None]
    ) -> list[float]:
        """How much larger the dominated part gets by each of some more points alone.

        Args:
            replacing: For each of them the index of the point that it stands in for, which is then left out, or None.
        """
        measure = moocore.Hypervolume(ref=[1, 1, 1])
        rows = np.array([*map(self._in_cube, points), (1.0, 1.0, 1.0)])  # the last, in the far corner, adds nothing
        whole = float(measure(rows))
        found = []
        for point, left_out in zip(more, replacing, strict=True):
            used = rows.copy()
            before = whole
            if left_out is not None:
                used[left_out] = 1.0
                before = float(measure(used))
            added = self._in_cube(point)
            if (used <= added).all(axis=1).any():
                found.append(0.0)  # one of them is no worse in anything
                continue
            used[-1] = added
            found.append(float(measure(used)) - before)
        return found

    def _in_cube(self, point: Objectives) -> tuple[float, float, float]:
        accuracy, params, macs = point
        return 1 - accuracy, _log_position(params, self.params), _log_position(macs, self.macs)


def knee(points: Sequence[Objectives]) -> int:
    """Index of the front's member nearest to the ideal corner.

    Distances are Euclidean, with every objective scaled to [0, 1] over the front, costs by their logarithm.

    Raises:
        ValueError: There are no points.
    """
    if not points:
        raise ValueError("points: must hold at least one, got none")
    members = front(points)
    columns = np.asarray([(-points[i][0], np.log(points[i][1]), np.log(points[i][2])) for i in members])
    spans = np.ptp(columns, axis=0)
    scaled = (columns - columns.min(axis=0)) / np.where(spans > 0, spans, 1)
    return members[int(np.argmin(np.linalg.norm(scaled, axis=1)))]


def _log_position(value: int, bounds: tuple[int, int]) -> float:
    if value <= bounds[0]:
        return 0.0  # also where the bounds are one
    return min(math.log(value / bounds[0]) / math.log(bounds[1] / bounds[0]), 1.0)
