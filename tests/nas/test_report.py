"""The report of a run, read back from the files it writes."""

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from metaformer import Architecture, count_cost, zoo
from nas.labels import Box, place
from nas.lease import Report
from nas.record import TrialRecord, TrialState
from nas.report import report, summarise, write_report
from nas.run import Run, open_run
from nas.tables import Results, short_count
from search_spaces.space import SpaceSettings
from tests.nas.runs import FAILURE, NUM_IMAGES, make_run, make_study, open_folder


@dataclass
class Page(HTMLParser):
    """A page's text, its tags with attributes, and the cells of its tables by id."""

    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    tables: dict[str, list[list[str]]] = field(default_factory=dict)
    scripts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self._inside: str | None = None
        self._rows: list[list[str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.tags.append((tag, named))
        if tag in {"script", "style"}:
            self._inside = tag
        elif tag == "table":
            self._rows = self.tables[str(named["id"])] = []
        elif tag == "tr":
            self._rows.append([])
        elif tag in {"td", "th"}:
            self._rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = None
        if tag == "table":
            self._rows = []

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts.append(data)
        elif self._inside is None:
            self.texts.append(data)
            if self._rows and self._rows[-1]:
                self._rows[-1][-1] += data

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    @property
    def charts(self) -> dict[str, Any]:
        found = re.search(r"const charts = (\{.*\}), texts = ", self.scripts[-1])
        assert found
        return json.loads(found[1])


def read_page(path: Path) -> Page:
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def beats(first: TrialRecord, second: TrialRecord) -> bool:
    """Dominance written out: nowhere worse and somewhere better."""
    no_worse = (
        first.objectives[0] >= second.objectives[0] and first.params <= second.params and first.macs <= second.macs
    )
    return no_worse and first.objectives != second.objectives


def members(run: Run) -> set[int]:
    """Numbers of the complete trials that no other beats."""
    complete = [trial for trial in run.record if trial.state is TrialState.COMPLETE]
    return {trial.number for trial in complete if not any(beats(other, trial) for other in complete)}


def dominators(run: Run, reference: TrialRecord) -> set[int]:
    """Numbers of the complete trials of the search that beat a hand-designed one."""
    found = [trial for trial in run.record if trial.state is TrialState.COMPLETE and trial.reference is None]
    return {trial.number for trial in found if beats(trial, reference)}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of 24 trials and its report, in a folder whose name HTML has to escape."""
    made = make_run(tmp_path_factory.mktemp("runs") / "a <b> & c", max_trials=24)
    write_report(made)
    return made


@pytest.fixture(scope="module")
def page(run: Run) -> Page:
    return read_page(run.folder.report_html)


def complete_references(run: Run) -> Iterator[TrialRecord]:
    found = [trial for trial in run.record.complete if trial.reference]
    assert found
    yield from found


def test_the_page_loads_nothing_from_elsewhere(run: Run, page: Page) -> None:
    links = [attrs.get(name) for _, attrs in page.tags for name in ("src", "href") if name in attrs]
    assert set(links) == {f"front/trial-{number:05d}.yaml" for number in members(run)}
    assert all((run.folder.path / str(link)).exists() for link in links)
    assert not {tag for tag, _ in page.tags} & {"link", "img", "iframe", "object", "embed"}


def test_names_and_reasons_are_escaped(page: Page) -> None:
    assert "a <b> & c" in page.text
    assert FAILURE in page.text
    assert "b" not in {tag for tag, _ in page.tags}
    assert "nan" not in {tag for tag, _ in page.tags}


def test_the_page_answers_in_its_first_sentence(run: Run, page: Page) -> None:
    best = max(100 * trial.objectives[0] for trial in run.record.complete)
    assert f"{len(members(run))} architectures on the front" in page.text
    assert f"Best validation accuracy {best:.2f} %" in page.text
    assert f"--study '{run.folder.study_file}' --name 'a <b> & c-again'" in page.text


def test_every_reference_has_a_row(run: Run, page: Page) -> None:
    assert [row[0].strip() for row in page.tables["references"][1:]] == list(run.study.references)


def test_references_that_are_one_network_share_a_row(tmp_path: Path) -> None:
    """On maps of 4 x 4 tokens, windows of 7 and of 9 cover everything."""
    names = ("poolformer_s12_pool5", "poolformer_s12_pool7", "poolformer_s12_pool9")
    settings = make_study().settings.model_copy(update={"resolution": 8})
    run = make_run(tmp_path / "run", settings=settings.model_dump(), references=names, max_trials=1)
    rows = read_page(write_report(run)).tables["references"][1:]
    assert [row[0].split() for row in rows] == [[names[0]], [names[1], f"={names[2]}"]]  # a line each
    assert all(row[2].strip().endswith("%") for row in rows)  # both have an accuracy


def test_the_page_lists_exactly_the_found_models_that_dominate_a_reference(run: Run, page: Page) -> None:
    rows = {row[1].strip(): row[-1] for row in page.tables["references"][1:]}
    for reference in complete_references(run):
        listed = {int(number) for number in re.findall(r"#(\d+)", rows[str(reference.number)])}
        assert listed == dominators(run, reference)
        assert ("on the front" in rows[str(reference.number)]) == (reference.number in members(run))


def test_the_page_says_by_how_much_a_reference_is_dominated(run: Run, page: Page) -> None:
    trials = {trial.number: trial for trial in run.record}
    lines = [
        (int(row[1]), line.strip())
        for row in page.tables["references"][1:]
        for line in row[-1].splitlines()
        if "points" in line
    ]
    assert lines
    for reference, line in lines:
        found = re.search(r"#(\d+): \+([\d.]+) points, −([\d.]+) % parameters, −([\d.]+) % MACs", line)
        if found is None:
            assert "same" in line
            continue
        better, worse = trials[int(found[1])], trials[reference]
        assert float(found[2]) == pytest.approx(100 * (better.objectives[0] - worse.objectives[0]), abs=0.006)
        assert float(found[3]) == pytest.approx(100 * (1 - better.params / worse.params), abs=0.51)
        assert float(found[4]) == pytest.approx(100 * (1 - better.macs / worse.macs), abs=0.51)


def test_a_reference_that_only_another_one_beats_says_so(tmp_path: Path) -> None:
    run, _ = open_folder(tmp_path / "run", make_study(references=("poolformer_s12", "poolformer_s24")))
    for name, accuracy in (("poolformer_s12", 0.9), ("poolformer_s24", 0.8)):
        trial = run.record.start(run.space.references()[name], reference=name)
        epoch = Report(epoch=3, val_accuracy=accuracy, train_loss=1.0, checkpoint="3.pt")
        trial.progress = trial.progress.model_copy(update={"curve": (epoch,)})
        run.record.end(trial, "complete")
    rows = read_page(write_report(run)).tables["references"][1:]
    assert [row[-1].strip() for row in rows] == ["on the front", "none found; dominated by poolformer_s12"]


def test_a_reference_that_was_not_trained_says_why(page: Page) -> None:
    rows = {row[0].strip(): row[-1].strip() for row in page.tables["references"][1:]}
    assert rows["poolformer_m48"] == "not trained: over the limits of this study"


def test_the_front_table_has_the_members_by_rising_parameters(run: Run, page: Page) -> None:
    numbers = [int(row[0].replace("★", "")) for row in page.tables["front"][1:]]
    params = {trial.number: trial.params for trial in run.record}
    assert set(numbers) == members(run)
    assert [params[number] for number in numbers] == sorted(params[number] for number in numbers)


def test_failed_trials_are_shown_with_their_reason(run: Run, page: Page) -> None:
    failed = [trial.number for trial in run.record if trial.state is TrialState.FAILED]
    assert failed
    assert [(int(row[0]), row[-1].strip()) for row in page.tables["failed"][1:]] == [
        (number, FAILURE) for number in failed
    ]


def test_every_complete_trial_is_a_mark_in_every_scatter_chart(run: Run, page: Page) -> None:
    for name in ("space", "params", "macs", "costs"):
        marks = [len(trace["x"]) for trace in page.charts[name]["data"] if trace["mode"] == "markers"]
        assert sum(marks) == len(run.record.complete)


def test_the_line_of_a_face_is_the_front_of_its_two_objectives(run: Run, page: Page) -> None:
    line = next(trace for trace in page.charts["params"]["data"] if trace["mode"] == "lines")
    points = {(trial.params, 100 * trial.objectives[0]) for trial in run.record.complete}
    best = [p for p in points if not any(q != p and q[0] <= p[0] and q[1] >= p[1] for q in points)]
    assert list(zip(line["x"], line["y"], strict=True)) == sorted(best)


def test_the_tiles_show_the_mixers_of_the_front(run: Run, page: Page) -> None:
    data = page.charts["tiles"]["data"]
    tiles = next(trace for trace in data if trace["type"] == "heatmap")
    kinds = [trace["name"] for trace in data if trace["type"] == "scatter" and trace.get("name")]
    trials = {trial.number: trial for trial in run.record}
    for column, label in enumerate(tiles["x"]):
        stages = trials[int(label.removeprefix("★ ").removeprefix("#"))].architecture.stages
        assert [kinds[row[column]] for row in tiles["z"]] == [stage.mixer.kind for stage in stages]


def test_trials_csv_holds_the_record(run: Run) -> None:
    rows = read_csv(run.folder.trials_csv)
    assert len(rows) == len(run.record.trials)
    for row, trial in zip(rows, run.record, strict=True):
        assert int(row["trial"]) == trial.number
        assert row["state"] == trial.state
        assert row["on_front"] == str(trial.number in members(run))
        assert row["reference"] == (trial.reference or "")
        assert row["val_accuracy"] == ("" if trial.val_accuracy is None else str(trial.val_accuracy))
        assert row["test_accuracy"] == ("" if trial.test_accuracy is None else str(trial.test_accuracy))
        assert (int(row["params"]), int(row["macs"])) == (trial.params, trial.macs)
        assert float(row["device_seconds"]) == pytest.approx(trial.device_seconds, abs=0.001)
        assert row["widths"] == "|".join(str(stage.width) for stage in trial.architecture.stages)
        assert row["reason"] == (trial.reason or "")


def test_front_csv_holds_the_members_and_where_their_architectures_lie(run: Run) -> None:
    rows = read_csv(run.folder.front_csv)
    assert {int(row["trial"]) for row in rows} == members(run)
    trials = {trial.number: trial for trial in run.record}
    for row in rows:
        arch = Architecture.from_file(run.folder.path / row["architecture"])
        assert arch == trials[int(row["trial"])].architecture
        assert count_cost(arch).params == int(row["params"])


def test_a_member_that_leaves_the_front_takes_its_file_along(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", max_trials=3, references=())
    stale, own = run.folder.architectures / "trial-99999.yaml", run.folder.architectures / "notes.yaml"
    run.folder.architectures.mkdir()
    for path in (stale, own):
        path.write_text("kept?", encoding="utf-8")
    write_report(run)
    assert not stale.exists()
    assert own.exists()  # not the report's
    assert {path.name for path in run.folder.architectures.glob("trial-*")} == {
        f"trial-{number:05d}.yaml" for number in members(run)
    }


def test_a_study_without_trials_has_a_report(tmp_path: Path) -> None:
    run, _ = open_folder(tmp_path / "run", make_study())
    page = read_page(write_report(run))
    assert "No trial is complete yet, so there is no front to show (trials: none so far)." in page.text
    assert {row[-1].strip() for row in page.tables["references"][1:]} == {
        "not trained yet",
        "not trained: over the limits of this study",
    }
    assert read_csv(run.folder.trials_csv) == read_csv(run.folder.front_csv) == []
    assert "val_accuracy" in run.folder.trials_csv.read_text(encoding="utf-8")


def test_a_single_trial_is_a_front(tmp_path: Path) -> None:
    page = read_page(write_report(make_run(tmp_path / "run", max_trials=1, references=())))
    assert page.text.count("1 architecture on the front, all found by the search.") == 1
    assert set(page.charts) == {"space", "params", "macs", "costs", "tiles", "shares", "curves"}


def test_a_study_in_which_all_failed_has_a_report(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", max_trials=2, references=(), fail_every=1)
    page = read_page(write_report(run))
    assert "(trials: 2 failed)" in page.text
    assert len(page.tables["failed"]) == 1 + 2


def test_a_search_that_is_at_work_has_a_report(tmp_path: Path) -> None:
    """Read by another process's eyes: from the files, while a lease is out."""
    run, session = open_folder(tmp_path / "run", make_study(max_trials=1))
    lease = session.next()
    assert lease is not None
    epoch = Report(epoch=1, val_accuracy=0.5, train_loss=1.0, checkpoint="1.pt")
    session.report(lease.name, epoch, device_seconds=1.0)
    page = read_page(write_report(open_run(run.folder.path)))
    assert "(trials: 1 running or interrupted)" in page.text
    assert "not finished: 1 of 3 epochs" in page.text
    assert "1cpu-seconds of 6cpu-minutes spent (0 %)" in page.text


def test_stopped_trials_are_counted_by_reason(tmp_path: Path) -> None:
    run, _ = open_folder(tmp_path / "run", make_study())
    for name in ("poolformer_s12", "poolformer_s24", "poolformer_s36"):
        trial = run.record.start(run.space.references()[name], reference=name)
        run.record.end(trial, "stopped", reason="too little for its cost" if name != "poolformer_s36" else "by hand")
    page = read_page(write_report(run))
    assert "2 stopped: too little for its cost" in page.text
    assert "1 stopped: by hand" in page.text


@pytest.mark.parametrize(
    ("data", "settings", "shown"),
    [
        ("folder:/data/imagenet", SpaceSettings(), True),
        ("folder:/data/imagenet", SpaceSettings(width_scale=0.5), False),
        ("folder:/data/imagenet", SpaceSettings(resolution=160), False),
        ("folder:/data/birds", SpaceSettings(num_classes=200), False),
        ("other", SpaceSettings(), False),
    ],
    ids=["the paper's task", "slimmer", "smaller images", "other classes", "other data"],
)
def test_published_accuracies_stand_only_beside_the_networks_they_were_measured_on(
    tmp_path: Path, data: str, settings: SpaceSettings, shown: bool
) -> None:
    study = make_study(data=data, settings=settings.model_dump(), references=("poolformer_s12",))
    run, _ = open_folder(tmp_path / "run", study)
    (reference,) = Results(run).references
    assert reference.published_top1 == (zoo.published()["poolformer_s12"].top1 if shown else None)
    page = read_page(write_report(run))
    assert ("77.2 %" in page.text) == shown
    assert ("not the published networks" in page.text) == (settings != SpaceSettings())


def test_the_page_says_how_fine_validation_accuracy_is(page: Page) -> None:
    assert f"Validation has {NUM_IMAGES['val']} images: accuracy moves in steps of 0.28 points" in page.text


def test_the_page_says_that_test_was_looked_at_once(page: Page) -> None:
    assert "Validation chose; test was looked at once, at the end" in page.text


def test_the_summary_holds_front_and_dominance(run: Run) -> None:
    summary: Any = json.loads(json.dumps(summarise(run)))
    assert {member["trial"] for member in summary["front"]} == members(run)
    trained = [reference for reference in summary["references"] if reference["dominated_by"]]
    trials = {trial.number: trial for trial in run.record}
    assert trained
    for reference in trained:
        assert set(reference["dominated_by"]) == dominators(run, trials[reference["trial"]])
    assert sum(summary["trials"].values()) == len(run.record.trials)
    assert summary["spent_device_seconds"] == pytest.approx(run.record.spent_seconds)
    assert 0 < summary["hypervolume"] < 1


def test_the_program_says_which_files_it_wrote(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    report(str(run.folder.path))
    assert capsys.readouterr().out.splitlines() == [
        str(run.folder.report_html),
        str(run.folder.trials_csv),
        str(run.folder.front_csv),
        f"{run.folder.architectures} ({len(members(run))} architectures)",
    ]


def test_the_program_prints_the_summary_as_json(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    report(str(run.folder.path), as_json=True)
    assert json.loads(capsys.readouterr().out) == summarise(run)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (7, "7"),
        (999, "999"),
        (1000, "1.00 k"),
        (152_330, "152 k"),
        (999_700, "1.00 M"),
        (11_915_176, "11.9 M"),
        (1.8227e9, "1.82 G"),
    ],
)
def test_counts_are_written_in_three_figures(count: float, text: str) -> None:
    assert short_count(count) == text


def test_names_of_points_in_a_crowd_do_not_cover_each_other() -> None:
    points = [(200.0 + i, 150.0 + 12 * i) for i in range(8)]
    texts = [f"poolformer_s{i}" for i in range(8)]
    offsets = place(points, texts, size=(420, 380), keep_free=[])
    boxes = [Box(x + right, y + up, 6.2 * 13, 14) for (x, y), (right, up) in zip(points, offsets, strict=True)]
    assert all(first.overlap(second) == 0 for i, first in enumerate(boxes) for second in boxes[:i])
    assert all(box.outside(420, 380) == 0 for box in boxes)
