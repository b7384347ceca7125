"""t2t_vit: T2T-ViTs are points of it, soft splits give the map that was asked for, and it is counted exactly."""

import itertools
import random
from math import prod

import pytest
import torch

import search_spaces
from metaformer import Architecture, build, zoo
from metaformer.specs import AttentionSpec, Dense, Mlp, TokensToToken
from metaformer.specs.parts import SOFT_SPLITS
from search_spaces import SearchSpace, SpaceError, SpaceSettings
from search_spaces.one_stage import sides_by_patch
from search_spaces.space import Genes
from search_spaces.t2t_vit import DEPTHS, OVERLAPS, dense_groups, share_stride, soft_split

IMAGENET = search_spaces.get("t2t_vit")
SMALL = SpaceSettings(resolution=32, num_classes=10, width_scale=0.25)
CIFAR = search_spaces.get("t2t_vit", SMALL)
STRUCTURES = search_spaces.get("t2t_structures")
SMALL_STRUCTURES = search_spaces.get("t2t_structures", SMALL)
STRUCTURED = ("t2t_vit_14_se", "t2t_vit_16_ghost")
BESIDE = (*STRUCTURED, "t2t_vit_14_resnext")  # whose heads no width of the space has
NAMES = tuple(name for name in zoo.names() if name.startswith("t2t_vit") and name not in BESIDE)


def test_the_papers_models_are_points_of_the_space_exactly() -> None:
    assert len(NAMES) == 9
    assert tuple(IMAGENET.references()) == NAMES
    for name, arch in IMAGENET.references().items():
        assert arch == zoo.get(name)
        assert IMAGENET.decode(IMAGENET.encode(zoo.get(name))) == zoo.get(name)


def test_references_are_all_models_of_the_zoo_that_the_genes_can_express() -> None:
    assert {name for name in zoo.names() if IMAGENET.contains(zoo.get(name))} == set(NAMES)


@pytest.mark.parametrize("name", sorted(set(zoo.names()) - set(NAMES)))
def test_a_model_that_the_genes_cannot_express_is_refused_with_a_reason(name: str) -> None:
    with pytest.raises(SpaceError, match="must"):
        IMAGENET.encode(zoo.get(name))


def test_a_reference_for_small_images_keeps_its_stem_and_depth_and_has_the_next_smaller_map() -> None:
    for name, arch in CIFAR.references().items():
        published = zoo.get(name)
        assert isinstance(arch.stem, TokensToToken)
        assert isinstance(published.stem, TokensToToken)
        assert (arch.stem.attention, arch.stem.token_width) == (published.stem.attention, 16)
        assert (arch.stages[0].depth, arch.stages[0].width) == (published.depth, published.stages[0].width // 4)
        assert arch.sides() == (8,)


@pytest.mark.parametrize("resolution", [16, 32, 48, 64, 128, 160, 224, 384])
def test_soft_splits_share_out_the_pixels_of_a_patch_whatever_their_overlap(resolution: int) -> None:
    for patch, side in sides_by_patch(resolution).items():
        strides = share_stride(patch)
        assert (len(strides), prod(strides)) == (3, patch)
        for kernel in OVERLAPS.values():
            left = resolution
            for stride in strides:
                left = soft_split(kernel(stride), stride).out_side(left)
            assert left == side


def test_the_overlap_of_the_paper_gives_its_soft_splits() -> None:
    assert tuple(soft_split(OVERLAPS["paper"](stride), stride) for stride in share_stride(16)) == SOFT_SPLITS
    for stride in (1, 2, 4, 7, 8):
        assert len({kernel(stride) for kernel in OVERLAPS.values()}) == len(OVERLAPS)


@pytest.mark.parametrize("space", [IMAGENET, CIFAR, STRUCTURES, SMALL_STRUCTURES], ids=lambda space: space.name)
def test_the_size_counts_every_different_architecture_once(space: SearchSpace) -> None:
    """All combinations of what leads to the blocks, and of what they have; each at two values of width and depth."""
    few = {"width": 2, "depth": 2}
    values = {choice.name: choice.values[: few.get(choice.name)] for choice in space.choices}
    base = space.encode(space.references()["t2t_vit_7"])
    stem = ("stem", "patch", "overlap", "token_width")
    counted = 1
    for names in (stem, tuple(name for name in values if name not in stem)):
        drawn = itertools.product(*(values[name] for name in names))
        counted *= len({space.decode({**base, **dict(zip(names, genes, strict=True))}).digest for genes in drawn})
    widths, depths = (next(len(c.values) for c in space.choices if c.name == name) for name in few)
    assert space.size == counted * widths * depths // 4


def test_what_leads_into_plain_patches_has_one_canonical_value() -> None:
    base = {**IMAGENET.encode(zoo.get("t2t_vit_14")), "stem": "patches"}
    found: list[Genes] = [
        IMAGENET.encode(IMAGENET.decode({**base, "overlap": overlap, "token_width": width}))
        for overlap in OVERLAPS
        for width in (32, 64)
    ]
    assert all(genes == found[0] for genes in found)


def test_sampled_architectures_run_at_the_size_of_the_space() -> None:
    for name in ("t2t_vit", "t2t_structures"):
        space = search_spaces.get(name, SpaceSettings(resolution=16, num_classes=10, width_scale=0.0625))
        rng = random.Random(2)
        for _ in range(6):
            assert build(space.sample(rng)).eval()(torch.zeros(2, 3, 16, 16)).shape == (2, 10)


@pytest.mark.parametrize("width_scale", [0.25, 0.0625])
def test_every_structure_is_valid_at_every_width_and_head_size(width_scale: float) -> None:
    space = search_spaces.get("t2t_structures", SpaceSettings(resolution=16, num_classes=10, width_scale=width_scale))
    values = {choice.name: choice.values for choice in space.choices}
    base = space.encode(space.sample(random.Random(0)))
    names = ("structure", "head_size", "width")
    for genes in itertools.product(*(values[name] for name in names), values["depth"][::10]):
        arch = space.decode({**base, **dict(zip((*names, "depth"), genes, strict=True))})
        assert Architecture.from_yaml(arch.to_yaml()) == arch


def test_token_layers_that_cannot_be_scaled_to_an_even_width_are_refused() -> None:
    with pytest.raises(
        SpaceError, match=r"^settings\.width_scale: must turn the width 32 of token layers .*got 0\.03125$"
    ):
        search_spaces.get("t2t_vit", SpaceSettings(width_scale=0.03125))


def test_structures_have_all_that_t2t_vit_has_beside_four_times_as_much_with_smaller_heads() -> None:
    assert STRUCTURES.size == IMAGENET.size * 4 * 3 // 2
    assert STRUCTURES.references() == {name: zoo.get(name) for name in (*NAMES, *STRUCTURED)}
    assert {name for name in zoo.names() if STRUCTURES.contains(zoo.get(name))} == {*NAMES, *STRUCTURED}
    assert search_spaces.get("t2t_vit+t2t_structures").size == STRUCTURES.size


def test_a_structure_is_the_same_model_with_these_parts() -> None:
    plain = STRUCTURES.encode(zoo.get("t2t_vit_14"))
    assert plain["structure"] == "plain"
    stages = {name: STRUCTURES.decode({**plain, "structure": name}).stages[0] for name in ("se", "ghost", "dense")}
    assert stages["se"].se_reduction == 16
    assert stages["ghost"].mixer == AttentionSpec(head_size=64, ghost=True)
    assert stages["ghost"].mlp == Mlp(ratio=3, ghost=True)
    assert stages["dense"].dense == Dense(growth=64, groups=(2, 5, 4, 3))
    assert all(width % 64 == 0 for width in stages["dense"].widths)


def test_transitions_stand_where_those_of_t2t_vit_dense_do() -> None:
    assert dense_groups(19) == (3, 6, 6, 4)
    for depth in DEPTHS:
        groups = dense_groups(depth)
        assert (sum(groups), len(groups), min(groups) > 0) == (depth, 4, True)


@pytest.mark.parametrize("structure", ["se", "ghost", "dense"])
def test_the_plain_space_refuses_a_structure(structure: str) -> None:
    genes = {**STRUCTURES.encode(zoo.get("t2t_vit_7")), "structure": structure}
    with pytest.raises(SpaceError, match="must"):
        IMAGENET.encode(STRUCTURES.decode(genes))
