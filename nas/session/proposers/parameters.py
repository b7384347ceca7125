"""Points of an Optuna search space, drawn, changed and encoded, and what they cost.

A point is a tuple with one internal value (`BaseDistribution.to_internal_repr`) for each parameter.
m points, d features.
"""

import itertools
import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from metaformer.errors import UserError, shown

Params = dict[str, Any]  # values are what the distributions have: anything, for categories
Point = tuple[float, ...]
Floats = NDArray[np.float64]
_MOST_VALUES = 12  # of an ordered parameter of which all are neighbours
_STEPS = (0.02, 0.1, 0.3)  # standard deviations of the neighbours of one with more, as parts of the range
_MOST_COSTS = 2
_DRAWS = 200  # from which the range of the costs is known
_MARGIN_OF_COSTS = 0.1  # beyond the most that is known, as part of the range
_MOST_KEPT = 50_000  # costs of points
_INHERITED = (0.5, 0.75)  # parts of the parameters


class Parameters:
    """The declared parameters of a study, in their order."""

    def __init__(
        self,
        search_space: Mapping[str, BaseDistribution],
        canonical: Callable[[Params], Mapping[str, Any]] | None = None,
    ) -> None:
        """Raises UserError where the space is empty or holds something that is no distribution."""
        if not search_space:
            raise UserError("search_space: must have one parameter at least, got none")
        self.distributions = dict(search_space)
        self._columns = [_column(name, found) for name, found in search_space.items()]
        self._canonical = canonical
        self.groups = np.repeat(np.arange(len(self._columns)), [column.num_features for column in self._columns])

    @property
    def size(self) -> float:
        """How many points there are before `canonical`; infinite where a float has no step."""
        return math.prod(column.num_values for column in self._columns)

    def every(self) -> list[Point]:
        """All points of a finite space, in its order."""
        return self._distinct(itertools.product(*(column.values() for column in self._columns)))

    def draw(self, rng: random.Random, num: int) -> list[Point]:
        """So many uniform draws, equal ones once."""
        return self._distinct(tuple(column.draw(rng) for column in self._columns) for _ in range(num))

    def children(self, point: Point, rng: random.Random) -> list[Point]:
        """Uniform draws that have each parameter of the point with a probability."""
        return self._distinct(
            tuple(
                own if rng.random() < share else column.draw(rng)
                for own, column in zip(point, self._columns, strict=True)
            )
            for share in _INHERITED
        )

    def neighbours(self, point: Point, rng: random.Random) -> list[Point]:
        """Points that differ in one parameter: all its other values where they are few, else some near and far."""
        return self._distinct(
            (*point[:place], value, *point[place + 1 :])
            for place, column in enumerate(self._columns)
            for value in column.others(point[place], rng)
        )

    def point(self, params: Mapping[str, object]) -> Point | None:
        """The point of a trial's parameters; None where one is missing or outside the space."""
        found: list[float] = []
        for column in self._columns:
            value = column.internal(params[column.name]) if column.name in params else None
            if value is None:
                return None
            found.append(value)
        return self._in_one_form(tuple(found))

    def params(self, point: Point) -> Params:
        """The parameters of a point as an objective function gets them."""
        return {
            column.name: column.distribution.to_external_repr(value)
            for column, value in zip(self._columns, point, strict=True)
        }

    def features(self, points: Sequence[Point]) -> Floats:
        """What a model sees, of shape (m, d): ordered parameters in [0, 1]; two categories lie 1 apart."""
        values = np.array(points, dtype=float).reshape(len(points), len(self._columns))
        return np.column_stack([column.features(values[:, place]) for place, column in enumerate(self._columns)])

    def _in_one_form(self, point: Point) -> Point:
        if self._canonical is None:
            return point
        params = self._canonical(self.params(point))
        return tuple(float(column.distribution.to_internal_repr(params[column.name])) for column in self._columns)

    def _distinct(self, points: Iterable[Point]) -> list[Point]:
        return list(dict.fromkeys(self._in_one_form(point) for point in points))


class Costs:
    """The exactly known objectives of points; less is better in `oriented` and what follows from it."""

    def __init__(self, space: Parameters, costs: Callable[[Params], Sequence[float]]) -> None:
        self._space, self._function = space, costs
        self._kept: dict[Point, tuple[float, ...]] = {}
        self._signs: Floats = np.ones(0)
        self._drawn: list[Point] = []

    @property
    def num(self) -> int:
        """How many there are."""
        return len(self._signs)

    def set_directions(self, are_maximised: Sequence[bool]) -> None:
        """Note the directions of the study's other objectives.

        Raises:
            UserError: They are too many, or not as many as the function returns.
        """
        num = len(are_maximised)
        if num > _MOST_COSTS:
            raise UserError(f"directions: must be {_MOST_COSTS + 1} at most for this sampler, got {num + 1}")
        if num != self.num:
            self._kept.clear()
        self._signs = np.where(np.array(are_maximised, dtype=bool), -1.0, 1.0)
        self._drawn = self._drawn or self._space.draw(random.Random(0), _DRAWS)
        self._of(self._drawn[0])

    def oriented(self, points: Sequence[Point]) -> Floats:
        """Shape (m, number of costs); what is known of a point is kept."""
        if len(self._kept) > _MOST_KEPT:
            self._kept.clear()
        rows = np.array([self._of(point) for point in points], dtype=float)
        return rows.reshape(len(points), self.num) * self._signs

    def positions(self, points: Sequence[Point]) -> Floats:
        """Where costs lie between the least (0) and the most (1) of the drawn points; by logarithm if all are above 0.

        Shape (m, number of costs).
        """
        drawn, costs = self.oriented(self._drawn), self.oriented(points)
        for column in range(self.num):
            if drawn[:, column].min() > 0:
                drawn[:, column] = np.log(drawn[:, column])
                costs[:, column] = np.log(np.maximum(costs[:, column], 1e-300))
        return _between(costs, drawn.min(axis=0), drawn.max(axis=0))

    def views(self, points: Sequence[Point]) -> list[Floats]:
        """The costs in the unit square twice, by their logarithms and as they are; each of shape (m, 2).

        The range is that of these points and of the drawn ones, and a margin.
        """
        costs = self.oriented([*self._drawn, *points])
        logs = costs.copy()
        for column in range(self.num):
            if costs[:, column].min() > 0:
                logs[:, column] = np.log(costs[:, column])
        found = []
        for values in (logs, costs):
            least, most = values.min(axis=0), values.max(axis=0)
            square = np.zeros((len(points), _MOST_COSTS))
            square[:, : self.num] = _between(
                values[len(self._drawn) :], least, most + _MARGIN_OF_COSTS * (most - least)
            )
            found.append(square)
        return found

    def _of(self, point: Point) -> tuple[float, ...]:
        if point not in self._kept:
            costs = tuple(float(cost) for cost in self._function(self._space.params(point)))
            if len(costs) != self.num or not all(math.isfinite(cost) for cost in costs):
                raise UserError(f"costs: must return {self.num} finite numbers in this study, got {shown(costs)}")
            self._kept[point] = costs
        return self._kept[point]


class _Categories:
    """A parameter without an order; its internal value is the index of its choice."""

    def __init__(self, name: str, distribution: CategoricalDistribution) -> None:
        self.name, self.distribution = name, distribution
        self.num_values: float = len(distribution.choices)
        self.num_features = len(distribution.choices)

    def values(self) -> list[float]:
        return [float(index) for index in range(self.num_features)]

    def draw(self, rng: random.Random) -> float:
        return float(rng.randrange(self.num_features))

    def others(self, value: float, rng: random.Random) -> list[float]:
        return [other for other in self.values() if other != value]

    def internal(self, value: Any) -> float | None:
        try:
            return float(self.distribution.to_internal_repr(value))
        except ValueError:  # none of the choices
            return None

    def features(self, values_m: Floats) -> Floats:
        one_hot: Floats = math.sqrt(0.5) * (values_m[:, None] == np.arange(self.num_features))
        return one_hot


class _Numbers:
    """An ordered parameter; u in [0, 1] is its place in the range, of the logarithm where the distribution says so."""

    num_features = 1

    def __init__(self, name: str, distribution: FloatDistribution | IntDistribution) -> None:
        self.name, self.distribution = name, distribution
        low, high = float(distribution.low), float(distribution.high)
        self._low, self._high, self._step = low, high, distribution.step
        self._ends = (math.log(low), math.log(high)) if distribution.log else (low, high)
        self.num_values: float = math.inf if self._step is None else round((high - low) / self._step) + 1
        if low == high:
            self.num_values = 1

    def values(self) -> list[float]:
        return [self._low if self._step is None else self._at(number) for number in range(int(self.num_values))]

    def draw(self, rng: random.Random) -> float:
        if self.num_values < math.inf and not self.distribution.log:
            return self._at(rng.randrange(int(self.num_values)))
        return self._value(rng.random())

    def others(self, value: float, rng: random.Random) -> list[float]:
        if self.num_values <= _MOST_VALUES:
            return [other for other in self.values() if other != value]
        [place] = self.features(np.array([value])).ravel()
        near = [self._value(min(max(place + rng.gauss(0, step), 0.0), 1.0)) for step in _STEPS]
        if self._step is not None:
            number = round((value - self._low) / self._step)
            near += [self._at(other) for other in (number - 1, number + 1) if 0 <= other < self.num_values]
        return [other for other in dict.fromkeys(near) if other != value]

    def internal(self, value: object) -> float | None:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return None
        if not self._low <= value <= self._high:
            return None
        return float(value) if self._step is None else self._at(round((value - self._low) / self._step))

    def features(self, values_m: Floats) -> Floats:
        start, end = self._ends
        places: Floats = ((np.log(values_m) if self.distribution.log else values_m) - start) / ((end - start) or 1.0)
        return places[:, None]

    def _value(self, place: float) -> float:
        start, end = self._ends
        value = start + place * (end - start)
        if self.distribution.log:
            value = math.exp(value)
        if self._step is not None:
            return self._at(min(round((value - self._low) / self._step), int(self.num_values) - 1))
        return min(max(value, self._low), self._high)

    def _at(self, number: int) -> float:
        return min(self._low + number * (self._step or 0.0), self._high)


def _column(name: str, distribution: BaseDistribution) -> _Categories | _Numbers:
    if isinstance(distribution, CategoricalDistribution):
        return _Categories(name, distribution)
    if isinstance(distribution, FloatDistribution | IntDistribution):
        return _Numbers(name, distribution)
    raise UserError(f"search_space: {name} must be a distribution of Optuna, got {shown(distribution)}")


def _between(values: Floats, least: Floats, most: Floats) -> Floats:
    scaled: Floats = (values - least) / np.where(most > least, most - least, 1.0)
    return scaled
