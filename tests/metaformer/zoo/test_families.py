"""Every family against timm's own models on the same weights, and what the families' parts are.

B batch, C channels, H height, W width.
"""

from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metaformer import Architecture, build, zoo
from metaformer.checkpoints import to_ours
from metaformer.specs import Activation
from metaformer.zoo.convmixer import convmixer
from tests.metaformer.checkpoints.timm_weights import pair_with_timm
from tests.thorough import every_third

FAMILIES = ("poolformerv2_", "convformer_", "caformer_", "deit_", "mixer_", "resmlp_", "convmixer_")
SMALLEST = {
    "poolformerv2_s12",
    "convformer_s18",
    "caformer_s18",
    "deit_tiny_patch16_224",
    "mixer_s16_224",
    "resmlp_12_224",
    "convmixer_1024_20_ks9_p14",
}
IN_TIMM = [name for name in zoo.names() if name.startswith(FAMILIES) and timm.is_model(name)]


def by_size() -> list[Any]:
    """The models that timm has too; all but the smallest of each family are slow."""
    return [pytest.param(name, marks=() if name in SMALLEST else pytest.mark.slow) for name in IN_TIMM]


def image(side: int, *, batch: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(1), dtype=dtype)


def test_timm_has_all_models_of_its_families_but_those_named_here() -> None:
    """The paper's ResMLP-B24 has patches of 16, the released one patches of 8; ConvMixer for CIFAR has no weights."""
    missing = {name for name in zoo.names() if name.startswith(FAMILIES)} - set(IN_TIMM)
    cifar = {"convmixer_256_8_p1_k9", "convmixer_256_8_p2_k5", "convmixer_256_16_p1_k9"}
    assert missing == {"resmlp_b24_224"} | cifar


@pytest.mark.parametrize("name", by_size())
@torch.no_grad()
def test_logits_are_those_of_timm_on_the_same_weights(name: str) -> None:
    ours, theirs = pair_with_timm(name, dtype=torch.float32)
    expected = theirs(image(224))
    largest = float(expected.abs().max())
    assert float(expected.std()) > 0.1  # the weights do not blur all images into one
    torch.testing.assert_close(ours(image(224)), expected, rtol=0, atol=1e-4 * largest)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["poolformerv2_s12", "caformer_s18", "deit_tiny_patch16_224", "resmlp_12_224"])
@torch.no_grad()
def test_logits_are_those_of_timm_in_float64_too(name: str) -> None:
    """Here an eps or an approximate GELU shows. timm's hidden layer has eps 1e-6 where the official one has 1e-5."""
    ours, theirs = pair_with_timm(name, dtype=torch.float64)
    if name.startswith("caformer"):
        theirs.head.fc.norm.eps = 1e-5
    x_BCHW = image(224, dtype=torch.float64)
    torch.testing.assert_close(ours(x_BCHW), theirs(x_BCHW), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", by_size())
def test_parameters_have_the_names_and_shapes_of_timm(name: str) -> None:
    with torch.device("meta"):
        ours, theirs = build(name).state_dict(), timm.create_model(name).state_dict()
    assert {path: weight.shape for path, weight in to_ours(theirs, zoo.get(name)).items()} == {
        path: weight.shape for path, weight in ours.items()
    }


@pytest.mark.parametrize(
    ("patch", "kernel", "activation"), [(1, 9, "gelu"), (2, 5, "gelu"), (7, 7, "relu")], ids=["p1", "p2", "relu"]
)
@torch.no_grad()
def test_a_convmixer_of_any_patch_kernel_and_activation_is_that_of_timm(
    patch: int, kernel: int, activation: Activation
) -> None:
    arch = convmixer(32, 3, patch=patch, kernel=kernel, activation=activation, resolution=28, num_classes=10)
    options = {"dim": 32, "depth": 3, "patch_size": patch, "kernel_size": kernel, "num_classes": 10}
    layer = nn.GELU if activation == "gelu" else nn.ReLU
    with torch.device("meta"):
        theirs = timm.models.convmixer.ConvMixer(**options, act_layer=layer)
    ours, theirs = pair_with_timm("convmixer", dtype=torch.float64, arch=arch, theirs=theirs)
    x_BCHW = image(28, batch=2, dtype=torch.float64)
    torch.testing.assert_close(ours(x_BCHW), theirs(x_BCHW), rtol=1e-10, atol=1e-10)
    ours.train()
    theirs.train()
    torch.testing.assert_close(ours(x_BCHW), theirs(x_BCHW), rtol=1e-9, atol=1e-9)  # statistics of the batch


FULL_SIZE = SMALLEST - {"convmixer_1024_20_ks9_p14"} | {
    "identityformer_s12",
    "randformer_s12",
    "pvt_tiny",
    "t2t_vit_7",
    "convmixer_256_8_p2_k5",
}


@pytest.mark.parametrize("name", every_third(sorted(FULL_SIZE)))
def test_every_trainable_parameter_of_a_whole_model_gets_a_gradient(name: str) -> None:
    torch.manual_seed(0)
    arch = zoo.get(name)
    model = build(arch)
    logits = model(image(arch.resolution, batch=2))
    assert logits.shape == (2, arch.head.num_classes)
    F.cross_entropy(logits, torch.tensor([1, 2])).backward()
    for path, parameter in model.named_parameters():
        assert parameter.grad is not None, path
        assert torch.isfinite(parameter.grad).all(), path


STRUCTURE = {  # depths, widths, kinds of mixers
    "identityformer_m48": ((8, 8, 24, 8), (96, 192, 384, 768), ["identity"] * 4),
    "randformer_s36": ((6, 6, 18, 6), (64, 128, 320, 512), ["identity", "identity", "random", "random"]),
    "convformer_b36": ((3, 12, 18, 3), (128, 256, 512, 768), ["sep_conv"] * 4),
    "caformer_m36": ((3, 12, 18, 3), (96, 192, 384, 576), ["sep_conv", "sep_conv", "attention", "attention"]),
    "pvt_large": ((3, 8, 27, 3), (64, 128, 320, 512), ["reduced_attention"] * 3 + ["attention"]),
    "t2t_vit_19": ((19,), (448,), ["attention"]),
}


@pytest.mark.parametrize(("name", "expected"), STRUCTURE.items())
def test_stages_follow_the_tables_of_the_papers(
    name: str, expected: tuple[tuple[int, ...], tuple[int, ...], list[str]]
) -> None:
    stages = zoo.get(name).stages
    depths, widths = tuple(stage.depth for stage in stages), tuple(stage.width for stage in stages)
    assert (depths, widths, [stage.mixer.kind for stage in stages]) == expected


DROPS = {  # drop path and dropout in the head
    "identityformer_s12": (0.1, 0.0),
    "randformer_m36": (0.3, 0.0),
    "randformer_m48": (0.3, 0.0),
    "poolformerv2_m48": (0.4, 0.0),
    "convformer_b36": (0.6, 0.0),
    "caformer_s18": (0.15, 0.0),
    "caformer_s36": (0.3, 0.4),
    "caformer_b36": (0.6, 0.5),
    "deit_small_patch16_224": (0.1, 0.0),
    "pvt_medium": (0.3, 0.0),
    "t2t_vit_24": (0.1, 0.0),
    "convmixer_768_32": (0.0, 0.0),
}


@pytest.mark.parametrize(("name", "expected"), DROPS.items())
def test_rates_of_dropping_are_those_of_the_official_scripts(name: str, expected: tuple[float, float]) -> None:
    arch = zoo.get(name)
    assert (arch.drop_path, arch.head.dropout) == expected


def spread(weight: Tensor) -> float:
    return float(weight.detach().std())


def test_the_baselines_draw_convolutions_too_from_a_truncated_normal() -> None:
    torch.manual_seed(0)
    model = build("convformer_s18")
    for path, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            assert spread(module.weight) == pytest.approx(0.02, rel=0.04), path
            assert module.bias is None or not module.bias.any(), path


def test_a_vision_transformer_draws_its_class_token_and_positions_too() -> None:
    torch.manual_seed(0)
    for name, stages in (("deit_small_patch16_224", 1), ("pvt_tiny", 4)):
        model = build(name)
        for stage in model.stages[-stages:]:
            assert spread(stage.position.pos_embed) == pytest.approx(0.02, rel=0.05)
        assert spread(model.stages[-1].class_token.cls_token) == pytest.approx(0.02, rel=0.15)


def test_convmixer_keeps_the_initial_weights_of_pytorch_and_mlp_mixer_starts_from_a_zero_classifier() -> None:
    torch.manual_seed(0)
    linear = build("convmixer_256_8_p2_k5").head.fc
    bound = linear.in_features**-0.5  # Kaiming uniform with a = sqrt(5)
    assert bound * 0.95 < float(linear.weight.detach().abs().max()) <= bound
    assert linear.bias.any()
    assert not build("mixer_s16_224").head.fc.weight.any()


def test_a_file_of_an_earlier_version_says_true_for_learned_positions() -> None:
    text = "{resolution: 64, stages: [{depth: 1, width: 32, mixer: {kind: attention}, position_embedding: %s}]}"
    assert Architecture.from_yaml(text % "true") == Architecture.from_yaml(text % "learned")
    assert Architecture.from_yaml(text % "false") == Architecture.from_yaml(text % "null")
