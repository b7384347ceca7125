"""Do short trainings rank architectures as longer ones do, at equal cost too?

Command:   python -m benchmarks.proxy LONG.csv SHORT.csv ...
Hardware:  any; nothing is trained
Expected:  no target; `studies/proxies.md` has what was found, and the commands that made its tables

Tables are those of `nas.table`, all of the same sample of one space; the long one by another `--train-seed`, so that
it shares neither weights nor the order of images with the short ones. What is compared is Kendall's tau of accuracies
on val, over the architectures that all tables have. A larger model is often the better one, so that a short training
may agree by size alone: at equal MACs, what is ranked is how far an accuracy lies above the line through all over their
logarithm. Intervals hold 90 % of 2,000 draws of the architectures.

A architectures.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.fidelity import agreement, difference
from metaformer.cli import run
from metaformer.cost import count_cost
from metaformer.errors import UserError
from nas.execution.curves import CurveTable
from nas.study.study import Study

_FEWEST = 5  # architectures, for a line and what lies off it
_Floats = NDArray[np.float64]


def at_equal_cost(accuracy_A: Sequence[float], macs_A: Sequence[int]) -> _Floats:
    """How far accuracies lie above the line through all over the logarithm of MACs."""
    log_macs = np.log(np.array(macs_A, dtype=float))
    slope, constant = np.polyfit(log_macs, accuracy_A, 1)
    found: _Floats = np.array(accuracy_A) - (slope * log_macs + constant)
    return found


def proxy(
    long: Annotated[Path, typer.Argument(metavar="LONG.csv", help="Of nas.table, with its study beside it.")],
    short: Annotated[list[Path], typer.Argument(metavar="SHORT.csv", help="The same, of shorter trainings.")],
) -> None:
    """Compare how short trainings rank with how longer ones do."""
    tables = [CurveTable(path, Study.from_file(path.with_suffix(".yaml")).make_space()) for path in (long, *short)]
    known = [{arch.digest for arch in table.architectures} for table in tables]
    archs = [arch for arch in tables[0].architectures if all(arch.digest in digests for digests in known)]
    if len(archs) < _FEWEST:
        raise UserError(f"tables: must have at least {_FEWEST} architectures in common, got {len(archs)}")
    macs = [count_cost(arch).macs for arch in archs]
    ends = [[table.curve(arch).val_accuracies[-1] for arch in archs] for table in tables]
    above = [at_equal_cost(accuracies, macs).tolist() for accuracies in ends]
    shown = Table(title=f"{len(archs)} architectures, Kendall's tau with {long}", title_justify="left")
    columns = ("table", "epochs", "seconds", "val", "at equal MACs", "tau", "tau at equal MACs", "less the first's")
    for column in columns:
        shown.add_column(column, justify="left" if column == "table" else "right")
    for place, (path, table) in enumerate(zip((long, *short), tables, strict=True)):
        curves = [table.curve(arch) for arch in archs]
        num_epochs = len(curves[0].val_accuracies)
        seconds = float(np.mean([curve.epoch_seconds for curve in curves])) * num_epochs
        shown.add_row(
            str(path),
            str(num_epochs),
            f"{seconds:.0f}",
            f"{np.mean(ends[place]):.1%}",
            f"± {np.std(above[place]):.1%}",
            str(agreement(ends[place], ends[0])) if place else "",
            str(agreement(above[place], above[0])) if place else "",
            str(difference(above[place], above[1], above[0])) if place > 1 else "",
        )
    Console(width=160).print(shown)
    print("val: mean accuracy; at equal MACs: standard deviation; less the first's: of tau at equal MACs")


if __name__ == "__main__":
    run(proxy)
