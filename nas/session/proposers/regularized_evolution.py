"""Regularized evolution (arXiv:1802.01548): the oldest of a fixed population dies, the best of a sample has a child."""

import random
from collections.abc import Sequence

from nas.record.trials import TrialRecord, TrialState
from nas.session.pareto import ranks
from nas.session.proposers.base import FreshGenes, Proposer
from nas.study.objectives import Objectives
from search_spaces.space import Genes, Limits, SearchSpace

_POPULATION = 50  # P of the paper: the youngest trials that have ended
_SAMPLE = 15  # S of the paper: drawn from them for each child
_MUTATIONS = 50  # tried on one parent before a uniform draw is taken


class RegularizedEvolution(Proposer):
    """A mutation of the best of a random sample of the youngest `_POPULATION` complete trials.

    Best is the lowest non-dominated rank, of equals a random one: the paper has one objective. Until the population is
    full, draws are uniform.
    """

    def __init__(self, space: SearchSpace, objectives: Objectives) -> None:
        self._fresh = FreshGenes(space)
        self._objectives = objectives

    def propose(self, history: Sequence[TrialRecord], *, limits: Limits, seed: int) -> Genes | None:
        self._fresh.read(history)
        rng = random.Random(seed)
        population = [trial for trial in history if trial.state is TrialState.COMPLETE][-_POPULATION:]
        if len(population) == _POPULATION:
            sample = rng.sample(population, _SAMPLE)
            rank = ranks([self._objectives.values(trial) for trial in sample], self._objectives)
            parent = sample[rng.choice([place for place in range(_SAMPLE) if rank[place] == rank.min()])]
            genes = self._fresh.space.encode(parent.architecture)
            for _ in range(_MUTATIONS):
                child = self._fresh.accept(self._fresh.mutate(genes, rng), limits)
                if child is not None:
                    return child
        return self._fresh.draw(limits, rng)
