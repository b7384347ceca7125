"""hybrid_stages: the papers' models are points of it, and its genes say the same as its architectures."""

import itertools
import random
import re

import optuna
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import search_spaces
from metaformer import build, count_cost, zoo
from metaformer.architecture import Architecture
from metaformer.specs import AttentionSpec, Stem
from nas.session.proposers.optuna_samplers import distribution
from search_spaces import Limits, SearchSpace, SpaceError, SpaceSettings
from search_spaces.hybrid_stages import DEPTHS, RATIOS, REFERENCES, share_depth
from search_spaces.space import Genes, register_space
from tests.search_spaces.tiny import TwoModels

SMALL = SpaceSettings(
    resolution=32, num_classes=10, stem=Stem(kernel=3, stride=2, padding=1), width_scale=0.125, limits=Limits()
)
IMAGENET_SPACE = search_spaces.get("hybrid_stages")
SMALL_SPACE = search_spaces.get("hybrid_stages", SMALL)
NOT_EXPRESSIBLE = {  # of the paper whose models the space is made from
    "metaformer_random_s12_224",
    "poolformer_s12_no_norm",
    "poolformer_s12_relu",
    "poolformer_s12_silu",
    "poolformer_s12_no_residual",
    "poolformer_s12_no_channel_mlp",
}


def genes(space: SearchSpace) -> st.SearchStrategy[Genes]:
    """Any value for each gene."""
    return st.fixed_dictionaries({choice.name: st.sampled_from(choice.values) for choice in space.choices})


def within(limits: Limits) -> SearchSpace:
    return search_spaces.get("hybrid_stages", SMALL.model_copy(update={"limits": limits}))


@pytest.mark.parametrize("name", REFERENCES)
def test_a_hand_designed_model_is_a_point_of_the_space_exactly(name: str) -> None:
    assert IMAGENET_SPACE.contains(zoo.get(name))
    assert IMAGENET_SPACE.decode(IMAGENET_SPACE.encode(zoo.get(name))) == zoo.get(name)
    assert IMAGENET_SPACE.references()[name] == zoo.get(name)


def test_references_are_all_models_of_the_zoo_that_the_genes_can_express() -> None:
    assert {name for name in zoo.names() if IMAGENET_SPACE.contains(zoo.get(name))} == set(REFERENCES)
    of_the_paper = {name for name in zoo.names() if name.startswith(("poolformer_", "metaformer_"))}
    assert of_the_paper == set(REFERENCES) | NOT_EXPRESSIBLE


@pytest.mark.parametrize("name", sorted(set(zoo.names()) - set(REFERENCES)))
def test_a_model_that_the_genes_cannot_express_is_refused_with_a_reason(name: str) -> None:
    with pytest.raises(SpaceError, match="must"):
        IMAGENET_SPACE.encode(zoo.get(name))


@pytest.mark.parametrize("name", REFERENCES)
def test_a_reference_fitted_to_small_images_keeps_its_pattern(name: str) -> None:
    published, fitted = zoo.get(name), SMALL_SPACE.references()[name]
    for large, small in zip(published.stages, fitted.stages, strict=True):
        assert (small.depth, small.norm, small.mixer.kind) == (large.depth, large.norm, large.mixer.kind)
        assert small.width * 8 == large.width
        assert small.position_embedding == large.position_embedding
        if isinstance(large.mixer, AttentionSpec) and isinstance(small.mixer, AttentionSpec):
            assert small.width // small.mixer.head_size == large.width // large.mixer.head_size
    assert fitted.head.num_classes == 10
    assert fitted.sides() == (16, 8, 4, 2)


@given(genes(SMALL_SPACE))
def test_what_an_optuna_trial_suggests_encodes_back_to_its_canonical_genes(drawn: Genes) -> None:
    arch = SMALL_SPACE.suggest(optuna.trial.FixedTrial(drawn))
    canonical = SMALL_SPACE.encode(arch)
    assert arch == SMALL_SPACE.decode(drawn)
    assert SMALL_SPACE.contains(arch)
    assert SMALL_SPACE.decode(canonical) == arch
    assert SMALL_SPACE.encode(SMALL_SPACE.decode(canonical)) == canonical
    assert list(canonical) == [choice.name for choice in SMALL_SPACE.choices]


@given(genes(SMALL_SPACE))
def test_suggest_uses_the_distributions_that_samplers_are_given(drawn: Genes) -> None:
    trial = optuna.trial.FixedTrial(drawn)
    SMALL_SPACE.suggest(trial)
    assert trial.distributions == {choice.name: distribution(choice) for choice in SMALL_SPACE.choices}


def test_the_kernel_size_of_a_stage_without_kernel_has_one_canonical_value() -> None:
    drawn = SMALL_SPACE.encode(SMALL_SPACE.references()["poolformer_s12"])
    for mixer, size in itertools.product(("attention", "spatial_mlp", "identity"), (3, 5, 7, 9)):
        arch = SMALL_SPACE.decode({**drawn, "mixer_3": mixer, "size_3": size})
        assert SMALL_SPACE.encode(arch)["size_3"] == 3


def test_pool_sizes_with_equal_genes_compute_the_same_and_others_do_not() -> None:
    """The oracle is the network itself: windows of 5, 7 and 9 over 2 x 2 tokens are the whole map."""
    drawn = SMALL_SPACE.encode(SMALL_SPACE.references()["poolformer_s12"])
    for stage, side in zip((1, 2, 3, 4), (16, 8, 4, 2), strict=True):
        x_BCHW = torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(stage))
        pooled = {
            size: torch.nn.functional.avg_pool2d(x_BCHW, size, 1, size // 2, count_include_pad=False)
            for size in (3, 5, 7, 9)
        }
        for one, other in itertools.combinations(pooled, 2):
            archs = [SMALL_SPACE.decode({**drawn, f"size_{stage}": size}) for size in (one, other)]
            same = torch.allclose(pooled[one], pooled[other], atol=1e-6)
            assert (archs[0].digest == archs[1].digest) == same, (side, one, other)


def test_the_size_counts_every_different_architecture_once() -> None:
    """One stage at a time, the others fixed: the sizes multiply, since a stage's genes do not touch another's."""
    base = SMALL_SPACE.encode(SMALL_SPACE.references()["metaformer_id_s12"])
    choices = {choice.name: choice.values for choice in SMALL_SPACE.choices}
    total = len({share_depth(depth, ratio) for depth in DEPTHS for ratio in RATIOS})
    for i in (1, 2, 3, 4):
        names = [f"mixer_{i}", f"size_{i}", f"norm_{i}", f"width_{i}"]
        drawn = itertools.product(*(choices[name] for name in names))
        stages = {
            SMALL_SPACE.decode({**base, **dict(zip(names, values, strict=True))}).stages[i - 1].model_dump_json()
            for values in drawn
        }
        # a stage that becomes the first with attention gains positions, which no gene counts
        total *= len(stages)
    assert SMALL_SPACE.size == total


@given(st.sampled_from(DEPTHS), st.sampled_from(RATIOS))
def test_depth_is_shared_out_completely_with_a_block_for_every_stage(depth: int, ratio: str) -> None:
    shares = share_depth(depth, ratio)
    assert sum(shares) == depth
    assert min(shares) >= 1


def test_depth_is_shared_out_as_poolformer_does() -> None:
    for depth in (12, 24, 36, 48):
        assert share_depth(depth, "1:1:3:1") == (depth // 6, depth // 6, depth // 2, depth // 6)


@pytest.mark.slow
@given(st.integers(0, 10**6), st.sampled_from([20_000, 40_000, 200_000, None]), st.sampled_from([300_000, 10**6, None]))
@settings(max_examples=20)
def test_samples_satisfy_the_limits_however_tight(seed: int, max_params: int | None, max_macs: int | None) -> None:
    space = within(Limits(max_params=max_params, max_macs=max_macs))
    arch = space.sample(random.Random(seed))
    assert space.contains(arch)
    assert space.sample(random.Random(seed)) == arch


def test_samples_without_limits_take_every_value_of_every_gene() -> None:
    rng = random.Random(0)
    drawn = [SMALL_SPACE.encode(SMALL_SPACE.sample(rng)) for _ in range(400)]
    for choice in SMALL_SPACE.choices:
        assert {one[choice.name] for one in drawn} == set(choice.values), choice.name


def test_the_smallest_architecture_is_as_small_as_the_space_allows() -> None:
    """Against every combination of the genes that matter for cost, at the smallest widths and depth."""
    base = SMALL_SPACE.encode(SMALL_SPACE.smallest("params"))
    least = {name: base[name] for name in base if name.startswith(("width", "depth"))}
    assert least == {f"width_{i}": v for i, v in zip((1, 2, 3, 4), (32, 64, 128, 256), strict=True)} | {
        "depth": 6,
        "depth_ratio": least["depth_ratio"],
    }
    rng = random.Random(0)
    sampled = [count_cost(SMALL_SPACE.sample(rng)) for _ in range(500)]
    ratios = [count_cost(SMALL_SPACE.decode({**base, "depth_ratio": ratio})) for ratio in RATIOS]
    assert count_cost(SMALL_SPACE.smallest("params")).params <= min(cost.params for cost in sampled + ratios)
    assert count_cost(SMALL_SPACE.smallest("macs")).macs <= min(cost.macs for cost in sampled + ratios)
    assert SMALL_SPACE.largest_cost("macs") >= max(cost.macs for cost in sampled)
    assert SMALL_SPACE.largest_cost("params") >= max(cost.params for cost in sampled)


def test_limits_below_the_smallest_architecture_are_refused_and_say_how_small_it_is() -> None:
    params = count_cost(SMALL_SPACE.smallest("params")).params
    macs = count_cost(SMALL_SPACE.smallest("macs")).macs
    with pytest.raises(SpaceError, match=re.escape(f"max_params: must be at least {params:,}") + ".*got 1,000"):
        within(Limits(max_params=1_000)).check_limits()
    with pytest.raises(SpaceError, match=re.escape(f"max_macs: must be at least {macs:,}")):
        within(Limits(max_macs=macs - 1)).sample(random.Random(0))
    within(Limits(max_params=params)).check_limits()


def test_limits_that_exclude_each_other_are_refused_together() -> None:
    slim, coarse = (count_cost(TwoModels(SMALL).decode({"which": which})) for which in ("slim", "coarse"))
    assert slim.params < coarse.params
    assert slim.macs > coarse.macs
    limits = Limits(max_params=slim.params, max_macs=coarse.macs)
    space = TwoModels(SMALL.model_copy(update={"limits": limits}))
    with pytest.raises(SpaceError, match="max_params, max_macs: must leave an architecture of two_models"):
        space.check_limits()


def test_contains_refuses_what_the_limits_exclude() -> None:
    arch = SMALL_SPACE.references()["poolformer_s12"]
    assert within(Limits(max_macs=count_cost(arch).macs)).contains(arch)
    assert not within(Limits(max_macs=count_cost(arch).macs - 1)).contains(arch)


def test_features_are_numbers_in_the_unit_interval_that_tell_architectures_apart() -> None:
    rng = random.Random(1)
    archs = {arch.digest: arch for arch in (SMALL_SPACE.sample(rng) for _ in range(300))}
    features = [SMALL_SPACE.features(arch) for arch in archs.values()]
    assert len({len(numbers) for numbers in features}) == 1
    assert all(0 <= number <= 1 for numbers in features for number in numbers)
    assert len(set(features)) == len(archs)


def test_sampled_architectures_run_at_the_size_of_the_space() -> None:
    rng = random.Random(2)
    for _ in range(6):
        arch = SMALL_SPACE.sample(rng)
        assert build(arch).eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


def test_an_unknown_space_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(SpaceError, match="space: unknown name 'hybrid_stage'; known, nearest first: hybrid_stages"):
        search_spaces.get("hybrid_stage")


def test_a_resolution_that_leaves_a_stage_without_tokens_is_refused() -> None:
    with pytest.raises(SpaceError, match="resolution: must leave every stage a token.*got 1"):
        search_spaces.get("hybrid_stages", SpaceSettings(resolution=1))


def test_a_width_scale_that_splits_a_head_is_refused() -> None:
    with pytest.raises(ValueError, match="width_scale: must turn the head size 32 into a whole number, got 0.3"):
        SpaceSettings(width_scale=0.3)


def test_an_architecture_of_other_depths_or_widths_is_refused_by_name() -> None:
    arch = zoo.get("poolformer_s12")
    deeper = arch.model_copy(update={"stages": (arch.stages[0].model_copy(update={"depth": 5}), *arch.stages[1:])})
    with pytest.raises(SpaceError, match="stages: must have depths that hybrid_stages shares out"):
        IMAGENET_SPACE.encode(deeper)
    wide = Architecture(stages=(arch.stages[0].model_copy(update={"width": 72}), *arch.stages[1:]), head=arch.head)
    with pytest.raises(SpaceError, match="width_1: must be one of .*got 72"):
        IMAGENET_SPACE.encode(wide)
    other = arch.model_copy(update={"drop_path": 0.25})
    with pytest.raises(SpaceError, match="architecture: must follow the rules of hybrid_stages"):
        IMAGENET_SPACE.encode(other)


def test_a_name_is_registered_once() -> None:
    with pytest.raises(ValueError, match="space: must be registered once, got 'hybrid_stages' again"):
        register_space("hybrid_stages")


def test_unevenly_spaced_numbers_are_no_choice() -> None:
    with pytest.raises(SpaceError, match="size: must have evenly spaced values"):
        _ = search_spaces.Choice("size", (3, 5, 9)).numbers


def test_an_unknown_mixer_gene_is_refused() -> None:
    drawn = SMALL_SPACE.encode(SMALL_SPACE.references()["poolformer_s12"])
    with pytest.raises(SpaceError, match="mixer: must be one of"):
        SMALL_SPACE.decode({**drawn, "mixer_1": "hyena"})
