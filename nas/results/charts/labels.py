"""Where to write names beside points of a chart, so that they cover little and nobody takes one for another's.

P places, the middles of texts of one width, are judged together; O obstacles, n further points.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_HEIGHT = 14  # of a line of text, in pixels
_LETTER = 6.2  # mean width of a letter
_POINT = 12  # side of a point
_RADII = (18, 30, 46, 66, 90, 120)
_ANGLES = tuple(math.tau * i / 16 for i in range(16))
_STEPS = (0.15, 0.3, 0.45, 0.6, 0.75)  # along the line from a point to its text
_ROUNDS = 3  # times that every text looks for its place again

Pixel = tuple[float, float]  # from the left, from the bottom
_Floats = NDArray[np.float64]


def place(
    points: Sequence[Pixel], texts: Sequence[str], *, size: tuple[float, float], keep_free: Sequence[Pixel]
) -> list[Pixel]:
    """For each point, how far from it the middle of its text should be, right and up.

    Args:
        size: Width and height of the chart in pixels.
        keep_free: Further points that a text had better not cover.
    """
    dots_n2 = np.asarray(keep_free, dtype=float).reshape(-1, 2)
    placed: dict[int, _Floats] = {}
    for _ in range(_ROUNDS):
        for i, point in enumerate(points):
            rivals_R2 = np.array([other for other in points if other != point], dtype=float).reshape(-1, 2)
            others_O4 = np.array([box for j, box in placed.items() if j != i], dtype=float).reshape(-1, 4)
            around = _Surroundings(size, texts_O4=others_O4, rivals_R2=rivals_R2, dots_n2=dots_n2)
            placed[i] = around.best_place(point, width=_LETTER * len(texts[i]))
    return [(float(placed[i][0] - x), float(placed[i][1] - y)) for i, (x, y) in enumerate(points)]


@dataclass(frozen=True)
class _Surroundings:
    """What a text has to share a chart with; a rectangle is x and y of its middle, width and height."""

    size: tuple[float, float]
    texts_O4: _Floats
    rivals_R2: _Floats  # the points of other texts
    dots_n2: _Floats  # middles of points that should stay free

    def best_place(self, point: Pixel, *, width: float) -> _Floats:
        """The place of least cost around a point, shape (4,); of equals the nearest."""
        turns_P2 = np.array([(math.cos(angle), math.sin(angle)) for _ in _RADII for angle in _ANGLES])
        reach_P = np.repeat(_RADII, len(_ANGLES))
        offsets_P2 = turns_P2 * np.column_stack([reach_P + width / 2, reach_P])
        boxes_P4 = np.column_stack([np.array(point) + offsets_P2, np.tile((width, _HEIGHT), (len(reach_P), 1))])
        best: _Floats = boxes_P4[int(np.argmin(self._costs(boxes_P4, point)))]
        return best

    def _costs(self, boxes_P4: _Floats, point: Pixel) -> _Floats:
        """What texts cover of others and of points, and how far off, outside or ambiguous they are, shape (P,)."""
        obstacles_O4 = np.concatenate([self.texts_O4, _squares(self.rivals_R2)])
        covered_P = _overlap(boxes_P4, _squares(self.dots_n2)).sum(axis=1)
        covered_P += 5 * _overlap(boxes_P4, obstacles_O4).sum(axis=1)
        steps = np.array(_STEPS)[:, None, None]
        lines_SP2 = (1 - steps) * np.array(point) + steps * boxes_P4[:, :2]
        crossed_P = sum((_distances(obstacles_O4, line_P2) == 0).sum(axis=0) for line_P2 in lines_SP2)
        own_P = _distances(boxes_P4, np.array([point]))[:, 0]
        mistaken_P = (_distances(boxes_P4, self.rivals_R2) < own_P[:, None]).sum(axis=1)
        costs_P: _Floats = covered_P + 100 * _outside(boxes_P4, self.size) + 60 * (crossed_P + mistaken_P) + 2 * own_P
        return costs_P


def _squares(points_n2: _Floats) -> _Floats:
    """Points as rectangles, shape (n, 4)."""
    return np.column_stack([points_n2, np.full((len(points_n2), 2), float(_POINT))])


def _overlap(boxes_P4: _Floats, others_O4: _Floats) -> _Floats:
    """Area that each of P rectangles shares with each of O others, in square pixels, shape (P, O)."""
    gaps = np.abs(boxes_P4[:, None, :2] - others_O4[None, :, :2])
    sides, of_others = boxes_P4[:, None, 2:], others_O4[None, :, 2:]
    both = np.minimum((sides + of_others) / 2 - gaps, np.minimum(sides, of_others)).clip(min=0)
    areas: _Floats = both.prod(axis=2)
    return areas


def _distances(boxes_P4: _Floats, points_n2: _Floats) -> _Floats:
    """From the edge of each of P rectangles to each of n points, 0 inside, shape (P, n)."""
    beyond = (np.abs(boxes_P4[:, None, :2] - points_n2[None]) - boxes_P4[:, None, 2:] / 2).clip(min=0)
    return np.hypot(beyond[..., 0], beyond[..., 1])


def _outside(boxes_P4: _Floats, size: tuple[float, float]) -> _Floats:
    """How far each of P rectangles reaches beyond a chart of that size, shape (P,)."""
    ends = boxes_P4[:, :2] + boxes_P4[:, 2:] / 2 - np.array(size)
    starts = boxes_P4[:, 2:] / 2 - boxes_P4[:, :2]
    reach_P: _Floats = (ends.clip(min=0) + starts.clip(min=0)).sum(axis=1)
    return reach_P
