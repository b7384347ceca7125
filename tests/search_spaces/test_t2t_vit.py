"""t2t_vit: T2T-ViTs are points of it, soft splits give the map that was asked for, and it is counted exactly."""

import itertools
import random
from math import prod

import pytest
import torch

import search_spaces
from metaformer import build, zoo
from metaformer.specs import TokensToToken
from metaformer.specs.parts import SOFT_SPLITS
from search_spaces import SearchSpace, SpaceError, SpaceSettings
from search_spaces.one_stage import sides_by_patch
from search_spaces.space import Genes
from search_spaces.t2t_vit import OVERLAPS, share_stride, soft_split

IMAGENET = search_spaces.get("t2t_vit")
CIFAR = search_spaces.get("t2t_vit", SpaceSettings(resolution=32, num_classes=10, width_scale=0.25))
NAMES = tuple(name for name in zoo.names() if name.startswith("t2t_vit"))


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


@pytest.mark.parametrize("space", [IMAGENET, CIFAR], ids=["224", "32"])
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
    space = search_spaces.get("t2t_vit", SpaceSettings(resolution=16, num_classes=10, width_scale=0.0625))
    rng = random.Random(2)
    for _ in range(6):
        assert build(space.sample(rng)).eval()(torch.zeros(2, 3, 16, 16)).shape == (2, 10)


def test_token_layers_that_cannot_be_scaled_to_an_even_width_are_refused() -> None:
    with pytest.raises(
        SpaceError, match=r"^settings\.width_scale: must turn the width 32 of token layers .*got 0\.03125$"
    ):
        search_spaces.get("t2t_vit", SpaceSettings(width_scale=0.03125))
