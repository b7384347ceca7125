"""Optuna's samplers as proposers, on a copy of the history in memory."""

import random
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.storages import InMemoryStorage

from nas.record.record import distribution
from nas.record.trials import TrialRecord, TrialState
from nas.session.proposers.base import FreshGenes, Proposer
from nas.study.objectives import Objectives
from search_spaces.space import Genes, Limits, SearchSpace

_MAKERS: dict[str, Callable[[int], BaseSampler]] = {
    "tpe": lambda seed: TPESampler(multivariate=True, seed=seed),  # the independent one repeats itself
    "nsga2": lambda seed: NSGAIISampler(seed=seed),
    "random": lambda seed: RandomSampler(seed=seed),
}
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
    suggestion, a uniform draw is taken.
    """

    def __init__(self, name: str, space: SearchSpace, objectives: Objectives) -> None:
        self._make = _MAKERS[name]
        self._fresh = FreshGenes(space)
        self._copy = _StudyCopy(space, objectives)

    def propose(self, history: Sequence[TrialRecord], *, limits: Limits, seed: int) -> Genes | None:
        self._fresh.read(history)
        rng = random.Random(seed)
        sampler = self._make(seed)
        if not isinstance(sampler, RandomSampler):
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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            study = optuna.create_study(
                storage=InMemoryStorage(),
                directions=["maximize" if is_maximised else "minimize" for is_maximised in objectives.is_maximised],
            )
        self._name, self._storage, self._study_id = study.study_name, study._storage, study._study_id
        self._trial_ids: list[int] = []  # by place in the history
        self._running: set[int] = set()  # places of trials that had not ended at the last update
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
            trial_id = self._storage.create_new_trial(self._study_id, template_trial=frozen)
            self._trial_ids.append(trial_id)
            if isinstance(sampler, NSGAIISampler):  # else it ignores trials that it did not suggest itself
                sampler.get_trial_generation(self._open(), self._storage.get_trial(trial_id))
            self._running.add(place)
            self._end(place, trial)

    def ask(self, sampler: BaseSampler) -> Genes:
        """Genes that the sampler suggests; none while it is starting up."""
        self._asked = self._storage.create_new_trial(self._study_id)
        study = self._open()
        trial = self._storage.get_trial(self._asked)
        genes: dict[str, Any] = sampler.sample_relative(study, trial, dict(self._distributions))
        if genes:
            for name, gene_distribution in self._distributions.items():
                if name not in genes:
                    genes[name] = sampler.sample_independent(study, trial, name, gene_distribution)
        return genes

    def _open(self) -> optuna.Study:
        """The study anew: a study object remembers the trials that it has read."""
        return optuna.Study(self._name, self._storage)

    def _end(self, place: int, trial: TrialRecord) -> None:
        """Give a trial of the copy the state and the values that it has in the history."""
        if trial.state is TrialState.RUNNING:
            return
        self._running.discard(place)
        values = self._objectives.values(trial) if trial.state is TrialState.COMPLETE else None
        self._storage.set_trial_state_values(self._trial_ids[place], _STATES[trial.state], values)
