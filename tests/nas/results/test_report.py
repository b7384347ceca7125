"""The report of a run, read back from the files it writes."""

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from metaformer import Architecture, count_cost, zoo
from nas.record.notes import EventKind
from nas.record.run_folder import Run, open_run
from nas.record.trials import LeaseEnd, StopReason, TrialRecord, TrialState
from nas.report import report
from nas.results.charts.mixer_figures import mixer_colours, mixer_tiles
from nas.results.report_files import summarise, write_report
from nas.results.results import Results, mixer_text
from nas.results.words import probability_text
from nas.study.lease import Metrics, Report
from nas.study.splitting import Splitting
from search_spaces.space import Limits, SpaceSettings
from tests.nas.results.pages import Page, read_csv, read_page
from tests.nas.runs import FAILURE, NUM_IMAGES, make_run, make_study, open_folder


def accuracy(trial: TrialRecord) -> float:
    assert trial.val_accuracy is not None
    return trial.val_accuracy


def beats(first: TrialRecord, second: TrialRecord) -> bool:
    """Dominance written out: nowhere worse and somewhere better."""
    no_worse = accuracy(first) >= accuracy(second) and first.params <= second.params and first.macs <= second.macs
    return no_worse and (first.val_accuracy, first.params, first.macs) != (
        second.val_accuracy,
        second.params,
        second.macs,
    )


def members(run: Run) -> set[int]:
    """Numbers of the complete trials that no other beats."""
    complete = [trial for trial in run.record if trial.state is TrialState.COMPLETE]
    return {trial.number for trial in complete if not any(beats(other, trial) for other in complete)}


def claims(run: Run, reference: TrialRecord) -> dict[int, float]:
    """For each found model that costs no more than a hand-designed one, the probability that it is more accurate."""
    found = [trial for trial in run.record.complete if trial.reference is None]
    no_dearer = [trial for trial in found if trial.params <= reference.params and trial.macs <= reference.macs]
    uncertainty = Results(run).uncertainty
    assert uncertainty is not None
    known = uncertainty.p_dominates(no_dearer, reference)
    return {trial.number: p for trial, p in zip(no_dearer, known, strict=True)}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of 24 trials and its report, in a folder whose name HTML has to escape."""
    made = make_run(tmp_path_factory.mktemp("runs") / "a <b> & c", max_trials=24)
    write_report(made)
    return made


@pytest.fixture(scope="module")
def page(run: Run) -> Page:
    return read_page(run.folder.report_html)


def summary(run: Run) -> Any:
    """The summary as a program reads it."""
    return json.loads(json.dumps(summarise(run)))


def complete_references(run: Run) -> Iterator[TrialRecord]:
    found = [trial for trial in run.record.complete if trial.reference]
    assert found
    yield from found


@pytest.mark.slow
def test_the_page_tells_of_the_splits(page: Page, tmp_path: Path) -> None:
    plain = "1,077 train, 360 val, 360 test"
    assert plain in page.texts
    other = make_run(tmp_path / "few", max_trials=2, splitting=Splitting(images_per_class=100))
    write_report(other)
    assert f"{plain} (at most 100 images of a class to train on)" in read_page(other.folder.report_html).texts


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
    best = max(100 * accuracy(trial) for trial in run.record.complete)
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


def test_the_page_lists_the_found_models_that_dominate_a_reference_or_are_tied_with_it(run: Run, page: Page) -> None:
    rows = {row[1].strip(): row[-1] for row in page.tables["references"][1:]}
    for reference in complete_references(run):
        cell = rows[str(reference.number)]
        listed = {int(number) for number in re.findall(r"#(\d+)", cell)}
        known = claims(run, reference)
        assert listed == {number for number, p in known.items() if p > 0.1}
        verbs = re.findall(r"#(\d+) (dominates|is tied with)", cell)
        assert {number: verb == "dominates" for number, verb in verbs} == {
            number: known[int(number)] >= 0.9 for number, _ in verbs
        }
        assert ("on the front" in cell) == (reference.number in members(run))


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
        found = re.search(r"#(\d+) .*: ([+−][\d.]+) points, −([\d.]+) % parameters, −([\d.]+) % MACs", line)
        if found is None:
            assert "same" in line
            continue
        better, worse = trials[int(found[1])], trials[reference]
        points = float(found[2].replace("−", "-"))
        assert points == pytest.approx(100 * (accuracy(better) - accuracy(worse)), abs=0.006)
        assert float(found[3]) == pytest.approx(100 * (1 - better.params / worse.params), abs=0.51)
        assert float(found[4]) == pytest.approx(100 * (1 - better.macs / worse.macs), abs=0.51)


def test_a_reference_that_only_another_one_beats_says_so(tmp_path: Path) -> None:
    run, _ = open_folder(tmp_path / "run", make_study(references=("poolformer_s12", "poolformer_s24")))
    for name, accuracy in (("poolformer_s12", 0.9), ("poolformer_s24", 0.8)):
        trial = run.record.start(run.space.references()[name], references=(name,))
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
    for name in ("space", "params-accuracy", "macs-accuracy", "params-macs"):
        marks = [len(trace["x"]) for trace in page.charts[name]["data"] if "customdata" in trace]
        assert sum(marks) == len(run.record.complete)


def test_the_line_of_a_face_is_the_front_of_its_two_objectives(run: Run, page: Page) -> None:
    line = next(trace for trace in page.charts["params-accuracy"]["data"] if trace["mode"] == "lines")
    points = {(trial.params, 100 * accuracy(trial)) for trial in run.record.complete}
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


def test_the_page_has_a_row_for_each_trial(run: Run, page: Page) -> None:
    columns, trials = page.columns, list(run.record)
    assert columns["trial"] == [trial.number for trial in trials]
    assert columns["state"] == [trial.state for trial in trials]
    assert columns["reason"] == [trial.reason or "" for trial in trials]
    assert columns["params"] == [trial.params for trial in trials]
    assert columns["macs"] == [trial.macs for trial in trials]
    assert columns["device_seconds"] == [trial.device_seconds for trial in trials]
    assert columns["val"] == pytest.approx(
        [math.nan if trial.val_accuracy is None else trial.val_accuracy for trial in trials], nan_ok=True
    )


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
        assert int(row["stride"]) == trial.architecture.stem.stride
        assert row["widths"] == "|".join(str(stage.width) for stage in trial.architecture.stages)
        assert row["reason"] == (trial.reason or "")
        assert row["stop_reason"] == (trial.stop_reason or "")


def test_curves_csv_holds_each_epoch_with_what_was_measured_of_it(tmp_path: Path) -> None:
    run, _ = open_folder(tmp_path / "run", make_study())
    trials = [run.record.start(arch) for arch in list(run.space.references().values())[:2]]
    for epoch in (1, 2, 2):  # the second is trained again
        trials[0].add_epoch(
            Report(epoch=epoch, val_accuracy=epoch / 4, train_loss=1.0, checkpoint="x.pt"),
            Metrics(epoch=epoch, val_top5=0.75, images_per_s=100.5, waiting=0.25, peak_mib=12.0, device_seconds=3.5),
        )
    trials[1].add_epoch(Report(epoch=1, val_accuracy=0.5, train_loss=2.0, checkpoint="x.pt"))  # of an earlier version
    for trial in trials:
        run.record.save(trial)
    write_report(run)
    header, *rows = run.folder.curves_csv.read_text(encoding="utf-8").splitlines()
    assert header == "trial,epoch,val_accuracy,train_loss,val_top5,images_per_s,waiting,peak_mib,device_seconds"
    assert rows == ["0,1,0.25,1.0,0.75,100.5,0.25,12.0,3.5", "0,2,0.5,1.0,0.75,100.5,0.25,12.0,3.5", "1,1,0.5,2.0,,,,,"]


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
    assert read_csv(run.folder.curves_csv) == []
    assert "val_accuracy" in run.folder.trials_csv.read_text(encoding="utf-8")


def test_a_single_trial_is_a_front(tmp_path: Path) -> None:
    page = read_page(write_report(make_run(tmp_path / "run", max_trials=1, references=())))
    assert page.text.count("1 architecture on the front, all found by the search.") == 1
    assert set(page.charts) == {
        *("space", "params-accuracy", "macs-accuracy", "params-macs"),
        *("parallel", "progress", "tiles", "shares", "curves"),
    }


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


def test_stopped_trials_are_counted_by_reason_and_by_sentence(tmp_path: Path) -> None:
    run, _ = open_folder(tmp_path / "run", make_study())
    ends = [
        ("poolformer_s12", StopReason.STOPPER, "too little <for> its cost"),
        ("poolformer_s24", StopReason.STOPPER, "too little <for> its cost"),
        ("poolformer_s36", StopReason.STOPPER, "of worse rank"),
        ("poolformer_m36", StopReason.BUDGET, "the budget was spent"),
    ]
    for name, stop_reason, reason in ends:
        trial = run.record.start(run.space.references()[name], references=(name,))
        run.record.end(trial, "stopped", stop_reason=stop_reason, reason=reason)
    page = read_page(write_report(run))
    assert "3 stopped early: 2 × too little <for> its cost 1 × of worse rank" in page.text
    assert "1 stopped because the budget was spent: 1 × the budget was spent" in page.text
    assert [row["stop_reason"] for row in read_csv(run.folder.trials_csv)] == [*["stopper"] * 3, "budget"]


def test_many_sentences_about_stopped_trials_are_cut_short(tmp_path: Path) -> None:
    run, _ = open_folder(tmp_path / "run", make_study())
    architecture = run.space.references()["poolformer_s12"]
    for number in range(25):
        trial = run.record.start(architecture)
        run.record.end(trial, "stopped", stop_reason=StopReason.LIMIT, reason=f"latency was {number} ms")
    text = read_page(write_report(run)).text
    assert "25 stopped over a limit on a measured objective: 1 × latency was 0 ms" in text
    assert "1 × latency was 19 ms and 5 other sentences; trials.csv has all" in text


def test_learning_curves_show_rungs_and_what_ended_trials_early(tmp_path: Path) -> None:
    recipe = make_study().recipe.model_copy(update={"epochs": 8})
    run, _ = open_folder(tmp_path / "run", make_study(stopper="rank", recipe=recipe.model_dump()))
    ends: list[tuple[str, int, StopReason | None]] = [
        ("poolformer_s12", 8, None),
        ("poolformer_s24", 2, StopReason.STOPPER),
        ("poolformer_s36", 4, StopReason.STOPPER),
        ("poolformer_m36", 3, StopReason.BUDGET),
    ]
    for name, epochs, stop_reason in ends:
        trial = run.record.start(run.space.references()[name])
        for epoch in range(1, epochs + 1):
            trial.add_epoch(Report(epoch=epoch, val_accuracy=epoch / 10, train_loss=1.0, checkpoint="x.pt"))
        run.record.end(trial, "stopped" if stop_reason else "complete", stop_reason=stop_reason, reason="so it was")
    page = read_page(write_report(run))
    chart = page.charts["curves"]
    assert [shape["x0"] for shape in chart["layout"]["shapes"]] == [1, 2, 4]
    marks = {trace["name"]: trace for trace in chart["data"] if trace.get("name")}
    stopped, spent = marks["stopped early"], marks["stopped because the budget was spent"]
    assert (stopped["x"], stopped["y"], stopped["customdata"]) == ([2, 4], [20, 40], [1, 2])
    assert (spent["x"], spent["customdata"]) == ([3], [3])
    assert stopped["marker"]["symbol"] != spent["marker"]["symbol"]
    assert page.columns["reason"][1] == "so it was"


def test_failures_and_fallbacks_are_counted_by_reason_with_examples(tmp_path: Path) -> None:
    run, _ = open_folder(tmp_path / "run", make_study())
    architecture = run.space.references()["poolformer_s12"]
    for number in range(7):
        trial = run.record.start(architecture)
        run.record.end(trial, "failed", reason=f"memory: <{number + 3}.5 GiB> are too few")
    run.record.end(run.record.start(architecture), "failed", reason="loss: must be finite, got nan")
    interrupted = run.record.start(architecture)
    for _ in range(2):
        interrupted.begin_lease()
        interrupted.end_lease(LeaseEnd.INTERRUPTED)
    run.record.save(interrupted)
    run.record.add_event(EventKind.CHECKPOINT, "epoch-0003.pt could not be read; went on from epoch 2", trial=8)
    run.record.add_event(EventKind.CHECKPOINT, "epoch-0004.pt could not be read; went on from epoch 3", trial=2)
    page = read_page(write_report(run))
    assert [[cell.strip() for cell in row] for row in page.tables["causes"][1:]] == [
        ["failed", "memory: <3.5 GiB> are too few", "7", "#0, #1, #2, #3, #4 and 2 more"],
        ["failed", "loss: must be finite, got nan", "1", "#7"],
        ["interrupted", "a lease was interrupted; its trial goes on from the last checkpoint", "2", "#8"],
        ["checkpoint", "epoch-0003.pt could not be read; went on from epoch 2", "2", "#8, #2"],
    ]


def test_hand_designed_models_say_how_they_stand_and_how_sure_that_is(run: Run, page: Page) -> None:
    results = Results(run)
    rows = {row[1].strip(): row[2].strip() for row in page.tables["standings"][1:]}
    assert set(rows) == {str(trial.number) for trial in complete_references(run)}
    for reference in results.references:
        if reference.p_dominated is None or reference.trial is None:
            continue
        said = rows[str(reference.trial.number)]
        assert said == page.columns["standing"][reference.trial.number]
        assert said.startswith("dominated by found models with p") == (reference.p_dominated >= 0.9)
        if reference.p_dominated >= 0.1:
            assert probability_text(reference.p_dominated) in said
        elif not said.startswith("dominates #"):
            assert said == reference.standing
        beaten = re.match(r"dominates #(\d+) with p", said)
        if beaten:
            other = next(trial for trial in run.record if trial.number == int(beaten[1]))
            assert not other.references
            assert (reference.trial.params, reference.trial.macs) <= (other.params, other.macs)


def test_the_page_names_the_devices_that_the_run_began_on(tmp_path: Path) -> None:
    run, _ = open_folder(tmp_path / "run", make_study())
    run.record.note(hardware="8 × GPU <of> a kind")
    assert "Hardware 8 × GPU <of> a kind" in read_page(write_report(run)).text


def test_what_the_run_did_by_itself_is_listed_and_escaped(tmp_path: Path) -> None:
    run, _ = open_folder(tmp_path / "run", make_study())
    run.record.add_event(EventKind.LEASE_LOST, "attempt 1 was lost: <i>gone</i>", trial=7)
    run.record.add_event(EventKind.DEADLINE, "the deadline has come")
    run.record.note(images_left_out=["dogs/<i>1</i>.jpg", "dogs/2.jpg"])
    page = read_page(write_report(run))
    assert "What the run did by itself" in page.text
    rows = [[cell.strip() for cell in row] for row in page.tables["events"][1:]]
    assert [row[1] for row in rows] == ["trial 7: attempt 1 was lost: <i>gone</i>", "the deadline has come"]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", row[0]) for row in rows)
    assert "2 images could not be read and took no part: dogs/<i>1</i>.jpg dogs/2.jpg" in page.text
    assert "i" not in {tag for tag, _ in page.tags}
    assert [(event["kind"], event["trial"]) for event in summary(run)["events"]] == [
        ("lease lost", 7),
        ("deadline", None),
    ]
    assert summary(run)["events"][0].keys() == {"kind", "text", "at", "trial"}


def test_a_run_that_did_nothing_by_itself_says_nothing_of_it(page: Page) -> None:
    assert "by itself" not in page.text
    assert "events" not in page.tables


@pytest.mark.slow
@pytest.mark.parametrize(("nearest", "is_beaten"), [(1.0, False), (0.1, True)])
def test_simple_classifiers_stand_beside_the_best_of_the_front(tmp_path: Path, nearest: float, is_beaten: bool) -> None:
    run = make_run(tmp_path / "run", max_trials=3)
    run.record.note(baselines={"1-nearest neighbour": (nearest, 0.98), "logistic <regression>": (0.1, 0.12)})
    page = read_page(write_report(run))
    best = max(100 * accuracy(trial) for trial in run.record.complete)
    assert (
        f"The best of the front reaches {best:.2f} % on validation; on the same pixels 1-nearest neighbour reaches "
        f"{100 * nearest:.2f} % and logistic <regression> reaches 10.00 %."
    ) in page.text
    assert ("No model does better than these classifiers" not in page.text) == is_beaten
    assert [[cell.strip() for cell in row] for row in page.tables["baselines"][1:]] == [
        ["1-nearest neighbour", f"{100 * nearest:.2f} %", "98.00 %"],
        ["logistic <regression>", "10.00 %", "12.00 %"],
    ]
    assert summary(run)["baselines"]["1-nearest neighbour"] == {"val_accuracy": nearest, "test_accuracy": 0.98}


def test_simple_classifiers_are_not_mentioned_where_there_are_none(run: Run, page: Page) -> None:
    assert "same pixels" not in page.text
    assert summary(run)["baselines"] == {}


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
    found = summary(run)
    assert {member["trial"] for member in found["front"]} == members(run)
    trained = [reference for reference in found["references"] if reference["p_dominated"] is not None]
    trials = {trial.number: trial for trial in run.record}
    assert trained
    for reference in trained:
        known = claims(run, trials[reference["trial"]])
        assert set(reference["dominated_by"]) == {number for number, p in known.items() if p >= 0.9}
        assert set(reference["tied_with"]) == {number for number, p in known.items() if 0.1 < p < 0.9}
        assert max(known.values(), default=0.0) <= reference["p_dominated"] <= 1
    assert sum(found["trials"].values()) == len(run.record.trials)
    assert found["spent_device_seconds"] == pytest.approx(run.record.spent_seconds)
    assert 0 < found["hypervolume"] < 1
    assert found["objectives"] == ["accuracy", "params", "macs"]
    for member in found["front"]:
        values = {"accuracy": member["val_accuracy"], "params": member["params"], "macs": member["macs"]}
        assert member["objectives"] == values


def test_the_program_says_which_files_it_wrote(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    report(str(run.folder.path))
    assert capsys.readouterr().out.splitlines() == [
        str(run.folder.report_html),
        str(run.folder.trials_csv),
        str(run.folder.curves_csv),
        str(run.folder.front_csv),
        f"{run.folder.architectures} ({len(members(run))} architectures)",
    ]


def test_the_program_prints_the_summary_as_json(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    report(str(run.folder.path), as_json=True)
    assert json.loads(capsys.readouterr().out) == summarise(run)


def test_a_stage_with_attention_in_some_blocks_is_told_from_one_without(tmp_path: Path) -> None:
    results = Results(make_run(tmp_path / "run", space="hybrid_blocks", references=(), max_trials=6))
    stages = [stage for trial in results.trials for stage in trial.architecture.stages]
    mixed = Counter(f"{stage.mixer.kind} + attention" for stage in stages if stage.interleaved)
    counted = sum((tried for _, tried in results.mixer_counts), Counter())
    assert {name: number for name, number in counted.items() if "+" in name} == mixed != {}
    colours = mixer_colours(results)
    assert set(colours) == set(counted)
    assert len(set(colours.values())) == len(colours)
    tiles = mixer_tiles(results).data[1]
    shown = {text.replace("<br>", " ") for row in tiles.text for text in row}
    names = [
        " + ".join(map(mixer_text, stage.mixers)) for trial in results.front for stage in trial.architecture.stages
    ]
    assert shown == set(names)


@pytest.mark.parametrize("space", ["convmixer", "isotropic"])
def test_the_page_of_a_space_of_one_stage_tells_patches_and_mixers(tmp_path: Path, space: str) -> None:
    """Where all mixers are of one kind, their windows tell them apart."""
    settings = SpaceSettings(resolution=32, num_classes=10, width_scale=0.125, limits=Limits(max_macs=5_000_000))
    names = ("convmixer_256_8_p2_k5",)
    run = make_run(tmp_path / "run", space=space, settings=settings.model_dump(), references=names)
    text = write_report(run).read_text(encoding="utf-8")
    page = read_page(run.folder.report_html)
    assert "<h2>Which mixer</h2>" in text
    assert "All blocks: " in page.text
    trials = {trial.number: trial for trial in run.record}
    assert page.tables["front"][0][:3] == ["trial", "patch", "blocks"]
    for row in page.tables["front"][1:]:
        assert int(row[1]) == trials[int(row[0].replace("★", ""))].architecture.stem.kernel
    tiles = next(trace for trace in page.charts["tiles"]["data"] if trace["type"] == "heatmap")
    labels = [t["name"] for t in page.charts["tiles"]["data"] if t["type"] == "scatter" and t.get("name")]
    for column, name in enumerate(tiles["x"]):
        mixer = trials[int(name.removeprefix("★ ").removeprefix("#"))].architecture.stages[0].mixer
        expected = f"dwconv {mixer.size}" if space == "convmixer" else mixer.kind
        assert labels[tiles["z"][0][column]] == expected
        patch = trials[int(name.removeprefix("★ ").removeprefix("#"))].architecture.stem.kernel
        assert f"patches of {patch} pixels" in page.columns["blocks"][tiles["customdata"][0][column]]


def test_the_page_of_a_union_tells_the_family_of_each_trial(tmp_path: Path) -> None:
    names = ("poolformer_s12", "convmixer_256_8_p2_k5")
    run = make_run(tmp_path / "run", space="hybrid_stages+convmixer", references=names, max_trials=24)
    page = read_page(write_report(run))
    families = {trial.number: run.space.encode(trial.architecture)["family"] for trial in run.record}
    assert set(families.values()) == {"hybrid_stages", "convmixer"}
    head, *rows = page.tables["front"]
    assert head[:6] == ["trial", "family", "stage 1", "stage 2", "stage 3", "stage 4"]
    assert {len(row) for row in rows} == {len(head)}
    for row in rows:
        assert row[1] == families[int(row[0].replace("★", ""))]
    for file, number in (("trials.csv", len(families)), ("front.csv", len(rows))):
        told = read_csv(run.folder.path / file)
        assert len(told) == number
        assert all(line["family"] == families[int(line["trial"])] for line in told)
    on_front = [families[int(row[0].replace("★", ""))] for row in rows]
    for family in set(families.values()):
        counts = f"{on_front.count(family)} of {len(rows)} on the front"
        tried = f"{list(families.values()).count(family)} of {len(families)} trials"
        assert f"{family}: {counts}, {tried}" in page.text


@pytest.mark.parametrize(("space", "width_scale"), [("convmixer", 0.25), ("convmixer", 0.125), ("isotropic", 0.25)])
def test_the_page_says_whether_hand_designed_models_are_the_published_networks(
    tmp_path: Path, space: str, width_scale: float
) -> None:
    """ConvMixer-256/8 was made for images of 32 pixels and 10 classes; DeiT was not."""
    settings = SpaceSettings(resolution=32, num_classes=10, width_scale=width_scale)
    names = ("convmixer_256_8_p2_k5",) if space == "convmixer" else ("convmixer_256_8_p2_k5", "deit_tiny_patch16_224")
    run = make_run(tmp_path / "run", space=space, settings=settings.model_dump(), references=names, max_trials=1)
    text = read_page(write_report(run)).text
    are_published = all(run.space.references()[name] == zoo.get(name) for name in names)
    assert are_published == (space == "convmixer" and width_scale == 0.25)
    assert ("So they are not the published networks" in text) == (not are_published)
