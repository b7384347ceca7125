"""Trainings of one architecture with several seeds, seen as one."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import fmean

from nas.record.trials import TrialRecord
from nas.study.lease import Report


def by_architecture(trials: Iterable[TrialRecord]) -> list[tuple[TrialRecord, ...]]:
    """Trials in groups of one architecture, each in their order; digests are only taken where costs are equal."""
    listed = list(trials)
    num_alike = Counter((trial.params, trial.macs) for trial in listed)
    groups: dict[tuple[int | str, ...], list[TrialRecord]] = defaultdict(list)
    for trial in listed:
        costs = trial.params, trial.macs
        groups[costs if num_alike[costs] == 1 else (*costs, trial.digest)].append(trial)
    return [tuple(group) for group in groups.values()]


def mean_trial(replicates: Sequence[TrialRecord]) -> TrialRecord:
    """The first of some trials of one architecture, with the means of all in place of its accuracies and losses.

    Only epochs that all have are kept; the test accuracy is the mean of those that were tested.
    """
    first = replicates[0]
    if len(replicates) == 1:
        return first
    epochs = zip(*(trial.progress.curve for trial in replicates), strict=False)  # up to the shortest
    tested = [trial.test_accuracy for trial in replicates if trial.test_accuracy is not None]
    return replace(
        first,
        progress=first.progress.model_copy(update={"curve": tuple(_mean_report(reports) for reports in epochs)}),
        test_accuracy=fmean(tested) if tested else None,
    )


def _mean_report(reports: Sequence[Report]) -> Report:
    changes = {
        "val_accuracy": fmean(report.val_accuracy for report in reports),
        "train_loss": fmean(report.train_loss for report in reports),
    }
    return reports[0].model_copy(update=changes)
