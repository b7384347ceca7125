"""Suggestions: allowed, new, canonical, repeatable."""

import random
import warnings

import optuna
import pytest

from metaformer import count_cost
from nas import samplers
from nas.samplers import SpaceSampler
from search_spaces.space import Genes, Limits, SearchSpace
from tests.nas.runs import make_study

LIMITS = Limits(max_macs=1_500_000)


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return make_study().make_space()


def ask(study: optuna.Study, space: SearchSpace, name: str, seen: set[str], *, seed: int) -> optuna.Trial:
    study.sampler = SpaceSampler(name, space=space, limits=LIMITS, seen=seen, seed=seed)
    return study.ask()


def search(space: SearchSpace, name: str, *, num_trials: int) -> list[Genes]:
    """Genes of the trials of a short search that likes many parameters and few MACs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(directions=["maximize", "minimize", "minimize"])
    seen: set[str] = set()
    for number in range(num_trials):
        trial = ask(study, space, name, seen, seed=number)
        arch = space.suggest(trial)
        cost = count_cost(arch)
        seen.add(arch.digest)
        study.tell(trial, (random.Random(arch.digest).random(), cost.params, cost.macs))
    return [trial.params for trial in study.trials]


@pytest.mark.parametrize("name", samplers.names())
def test_suggestions_are_canonical_within_limits_and_never_repeat(space: SearchSpace, name: str) -> None:
    found = search(space, name, num_trials=60)
    archs = [
        space.decode({key: value for key, value in genes.items() if isinstance(value, int | str)}) for genes in found
    ]
    assert [space.encode(arch) for arch in archs] == found
    assert all(LIMITS.allow(count_cost(arch)) for arch in archs)
    assert len({arch.digest for arch in archs}) == 60


@pytest.mark.parametrize("name", samplers.names())
def test_the_same_seeds_give_the_same_suggestions(space: SearchSpace, name: str) -> None:
    assert search(space, name, num_trials=25) == search(space, name, num_trials=25)


def test_tpe_learns_from_what_it_was_told(space: SearchSpace) -> None:
    """After its start-up it is no longer the uniform draw that random is."""
    assert search(space, "tpe", num_trials=40) != search(space, "random", num_trials=40)


def test_where_all_is_known_the_sampler_says_so(space: SearchSpace) -> None:
    class Everything:
        def __contains__(self, digest: object) -> bool:
            return True

    sampler = SpaceSampler("random", space=space, limits=LIMITS, seen=Everything(), seed=0)
    study = optuna.create_study(directions=["maximize", "minimize", "minimize"], sampler=sampler)
    assert not sampler.exhausted
    space.suggest(study.ask())
    assert sampler.exhausted
