"""The charts of a comparison: the fronts with their intervals, and hypervolume over device time."""

from collections.abc import Sequence
from html import escape

import plotly.graph_objects as go

from nas.record.trials import TrialRecord
from nas.results.charts.axes import ACCURACY_AXIS, Axis
from nas.results.charts.figures import Chart, finish, front_of_two, hover_text
from nas.results.comparison.comparison import Comparison
from nas.study.objectives import ACCURACY

COLOURS = ("#1d5fb4", "#e3803c", "#4aa37a", "#b56aa8", "#c8443c", "#2ba3b8", "#8a9a3c", "#6b7a90")


def charts_of(comparison: Comparison) -> list[Chart]:
    """Accuracy over each cost, then hypervolume over device time; none where no trial of any run is complete."""
    if comparison.scale is None:
        return []
    costs = [Axis(objective) for objective in comparison.goals if objective.name != ACCURACY]
    fronts = [Chart(f"{cost.objective.name}-accuracy", _fronts(comparison, cost)) for cost in costs]
    return [*fronts, Chart("hypervolume", _hypervolumes(comparison))]


def _fronts(comparison: Comparison, cost: Axis) -> go.Figure:
    """The front of each run with intervals; the line is the front of these two objectives alone."""
    figure = go.Figure()
    for place, results in enumerate(comparison.runs):
        name, colour = escape(comparison.names[place]), COLOURS[place % len(COLOURS)]
        steps = front_of_two(results, cost, ACCURACY_AXIS)
        figure.add_scatter(
            x=[cost.value(trial) for trial in steps],
            y=[ACCURACY_AXIS.value(trial) for trial in steps],
            mode="lines",
            line={"color": colour, "width": 1.5, "shape": "hv"},
            hoverinfo="skip",
            legendgroup=str(place),
            showlegend=False,
        )
        figure.add_scatter(
            x=[cost.value(trial) for trial in results.front],
            y=[ACCURACY_AXIS.value(trial) for trial in results.front],
            mode="markers",
            name=name,
            marker={"color": colour, "size": 7},
            error_y=_bars(comparison, place, results.front) | {"color": colour},
            hovertext=[f"{name}<br>{hover_text(trial, results)}" for trial in results.front],
            hoverinfo="text",
            legendgroup=str(place),
        )
    shown = [trial for results in comparison.runs for trial in results.complete]
    figure.update_xaxes(**cost.style(cost.values(shown)))
    figure.update_yaxes(**ACCURACY_AXIS.style(ACCURACY_AXIS.values(shown)))
    return finish(figure, height=440)


def _bars(comparison: Comparison, place: int, trials: Sequence[TrialRecord]) -> dict[str, object]:
    """From val accuracies to the ends of the 90 % intervals, in percent; an end on the other side is no bar."""
    known = [(trial.val_accuracy or 0.0, comparison.estimate(place, trial)) for trial in trials]
    return {
        "type": "data",
        "symmetric": False,
        "array": [100 * max(0.0, estimate.high - seen) if estimate else 0.0 for seen, estimate in known],
        "arrayminus": [100 * max(0.0, seen - estimate.low) if estimate else 0.0 for seen, estimate in known],
        "thickness": 0.8,
        "width": 2,
    }


def _hypervolumes(comparison: Comparison) -> go.Figure:
    """Hypervolume in the common scale over the device-seconds that trials were charged."""
    figure = go.Figure()
    for place, name in enumerate(comparison.names):
        points = comparison.progress(place)
        figure.add_scatter(
            x=[seconds for seconds, _ in points],
            y=[hypervolume for _, hypervolume in points],
            mode="lines",
            name=escape(name),
            line={"color": COLOURS[place % len(COLOURS)], "width": 2, "shape": "hv"},
        )
    figure.update_xaxes(title="device-seconds of trials", rangemode="tozero")
    figure.update_yaxes(title="hypervolume")
    return finish(figure, height=380)
