"""The report in a real browser: Debian's chromium, driven by Playwright."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nas.results.report_files import write_report
from tests.nas.runs import make_run

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    program = shutil.which("chromium") or install()
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader"]
        )
        yield browser
        browser.close()


def install() -> str:
    """Debian's package, where this user may install it."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        pytest.skip("no chromium here, and only root can install Debian's package (apt-get install chromium)")
    command = ["apt-get", "install", "-y", "-q", "chromium"]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False)
    program = shutil.which("chromium")
    if program is None:
        said = (outcome.stderr.strip().splitlines() or ["no message"])[-1]
        pytest.skip(f"no chromium here, and apt-get install chromium failed: {said}")
    return program


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(make_run(tmp_path_factory.mktemp("runs") / "run", max_trials=30))


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_is_used_without_errors_and_requests(browser: Any, report: Path, width: int) -> None:
    """Draw, select, filter, sort, switch the theme, print; screenshots lie beside the report."""
    page = browser.new_page(viewport={"width": width, "height": 900})
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(report.as_uri())
    for place in page.locator(".chart").all():
        place.scroll_into_view_if_needed()
        page.wait_for_function("place => place.classList.contains('js-plotly-plot')", arg=place.element_handle())
    assert "poolformer_s12" in page.locator("#params-accuracy").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")

    star = page.evaluate("at('params-accuracy').data.find(trace => trace.name === 'hand-designed').customdata[0]")
    page.evaluate("number => at('params-accuracy').emit('plotly_click', {points: [{customdata: number}]})", star)
    ring = "at('params-macs').data.find(trace => trace.meta === 'selected').x.length"
    assert page.evaluate(ring) == 1
    assert page.evaluate("at('parallel').data[0].line.color.reduce((sum, one) => sum + one)") == 1
    page.locator("#only").check()
    assert page.locator("#trials tbody tr.selected").count() == page.locator("#trials tbody tr").count() == 1
    page.locator("#only").uncheck()
    page.locator("#clear").click()
    assert page.evaluate(ring) == 0

    page.locator("#state").select_option("complete")
    page.locator("#filter").fill("attention")
    mixers = page.locator("#trials tbody tr").all_inner_texts()
    assert mixers
    assert all("attention" in text and "complete" in text for text in mixers)
    heading = page.get_by_role("button", name="parameters", exact=True)
    heading.focus()
    page.keyboard.press("Enter")
    sizes = [int(text.replace(",", "")) for text in page.locator("#trials tbody tr td:nth-child(8)").all_inner_texts()]
    assert sizes == sorted(sizes)
    page.get_by_role("button", name="copy the command").first.click()
    assert page.locator("#command").inner_text().startswith("python -m nas.export ")

    page.screenshot(path=report.parent / f"{width}-light.png", full_page=True)
    page.locator("#theme").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 25, 31)"
    page.screenshot(path=report.parent / f"{width}-dark.png", full_page=True)
    printed = page.pdf()
    assert printed.startswith(b"%PDF")
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    page.close()
