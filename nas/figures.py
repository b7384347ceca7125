"""The report's charts of the objectives, as plotly figures; those of the mixers are in `mixer_figures.py`.

Most trials are neither on the front nor hand-designed. Their hover texts are the same in all charts, so a trace of them
has the `meta` "others" and gets its texts in the page.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from plotly.basedatatypes import BaseTraceType
from plotly.colors import sample_colorscale

from nas import labels
from nas.record import TrialRecord
from nas.tables import Results, mixer_text, percent, short_count

FRONT_COLOUR, OTHER_COLOUR, REFERENCE_COLOUR = "#1d5fb4", "#aab3bd", "#c8443c"
_MANY_POINTS = 2000  # from here on drawn by the graphics card, no longer as vectors
_PAD = 0.06  # of an axis, beyond its outermost points
_NEAR = 8  # pixels within which hand-designed models share one name
_NEAR_3D = 0.04  # of each axis, likewise
_WIDTH_3D, _HEIGHT_3D = 984, 640
_EYE, _CENTRE = {"x": -1.5, "y": -1.5, "z": 0.6}, {"x": 0.0, "y": 0.0, "z": -0.22}
_ASPECT = {"x": 1.3, "y": 1.3, "z": 0.9}
_FIELD_OF_VIEW = math.pi / 4  # plotly's

Span = tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """One objective of complete trials along an axis; costs are small where they are good, and logarithmic."""

    title: str
    value: Callable[[TrialRecord], float]
    is_cost: bool

    def position(self, trial: TrialRecord) -> float:
        """Where plotly puts a trial on the axis."""
        return math.log10(self.value(trial)) if self.is_cost else self.value(trial)

    def style(self, trials: Sequence[TrialRecord]) -> dict[str, object]:
        """Title, scale and ticks of an axis that shows these trials."""
        style: dict[str, object] = {"title": {"text": self.title}}
        if not self.is_cost:
            return style
        ticks = _log_ticks(min(map(self.value, trials)), max(map(self.value, trials)))
        return style | {"type": "log", "tickvals": ticks, "ticktext": [_tick_text(tick) for tick in ticks]}


ACCURACY = Axis("validation accuracy (%)", lambda trial: 100 * trial.objectives[0], is_cost=False)
PARAMS = Axis("parameters", lambda trial: trial.params, is_cost=True)
MACS = Axis("MACs per image", lambda trial: trial.macs, is_cost=True)


def finish(figure: go.Figure, *, height: float) -> go.Figure:
    """The look that all charts share."""
    figure.update_layout(
        template="plotly_white",
        height=height,
        margin={"l": 64, "r": 16, "t": 40, "b": 52},
        font={"family": "system-ui, sans-serif", "size": 12.5, "color": "#20262e"},
        legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", "itemsizing": "constant"},
        hoverlabel={"align": "left"},
    )
    return figure


def hover_text(trial: TrialRecord) -> str:
    """All that is known of a trial, in a few short lines of plotly's HTML."""
    title = f"trial {trial.number}" + (f": {trial.reference}" if trial.reference else "")
    test = "" if trial.test_accuracy is None else f", test {percent(trial.test_accuracy)}"
    stages = (f"{mixer_text(stage.mixer)}, {stage.depth} × {stage.width}" for stage in trial.architecture.stages)
    lines = [
        f"<b>{title}</b>",
        f"val {percent(trial.val_accuracy)}{test}",
        f"{short_count(trial.params)} parameters, {short_count(trial.macs)} MACs",
        *stages,
        f"{trial.device_seconds:,.0f} device-seconds",
    ]
    return "<br>".join(lines)


def scatter_3d(results: Results) -> go.Figure:
    """Accuracy over parameters and MACs: all complete trials, the front, the hand-designed models."""
    axes = (PARAMS, MACS, ACCURACY)
    figure = go.Figure(_marks(results, axes, sizes=(2.5, 5, 6), symbol="diamond"))
    figure.update_layout(
        scene={f"{letter}axis": axis.style(results.complete) for letter, axis in zip("xyz", axes, strict=True)}
        | {"camera": {"eye": _EYE, "center": _CENTRE}, "aspectratio": _ASPECT, "annotations": _names_3d(results, axes)}
    )
    return finish(figure, height=_HEIGHT_3D)


def face(results: Results, x: Axis, y: Axis, *, size: tuple[float, float]) -> go.Figure:
    """Two of the three objectives, with the front that these two alone have, and names at the hand-designed models.

    Args:
        size: Rough width and height of the plot area, in pixels; names are placed by it.
    """
    others, *above = _marks(results, (x, y), sizes=(4, 7, 13), symbol="star")
    steps = front_of_two(results.complete, x, y)
    line = type(others)(
        x=[x.value(trial) for trial in steps],
        y=[y.value(trial) for trial in steps],
        mode="lines",
        line={"color": FRONT_COLOUR, "width": 1.5, "shape": "hv"},
        hoverinfo="skip",
    )
    figure = go.Figure([others, line, *above])
    spans = (_span(x, results), _span(y, results))
    figure.update_xaxes(**x.style(results.complete), range=spans[0])
    figure.update_yaxes(**y.style(results.complete), range=spans[1])
    _write_names(figure, results, (x, y), spans, size)
    figure.update_layout(showlegend=False)
    return finish(figure, height=size[1] + 92)


def learning_curves(results: Results) -> go.Figure:
    """Validation accuracy after each epoch of the front's members, coloured by parameters."""
    figure = go.Figure()
    positions = [PARAMS.position(trial) for trial in results.front]
    low, high = min(positions), max(positions)
    shades = [(position - low) / ((high - low) or 1) for position in positions]
    for trial, colour in zip(results.front, sample_colorscale("Viridis_r", shades), strict=True):
        curve = trial.progress.curve
        figure.add_scatter(
            x=[report.epoch for report in curve],
            y=[100 * report.val_accuracy for report in curve],
            mode="lines+markers" if len(curve) < 10 else "lines",
            line={"color": colour, "width": 1.5, "dash": "dot" if trial.reference else "solid"},
            hovertext=hover_text(trial),
            hoverinfo="y+text",
            showlegend=False,
        )
    bar = {"title": {"text": "parameters"}, "tickvals": [low, high]}
    bar["ticktext"] = [short_count(10**low), short_count(10**high)]
    marker = {"color": [low, high], "colorscale": "Viridis_r", "showscale": True, "colorbar": bar}
    figure.add_scatter(x=[None], y=[None], mode="markers", marker=marker, showlegend=False)
    num_epochs = max(trial.num_epochs for trial in results.front)
    figure.update_xaxes(title="epoch", dtick=1 if num_epochs <= 20 else None)
    figure.update_yaxes(title=ACCURACY.title)
    return finish(figure, height=420)


def front_of_two(trials: Sequence[TrialRecord], x: Axis, y: Axis) -> list[TrialRecord]:
    """The trials that none beats in cost `x` and objective `y` at once, by rising `x`; one of each set of equals."""
    sign = -1 if y.is_cost else 1
    best: list[TrialRecord] = []
    for trial in sorted(trials, key=lambda trial: (x.value(trial), -sign * y.value(trial))):
        if not best or sign * y.value(trial) > sign * y.value(best[-1]):
            best.append(trial)
    return best


def _found_front(results: Results) -> list[TrialRecord]:
    return [trial for trial in results.front if not trial.reference]


def _marks(
    results: Results, axes: Sequence[Axis], *, sizes: tuple[float, float, float], symbol: str
) -> list[BaseTraceType]:
    """A mark for each complete trial in three traces: other trials, the front, hand-designed models.

    All three are drawn the same way, since what the graphics card draws covers all vectors.
    """
    are_many = len(results.others) >= _MANY_POINTS
    flat = go.Scattergl if are_many else go.Scatter
    kind = go.Scatter3d if len(axes) == 3 else flat
    faint = {"size": 0.75 * sizes[0], "opacity": 0.3} if are_many else {"size": sizes[0], "opacity": 0.6}
    groups = (
        ("other trials", results.others, {"color": OTHER_COLOUR, **faint}),
        ("front, found", _found_front(results), {"color": FRONT_COLOUR, "size": sizes[1]}),
        (
            "hand-designed",
            results.trained_references,
            {"color": REFERENCE_COLOUR, "size": sizes[2], "symbol": symbol, "line": {"color": "white", "width": 1}},
        ),
    )
    traces = []
    for name, trials, marker in groups:
        values = {letter: [axis.value(trial) for trial in trials] for letter, axis in zip("xyz", axes, strict=False)}
        traces.append(kind(**values, mode="markers", name=name, marker=marker, hoverinfo="text"))
        if trials is results.others:
            traces[-1].meta = "others"
        else:
            traces[-1].hovertext = [hover_text(trial) for trial in trials]
    return traces


def _span(axis: Axis, results: Results) -> Span:
    """The axis from the least to the most of the trials; a few very bad accuracies do not squeeze the others."""
    positions = sorted(axis.position(trial) for trial in results.complete)
    low, high = positions[0], positions[-1]
    if not axis.is_cost:
        shown = [axis.position(trial) for trial in (*results.front, *results.trained_references)]
        low = min(positions[len(positions) // 10], *shown)
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
    for (trial, text), offset in zip(named, offsets, strict=True):
        figure.add_annotation(x=axes[0].position(trial), y=axes[1].position(trial), **_annotation(text, offset))


def _names_3d(results: Results, axes: tuple[Axis, Axis, Axis]) -> list[dict[str, object]]:
    """Names beside the diamonds, placed for the first view."""
    spans = [_span(axis, results) for axis in axes]

    def pixel(trial: TrialRecord) -> labels.Pixel:
        x, y, z = (_place(axis, span, trial) - 0.5 for axis, span in zip(axes, spans, strict=True))
        return _project(x * _ASPECT["x"], y * _ASPECT["y"], z * _ASPECT["z"])

    named = _merged(results.trained_references, axes, nearness=[_NEAR_3D * (high - low) for low, high in spans])
    offsets = labels.place(
        [pixel(trial) for trial, _ in named],
        [text for _, text in named],
        size=(_WIDTH_3D, _HEIGHT_3D),
        keep_free=[pixel(trial) for trial in _found_front(results)],
    )
    return [
        {letter: axis.position(trial) for letter, axis in zip("xyz", axes, strict=True)} | _annotation(text, offset)
        for (trial, text), offset in zip(named, offsets, strict=True)
    ]


def _project(x: float, y: float, z: float) -> labels.Pixel:
    """Where the first view of the 3-D chart shows a point; the middle of the box is (0, 0, 0)."""
    eye, centre = np.array(list(_EYE.values())), np.array(list(_CENTRE.values()))
    ahead = (centre - eye) / np.linalg.norm(centre - eye)
    right = np.cross(ahead, (0, 0, 1))
    right /= np.linalg.norm(right)
    up = np.cross(right, ahead)
    from_eye = np.array((x, y, z)) - eye
    scale = _HEIGHT_3D / 2 / (math.tan(_FIELD_OF_VIEW / 2) * (from_eye @ ahead))
    return float(_WIDTH_3D / 2 + scale * (from_eye @ right)), float(_HEIGHT_3D / 2 + scale * (from_eye @ up))


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


def _tick_text(value: float) -> str:
    number, _, unit = short_count(value).partition(" ")
    return f"{float(number):g} {unit}"


def _log_ticks(low: float, high: float) -> list[float]:
    """Round numbers around a range, few enough to be read."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7)):
        ticks = [step * 10.0**decade for decade in decades for step in steps]
        if sum(low <= tick <= high for tick in ticks) >= 4:
            break
    return ticks


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
    names = [name for trial in group for name in str(trial.reference).split(" = ")]
    more = f" +{len(names) - 1}" if len(names) > 1 else ""
    return names[0].removesuffix("_224") + more
