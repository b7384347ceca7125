"""convmixer: the ConvMixers are points of it, for photographs and for CIFAR, and its genes are counted exactly."""

import itertools
import random

import pytest
import torch

import search_spaces
from metaformer import build, zoo
from metaformer.specs import Stem
from search_spaces import SearchSpace, SpaceError, SpaceSettings
from search_spaces.convmixer import KERNELS, LARGE, SMALL
from search_spaces.one_stage import sides_by_patch

IMAGENET = search_spaces.get("convmixer")
CIFAR = search_spaces.get("convmixer", SpaceSettings(resolution=32, num_classes=10, width_scale=0.25))
CIFAR_IN_FULL = search_spaces.get("convmixer", SpaceSettings(resolution=32, num_classes=10))


def values(space: SearchSpace, name: str) -> tuple[int | str, ...]:
    return next(choice.values for choice in space.choices if choice.name == name)


@pytest.mark.parametrize(("space", "names"), [(IMAGENET, LARGE), (CIFAR, SMALL)], ids=["224", "32"])
def test_the_papers_models_are_points_of_the_space_exactly(space: SearchSpace, names: tuple[str, ...]) -> None:
    references = space.references()
    assert tuple(references) == names
    for name, arch in references.items():
        assert arch == zoo.get(name)
        assert arch.digest == zoo.get(name).digest
        assert space.contains(zoo.get(name))
        assert space.decode(space.encode(zoo.get(name))) == zoo.get(name)


def test_the_models_for_cifar_are_points_also_where_widths_are_not_scaled() -> None:
    for name in SMALL:
        assert CIFAR_IN_FULL.decode(CIFAR_IN_FULL.encode(zoo.get(name))) == zoo.get(name)


def test_references_are_all_models_of_the_zoo_that_the_genes_can_express() -> None:
    assert {name for name in zoo.names() if IMAGENET.contains(zoo.get(name))} == set(LARGE)
    assert {name for name in zoo.names() if CIFAR.contains(zoo.get(name))} == set(SMALL)
    assert {name for name in zoo.names() if name.startswith("convmixer")} == {*LARGE, *SMALL}


@pytest.mark.parametrize("name", sorted(set(zoo.names()) - set(LARGE)))
def test_a_model_that_the_genes_cannot_express_is_refused_with_a_reason(name: str) -> None:
    with pytest.raises(SpaceError, match="must"):
        IMAGENET.encode(zoo.get(name))


@pytest.mark.parametrize("resolution", [16, 48, 96, 128, 160, 192])
def test_a_reference_at_another_resolution_keeps_its_map_or_has_the_next_smaller_one(resolution: int) -> None:
    space = search_spaces.get("convmixer", SpaceSettings(resolution=resolution, num_classes=10, width_scale=0.25))
    for name, arch in space.references().items():
        [published], [fitted] = zoo.get(name).sides(), arch.sides()
        assert fitted == max(side for side in sides_by_patch(resolution).values() if side <= published)
        assert arch.stages[0].depth == zoo.get(name).stages[0].depth
        assert arch.resolution % arch.stem.kernel == 0
    if resolution > 64:
        assert {arch.sides() for arch in space.references().values()} == {(32,), (16,)}  # as at 224


@pytest.mark.parametrize(
    ("resolution", "patches"),
    [
        (8, [1, 2]),
        (16, [1, 2, 4]),
        (32, [1, 2, 4, 8]),
        (64, [2, 4, 8, 16]),
        (160, [5, 8, 10, 16, 20, 32]),
        (224, [7, 8, 14, 16, 28, 32]),
    ],
)
def test_patches_divide_the_resolution_into_a_few_to_many_tokens(resolution: int, patches: list[int]) -> None:
    assert list(sides_by_patch(resolution)) == patches
    space = search_spaces.get("convmixer", SpaceSettings(resolution=resolution))
    assert values(space, "patch") == tuple(map(str, patches))


@pytest.mark.parametrize(("resolution", "nearest"), [(1, 4), (3, 4), (37, 36), (223, 224), (8192, 1024)])
def test_a_resolution_that_no_patch_divides_is_refused_with_the_nearest_that_one_does(
    resolution: int, nearest: int
) -> None:
    with pytest.raises(SpaceError, match=rf"^resolution: must be a patch of .*, such as {nearest}, got {resolution}$"):
        search_spaces.get("convmixer", SpaceSettings(resolution=resolution))


def test_a_stem_of_the_settings_is_refused() -> None:
    with pytest.raises(SpaceError, match=r"^settings\.stem: must be left out in convmixer, .* got a kernel of 3 and"):
        search_spaces.get("convmixer", SpaceSettings(stem=Stem(kernel=3, stride=2, padding=1)))


@pytest.mark.parametrize("space", [IMAGENET, CIFAR], ids=["224", "32"])
def test_the_size_counts_every_different_architecture_once(space: SearchSpace) -> None:
    """All combinations of genes, at two widths and two depths; what the others do does not hang on these."""
    widths, depths = values(space, "width"), values(space, "depth")
    drawn = itertools.product(
        *(choice.values[:2] if choice.name in ("width", "depth") else choice.values for choice in space.choices)
    )
    names = [choice.name for choice in space.choices]
    digests = {space.decode(dict(zip(names, genes, strict=True))).digest for genes in drawn}
    assert space.size == len(digests) * len(widths) * len(depths) // 4


def test_kernels_that_see_the_whole_map_from_everywhere_are_one() -> None:
    """A kernel of 7 over 4 x 4 tokens has a weight for every pair of tokens, and larger ones have idle weights."""
    base = CIFAR.encode(CIFAR.references()["convmixer_256_8_p2_k5"])
    for patch, side in sides_by_patch(32).items():
        found = {CIFAR.decode({**base, "patch": str(patch), "kernel": kernel}).digest for kernel in KERNELS}
        assert len(found) == sum(kernel <= 2 * side - 1 for kernel in KERNELS)


def test_sampled_architectures_run_at_the_size_of_the_space() -> None:
    space = search_spaces.get("convmixer", SpaceSettings(resolution=16, num_classes=10, width_scale=0.0625))
    rng = random.Random(2)
    for _ in range(6):
        assert build(space.sample(rng)).eval()(torch.zeros(2, 3, 16, 16)).shape == (2, 10)


def test_samples_without_limits_take_every_value_of_every_gene() -> None:
    rng = random.Random(0)
    drawn = [CIFAR.encode(CIFAR.sample(rng)) for _ in range(400)]
    for choice in CIFAR.choices:
        assert {genes[choice.name] for genes in drawn} == set(choice.values), choice.name
