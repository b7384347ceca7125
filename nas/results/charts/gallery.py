"""All charts of a run, by the part of the report that shows them, and one of them by its name."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from metaformer.errors import UserError, check_type, unknown_name
from nas.results.charts.curves import learning_curves
from nas.results.charts.figures import TEMPLATE, Chart, accuracy_faces, cost_faces, hover_text, space_chart
from nas.results.charts.mixer_figures import mixer_shares, mixer_tiles
from nas.results.charts.overview import parallel_coordinates, progress_chart
from nas.results.results import Results
from nas.results.words import plural

FRONT = "front"  # names the chart of most objectives


def charts_of(results: Results) -> dict[str, list[Chart]]:
    """The charts by the part of the page that shows them; none where no trial is complete."""
    if not results.complete:
        return {}
    return {
        "space": space_chart(results),
        "accuracy_faces": accuracy_faces(results),
        "cost_faces": cost_faces(results),
        "parallel": [Chart("parallel", parallel_coordinates(results))],
        "progress": [Chart("progress", progress_chart(results))],
        "tiles": [Chart("tiles", mixer_tiles(results))],
        "shares": [Chart("shares", mixer_shares(results))],
        "curves": [Chart("curves", learning_curves(results))],
    }


def figure_of(results: Results, name: str) -> go.Figure:
    """One chart by its name, with its hover texts; `front` is that in three dimensions, or of two objectives.

    Raises:
        UserError: There is no such chart, or no trial is complete.
    """
    check_type(name, str, "figure: must be the name of a chart", error=UserError)
    charts = [chart for group in charts_of(results).values() for chart in group]
    if not charts:
        raise UserError(f"figure: must be of a run with a complete trial, got {plural(len(results.trials), 'trial')}")
    figures = {FRONT: charts[0].figure} | {chart.name: chart.figure for chart in charts}
    if name not in figures:
        raise UserError(unknown_name("figure", name, figures))
    figure = figures[name].update_layout(template=TEMPLATE)
    figure.data = [trace for trace in figure.data if trace.meta != "selected"]  # the page's alone, and empty
    shown = {trial.number: trial for trial in (*results.trials, *results.complete)}
    said: dict[int, str] = {}

    def told(numbers: Any) -> Any:
        if isinstance(numbers, Sequence | np.ndarray):  # of a heat map, in rows
            return [told(number) for number in numbers]
        number = int(numbers)
        return said.setdefault(number, said.get(number) or hover_text(shown[number], results))

    for trace in figure.data:
        if trace.customdata is not None and "text" in str(trace.hoverinfo):
            trace.hovertext = told(trace.customdata)
    return figure
