"""How much a candidate is expected to add to the hypervolume where its costs are known and its error is not.

The unit cube has up to two costs and an error; less is better, and the reference point is (1, 1, 1). What no member of
a front dominates is cut into boxes: a rectangle of the cost plane times a range of errors. A candidate at (u, v)
dominates of a box the part of the rectangle beyond (u, v), times the part of the range above its error. Only the last
factor is random, so that the expectation is exact.

n members of a front, b boxes, m candidates.
"""

from bisect import bisect_left
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Boxes:
    """The part of the unit cube that no member of a front dominates, as disjoint boxes; each field has shape (b,).

    A box is [left, right] x [0, top] in the cost plane, times [low, high] in the error.
    """

    left: Floats
    right: Floats
    top: Floats
    low: Floats
    high: Floats

    def expected_gain(self, costs: Floats, mean: Floats, std: Floats, *, is_log: bool = True) -> Floats:
        """Expected growth of the hypervolume by each candidate alone; shape (m,).

        Args:
            costs: Shape (m, 2), in the unit square.
            mean: Of the logarithm of the error, which is normal; shape (m,).
            std: Of the same, above 0; shape (m,).
            is_log: False: the error itself is normal, and `mean` and `std` are its own.
        """
        levels, place = np.unique(np.concatenate([self.low, self.high]), return_inverse=True)
        shortfall = expected_shortfall if is_log else normal_shortfall
        below = shortfall(levels, mean[:, None], std[:, None])
        low, high = place[: len(self.low)], place[len(self.low) :]
        width = np.clip(self.right - np.maximum(self.left, costs[:, :1]), 0, None)
        height = np.clip(self.top - costs[:, 1:], 0, None)
        gains: Floats = np.einsum("mb,mb,mb->m", width, height, below[:, high] - below[:, low])
        return gains


def expected_shortfall(level: Floats, mean: Floats, std: Floats) -> Floats:
    """E[(level - e)+] for an error e with normal logarithm; 0 where the level is 0.

    This is the undiscounted price of a put option with strike `level` (Black and Scholes 1973, eq. 13 by parity).
    """
    with np.errstate(divide="ignore"):
        distance = (np.log(level) - mean) / std
    price: Floats = level * ndtr(distance) - np.exp(mean + std**2 / 2) * ndtr(distance - std)
    return np.maximum(price, 0.0)


def normal_shortfall(level: Floats, mean: Floats, std: Floats) -> Floats:
    """E[(level - e)+] for a normal error e: expected improvement (Jones, Schonlau and Welch 1998, eq. 15)."""
    distance = (level - mean) / std
    gain: Floats = std * (distance * ndtr(distance) + np.exp(-(distance**2) / 2) / np.sqrt(2 * np.pi))
    return np.maximum(gain, 0.0)


def undominated(costs: Floats, errors: Floats) -> Boxes:
    """The boxes of a front; members that others dominate change nothing.

    One sweep over rising errors keeps the staircase of the costs met so far; a strip of it becomes a box as soon as it
    is lowered, so that there are at most 3 n + 1 boxes.

    Args:
        costs: Shape (n, 2), in units of the cube; a study with one cost has zeros in the second column.
        errors: Shape (n,).
    """
    found: list[tuple[float, float, float, float, float]] = []
    # strips from left to right: where each begins, how high it is, and the error from which on it is so
    lefts, tops, since = [0.0], [1.0], [0.0]
    order = np.lexsort((costs[:, 1], costs[:, 0], errors))
    for left, top, error in zip(
        costs[order, 0].tolist(), costs[order, 1].tolist(), errors[order].tolist(), strict=True
    ):
        left, top, error = max(left, 0.0), max(top, 0.0), max(error, 0.0)  # noqa: PLW2901  the same, cut off at 0
        if left >= 1 or top >= 1 or error >= 1:
            continue
        first = bisect_left(lefts, left)
        if (first < len(lefts) and lefts[first] == left and tops[first] <= top) or (
            (first == len(lefts) or lefts[first] > left) and tops[first - 1] <= top
        ):
            continue
        if first == len(lefts) or lefts[first] > left:  # cut the strip in which the member lies
            lefts.insert(first, left)
            tops.insert(first, tops[first - 1])
            since.insert(first, since[first - 1])
        last = first
        while last < len(lefts) and tops[last] > top:
            right = lefts[last + 1] if last + 1 < len(lefts) else 1.0
            found.append((lefts[last], right, tops[last], since[last], error))
            last += 1
        lefts[first:last], tops[first:last], since[first:last] = [left], [top], [error]
    for place, left in enumerate(lefts):
        right = lefts[place + 1] if place + 1 < len(lefts) else 1.0
        found.append((left, right, tops[place], since[place], 1.0))
    kept = [box for box in found if box[0] < box[1] and box[2] > 0 and box[3] < box[4]]
    columns: Floats = np.array(kept, dtype=float).reshape(-1, 5).T
    return Boxes(*columns)
