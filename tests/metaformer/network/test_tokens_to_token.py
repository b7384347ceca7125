"""The tokens-to-token stem against closed forms in numpy.

B batch, C channels, H height, W width, N tokens, D channels of an unfolded window, d channels of a token layer, m
random features.
"""

import math
from typing import Literal

import numpy as np
import pytest
import torch
from torch import nn

from metaformer import build, zoo
from metaformer.network.tokens_to_token import PerformerLayer, TokensToTokenStem, soft_split
from metaformer.specs.parts import SOFT_SPLITS, SoftSplit, TokensToToken

Array = np.ndarray

OTHER_SPLITS = (SoftSplit(kernel=5, stride=3, padding=1), SoftSplit(kernel=3, stride=1, padding=1))


def image(side: int, *, channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, channels, side, side, generator=generator, dtype=torch.float64)


def split_by_hand(x_BCHW: Array, split: SoftSplit) -> Array:
    """Each window, row by row, as one token: all its positions of channel 0, then of channel 1, and so on."""
    padded = np.pad(x_BCHW, ((0, 0), (0, 0), *((split.padding, split.padding),) * 2))
    corners = range(0, padded.shape[2] - split.kernel + 1, split.stride)
    tokens = [
        padded[:, :, i : i + split.kernel, j : j + split.kernel].reshape(len(padded), -1)
        for i in corners
        for j in corners
    ]
    return np.stack(tokens, axis=1)


def norm_by_hand(x: Array, weight: Array, bias: Array) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * weight + bias


def gelu(x: Array) -> Array:
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def performer_by_hand(k_BNd: Array, q_BNd: Array, features_md: Array) -> Array:
    """Attention weights of every pair of tokens: products of positive features, divided by their sum over the keys."""

    def positive(x_BNd: Array) -> Array:
        exponents = x_BNd @ features_md.T - (x_BNd**2).sum(-1, keepdims=True) / 2
        return np.exp(exponents) / math.sqrt(len(features_md))

    products_BNN = positive(q_BNd) @ positive(k_BNd).swapaxes(1, 2)
    return products_BNN / (products_BNN.sum(-1, keepdims=True) + 1e-8)


def softmax_by_hand(q_BNd: Array, k_BNd: Array, *, in_width: int) -> Array:
    """Attention weights, scaled by the root of the width of the input rather than of the head."""
    exponentials = np.exp(q_BNd @ k_BNd.swapaxes(1, 2) / math.sqrt(in_width))
    return exponentials / exponentials.sum(-1, keepdims=True)


def layer_by_hand(x_BND: Array, weights: dict[str, Array]) -> Array:
    normed = norm_by_hand(x_BND, weights["norm1.weight"], weights["norm1.bias"])
    parts = np.split(normed @ weights["qkv.weight"].T + weights.get("qkv.bias", 0), 3, axis=2)
    if "features_md" in weights:
        attention_BNN = performer_by_hand(parts[0], parts[1], weights["features_md"])  # key, query, value
    else:
        attention_BNN = softmax_by_hand(parts[0], parts[1], in_width=x_BND.shape[2])  # query, key, value
    x_BNd = parts[2] + attention_BNN @ parts[2] @ weights["proj.weight"].T + weights["proj.bias"]
    normed = norm_by_hand(x_BNd, weights["norm2.weight"], weights["norm2.bias"])
    hidden = gelu(normed @ weights["fc1.weight"].T + weights["fc1.bias"])
    return x_BNd + hidden @ weights["fc2.weight"].T + weights["fc2.bias"]


@pytest.mark.parametrize("split", [*SOFT_SPLITS, *OTHER_SPLITS])
@pytest.mark.parametrize("side", [12, 13])
def test_a_soft_split_unfolds_overlapping_windows_channel_by_channel(split: SoftSplit, side: int) -> None:
    x_BCHW = image(side)
    expected = split_by_hand(x_BCHW.numpy(), split)
    torch.testing.assert_close(soft_split(x_BCHW, split), torch.from_numpy(expected))
    assert expected.shape == (2, split.out_side(side) ** 2, 3 * split.kernel**2)


@pytest.mark.parametrize("splits", [SOFT_SPLITS, OTHER_SPLITS, OTHER_SPLITS[:1]])
@pytest.mark.parametrize("attention", ["performer", "transformer"])
@torch.no_grad()
def test_the_stem_is_split_and_attend_steps_a_split_and_a_linear_layer(
    attention: Literal["performer", "transformer"], splits: tuple[SoftSplit, ...]
) -> None:
    stem = TokensToTokenStem(10, TokensToToken(attention=attention, token_width=8, splits=splits)).double().eval()
    assert len(stem.layers) == len(splits) - 1
    generator = torch.Generator().manual_seed(2)
    for parameter in stem.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / 3)
    x_BCHW = image(32).numpy()
    for split, layer in zip(splits[:-1], stem.layers, strict=True):
        weights = {name: tensor.numpy() for name, tensor in layer.state_dict().items()}
        assert ("qkv.bias" in weights) == (attention == "performer")
        x_BNd = layer_by_hand(split_by_hand(x_BCHW, split), weights)
        side = math.isqrt(x_BNd.shape[1])
        x_BCHW = x_BNd.swapaxes(1, 2).reshape(2, 8, side, side)
    y_BNC = split_by_hand(x_BCHW, splits[-1]) @ stem.project.weight.numpy().T + stem.project.bias.numpy()
    side = math.isqrt(y_BNC.shape[1])
    expected = torch.from_numpy(y_BNC.swapaxes(1, 2).reshape(2, 10, side, side))
    torch.testing.assert_close(stem(image(32)), expected)


def test_random_features_are_orthogonal_rows_of_length_root_m_and_not_trained() -> None:
    torch.manual_seed(0)
    layer = PerformerLayer(147, TokensToToken())
    assert layer.features_md.shape == (32, 64)
    torch.testing.assert_close(layer.features_md @ layer.features_md.T, 32 * torch.eye(32), rtol=1e-4, atol=1e-4)
    assert "features_md" in layer.state_dict()
    assert "features_md" not in dict(layer.named_parameters())


def test_features_are_computed_in_float32_under_autocast() -> None:
    torch.manual_seed(0)
    layer = PerformerLayer(147, TokensToToken()).eval()
    x_BND = torch.randn(1, 49, 147)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = layer(x_BND)
    torch.testing.assert_close(mixed.float(), layer(x_BND), rtol=0.05, atol=0.02)


def test_dropout_acts_in_training_only() -> None:
    torch.manual_seed(0)
    stem = TokensToTokenStem(10, TokensToToken(token_width=8, dropout=0.5)).double()
    assert not torch.equal(stem(image(32)), stem(image(32)))
    stem.eval()
    assert torch.equal(stem(image(32)), stem(image(32)))


def test_positions_of_t2t_vit_are_sines_and_cosines_with_the_class_token_at_0() -> None:
    table = build(zoo.get("t2t_vit_7")).stages[0].position.pos_embed
    assert table.shape == (1, 256, 197, 1)
    expected = np.empty((197, 256))
    for position in range(197):
        for channel in range(256):
            angle = position / 10000 ** (2 * (channel // 2) / 256)
            expected[position, channel] = math.cos(angle) if channel % 2 else math.sin(angle)
    torch.testing.assert_close(table[0, :, :, 0].T.double(), torch.from_numpy(expected), rtol=0, atol=1e-6)
    assert isinstance(build(zoo.get("pvt_tiny")).stages[0].position.pos_embed, nn.Parameter)
