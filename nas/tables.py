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
from nas.pareto import HypervolumeScale, dominates
from nas.record import TrialRecord, TrialState, front_of
from nas.run import Run
from nas.study import Study

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
    "reason": lambda trial: trial.reason,
}
_UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True)
class Reference:
    """A hand-designed model in a run; `label` holds all its names where several are one network in this space."""

    label: str
    architecture: Architecture
    trial: TrialRecord | None
    standing: str  # on the front, dominated, or why it cannot be compared
    dominated_by: tuple[TrialRecord, ...]  # found models, members of the front first, then by falling accuracy
    published_top1: float | None  # percent; only where the study repeats the paper's task and network

    @property
    def names(self) -> list[str]:
        return self.label.split(" = ")

    @cached_property
    def cost(self) -> Cost:
        return count_cost(self.architecture)


@dataclass(frozen=True)
class Results:
    """What there is to say about a run so far."""

    run: Run

    @cached_property
    def trials(self) -> list[TrialRecord]:
        return list(self.run.record)

    @cached_property
    def complete(self) -> list[TrialRecord]:
        return self.run.record.complete

    @cached_property
    def front(self) -> list[TrialRecord]:
        """The complete trials that none dominates, by rising parameters."""
        return front_of(self.complete)

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
        scale = HypervolumeScale.of(self.run.space)
        return scale.hypervolume([trial.objectives for trial in self.front])

    @cached_property
    def references(self) -> list[Reference]:
        """The study's hand-designed models, in its order; equal networks share one entry."""
        distinct = self.run.space.distinct_references(self.run.study.references)
        return [self._reference(label, architecture) for label, architecture in distinct.items()]

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
        num_images = self.run.record.noted("num_images")
        return num_images.get("val") if isinstance(num_images, dict) else None

    def architecture_file(self, trial: TrialRecord) -> str:
        """Where the architecture of a member of the front lies, in the run's folder."""
        return f"{self.run.folder.architectures.name}/trial-{trial.number:05d}.yaml"

    def _reference(self, label: str, architecture: Architecture) -> Reference:
        digest = architecture.digest
        tried = [trial for trial in self.trials if trial.reference and trial.architecture.digest == digest]
        trial = max(tried, key=lambda trial: trial.state is TrialState.COMPLETE, default=None)
        better: list[TrialRecord] = []
        if trial and trial.state is TrialState.COMPLETE:
            better = [other for other in self.complete if dominates(other.objectives, trial.objectives)]
        on_front = {member.number for member in self.front}
        found = [other for other in better if other.reference is None]
        found.sort(key=lambda other: (other.number not in on_front, -(other.val_accuracy or 0), other.macs))
        if trial and trial.number in on_front:
            standing = "on the front"
        elif found:
            standing = "dominated"
        elif better:
            standing = "none found; dominated by " + ", ".join(str(other.reference) for other in better)
        else:
            standing = _why_not_trained(self.run.study, trial, architecture)
        top1 = _published(self.run.study, label, architecture)
        return Reference(label, architecture, trial, standing, tuple(found), top1)


def trial_frame(trials: Iterable[TrialRecord], *, front: Sequence[TrialRecord]) -> pd.DataFrame:
    """One row for each trial: numbers as they are (accuracy in [0, 1], seconds), stages joined by `|`."""
    rows = list(trials)
    members = {trial.number for trial in front}
    frame = pd.DataFrame({name: [value(trial) for trial in rows] for name, value in _COLUMNS.items()})
    frame.insert(2, "on_front", [trial.number in members for trial in rows])
    return frame


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


def short_count(count: float) -> str:
    """A count in three figures: `152 k`, `11.9 M`, `1.82 G`."""
    size, unit = next(((size, unit) for size, unit in _UNITS if count >= 0.9995 * size), (1, ""))
    value = count / size
    digits = 0 if value >= 99.95 or not unit else 1 if value >= 9.995 else 2
    return f"{value:.{digits}f} {unit}".strip()


def difference(better: TrialRecord, worse: TrialRecord) -> str:
    """What one complete trial has over another: `+1.20 points, −40 % parameters, −35 % MACs`."""
    points = 100 * (better.objectives[0] - worse.objectives[0])
    gain = f"{_signed(points, '.2f')} points" if points else "same accuracy"
    return ", ".join(
        [gain, _change("parameters", better.params, worse.params), _change("MACs", better.macs, worse.macs)]
    )


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


def _signed(value: float, form: str) -> str:
    return f"{value:+{form}}".replace("-", "−")


def _change(what: str, now: int, before: int) -> str:
    if now == before:
        return f"same {what}"
    change = 100 * (now / before - 1)
    return f"{_signed(change, '.0f' if abs(change) >= 10 else '.1f')} % {what}"


def _why_not_trained(study: Study, trial: TrialRecord | None, architecture: Architecture) -> str:
    if trial is None:
        allowed = study.settings.limits.allow(count_cost(architecture))
        return "not trained yet" if allowed else "not trained: over the limits of this study"
    if trial.state is TrialState.RUNNING:
        return f"not finished: {trial.num_epochs} of {study.recipe.epochs} epochs"
    return f"{trial.state}: {trial.reason}"


def _published(study: Study, label: str, architecture: Architecture) -> float | None:
    """The paper's ImageNet accuracy of the very network that the study trains, at the paper's task; else None."""
    settings = study.settings
    if not (study.data.startswith("folder:") and settings.num_classes == 1000 and settings.resolution == 224):
        return None
    name = label.split(" = ", maxsplit=1)[0]
    known = zoo.published().get(name)
    return known.top1 if known and architecture.digest == zoo.get(name).digest else None
