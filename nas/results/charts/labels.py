"""Where to write names beside points of a chart, so that they cover little and nobody takes one for another's."""

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


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels, by its middle."""

    x: float
    y: float
    width: float
    height: float

    def overlap(self, other: "Box") -> float:
        """Area that both cover, in square pixels."""
        width = min((self.width + other.width) / 2 - abs(self.x - other.x), self.width, other.width)
        height = min((self.height + other.height) / 2 - abs(self.y - other.y), self.height, other.height)
        return max(0.0, width) * max(0.0, height)

    def outside(self, width: float, height: float) -> float:
        """How far it reaches beyond a chart of that size."""
        right, top = self.x + self.width / 2 - width, self.y + self.height / 2 - height
        left, bottom = self.width / 2 - self.x, self.height / 2 - self.y
        return sum(max(0.0, reach) for reach in (left, right, bottom, top))

    def distance(self, point: Pixel) -> float:
        """From its edge to a point; 0 inside."""
        across = max(0.0, abs(point[0] - self.x) - self.width / 2)
        return math.hypot(across, max(0.0, abs(point[1] - self.y) - self.height / 2))


def place(
    points: Sequence[Pixel], texts: Sequence[str], *, size: tuple[float, float], keep_free: Sequence[Pixel]
) -> list[Pixel]:
    """For each point, how far from it the middle of its text should be, right and up.

    Args:
        size: Width and height of the chart in pixels.
        keep_free: Further points that a text had better not cover.
    """
    dots = np.asarray(keep_free, dtype=float).reshape(-1, 2)
    placed: dict[int, Box] = {}
    for _ in range(_ROUNDS):
        for i, point in enumerate(points):
            rivals = [other for other in points if other != point]
            others = [box for j, box in placed.items() if j != i]
            around = _Surroundings(size, texts=others, rivals=rivals, dots=dots)
            placed[i] = around.best_place(point, width=_LETTER * len(texts[i]))
    return [(placed[i].x - x, placed[i].y - y) for i, (x, y) in enumerate(points)]


@dataclass(frozen=True)
class _Surroundings:
    """What a text has to share a chart with; n further points should stay free."""

    size: tuple[float, float]
    texts: Sequence[Box]
    rivals: Sequence[Pixel]  # the points of other texts
    dots: NDArray[np.float64]  # middles of the further points, shape (n, 2)

    def best_place(self, point: Pixel, *, width: float) -> Box:
        """The place of least cost around a point; of equals the nearest."""
        places = [
            Box(
                point[0] + (radius + width / 2) * math.cos(angle),
                point[1] + radius * math.sin(angle),
                width,
                _HEIGHT,
            )
            for radius in _RADII
            for angle in _ANGLES
        ]
        costs = self._covered_dots(places) + [self._cost(box, point) for box in places]
        return places[int(np.argmin(costs))]

    def _covered_dots(self, boxes: Sequence[Box]) -> NDArray[np.float64]:
        """Area of the further points that each of some boxes of one size covers, in square pixels."""
        gaps = np.abs(np.array([(box.x, box.y) for box in boxes])[:, None] - self.dots)  # (number of boxes, n, 2)
        sides = np.array([boxes[0].width, boxes[0].height])
        both = np.minimum((sides + _POINT) / 2 - gaps, np.minimum(sides, _POINT)).clip(min=0)
        areas: NDArray[np.float64] = both.prod(axis=2).sum(axis=1)
        return areas

    def _cost(self, box: Box, point: Pixel) -> float:
        """What a text covers of other texts and their points, and how far off, outside or ambiguous it is."""
        obstacles = [*self.texts, *(Box(x, y, _POINT, _POINT) for x, y in self.rivals)]
        covered = 5 * sum(box.overlap(other) for other in obstacles)
        line = [((1 - t) * point[0] + t * box.x, (1 - t) * point[1] + t * box.y) for t in _STEPS]
        crossed = sum(other.distance(step) == 0 for other in obstacles for step in line)
        own = box.distance(point)
        mistaken = sum(box.distance(rival) < own for rival in self.rivals)
        return covered + 100 * box.outside(*self.size) + 60 * (crossed + mistaken) + 2 * own
