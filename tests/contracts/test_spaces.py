"""What every search space keeps, for all that are registered."""

import random

import optuna
import pytest
import torch

from metaformer.cost import count_cost
from metaformer.network.model import build
from nas.record.record import distribution
from search_spaces.enumeration import architectures_within
from search_spaces.space import Limits, SearchSpace, SpaceError, SpaceSettings, get, names
from tests.search_spaces import tiny

SPACES = [*sorted(names()), "hybrid_stages+convmixer", "isotropic+convmixer"]
SETTINGS = {
    "224 pixels": SpaceSettings(),
    "32 pixels": SpaceSettings(resolution=32, num_classes=10, width_scale=0.25),
}
assert tiny.FewModels.name in SPACES  # those of the tests are registered too


@pytest.fixture(params=SETTINGS)
def settings(request: pytest.FixtureRequest) -> SpaceSettings:
    return SETTINGS[request.param]


@pytest.fixture(params=SPACES)
def space(request: pytest.FixtureRequest, settings: SpaceSettings) -> SearchSpace:
    return get(request.param, settings)


def test_what_is_sampled_encodes_and_decodes_to_itself(space: SearchSpace) -> None:
    rng = random.Random(0)
    for _ in range(50):
        arch = space.sample(rng)
        genes = space.encode(arch)
        assert space.decode(genes).digest == arch.digest
        assert space.encode(space.decode(genes)) == genes
        assert space.recall(genes) == space.recall(dict(reversed(genes.items()))) == space.decode(genes)
        assert all(genes[choice.name] in choice.values for choice in space.choices)
        assert space.contains(arch)


def test_genes_met_long_ago_are_decoded_again(space: SearchSpace) -> None:
    rng = random.Random(3)
    met = [(space.encode(arch), arch.digest) for arch in (space.sample(rng) for _ in range(300))]
    assert [space.recall(genes).digest for genes, _ in met] == [digest for _, digest in met]


def test_every_reference_encodes(space: SearchSpace) -> None:
    for arch in space.references().values():
        assert space.decode(space.encode(arch)).digest == arch.digest


def test_the_smallest_costs_no_more_than_any_sample_and_the_largest_no_less(space: SearchSpace) -> None:
    rng = random.Random(1)
    for name in ("params", "macs"):
        costs = [space.cost_of(space.encode(space.sample(rng)), name) for _ in range(50)]
        assert space.cost_of(space.encode(space.smallest(name)), name) <= min(costs)
        assert space.largest_cost(name) >= max(costs)


@pytest.mark.slow
def test_the_walk_meets_only_what_limits_allow_and_nothing_twice(space: SearchSpace) -> None:
    least = count_cost(space.smallest("macs"))
    limits = Limits(max_macs=2 * least.macs, max_params=2 * count_cost(space.smallest("params")).params)
    digests = []
    for arch, _ in zip(architectures_within(space, limits), range(200), strict=False):
        assert limits.allow(count_cost(arch))
        digests.append(arch.digest)
    assert digests
    assert len(set(digests)) == len(digests)


def test_the_walk_of_a_small_space_meets_all_of_it() -> None:
    few = get(tiny.FewModels.name, SpaceSettings())
    found = [arch.digest for arch in architectures_within(few, Limits())]
    assert len(found) == len(set(found)) == few.size


def test_what_an_optuna_trial_suggests_is_of_the_space(space: SearchSpace) -> None:
    rng = random.Random(2)
    for _ in range(20):
        drawn = {choice.name: rng.choice(choice.values) for choice in space.choices}
        trial = optuna.trial.FixedTrial(drawn)
        arch = space.suggest(trial)
        assert arch == space.decode(drawn)
        assert space.contains(arch)
        assert trial.distributions == {choice.name: distribution(choice) for choice in space.choices}


def test_samples_satisfy_tight_limits_and_impossible_ones_are_refused(space: SearchSpace) -> None:
    least = count_cost(space.smallest("macs"))
    bounded = space.within(Limits(max_macs=int(1.2 * least.macs)))
    for seed in range(3):
        assert bounded.contains(bounded.sample(random.Random(seed)))
    with pytest.raises(SpaceError, match=f"^max_macs: must be at least {least.macs:,} .*, got {least.macs - 1:,}$"):
        space.within(Limits(max_macs=least.macs - 1)).check_limits()


def test_the_smallest_has_as_many_parameters_as_its_cost_says(space: SearchSpace) -> None:
    for name in ("params", "macs"):
        arch = space.smallest(name)
        with torch.device("meta"):
            model = build(arch)
        assert count_cost(arch).params == sum(parameter.numel() for parameter in model.parameters())
