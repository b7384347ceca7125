"""Searches that really train: samplers beside each other on equal budgets, several seeds each.

Command:   python -m benchmarks.real_searches studies/cifar10_hybrid_stages.yaml --budget 30cpu-minutes
Hardware:  what the study needs; for that one two CPU cores and CIFAR-10 prepared in /fast/cifar10
Time:      budget times samplers times seeds: 3 hours of a core, half as long on two; killed, the command goes on
Expected:  no target; hypervolumes of exact_cost above those of tpe, if what virtual time says holds

Each search is `python -m nas.search` on the study with another sampler and seed, whose run stays in a folder. All are
read in one scale, from the least to the most of each cost. Hypervolume over device time counts what trials were
charged, as `python -m nas.compare` does. The hypervolume of the front by its accuracies on test is what a person takes
home: those on val chose the front.

R runs of a sampler, one for each seed.
"""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Annotated

import plotly.graph_objects as go
import typer
from plotly.subplots import make_subplots
from rich.console import Console
from rich.table import Table

from metaformer.cli import run
from metaformer.errors import UserError
from nas.record.run_folder import RunFolder, open_run
from nas.results.charts.axes import ACCURACY_AXIS, Axis
from nas.results.charts.figures import finish, front_of_two
from nas.results.comparison.comparison import Comparison
from nas.results.comparison.figures import COLOURS
from nas.session.pareto import front
from nas.study.budget import Budget
from nas.study.objectives import find
from tests.services.picture import take_figure

_SHARES = (0.25, 0.5, 0.75, 1.0)  # of the budget
_SPENT = 0.9  # of it, from which on a search has ended
_SHOWN_FROM = 0.1  # of the time: what a search has then is where the axis of hypervolume begins
_MACS = Axis(find("macs"))


def search(study: Path, runs: Path, sampler: str, seed: int, *, budget: str, references: str) -> Path:
    """The folder of a run; it is searched, or gone on with, unless its budget is spent.

    Raises:
        UserError: The search failed.
    """
    name = f"{sampler}-{seed}"
    folder = runs / name
    most = Budget.parse(budget).seconds
    if RunFolder(folder).study_file.exists() and open_run(folder).record.spent_seconds >= _SPENT * most:
        return folder
    command = [sys.executable, "-m", "nas.search", "--study", str(study), "--runs", str(runs), "--name", name]
    command += ["--sampler", sampler, "--seed", str(seed), "--budget", budget, "--references", references]
    ended = subprocess.run(command, check=False)  # noqa: S603  this project's own program, by a list of arguments
    if ended.returncode:
        raise UserError(f"search: {name} must end well, got exit code {ended.returncode}")
    return folder


def at(points: list[tuple[float, float]], seconds: float) -> float:
    """The hypervolume that a search had after so many device-seconds."""
    return max((hypervolume for spent, hypervolume in points if spent <= seconds), default=0.0)


def reached(points: list[tuple[float, float]], enough: float) -> float:
    """The device-seconds after which a search had a hypervolume; infinite where it never had."""
    return next((spent for spent, hypervolume in points if hypervolume >= enough), float("inf"))


def on_test(comparison: Comparison, run: int) -> float:
    """The hypervolume of a run's front by its accuracies on test; members that were not tested are left out."""
    results, goals = comparison.runs[run], comparison.goals
    tested = [trial for trial in results.front if trial.test_accuracy is not None]
    points = [goals.values(trial, accuracy=trial.test_accuracy) for trial in tested]
    kept = [points[i] for i in front(points, goals)]
    return comparison.scale.hypervolume(kept) if comparison.scale and kept else 0.0


def spread(values_R: list[float], digits: int = 4) -> str:
    """Mean and standard deviation over seeds."""
    return f"{fmean(values_R):.{digits}f}" + (f" ± {stdev(values_R):.{digits}f}" if len(values_R) > 1 else "")


def real_searches(
    study: Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="What is searched, on which images.")],
    budget: Annotated[str, typer.Option(help="Of each search.")],
    samplers: Annotated[str, typer.Option(help="Joined by commas; the first one is compared with the others.")] = (
        "exact_cost,tpe"
    ),
    seeds: Annotated[int, typer.Option(min=1, help="Of each sampler, from 0 on.")] = 3,
    references: Annotated[
        str, typer.Option(help="Hand-designed models, as nas.search has them; they take the same of each budget.")
    ] = "none",
    runs: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("runs/real_searches"),
    picture: Annotated[Path | None, typer.Option(help="PNG: hypervolume over device time, and the fronts.")] = None,
) -> None:
    """Search with each sampler and seed, and compare."""
    names = samplers.split(",")
    folders = {
        (name, seed): search(study, runs, name, seed, budget=budget, references=references)
        for seed in range(seeds)
        for name in names
    }
    comparison = Comparison([open_run(folder) for folder in folders.values()])
    places = {key: place for place, key in enumerate(folders)}
    whole = Budget.parse(budget).seconds
    curves = {key: comparison.progress(place) for key, place in places.items()}
    title = f"{seeds} seeds of {budget}; mean and standard deviation of hypervolumes"
    table = Table(title=title, title_justify="left")
    for column in (
        "sampler",
        *(f"{share:.0%} of budget" for share in _SHARES),
        "on test",
        "complete",
        "stopped",
        "front",
    ):
        table.add_column(column, justify="left" if column == "sampler" else "right")
    for name in names:
        own = [places[name, seed] for seed in range(seeds)]
        counts = [comparison.runs[place].counts for place in own]
        table.add_row(
            name,
            *(spread([at(curves[name, seed], share * whole) for seed in range(seeds)]) for share in _SHARES),
            spread([on_test(comparison, place) for place in own]),
            spread([count["complete"] for count in counts], 1),
            spread([count["stopped"] for count in counts], 1),
            spread([len(comparison.runs[place].front) for place in own], 1),
        )
    console = Console(width=160)
    console.print(table)
    for other in names[1:]:
        ends = [curves[names[0], seed][-1][1] - curves[other, seed][-1][1] for seed in range(seeds)]
        tested = [
            on_test(comparison, places[names[0], s]) - on_test(comparison, places[other, s]) for s in range(seeds)
        ]
        shares = [reached(curves[names[0], seed], curves[other, seed][-1][1]) for seed in range(seeds)]
        totals = [curves[other, seed][-1][0] for seed in range(seeds)]
        soon = ", ".join(f"{share / total:.2f}" for share, total in zip(shares, totals, strict=True))
        console.print(f"{names[0]} less {other}, seed by seed: val {_signed(ends)}; test {_signed(tested)}")
        console.print(f"device-seconds to where {other} ends, as a part of its own, seed by seed: {soon}")
    if picture:
        take_figure(drawn(comparison, names, seeds), picture)


def drawn(comparison: Comparison, samplers: Sequence[str], seeds: int) -> go.Figure:
    """Hypervolume over device time, and accuracy over MACs along the fronts of these two; a colour for each sampler.

    Args:
        seeds: Runs of each sampler; the comparison has those of a seed one after the other, in the samplers' order.
    """
    figure = make_subplots(cols=2, horizontal_spacing=0.09)
    curves = [comparison.progress(place) for place in range(seeds * len(samplers))]
    for place, points in enumerate(curves):
        sampler = samplers[place % len(samplers)]
        line = {"color": COLOURS[place % len(samplers)], "width": 2, "shape": "hv"}
        both = {"mode": "lines", "line": line, "legendgroup": sampler, "name": sampler}
        minutes = [seconds / 60 for seconds, _ in points]
        figure.add_scatter(x=minutes, y=[y for _, y in points], **both, showlegend=place < len(samplers))
        steps = front_of_two(comparison.runs[place], _MACS, ACCURACY_AXIS)
        x, y = ([axis.value(trial) for trial in steps] for axis in (_MACS, ACCURACY_AXIS))
        figure.add_scatter(x=x, y=y, **both, showlegend=False, col=2, row=1)
    figure.update_xaxes(title="device-minutes of trials", col=1)
    low = min(at(points, _SHOWN_FROM * points[-1][0]) for points in curves)
    high = max(points[-1][1] for points in curves)
    figure.update_yaxes(title="hypervolume", range=[low - 0.05 * (high - low), high + 0.05 * (high - low)], col=1)
    shown = [trial for results in comparison.runs for trial in results.complete]
    figure.update_xaxes(**_MACS.style(_MACS.values(shown)), col=2)
    figure.update_yaxes(title="val accuracy (%)", col=2)
    return finish(figure, height=380)


def _signed(values: list[float]) -> str:
    return ", ".join(f"{value:+.4f}" for value in values)


if __name__ == "__main__":
    run(real_searches)
