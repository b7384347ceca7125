"""Trials as data frames and as the text of CSV files: one row for each trial, or for each of its epochs."""

import csv
import io
from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter

import pandas as pd

from nas.record.trials import TrialRecord
from nas.results.results import Results, stage_mixers_text, stem_stride

_COLUMNS: dict[str, Callable[[TrialRecord], object]] = {
    "trial": lambda trial: trial.number,
    "state": lambda trial: trial.state.value,
    "reference": lambda trial: trial.reference,
    "val_accuracy": lambda trial: trial.val_accuracy,
    "test_accuracy": lambda trial: trial.test_accuracy,
    "params": lambda trial: trial.params,
    "macs": lambda trial: trial.macs,
    "epochs": lambda trial: trial.num_epochs,
    "device_seconds": lambda trial: round(trial.device_seconds, 3),
    "mixers": lambda trial: "|".join(stage_mixers_text(stage, between="") for stage in trial.architecture.stages),
    "stride": lambda trial: stem_stride(trial.architecture),
    "depths": lambda trial: "|".join(str(stage.depth) for stage in trial.architecture.stages),
    "widths": lambda trial: "|".join(str(stage.width) for stage in trial.architecture.stages),
    "norms": lambda trial: "|".join(stage.norm.kind for stage in trial.architecture.stages),
    "stop_reason": lambda trial: trial.stop_reason and trial.stop_reason.value,
    "reason": lambda trial: trial.reason,
}

_OF_METRICS = ("val_top5", "images_per_s", "waiting", "peak_mib", "device_seconds")
_MEASURED, _UNMEASURED = attrgetter(*_OF_METRICS), (None,) * len(_OF_METRICS)
_OF_EPOCHS = ("trial", "epoch", "val_accuracy", "train_loss", *_OF_METRICS)


def trial_frame(results: Results, trials: Iterable[TrialRecord]) -> pd.DataFrame:
    """One row for each trial, with a column for each measured objective.

    Numbers are as they are (accuracy in [0, 1], seconds, the objective's unit); values of stages are joined by `|`.
    `val_low` and `val_high` hold the true accuracy of a complete trial's architecture with probability 0.9.
    """
    rows = list(trials)
    front = {trial.number for trial in results.front}
    members = {trial.number for group in results.replicates if group[0].number in front for trial in group}
    estimates = [results.estimate(trial) for trial in rows]
    frame = pd.DataFrame({name: [value(trial) for trial in rows] for name, value in _COLUMNS.items()})
    frame.insert(2, "on_front", [trial.number in members for trial in rows])
    frame.insert(3, "p_on_front", [estimate and estimate.p_on_front for estimate in estimates])
    if any(trial.seed is not None for trial in results.trials):
        frame.insert(1, "seed", [trial.seed for trial in rows])
    place = list(frame.columns).index("val_accuracy") + 1
    frame.insert(place, "val_low", [estimate and estimate.low for estimate in estimates])
    frame.insert(place + 1, "val_high", [estimate and estimate.high for estimate in estimates])
    if results.families:
        frame.insert(place - 1, "family", [results.families[trial.number] for trial in rows])
    for goal in results.goals.measured:
        frame.insert(list(frame.columns).index("epochs"), goal.metric, [goal.value(trial) for trial in rows])
    return frame


def front_frame(results: Results) -> pd.DataFrame:
    """The same of the front's members, with where their architectures lie, in the run's folder."""
    frame = trial_frame(results, results.front)
    frame["architecture"] = [results.architecture_file(trial) for trial in results.front]
    return frame


def curve_frame(trials: Iterable[TrialRecord]) -> pd.DataFrame:
    """One row for each epoch of each trial; what was not measured is empty.

    A trial that goes on with a stopped one begins with the epochs of that one.
    """
    return pd.DataFrame(list(_epochs(trials)), columns=list(_OF_EPOCHS))


def curves_csv(trials: Iterable[TrialRecord]) -> str:
    """The same as the text of a file; a study has many epochs, and pandas takes longer."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_OF_EPOCHS)
    writer.writerows(_epochs(trials))
    return text.getvalue()


def _epochs(trials: Iterable[TrialRecord]) -> Iterator[tuple[float | None, ...]]:
    """The rows of both."""
    for trial in trials:
        known = {metrics.epoch: _MEASURED(metrics) for metrics in trial.progress.metrics}
        for report in trial.progress.curve:
            measured = known.get(report.epoch, _UNMEASURED)
            yield (trial.number, report.epoch, report.val_accuracy, report.train_loss, *measured)


def curve_values(trial: TrialRecord) -> list[dict[str, float | None]]:
    """What is known of each epoch of a trial, by name, in the order of the columns of `curves.csv`."""
    known = {metrics.epoch: metrics for metrics in trial.progress.metrics}
    return [
        {
            "epoch": report.epoch,
            "val_accuracy": report.val_accuracy,
            "train_loss": report.train_loss,
            **{name: getattr(known.get(report.epoch), name, None) for name in _OF_METRICS},
        }
        for report in trial.progress.curve
    ]
