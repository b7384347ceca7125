"""The report in a real browser: Debian's chromium, driven by Playwright."""

from pathlib import Path
from typing import Any

import pytest

from nas.record.run_folder import open_run
from nas.results.charts.figures import hover_text
from nas.results.report_files import write_report
from nas.results.results import Results
from tests.nas.runs import make_run
from tests.services.browser import Watched, open_page

pytestmark = [pytest.mark.services, pytest.mark.xdist_group("browser")]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(make_run(tmp_path_factory.mktemp("runs") / "run", max_trials=30))


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_is_used_without_errors_and_requests(browser: Any, report: Path, width: int) -> None:
    """Draw, select, filter, sort, switch the theme, print; screenshots lie beside the report."""
    with open_page(browser, width=width) as watched:
        use(watched, report, width)
        watched.check()


def use(watched: Watched, report: Path, width: int) -> None:
    page = watched.page
    page.goto(report.as_uri())
    for place in page.locator(".chart").all():
        place.scroll_into_view_if_needed()
        page.wait_for_function("place => drawn.has(place)", arg=place.element_handle())
    sketched = "performance.getEntriesByType('mark').filter(mark => mark.name.startsWith('sketched')).length"
    assert (page.evaluate(sketched), page.locator(".sketch").count()) == (3, 0)  # the faces, which plotly drew again
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
    shown = page.locator("#trials tbody tr").first.locator("td:nth-child(8)").inner_text()
    page.locator("#filter").fill(f"attention {shown}")  # as the table writes it, with its commas
    assert shown in page.locator("#trials tbody tr").first.inner_text()
    page.locator("#filter").fill("attention")
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


def test_marks_say_what_python_says_of_a_trial_and_tables_sort_by_keys(browser: Any, report: Path) -> None:
    with open_page(browser) as watched:
        page = watched.page
        page.goto(report.as_uri())
        results = Results(open_run(report.parent))
        shown = {trial.number: trial for trial in (*results.trials, *results.complete)}
        assert page.evaluate("hovers", list(shown)) == [hover_text(trial, results) for trial in shown.values()]
        page.locator("#front thead th", has_text="MACs").focus()
        page.keyboard.press("Enter")
        cells = "[...at('front').tBodies[0].rows].map(row => +row.querySelectorAll('[data-value]')[2].dataset.value)"
        assert page.evaluate(cells) == sorted(trial.macs for trial in results.front)
