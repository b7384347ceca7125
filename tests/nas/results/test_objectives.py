"""Reports of studies with other objectives than the three usual ones."""

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from nas.data import DataInfo
from nas.record.run_folder import Run, RunFolder, open_run
from nas.record.trials import TrialRecord
from nas.results.console import print_plan, print_summary
from nas.results.report_files import summarise, write_report
from nas.results.results import Results
from nas.session.forecast import forecast
from nas.study.budget import Budget
from nas.study.objectives import find
from tests.nas.results.pages import read_csv, read_page
from tests.nas.runs import make_run, make_study, open_folder

pytestmark = pytest.mark.xdist_group("objectives")  # the runs are made once

TWO = ("accuracy", "latency")
FOUR = ("params", "latency", "accuracy", "peak_memory")
FIVE = ("accuracy", "params", "macs", "latency", "batch_latency")


def losses(trial: TrialRecord, names: tuple[str, ...]) -> list[float]:
    """The objectives, less is better, looked up one by one."""
    known = {"accuracy": -(trial.val_accuracy or 0.0), "params": trial.params, "macs": trial.macs, **trial.measured}
    return [known[name] for name in names]


def members(run: Run) -> set[int]:
    """Numbers of the complete trials that no other beats in the study's objectives."""
    points = {trial.number: losses(trial, run.study.objectives) for trial in run.record.complete}

    def is_beaten(point: list[float]) -> bool:
        return any(
            other != point and all(mine <= its for mine, its in zip(other, point, strict=True))
            for other in points.values()
        )

    return {number for number, point in points.items() if not is_beaten(point)}


@pytest.fixture(scope="module", params=[TWO, FOUR, FIVE], ids=["two", "four", "five"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    made = make_run(tmp_path_factory.mktemp("runs") / "run", objectives=request.param, max_trials=24)
    write_report(made)
    return open_run(made.folder.path)


def test_the_front_is_that_of_the_objectives(run: Run) -> None:
    assert {trial.number for trial in Results(run).front} == members(run)
    assert {int(row["trial"]) for row in read_csv(run.folder.front_csv)} == members(run)


def test_the_page_has_a_chart_for_each_pair_that_matters(run: Run) -> None:
    page = read_page(run.folder.report_html)
    expected = {
        TWO: {"latency-accuracy"},
        FOUR: {
            *("space", "params-accuracy", "latency-accuracy", "peak_memory-accuracy"),
            *("params-latency", "params-peak_memory", "latency-peak_memory"),
        },
        FIVE: {
            *("space", "params-accuracy", "macs-accuracy", "latency-accuracy", "batch_latency-accuracy"),
            *("params-macs", "params-latency", "params-batch_latency"),
        },
    }
    assert set(page.charts) == expected[run.study.objectives] | {"tiles", "shares", "curves", "progress", "parallel"}
    places = [attrs["id"] for tag, attrs in page.tags if tag == "div" and "chart" in str(attrs.get("class"))]
    assert sorted(map(str, places)) == sorted(page.charts)  # each has its place, once


def test_the_axes_carry_the_titles_of_the_objectives(run: Run) -> None:
    charts = read_page(run.folder.report_html).charts
    for name, chart in charts.items():
        if name in {"space", "tiles", "shares", "curves", "progress", "parallel"}:
            continue
        x, y = (find(objective) for objective in name.split("-"))
        assert chart["layout"]["xaxis"]["title"]["text"] == x.title
        assert chart["layout"]["yaxis"]["title"]["text"] == y.title
        marks = [trace for trace in chart["data"] if trace["mode"] == "markers"]
        assert sum(len(trace["x"]) for trace in marks) == len(run.record.complete)
    if "space" in charts:
        scene = charts["space"]["layout"]["scene"]
        costs = [find(name) for name in run.study.objectives if name != "accuracy"]
        titles = [scene[f"{letter}axis"]["title"]["text"] for letter in "xyz"]
        assert titles == [costs[0].title, costs[1].title, "validation accuracy (%)"]


def test_the_points_of_a_face_are_the_measured_values(run: Run) -> None:
    chart = read_page(run.folder.report_html).charts["latency-accuracy"]
    shown = {
        point
        for trace in chart["data"]
        if trace["mode"] == "markers"
        for point in zip(trace["x"], trace["y"], strict=True)
    }
    assert shown == {(t.measured["latency"], 100 * (t.val_accuracy or 0)) for t in run.record.complete}


def test_the_line_of_the_only_face_is_the_front(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", objectives=TWO)
    chart = read_page(write_report(run)).charts["latency-accuracy"]
    line = next(trace for trace in chart["data"] if trace["mode"] == "lines")
    assert set(zip(line["x"], line["y"], strict=True)) == {
        (trial.measured["latency"], 100 * (trial.val_accuracy or 0))
        for trial in run.record.complete
        if trial.number in members(run)
    }
    assert chart["layout"]["showlegend"]  # no other chart has it


def test_the_tables_have_a_column_for_each_measured_objective(run: Run) -> None:
    page = read_page(run.folder.report_html)
    measured = run.study.goals.measured
    trials = {str(trial.number): trial for trial in run.record}
    for table in ("front", "references"):
        head, *rows = [[cell.replace("★", "").strip() for cell in row] for row in page.tables[table]]
        assert rows
        for objective in measured:
            column = head.index(objective.name.replace("_", " "))
            for row in rows:
                trial = trials.get(row[head.index("trial")])
                value = trial.measured.get(objective.name) if trial else None
                assert row[column] == ("–" if value is None else objective.text(value))


def test_the_page_names_the_objectives_and_the_device(run: Run) -> None:
    text = read_page(run.folder.report_html).text
    assert "; ".join(objective.title for objective in run.study.goals) in text
    assert "Measured on a made-up device" in text
    sentences = {
        TWO: "Accuracy and latency of every complete trial. Blue",
        FOUR: "Parameters, latency, accuracy and peak memory of every complete trial. Blue",
        FIVE: "Accuracy, parameters, MACs, latency and batch latency of every complete trial (MACs are",
    }
    assert sentences[run.study.objectives] in text
    assert ("room for three of the" in text) == (len(run.study.objectives) > 3)


def test_marks_tell_what_was_measured(run: Run) -> None:
    columns = read_page(run.folder.report_html).columns
    for trial in run.record.complete:
        said = columns["measured"][columns["trial"].index(trial.number)]
        assert f", latency {trial.measured['latency']:.3g} ms" in said


def test_the_csv_has_a_column_for_each_measured_objective(run: Run) -> None:
    rows = read_csv(run.folder.trials_csv)
    columns = list(rows[0])
    metrics = [objective.metric for objective in run.study.goals.measured]
    start = columns.index("macs") + 1
    assert columns[start : start + len(metrics) + 1] == [*metrics, "epochs"]
    for row, trial in zip(rows, run.record, strict=True):
        for objective in run.study.goals.measured:
            value = trial.measured.get(objective.name)
            assert row[objective.metric] == ("" if value is None else str(value))


def test_the_summary_has_the_value_of_each_objective(run: Run) -> None:
    summary: Any = summarise(run)
    assert summary["objectives"] == list(run.study.objectives)
    trials = {trial.number: trial for trial in run.record}
    for member in summary["front"]:
        assert list(member["objectives"]) == list(run.study.objectives)
        assert [-value if name == "accuracy" else value for name, value in member["objectives"].items()] == losses(
            trials[member["trial"]], run.study.objectives
        )


def test_a_run_that_has_measured_nothing_yet_has_a_report(tmp_path: Path) -> None:
    """The bounds of measured objectives are noted when a search begins, after its folder is made."""
    run, _ = open_folder(tmp_path / "run", make_study(objectives=FOUR))
    run.record.note(bounds={})
    assert "No trial is complete yet" in read_page(write_report(run)).text


def test_the_plan_names_objectives_that_are_not_the_usual_ones(tmp_path: Path) -> None:
    info = DataInfo("digits", 10, tuple("0123456789"), 32, {"train": 1077, "val": 360, "test": 360}, "0" * 16)
    for name, study in (("usual", make_study()), ("other", make_study(objectives=TWO))):
        _, session = open_folder(tmp_path / name, study)
        console = Console(record=True, width=200)
        budget = Budget.parse(study.budget)
        plan = forecast(session, peak_bytes=0)
        print_plan(
            console,
            session,
            plan,
            budget=budget,
            info=info,
            why_resolution="as asked for",
            recipe_source="as asked for",
            devices_per_trial=1.0,
        )
        said = "goals    validation accuracy (%); latency of one image (ms)" in console.export_text()
        assert said == (name == "other")


@pytest.mark.slow
def test_the_last_table_has_a_column_for_each_measured_objective(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", objectives=TWO, max_trials=6)
    run.record.note(baselines={"1-nearest neighbour": (0.986, 0.98)})
    run, session = open_folder(tmp_path / "run", run.study)
    console = Console(record=True, width=200)
    print_summary(console, session, RunFolder(tmp_path / "run"), Budget.parse(run.study.budget))
    text = console.export_text()
    assert "latency" in text
    assert session.front
    assert all(f"{trial.measured['latency']:.3g} ms" in text for trial in session.front)
    assert "simple classifiers on the same pixels: 1-nearest neighbour 98.60 % val, 98.00 % test" in text
