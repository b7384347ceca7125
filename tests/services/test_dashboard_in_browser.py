"""Optuna's dashboard on a run in a real browser."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from optuna_dashboard import wsgi

from nas.dashboard import following, guarded, hosts_of, make_dashboard, read_only, show_runs
from nas.record.run_folder import Run
from nas.record.trials import TrialState
from nas.record.view.shown_files import ShownFiles
from nas.record.view.shown_study import new_storage
from nas.results.report_files import write_report
from tests.nas.runs import FAILURE, make_run
from tests.services.browser import open_page

pytestmark = [pytest.mark.services, pytest.mark.xdist_group("browser")]

NAME = "shown_*<b>bold*"  # neither Markdown nor HTML may read it as markup


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = make_run(tmp_path_factory.mktemp("runs") / NAME, max_trials=20)
    write_report(run)
    return run


@pytest.fixture(scope="module")
def address(run: Run) -> Iterator[str]:
    storage, files = new_storage(), ShownFiles()
    runs = show_runs(storage, files, [run.folder.path])
    app = following(read_only(wsgi(storage, artifact_store=files)), [each.update for each in runs])
    with make_dashboard(app, "127.0.0.1", 0) as server:
        server.set_app(guarded(app, hosts_of("127.0.0.1", server.server_port)))
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_study_notes_references_charts_and_report_are_found(
    browser: Any, address: str, run: Run, tmp_path: Path
) -> None:
    with open_page(browser, width=1600) as watched:
        page = watched.page
        page.goto(address)
        page.get_by_role("link", name=run.name).click()
        chart = page.locator("#user-defined-plot\\:params-accuracy")
        chart.get_by_text("poolformer_s12", exact=False).first.wait_for()
        page.get_by_text("front.csv").wait_for()
        page.screenshot(path=tmp_path / "study.png", full_page=True)

        page.goto(f"{address}/dashboard/studies/0/note")
        page.get_by_role("heading", name=run.name, exact=True).wait_for()
        page.get_by_role("cell", name="hybrid_stages: 1", exact=False).wait_for()
        assert page.get_by_text("python -m nas.export", exact=False).count() >= 1
        assert page.locator("b").count() == 0
        page.screenshot(path=tmp_path / "note.png", full_page=True)
        report = page.get_by_role("link", name="report.html").get_attribute("href")

        page.goto(f"{address}/dashboard/studies/0/trials?numbers=0")
        page.get_by_text("hand-designed: poolformer_s12", exact=False).wait_for()
        page.screenshot(path=tmp_path / "trial.png", full_page=True)
        failed = next(trial.number for trial in run.record if trial.state is TrialState.FAILED)
        page.goto(f"{address}/dashboard/studies/0/trials?numbers={failed}")
        page.get_by_text(f"Ended: {FAILURE}").wait_for()

        page.goto(f"{address}{report}")
        page.wait_for_selector("#trials tbody tr")
        page.locator("#space").scroll_into_view_if_needed()
        page.wait_for_selector("#space.js-plotly-plot")
        page.screenshot(path=tmp_path / "report.png")
        watched.check()
