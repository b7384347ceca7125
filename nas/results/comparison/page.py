"""A comparison as one HTML page that needs nothing else."""

from collections.abc import Callable

import plotly
from plotly.offline import get_plotlyjs

from nas.results.charts.figures import TEMPLATE
from nas.results.comparison.comparison import Comparison
from nas.results.comparison.figures import charts_of
from nas.results.comparison.view import basis_lines, run_rows, standing_lines, value_text
from nas.results.page import in_script, read_template
from nas.results.results import percent
from nas.results.words import cost_text, interval_text, probability_text


def render(comparison: Comparison) -> str:
    """The page as text."""
    filters: dict[str, Callable[..., object]] = {
        "percent": percent,
        "interval": interval_text,
        "probability": probability_text,
        "setting": value_text,
    }
    charts = charts_of(comparison)
    figures = (f'"{chart.name}":{chart.figure.update_layout(template=TEMPLATE).to_json()}' for chart in charts)
    return read_template("nas.results.comparison", "compare.html.jinja", filters).render(
        names=comparison.names,
        rows=run_rows(comparison),
        standings=list(standing_lines(comparison)),
        basis=list(basis_lines(comparison)),
        differences=comparison.differences,
        front=comparison.front,
        goals=comparison.goals,
        cost_text=cost_text,
        charts=charts,
        figures=in_script("{" + ",".join(figures) + "}"),
        plotly_js=get_plotlyjs() if charts else "",
        plotly_version=plotly.__version__,
    )
