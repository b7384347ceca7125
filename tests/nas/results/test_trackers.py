"""Trackers: each of the three by its own package where that is installed, and what a search does when one fails."""

import importlib.util
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from metaformer.errors import UserError
from nas.record.notes import EventKind
from nas.record.run_folder import Run
from nas.results import trackers
from nas.results.tables.frames import curve_values
from nas.results.trackers import Facts, Messenger, Tracker, TrialFeed, check_tracker, make_tracker, tracked
from nas.session.session import Session
from nas.study.lease import Metrics, Report
from tests.nas.runs import fill, make_study, open_folder

ALL = ("tensorboard", "wandb", "mlflow")


class Notebook(Tracker):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []

    def begin(self, name: str, facts: Facts) -> None:
        self.told.append(("begin", name, facts["params"]))

    def log(self, name: str, epoch: int, values: Mapping[str, float]) -> None:
        self.told.append((name, epoch, values["val_accuracy"]))

    def end(self, name: str) -> None:
        self.told.append(("end", name))


class Unreachable(Notebook):
    """Fails at the third epoch."""

    def log(self, name: str, epoch: int, values: Mapping[str, float]) -> None:
        if epoch == 3:
            raise ConnectionError("no route\nto host")
        super().log(name, epoch, values)


class Silent(Notebook):
    """Never comes back from its first epoch, unless it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.released = threading.Event()

    def log(self, name: str, epoch: int, values: Mapping[str, float]) -> None:
        self.released.wait()


def new_search(folder: Path) -> tuple[Run, Session]:
    return open_folder(folder, make_study(max_trials=4, references=(), stopper="none"))


def search_with(tracker: Tracker, folder: Path) -> Run:
    """A search that ended, whose trials a tracker was told of."""
    run, session = new_search(folder)
    feed = TrialFeed(session, Messenger(tracker))
    fill(session)
    feed.close()
    assert [str(trial.state) for trial in run.record] == ["complete"] * 4
    return run


def points(run: Run) -> dict[str, list[tuple[int, float]]]:
    """Epochs and accuracies of each trial, as a tracker names it."""
    return {
        f"trial_{trial.number:05d}": [(report.epoch, report.val_accuracy) for report in trial.progress.curve]
        for trial in run.record
    }


def test_a_tracker_is_told_each_epoch_of_each_trial_once_and_in_order(tmp_path: Path) -> None:
    notebook = Notebook()
    run = search_with(notebook, tmp_path / "run")
    expected: list[tuple[object, ...]] = []
    for (name, curve), trial in zip(points(run).items(), run.record, strict=True):
        expected += [("begin", name, trial.params), *((name, *point) for point in curve), ("end", name)]
    assert notebook.told == expected
    assert run.record.notes.events == ()


def test_of_a_trial_that_was_there_before_only_new_epochs_are_told(tmp_path: Path) -> None:
    run, session = new_search(tmp_path / "run")
    trial = run.record.start(next(iter(run.space.references().values())))
    epochs = [Report(epoch=epoch, val_accuracy=epoch / 4, train_loss=1.0, checkpoint="x") for epoch in (1, 2, 3)]
    trial.add_epoch(epochs[0])
    notebook = Notebook()
    feed = TrialFeed(session, Messenger(notebook))
    trial.add_epoch(epochs[1])
    feed.update()
    trial.add_epoch(epochs[0])  # a checkpoint could not be read: it is trained again
    feed.update()
    trial.add_epoch(epochs[1])
    trial.add_epoch(epochs[2])
    feed.close()
    assert notebook.told[1:] == [("trial_00000", 2, 0.5), ("trial_00000", 3, 0.75), ("end", "trial_00000")]


def test_metrics_are_told_and_what_was_not_measured_is_not(tmp_path: Path) -> None:
    run, _ = new_search(tmp_path / "run")
    trial = run.record.start(next(iter(run.space.references().values())))
    report = Report(epoch=1, val_accuracy=0.5, train_loss=2.0, checkpoint="x")
    trial.add_epoch(report, Metrics(epoch=1, val_top5=0.9, images_per_s=80.0, waiting=0.25))
    told: list[Mapping[str, float]] = []

    class Values(Notebook):
        def log(self, name: str, epoch: int, values: Mapping[str, float]) -> None:
            told.append(values)

    messenger = Messenger(Values())
    messenger.log("x", curve_values(trial)[0])
    messenger.close()
    assert told == [{"val_accuracy": 0.5, "train_loss": 2.0, "val_top5": 0.9, "images_per_s": 80.0, "waiting": 0.25}]


def test_a_tracker_that_fails_is_noted_once_and_the_search_goes_on(tmp_path: Path) -> None:
    run = search_with(Unreachable(), tmp_path / "run")
    [event] = run.record.notes.events
    assert event.kind is EventKind.TRACKER
    assert event.text == "the tracker was not told all: ConnectionError: no route to host"


def test_a_tracker_that_does_not_answer_holds_no_search_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "_LAST_SECONDS", 0.01)
    tracker = Silent()
    run = search_with(tracker, tmp_path / "run")
    assert [event.text for event in run.record.notes.events] == ["the tracker was not told all: no answer for 0.01 s"]
    tracker.released.set()


def test_no_tracker_is_told_nothing(tmp_path: Path) -> None:
    _, session = new_search(tmp_path / "run")
    for name in (None, "none"):
        assert make_tracker(name, folder=tmp_path, group="run") is None
        with tracked(session, name, folder=tmp_path, group="run") as tell:
            tell()


def test_an_unknown_tracker_is_one_line_with_those_that_are_known() -> None:
    with pytest.raises(UserError, match="^tracker: unknown name 'wand'; known, nearest first: wandb, "):
        check_tracker("wand")


@pytest.mark.parametrize("name", ALL)
def test_a_package_that_is_missing_is_one_line_with_what_to_install(name: str) -> None:
    if importlib.util.find_spec(name) is not None:
        pytest.skip(f"{name} is installed")
    with pytest.raises(UserError, match=f"^tracker: must have its package, got none for {name}; python -m pip install"):
        check_tracker(name)


def search_told_to(name: str, folder: Path) -> Run:
    """A search that ended, with one of the real trackers."""
    run, session = new_search(folder)
    with tracked(session, name, folder=folder, group="a run") as tell:
        fill(session)
        tell()
    assert run.record.notes.events == ()
    return run


def test_tensorboard_reads_back_every_epoch(tmp_path: Path) -> None:
    """TensorBoard's own reader is the oracle."""
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = search_told_to("tensorboard", tmp_path / "run")
    for name, curve in points(run).items():
        events = EventAccumulator(str(run.folder.path / "tensorboard" / name)).Reload()
        read = [(event.step, event.value) for event in events.Scalars("val_accuracy")]
        assert read == [(epoch, pytest.approx(accuracy)) for epoch, accuracy in curve]
        [text] = events.Tensors("hyperparameters/text_summary")
        assert b"params: " in text.tensor_proto.string_val[0]


@pytest.mark.filterwarnings("ignore")  # MLflow's own
def test_mlflow_reads_back_every_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's own client is the oracle, on a local store."""
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    run = search_told_to("mlflow", tmp_path / "run")
    client = mlflow.MlflowClient()
    found = client.search_runs([client.get_experiment_by_name("a run").experiment_id])
    read = {
        one.info.run_name: [(m.step, m.value) for m in client.get_metric_history(one.info.run_id, "val_accuracy")]
        for one in found
    }
    assert read == points(run)
    assert {one.info.status for one in found} == {"FINISHED"}
    assert all(int(one.data.params["params"]) > 0 for one in found)


@pytest.mark.filterwarnings("ignore")  # of wandb's own
def test_wandb_keeps_a_run_for_each_trial_while_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = search_told_to("wandb", tmp_path / "run")
    assert len(list((run.folder.path / "wandb").glob("offline-run-*/*.wandb"))) == len(run.record.trials)
