"""Norms, activations, scales, MLP and convolutions against closed forms.

B batch, C channels, H height, W width.
"""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from metaformer.network.layers import (
    ChannelMlp,
    ClassToken,
    LayerScale,
    PositionEmbedding,
    SinusoidalPositions,
    make_activation,
    make_conv,
    make_norm,
)
from metaformer.specs import Activation, Downsample, Mlp, Norm, Stem


def a_map() -> Tensor:
    """A random map x_BCHW with a mean and a spread of its own in each channel, in float64."""
    generator = torch.Generator().manual_seed(0)
    x_BCHW = torch.randn(3, 8, 5, 5, generator=generator, dtype=torch.float64)
    return x_BCHW * torch.arange(1, 9, dtype=torch.float64)[:, None, None] + 2


def standardise(x_BCHW: Tensor, axes: tuple[int, ...], *, eps: float) -> Tensor:
    mean = x_BCHW.mean(axes, keepdim=True)
    variance = ((x_BCHW - mean) ** 2).mean(axes, keepdim=True)
    return (x_BCHW - mean) / (variance + eps).sqrt()


@pytest.mark.parametrize("eps", [1e-5, 1e-1])
@pytest.mark.parametrize(("kind", "axes"), [("mln", (1, 2, 3)), ("layer_norm", (1,)), ("batch_norm", (0, 2, 3))])
def test_a_norm_takes_its_statistics_over_the_axes_it_states(kind: str, axes: tuple[int, ...], eps: float) -> None:
    """With weight and bias per channel, biased variance, and eps inside the root."""
    norm = make_norm(Norm.model_validate({"kind": kind, "eps": eps}), 8).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    expected = standardise(a_map(), axes, eps=eps) * norm.weight[:, None, None] + norm.bias[:, None, None]
    torch.testing.assert_close(norm(a_map()), expected)


def test_batch_norm_uses_its_running_statistics_in_evaluation() -> None:
    norm = make_norm(Norm(kind="batch_norm"), 8).double().eval()
    torch.testing.assert_close(norm(a_map()), a_map() / math.sqrt(1 + 1e-5))


def test_no_norm_changes_nothing() -> None:
    assert torch.equal(make_norm(Norm(kind="none"), 8)(a_map()), a_map())


@pytest.mark.parametrize("kind", ["mln", "layer_norm", "batch_norm", "affine"])
def test_a_norm_without_bias_is_the_norm_with_a_bias_of_zero(kind: str) -> None:
    bare = make_norm(Norm.model_validate({"kind": kind, "bias": False}), 8).double()
    full = make_norm(Norm.model_validate({"kind": kind}), 8).double()
    nn.init.normal_(bare.weight)
    with torch.no_grad():
        full.weight.copy_(bare.weight)
    assert [name for name, _ in bare.named_parameters()] == ["weight"]
    torch.testing.assert_close(bare(a_map()), full(a_map()))


def test_an_affine_norm_takes_no_statistics() -> None:
    norm = make_norm(Norm(kind="affine"), 8).double()
    assert torch.equal(norm(a_map()), a_map())
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    expected = torch.einsum("c,bchw->bchw", norm.weight, a_map()) + norm.bias[:, None, None]
    torch.testing.assert_close(norm(a_map()), expected)


def test_star_relu_has_a_learned_scale_and_bias() -> None:
    star = make_activation("star_relu").double()
    scale, bias = star.parameters()
    assert (scale.shape, float(scale.detach()), float(bias.detach())) == ((1,), 1.0, 0.0)
    nn.init.constant_(scale, 0.8944)
    nn.init.constant_(bias, -0.4472)
    x = torch.linspace(-4, 4, 33, dtype=torch.float64)
    expected = [0.8944 * max(value, 0.0) ** 2 - 0.4472 for value in x.tolist()]
    torch.testing.assert_close(star(x), torch.tensor(expected, dtype=torch.float64))


def star_relu(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    return functional_call(make_activation("star_relu"), {"scale": scale, "bias": bias}, x)


def test_gradients_of_star_relu_are_those_of_finite_differences() -> None:
    """In either memory order, also where the scale is zero."""
    x_BCHW = a_map().requires_grad_()
    bias = torch.tensor([-0.4], dtype=torch.float64, requires_grad=True)
    for value in (0.9, 0.0):
        scale = torch.tensor([value], dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(star_relu, (x_BCHW, scale, bias))
        assert torch.autograd.gradcheck(star_relu, (x_BCHW.permute(0, 2, 3, 1), scale, bias))


def test_star_relu_keeps_bfloat16_and_gives_its_float32_parameters_float32_gradients() -> None:
    star = make_activation("star_relu")
    nn.init.constant_(star.scale, 0.9)
    nn.init.constant_(star.bias, -0.4)
    x_BCHW = a_map().bfloat16().requires_grad_()
    y_BCHW = star(x_BCHW)
    assert y_BCHW.dtype == torch.bfloat16
    exact_BCHW = 0.9 * x_BCHW.detach().double().relu() ** 2 - 0.4
    torch.testing.assert_close(y_BCHW.double(), exact_BCHW, rtol=2**-6, atol=1e-2)
    y_BCHW.sum().backward()
    assert (x_BCHW.grad.dtype, star.scale.grad.dtype, star.bias.grad.dtype) == (
        torch.bfloat16,
        torch.float32,
        torch.float32,
    )
    expected = x_BCHW.detach().double().relu().square().sum()
    assert float(star.scale.grad) == pytest.approx(float(expected), rel=2**-7)


def test_norms_and_activation_stand_around_a_convolution_in_the_order_stated() -> None:
    spec = Downsample(
        pre_norm=Norm(kind="layer_norm", bias=False), activation="relu", post_norm=Norm(kind="affine", bias=False)
    )
    conv = make_conv(spec, 8, 4).double()
    nn.init.normal_(conv.pre_norm.weight)
    nn.init.normal_(conv.post_norm.weight)
    normed = standardise(a_map(), (1,), eps=1e-5) * conv.pre_norm.weight[:, None, None]
    windows = nn.functional.conv2d(normed, conv.conv.weight, conv.conv.bias, stride=2, padding=1)
    torch.testing.assert_close(conv(a_map()), windows.clamp(min=0) * conv.post_norm.weight[:, None, None])


def test_a_class_token_joins_in_front_of_the_row_major_tokens() -> None:
    token = ClassToken(8).double()
    y_BCN1 = token(a_map())
    assert y_BCN1.shape == (3, 8, 26, 1)
    assert y_BCN1.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y_BCN1[:, :, 0, 0], token.cls_token[0].expand(3, 8))
    torch.testing.assert_close(y_BCN1[:, :, 1:, 0].unflatten(2, (5, 5)), a_map())


def gelu(x: float) -> float:
    return x * 0.5 * (1 + math.erf(x / math.sqrt(2)))


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("gelu", gelu),
        ("relu", lambda x: max(x, 0.0)),
        ("silu", lambda x: x / (1 + math.exp(-x))),
        ("squared_relu", lambda x: max(x, 0.0) ** 2),
        ("star_relu", lambda x: max(x, 0.0) ** 2),
    ],
)
def test_an_activation_is_its_formula(name: Activation, formula: Callable[[float], float]) -> None:
    x = torch.linspace(-4, 4, 33, dtype=torch.float64)
    expected = torch.tensor([formula(value) for value in x.tolist()], dtype=torch.float64)
    torch.testing.assert_close(make_activation(name)(x), expected, rtol=1e-12, atol=1e-12)


def test_the_channel_mlp_mixes_the_channels_of_each_position_alone() -> None:
    mlp = ChannelMlp(8, Mlp(ratio=3, activation="relu")).double()
    for bias in (mlp.fc1.bias, mlp.fc2.bias):
        nn.init.normal_(bias)
    hidden = torch.einsum("dc,bchw->bdhw", mlp.fc1.weight, a_map()) + mlp.fc1.bias[:, None, None]
    expected = torch.einsum("cd,bdhw->bchw", mlp.fc2.weight, hidden.clamp(min=0)) + mlp.fc2.bias[:, None, None]
    assert mlp.fc1.weight.shape == (24, 8)
    torch.testing.assert_close(mlp(a_map()), expected)


@pytest.mark.parametrize("bias", [True, False])
def test_the_channel_mlp_may_multiply_a_scale_into_its_output(bias: bool) -> None:
    """With the gradient of the scale, too."""
    mlp = ChannelMlp(8, Mlp(ratio=2, bias=bias)).double()
    if bias:
        nn.init.normal_(mlp.fc2.bias)
    scale_C = torch.linspace(-1, 1, 8, dtype=torch.float64).requires_grad_()
    scaled_BCHW, expected_BCHW = mlp(a_map(), scale_C), mlp(a_map()) * scale_C[:, None, None]
    torch.testing.assert_close(scaled_BCHW, expected_BCHW)
    inputs = [scale_C, *mlp.parameters()]
    gradients = [torch.autograd.grad(y_BCHW.square().sum(), inputs) for y_BCHW in (scaled_BCHW, expected_BCHW)]
    torch.testing.assert_close(gradients[0], gradients[1])


def test_layer_scale_multiplies_each_channel_by_its_own_factor() -> None:
    scale = LayerScale(8, init=1e-5).double()
    torch.testing.assert_close(scale(a_map()), 1e-5 * a_map())
    with torch.no_grad():
        scale.scale.copy_(torch.arange(8))
    torch.testing.assert_close(scale(a_map()), a_map() * torch.arange(8)[:, None, None])


def test_positions_are_zero_at_the_start_and_added() -> None:
    position = PositionEmbedding(8, shape=(5, 5))
    assert torch.equal(position(a_map()), a_map())
    nn.init.normal_(position.pos_embed)
    torch.testing.assert_close(position(a_map()) - a_map(), position.pos_embed.double().expand(3, 8, 5, 5))


@pytest.mark.parametrize(("spec", "expected"), [(Stem(), (7, 4, 2, 56)), (Downsample(), (3, 2, 1, 112))])
def test_the_convolutions_are_those_of_poolformer(spec: Stem | Downsample, expected: tuple[int, ...]) -> None:
    """Kernel, stride and padding of the official code, and the side they make of 224."""
    conv = make_conv(spec, 3, 8)
    side = conv(torch.zeros(1, 3, 224, 224)).shape[-1]
    assert (conv.kernel_size[0], conv.stride[0], conv.padding[0], side) == expected
    assert conv.bias is not None
    assert spec.out_side(224) == side


@pytest.mark.parametrize("width", [64, 256, 384, 448, 512])
def test_sinusoids_are_those_of_the_official_code_to_the_last_bit(width: int) -> None:
    """T2T-ViT's `get_sinusoid_encoding`, in numpy's float64, then rounded."""
    angles_NC = np.arange(197)[:, None] / np.power(10000, 2 * (np.arange(width) // 2) / width)
    angles_NC[:, 0::2], angles_NC[:, 1::2] = np.sin(angles_NC[:, 0::2]), np.cos(angles_NC[:, 1::2])
    got_1CN1 = SinusoidalPositions(width, shape=(197, 1)).pos_embed
    torch.testing.assert_close(got_1CN1[0, :, :, 0].T, torch.from_numpy(angles_NC).float(), rtol=0, atol=6e-8)
