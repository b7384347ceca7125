"""Which trial comes next: interrupted ones, planned ones, the cheapest architectures, then proposals."""

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from metaformer.architecture import Architecture
from metaformer.cost import count_cost
from nas.record.record import Record
from nas.record.trials import StopReason, TrialRecord
from nas.session.proposers import Proposer
from nas.study.study import Study
from search_spaces.space import SearchSpace

Affordable = Callable[[int, int, int | None], bool]


class Planned(NamedTuple):
    """A training that the study itself names."""

    architecture: Architecture
    references: tuple[str, ...]  # names of the hand-designed models that it is
    seed: int | None  # None: that of the study

    @property
    def macs(self) -> int:
        return count_cost(self.architecture).macs

    @property
    def key(self) -> tuple[str, int | None]:
        """What is trained once: the architecture's digest and the seed."""
        return self.architecture.digest, self.seed


class TrialQueue:
    """The trials of a study that wait, in the order in which they are begun.

    Attributes:
        resumable: Trials that were interrupted; they go on from their last checkpoints.
        stopped: Trials that the budget stopped; each goes on under a new number when there is more.
        planned: What the study names and has no trial that counts: hand-designed models, or the finals of a search.
        num_suggested: Trials begun so far that count for the study's limit.
        is_closed: Whether no new architecture is to be tried.
    """

    def __init__(
        self,
        study: Study,
        record: Record,
        proposer: Proposer,
        *,
        space: SearchSpace,
        first: Sequence[Architecture] = (),
    ) -> None:
        """Read from the record what has been tried.

        Args:
            first: Architectures to try after the cheapest ones; those beyond the limits are left out.
        """
        self._study, self._record, self._proposer = study, record, proposer
        self._limits = study.settings.limits
        self.resumable: list[TrialRecord] = []
        self.stopped = _unfinished(record)
        self.num_suggested = sum(trial.is_suggested for trial in record)
        self.is_closed = False
        self._largest_macs = space.largest_cost("macs")
        self.is_exhausted = study.finals is not None  # every architecture within the study's limits has been tried
        self._tried = {trial.digest for trial in record}
        cheapest = {count_cost(arch).total: arch for arch in (space.smallest("params"), space.smallest("macs"))}
        self._first = [  # the cheapest are the ends of any front, and they cost next to nothing
            arch
            for arch in (*cheapest.values(), *first)
            if arch.digest not in self._tried and self._limits.allow(count_cost(arch))
        ]
        counted = {
            (trial.architecture.digest, trial.seed)
            for trial in record
            if trial.stop_reason is not StopReason.BUDGET or trial in self.stopped
        }
        self.planned = [each for each in _planned(study, space) if self._limits.allow(count_cost(each.architecture))]
        self.leave_out(counted)

    @property
    def num_waiting(self) -> int:
        """Planned trainings and interrupted trials that have not been given a lease yet."""
        return len(self.planned) + len(self.resumable)

    def leave_out(self, keys: Collection[tuple[str, int | None]]) -> None:
        """Drop planned trainings that are done elsewhere."""
        self.planned = [each for each in self.planned if each.key not in keys]

    def next(self, is_affordable: Affordable, affordable_macs: Callable[[], int]) -> TrialRecord | None:
        """The next trial that the budget affords; None where there is none now.

        Args:
            is_affordable: Whether a model of so many MACs, trained for so many epochs already, can be trained to its
                end, with a seed of its own (None: that of the study).
            affordable_macs: The most MACs of a model that can be trained from the start.
        """
        trial = self._next_known(is_affordable) or self._next_new(is_affordable, affordable_macs)
        if trial is not None:
            self._tried.add(trial.digest)
        return trial

    def end_resumable(self) -> list[TrialRecord]:
        """Interrupted trials that the budget no longer affords, which now count as stopped by it."""
        ended, self.resumable = self.resumable, []
        self.stopped += ended
        return ended

    def _next_known(self, is_affordable: Affordable) -> TrialRecord | None:
        """A trial that was interrupted or stopped, or a planned one."""
        for trial in self.resumable:
            if is_affordable(trial.macs, trial.num_epochs, trial.seed):
                self.resumable.remove(trial)
                return trial
        for trial in self.stopped:
            if is_affordable(trial.macs, trial.num_epochs, trial.seed):
                self.stopped.remove(trial)
                return self._record.go_on(trial)
        for each in self.planned:
            if is_affordable(each.macs, 0, each.seed):
                self.planned.remove(each)
                return self._record.start(each.architecture, references=each.references, seed=each.seed)
        return None

    def _next_new(self, is_affordable: Affordable, affordable_macs: Callable[[], int]) -> TrialRecord | None:
        """A trial of one of the first architectures, or of a proposal."""
        most = self._study.max_trials
        if self.is_closed or self.is_exhausted or (most is not None and self.num_suggested >= most):
            return None
        self._first = [arch for arch in self._first if arch.digest not in self._tried]
        for arch in self._first:
            if is_affordable(count_cost(arch).macs, 0, None):
                self.num_suggested += 1
                return self._record.start(arch)
        return self._propose(affordable_macs())

    def _propose(self, affordable_macs: int) -> TrialRecord | None:
        if affordable_macs < 1:
            return None
        is_tight = affordable_macs < self._largest_macs
        limits = self._limits.model_copy(update={"max_macs": affordable_macs}) if is_tight else self._limits
        seed = (self._study.seed * 1_000_003 + len(self._record.trials)) % 2**32
        genes = self._proposer.propose(self._record.trials, limits=limits, seed=seed)
        if genes is None:
            self.is_exhausted = not is_tight
            return None
        self.num_suggested += 1
        return self._record.start(self._record.space.recall(genes), genes=genes)


def _planned(study: Study, space: SearchSpace) -> list[Planned]:
    """The trainings that a study names, in their order: each model of the finals once before the next seed begins."""
    if study.finals is None:
        return [Planned(arch, names, None) for names, arch in space.distinct_references(study.references).items()]
    models = [(space.decode(model.genes), model.references) for model in study.finals.models]
    return [Planned(arch, names, seed) for seed in study.finals.seeds for arch, names in models]


def _unfinished(record: Record) -> list[TrialRecord]:
    """Trials that an earlier, smaller budget stopped with a checkpoint, and that have not been taken up yet."""
    last = {trial.checkpoint_trial: trial for trial in record}  # of those that share checkpoints
    return [trial for trial in last.values() if trial.stop_reason is StopReason.BUDGET and trial.checkpoint]
