"""Does a training that is broken off rank architectures as well as one that was planned to be short?

Command:   python -m benchmarks.fidelity studies/curves/cifar10_hybrid_stages.csv --processes 2
Hardware:  CPU cores; for that table CIFAR-10 prepared in /fast/cifar10
Time:      for that table 50 minutes of a core, by its own epoch_seconds; interrupted, the same command goes on
Expected:  no target; in `studies/early_stopping.md` neither ranks better, so that a rung is the first epochs

A table of `nas.table` holds whole learning curves, and of some architectures those of a second seed. Each of these is
trained again for fewer epochs, with warm-up and schedule of that length, as `--epochs` has it, by the first seed. Both,
this short training and the first epochs of the whole one, are held against the end of the whole training by the
second seed, with which neither shares its weights or the order of its images. What is compared is Kendall's tau; the
most that can be hoped for is that of two whole trainings. Intervals hold 90 % of 2,000 draws of the architectures.

A architectures, B draws of them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.stats import kendalltau

from metaformer.architecture import Architecture
from metaformer.cli import run
from metaformer.cli.console import progress_bar
from metaformer.errors import UserError
from nas.execution.curves import CurveFile, CurveTable, Training, record
from nas.study.request import shorten_warmup
from nas.study.study import Study

_NUM_DRAWS = 2_000
_Floats = NDArray[np.float64]


class Agreement(NamedTuple):
    """Kendall's tau with the end of other trainings, and its 90 % interval."""

    tau: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.tau:.2f} ({self.low:.2f} to {self.high:.2f})"


def agreement(early_A: Sequence[float], late_A: Sequence[float]) -> Agreement:
    """How far early accuracies rank as late ones do."""
    return _interval(_draw_taus(early_A, late_A))


def difference(first_A: Sequence[float], second_A: Sequence[float], late_A: Sequence[float]) -> Agreement:
    """By how much the first ones rank better than the second ones do, the same architectures drawn for both."""
    return _interval(_draw_taus(first_A, late_A) - _draw_taus(second_A, late_A))


def _draw_taus(early_A: Sequence[float], late_A: Sequence[float]) -> _Floats:
    """Tau of all architectures, then of draws of them with replacement; the same draws at every call."""
    early, late = np.array(early_A), np.array(late_A)
    rng = np.random.default_rng(0)
    drawn_BA = [np.arange(len(early)), *rng.integers(len(early), size=(_NUM_DRAWS, len(early)))]
    return np.array([kendalltau(early[drawn_A], late[drawn_A]).statistic for drawn_A in drawn_BA])


def _interval(taus_B: _Floats) -> Agreement:
    low, high = np.nanquantile(taus_B[1:], (0.05, 0.95))
    return Agreement(float(taus_B[0]), float(low), float(high))


def shortened(study: Study, epochs: int) -> Study:
    """The study with trainings of so many epochs, as `--epochs` has it."""
    fields = {**study.recipe.model_dump(), "epochs": epochs}
    shorten_warmup(fields)
    return study.model_copy(update={"recipe": type(study.recipe).model_validate(fields)})


def _ends(path: Path, study: Study, architectures: Sequence[Architecture], *, seed: int, processes: int) -> list[float]:
    """Accuracy on val at the end of each training, recorded in a table of its own."""
    space = study.make_space()
    with CurveFile(path, space) as file, progress_bar() as bar:
        missing = [arch for arch in architectures if (arch.digest, seed) not in file.recorded]
        done = len(architectures) - len(missing)
        task = bar.add_task(f"{study.recipe.epochs} epochs", total=len(architectures), completed=done)
        trainings = [Training(arch, seed) for arch in missing]
        record(study, trainings, file, num_processes=processes, on_row=lambda: bar.advance(task))
    table = CurveTable(path, space)
    return [table.by_seed(arch)[seed].val_accuracies[-1] for arch in architectures]


def fidelity(
    curves: Annotated[Path, typer.Argument(metavar="TABLE.csv", help="Of nas.table, with its study beside it.")],
    epochs: Annotated[list[int] | None, typer.Option(help="Of short trainings.", show_default="2, 4")] = None,
    number: Annotated[int, typer.Option(min=3, help="Architectures with two seeds, at most.")] = 60,
    processes: Annotated[int, typer.Option(min=1, help="Trainings at a time.")] = 1,
) -> None:
    """Compare prefixes of whole trainings with trainings that are short."""
    study = Study.from_file(curves.with_suffix(".yaml"))
    table = CurveTable(curves, study.make_space())
    several = [arch for arch in table.architectures if len(table.by_seed(arch)) > 1][:number]
    if not several:
        raise UserError(f"curves: must hold architectures with two seeds, got none in {curves}")
    first, second = list(table.by_seed(several[0]))[:2]
    whole = [table.by_seed(arch)[first].val_accuracies for arch in several]
    late = [table.by_seed(arch)[second].val_accuracies[-1] for arch in several]
    last = len(whole[0])
    whole_row = (last, agreement([curve[-1] for curve in whole], late), None, None)
    rows: list[tuple[int, Agreement, Agreement | None, Agreement | None]] = [whole_row]
    for length in sorted(epochs or [2, 4], reverse=True):
        path = curves.with_name(f"{curves.stem}_{length}_epochs.csv")
        short = _ends(path, shortened(study, length), several, seed=first, processes=processes)
        prefix = [curve[length - 1] for curve in whole]
        rows.append((length, agreement(prefix, late), agreement(short, late), difference(short, prefix, late)))
    shown = Table(
        title=f"{len(several)} architectures, Kendall's tau with the end of another seed", title_justify="left"
    )
    for column in ("epochs", "of device time", f"first epochs of {last}", "short training", "short minus first"):
        shown.add_column(column, justify="right")
    for length, *found in rows:
        shown.add_row(f"{length}", f"{length / last:.0%}", *("" if each is None else str(each) for each in found))
    Console(width=120).print(shown)


if __name__ == "__main__":
    run(fidelity)
