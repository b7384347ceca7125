"""Runs from Python: the same values as the report's files, the same errors as the programs'."""

import inspect
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import get_type_hints

import pandas as pd
import plotly.graph_objects as go
import pytest
import torch
from optuna.exceptions import StorageInternalError

import metaformer
import nas
from metaformer.errors import UserError
from nas.record.run_folder import Run
from nas.record.trials import TrialRecord, TrialState
from nas.results.picks import pick_trial
from nas.results.report_files import write_report
from nas.results.results import Results
from nas.search import search
from nas.study.lease import WEIGHTS
from tests.nas.programs import QUICK
from tests.nas.runs import make_run, make_study, open_folder

starts_ray = pytest.mark.xdist_group("ray")


def trained(trial: TrialRecord) -> torch.nn.Module:
    """The network of a trial, with the same weights at each call."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return metaformer.build(trial.architecture)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that ended, with its report, and the weights of its best trial."""
    made = make_run(tmp_path_factory.mktemp("runs") / "a & b", max_trials=8)
    best = pick_trial(made, "best")
    state = {"version": 1, "digest": best.architecture.digest, "epoch": 3, "model": trained(best).state_dict()}
    made.folder.checkpoints_of(best).save(WEIGHTS, partial(torch.save, state), attempt=1)
    write_report(made)
    made.record.close()
    return made


@pytest.fixture(scope="module")
def opened(run: Run) -> nas.OpenedRun:
    return nas.open_run(run.folder.path)


def test_the_frames_are_the_tables_of_the_report(run: Run, opened: nas.OpenedRun) -> None:
    files = {
        run.folder.front_csv: opened.front,
        run.folder.trials_csv: opened.trials,
        run.folder.curves_csv: opened.curves,
    }
    for path, frame in files.items():
        assert frame.to_csv(index=False) == path.read_text(encoding="utf-8")
    assert isinstance(opened.front, pd.DataFrame)
    assert list(opened.front["trial"]) == [trial.number for trial in Results(run).front]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["front", "space", "macs-accuracy", "params-macs", "tiles", "shares", "curves"])
def test_a_figure_stands_without_the_page_around_it(opened: nas.OpenedRun, name: str) -> None:
    """The page makes the texts of its marks itself; a figure has them."""
    figure = opened.figure(name)
    assert isinstance(figure, go.Figure)
    assert all(trace.meta is None for trace in figure.data)
    for trace in figure.data:
        if trace.name == "other trials":
            assert len(trace.hovertext) == len(trace.x) == len(opened.results.others) > 0
        if trace.customdata is not None:
            assert all("val " in str(text) for text in trace.hovertext)


def test_a_model_is_that_of_the_trial_with_its_weights(run: Run, opened: nas.OpenedRun) -> None:
    best = pick_trial(run, "best")
    expected = trained(best).eval()
    x_BCHW = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for pick in ("best", best.number, str(best.number)):
        model = opened.model(pick)
        assert not model.training
        torch.testing.assert_close(model(x_BCHW), expected(x_BCHW), rtol=0, atol=0)


def test_weights_that_were_not_kept_are_an_error_of_one_line(run: Run, opened: nas.OpenedRun) -> None:
    number = next(trial.number for trial in run.record if trial.state is TrialState.FAILED)
    with pytest.raises(
        UserError, match=rf"^weights: must have been kept, .*; trial {number} \(failed\) has no .*\.pt$"
    ):
        opened.model(number)
    with pytest.raises(
        UserError, match=r"^pick: must be knee, best or the number of a trial, got '99'; trials are 0 to"
    ):
        opened.model(99)


def test_weights_that_run_code_are_not_loaded(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run.folder.path, folder)
    opened = nas.open_run(folder)
    best = pick_trial(opened.results.run, "best")
    path = Path(opened.results.run.folder.checkpoints_of(best).where(WEIGHTS))
    torch.save({"x": partial(print, "run")}, path)
    with pytest.raises(UserError, match=rf"^weights: must be those of trial {best.number}, got .*{WEIGHTS}"):
        opened.model("best")


def test_the_study_is_optunas_and_takes_nothing(run: Run, opened: nas.OpenedRun) -> None:
    assert len(opened.study.trials) == len(run.record.trials)
    before = run.folder.database.read_bytes()
    with pytest.raises(StorageInternalError):
        opened.study.set_user_attr("mine", 1)
    assert run.folder.database.read_bytes() == before


def test_a_notebook_shows_what_the_run_is(run: Run, opened: nas.OpenedRun) -> None:
    page = opened._repr_html_()
    assert "run a &amp; b" in page
    for text in ("hybrid_stages", "digits", f"{len(opened.front)} architectures"):
        assert text in page
        assert text in repr(opened)


def test_a_name_is_that_of_a_run_under_runs(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs").symlink_to(run.folder.path.parent)
    monkeypatch.chdir(tmp_path)
    assert nas.open_run("a & b").folder == Path("runs/a & b")


def test_a_run_without_complete_trials_has_no_figure(tmp_path: Path) -> None:
    run, _ = open_folder(tmp_path / "run", make_study())
    run.record.close()
    opened = nas.open_run(run.folder.path)
    assert len(opened.front) == len(opened.trials) == 0
    assert "best none yet" in repr(opened)
    with pytest.raises(UserError, match=r"^figure: must be of a run with a complete trial, got 0 trials$"):
        opened.figure()


def test_an_unknown_figure_or_run_is_refused_with_what_there_is(opened: nas.OpenedRun, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^figure: unknown name 'fronts'; known, nearest first: front, "):
        opened.figure("fronts")
    with pytest.raises(UserError, match=r"^run: must be a folder with a study.yaml, got .*; runs in .*: a & b$"):
        nas.open_run(opened.folder.parent / "a")
    with pytest.raises(UserError, match=r"^run: must be the path of a folder, or a name, got 5$"):
        nas.open_run(5)  # type: ignore[arg-type]


def test_a_search_takes_the_options_of_the_program() -> None:
    options = inspect.signature(nas.run_search).parameters
    kinds = {name: kind for name, kind in get_type_hints(search).items() if name != "return"}
    assert {name: option.annotation for name, option in options.items()} == kinds
    assert {"space", "data", "budget", "recipe", "set", "plan", "references", "seed"} <= set(options)


@pytest.mark.parametrize(
    ("begin", "message"),
    [
        (
            lambda: nas.run_search(bugdet="6cpu-minutes"),
            "option: unknown name 'bugdet'; known, nearest first: budget, ",
        ),
        (lambda: nas.run_search("hybrid_stages"), "arguments: must be given by name, such as .*, got 'hybrid_stages'$"),
        (lambda: nas.run_search(budget="6cpu"), "budget: must be a number above 0 and a unit such as .*, got '6cpu'"),
        (lambda: nas.run_search(epochs="many"), "epochs: .*, got 'many'$"),
        (lambda: nas.run_search(epochs=True), "epochs: must be a text or a number, got True$"),
        (lambda: nas.run_search(references=["a"]), r"references: must be a text or a number, got \['a'\]$"),
        (lambda: nas.run_search(loaders=999), "loaders: .*256, got '999'$"),
        (lambda: nas.run_search(plan="yes"), "plan: .*"),
        (lambda: nas.run_search(set=["recipe.epochs=0"], budget="6cpu-minutes"), "recipe.epochs: .*, got 0$"),
        (lambda: nas.run_search(set=["x"], budget="6cpu-minutes"), "set: must be recipe.FIELD=VALUE, .*, got 'x'$"),
        (lambda: nas.run_search(limit="x", budget="6cpu-minutes"), "limit: must be NAME=VALUE, .*, got 'x'$"),
    ],
)
def test_a_search_from_python_refuses_what_the_program_refuses(
    begin: Callable[[], nas.OpenedRun], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"^{message}"):
        begin()
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@starts_ray
def test_a_search_from_python_is_that_of_the_program(tmp_path: Path) -> None:
    options = dict(zip((name.removeprefix("--").replace("-", "_") for name in QUICK[::2]), QUICK[1::2], strict=True))
    options |= {"runs": tmp_path, "name": "mine", "max_trials": 1, "epochs": 1}
    options["set"] = ["recipe.warmup_epochs=0", *([options["set"]])]
    planned = nas.run_search(**options, plan=True)
    assert repr(planned) == "<run 'mine': state not begun>"
    assert not planned.folder.exists()
    run = nas.run_search(**options)
    assert run.folder == planned.folder == tmp_path / "mine"
    assert list(run.trials["state"]) == ["complete", "complete"]
    assert run.trials["reference"][0] == "poolformer_s12"
    again = nas.run_search(**options)
    assert again.trials.equals(run.trials)
    member = int(run.front["trial"][0])
    assert not run.model(member).training
