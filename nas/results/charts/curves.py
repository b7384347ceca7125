"""The report's learning curves: the front's members, and the trials that ended early with what ended them."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.colors import sample_colorscale

from nas.record.trials import TrialRecord
from nas.results.charts.axes import ACCURACY_AXIS, PARAMS_AXIS
from nas.results.charts.colours import OTHER_COLOUR
from nas.results.charts.figures import finish
from nas.results.results import Results
from nas.results.tables.endings import ended_early
from nas.session.stoppers import make_stopper
from nas.study.objectives.units import short_count

_NUM_SHADES = 12  # of the scale of parameters; curves of one shade are one trace
_MOST_EARLY = 300  # curves of trials that ended early
_SYMBOLS = ("x", "circle-open", "triangle-down-open", "square-open", "diamond-open")  # of what ended them
_FEW_EPOCHS = 10  # below which each epoch has a mark


def learning_curves(results: Results) -> go.Figure:
    """Validation accuracy after each epoch, with the rungs at which trials are judged.

    The front's members are coloured by parameters; dotted: hand-designed. Grey: trials that ended early, at most 300 of
    them and evenly by their numbers, each with a mark at its end that is shaped by the reason.
    """
    figure = go.Figure()
    early = ended_early(trial for trial in results.trials if trial.progress.curve)
    step = max(1, math.ceil(sum(len(trials) for _, trials in early) / _MOST_EARLY))
    for symbol, (title, trials) in zip(itertools.cycle(_SYMBOLS), early, strict=False):  # a cycle has no end
        _add_early(figure, trials[::step], name=title, symbol=symbol)
    _add_front(figure, results.front)
    for rung in make_stopper(results.run.study, results.scale).rungs:
        figure.add_vline(rung, line={"width": 1, "dash": "dash", "color": OTHER_COLOUR}, annotation_text="rung")
    num_epochs = max(trial.num_epochs for trial in results.front)
    figure.update_xaxes(title="epoch", dtick=1 if num_epochs <= 20 else None)
    figure.update_yaxes(title=ACCURACY_AXIS.title)
    return finish(figure, height=420)


def _add_early(figure: go.Figure, trials: Sequence[TrialRecord], *, name: str, symbol: str) -> None:
    """Curves of trials that ended for one reason, and a mark at the end of each."""
    lines = {"color": OTHER_COLOUR, "width": 1}
    figure.add_scatter(
        **_joined(trials), mode="lines", line=lines, opacity=0.6, hoverinfo="skip", legendgroup=name, showlegend=False
    )
    ends = _joined(trials, last_only=True)
    marker = {"symbol": symbol, "size": 7, "color": "#5d6875"}
    figure.add_scatter(**ends, mode="markers", marker=marker, name=name, legendgroup=name, hoverinfo="y+text")


def _add_front(figure: go.Figure, front: Sequence[TrialRecord]) -> None:
    """Curves of the front's members, and the scale of their colours."""
    positions = PARAMS_AXIS.positions(PARAMS_AXIS.values(front))
    low, high = float(positions.min()), float(positions.max())
    shade_M = np.round((positions - low) / ((high - low) or 1.0) * (_NUM_SHADES - 1)).astype(int)
    colours = sample_colorscale("Viridis_r", np.linspace(0, 1, _NUM_SHADES).tolist())
    for shade, is_reference in sorted({(int(s), bool(t.references)) for s, t in zip(shade_M, front, strict=True)}):
        trials = [t for s, t in zip(shade_M, front, strict=True) if s == shade and bool(t.references) == is_reference]
        is_short = max(len(trial.progress.curve) for trial in trials) < _FEW_EPOCHS
        figure.add_scatter(
            **_joined(trials),
            mode="lines+markers" if is_short else "lines",
            line={"color": colours[shade], "width": 1.5, "dash": "dot" if is_reference else "solid"},
            hoverinfo="y+text",
            showlegend=False,
        )
    bar = {"title": {"text": "parameters"}, "tickvals": [low, high]}
    bar["ticktext"] = [short_count(10**low), short_count(10**high)]
    marker = {"color": [low, high], "colorscale": "Viridis_r", "showscale": True, "colorbar": bar}
    figure.add_scatter(x=[None], y=[None], mode="markers", marker=marker, showlegend=False)


def _joined(trials: Sequence[TrialRecord], *, last_only: bool = False) -> dict[str, NDArray[np.float64]]:
    """Epochs, accuracies and numbers of some curves, one after another with a gap between them, or of their ends."""
    rows: list[tuple[float, float, int]] = []
    for trial in trials:
        curve = trial.progress.curve[-1:] if last_only else trial.progress.curve
        rows += [(report.epoch, 100 * report.val_accuracy, trial.number) for report in curve]
        if not last_only:
            rows.append((math.nan, math.nan, trial.number))
    epochs, accuracies, numbers = np.array(rows, dtype=np.float64).T
    return {"x": epochs, "y": accuracies, "customdata": numbers.astype(np.int64)}
