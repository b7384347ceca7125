"""What a run has found, as values: the front, and the hand-designed models beside it."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from metaformer import zoo
from metaformer.architecture import Architecture
from metaformer.cost import Cost, count_cost
from metaformer.specs import MixerSpec, Stage
from nas.record.notes import Notes
from nas.record.replicates import by_architecture, mean_trial
from nas.record.run_folder import Run
from nas.record.trials import TrialRecord, TrialState
from nas.results.uncertainty import CLEAR, Estimate, Uncertainty
from nas.results.words import probability_text
from nas.session.certainty.outlook import MORE, Outlook, outlook
from nas.session.pareto import HypervolumeScale, dominates, front_of
from nas.session.proposers.earlier import Agreement, agreement
from nas.study.budget import Budget
from nas.study.objectives import ACCURACY, Objective, Objectives
from nas.study.study import Study
from search_spaces.union import FAMILY, Union


@dataclass(frozen=True)
class Rival:
    """A found model that costs no more than a hand-designed one and may be more accurate."""

    trial: TrialRecord
    p_dominates: float | None  # that it is; None: the noise of val is not known, and it is no worse there

    @property
    def is_clear(self) -> bool:
        """Whether it is said to dominate."""
        return self.p_dominates is None or self.p_dominates >= CLEAR


@dataclass(frozen=True)
class Reference:
    """A hand-designed model in a run; it has several names where these are one network in this space."""

    names: tuple[str, ...]
    architecture: Architecture
    trial: TrialRecord | None
    standing: str  # on the front, dominated, tied, or why it cannot be compared
    rivals: tuple[Rival, ...]  # those that dominate it first, members of the front before others, then the likeliest
    p_dominated: float | None  # that at least one found model dominates it; None where that is not known
    beaten: tuple[Rival, ...]  # members of the front of found models that it dominates for its part, the surest first
    published_top1: float | None  # percent; only where the study repeats the paper's task and network

    @property
    def dominated_by(self) -> tuple[TrialRecord, ...]:
        """The found models that are said to dominate it."""
        return tuple(rival.trial for rival in self.rivals if rival.is_clear)

    @property
    def tied_with(self) -> tuple[TrialRecord, ...]:
        """The found models that cost no more and of which it is a toss-up whether they are more accurate."""
        return tuple(rival.trial for rival in self.rivals if not rival.is_clear)

    @property
    def is_dominated(self) -> bool:
        """Whether it is said that a found model dominates it."""
        return bool(self.rivals) if self.p_dominated is None else self.p_dominated >= CLEAR

    @property
    def is_tied(self) -> bool:
        """Whether it is a toss-up that a found model dominates it."""
        return self.p_dominated is not None and 1 - CLEAR < self.p_dominated < CLEAR

    @property
    def verdict(self) -> str:
        """How it stands to the found models, with the probability that one of them dominates it, or that it does."""
        return self.verdict_naming(lambda trial: f"#{trial.number}")

    def verdict_naming(self, name: Callable[[TrialRecord], str]) -> str:
        """The same, with trials called by their `name`."""
        known = self.p_dominated
        p = "" if known is None else f" with {probability_text(known)}"
        if self.rivals and self.is_dominated:
            return f"dominated by found models{p}"
        if self.rivals and self.is_tied:
            return f"tied with found models, dominated{p}"
        if self.beaten:
            first = self.beaten[0]
            sure = "" if first.p_dominates is None else f" with {probability_text(first.p_dominates)}"
            more = f" and {len(self.beaten) - 1} more of what was found" if len(self.beaten) > 1 else ""
            return f"dominates {name(first.trial)}{sure}{more}"
        is_doubtful = known is not None and known > 1 - CLEAR
        return self.standing + (f"; a found model dominates it{p}" if is_doubtful else "")

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
    def replicates(self) -> list[tuple[TrialRecord, ...]]:
        """The complete trials in groups of one architecture."""
        return by_architecture(self.run.record.complete)

    @cached_property
    def complete(self) -> list[TrialRecord]:
        """The complete trials; those of one architecture as one, with the number of the first and mean accuracies."""
        return [mean_trial(replicates) for replicates in self.replicates]

    @cached_property
    def points(self) -> NDArray[np.float64]:
        """The objectives of the complete trials, a row each."""
        points = [self.goals.values(trial) for trial in self.complete]
        return np.array(points, dtype=np.float64).reshape(len(points), len(self.goals))

    def column(self, objective: Objective) -> NDArray[np.float64]:
        """One of the objectives of the complete trials."""
        return self.points[:, self.goals.names.index(objective.name)]

    @cached_property
    def front(self) -> list[TrialRecord]:
        """The complete trials that none dominates, by rising parameters."""
        return front_of(self.complete, self.goals, points=self.points)

    @cached_property
    def best(self) -> TrialRecord | None:
        """The complete trial of highest validation accuracy; None while there is none."""
        return best_of(self.complete, self.goals)

    @cached_property
    def uncertainty(self) -> Uncertainty | None:
        """How sure the accuracies are; None while no trial is complete, and where the size of val was not noted."""
        return Uncertainty.of(self.run.record.complete, self.goals, self.num_val)

    @cached_property
    def others(self) -> list[TrialRecord]:
        """The complete trials that are neither on the front nor hand-designed."""
        members = {trial.number for trial in self.front}
        return [trial for trial in self.found if trial.number not in members]

    @cached_property
    def stages(self) -> list[Stage]:
        """The stages that have been tried, each object once, by whose id their texts are kept: trials share most."""
        return list({id(stage): stage for trial in self.trials for stage in trial.architecture.stages}.values())

    @cached_property
    def mixers(self) -> dict[str, MixerSpec]:
        """The mixers that have been tried, by their texts."""
        return {mixer_text(stage.mixer): stage.mixer for stage in self.stages}

    @cached_property
    def mixer_label(self) -> Callable[[MixerSpec], str]:
        """How charts tell mixers apart: by their kind, or where all are of one kind by their window too."""
        return mixer_text if len({mixer.kind for mixer in self.mixers.values()}) == 1 else _kind

    @cached_property
    def mixer_counts(self) -> list[tuple[Counter[str], Counter[str]]]:
        """For each stage of the front how many of it, and of all trials, have which mixer there, by its label."""
        labels = {id(stage): stage_label(stage, self.mixer_label) for stage in self.stages}
        counts = (label_counts(trials, labels) for trials in (self.front, self.trials))
        return list(zip(*counts, strict=False))  # other trials may have more stages

    @cached_property
    def families(self) -> dict[int, str]:
        """In a union of spaces the one that each trial is of, by its number; else nothing."""
        if not isinstance(self.run.space, Union):
            return {}
        return {trial.number: str(self.run.record.genes(trial)[FAMILY]) for trial in self.trials}

    @cached_property
    def trained_references(self) -> list[TrialRecord]:
        """The complete trials of hand-designed models."""
        return [trial for trial in self.complete if trial.references]

    @cached_property
    def found(self) -> list[TrialRecord]:
        """The complete trials that are not hand-designed."""
        return [trial for trial in self.complete if not trial.references]

    @cached_property
    def scale(self) -> HypervolumeScale:
        """What hypervolumes are measured on; KeyError where a measured objective has no bounds yet."""
        return HypervolumeScale.of(self.run.space, self.goals, self.notes.bounds)

    @cached_property
    def hypervolume(self) -> float:
        """What the front dominates, in [0, 1]."""
        if not self.front:
            return 0.0  # the bounds of measured objectives may not be known yet
        return self.scale.hypervolume([self.goals.values(trial) for trial in self.front])

    @cached_property
    def outlook(self) -> Outlook | None:
        """What another tenth of a search's budget is expected to add; None where that cannot be said yet."""
        if self.run.study.finals is not None or not self.front:  # bounds of measured objectives may be unknown
            return None
        return outlook(self.trials, self.scale, Budget.parse(self.run.study.budget).seconds * MORE)

    @cached_property
    def prior_agreement(self) -> Agreement | None:
        """How far the earlier search that this one started from foretold what came; None: none, or too early to say."""
        prior = self.run.study.prior
        return None if prior is None else agreement(self.run.space, self.goals, prior, self.complete)

    @cached_property
    def references(self) -> list[Reference]:
        """The study's hand-designed models, in its order; equal networks share one entry."""
        distinct = self.run.space.distinct_references(self.run.study.references)
        return [self._reference(names, architecture) for names, architecture in distinct.items()]

    @cached_property
    def standings(self) -> dict[int, str]:
        """The verdict on each hand-designed model that has been trained, by the number of its trial."""
        known = ((reference.trial, reference.verdict) for reference in self.references)
        return {trial.number: verdict for trial, verdict in known if trial and trial.state is TrialState.COMPLETE}

    @cached_property
    def front_of_found(self) -> list[TrialRecord]:
        """The front that the trials that are not hand-designed have alone."""
        return front_of(self.found, self.goals)

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

    def estimate(self, trial: TrialRecord) -> Estimate | None:
        """What is believed of a trial's accuracy; None where it is not complete or nothing is known of the noise."""
        if self.uncertainty is None or trial.state is not TrialState.COMPLETE:
            return None
        return self.uncertainty.estimate(trial)

    def architecture_file(self, trial: TrialRecord) -> str:
        """Where the architecture of a member of the front lies, in the run's folder."""
        return f"{self.run.folder.architectures.name}/trial-{trial.number:05d}.yaml"

    @cached_property
    def _tried_references(self) -> list[TrialRecord]:
        return [trial for trial in self.trials if trial.references]

    def _reference(self, names: tuple[str, ...], architecture: Architecture) -> Reference:
        digest = architecture.digest
        tried = [trial for trial in self._tried_references if trial.digest == digest]
        trial = max(tried, key=lambda trial: trial.state is TrialState.COMPLETE, default=None)
        top1 = _published(self.run.study, names[0], architecture)
        if trial is not None:
            alike = (mean for mean in self.complete if mean.params == trial.params and mean.macs == trial.macs)
            trial = next((mean for mean in alike if mean.digest == digest), trial)
        if trial is None or trial.state is not TrialState.COMPLETE:
            standing = _why_not_trained(self.run.study, trial, architecture)
            return Reference(names, architecture, trial, standing, (), None, (), top1)
        each, p_dominated = None, None
        if self.uncertainty is not None:
            each = self.uncertainty.p_dominates(self.found, trial)
            p_dominated = self.uncertainty.p_dominated(trial, by=self.found, each=each)
        rivals, beaten = self._rivals(trial, self.found, each), self._beaten(trial)
        reference = Reference(names, architecture, trial, "", rivals, p_dominated, beaten, top1)
        return replace(reference, standing=self._standing(reference, trial))

    def _standing(self, reference: Reference, trial: TrialRecord) -> str:
        """How a hand-designed model that has been trained stands to the others, in a few words."""
        if trial.number in {member.number for member in self.front}:
            return "on the front"
        if reference.is_dominated:
            return "dominated"
        rivals = self._rivals(trial, [other for other in self.trained_references if other is not trial])
        better = ", ".join(str(rival.trial.reference) for rival in rivals if rival.is_clear)
        if better:
            return f"none found; dominated by {better}"
        return "tied" if rivals or reference.rivals else "off the front by chance"

    def _beaten(self, trial: TrialRecord) -> tuple[Rival, ...]:
        """The members of the found front that a complete trial is said to dominate."""
        if self.uncertainty is None:
            point = self.goals.values(trial)
            beaten = [Rival(m, None) for m in self.front_of_found if dominates(point, self.goals.values(m), self.goals)]
        else:
            known = zip(self.front_of_found, self.uncertainty.p_dominates_each(trial, self.front_of_found), strict=True)
            beaten = [Rival(member, p) for member, p in known if p >= CLEAR]
        return tuple(sorted(beaten, key=lambda rival: -(rival.p_dominates or 0.0)))

    def _rivals(
        self, trial: TrialRecord, others: Sequence[TrialRecord], p_dominates: NDArray[np.float64] | None = None
    ) -> tuple[Rival, ...]:
        """Those of some other complete trials that dominate a trial or are tied with it.

        Args:
            p_dominates: With which probability each dominates it, where that is known.
        """
        if self.uncertainty is None:
            point = self.goals.values(trial)
            rivals = [Rival(other, None) for other in others if dominates(self.goals.values(other), point, self.goals)]
        else:
            known = self.uncertainty.p_dominates(others, trial) if p_dominates is None else p_dominates
            rivals = [Rival(others[i], float(known[i])) for i in np.flatnonzero(known > 1 - CLEAR).tolist()]
        on_front = {member.number for member in self.front}

        def order(rival: Rival) -> tuple[bool, bool, float, int]:
            likelihood = rival.trial.val_accuracy if rival.p_dominates is None else rival.p_dominates
            return not rival.is_clear, rival.trial.number not in on_front, -(likelihood or 0.0), rival.trial.macs

        return tuple(sorted(rivals, key=order))


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
    """The members of the front, as plain values for a program; accuracies lie in [0, 1], times are device-seconds.

    `val_low` and `val_high` hold the true accuracy of a member's architecture with probability 0.9.
    """
    return [_as_plain(results, trial) for trial in results.front]


def _as_plain(results: Results, trial: TrialRecord) -> dict[str, object]:
    estimate = results.estimate(trial)
    return {
        "trial": trial.number,
        "reference": trial.reference,
        "val_accuracy": trial.val_accuracy,
        "val_low": estimate and estimate.low,
        "val_high": estimate and estimate.high,
        "p_on_front": estimate and estimate.p_on_front,
        "test_accuracy": trial.test_accuracy,
        "params": trial.params,
        "macs": trial.macs,
        "objectives": dict(zip(results.goals.names, results.goals.values(trial), strict=True)),
        "device_seconds": trial.device_seconds,
        "architecture": results.architecture_file(trial),
    }


def families_text(results: Results) -> str:
    """How many trials each family of a union has on the front, and in all."""
    front = Counter(results.families[trial.number] for trial in results.front)
    tried = Counter(results.families.values())
    return "; ".join(
        f"{family}: {front[family]} of {front.total()} on the front, {number:,} of {tried.total():,} trials"
        for family, number in tried.most_common()
    )


def label_counts(trials: Iterable[TrialRecord], labels: Mapping[int, str]) -> list[Counter[str]]:
    """For each stage, how many of the trials have which label there.

    Args:
        labels: By the id of a stage.
    """
    rows = [[labels[id(stage)] for stage in trial.architecture.stages] for trial in trials]
    return [Counter(row[place] for row in rows if place < len(row)) for place in range(max(map(len, rows), default=0))]


def mixer_text(mixer: MixerSpec, *, between: str = " ") -> str:
    """A mixer's name and, where it has one, its window size: `pool 5`."""
    size = vars(mixer).get("size")
    return mixer.kind if size is None else f"{mixer.kind}{between}{size}"


def stage_label(stage: Stage, label: Callable[[MixerSpec], str] | None = None) -> str:
    """The mixer of a stage by its kind or another label, with that of its other blocks: `pool + attention`."""
    label = label or _kind
    return label(stage.mixer) if stage.interleaved is None else " + ".join(map(label, stage.mixers))


def stage_mixers_text(stage: Stage, *, between: str = " ") -> str:
    """The mixer of a stage, and how many of its blocks have another one: `pool 3 (1 in 2 attention)`."""
    text = mixer_text(stage.mixer, between=between)
    if stage.interleaved is None:
        return text
    return f"{text} (1 in {stage.interleaved.every} {mixer_text(stage.interleaved.mixer, between=between)})"


def mixers_text(arch: Architecture, *, between: str = " ") -> str:
    """The mixers of an architecture, stage by stage."""
    return between.join(stage_mixers_text(stage) for stage in arch.stages)


def stem_stride(arch: Architecture) -> int:
    """Pixels between neighbouring tokens of the first stage; of patches, their side."""
    return arch.resolution // arch.sides()[0]


def block_text(arch: Architecture) -> str:
    """The blocks of an architecture's last stage beside their mixer: `layer_norm, MLP 4, positions, class token`."""
    stage = arch.stages[-1]
    parts = {
        stage.norm.kind: True,
        f"{stage.post_activation}": stage.post_activation,
        f"MLP {stage.mlp.ratio}" if stage.mlp else "no MLP": stage.post_activation is None,
        "LayerScale": stage.layer_scale,
        "excitation": stage.se_reduction,
        "ghosts": _has_ghosts(stage),
        "dense": stage.dense,
        "no skip": not stage.residual,
        "positions": stage.position_embedding,
        "class token": stage.class_token,
        "drop path": arch.drop_path,
    }
    return ", ".join(part for part, is_said in parts.items() if is_said)


def _has_ghosts(stage: Stage) -> bool:
    return any(vars(part).get("ghost", False) for part in (*stage.mixers, stage.mlp) if part)


def block_line(arch: Architecture) -> str:
    """Patches and blocks of an architecture whose only stage follows them; nothing of others."""
    return f"patches of {stem_stride(arch)} pixels, {block_text(arch)}" if len(arch.stages) == 1 else ""


def percent(accuracy: float | None) -> str:
    """An accuracy in [0, 1] as a percentage, or a dash."""
    return "–" if accuracy is None else f"{100 * accuracy:.2f} %"


def differs_from_paper(study: Study) -> list[str]:
    """In what the study's setting differs from ImageNet at 224 pixels, for which the papers' models were made.

    In nothing where its hand-designed models are the published networks, as ConvMixers for CIFAR are.
    """
    if study.references and _are_published(study):
        return []
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


def _are_published(study: Study) -> bool:
    """Whether every hand-designed model of the study is a network of the zoo: classes, and side of the images too."""
    known, published = study.make_space().references(), zoo.names()

    def is_published(name: str) -> bool:
        arch, other = known[name], zoo.get(name)
        return (arch.digest, arch.resolution) == (other.digest, other.resolution)

    return all(name in published and is_published(name) for name in study.references)


def _kind(mixer: MixerSpec) -> str:
    return mixer.kind


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
