"""Architectures of a space as rows of arrays, so that thousands of candidates cost no more than looking them up."""

import itertools
import random
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from metaformer.architecture import Architecture
from nas.study.objectives import ExactObjective
from search_spaces.space import Gene, Genes, Limits, SearchSpace

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
_FIRST_CAPACITY = 1024
_DECADES_FROM_ZERO = 2  # of a cost whose least value in the space is 0: less than a hundredth of the most is one


class Catalogue:
    """Every architecture that was met, one row each: canonical genes, features, costs, and whether it was tried.

    Which row an architecture has depends on when it was met, so no decision may hang on the order of rows.
    """

    def __init__(self, space: SearchSpace, exact: Sequence[ExactObjective]) -> None:
        self._space, self._exact = space, exact
        self._choices = [choice for choice in space.choices if len(choice.values) > 1]
        self._bounds = [_positive(objective.bounds(space)) for objective in exact]
        self.groups = self._group_features()
        self._rows: dict[tuple[Gene, ...], int] = {}  # by the values of the genes, canonical or not
        self._genes: list[Genes] = []
        self._neighbours: dict[int, tuple[int, ...]] = {}
        self._features = np.empty((_FIRST_CAPACITY, len(self.groups)))
        self._counts = np.empty((_FIRST_CAPACITY, 2), dtype=np.int64)  # parameters, MACs
        self._positions = np.zeros((_FIRST_CAPACITY, 2))
        self._shares = np.zeros((_FIRST_CAPACITY, 2))
        self._tried = np.zeros(_FIRST_CAPACITY, dtype=bool)

    def row(self, genes: Genes) -> int:
        """The row of the architecture of these genes."""
        values = self._values(genes)
        if values not in self._rows:
            self._rows[values] = self.row_of(self._space.decode(genes))
        return self._rows[values]

    def row_of(self, arch: Architecture) -> int:
        """The row of an architecture of the space."""
        genes = self._space.encode(arch)
        values = self._values(genes)
        if values not in self._rows:
            self._rows[values] = self._add(arch, genes)
        return self._rows[values]

    def mark_tried(self, row: int) -> None:
        self._tried[row] = True

    def genes(self, row: int) -> Genes:
        """Canonical genes."""
        return dict(self._genes[row])

    def neighbours(self, row: int) -> tuple[int, ...]:
        """The rows of all architectures that differ in the value of one gene, in the order of the choices."""
        if row not in self._neighbours:
            genes = self._genes[row]
            self._neighbours[row] = tuple(
                self.row({**genes, choice.name: value})
                for choice in self._choices
                for value in choice.values
                if value != genes[choice.name]
            )
        return self._neighbours[row]

    def draw(self, rng: random.Random, *, parent: int, inherited: float) -> int:
        """The row of a uniform draw that has each gene of its parent with probability `inherited`."""
        genes = self._genes[parent]
        return self.row(
            {
                choice.name: genes[choice.name] if rng.random() < inherited else rng.choice(choice.values)
                for choice in self._space.choices
            }
        )

    def new_within(self, rows: Sequence[int], limits: Limits) -> Rows:
        """Those that were not tried and are within the limits, in their order, each once."""
        unique = np.array(list(dict.fromkeys(rows)), dtype=np.int64)
        kept = ~self._tried[unique]
        for column, most in enumerate((limits.max_params, limits.max_macs)):
            if most is not None:
                kept &= self._counts[unique, column] <= most
        return unique[kept]

    def features(self, rows: Rows) -> Floats:
        """What a model sees: one-hot genes, ordered genes in [0, 1], and the position of each cost."""
        return self._features[rows]

    def positions(self, rows: Rows) -> Floats:
        """Where two costs lie between the least (0) and the most (1) of the space, by their logarithm.

        The second column is 0 where a study has one exact objective.
        """
        return self._positions[rows]

    def shares(self, rows: Rows) -> Floats:
        """The costs divided by the most of the space; the columns are those of `positions`."""
        return self._shares[rows]

    def log_costs(self, rows: Rows) -> Floats:
        """Natural logarithms of parameters and MACs, (n, 2); that of 0, which a table may hold, is 0."""
        found: Floats = np.log(np.maximum(self._counts[rows], 1))
        return found

    @property
    def num_costs(self) -> int:
        return len(self._exact)

    def most_positions(self, limits: Limits) -> Floats:
        """Where the limits lie, at most 1; one value for each cost."""
        found = np.ones(len(self._exact))
        for column, (objective, (least, most)) in enumerate(zip(self._exact, self._bounds, strict=True)):
            limit = limits.max_params if objective.cost_name == "params" else limits.max_macs
            if limit is not None:
                found[column] = np.clip(np.log(max(limit, least) / least) / np.log(most / least), 0, 1)
        return found

    def _values(self, genes: Genes) -> tuple[Gene, ...]:
        return tuple(genes[choice.name] for choice in self._space.choices)

    def _add(self, arch: Architecture, genes: Genes) -> int:
        row = len(self._genes)
        if row == len(self._features):
            self._features = np.concatenate([self._features, np.empty_like(self._features)])
            self._counts = np.concatenate([self._counts, np.empty_like(self._counts)])
            self._positions = np.concatenate([self._positions, np.zeros_like(self._positions)])
            self._shares = np.concatenate([self._shares, np.zeros_like(self._shares)])
            self._tried = np.concatenate([self._tried, np.zeros_like(self._tried)])
        cost = self._space.cost(arch)
        self._genes.append(genes)
        self._counts[row] = cost.params, cost.macs
        for column, (objective, (least, most)) in enumerate(zip(self._exact, self._bounds, strict=True)):
            count = objective.of(cost)
            self._positions[row, column] = np.log(max(count, least) / least) / np.log(most / least)
            self._shares[row, column] = count / most
        numbers: list[float] = []
        for choice in self._choices:
            index = choice.values.index(genes[choice.name])
            if choice.numbers:
                numbers.append(index / (len(choice.values) - 1))
            else:  # so that two values lie 1 apart
                numbers.extend(np.sqrt(0.5) * (place == index) for place in range(len(choice.values)))
        self._features[row] = *numbers, *self._positions[row, : len(self._exact)]
        return row

    def _group_features(self) -> Rows:
        """The group of each feature: one for each cost, and one for the genes that differ in their number alone.

        So `mixer_1` to `mixer_4` are one group, and a model has few length scales to learn.
        """
        stems = [re.sub(r"_\d+$", "", choice.name) for choice in self._choices]
        order = {stem: group for group, stem in enumerate(dict.fromkeys(stems))}
        genes = [
            [order[stem]] * (1 if choice.numbers else len(choice.values))
            for stem, choice in zip(stems, self._choices, strict=True)
        ]
        costs = [len(order) + column for column in range(len(self._exact))]
        return np.array([*itertools.chain.from_iterable(genes), *costs], dtype=np.int64)


def _positive(bounds: tuple[float, float]) -> tuple[float, float]:
    """Bounds of which logarithms can be taken, and that differ."""
    least, most = bounds
    most = max(most, 1.0)
    least = least if least > 0 else most / 10**_DECADES_FROM_ZERO
    return least, max(most, 1.001 * least)
