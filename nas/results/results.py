"""What a run has found, as values: the front, the hand-designed models beside it, and one row for each trial."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from metaformer import zoo
from metaformer.architecture import Architecture
from metaformer.cost import Cost, count_cost
from metaformer.specs import MixerSpec
from nas.record.notes import Notes
from nas.record.run_folder import Run
from nas.record.trials import TrialRecord, TrialState
from nas.session.pareto import HypervolumeScale, dominates, front_of
from nas.study.objectives import ACCURACY, Objectives
from nas.study.study import Study

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
    "mixers": lambda trial: "|".join(mixer_text(stage.mixer, between="") for stage in trial.architecture.stages),
    "depths": lambda trial: "|".join(str(stage.depth) for stage in trial.architecture.stages),
    "widths": lambda trial: "|".join(str(stage.width) for stage in trial.architecture.stages),
    "norms": lambda trial: "|".join(stage.norm.kind for stage in trial.architecture.stages),
    "stop_reason": lambda trial: trial.stop_reason and trial.stop_reason.value,
    "reason": lambda trial: trial.reason,
}


@dataclass(frozen=True)
class Reference:
    """A hand-designed model in a run; it has several names where these are one network in this space."""

    names: tuple[str, ...]
    architecture: Architecture
    trial: TrialRecord | None
    standing: str  # on the front, dominated, or why it cannot be compared
    dominated_by: tuple[TrialRecord, ...]  # found models, members of the front first, then by falling accuracy
    published_top1: float | None  # percent; only where the study repeats the paper's task and network

    @cached_property
    def cost(self) -> Cost:
        return count_cost(self.architecture)


@dataclass(frozen=True)
class Results:
    """What there is to say about a run so far."""

    run: Run

    @cached_property
    def goals(self) -> Objectives:
        """The study's objectives."""
        return self.run.study.goals

    @property
    def notes(self) -> Notes:
        return self.run.record.notes

    @cached_property
    def trials(self) -> list[TrialRecord]:
        return list(self.run.record)

    @cached_property
    def complete(self) -> list[TrialRecord]:
        return self.run.record.complete

    @cached_property
    def front(self) -> list[TrialRecord]:
        """The complete trials that none dominates, by rising parameters."""
        return front_of(self.complete, self.goals)

    @cached_property
    def best(self) -> TrialRecord | None:
        """The complete trial of highest validation accuracy; None while there is none."""
        return best_of(self.complete, self.goals)

    @cached_property
    def others(self) -> list[TrialRecord]:
        """The complete trials that are neither on the front nor hand-designed."""
        members = {trial.number for trial in self.front}
        return [trial for trial in self.complete if trial.number not in members and not trial.reference]

    @property
    def trained_references(self) -> list[TrialRecord]:
        """The complete trials of hand-designed models."""
        return [trial for trial in self.complete if trial.reference]

    @cached_property
    def hypervolume(self) -> float:
        """What the front dominates, in [0, 1]."""
        if not self.front:
            return 0.0  # the bounds of measured objectives may not be known yet
        scale = HypervolumeScale.of(self.run.space, self.goals, self.notes.bounds)
        return scale.hypervolume([self.goals.values(trial) for trial in self.front])

    @cached_property
    def references(self) -> list[Reference]:
        """The study's hand-designed models, in its order; equal networks share one entry."""
        distinct = self.run.space.distinct_references(self.run.study.references)
        return [self._reference(names, architecture) for names, architecture in distinct.items()]

    @property
    def counts(self) -> dict[str, int]:
        """Number of trials in each state."""
        found = Counter(trial.state for trial in self.trials)
        return {state.value: found[state] for state in TrialState}

    @property
    def spent_seconds(self) -> float:
        return self.run.record.spent_seconds

    @property
    def num_val(self) -> int | None:
        """Images in the validation split, where the search has noted it."""
        return (self.notes.num_images or {}).get("val")

    def architecture_file(self, trial: TrialRecord) -> str:
        """Where the architecture of a member of the front lies, in the run's folder."""
        return f"{self.run.folder.architectures.name}/trial-{trial.number:05d}.yaml"

    def _reference(self, names: tuple[str, ...], architecture: Architecture) -> Reference:
        digest = architecture.digest
        tried = [trial for trial in self.trials if trial.references and trial.architecture.digest == digest]
        trial = max(tried, key=lambda trial: trial.state is TrialState.COMPLETE, default=None)
        better = self._dominators(trial) if trial and trial.state is TrialState.COMPLETE else []
        on_front = {member.number for member in self.front}
        found = [other for other in better if not other.references]
        found.sort(key=lambda other: (other.number not in on_front, -(other.val_accuracy or 0), other.macs))
        if trial and trial.number in on_front:
            standing = "on the front"
        elif found:
            standing = "dominated"
        elif better:
            standing = "none found; dominated by " + ", ".join(str(other.reference) for other in better)
        else:
            standing = _why_not_trained(self.run.study, trial, architecture)
        top1 = _published(self.run.study, names[0], architecture)
        return Reference(names, architecture, trial, standing, tuple(found), top1)

    def _dominators(self, trial: TrialRecord) -> list[TrialRecord]:
        """The complete trials that dominate a complete one."""
        point = self.goals.values(trial)
        return [other for other in self.complete if dominates(self.goals.values(other), point, self.goals)]


def best_of(trials: Iterable[TrialRecord], objectives: Objectives) -> TrialRecord | None:
    """The complete trial of highest validation accuracy; None where there are none.

    Of equals it is the one that is better in the other objectives, the study's first one first.
    """
    ordered = sorted(objectives, key=lambda objective: objective.name != ACCURACY)

    def losses(trial: TrialRecord) -> list[float]:
        values = dict(zip(objectives.names, objectives.values(trial), strict=True))
        return [values[goal.name] * (-1 if goal.is_maximised else 1) for goal in ordered]

    return min(trials, key=losses, default=None)


def front_as_plain(results: Results) -> list[dict[str, object]]:
    """The members of the front, as plain values for a program; accuracies lie in [0, 1], times are device-seconds."""
    return [
        {
            "trial": trial.number,
            "reference": trial.reference,
            "val_accuracy": trial.val_accuracy,
            "test_accuracy": trial.test_accuracy,
            "params": trial.params,
            "macs": trial.macs,
            "objectives": dict(zip(results.goals.names, results.goals.values(trial), strict=True)),
            "device_seconds": trial.device_seconds,
            "architecture": results.architecture_file(trial),
        }
        for trial in results.front
    ]


def trial_frame(trials: Iterable[TrialRecord], *, front: Sequence[TrialRecord], objectives: Objectives) -> pd.DataFrame:
    """One row for each trial, with a column for each measured objective.

    Numbers are as they are (accuracy in [0, 1], seconds, the objective's unit); values of stages are joined by `|`.
    """
    rows = list(trials)
    members = {trial.number for trial in front}
    frame = pd.DataFrame({name: [value(trial) for trial in rows] for name, value in _COLUMNS.items()})
    frame.insert(2, "on_front", [trial.number in members for trial in rows])
    for goal in objectives.measured:
        frame.insert(list(frame.columns).index("epochs"), goal.metric, [goal.value(trial) for trial in rows])
    return frame


_OF_METRICS = ("val_top5", "images_per_s", "waiting", "peak_mib", "device_seconds")


def curve_frame(trials: Iterable[TrialRecord]) -> pd.DataFrame:
    """One row for each epoch of each trial; what was not measured is empty.

    A trial that goes on with a stopped one begins with the epochs of that one.
    """
    rows = [[trial.number, *values.values()] for trial in trials for values in curve_values(trial)]
    return pd.DataFrame(rows, columns=["trial", "epoch", "val_accuracy", "train_loss", *_OF_METRICS])


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


def mixer_counts(trials: Iterable[TrialRecord]) -> list[Counter[str]]:
    """For each stage, how many of the trials have which mixer there."""
    stages: list[Counter[str]] = []
    for trial in trials:
        for i, stage in enumerate(trial.architecture.stages):
            if i == len(stages):
                stages.append(Counter())
            stages[i][stage.mixer.kind] += 1
    return stages


def mixer_text(mixer: MixerSpec, *, between: str = " ") -> str:
    """A mixer's name and, where it has one, its window size: `pool 5`."""
    size = getattr(mixer, "size", None)
    return mixer.kind if size is None else f"{mixer.kind}{between}{size}"


def percent(accuracy: float | None) -> str:
    """An accuracy in [0, 1] as a percentage, or a dash."""
    return "–" if accuracy is None else f"{100 * accuracy:.2f} %"


def differs_from_paper(study: Study) -> list[str]:
    """In what the study's setting differs from ImageNet at 224 pixels, for which the papers' models were made."""
    settings = study.settings
    usual = type(settings)()
    found = []
    if settings.resolution != usual.resolution:
        found.append(f"{settings.resolution} pixels")
    if settings.num_classes != usual.num_classes:
        found.append(f"{settings.num_classes} classes")
    if settings.width_scale != usual.width_scale:
        found.append(f"widths times {settings.width_scale:g}")
    if settings.stem != usual.stem:
        stem = settings.stem
        found.append(f"a stem of {stem.kernel} × {stem.kernel}, stride {stem.stride}, padding {stem.padding}")
    return found


def _why_not_trained(study: Study, trial: TrialRecord | None, architecture: Architecture) -> str:
    if trial is None:
        allowed = study.settings.limits.allow(count_cost(architecture))
        return "not trained yet" if allowed else "not trained: over the limits of this study"
    if trial.state is TrialState.RUNNING:
        return f"not finished: {trial.num_epochs} of {study.recipe.epochs} epochs"
    return f"{trial.state}: {trial.reason}"


def _published(study: Study, name: str, architecture: Architecture) -> float | None:
    """The paper's ImageNet accuracy of the very network that the study trains, at the paper's task; else None."""
    settings = study.settings
    if not (study.data.startswith("folder:") and settings.num_classes == 1000 and settings.resolution == 224):
        return None
    known = zoo.published().get(name)
    return known.top1 if known and architecture.digest == zoo.get(name).digest else None
