"""The report's charts of the objectives, as plotly figures; those of the mixers are in `mixer_figures.py`.

A trace names the trial of each mark by `customdata`. What a mark says when it is pointed at stands in no figure: the
page makes it from its columns (`report.js`), and `hover_text` makes the same text for a figure without a page.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import combinations

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.basedatatypes import BaseTraceType

from metaformer.specs import Stage
from nas.record.trials import TrialRecord
from nas.results.charts import labels
from nas.results.charts.axes import ACCURACY_AXIS, Axis
from nas.results.charts.colours import (
    FRONT_COLOUR,
    MIXER_COLOURS,
    OTHER_COLOUR,
    REFERENCE_COLOUR,
    SELECTED_COLOUR,
)
from nas.results.results import Results, block_line, percent, stage_mixers_text
from nas.results.words import cost_text, interval_text, probability_text
from nas.study.objectives import ACCURACY, Objectives

TEMPLATE = "plotly_white"  # of all charts
OTHERS = "other trials"  # the trace of those that are neither on the front nor hand-designed
_MANY_POINTS = 2000  # from here on drawn by the graphics card, no longer as vectors
_PAD = 0.06  # of an axis, beyond its outermost points
_NEAR = 8  # pixels within which hand-designed models share one name
_MOST_COST_FACES = 3
_HALF_FACE, _WHOLE_FACE = (410, 380), (940, 380)  # width and height of a plot area: two faces in a row, or one
_HEIGHT_3D = 640
_EYE, _CENTRE = {"x": -1.5, "y": -1.5, "z": 0.6}, {"x": 0.0, "y": 0.0, "z": -0.22}
_ASPECT = {"x": 1.3, "y": 1.3, "z": 0.9}

Span = tuple[float, float]


@dataclass(frozen=True)
class Chart:
    """A figure, and the name of its place in the page."""

    name: str
    figure: go.Figure
    is_wide: bool = True  # it has a row of its own


def finish(figure: go.Figure, *, height: float) -> go.Figure:
    """The look that all charts share, but for the template, which a page with many charts has once."""
    figure.layout.template = None
    figure.update_layout(
        paper_bgcolor="rgba(0,0,0,0)",  # the page's own shows through, light or dark
        plot_bgcolor="rgba(0,0,0,0)",
        height=height,
        margin={"l": 64, "r": 16, "t": 40, "b": 52},
        font={"family": "system-ui, sans-serif", "size": 12.5, "color": "#20262e"},
        legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", "itemsizing": "constant"},
        hoverlabel={"align": "left"},
    )
    return figure


def hover_text(trial: TrialRecord, results: Results) -> str:
    """All that is known of a trial, in a few short lines of plotly's HTML; `hover` of `report.js` gives the same."""
    estimate = results.estimate(trial)
    title = f"trial {trial.number}" + (f": {escape(str(trial.reference), quote=False)}" if trial.references else "")
    test = "" if trial.test_accuracy is None else f", test {percent(trial.test_accuracy)}"
    arch = trial.architecture
    stages = [
        f"{_strip(stage)} {escape(stage_mixers_text(stage), quote=False)}, {stage.depth} × {stage.width}"
        for stage in arch.stages
    ]
    ends = [escape(text, quote=False) for text in (results.standings.get(trial.number), trial.reason) if text]
    lines = [
        f"<b>{title}</b>",
        f"val {percent(trial.val_accuracy)}{test}",
        *(
            [f"true {interval_text(estimate)}, on the front {probability_text(estimate.p_on_front)}"]
            if estimate
            else []
        ),
        *ends,
        escape(cost_text(trial, results.goals), quote=False),
        *filter(None, [escape(block_line(arch), quote=False)]),
        *stages,
        f"{trial.device_seconds:,.0f} device-seconds",
    ]
    return "<br>".join(lines)


def numbers_of(trials: Sequence[TrialRecord]) -> NDArray[np.int64]:
    """The trials of a trace's marks."""
    return np.array([trial.number for trial in trials], dtype=np.int64)


def _strip(stage: Stage) -> str:
    """A block of the mixer's colour for each block of a stage."""
    return f'<span style="color:{MIXER_COLOURS.get(stage.mixer.kind, OTHER_COLOUR)}">{"■" * stage.depth}</span>'


def space_chart(results: Results) -> list[Chart]:
    """Accuracy over the first two other objectives, in three dimensions; no chart where there is only one other."""
    costs = _cost_axes(results.goals)
    if len(costs) < 2:
        return []
    axes = (costs[0], costs[1], ACCURACY_AXIS)
    figure = go.Figure(_marks(results, axes, sizes=(2.5, 5, 6), symbol="diamond"))
    figure.update_layout(
        scene={f"{letter}axis": axis.style(axis.of(results)) for letter, axis in zip("xyz", axes, strict=True)}
        | {"camera": {"eye": _EYE, "center": _CENTRE}, "aspectratio": _ASPECT}
    )
    return [Chart("space", finish(figure, height=_HEIGHT_3D))]


def accuracy_faces(results: Results) -> list[Chart]:
    """Accuracy over each of the other objectives."""
    return _faces(results, [(cost, ACCURACY_AXIS) for cost in _cost_axes(results.goals)])


def cost_faces(results: Results) -> list[Chart]:
    """The first few pairs of objectives without accuracy, the second of a pair over the first."""
    return _faces(results, list(combinations(_cost_axes(results.goals), 2))[:_MOST_COST_FACES])


def _cost_axes(objectives: Objectives) -> list[Axis]:
    """Every objective but accuracy."""
    return [Axis(objective) for objective in objectives if objective.name != ACCURACY]


def _faces(results: Results, pairs: Sequence[tuple[Axis, Axis]]) -> list[Chart]:
    """A chart for each pair of axes, two in a row; the last of an odd number has a row of its own."""
    charts = []
    for number, (x, y) in enumerate(pairs, start=1):
        is_wide = number == len(pairs) and number % 2 == 1
        figure = _face(results, x, y, size=_WHOLE_FACE if is_wide else _HALF_FACE)
        figure.update_layout(showlegend=len(results.goals) == 2)  # the chart in three dimensions has it otherwise
        charts.append(Chart(f"{x.objective.name}-{y.objective.name}", figure, is_wide))
    return charts


def _face(results: Results, x: Axis, y: Axis, *, size: tuple[float, float]) -> go.Figure:
    """Two of the objectives, with the front that these two alone have, and names at the hand-designed models.

    Args:
        size: Rough width and height of the plot area, in pixels; names are placed by it.
    """
    others, *above = _marks(results, (x, y), sizes=(4, 7, 13), symbol="star")
    steps = front_of_two(results, x, y)
    line = type(others)(
        x=[x.value(trial) for trial in steps],
        y=[y.value(trial) for trial in steps],
        mode="lines",
        line={"color": FRONT_COLOUR, "width": 1.5, "shape": "hv"},
        hoverinfo="skip",
        showlegend=False,
    )
    figure = go.Figure([others, line, *above])
    spans = (_span(x, results), _span(y, results))
    figure.update_xaxes(**x.style(x.of(results)), range=spans[0])
    figure.update_yaxes(**y.style(y.of(results)), range=spans[1])
    _write_names(figure, results, (x, y), spans, size)
    return finish(figure, height=size[1] + 92)


def front_of_two(results: Results, x: Axis, y: Axis) -> list[TrialRecord]:
    """The complete trials that none beats in two objectives, from the best `x` to the best `y`; one of equals."""
    of_x, of_y = x.losses(x.of(results)), y.losses(y.of(results))
    order = np.lexsort((of_y, of_x))
    before = np.minimum.accumulate(np.append(np.inf, of_y[order]))[:-1]  # the best y at a better x
    return [results.complete[i] for i in order[of_y[order] < before]]


def _found_front(results: Results) -> list[TrialRecord]:
    return [trial for trial in results.front if not trial.references]


def _marks(
    results: Results, axes: Sequence[Axis], *, sizes: tuple[float, float, float], symbol: str
) -> list[BaseTraceType]:
    """A mark for each complete trial in three traces: other trials, the front, hand-designed models.

    All three are drawn the same way, since the graphics card draws above all vectors.
    """
    are_many = len(results.others) >= _MANY_POINTS
    flat = go.Scattergl if are_many else go.Scatter
    kind = go.Scatter3d if len(axes) == 3 else flat
    faint = {"size": 0.75 * sizes[0], "opacity": 0.3} if are_many else {"size": sizes[0], "opacity": 0.6}
    groups = (
        (OTHERS, results.others, {"color": OTHER_COLOUR, **faint}),
        ("front, found", _found_front(results), {"color": FRONT_COLOUR, "size": sizes[1]}),
        (
            "hand-designed",
            results.trained_references,
            {"color": REFERENCE_COLOUR, "size": sizes[2], "symbol": symbol, "line": {"color": "white", "width": 1}},
        ),
    )
    traces = []
    for name, trials, marker in groups:
        values = {letter: axis.values(trials) for letter, axis in zip("xyz"[: len(axes)], axes, strict=True)}
        traces.append(kind(**values, mode="markers", name=name, marker=marker, hoverinfo="text"))
        traces[-1].customdata = numbers_of(trials)
        if trials is not results.others:
            if len(axes) == 3 and name == "hand-designed":
                traces[-1].update(mode="markers+text", text=[_short_name([trial]) for trial in trials])
            if axes[-1].objective.name == ACCURACY and len(axes) == 2 and results.uncertainty:
                traces[-1].error_y = _error_bars(results, trials, colour=str(marker["color"]))
    ring = {"symbol": "circle-open", "size": 1.6 * sizes[1], "color": SELECTED_COLOUR, "line": {"width": 2.5}}
    empty: dict[str, list[float]] = {letter: [] for letter in "xyz"[: len(axes)]}
    traces.append(kind(**empty, mode="markers", marker=ring, hoverinfo="skip", showlegend=False, meta="selected"))
    return traces


def _error_bars(results: Results, trials: Sequence[TrialRecord], *, colour: str) -> dict[str, object]:
    """From val accuracies to the ends of the 90 % intervals, in percent; an end on the other side is no bar."""
    known = [(trial.val_accuracy or 0.0, results.estimate(trial)) for trial in trials]
    return {
        "type": "data",
        "symmetric": False,
        "array": [100 * max(0.0, estimate.high - seen) if estimate else 0.0 for seen, estimate in known],
        "arrayminus": [100 * max(0.0, seen - estimate.low) if estimate else 0.0 for seen, estimate in known],
        "color": colour,
        "thickness": 0.8,
        "width": 2,
    }


def _span(axis: Axis, results: Results) -> Span:
    """First and last position of an axis that shows the trials; a few very bad accuracies do not squeeze the others."""
    positions = np.sort(axis.positions(axis.of(results)))
    low, high = float(positions[0]), float(positions[-1])
    if not axis.is_logarithmic:
        shown = axis.positions(axis.values([*results.front, *results.trained_references]))
        low = min(float(positions[len(positions) // 10]), float(shown.min()))
    pad = _PAD * (high - low) or 0.1
    return low - pad, high + pad


def _write_names(
    figure: go.Figure, results: Results, axes: tuple[Axis, Axis], spans: tuple[Span, Span], size: tuple[float, float]
) -> None:
    """Names beside the stars, each tied to its star by a thin line."""

    def pixel(trial: TrialRecord) -> labels.Pixel:
        x, y = (_place(axis, span, trial) * length for axis, span, length in zip(axes, spans, size, strict=True))
        return x, y

    nearness = [_NEAR * (high - low) / length for (low, high), length in zip(spans, size, strict=True)]
    named = _merged(results.trained_references, axes, nearness=nearness)
    offsets = labels.place(
        [pixel(trial) for trial, _ in named],
        [text for _, text in named],
        size=size,
        keep_free=[pixel(trial) for trial in _found_front(results)],
    )
    # All at once: plotly checks those that are there again at each one more
    figure.layout.annotations = [
        {"x": axes[0].position(trial), "y": axes[1].position(trial), **_annotation(text, offset)}
        for (trial, text), offset in zip(named, offsets, strict=True)
    ]


def _annotation(text: str, offset: labels.Pixel) -> dict[str, object]:
    return {
        "text": text,
        "ax": offset[0],
        "ay": -offset[1],
        "standoff": 6,
        "arrowwidth": 0.6,
        "arrowhead": 0,
        "arrowcolor": REFERENCE_COLOUR,
        "font": {"size": 11, "color": REFERENCE_COLOUR},
        "bgcolor": "rgba(255,255,255,0.7)",
        "borderpad": 0,
    }


def _place(axis: Axis, span: Span, trial: TrialRecord) -> float:
    """How far along the axis a trial lies, from 0 to 1."""
    return (axis.position(trial) - span[0]) / (span[1] - span[0])


def _merged(
    trials: Sequence[TrialRecord], axes: Sequence[Axis], *, nearness: Sequence[float]
) -> list[tuple[TrialRecord, str]]:
    """One trial and one name for each group of hand-designed models that lie within `nearness` of its first."""
    groups: list[list[TrialRecord]] = []
    for trial in trials:
        for group in groups:
            gaps = (abs(axis.position(trial) - axis.position(group[0])) for axis in axes)
            if all(gap <= most for gap, most in zip(gaps, nearness, strict=True)):
                group.append(trial)
                break
        else:
            groups.append([trial])
    return [(group[0], _short_name(group)) for group in groups]


def _short_name(group: Sequence[TrialRecord]) -> str:
    """The first model's name without its resolution, and how many more there are."""
    names = [name for trial in group for name in trial.references]
    more = f" +{len(names) - 1}" if len(names) > 1 else ""
    return escape(names[0].removesuffix("_224"), quote=False) + more
