"""The whole program: what it refuses, and what a search of seconds leaves."""

import csv
import json
import re
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from metaformer.architecture import Architecture
from metaformer.cost import count_cost
from nas.data import open_dataset
from nas.data.packing import pack
from nas.data.sources import open_source
from nas.make_study import make_study
from nas.record.run_folder import open_run
from nas.study.budget import Budget
from nas.study.recipe import Recipe
from nas.study.recipe_files import find_recipe
from nas.study.request import Request
from nas.study.study import Study
from tests.nas.conftest import GoodRun
from tests.nas.images import write_folder, write_image
from tests.nas.programs import QUICK, Outcome, lease_seconds, read_study, run_here, run_program
from tests.nas.results.pages import read_csv, read_page
from tests.nas.sets import write_cifar
from tests.thorough import with_all_strikes

starts_ray = pytest.mark.xdist_group("ray")

FORMS = "64gpu-days, 36gpu-hours or 90cpu-minutes"
SIZES = ((40, 30), (17, 33), (64, 64), (9, 50))
FORMATS = (("RGB", "jpg"), ("L", "png"), ("P", "png"), ("CMYK", "jpg"), ("RGBA", "png"), ("I;16", "png"))

Search = Callable[..., Outcome]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder of runs that does not exist yet."""
    return tmp_path / "runs"


@pytest.fixture
def search(runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Search:
    """The program, in this process, on the folder `runs`."""

    def run(*arguments: object) -> Outcome:
        return run_here("--runs", runs, *arguments, capsys=capsys, monkeypatch=monkeypatch)

    return run


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def check_refused(outcome: Outcome, message: str) -> None:
    """One line that says what is wrong, as a regular expression, nothing else, and exit code 2."""
    assert re.fullmatch(f"error: {message}\n", outcome.err), outcome.err
    assert outcome.out in ("", "starting workers …\n")
    assert outcome.code == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--space", "hybrid_stage"], "space: unknown name 'hybrid_stage'; known, nearest first: hybrid_stages.*"),
        (["--data", "digitz"], "dataset: unknown name 'digitz'; known, nearest first: digits, folder:PATH.*"),
        (["--data", "folder:/no/such"], "dataset: PATH of folder:PATH must be a folder, got '/no/such'"),
        (["--data", "folder"], "dataset: must be given as folder:PATH, got 'folder'"),
        (["--sampler", "tpee"], "sampler: unknown name 'tpee'; known, nearest first: tpe, .*reg.*"),
        (["--objectives", "accuracy,latancy"], "objectives: unknown name 'latancy'; known, nearest first: latency, .*"),
        (["--objectives", "params,macs"], "objectives: must be accuracy and at least one more, got params,macs"),
        (
            ["--max-latency", "3ms"],
            "max_latency: must be a limit on a measured objective of the study, got 'latency'; "
            "add it: --objectives accuracy,params,macs,latency",
        ),
        (["--objectives", "accuracy,latency", "--max-latency", "3"], "max_latency: must be a number above 0 and .*"),
        (["--limit", "latency"], "limit: must be NAME=VALUE, such as peak_memory=200MiB, got 'latency'"),
        (["--stopper", "nun"], "stopper: unknown name 'nun'; known, nearest first: none, chance, hypervolume, rank"),
        (["--deadline", "soon"], "deadline: must be a number above 0 and a unit such as 12h, 90m or 2d, got 'soon'"),
        (["--extend", "1cpu-hour"], "extend: must not be given beside --budget, got '1cpu-hour'"),
        (
            ["--references", "poolformer_s12,poolformer_s13"],
            "references: unknown name 'poolformer_s13'; known, nearest first: poolformer_s36, poolformer_s12, .*",
        ),
        (["--epochs", 0], "recipe.epochs: input should be greater than 0, got 0"),
        (["--batch-size", 0], "recipe.batch_size: input should be greater than 0, got 0"),
        (["--max-trials", 0], "max_trials: input should be greater than 0, got 0"),
        (["--workers", 0], "workers: input should be greater than 0, got 0"),
        (["--resolution", 4], "resolution: must be at least 8 pixels, got 4"),
        (["--width-scale", 3], "settings.width_scale: input should be less than or equal to 1, got 3.0"),
        (["--width-scale", 0.3], "settings.width_scale: must turn the head size 32 into a whole number, got 0.3"),
        (["--max-macs", "-5"], "max_macs: must be a number above 0, such as 12M or 1.8G, got '-5'"),
        (["--max-params", "12 millions"], "max_params: must be a number above 0, .*, got '12 millions'"),
        (
            ["--max-macs", "3k"],
            r"max_macs: must be at least [\d,]+ \(macs of the smallest architecture of hybrid_stages here\), got 3,000",
        ),
        (
            ["--max-params", 1],
            r"max_params: must be at least [\d,]+ \(params of the smallest architecture of .*\), got 1",
        ),
        (["--storage", "foo://x"], r"storage: must be a database that can be opened, got 'foo://x' \(.*\)"),
        (
            ["--storage", "sqlite:////no/such/study.db"],
            r"storage: must be a database that can be opened, got 'sqlite:////no/such/study.db' \(.*\)",
        ),
        (["--study", "/no/such.yaml"], r"study: must be .*, got '/no/such.yaml' \(.*\)"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line_before_anything_is_written(
    search: Search, runs: Path, arguments: list[object], message: str
) -> None:
    check_refused(search("--budget", "9cpu-seconds", *arguments), message)
    assert not runs.exists()


@pytest.mark.parametrize(
    "name", ["../x", "/no/x", ".", "..", "", "a/b", "a/", "x" * 256, "é" * 128, "a\nb", "\x1b[31m"]
)
def test_a_name_is_that_of_a_folder_among_the_runs(search: Search, runs: Path, name: str) -> None:
    rule = "name: must be that of one folder, without / and of at most 255 bytes, got '.*'; --runs says where it lies"
    outcome = search("--budget", "9cpu-seconds", "--name", name)
    check_refused(outcome, rule)
    assert len(outcome.err) < 300
    check_refused(search("--extend", "9cpu-seconds", "--name", name), rule)
    assert not list(runs.parent.iterdir())


def test_a_name_that_comes_of_the_data_is_no_longer_than_a_file_name(
    search: Search, runs: Path, tmp_path: Path
) -> None:
    counts = {"a": 2, "b": 2}
    runs.mkdir()
    root = write_folder(tmp_path / ("d" * 250), train=counts, val=counts)
    refused = search("--budget", "9cpu-seconds", "--data", f"folder:{root}", "--sampler", "tpee")
    check_refused(refused, "sampler: unknown name 'tpee'.*")
    check_refused(search("--budget", "9cpu-seconds", "--space", "../x"), "space: unknown name '../x'.*")
    assert not list(runs.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--budget", "64gpu-weeks"],
            f"budget: must be a number above 0 and a unit such as {FORMS}, got '64gpu-weeks'; nearest: 64gpu-days",
        ),
        (["--budget", "-3gpu-days"], f"budget: .*{FORMS}, got '-3gpu-days'; nearest: 3gpu-days"),
        (["--budget", "0"], f"budget: .*{FORMS}, got '0'; nearest: 1gpu-days"),
        (["--budget", "64 days of gpu"], f"budget: .*{FORMS}, got '64 days of gpu'; nearest: 64gpu-days"),
        ([], "budget: must be given, such as --budget 64gpu-days or --budget 6cpu-minutes, got none"),
    ],
)
def test_a_budget_that_cannot_be_read_is_answered_with_one_that_can(
    search: Search, runs: Path, arguments: list[object], message: str
) -> None:
    check_refused(search(*arguments), message)
    assert not runs.exists()


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        ({}, ["--resolution", 32], "settings.resolution: must be 16, as the study in .*, got 32; another --name .*"),
        ({}, ["--epochs", 77], "recipe.epochs: must be 20, as the study in .*, got 77; another --name .*"),
        ({}, ["--references", "none"], r"references: must be \['poolformer_s12', .*, got \[\]; another --name .*"),
        (
            {},
            ["--sampler", "random"],
            "sampler: must be 'exact_cost', as the study in .*, got 'random'; another --name .*",
        ),
        (
            {},
            ["--seed", 1],
            "seed: must be 0, as the study in .*/old has it, got 1; another --name starts another study",
        ),
        ({}, ["--objectives", "accuracy,macs"], r"objectives: must be \['accuracy', 'params', 'macs'\], as the .*"),
        ({"version": 2}, [], ".*/old/study.yaml: version: input should be 1, got 2"),
        ({"sede": 1}, [], ".*/old/study.yaml: sede: unknown name 'sede'; known, nearest first: seed, .*"),
        ({"recipe": {"epoch": 1}}, [], ".*: recipe.epoch: unknown name 'epoch'; known, nearest first: epochs, .*"),
        (
            {"data_fingerprint": "0" * 16},
            [],
            r"data: must hold what the study was made with \(fingerprint 0+\), got .*",
        ),
    ],
)
def test_a_run_of_another_study_is_not_gone_on_with(
    search: Search, runs: Path, changes: dict[str, object], arguments: list[object], message: str
) -> None:
    file = write_study(runs / "old", changes)
    before = file.read_bytes()
    check_refused(search("--budget", "9cpu-seconds", "--name", "old", *arguments), message)
    assert list(runs.rglob("*")) == [file.parent, file]
    assert file.read_bytes() == before


def write_study(folder: Path, changes: dict[str, object]) -> Path:
    """The study file of a run that has not begun, with other values for some fields."""
    study = make_study(Request(budget="9cpu-seconds"), {}, open_dataset("digits", resolution=16).info)
    fields = study.model_dump(mode="json")
    for key, value in changes.items():
        fields[key] = {**fields[key], **value} if isinstance(value, dict) else value
    folder.mkdir(parents=True)
    (folder / "study.yaml").write_text(yaml.safe_dump(fields), encoding="utf-8")
    return folder / "study.yaml"


@pytest.mark.slow
@starts_ray
def test_a_run_goes_on_by_its_own_fields_whatever_the_defaults_are_now(search: Search, runs: Path) -> None:
    changes = {
        "recipe": {"epochs": 2, "warmup_epochs": 1},
        "seed": 3,
        "references": [],
        "objectives": ["accuracy", "macs"],
    }
    write_study(runs / "old", changes)
    outcome = search("--budget", "9cpu-hours", "--max-trials", 1, "--name", "old")
    assert outcome.code == 0, outcome.err
    study = Study.from_file(runs / "old" / "study.yaml")
    assert (study.recipe.epochs, study.seed, study.objectives, study.max_trials) == (2, 3, ("accuracy", "macs"), 1)
    [trial] = read_study(runs / "old").trials
    assert len(trial.values) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", "study.*: must be a mapping of fields, got list.*"),
        ("{", "study.*: must be .*YAML.*"),
        ("version: 2", "version: input should be 1, got 2"),
        ("sede: 1", "sede: unknown name 'sede'; known, nearest first: seed, .*"),
        ("recipe: {epoch: 3}", "recipe.epoch: unknown name 'epoch'; known, nearest first: epochs, .*"),
        ("recipe: 3", "recipe: must be a mapping of fields, got 3"),
        ("settings: {resolution: big}", "settings.resolution: must be a whole number of pixels, got 'big'"),
        ("references: poolformer_s12", "references: must be a list of names, got 'poolformer_s12'"),
        ("data_fingerprint: abc", r"data: must hold what the study was made with \(fingerprint abc\), got 'digits' .*"),
    ],
)
def test_a_study_file_that_cannot_be_used_is_refused(
    search: Search, runs: Path, tmp_path: Path, text: str, message: str
) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(text, encoding="utf-8")
    check_refused(search("--budget", "9cpu-seconds", "--study", file), message)
    assert not runs.exists()


@starts_ray
def test_gpu_time_where_there_is_no_gpu_is_answered_with_what_would_work(
    search: Search, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    outcome = search("--budget", "64gpu-days")
    check_refused(outcome, r"budget: must be .*no GPU; with the .*CPU cores here --budget 6cpu-minutes would work")
    assert not runs.exists()


@pytest.mark.slow
def test_the_process_itself_ends_with_code_2(runs: Path, tmp_path: Path) -> None:
    outcome = run_program("--space", "hybrid", "--budget", "9cpu-seconds", "--runs", runs, logs=tmp_path / "logs")
    check_refused(outcome, "space: unknown name 'hybrid'; known, nearest first: hybrid.*")
    assert not runs.exists()


@starts_ray
def test_a_search_leaves_its_study_tables_architectures_and_report(good_run: GoodRun) -> None:
    assert good_run.outcome.code == 0, good_run.outcome.err
    left = {path.name for path in good_run.folder.iterdir()}
    assert left >= {
        "study.db",
        "study.yaml",
        "trials.csv",
        "curves.csv",
        "front.csv",
        "front",
        "report.html",
        "checkpoints",
        "run.log",
    }
    assert ".ray" not in left
    assert Study.from_file(good_run.folder / "study.yaml").max_trials == 3
    trials, front = (read_table(good_run.folder / name) for name in ("trials.csv", "front.csv"))
    assert [row["state"] for row in trials] == ["complete"] * 4
    epochs = read_table(good_run.folder / "curves.csv")
    assert len(epochs) == sum(int(row["epochs"]) for row in trials)
    for row in epochs:
        assert 0 <= float(row["val_accuracy"]) <= float(row["val_top5"]) <= 1
        assert 0 <= float(row["waiting"]) <= 1
        assert min(float(row["images_per_s"]), float(row["device_seconds"])) > 0
    assert [row["trial"] for row in trials if row["on_front"] == "True"] == sorted(row["trial"] for row in front)
    for row in front:
        text = (good_run.folder / row["architecture"]).read_text(encoding="utf-8")
        assert count_cost(Architecture.from_yaml(text)).macs == int(row["macs"])
    page = (good_run.folder / "report.html").read_text(encoding="utf-8")
    assert "poolformer_s12" in page
    assert re.search(r"<dt>Hardware</dt><dd>\d+ × .*, 1 thread</dd>", page)


@starts_ray
def test_json_is_all_that_goes_to_standard_output_and_agrees_with_the_tables(good_run: GoodRun) -> None:
    found = json.loads(good_run.outcome.out)
    assert "Pareto front" in good_run.outcome.err
    assert found["trials"]["complete"] == 4
    assert found["spent_device_seconds"] == pytest.approx(good_run.study.spent)
    rows = {row["trial"]: row for row in read_table(good_run.folder / "front.csv")}
    assert [str(member["trial"]) for member in found["front"]] == list(rows)
    for member in found["front"]:
        assert member["val_accuracy"] == float(rows[str(member["trial"])]["val_accuracy"])
    [reference] = found["references"]
    assert reference["names"] == ["poolformer_s12"]
    assert reference["trial"] == 0


@starts_ray
def test_each_trial_has_ended_with_the_values_of_its_architecture(good_run: GoodRun) -> None:
    space = Study.from_file(good_run.folder / "study.yaml").make_space()
    assert [trial.number for trial in good_run.study.trials] == [0, 1, 2, 3]
    assert [trial.state.name for trial in good_run.study.trials] == ["COMPLETE"] * 4
    digests = set()
    for trial in good_run.study.trials:
        arch = space.decode(trial.params)
        cost, curve = count_cost(arch), trial.user_attrs["progress"]["curve"]
        assert [report["epoch"] for report in curve] == [1, 2, 3, 4, 5, 6]
        assert trial.values == [curve[-1]["val_accuracy"], cost.params, cost.macs]
        assert cost.macs <= 800_000
        digests.add(arch.digest)
    assert len(digests) == 4
    first, *others = good_run.study.trials
    assert first.user_attrs["references"] == ["poolformer_s12"]
    assert space.decode(first.params) == space.references()["poolformer_s12"]
    assert all("references" not in trial.user_attrs for trial in others)


@starts_ray
def test_the_front_and_the_reference_are_tested_and_nothing_else_is(good_run: GoodRun) -> None:
    front = {member["trial"] for member in json.loads(good_run.outcome.out)["front"]}
    tested = {note.removeprefix("test_accuracy:") for note in good_run.study.notes if note.startswith("test_accuracy:")}
    assert tested == {str(number) for number in front | {0}}


@starts_ray
def test_no_more_device_time_is_charged_than_has_passed(good_run: GoodRun) -> None:
    assert 0 < good_run.study.spent < good_run.seconds
    for trial in good_run.study.trials:
        assert len(lease_seconds(trial)) == 1
        assert lease_seconds(trial)[0] > 0


@starts_ray
def test_the_same_command_again_starts_nothing_new(good_run: GoodRun, search: Search) -> None:
    outcome = search(*good_run.arguments)  # its own --runs comes last
    assert outcome.code == 0, outcome.err
    again = read_study(good_run.folder)
    assert again.results == good_run.study.results
    assert again.spent == good_run.study.spent
    assert json.loads(outcome.out) == json.loads(good_run.outcome.out)


@pytest.mark.slow
@starts_ray
def test_a_plan_says_what_the_budget_buys_and_writes_nothing(search: Search, runs: Path) -> None:
    outcome = search(*QUICK, "--stopper", "rank", "--budget", "2cpu-hours", "--plan", "--json")
    assert outcome.code == 0, outcome.err
    plan = json.loads(outcome.out)
    assert [rung["epochs"] for rung in plan["rungs"]] == [3, 6]  # from the end of the warm-up
    assert plan["most_macs"] == 800_000
    spent = plan["reference_seconds"] + plan["rungs"][0]["num_trials"] * plan["seconds_per_trial"]
    left = Budget.parse(re.findall(r"2cpu-hours, (\S+) left", outcome.err)[0]).seconds  # less what measuring took
    assert abs(spent - left) <= 2 * plan["seconds_per_trial"] + 18  # hours are shown to two digits
    assert spent <= 7200
    assert f"about {plan['rungs'][0]['num_trials']} trials of " in outcome.err
    assert not runs.exists()


@pytest.mark.slow
@starts_ray
def test_a_plan_of_a_run_starts_from_where_it_stands(good_run: GoodRun, search: Search) -> None:
    before = read_study(good_run.folder)
    outcome = search(*good_run.arguments, "--plan")
    assert json.loads(outcome.out)["reference_seconds"] == 0
    assert "measuring" not in outcome.err
    after = read_study(good_run.folder)
    assert (after.results, after.spent) == (before.results, before.spent)


@pytest.fixture
def spent_run(good_run: GoodRun, tmp_path: Path) -> Path:
    """A copy of the good run whose budget is what it has spent."""
    copy = shutil.copytree(good_run.folder, tmp_path / "copy")
    study = Study.from_file(copy / "study.yaml")
    budget = f"{good_run.study.spent:.1f}cpu-seconds"
    (copy / "study.yaml").write_text(study.model_copy(update={"budget": budget}).to_yaml(), encoding="utf-8")
    return copy


def budget_of(run: Path) -> float:
    return Budget.parse(Study.from_file(run / "study.yaml").budget).seconds


@pytest.mark.slow
@starts_ray
def test_an_extension_adds_to_the_budget_of_the_run_until_that_is_spent(
    spent_run: Path, good_run: GoodRun, search: Search
) -> None:
    options = ("--runs", spent_run.parent, "--name", spent_run.name, "--max-trials", 1000)
    budget, extension = budget_of(spent_run), 10
    while len((again := read_study(spent_run)).trials) == 4:  # the start of a slow worker may use all of it up
        outcome = search(*options, "--extend", f"{extension}cpu-seconds")
        assert outcome.code == 0, outcome.err
        budget, extension = budget + extension, 2 * extension
    assert budget_of(spent_run) == pytest.approx(budget)
    assert again.results[:4] == good_run.study.results
    assert {trial.state.name for trial in again.trials} <= {"COMPLETE", "PRUNED"}
    reasons = {trial.user_attrs["reason"] for trial in again.trials if trial.state.name == "PRUNED"}
    assert reasons <= {"the budget was spent before its last epoch"}
    space = Study.from_file(spent_run / "study.yaml").make_space()
    begun = [trial for trial in again.trials if "home" not in trial.user_attrs]  # not those that go on
    digests = [space.decode(trial.params).digest for trial in begun]
    assert len(set(digests)) == len(digests)
    assert {trial.user_attrs.get("home", trial.number) for trial in again.trials} == {t.number for t in begun}
    check_refused(
        search(*options, "--extend", "1gpu-hour"), "extend: must be CPU time, as the budget is, got '1gpu-.*'"
    )
    testing = again.overhead - good_run.study.overhead
    longest = max(testing, *(seconds for trial in again.trials[4:] for seconds in lease_seconds(trial)))
    assert good_run.study.spent < again.spent < budget + longest  # no lease begins when it is spent


def test_only_a_run_that_exists_can_be_extended(search: Search) -> None:
    outcome = search("--name", "none", "--extend", "1cpu-hour")
    check_refused(outcome, r"run: must be a folder with a study.yaml, got '.*/none'")


@pytest.mark.slow
@starts_ray
def test_at_the_deadline_running_trials_report_and_can_go_on(search: Search, runs: Path) -> None:
    for deadline in ("3s", "60s", "1200s"):  # on a slow machine it may come before any trial has begun
        outcome = search(
            *QUICK, "--budget", "99cpu-days", "--epochs", 100_000, "--name", "late", "--deadline", deadline
        )
        assert outcome.code == 0, outcome.err
        assert "the deadline has come" in " ".join(outcome.out.split())
        study = read_study(runs / "late")
        if study.trials:
            break
    assert [trial.state.name for trial in study.trials] == ["RUNNING"]
    [lease] = study.trials[0].user_attrs["progress"]["leases"]
    assert lease["end"] == "interrupted"
    assert 0 < len(study.trials[0].user_attrs["progress"]["curve"]) < 100_000


@pytest.mark.slow
@starts_ray
def test_losses_that_are_not_finite_are_recorded_with_their_reason_and_end_the_search_after_ten(
    search: Search, runs: Path, tmp_path: Path
) -> None:
    file = tmp_path / "wild.yaml"
    file.write_text("recipe: {lr_per_1024: 1.0e+30, epochs: 1, warmup_epochs: 0}", encoding="utf-8")
    outcome = search(*QUICK, "--epochs", 1, "--study", file, "--name", "wild")
    assert outcome.code == 2, outcome.err
    message = "10 trials failed one after another, the last with: loss: must stay finite, got nan"
    assert outcome.err == f"error: search: must have trials that work; {message}\n"
    study = read_study(runs / "wild")
    assert [trial.state.name for trial in study.trials] == ["FAIL"] * 10
    for trial in study.trials:
        assert trial.user_attrs["reason"] == "loss: must stay finite, got nan"
        assert [lease["end"] for lease in trial.user_attrs["progress"]["leases"]] == ["failed"]
    assert "0 done, 0 running, 0 stopped, 10 failed" in " ".join(outcome.out.split())


def write_odd_images(root: Path) -> Path:
    """Three classes of 12 images of every format and of odd sizes for training, four for testing."""
    seed = 0
    for part, count in (("train", 12), ("val", 4)):
        for name in ("cat", "dog", "hen"):
            for number in range(count):
                mode, suffix = FORMATS[number % len(FORMATS)]
                size = SIZES[seed % len(SIZES)]
                write_image(root / part / name / f"{number}.{suffix}", size=size, mode=mode, seed=seed)
                seed += 1
    return root


@pytest.mark.slow
@starts_ray
def test_a_folder_of_images_of_odd_sizes_and_modes_ends_with_a_front(
    search: Search, runs: Path, tmp_path: Path
) -> None:
    data = write_odd_images(tmp_path / "images")
    small = ("--resolution", 32, "--epochs", 1, "--batch-size", 8, "--width-scale", 0.125, "--max-macs", "1M")
    limits = ("--references", "none", "--max-trials", 2, "--budget", "9cpu-hours", "--workers", 1)
    outcome = search("--data", f"folder:{data}", *small, *limits, "--json")
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    assert found["folder"] == str(runs / "hybrid_stages-images")
    assert found["trials"]["complete"] == 2
    assert found["front"]
    for member in found["front"]:
        assert 0 <= member["val_accuracy"] <= 1
        assert 0 <= member["test_accuracy"] <= 1


@starts_ray
@pytest.mark.slow
def test_a_folder_is_decoded_once_into_a_cache_and_the_same_command_goes_on(
    search: Search, runs: Path, tmp_path: Path
) -> None:
    data, cache = write_odd_images(tmp_path / "kept"), tmp_path / "cache"
    small = ("--resolution", 32, "--epochs", 1, "--batch-size", 8, "--width-scale", 0.125, "--max-macs", "1M")
    limits = ("--references", "none", "--budget", "9cpu-hours", "--workers", 1)
    for num_trials in (1, 2):
        asked = ("--data", f"folder:{data}", "--cache", cache, *small, *limits, "--max-trials", num_trials, "--json")
        outcome = search(*asked)
        assert outcome.code == 0, outcome.err
        found = json.loads(outcome.out)
        assert found["folder"] == str(runs / "hybrid_stages-kept")
        assert found["trials"]["complete"] == num_trials
    [copy] = cache.iterdir()
    assert Study.from_file(runs / "hybrid_stages-kept/study.yaml").data == f"prepared:{copy}"


@starts_ray
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["prepared", "torch"])
def test_a_prepared_set_and_a_set_by_name_end_with_a_front(
    search: Search, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The workers find them too, also where the environment names the folder."""
    monkeypatch.setenv("NAS_DATA", str(write_cifar(tmp_path / "sets", "cifar10")))
    data = "torch/cifar10"
    if kind == "prepared":
        out = tmp_path / "small"
        pack(open_source(data), out, resolution=32, side=32, num_workers=1, bad_images="stop")
        data = f"prepared:{out}"
    small = ("--epochs", 1, "--batch-size", 8, "--width-scale", 0.125, "--max-macs", "1M")
    limits = ("--references", "none", "--max-trials", 2, "--budget", "9cpu-hours", "--workers", 1)
    outcome = search("--data", data, *small, *limits, "--json")
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    assert found["folder"] == str(runs / f"hybrid_stages-{'small' if kind == 'prepared' else 'cifar10'}")
    assert found["trials"]["complete"] == 2
    assert found["front"]


@starts_ray
@pytest.mark.slow
@pytest.mark.parametrize(
    "space", ["t2t_vit", *(pytest.param(name, marks=with_all_strikes) for name in ("convmixer", "isotropic"))]
)
def test_a_space_of_one_stage_ends_with_a_front_of_its_architectures(search: Search, runs: Path, space: str) -> None:
    small = ("--epochs", 2, "--batch-size", 256, "--stopper", "none")
    limits = ("--max-trials", 3, "--budget", "9cpu-hours", "--workers", 1)
    outcome = search("--space", space, *small, *limits, "--json")
    assert outcome.code == 0, outcome.err
    assert "the default of digits; patches of 1, 2 or 4 pixels, widths times 0.0625" in " ".join(outcome.err.split())
    found = json.loads(outcome.out)
    folder = runs / f"{space}-digits"
    assert found["folder"] == str(folder)
    assert found["trials"]["complete"] == 3
    assert found["front"]
    fitted = Study.from_file(folder / "study.yaml").make_space()
    for member in found["front"]:
        arch = Architecture.from_yaml((folder / member["architecture"]).read_text(encoding="utf-8"))
        assert fitted.contains(arch)
        assert count_cost(arch).macs == member["macs"]


@starts_ray
@pytest.mark.slow
def test_a_union_of_spaces_ends_with_one_front_and_a_report_of_its_families(search: Search, runs: Path) -> None:
    small = ("--epochs", 2, "--batch-size", 256, "--stopper", "none", "--references", "none")
    limits = ("--max-trials", 5, "--budget", "9cpu-hours", "--workers", 1, "--sampler", "random")
    outcome = search("--space", "hybrid_stages+convmixer", *small, *limits, "--json")
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    folder = runs / "hybrid_stages+convmixer-digits"
    assert found["folder"] == str(folder)
    assert found["trials"]["complete"] == 5
    assert found["front"]
    trials = read_csv(folder / "trials.csv")
    assert {trial["family"] for trial in trials} == {"hybrid_stages", "convmixer"}
    for trial in trials:
        assert (trial["family"] == "convmixer") == ("|" not in trial["mixers"])
    assert "family" in read_page(folder / "report.html").tables["front"][0]


@starts_ray
@pytest.mark.slow
def test_short_trainings_on_photographs_have_a_recipe_of_their_own_and_finals_the_whole_one(
    search: Search, runs: Path, tmp_path: Path
) -> None:
    images = write_folder(
        tmp_path / "images", train=dict.fromkeys("ab", 300), val=dict.fromkeys("ab", 20), size=(32, 32)
    )
    asked = ("--data", f"folder:{images}", "--budget", "40cpu-seconds", "--name", "short")
    outcome = search(*asked)
    assert outcome.code == 0, outcome.err
    assert "by the recipe cifar10_proxy" in outcome.out
    assert "recipe   cifar10_proxy, for short trainings: " in outcome.out
    run = open_run(runs / "short")
    with closing(run.record):
        whole = run.record.notes.whole_recipe
    assert run.study.recipe.augmentation == find_recipe("cifar10_proxy").augmentation
    assert run.study.recipe.epochs < 30
    assert whole == Recipe()
