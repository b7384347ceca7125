"""isotropic: DeiT, MLP-Mixer, ResMLP and ConvMixers are points of it, and its genes are counted exactly."""

import itertools
import random
from typing import get_args

import pytest
import torch

import search_spaces
from metaformer import build, zoo
from metaformer.specs import AttentionSpec, MixerSpec
from metaformer.specs.parts import NormKind
from search_spaces import SearchSpace, SpaceError, SpaceSettings
from search_spaces.isotropic import LARGE, MIXERS, PUBLISHED, SMALL, SURROUNDINGS
from search_spaces.space import Genes

IMAGENET = search_spaces.get("isotropic")
CIFAR = search_spaces.get("isotropic", SpaceSettings(resolution=32, num_classes=10, width_scale=0.25))
TINY = search_spaces.get("isotropic", SpaceSettings(resolution=16, num_classes=10, width_scale=0.0625))


def base(space: SearchSpace, **changes: int | str) -> Genes:
    genes: Genes = {choice.name: choice.values[0] for choice in space.choices}
    return genes | changes


def test_the_papers_models_are_points_of_the_space_exactly() -> None:
    references = IMAGENET.references()
    assert tuple(references) == LARGE
    for name, arch in references.items():
        assert arch == zoo.get(name)
        assert arch.digest == zoo.get(name).digest
        assert IMAGENET.contains(zoo.get(name))
        assert IMAGENET.decode(IMAGENET.encode(zoo.get(name))) == zoo.get(name)


def test_the_convmixers_for_cifar_are_points_of_the_space_for_small_images_exactly() -> None:
    references = CIFAR.references()
    assert tuple(references) == SMALL
    for name in set(SMALL) - set(PUBLISHED):
        assert references[name] == zoo.get(name)
        assert CIFAR.encode(references[name]) == CIFAR.encode(zoo.get(name))


def test_references_are_all_models_of_the_zoo_that_the_genes_can_express() -> None:
    assert {name for name in zoo.names() if IMAGENET.contains(zoo.get(name))} == set(LARGE)


@pytest.mark.parametrize("name", sorted(set(zoo.names()) - set(LARGE)))
def test_a_model_that_the_genes_cannot_express_is_refused_with_a_reason(name: str) -> None:
    with pytest.raises(SpaceError, match="must"):
        IMAGENET.encode(zoo.get(name))


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_reference_fitted_to_small_images_keeps_its_pattern(name: str) -> None:
    [large], [small] = zoo.get(name).stages, CIFAR.references()[name].stages
    assert (small.depth, small.norm, small.mixer.kind) == (large.depth, large.norm, large.mixer.kind)
    assert (small.mlp, small.layer_scale, small.class_token) == (large.mlp, large.layer_scale, large.class_token)
    assert small.position_embedding == large.position_embedding
    assert small.width * 4 == large.width
    if isinstance(large.mixer, AttentionSpec) and isinstance(small.mixer, AttentionSpec):
        assert small.width // small.mixer.head_size == large.width // large.mixer.head_size
    [side], [published] = CIFAR.references()[name].sides(), zoo.get(name).sides()
    assert side in (8, 16)
    assert side <= published < 2 * side


def test_the_mixers_are_all_that_the_builder_has() -> None:
    assert set(MIXERS) == {kind for kind, spec in MixerSpec.known.items() if spec.__module__ == "metaformer.specs"}


def test_the_surroundings_have_every_norm() -> None:
    assert {around.norm.kind for around in SURROUNDINGS.values()} == set(get_args(NormKind)) - {"none"}


@pytest.mark.slow
def test_the_size_counts_every_different_architecture_once() -> None:
    """All combinations of genes, at one width and depth: the number of others does not hang on these."""
    for space, width, depth in ((IMAGENET, 64, 4), (TINY, 1024, 36)):
        fixed = {"width": (width,), "depth": (depth,)}
        drawn = itertools.product(*(fixed.get(choice.name, choice.values) for choice in space.choices))
        names = [choice.name for choice in space.choices]
        digests = {space.decode(dict(zip(names, genes, strict=True))).digest for genes in drawn}
        widths, depths = (len(choice.values) for choice in space.choices if choice.name in fixed)
        assert space.size == len(digests) * widths * depths


@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize("surroundings", SURROUNDINGS)
def test_genes_that_do_nothing_have_one_canonical_value(mixer: str, surroundings: str) -> None:
    genes = base(TINY, mixer=mixer, surroundings=surroundings)
    canonical = TINY.encode(TINY.decode(genes | {"size": 9, "readout": "class_token", "mlp_ratio": 4}))
    assert (canonical["size"] == 9) == (mixer in ("dwconv", "sep_conv", "pool"))
    assert (canonical["readout"] == "class_token") == (mixer == "attention" and surroundings != "convmixer")
    assert (canonical["mlp_ratio"] == 4) == (surroundings != "convmixer")


@pytest.mark.parametrize("scale", [1.0, 0.25, 0.0625, 0.03125])
def test_heads_divide_every_width(scale: float) -> None:
    space = search_spaces.get("isotropic", SpaceSettings(resolution=32, width_scale=scale))
    [widths] = [choice.values for choice in space.choices if choice.name == "width"]
    for mixer, width in itertools.product(("attention", "reduced_attention"), widths):
        [stage] = space.decode(base(space, mixer=mixer, width=width)).stages
        assert stage.width % stage.mixer.width_multiple == 0
        assert stage.width // stage.mixer.width_multiple == int(width) // 64


@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize("surroundings", SURROUNDINGS)
def test_every_mixer_runs_in_all_surroundings(mixer: str, surroundings: str) -> None:
    for readout in ("mean", "class_token"):
        genes = base(TINY, mixer=mixer, surroundings=surroundings, readout=readout, positions="learned")
        assert build(TINY.decode(genes)).eval()(torch.zeros(2, 3, 16, 16)).shape == (2, 10)


def test_samples_without_limits_take_every_value_of_every_gene() -> None:
    rng = random.Random(0)
    drawn = [CIFAR.encode(CIFAR.sample(rng)) for _ in range(400)]
    for choice in CIFAR.choices:
        assert {genes[choice.name] for genes in drawn} == set(choice.values), choice.name


def test_an_unknown_mixer_gene_is_refused() -> None:
    with pytest.raises(SpaceError, match="mixer: unknown name 'hyena'; known, nearest first: "):
        CIFAR.decode(base(CIFAR, mixer="hyena"))
