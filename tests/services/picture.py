"""Pictures of a report, as in README.md: `python -m tests.services.picture runs/NAME/report.html docs/report.png`.

The name of a chart behind them, such as macs-accuracy, takes a picture of that chart alone.
"""

import io
import sys
import tempfile
from pathlib import Path

import plotly.graph_objects as go
from PIL import Image

from tests.services.browser import open_page, running_browser

WIDTH, HEIGHT = 1064, 2860  # of the part of the page that is shown
SHOWN_WIDTH, COLOURS = 800, 128


def take(report: Path, out: Path, chart: str | None = None) -> None:
    """Write the upper part of a report, or a chart of it, as a PNG of few colours."""
    with running_browser() as browser, open_page(browser, width=WIDTH) as watched:
        page = watched.page
        page.goto(report.resolve().as_uri())
        for place in page.locator(".chart").all():
            place.scroll_into_view_if_needed()
            page.wait_for_function("place => place.classList.contains('js-plotly-plot')", arg=place.element_handle())
        page.evaluate("scrollTo(0, 0)")
        clip = {"x": 0, "y": 0, "width": WIDTH, "height": HEIGHT}
        taken = page.locator(f"#{chart}").screenshot() if chart else page.screenshot(full_page=True, clip=clip)
        watched.check()
    _write(taken, out)


def take_figure(figure: go.Figure, out: Path) -> None:
    """Write a plotly figure as a PNG."""
    with tempfile.TemporaryDirectory() as folder, running_browser() as browser, open_page(browser) as watched:
        file = Path(folder) / "figure.html"
        figure.write_html(file, include_plotlyjs=True)
        watched.page.goto(file.as_uri())
        watched.page.wait_for_selector(".main-svg")
        _write(watched.page.locator(".plotly-graph-div").screenshot(), out)


def _write(taken: bytes, out: Path) -> None:
    shot = Image.open(io.BytesIO(taken))
    width = min(SHOWN_WIDTH, shot.width)
    smaller = shot.convert("RGB").resize((width, shot.height * width // shot.width), Image.Resampling.LANCZOS)
    smaller.quantize(COLOURS).save(out, optimize=True)


if __name__ == "__main__":
    take(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
