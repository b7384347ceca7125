"""The picture of a report in README.md: `python -m tests.services.picture runs/NAME/report.html docs/report.png`."""

import io
import sys
from pathlib import Path

from PIL import Image

from tests.services.browser import open_page, running_browser

WIDTH, HEIGHT = 1064, 2860  # of the part of the page that is shown
SHOWN_WIDTH, COLOURS = 800, 128


def take(report: Path, out: Path) -> None:
    """Write the upper part of a report as a PNG of few colours."""
    with running_browser() as browser, open_page(browser, width=WIDTH) as watched:
        page = watched.page
        page.goto(report.resolve().as_uri())
        for place in page.locator(".chart").all():
            place.scroll_into_view_if_needed()
            page.wait_for_function("place => place.classList.contains('js-plotly-plot')", arg=place.element_handle())
        page.evaluate("scrollTo(0, 0)")
        clip = {"x": 0, "y": 0, "width": WIDTH, "height": HEIGHT}
        shot = Image.open(io.BytesIO(page.screenshot(full_page=True, clip=clip)))
        watched.check()
    smaller = shot.convert("RGB").resize((SHOWN_WIDTH, HEIGHT * SHOWN_WIDTH // WIDTH), Image.Resampling.LANCZOS)
    smaller.quantize(COLOURS).save(out, optimize=True)


if __name__ == "__main__":
    take(Path(sys.argv[1]), Path(sys.argv[2]))
