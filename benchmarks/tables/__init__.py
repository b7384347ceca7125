"""A table of trained architectures as a search space: each row has genes, accuracies and known costs.

The format is a CSV file with a header. Columns whose names begin with `accuracy` hold percent, one for each seed, and
may be empty or missing. The first columns with `macs` and `params` in their names hold costs, in millions where the
name ends with `_M`. The others are genes; where there is one alone, each of its characters is one.
"""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metaformer.architecture import Architecture
from metaformer.cost import Cost
from metaformer.errors import UserError
from metaformer.specs import Head, IdentitySpec, Norm, Stage
from metaformer.specs.parts import PartCost
from search_spaces.space import Choice, Gene, Genes, SearchSpace, SpaceError, SpaceSettings

Floats = NDArray[np.float64]


class TableSpace(SearchSpace):
    """The rows of a table. For the architecture of row i stands a model of width i + 1, which is never built.

    Every combination of genes must have a row.
    """

    name = "table"

    def __init__(self, path: Path) -> None:
        super().__init__(SpaceSettings())
        with path.open(newline="") as file:
            rows = _read(file)
        if not rows:
            raise UserError(f"table: must have a row, got none in {path}")
        columns = list(rows[0])
        accuracies = [name for name in columns if name.startswith("accuracy")]
        macs, params = _cost_column(columns, "macs"), _cost_column(columns, "params")
        named = [name for name in columns if name not in {*accuracies, macs, params}]
        if not accuracies or macs is None or not named:
            raise UserError(f"table: must have columns of genes, accuracy and macs, got {', '.join(columns)}")
        genes = [tuple(row[named[0]]) if len(named) == 1 else tuple(row[name] for name in named) for row in rows]
        self.choices = tuple(
            Choice(f"gene_{place}", tuple(sorted({values[place] for values in genes})))
            for place in range(len(genes[0]))
        )
        self._genes = genes
        self._row = {values: row for row, values in enumerate(genes)}
        if len(self._row) != np.prod([len(choice.values) for choice in self.choices]):
            raise UserError(f"table: must have one row for each combination of genes, got {len(genes)} in {path}")
        self.accuracy = (
            np.array([np.mean([float(row[name]) for name in accuracies if row[name]]) for row in rows]) / 100
        )
        self.macs = _counts(rows, macs)
        self.has_params = params is not None
        self.params = _counts(rows, params) if params is not None else np.zeros_like(self.macs)

    @property
    def size(self) -> int:
        return len(self._genes)

    def row(self, arch: Architecture) -> int:
        return arch.stages[0].width - 1

    def decode(self, genes: Mapping[str, Gene]) -> Architecture:
        return _stand_in(self._row[tuple(str(genes[choice.name]) for choice in self.choices)])

    def encode(self, arch: Architecture) -> Genes:
        row = self.row(arch)
        if row >= self.size:
            raise SpaceError(f"architecture: must stand for one of {self.size} rows, got {row}")
        return {choice.name: value for choice, value in zip(self.choices, self._genes[row], strict=True)}

    def cost(self, arch: Architecture) -> Cost:
        row = self.row(arch)
        return Cost(stages=(), head=PartCost(params=int(self.params[row]), macs=int(self.macs[row])))

    def references(self) -> dict[str, Architecture]:
        return {}


def _read(file: Iterable[str]) -> list[dict[str, str]]:
    """The cells of each row by column; a row of fewer seeds may be shorter, since it leaves out its last accuracies."""
    lines = csv.reader(file)
    columns = next(lines, [])
    last = max((place for place, name in enumerate(columns) if name.startswith("accuracy")), default=-1)
    rows = []
    for cells in lines:
        missing = len(columns) - len(cells)
        if missing < 0:
            raise UserError(f"table: must have {len(columns)} cells in a row, got {','.join(cells)}")
        before = last + 1 - missing
        rows.append(dict(zip(columns, [*cells[:before], *[""] * missing, *cells[before:]], strict=True)))
    return rows


def _stand_in(row: int) -> Architecture:
    stage = Stage(depth=1, width=row + 1, mixer=IdentitySpec(), norm=Norm(kind="batch_norm"))
    return Architecture(stages=(stage,), head=Head(norm=Norm(kind="batch_norm")))


def _cost_column(columns: list[str], kind: str) -> str | None:
    return next((name for name in columns if kind in name), None)


def _counts(rows: list[dict[str, str]], column: str) -> NDArray[np.int64]:
    factor = 1e6 if column.endswith("_M") else 1.0
    return np.array([round(factor * float(row[column])) for row in rows], dtype=np.int64)
