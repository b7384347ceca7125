"""Charts of a whole run: all objectives and mixers side by side, and how far it came by device-time."""

from bisect import bisect_right
from itertools import accumulate

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from nas.record.trials import TrialRecord, TrialState
from nas.results.charts.axes import Axis
from nas.results.charts.colours import FRONT_COLOUR, REFERENCE_COLOUR, SELECTED_COLOUR
from nas.results.charts.figures import finish, numbers_of
from nas.results.results import Results, label_counts, stage_label
from nas.session.pareto import front
from nas.study.objectives import ACCURACY, Point

_NO_STAGE = "no stage"  # of an architecture of a union that has fewer
_MOST_STEPS = 60  # moments at which the hypervolume is computed


def parallel_coordinates(results: Results) -> go.Figure:
    """One line for each complete trial through its objectives and the mixer of each stage."""
    trials = results.complete
    dimensions: list[dict[str, object]] = []
    for axis in map(Axis, results.goals):
        values = axis.of(results)
        dimension: dict[str, object] = {"label": axis.title, "values": axis.positions(values)}
        if axis.is_logarithmic:
            low, high = values.min(), values.max()
            ticks = [tick for tick in axis.log_ticks(values) if low <= tick <= high]
            dimension |= {
                "tickvals": [axis.place(tick) for tick in ticks],
                "ticktext": list(map(axis.tick_text, ticks)),
            }
        dimensions.append(dimension)
    labels = {id(stage): stage_label(stage) for stage in results.stages}
    mixers = [[labels[id(each)] for each in trial.architecture.stages] for trial in trials]
    for stage, counts in enumerate(label_counts(trials, labels)):
        missing = [_NO_STAGE] if counts.total() < len(trials) else []
        kinds = sorted(counts) + missing
        if len(kinds) > 1:
            places = {kind: place for place, kind in enumerate(kinds)}
            values = np.array([places[own[stage] if stage < len(own) else _NO_STAGE] for own in mixers])
            named = {"tickvals": list(range(len(kinds))), "ticktext": kinds}
            dimensions.append({"label": f"stage {stage + 1}", "values": values} | named)
    colours = [(0, "#7f93ab"), (1, SELECTED_COLOUR)]
    line = {"color": np.zeros(len(trials), np.int8), "colorscale": colours, "cmin": 0, "cmax": 1}
    figure = go.Figure(go.Parcoords(dimensions=dimensions, line=line, customdata=numbers_of(trials)))
    return finish(figure, height=420).update_layout(margin={"l": 80, "r": 60, "t": 60, "b": 30})


def progress_chart(results: Results) -> go.Figure:
    """Hypervolume and best validation accuracy over the device-hours of all trials, in the order of their ends."""
    ordered = sorted(results.trials, key=_end)
    hours = [seconds / 3600 for seconds in accumulate(trial.device_seconds for trial in ordered)]
    moments = sorted({hours[round(i * (len(hours) - 1) / _MOST_STEPS)] for i in range(_MOST_STEPS + 1)})
    volumes: list[float] = []
    best: list[float | None] = []
    points: list[Point] = []  # of the front so far
    accuracy = results.goals.names.index(ACCURACY)
    done = 0
    for moment in moments:
        until = bisect_right(hours, moment)
        ended = (trial for trial in ordered[done:until] if trial.state is TrialState.COMPLETE)
        points += map(results.goals.values, ended)
        points = [points[i] for i in front(points, results.goals)]
        done = until
        volumes.append(results.scale.hypervolume(points))
        best.append(max((100 * point[accuracy] for point in points), default=None))
    figure = make_subplots(specs=[[{"secondary_y": True}]])
    shape = {"shape": "hv", "width": 2}
    figure.add_scatter(x=moments, y=volumes, name="hypervolume", line={**shape, "color": FRONT_COLOUR})
    dashed = {**shape, "color": REFERENCE_COLOUR, "dash": "dash"}
    figure.add_scatter(x=moments, y=best, name="best val accuracy (%)", line=dashed, secondary_y=True)
    figure.update_xaxes(title="device-hours", rangemode="tozero")
    figure.update_yaxes(title="hypervolume", secondary_y=False)
    figure.update_yaxes(title="val accuracy (%)", secondary_y=True, showgrid=False)
    return finish(figure, height=360)


def _end(trial: TrialRecord) -> tuple[bool, float, int]:
    """Ended ones by their time, those that go on after them."""
    ended = trial.ended_at
    return ended is None, ended.timestamp() if ended else 0.0, trial.number
