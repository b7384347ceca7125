"""Token mixers against independent closed forms.

B batch, C channels, H height, W width, N = H * W tokens, h heads, d channels of a head.
"""

import io
from typing import Literal

import numpy as np
import pytest
import torch
from timm.models.metaformer import Pooling
from torch import Tensor, nn

from metaformer import Architecture, ArchitectureError, build, count_cost, register_mixer
from metaformer.network import mixers
from metaformer.network.mixers import make_mixer
from metaformer.specs import (
    AttentionSpec,
    DepthwiseConvSpec,
    IdentitySpec,
    MixerSpec,
    PartCost,
    PoolSpec,
    RandomSpec,
    ReducedAttentionSpec,
    SepConvSpec,
    SpatialMlpSpec,
    Stage,
    TokenMap,
    TokenMlpSpec,
)

ALL_SPECS = [
    PoolSpec(),
    AttentionSpec(head_size=4),
    AttentionSpec(head_size=4, ghost=True),
    SpatialMlpSpec(),
    DepthwiseConvSpec(),
    IdentitySpec(),
    RandomSpec(),
    ReducedAttentionSpec(head_size=4, reduction=3),
    SepConvSpec(),
    TokenMlpSpec(hidden=5),
]


def a_map(*, width: int = 8, side: int = 6) -> Tensor:
    """A random map x_BCHW in float64, so that closed forms agree to 1e-7."""
    return torch.randn(2, width, side, side, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def windows(x_BCHW: np.ndarray, size: int) -> np.ndarray:
    """The size x size neighbours of each position in two last axes, nan where they lie outside."""
    padded = np.pad(x_BCHW, ((0, 0), (0, 0), *((size // 2, size // 2),) * 2), constant_values=np.nan)
    return np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(2, 3))


@pytest.mark.parametrize("size", [3, 5, 7, 9])
@pytest.mark.parametrize("side", [14, 4, 1])
def test_pool_agrees_with_timm(size: int, side: int) -> None:
    x_BCHW = a_map(side=side)
    torch.testing.assert_close(make_mixer(PoolSpec(size=size), 8, side=side)(x_BCHW), Pooling(size)(x_BCHW))


@pytest.mark.parametrize("size", [3, 5, 7, 9])
def test_pool_is_the_mean_of_the_neighbours_that_exist_minus_the_input(size: int) -> None:
    x_BCHW = a_map()
    expected = np.nanmean(windows(x_BCHW.numpy(), size), axis=(4, 5)) - x_BCHW.numpy()
    torch.testing.assert_close(make_mixer(PoolSpec(size=size), 8, side=6)(x_BCHW), torch.from_numpy(expected))


def test_pool_divides_by_4_in_corners_6_at_edges_and_9_inside() -> None:
    x_BCHW = a_map()
    sums = np.nansum(windows(x_BCHW.numpy(), 3), axis=(4, 5))
    neighbours = np.full((6, 6), 9.0)
    neighbours[[0, -1], :] = neighbours[:, [0, -1]] = 6.0
    neighbours[[0, 0, -1, -1], [0, -1, 0, -1]] = 4.0
    expected = torch.from_numpy(sums / neighbours) - x_BCHW
    torch.testing.assert_close(make_mixer(PoolSpec(), 8, side=6)(x_BCHW), expected)


@pytest.mark.parametrize("head_size", [2, 4, 8])
def test_attention_is_softmax_of_scaled_products_with_q_k_v_then_heads(head_size: int) -> None:
    """Row (3 parts, heads, d) of the qkv matrix; softmax(q k^T / sqrt(d)) v (arXiv:1706.03762, eq. 1)."""
    x_BCHW = a_map()
    mixer = make_mixer(AttentionSpec(head_size=head_size), 8, side=6).double()
    weights = dict(mixer.mixer.named_parameters())
    assert set(weights) == {"qkv.weight", "proj.weight", "proj.bias"}
    nn.init.normal_(weights["qkv.weight"])
    nn.init.normal_(weights["proj.bias"])
    x_BNC = x_BCHW.flatten(2).transpose(1, 2)
    heads = []
    for first in range(0, 8, head_size):
        q_BNd, k_BNd, v_BNd = (
            x_BNC @ weights["qkv.weight"][part * 8 + first : part * 8 + first + head_size].T for part in range(3)
        )
        heads.append(torch.softmax(q_BNd @ k_BNd.mT / head_size**0.5, dim=-1) @ v_BNd)
    y_BNC = torch.cat(heads, dim=-1) @ weights["proj.weight"].T + weights["proj.bias"]
    torch.testing.assert_close(mixer(x_BCHW), y_BNC.transpose(1, 2).reshape(x_BCHW.shape))


def test_spatial_mlp_is_one_matrix_over_row_major_positions_for_all_channels() -> None:
    x_BCHW = a_map()
    mixer = make_mixer(SpatialMlpSpec(), 8, side=6).double()
    (weight,) = mixer.parameters()
    w_HWIJ = weight.view(6, 6, 6, 6)
    torch.testing.assert_close(mixer(x_BCHW), torch.einsum("hwij,bcij->bchw", w_HWIJ, x_BCHW))


def randomise(mixer: nn.Module) -> dict[str, Tensor]:
    """Draw all weights anew, biases, scales and norms too; the weights by name."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / 2)
    return {name.removeprefix("mixer."): parameter.detach() for name, parameter in mixer.named_parameters()}


def test_spatial_mlp_may_have_a_bias_for_each_position() -> None:
    x_BCHW = a_map()
    mixer = make_mixer(SpatialMlpSpec(bias=True), 8, side=6).double()
    weights = randomise(mixer)
    expected = torch.einsum("nm,bcm->bcn", weights["fc.weight"], x_BCHW.flatten(2)) + weights["fc.bias"]
    torch.testing.assert_close(mixer(x_BCHW), expected.view(x_BCHW.shape))


def test_attention_may_have_biases_on_query_key_and_value_and_none_on_the_projection() -> None:
    x_BCHW = a_map()
    mixer = make_mixer(AttentionSpec(head_size=8, qkv_bias=True, proj_bias=False), 8, side=6).double()
    weights = randomise(mixer)
    assert set(weights) == {"qkv.weight", "qkv.bias", "proj.weight"}
    qkv_BN3C = x_BCHW.flatten(2).mT @ weights["qkv.weight"].T + weights["qkv.bias"]
    q_BNC, k_BNC, v_BNC = qkv_BN3C.split(8, dim=2)
    y_BNC = torch.softmax(q_BNC @ k_BNC.mT / 8**0.5, dim=-1) @ v_BNC @ weights["proj.weight"].T
    torch.testing.assert_close(mixer(x_BCHW), y_BNC.mT.reshape(x_BCHW.shape))


@pytest.mark.parametrize(("reduction", "side"), [(2, 6), (3, 6), (4, 6), (6, 6), (2, 7)])
def test_reduced_attention_looks_at_the_layer_norm_of_strided_windows(reduction: int, side: int) -> None:
    """PVT: queries from all tokens; keys and values from windows of r x r, a rest at the edge unseen."""
    x_BCHW = a_map(side=side)
    mixer = make_mixer(ReducedAttentionSpec(head_size=4, reduction=reduction), 8, side=side).double()
    weights = randomise(mixer)
    rows = range(0, side - reduction + 1, reduction)
    patches = [x_BCHW[:, :, i : i + reduction, j : j + reduction] for i in rows for j in rows]
    reduced = [torch.einsum("bcij,dcij->bd", patch, weights["reduce.weight"]) for patch in patches]
    reduced_BMC = torch.stack(reduced, dim=1) + weights["reduce.bias"]
    centred = reduced_BMC - reduced_BMC.mean(2, keepdim=True)
    normed_BMC = centred / (centred.square().mean(2, keepdim=True) + 1e-5).sqrt()
    normed_BMC = normed_BMC * weights["norm.weight"] + weights["norm.bias"]
    q_BNC = x_BCHW.flatten(2).mT @ weights["q.weight"].T + weights["q.bias"]
    k_BMC, v_BMC = (normed_BMC @ weights["kv.weight"].T + weights["kv.bias"]).split(8, dim=2)
    heads = []
    for head in (slice(0, 4), slice(4, 8)):
        attention_BNM = torch.softmax(q_BNC[..., head] @ k_BMC[..., head].mT / 4**0.5, dim=-1)
        heads.append(attention_BNM @ v_BMC[..., head])
    y_BNC = torch.cat(heads, dim=-1) @ weights["proj.weight"].T + weights["proj.bias"]
    torch.testing.assert_close(mixer(x_BCHW), y_BNC.mT.reshape(x_BCHW.shape))


def test_token_mlp_is_two_layers_over_the_positions_of_each_channel() -> None:
    x_BCHW = a_map()
    mixer = make_mixer(TokenMlpSpec(hidden=5, activation="relu"), 8, side=6).double()
    weights = randomise(mixer)
    hidden_BCh = (x_BCHW.flatten(2) @ weights["fc1.weight"].T + weights["fc1.bias"]).clamp(min=0)
    expected = hidden_BCh @ weights["fc2.weight"].T + weights["fc2.bias"]
    torch.testing.assert_close(mixer(x_BCHW), expected.view(x_BCHW.shape))


@pytest.mark.parametrize("size", [1, 3, 7])
def test_sep_conv_is_linear_star_relu_depthwise_and_linear_without_biases(size: int) -> None:
    x_BCHW = a_map()
    mixer = make_mixer(SepConvSpec(size=size, ratio=3), 8, side=6).double()
    weights = randomise(mixer)
    assert set(weights) == {"pwconv1.weight", "act1.scale", "act1.bias", "dwconv.weight", "pwconv2.weight"}
    hidden = torch.einsum("dc,bchw->bdhw", weights["pwconv1.weight"], x_BCHW)
    hidden = weights["act1.scale"] * hidden.clamp(min=0) ** 2 + weights["act1.bias"]
    neighbours = np.nan_to_num(windows(hidden.numpy(), size))
    mixed = np.einsum("bdhwij,dij->bdhw", neighbours, weights["dwconv.weight"][:, 0].numpy())
    expected = torch.einsum("cd,bdhw->bchw", weights["pwconv2.weight"], torch.from_numpy(mixed))
    torch.testing.assert_close(mixer(x_BCHW), expected)


@pytest.mark.parametrize("size", [1, 3, 7])
def test_depthwise_conv_weighs_the_neighbours_of_each_channel(size: int) -> None:
    x_BCHW = a_map()
    mixer = make_mixer(DepthwiseConvSpec(size=size), 8, side=6).double()
    (weight, bias) = (parameter.detach().numpy() for parameter in mixer.parameters())
    neighbours = np.nan_to_num(windows(x_BCHW.numpy(), size))
    expected = np.einsum("bchwij,cij->bchw", neighbours, weight[:, 0]) + bias[:, None, None]
    torch.testing.assert_close(mixer(x_BCHW), torch.from_numpy(expected))


def test_identity_returns_its_input() -> None:
    x_BCHW = a_map()
    assert torch.equal(make_mixer(IdentitySpec(), 8, side=6)(x_BCHW), x_BCHW)


def test_random_multiplies_the_tokens_by_its_matrix() -> None:
    x_BCHW = a_map()
    mixer = make_mixer(RandomSpec(), 8, side=6).double()
    m_HWIJ = mixer.state_dict()["mixer.random_matrix"].view(6, 6, 6, 6)
    torch.testing.assert_close(mixer(x_BCHW), torch.einsum("hwij,bcij->bchw", m_HWIJ, x_BCHW))


def test_rows_of_the_random_matrix_are_softmax_of_uniform_numbers_and_not_trained() -> None:
    """log of a softmax of numbers in [0, 1) spreads over less than 1 within a row, and over most of it."""
    torch.manual_seed(0)
    mixer = make_mixer(RandomSpec(), 8, side=14)
    (matrix,) = mixer.state_dict().values()
    assert matrix.shape == (196, 196)
    torch.testing.assert_close(matrix.sum(1), torch.ones(196))
    spread = matrix.log().amax(1) - matrix.log().amin(1)
    assert 0.9 < float(spread.min()) <= float(spread.max()) < 1
    assert not list(mixer.parameters())


def test_random_matrices_of_two_blocks_differ() -> None:
    stage = Stage(depth=2, width=8, mixer=RandomSpec())
    state = build(Architecture(resolution=16, stages=(stage,))).state_dict()
    first, second = (tensor for name, tensor in state.items() if name.endswith("random_matrix"))
    assert not torch.equal(first, second)


@torch.no_grad()
def test_random_matrices_survive_saving_and_loading() -> None:
    arch = Architecture(resolution=16, stages=(Stage(depth=2, width=8, mixer=RandomSpec(), layer_scale=1.0),))
    x_BCHW = torch.randn(1, 3, 16, 16)
    saved, loaded = build(arch).eval(), build(arch).eval()
    assert not torch.equal(saved(x_BCHW), loaded(x_BCHW))
    file = io.BytesIO()
    torch.save(saved.state_dict(), file)
    file.seek(0)
    loaded.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(saved(x_BCHW), loaded(x_BCHW))


@pytest.mark.parametrize("spec", ALL_SPECS, ids=lambda spec: spec.kind)
def test_a_mixer_keeps_shape_dtype_and_its_input(spec: MixerSpec) -> None:
    x_BCHW = a_map().float()
    before = x_BCHW.clone()
    y_BCHW = make_mixer(spec, 8, side=6)(x_BCHW)
    assert (y_BCHW.shape, y_BCHW.dtype) == (x_BCHW.shape, x_BCHW.dtype)
    assert torch.equal(x_BCHW, before)


@pytest.mark.parametrize("spec", ALL_SPECS, ids=lambda spec: spec.kind)
def test_a_mixer_gives_the_same_for_either_memory_format(spec: MixerSpec) -> None:
    x_BCHW = a_map()
    mixer = make_mixer(spec, 8, side=6).double()
    torch.testing.assert_close(mixer(x_BCHW), mixer(x_BCHW.contiguous(memory_format=torch.channels_last)))


@pytest.mark.parametrize(
    "spec", [SepConvSpec(), DepthwiseConvSpec(), AttentionSpec(head_size=4)], ids=lambda spec: spec.kind
)
def test_gradients_under_autocast_are_those_of_float32_to_bfloat16_rounding(spec: MixerSpec) -> None:
    torch.manual_seed(0)
    x_BCHW = a_map().float().requires_grad_()
    mixer = make_mixer(spec, 8, side=6)
    inputs = [x_BCHW, *mixer.parameters()]
    for parameter in mixer.parameters():
        nn.init.normal_(parameter, std=0.5)
    with torch.autocast("cpu", torch.bfloat16):
        rounded_BCHW = mixer(x_BCHW)
        with torch.no_grad():
            assert mixer(x_BCHW).dtype == rounded_BCHW.dtype == torch.bfloat16
    rounded = torch.autograd.grad(rounded_BCHW.float().square().mean(), inputs)
    exact = torch.autograd.grad(mixer(x_BCHW).square().mean(), inputs)
    for ours, expected in zip(rounded, exact, strict=True):
        assert ours.dtype == torch.float32
        assert float((ours - expected).norm()) <= 0.02 * float(expected.norm())


def test_every_known_spec_has_a_module() -> None:
    assert {spec.kind for spec in ALL_SPECS} == set(MixerSpec.known)


def test_a_new_mixer_is_a_spec_and_a_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a user adds one; the registries are put back afterwards."""
    monkeypatch.setattr(MixerSpec, "known", dict(MixerSpec.known))
    monkeypatch.setattr(mixers, "_REGISTRY", dict(mixers._REGISTRY))

    class GainSpec(MixerSpec):
        kind: Literal["gain"] = "gain"
        gain: int = 2

        def cost(self, width: int, tokens: TokenMap) -> PartCost:
            return PartCost(params=width)

    @register_mixer("gain", layout="BCHW")
    class GainMixer(nn.Module):
        def __init__(self, width: int, spec: GainSpec, *, side: int) -> None:
            super().__init__()
            self.gain = nn.Parameter(torch.full((width, 1, 1), float(spec.gain)))

        def forward(self, x_BCHW: Tensor) -> Tensor:
            return self.gain * x_BCHW

    text = "{resolution: 16, stages: [{depth: 1, width: 8, mixer: {kind: gain, gain: 3}}]}"
    arch = Architecture.from_yaml(text)
    assert arch.stages[0].mixer == GainSpec(gain=3)
    assert Architecture.from_yaml(arch.to_yaml()) == arch
    model = build(arch)
    assert count_cost(arch).params == sum(parameter.numel() for parameter in model.parameters())
    x_BCHW = a_map().float()
    assert torch.equal(model.stages[0].blocks[0].mixer.part(x_BCHW), 3 * x_BCHW)


def test_a_module_without_a_spec_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^mixer: must have a MixerSpec subclass of its kind, got 'wavelet'"):
        register_mixer("wavelet", layout="BCHW")


def test_a_second_module_of_a_kind_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^mixer: must be registered once, got 'pool' again"):
        register_mixer("pool", layout="BCHW")


def test_a_second_spec_of_a_kind_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^kind: must be new, got 'pool', which is PoolSpec"):

        class OtherPoolSpec(MixerSpec):
            kind: Literal["pool"] = "pool"

    assert MixerSpec.known["pool"] is PoolSpec


def test_a_spec_without_a_module_is_refused_when_a_model_is_built() -> None:
    class Hyena(MixerSpec):
        kind: Literal["hyena"] = "hyena"

        def cost(self, width: int, tokens: TokenMap) -> PartCost:
            return PartCost()

    try:
        with pytest.raises(ArchitectureError, match="mixer: unknown name 'hyena'; known, nearest first: pool"):
            make_mixer(Hyena(), 8, side=4)
    finally:
        del MixerSpec.known["hyena"]
