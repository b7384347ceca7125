"""hybrid_wide and hybrid_blocks: PoolFormers, Baselines and all of hybrid_stages are points, and they are counted."""

import itertools
import random

import pytest
import torch

import search_spaces
from metaformer import build, zoo
from metaformer.specs import AttentionSpec, Norm, PoolSpec, ReducedAttentionSpec, SepConvSpec, Stem
from search_spaces import SearchSpace, SpaceError, SpaceSettings
from search_spaces.hybrid_stages import DEPTHS, RATIOS, STAGES, share_depth
from search_spaces.hybrid_wide import REFERENCES, HybridBlocks

SMALL = SpaceSettings(resolution=32, num_classes=10, stem=Stem(kernel=3, stride=2, padding=1), width_scale=0.125)
IMAGENET_SPACE = search_spaces.get("hybrid_wide")
SMALL_SPACE = search_spaces.get("hybrid_wide", SMALL)
BLOCKS, SMALL_BLOCKS = (search_spaces.get("hybrid_blocks", settings) for settings in (SpaceSettings(), SMALL))
TINY_SPACE = search_spaces.get("hybrid_wide", SMALL.model_copy(update={"resolution": 16}))  # maps of 8 to 1 tokens


def test_hand_designed_models_are_points_of_the_space_exactly() -> None:
    families = ("poolformer", "metaformer", "identityformer", "randformer", "convformer", "caformer")
    left_out = {"poolformer_s12_no_norm", "poolformer_s12_no_residual", "poolformer_s12_no_channel_mlp"}
    left_out |= {"randformer_m48"}
    assert set(REFERENCES) == {name for name in zoo.names() if name.startswith(families)} - left_out
    for name, arch in IMAGENET_SPACE.references().items():
        assert arch == zoo.get(name), name
        assert IMAGENET_SPACE.decode(IMAGENET_SPACE.encode(zoo.get(name))) == zoo.get(name)


def test_references_are_all_models_of_the_zoo_that_the_genes_can_express() -> None:
    assert {name for name in zoo.names() if IMAGENET_SPACE.contains(zoo.get(name))} == set(REFERENCES)


@pytest.mark.parametrize("name", sorted(set(zoo.names()) - set(REFERENCES)))
def test_a_model_that_the_genes_cannot_express_is_refused_with_a_reason(name: str) -> None:
    with pytest.raises(SpaceError, match="must"):
        IMAGENET_SPACE.encode(zoo.get(name))


def test_a_reference_for_small_images_keeps_its_pattern() -> None:
    for name, small in SMALL_SPACE.references().items():
        for fitted, published in zip(small.stages, zoo.get(name).stages, strict=True):
            assert (fitted.depth, fitted.norm, fitted.mixer.kind) == (
                published.depth,
                published.norm,
                published.mixer.kind,
            )
            assert (fitted.width * 8, fitted.mlp, fitted.res_scale) == (
                published.width,
                published.mlp,
                published.res_scale,
            )


@pytest.mark.parametrize("settings", [SpaceSettings(), SMALL], ids=["224", "32"])
def test_every_architecture_of_hybrid_stages_is_one_of_it(settings: SpaceSettings) -> None:
    narrow, wide = (search_spaces.get(name, settings) for name in ("hybrid_stages", "hybrid_wide"))
    rng = random.Random(0)
    for _ in range(50):
        arch = narrow.sample(rng)
        assert wide.decode(wide.encode(arch)) == arch
    assert wide.num_shared(narrow) == narrow.size
    union = search_spaces.get("hybrid_stages+hybrid_wide", settings)
    assert (union.size, union.size_is_exact) == (wide.size, True)


@pytest.mark.parametrize("space", [IMAGENET_SPACE, SMALL_SPACE, TINY_SPACE], ids=["224", "32", "16"])
def test_the_size_counts_every_different_architecture_once(space: SearchSpace) -> None:
    """One stage at a time, then what they share: the sizes multiply, since no gene depends on another stage."""
    values = {choice.name: choice.values for choice in space.choices}
    base = space.encode(space.references()["metaformer_id_s12"])
    total = len({share_depth(depth, ratio) for depth in DEPTHS for ratio in RATIOS})
    for i in STAGES:
        names = [f"mixer_{i}", f"size_{i}", f"norm_{i}", f"width_{i}"]
        drawn = itertools.product(*(values[name][:4] if name.startswith("width") else values[name] for name in names))
        digests = {space.decode({**base, **dict(zip(names, genes, strict=True))}).digest for genes in drawn}
        total *= len(digests) * len(values[f"width_{i}"]) // 4
    shared = ["surroundings", "mlp_ratio", "activation", "scaled_skips", "head"]
    drawn = itertools.product(*(values[name] for name in shared))
    total *= len({space.decode({**base, **dict(zip(shared, genes, strict=True))}).digest for genes in drawn})
    assert space.size == total


def test_genes_of_the_whole_reach_every_stage() -> None:
    base = IMAGENET_SPACE.encode(zoo.get("convformer_s18"))
    arch = IMAGENET_SPACE.decode({**base, "activation": "silu", "mlp_ratio": 2, "scaled_skips": "all"})
    for stage in arch.stages:
        assert stage.mixer == SepConvSpec(size=7, activation="silu")
        assert stage.mlp is not None
        assert (stage.mlp.ratio, stage.mlp.activation, stage.mlp.bias) == (2, "silu", False)
        assert (stage.res_scale, stage.layer_scale) == (1.0, None)
        assert stage.norm == Norm(kind="layer_norm", eps=1e-6, bias=False)


def test_reduced_attention_keeps_seven_tokens_a_side_and_is_attention_on_one_token() -> None:
    for space, reductions in (
        (IMAGENET_SPACE, [8, 4, 2, 2]),
        (SMALL_SPACE, [2, 2, 2, 2]),
        (TINY_SPACE, [2, 2, 2, None]),
    ):
        base = space.encode(space.references()["poolformer_s12"])
        arch = space.decode({**base, **{f"mixer_{i}": "reduced_attention" for i in STAGES}})
        assert [getattr(stage.mixer, "reduction", None) for stage in arch.stages] == reductions
        assert all(isinstance(stage.mixer, ReducedAttentionSpec | AttentionSpec) for stage in arch.stages)
        assert [stage.position_embedding for stage in arch.stages] == ["learned", None, None, None]
        assert space.encode(arch)["mixer_4"] == ("reduced_attention" if reductions[-1] else "attention")


def test_hybrid_blocks_has_attention_in_every_nth_block_of_a_stage_where_that_says_anything() -> None:
    base = BLOCKS.encode(zoo.get("poolformer_s12"))
    assert [base[f"attention_{i}"] for i in STAGES] == ["never"] * 4
    pool, attention = PoolSpec(), AttentionSpec()
    for every, expected in (("2", [pool, attention] * 3), ("3", [pool, pool, attention] * 2), ("4", None)):
        arch = BLOCKS.decode({**base, "attention_3": every})
        stage = arch.stages[2]
        mixers = [stage.mixer_of(block) for block in range(stage.depth)]
        assert mixers == (expected or [pool, pool, pool, attention, pool, pool])
        assert [other.position_embedding for other in arch.stages] == [None, None, "learned", None]
        assert BLOCKS.encode(arch) == {**base, "attention_3": every}
    idle = BLOCKS.decode({**base, "mixer_1": "attention", "attention_1": "2", "attention_2": "3"})  # two blocks each
    assert BLOCKS.encode(idle) == {**base, "mixer_1": "attention"}


def test_every_architecture_of_hybrid_wide_is_one_of_hybrid_blocks() -> None:
    rng = random.Random(0)
    for _ in range(20):
        arch = SMALL_SPACE.sample(rng)
        assert SMALL_BLOCKS.decode(SMALL_BLOCKS.encode(arch)) == arch
    assert SMALL_BLOCKS.num_shared(SMALL_SPACE) == SMALL_SPACE.size
    assert set(SMALL_BLOCKS.references()) == set(REFERENCES)


@pytest.mark.parametrize(("depth", "depths"), [(6, (2, 2, 1, 1)), (12, (3, 3, 3, 3)), (24, (6, 6, 6, 6))])
def test_the_mixers_of_a_stage_of_hybrid_blocks_are_counted_with_their_patterns(
    depth: int, depths: tuple[int, ...]
) -> None:
    assert isinstance(SMALL_BLOCKS, HybridBlocks)
    own = {"depth": depth, "depth_ratio": "1:1:1:1"}
    base = {**SMALL_BLOCKS.encode(SMALL_BLOCKS.references()["metaformer_id_s12"]), **own}
    values = {choice.name: choice.values for choice in SMALL_BLOCKS.choices}
    assert share_depth(depth, "1:1:1:1") == depths
    for i in STAGES:
        names = (f"mixer_{i}", f"size_{i}", f"attention_{i}")
        drawn = itertools.product(*(values[name] for name in names))
        digests = {SMALL_BLOCKS.decode({**base, **dict(zip(names, genes, strict=True))}).digest for genes in drawn}
        assert len(digests) == SMALL_BLOCKS.num_mixers(SMALL_BLOCKS.sides[i - 1], depths[i - 1])


def test_sampled_architectures_run_at_the_size_of_the_space() -> None:
    rng = random.Random(2)
    for _ in range(8):
        assert build(TINY_SPACE.sample(rng)).eval()(torch.zeros(1, 3, 16, 16)).shape == (1, 10)


def test_an_unknown_mixer_gene_is_refused() -> None:
    drawn = SMALL_SPACE.encode(SMALL_SPACE.references()["poolformer_s12"])
    with pytest.raises(SpaceError, match="^mixer_1: unknown name 'hyena'; known, nearest first: "):
        SMALL_SPACE.decode({**drawn, "mixer_1": "hyena"})
