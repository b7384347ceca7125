"""The closed-form cost is exact: torch's FLOP counter, fvcore and published figures are the oracles."""

import csv
from functools import cache
from importlib.resources import files
from math import prod
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from metaformer import Architecture, ArchitectureError, build, count_cost, zoo
from metaformer.network.layers import ChannelLayerNorm
from metaformer.specs import (
    AttentionSpec,
    Interleaved,
    PartCost,
    RandomSpec,
    SepConvSpec,
    SpatialMlpSpec,
    Stage,
    TokenMap,
)
from tests.strategies import architectures
from tests.thorough import every_third, thorough

NORMS_OF_FVCORE = {"group_norm", "layer_norm", "batch_norm"}  # it counts their element-wise work as MACs


def macs_by_torch(arch: Architecture, *, resolution: int, device: str) -> float:
    """Half of what torch's counter saw in one forward pass over one image."""
    with torch.device(device):
        model = build(arch).eval()
        x_BCHW = torch.zeros(1, arch.stem.in_channels, resolution, resolution)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(x_BCHW)
    return counter.get_total_flops() / 2


def params_by_torch(model: nn.Module) -> tuple[int, int]:
    """Trainable parameters of a built model, and numbers that it keeps and never trains."""
    assert all(parameter.requires_grad for parameter in model.parameters())
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    frozen = sum(buffer.numel() for name, buffer in model.named_buffers() if not name.endswith(statistics))
    return sum(parameter.numel() for parameter in model.parameters()), frozen


@pytest.mark.slow
@settings(max_examples=60)
@given(architectures())
def test_macs_are_those_of_the_flop_counter_of_torch(arch: Architecture) -> None:
    assert count_cost(arch).macs == macs_by_torch(arch, resolution=arch.resolution, device="meta")


@settings(max_examples=60)
@given(architectures())
def test_parameters_are_those_of_the_built_model(arch: Architecture) -> None:
    with torch.device("meta"):
        model = build(arch)
    cost = count_cost(arch)
    assert (cost.params, cost.frozen_params) == params_by_torch(model)


@pytest.mark.parametrize("every", [2, 3, 4, 5])
def test_blocks_with_an_interleaved_mixer_cost_what_torch_sees(every: int) -> None:
    other = Interleaved(mixer=AttentionSpec(head_size=8), every=every)
    stage = Stage(depth=5, width=16, mixer=SepConvSpec(), interleaved=other)
    arch = Architecture(resolution=32, stages=(stage,))
    with torch.device("meta"):
        model = build(arch)
    has_attention = [any("qkv" in name for name, _ in block.named_parameters()) for block in model.stages[0].blocks]
    assert has_attention == [(block + 1) % every == 0 for block in range(5)]
    cost = count_cost(arch)
    assert (cost.params, cost.frozen_params) == params_by_torch(model)
    assert cost.macs == macs_by_torch(arch, resolution=32, device="meta")


@pytest.mark.slow
@settings(max_examples=20)
@given(architectures().filter(lambda arch: not arch.fixes_resolution))
def test_macs_at_another_resolution_are_those_of_the_same_model_there(arch: Architecture) -> None:
    resolution = arch.resolution + 16
    macs = count_cost(arch, resolution=resolution).macs
    assert macs == macs_by_torch(arch, resolution=resolution, device="meta")


@pytest.mark.parametrize("name", ["metaformer_ppaa_s12_224", "metaformer_random_s12_224"])
def test_the_counter_sees_fused_attention_on_the_cpu_as_on_the_meta_device(name: str) -> None:
    """The property tests count on the meta device, which runs the unfused products."""
    assert count_cost(zoo.get(name)).macs == macs_by_torch(zoo.get(name), resolution=224, device="cpu")


def count_attention(inputs: list[Any], outputs: list[Any]) -> int:
    """MACs of a fused attention, which fvcore does not know: query times key, weights times value."""
    query_BhNd, key_BhMd, value_BhMd = (list(value.type().sizes()) for value in inputs[:3])
    return prod(query_BhNd) * key_BhMd[-2] + prod(query_BhNd[:-1]) * prod(value_BhMd[-2:])


def macs_by_fvcore(arch: Architecture) -> dict[str, int]:
    """MACs by operator in one forward pass over one image, counted on a model whose weights are never drawn."""
    fvcore_nn = pytest.importorskip("fvcore.nn")
    with torch.device("meta"):
        model = build(arch).eval()
    x_BCHW = torch.zeros(1, arch.stem.in_channels, arch.resolution, arch.resolution)
    analysis = fvcore_nn.FlopCountAnalysis(model.to_empty(device="cpu"), x_BCHW)
    analysis.set_op_handle("aten::scaled_dot_product_attention", count_attention)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    return {operator: int(macs) for operator, macs in analysis.by_operator().items()}


def by_weight() -> list[Any]:
    """The zoo up to 4.5 GMACs, and a third of the larger models, which are slow since fvcore runs them."""
    heavy = [name for name in zoo.names() if count_cost(zoo.get(name)).macs > 4.5e9]
    return [*every_third([name for name in zoo.names() if name not in heavy]), *thorough(heavy[::3])]


class Walk(NamedTuple):
    """What torch says of a model of the zoo in one forward pass over one image, on the meta device."""

    params: tuple[int, int]  # trainable, frozen
    macs: float
    shapes: list[tuple[int, ...]]  # of the maps and the logits
    norms: dict[str, tuple[nn.Module, int]]  # by path each norm, and how many elements it normalises


@cache
def walk(name: str) -> Walk:
    arch = zoo.get(name)
    with torch.device("meta"):
        model = build(arch).eval()
        x_BCHW = torch.zeros(1, arch.stem.in_channels, arch.resolution, arch.resolution)
    norms: dict[str, tuple[nn.Module, int]] = {}

    def note(path: str, norm: nn.Module) -> None:
        norm.register_forward_hook(lambda _, inputs, output: norms.update({path: (norm, output.numel())}))

    for path, module in model.named_modules():
        if isinstance(module, nn.GroupNorm | nn.BatchNorm2d | nn.LayerNorm | ChannelLayerNorm):
            note(path, module)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        maps = model.features(x_BCHW)
        logits = model.head(maps[-1])
    shapes = [tuple(tensor.shape) for tensor in (*maps, logits)]
    return Walk(params_by_torch(model), counter.get_total_flops() / 2, shapes, norms)


@pytest.mark.parametrize("name", every_third(zoo.names()))
def test_a_zoo_model_has_the_cost_and_the_shapes_that_torch_sees(name: str) -> None:
    arch, cost, seen = zoo.get(name), count_cost(zoo.get(name)), walk(name)
    assert (cost.params, cost.frozen_params) == seen.params
    assert cost.macs == seen.macs
    maps = [(1, stage.width, *tokens.shape) for stage, tokens in zip(arch.stages, arch.token_maps(), strict=True)]
    assert seen.shapes == [*maps, (1, arch.head.num_classes)]


# fvcore scripts a loss function when it is imported, which torch 2.15 deprecates.
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")
@pytest.mark.parametrize("name", by_weight())
def test_macs_are_those_of_fvcore_without_its_norms(name: str) -> None:
    by_operator = macs_by_fvcore(zoo.get(name))
    counted = {operator: macs for operator, macs in by_operator.items() if operator not in NORMS_OF_FVCORE}
    assert set(counted) <= {"conv", "linear", "matmul", "scaled_dot_product_attention"}
    assert count_cost(zoo.get(name)).macs == sum(counted.values())


def published_figures() -> dict[str, str]:
    """The figure fvcore gives for the official code, by zoo name, as printed.

    The row without channel MLP is left out: it was counted with the second norms, which our model does not have.
    """
    text = files("metaformer.zoo").joinpath("published.csv").read_text(encoding="utf-8")
    rows = {row["name"]: row["macs_fvcore_measured_G"] for row in csv.DictReader(text.splitlines()) if row["name"]}
    return {name: figure for name, figure in rows.items() if figure and name != "poolformer_s12_no_channel_mlp"}


def official_extras(name: str) -> int:
    """What fvcore counts in the official code beyond convolutions, linear layers and matrix products.

    5 per element of a layer or group norm and 2 of a batch norm in evaluation; nothing for norms written by hand,
    which are the layer norms of PoolFormer's hybrids and, but for the last, all of the Baselines without ConvFormer
    and CAFormer, whose block norms are PyTorch's. PVT resizes three maps of positions to the size they have, 4 per
    element. ConvMixer's depthwise convolutions have padding "same", an operator that fvcore does not know; its pooling
    is one per element. RandFormer's products are einsums, whose count fvcore reads from a text of four digits.
    """
    arch, norms = zoo.get(name), walk(name).norms
    if name.startswith("convmixer"):
        (stage,), (tokens,) = arch.stages, arch.token_maps()
        unseen = stage.mixer.cost(stage.width, tokens).macs * stage.depth
        pooled = stage.width * tokens.num_tokens
        return 2 * sum(elements for _, elements in norms.values()) + pooled - unseen
    if name.startswith(("poolformer_", "metaformer_")):
        return 5 * sum(elements for norm, elements in norms.values() if isinstance(norm, nn.GroupNorm))
    if name.startswith(("identityformer", "randformer", "poolformerv2")):
        return 5 * norms["head.norm"][1] + sum(
            (round(float(f"{2 * product:.3e}")) // 2 - product) * stage.depth
            for stage, tokens in zip(arch.stages, arch.token_maps(), strict=True)
            for product in [stage.mixer.cost(stage.width, tokens).macs]
        )
    if name.startswith(("convformer", "caformer")):
        return 5 * sum(elements for path, (_, elements) in norms.items() if ".embed." not in path)
    resized = 4 * (28**2 * 128 + 14**2 * 320 + 7**2 * 512) if name.startswith("pvt") else 0
    return 5 * sum(elements for _, elements in norms.values()) + resized


@pytest.mark.parametrize("name", every_third([*published_figures()]))
def test_macs_with_what_fvcore_adds_round_to_the_published_figure(name: str) -> None:
    figure = published_figures()[name]
    digits = len(figure.partition(".")[2])
    assert round((count_cost(zoo.get(name)).macs + official_extras(name)) / 1e9, digits) == float(figure)


def test_poolformer_s12_is_made_of_the_three_figures_of_the_official_code() -> None:
    """Convolutions (our linear layers over channels among them) 1811.76 M, classifier 0.51 M, GroupNorm 10.41 M."""
    cost = count_cost(zoo.get("poolformer_s12"))
    convolutions = sum(stage.total.macs for stage in cost.stages)
    assert round(convolutions / 1e6, 2) == 1811.76
    assert round(cost.head.macs / 1e6, 2) == 0.51
    assert round((cost.macs + 10.41e6) / 1e9, 4) == 1.8227


@settings(max_examples=100)
@given(architectures())
def test_the_total_is_the_sum_of_the_stages_and_the_head(arch: Architecture) -> None:
    cost = count_cost(arch)
    parts = [part for stage in cost.stages for part in (stage.embedding, stage.mixer, stage.mlp)] + [cost.head]
    assert cost.macs == sum(part.macs for part in parts)
    assert cost.params == sum(part.params for part in parts)
    assert cost.frozen_params == sum(part.frozen_params for part in parts)


def test_only_position_wise_parts_cost_more_on_a_larger_image() -> None:
    arch = zoo.get("poolformer_s12")
    small, large = count_cost(arch, resolution=224), count_cost(arch, resolution=448)
    assert large.params == small.params
    assert large.macs - large.head.macs == 4 * (small.macs - small.head.macs)
    assert large.head == small.head


@pytest.mark.parametrize("spec", [SpatialMlpSpec(), RandomSpec()])
def test_a_matrix_over_positions_has_side_to_the_fourth_numbers(spec: SpatialMlpSpec | RandomSpec) -> None:
    cost = spec.cost(320, TokenMap(14))
    assert cost.params + cost.frozen_params == 196 * 196
    assert cost.macs == 196 * 196 * 320


def test_a_part_taken_several_times_is_added_to_itself() -> None:
    part = PartCost(params=2, frozen_params=3, macs=5)
    assert part * 3 == part + part + part


@pytest.mark.parametrize(
    ("name", "resolution", "message"),
    [
        ("poolformer_s12", 1, "resolution: stage 0 would have no token left at 1 pixels"),
        ("metaformer_ppaa_s12_224", 192, "resolution: must be 224, .*position embedding.* fixes, got 192"),
        ("metaformer_ppff_s12_224", 256, "resolution: must be 224, which a spatial MLP.* fixes, got 256"),
        ("metaformer_random_s12_224", 32, "resolution: must be 224, .*a random matrix.* fixes, got 32"),
    ],
)
def test_a_resolution_that_the_model_cannot_take_is_refused(name: str, resolution: int, message: str) -> None:
    with pytest.raises(ArchitectureError, match=message):
        count_cost(zoo.get(name), resolution=resolution)
