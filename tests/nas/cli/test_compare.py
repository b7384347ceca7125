"""Several runs side by side: what is said of them, and which runs cannot be compared."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from metaformer.errors import UserError
from nas.compare import compare
from nas.record.run_folder import Run, RunFolder, open_run
from nas.results.comparison.comparison import Comparison
from nas.results.comparison.figures import charts_of
from nas.results.results import Results
from nas.results.uncertainty import CLEAR
from nas.session.pareto import HypervolumeScale, dominates
from tests.nas.results.pages import read_page
from tests.nas.runs import make_run

MARKUP = "<b>mine"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of which `long` and the one with markup in its name may be compared, and some that are of other kinds."""
    root = tmp_path_factory.mktemp("runs")
    changes: dict[str, dict[str, object]] = {
        "long": {"max_trials": 12},
        MARKUP: {"max_trials": 5, "seed": 3, "sampler": "nsga2"},
        "space": {"max_trials": 4, "space": "isotropic", "references": ()},
        "objectives": {"max_trials": 2, "objectives": ("accuracy", "latency")},
        "data": {"max_trials": 2, "data_fingerprint": "fedcba9876543210"},
        "splitting": {"max_trials": 2, "splitting": {"val": 0.2}},
        "failed": {"max_trials": 2, "references": (), "fail_every": 1},
    }
    changes["space"]["settings"] = {"resolution": 32, "num_classes": 10, "width_scale": 0.125}
    for name, change in changes.items():
        make_run(root / name, **change).record.close()  # type: ignore[arg-type]
    return root


@pytest.fixture(scope="module")
def names(runs: Path) -> tuple[str, str]:
    return "long", MARKUP


@pytest.fixture(scope="module")
def both(runs: Path, names: tuple[str, str]) -> Comparison:
    return Comparison([opened(runs / name) for name in names])


def opened(path: Path) -> Run:
    run = open_run(path)
    run.record.close()
    return run


def test_the_joint_front_is_that_of_all_trials(both: Comparison) -> None:
    everyone = [(place, trial) for place, results in enumerate(both.runs) for trial in results.complete]
    points = [both.goals.values(trial) for _, trial in everyone]
    expected = {
        (place, trial.number)
        for (place, trial), point in zip(everyone, points, strict=True)
        if not any(dominates(other, point, both.goals) for other in points)
    }
    assert {(member.run, member.trial.number) for member in both.front} == expected


def test_hypervolume_grows_with_device_time_to_that_of_the_front(both: Comparison) -> None:
    for place, results in enumerate(both.runs):
        points = both.progress(place)
        assert points == sorted(points)
        assert points[0] == (0.0, 0.0)
        seconds, hypervolume = points[-1]
        assert seconds == pytest.approx(sum(trial.device_seconds for trial in results.trials))
        assert hypervolume == pytest.approx(both.hypervolume(place))


def test_runs_of_one_space_have_its_scale(both: Comparison) -> None:
    space = both.runs[0].run.space
    assert both.scale == HypervolumeScale.of(space, both.goals)
    assert both.hypervolume(0) == pytest.approx(both.runs[0].hypervolume)


@pytest.mark.slow
def test_runs_of_several_spaces_have_one_scale_that_holds_both(runs: Path) -> None:
    mixed = Comparison([opened(runs / "long"), opened(runs / "space")])
    assert mixed.scale is not None
    for results in mixed.runs:
        own = HypervolumeScale.of(results.run.space, mixed.goals)
        for wide, narrow in zip(mixed.scale.bounds, own.bounds, strict=True):
            assert (wide is None) == (narrow is None)
            assert wide is None or narrow is None or (wide[0] <= narrow[0] and narrow[1] <= wide[1])
    assert {"space", "references", "max_trials"} <= {difference.field for difference in mixed.differences}


def test_dominated_is_said_only_where_it_is_clear(both: Comparison) -> None:
    """Each verdict again from the model of all trials, one rival after another."""
    assert both.uncertainty is not None
    for standing in both.standings:
        front = {trial.number: trial for trial in both.runs[standing.second].front}
        for trial in standing.dominated:
            values = both.goals.values(trial)
            rivals = [both.goals.values(other) for other in both.runs[standing.first].complete]
            assert any(all(c <= d for c, d in zip(rival[1:], values[1:], strict=True)) for rival in rivals)
            assert both._p_dominated(standing.second, trial, by=standing.first) >= CLEAR
        for trial in standing.tied:
            assert 1 - CLEAR < both._p_dominated(standing.second, trial, by=standing.first) < CLEAR
        listed = {trial.number for trial in (*standing.dominated, *standing.tied)}
        assert listed <= set(front)
        assert standing.num_members == len(front)


def test_one_architecture_trained_by_two_recipes_is_no_replicate(runs: Path, tmp_path: Path) -> None:
    """The hand-designed models are in both runs."""
    path = tmp_path / "recipe"
    recipe = opened(runs / "long").study.recipe.model_copy(update={"batch_size": 32})
    make_run(path, max_trials=3, recipe=recipe.model_dump()).record.close()
    alike = Comparison([opened(runs / "long"), opened(runs / MARKUP)]).uncertainty
    unlike = Comparison([opened(runs / "long"), opened(path)]).uncertainty
    own = Results(opened(runs / "long")).uncertainty
    assert alike is not None
    assert unlike is not None
    assert own is not None
    assert alike.num_replicates > own.num_replicates
    assert unlike.num_replicates == own.num_replicates


@pytest.mark.slow
def test_settings_that_differ_are_listed(
    runs: Path, names: tuple[str, str], both: Comparison, capsys: pytest.CaptureFixture[str]
) -> None:
    assert [(row.field, row.values) for row in both.differences] == [
        ("sampler", ("random", "nsga2")),
        ("seed", (0, 3)),
        ("max_trials", (12, 5)),
    ]
    compare([str(runs / name) for name in names])
    lines = capsys.readouterr().out.splitlines()
    assert f"  sampler: long random; {names[1]} nsga2" in lines
    assert sum("of the front of" in line for line in lines) == 2


def test_runs_of_one_name_are_told_by_their_paths(runs: Path, tmp_path: Path) -> None:
    make_run(tmp_path / "long", max_trials=1).record.close()
    paths = (runs / "long", tmp_path / "long")
    assert Comparison([opened(path) for path in paths]).names == tuple(map(str, paths))


def test_the_page_needs_nothing_else_and_escapes_names(
    runs: Path, names: tuple[str, str], both: Comparison, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "compare.html"
    compare([str(runs / name) for name in names], out=out)
    assert capsys.readouterr().out.splitlines()[-1] == str(out)
    text = out.read_text(encoding="utf-8")
    assert "<b>" not in text
    assert "src=" not in text.partition("<script>")[0]
    page = read_page(out)
    assert len(page.tables["runs"]) == 3
    assert [row[0] for row in page.tables["differences"][1:]] == ["sampler", "seed", "max_trials"]
    assert len(page.tables["front"]) == 1 + len(both.front)
    charts = {chart.name: chart.figure for chart in charts_of(both)}
    assert set(charts) == {"params-accuracy", "macs-accuracy", "hypervolume"}
    marks = [trace for trace in charts["params-accuracy"].data if trace.mode == "markers"]
    assert [len(trace.x) for trace in marks] == [len(results.front) for results in both.runs]
    assert all(len(trace.error_y.array) == len(trace.x) for trace in marks)
    with pytest.raises(UserError, match="out: must be a new file, or take --force"):
        compare([str(runs / name) for name in names], out=out)


def test_the_json_says_the_same(
    runs: Path, names: tuple[str, str], both: Comparison, capsys: pytest.CaptureFixture[str]
) -> None:
    compare([str(runs / name) for name in names], as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert [run["run"] for run in found["runs"]] == list(names)
    assert [run["hypervolume"] for run in found["runs"]] == [both.hypervolume(place) for place in (0, 1)]
    assert found["differences"]["seed"] == {names[0]: 0, names[1]: 3}
    assert len(found["joint_front"]) == len(both.front)


def test_a_run_in_which_all_failed_can_stand_beside_another(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compare([str(runs / "long"), str(runs / "failed")], out=tmp_path / "compare.html")
    assert "The front of failed has no members yet." in capsys.readouterr().out
    make_run(tmp_path / "also", max_trials=1, references=(), fail_every=1).record.close()
    compare([str(runs / "failed"), str(tmp_path / "also")], out=tmp_path / "none.html")
    assert not read_page(tmp_path / "none.html").scripts


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            "objectives",
            "objectives: must be accuracy,params,macs, as long has it, got accuracy,latency in objectives",
        ),
        ("data", r"data: must be digits \(0123.*\), as long has it, got digits \(fedc.*\) in data; such runs cannot"),
        ("splitting", "splitting.val: must be 0.1, as long has it, got 0.2 in splitting; such runs cannot be compared"),
        ("long", "runs: must be different ones, got '.*/long' twice$"),
        ("nothing", "run: must be a folder with a study.yaml, got .*nothing'; runs in "),
    ],
)
def test_runs_that_cannot_be_compared_are_refused_with_the_reason(runs: Path, other: str, message: str) -> None:
    with pytest.raises(UserError, match=f"^{message}"):
        compare([str(runs / "long"), str(runs / other)])


def test_a_copy_of_a_run_is_the_same_run(runs: Path, tmp_path: Path) -> None:
    run = open_run(runs / "long")
    study = run.study.model_copy(update={"identity": "0123"})
    copy = RunFolder(tmp_path / "copy")
    pair = [replace(run, study=study), replace(run, study=study, folder=copy)]
    with pytest.raises(UserError, match="^runs: must be different ones, got '.*/copy' twice, which '.*/long' is too$"):
        Comparison(pair)


def test_one_run_alone_is_refused(runs: Path) -> None:
    with pytest.raises(UserError, match="^runs: must be two at least, got 1$"):
        compare([str(runs / "long")])
