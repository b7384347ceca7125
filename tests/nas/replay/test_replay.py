"""Replays of a small run: recorded curves come back as they were, and what is said adds up."""

import json
from pathlib import Path

import numpy as np
import pytest

from metaformer.errors import UserError
from nas.record.run_folder import Run
from nas.record.trials import TrialState
from nas.replay import replay
from nas.replay.settings import Settings
from nas.replay.surrogate import RunCurves
from nas.replay.virtual import Replays
from tests.nas.runs import make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("runs") / "small", max_trials=40, stopper="hypervolume")


@pytest.fixture(scope="module")
def replays(run: Run) -> Replays:
    return Replays(run, Settings(sampler="regularized_evolution", stopper="none", devices=2, max_trials=16))


def test_what_was_recorded_comes_back(run: Run) -> None:
    curves = RunCurves(run)
    for trial in run.record:
        if trial.state is TrialState.COMPLETE:
            own = [report.val_accuracy for report in trial.progress.curve]
            found = curves.curve(trial.architecture)
            np.testing.assert_allclose(found.val_accuracies, np.clip(own, 1e-4, 1 - 1e-4), atol=1e-9)
            assert found.epoch_seconds == pytest.approx(trial.device_seconds / trial.num_epochs)


def test_what_was_stopped_begins_as_it_did_and_goes_to_the_end(run: Run) -> None:
    curves, epochs = RunCurves(run), run.study.recipe.epochs
    stopped = [trial for trial in run.record if trial.state is TrialState.STOPPED and trial.progress.curve]
    assert stopped
    for trial in stopped:
        found = curves.curve(trial.architecture).val_accuracies
        own = [report.val_accuracy for report in trial.progress.curve]
        np.testing.assert_allclose(found[: len(own)], own, atol=2e-4)
        assert len(found) == epochs


def test_the_lines_are_the_run_its_own_settings_and_those_asked_for(run: Run, replays: Replays) -> None:
    recorded, own, asked = replays.searches
    assert (recorded.sampler, own.sampler, asked.sampler) == ("random", "random", "regularized_evolution")
    assert recorded.num_trials == own.num_trials == len(run.record.trials)
    assert asked.num_complete == asked.num_trials  # nothing is stopped
    assert own.num_recorded > own.num_trials / 2  # the same seed begins with the same architectures
    assert [line.num_duplicates for line in replays.searches] == [0, 0, 0]
    for line in replays.searches:
        volumes = [found.hypervolume for found in line.progress]
        assert volumes == sorted(volumes)
        assert line.at(2 * line.progress[-1].device_seconds) is None
    assert asked.seconds is not None
    assert asked.progress[-1].device_seconds <= 2 * asked.seconds + 1e-6


@pytest.mark.slow
def test_a_replay_is_the_same_again(run: Run, replays: Replays) -> None:
    asked = Settings(sampler="regularized_evolution", stopper="none", devices=2, max_trials=16)
    assert Replays(run, asked).searches == replays.searches


@pytest.mark.slow
def test_the_program_prints_the_tables_and_json(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(run.folder.path)
    replay(path, stopper="rank", max_trials=8)
    shown = " ".join(capsys.readouterr().out.split())
    assert "Kendall's tau" in shown
    assert "Not shown: accuracies above the best recorded" in shown
    replay(path, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert [search["name"] for search in found["searches"]] == ["the run", "replay"]  # with no other settings
    assert found["error_points"] > 0


def test_what_cannot_be_replayed_is_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"budget: must be CPU time, as the run's is, got '2gpu-days'"):
        Replays(run, Settings(budget="2gpu-days"))
    free = run.study.model_copy(update={"max_trials": None})
    with pytest.raises(UserError, match=r"budget: must pay for 20,000 trials at most in a replay"):
        Replays(Run(run.folder, free, run.space, run.record), Settings(budget="20cpu-days"))
    few = make_run(tmp_path / "few", max_trials=4, references=())
    with pytest.raises(UserError, match=r"run: must have 12 complete architectures at least, got \d"):
        Replays(few, Settings())
