"""Charts of a whole run: all objectives and mixers side by side, and how far it came by device-time."""

from bisect import bisect_right
from itertools import accumulate

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from nas.record.trials import TrialRecord
from nas.results.charts.axes import Axis
from nas.results.charts.figures import FRONT_COLOUR, REFERENCE_COLOUR, finish
from nas.results.results import Results, mixer_counts
from nas.session.pareto import HypervolumeScale, front_of

_MOST_STEPS = 60  # moments at which the hypervolume is computed


def parallel_coordinates(results: Results) -> go.Figure:
    """One line for each complete trial through its objectives and the mixer of each stage."""
    trials = results.complete
    dimensions: list[dict[str, object]] = []
    for axis in map(Axis, results.goals):
        dimension: dict[str, object] = {"label": axis.title, "values": [axis.position(trial) for trial in trials]}
        if axis.is_logarithmic:
            low, high = min(map(axis.value, trials)), max(map(axis.value, trials))
            ticks = [tick for tick in axis.log_ticks(trials) if low <= tick <= high]
            dimension |= {
                "tickvals": [axis.place(tick) for tick in ticks],
                "ticktext": list(map(axis.tick_text, ticks)),
            }
        dimensions.append(dimension)
    for stage, counts in enumerate(mixer_counts(trials)):
        kinds = sorted(counts)
        if len(kinds) > 1:
            values = [kinds.index(trial.architecture.stages[stage].mixer.kind) for trial in trials]
            named = {"tickvals": list(range(len(kinds))), "ticktext": kinds}
            dimensions.append({"label": f"stage {stage + 1}", "values": values} | named)
    line = {"color": [0] * len(trials), "colorscale": [(0, "#7f93ab"), (1, "#d55e00")], "cmin": 0, "cmax": 1}
    figure = go.Figure(go.Parcoords(dimensions=dimensions, line=line, customdata=[trial.number for trial in trials]))
    return finish(figure, height=420).update_layout(margin={"l": 80, "r": 60, "t": 60, "b": 30})


def progress_chart(results: Results) -> go.Figure:
    """Hypervolume and best validation accuracy over the device-hours of all trials, in the order of their ends."""
    ordered = sorted(results.trials, key=_end)
    hours = [seconds / 3600 for seconds in accumulate(trial.device_seconds for trial in ordered)]
    moments = sorted({hours[round(i * (len(hours) - 1) / _MOST_STEPS)] for i in range(_MOST_STEPS + 1)})
    scale = HypervolumeScale.of(results.run.space, results.goals, results.notes.bounds)
    volumes, best, front = [], [], list[TrialRecord]()
    done = 0
    for moment in moments:
        until = bisect_right(hours, moment)
        front = front_of([*front, *ordered[done:until]], results.goals)
        done = until
        volumes.append(scale.hypervolume([results.goals.values(trial) for trial in front]))
        best.append(max((100 * (trial.val_accuracy or 0.0) for trial in front), default=None))
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
