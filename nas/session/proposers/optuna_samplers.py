"""Optuna's samplers as proposers, on a copy of the history in memory."""

import random
import warnings
from collections.abc import Callable, Container, Iterable, Sequence
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, NSGAIISampler, TPESampler
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial

from nas.record.record import distribution
from nas.record.trials import TrialRecord, TrialState
from nas.session.pareto import ranks
from nas.session.proposers.base import FreshGenes, Proposer
from nas.study.objectives import Objectives, Point
from search_spaces.space import Genes, Limits, SearchSpace

_MAKERS: dict[str, Callable[[int], BaseSampler] | None] = {  # None: uniform draws alone
    "tpe": lambda seed: TPESampler(multivariate=True, seed=seed),  # the independent one repeats itself
    "nsga2": lambda seed: NSGAIISampler(seed=seed),
    "random": None,
}
_MOST_OF_TPE = 500  # trials that its densities are made of
_BEST_OF_TPE = 100  # of them, by rank; it models the best tenth
_MUTATIONS = 50  # of a suggestion that is known or beyond the limits
_STATES = {
    TrialState.RUNNING: optuna.trial.TrialState.RUNNING,
    TrialState.COMPLETE: optuna.trial.TrialState.COMPLETE,
    TrialState.STOPPED: optuna.trial.TrialState.PRUNED,
    TrialState.FAILED: optuna.trial.TrialState.FAIL,
}


class OptunaProposer(Proposer):
    """One of Optuna's samplers, asked once a proposal.

    Each proposal uses a fresh sampler with a seed of its own. A suggestion that is known or beyond the limits is
    mutated gene by gene until it is neither. Where that fails, and while the sampler is starting up and has no
    suggestion, a uniform draw is taken. TPE reads `_MOST_OF_TPE` trials: those of the best non-dominated ranks, and the
    youngest.
    """

    def __init__(self, name: str, space: SearchSpace, objectives: Objectives) -> None:
        self._make = _MAKERS[name]
        self._fresh = FreshGenes(space)
        self._copy = _StudyCopy(space, objectives)

    def propose(self, history: Sequence[TrialRecord], *, limits: Limits, seed: int) -> Genes | None:
        self._fresh.read(history)
        rng = random.Random(seed)
        if self._make is not None:
            sampler = self._make(seed)
            self._copy.update(history, sampler)
            genes = self._copy.ask(sampler)
            for _ in range(_MUTATIONS if genes else 0):
                accepted = self._fresh.accept(genes, limits)
                if accepted is not None:
                    return accepted
                genes = self._fresh.mutate(genes, rng)
        return self._fresh.draw(limits, rng)


class _StudyCopy:
    """An Optuna study in memory with the trials of a history, which samplers read, and in which they keep notes."""

    def __init__(self, space: SearchSpace, objectives: Objectives) -> None:
        self._space = space
        self._objectives = objectives
        self._distributions = {choice.name: distribution(choice) for choice in space.choices}
        self._storage = _PartlyRead()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            study = optuna.create_study(
                storage=self._storage,
                directions=["maximize" if is_maximised else "minimize" for is_maximised in objectives.is_maximised],
            )
        self._name, self._study_id = study.study_name, study._study_id
        self._trial_ids: list[int] = []  # by place in the history
        self._running: set[int] = set()  # places of trials that had not ended at the last update
        self._complete: list[int] = []  # places, in the order in which they were met
        self._values: list[Point] = []  # of those that are not in `_points` yet
        self._points: NDArray[np.float64] = np.empty((0, len(objectives.names)))  # of the complete ones
        self._stopped: set[int] = set()  # places
        self._generations: dict[int, list[int]] = {}  # of NSGA-II: their trials
        self._asked: int | None = None  # the trial that the last suggestion was made for

    def update(self, history: Sequence[TrialRecord], sampler: BaseSampler) -> None:
        """Add the trials that are new, and end those that have ended, in the order of their numbers."""
        if self._asked is not None:
            self._storage.set_trial_state_values(self._asked, optuna.trial.TrialState.FAIL)
            self._asked = None
        for place in sorted(self._running):
            self._end(place, history[place])
        for place in range(len(self._trial_ids), len(history)):
            trial = history[place]
            frozen = optuna.trial.create_trial(
                state=optuna.trial.TrialState.RUNNING,
                params=self._space.encode(trial.architecture),
                distributions=self._distributions,
            )
            self._trial_ids.append(self._storage.create_new_trial(self._study_id, template_trial=frozen))
            if isinstance(sampler, NSGAIISampler):  # else it ignores trials that it did not suggest itself
                self._join_generation(self._trial_ids[-1], sampler)
            self._running.add(place)
            self._end(place, trial)

    def ask(self, sampler: BaseSampler) -> Genes:
        """Genes that the sampler suggests; none while it is starting up."""
        self._asked = self._storage.create_new_trial(self._study_id)
        if isinstance(sampler, TPESampler):
            self._storage.read_only_these(self._trial_ids[place] for place in self._for_tpe())
        study = self._open()
        trial = self._storage.get_trial(self._asked)
        genes: dict[str, Any] = sampler.sample_relative(study, trial, dict(self._distributions))
        if genes:
            for name, gene_distribution in self._distributions.items():
                if name not in genes:
                    genes[name] = sampler.sample_independent(study, trial, name, gene_distribution)
        self._storage.read_all()
        return genes

    def _open(self) -> optuna.Study:
        """The study anew: a study object remembers the trials that it has read."""
        return optuna.Study(self._name, self._storage)

    def _for_tpe(self) -> list[int]:
        """Places of trials: of the ranks that have the best, and the youngest of the others; running ones too."""
        places = sorted([*self._complete, *self._stopped, *self._running])
        if len(places) <= _MOST_OF_TPE or not self._complete:
            return places[-_MOST_OF_TPE:]
        if self._values:
            self._points, self._values = np.concatenate([self._points, self._values]), []
        rank = ranks(self._points, self._objectives)
        last = np.partition(rank, min(_BEST_OF_TPE, len(rank)) - 1)[min(_BEST_OF_TPE, len(rank)) - 1]
        best = {self._complete[index] for index in np.flatnonzero(rank <= last)}
        others = [place for place in places if place not in best]
        return sorted([*best, *others[-max(_MOST_OF_TPE - len(best), _BEST_OF_TPE) :]])

    def _join_generation(self, trial_id: int, sampler: NSGAIISampler) -> None:
        """Have the sampler note a trial's generation, for which the trials of the last two are enough."""
        last = max(self._generations, default=0)
        self._storage.read_only_these([*self._generations.get(last - 1, []), *self._generations.get(last, [])])
        generation = sampler.get_trial_generation(self._open(), self._storage.get_trial(trial_id))
        self._storage.read_all()
        self._generations.setdefault(generation, []).append(trial_id)

    def _end(self, place: int, trial: TrialRecord) -> None:
        """Give a trial of the copy the state and the values that it has in the history."""
        if trial.state is TrialState.RUNNING:
            return
        self._running.discard(place)
        values = self._objectives.values(trial) if trial.state is TrialState.COMPLETE else None
        if values is not None:
            self._complete.append(place)
            self._values.append(values)
        elif trial.state is TrialState.STOPPED:
            self._stopped.add(place)
        self._storage.set_trial_state_values(self._trial_ids[place], _STATES[trial.state], values)


class _PartlyRead(InMemoryStorage):
    """A storage in memory of which a sampler can be shown a part, so that it need not read all to use little."""

    def __init__(self) -> None:
        super().__init__()
        self._shown: list[int] | None = None  # all

    def read_only_these(self, trial_ids: Iterable[int]) -> None:
        """Show only these trials, in this order."""
        self._shown = list(trial_ids)

    def read_all(self) -> None:
        """Show all trials."""
        self._shown = None

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[optuna.trial.TrialState] | None = None,
    ) -> list[FrozenTrial]:
        if self._shown is None:
            return super().get_all_trials(study_id, deepcopy, states)
        shown = [self.get_trial(trial_id) for trial_id in self._shown]
        return [trial for trial in shown if states is None or trial.state in states]
