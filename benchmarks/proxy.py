"""Does a proxy's short training rank architectures as longer training does, at equal cost too?

Command:   python -m benchmarks.proxy studies/curves/cifar10_proxy.csv --epochs 60 --processes 2
Hardware:  CPU cores; for that table CIFAR-10 prepared in /fast/cifar10
Time:      for that table two and a half hours of a core; interrupted, the same command goes on
Expected:  no target; the header of `recipes/cifar10_proxy.yaml` has what was found

The table is one of `nas.table`, by the proxy's recipe. Each of its architectures is trained again for more epochs, by
the next seed, so that the two share neither weights nor the order of images. What is compared is Kendall's tau of
accuracies on val. A larger model is often the better one, so that a proxy may agree by size alone: at equal cost, what
is ranked is how far an accuracy lies above the line through all over the logarithm of MACs. Beside it stand two
trainings by the proxy, of those architectures that have a second seed. Intervals hold 90 % of 2,000 draws of the
architectures.

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

from benchmarks.fidelity import Agreement, agreement, ends, shortened
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


def both(first_A: Sequence[float], second_A: Sequence[float], macs_A: Sequence[int]) -> tuple[Agreement, Agreement]:
    """How far the first accuracies rank as the second ones do, and the same at equal cost."""
    above = (at_equal_cost(each, macs_A).tolist() for each in (first_A, second_A))
    return agreement(first_A, second_A), agreement(*above)


def proxy(
    curves: Annotated[Path, typer.Argument(metavar="TABLE.csv", help="Of nas.table, with its study beside it.")],
    epochs: Annotated[int, typer.Option(min=1, help="Of the longer trainings.")] = 60,
    processes: Annotated[int, typer.Option(min=1, help="Trainings at a time.")] = 1,
) -> None:
    """Compare a proxy's ranking with that of longer training."""
    study = Study.from_file(curves.with_suffix(".yaml"))
    table = CurveTable(curves, study.make_space())
    archs = table.architectures
    if len(archs) < _FEWEST:
        raise UserError(f"curves: must hold at least {_FEWEST} architectures, got {len(archs)} in {curves}")
    first = next(iter(table.by_seed(archs[0])))
    path = curves.with_name(f"{curves.stem}_{epochs}_epochs.csv")
    long = ends(path, shortened(study, epochs), archs, seed=first + 1, processes=processes)
    short = [table.curve(arch).val_accuracies[-1] for arch in archs]
    macs = [count_cost(arch).macs for arch in archs]
    pairs = {arch: [curve.val_accuracies[-1] for curve in table.by_seed(arch).values()][:2] for arch in archs}
    again = [arch for arch, pair in pairs.items() if len(pair) == 2]
    columns = {"with longer training": both(short, long, macs)}
    if len(again) >= _FEWEST:
        one, other = zip(*(pairs[arch] for arch in again), strict=True)
        columns[f"with another seed ({len(again)})"] = both(one, other, [count_cost(arch).macs for arch in again])
    title = f"{len(archs)} architectures, Kendall's tau of the ranking after {study.recipe.epochs} epochs"
    shown = Table(title=title, title_justify="left")
    shown.add_column("what is ranked")
    for name in columns:
        shown.add_column(name, justify="right")
    for place, what in enumerate(("accuracy", "accuracy at equal MACs")):
        shown.add_row(what, *(str(found[place]) for found in columns.values()))
    console = Console(width=120)
    console.print(shown)
    for length, accuracies in ((study.recipe.epochs, short), (epochs, long)):
        spread = 100 * float(np.std(at_equal_cost(accuracies, macs)))
        console.print(
            f"after {length} epochs accuracies at equal MACs have a standard deviation of {spread:.2f} points"
        )


if __name__ == "__main__":
    run(proxy)
