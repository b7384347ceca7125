"""The tokens-to-token stem of T2T-ViT (arXiv:2101.11986, section 3.1): soft splits with a small attention between.

B batch, C channels, H height, W width, N tokens of a map, D channels of its unfolded windows, d channels of a token
layer, m random features.
"""

from abc import abstractmethod
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metaformer.network.layers import init_linear
from metaformer.specs.parts import SoftSplit, TokensToToken


class TokenLayer(nn.Module):
    """Attention from D to d channels, whose skip adds the values since the widths differ, then x + mlp(norm(x))."""

    def __init__(self, in_width: int, spec: TokensToToken, *, qkv_bias: bool) -> None:
        super().__init__()
        width = spec.token_width
        self.norm1 = nn.LayerNorm(in_width)
        self.qkv = nn.Linear(in_width, 3 * width, bias=qkv_bias)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, width)
        self.fc2 = nn.Linear(width, width)
        self.dropout = nn.Dropout(spec.dropout) if spec.dropout else nn.Identity()
        for linear in (self.qkv, self.proj, self.fc1, self.fc2):
            init_linear(linear)

    @abstractmethod
    def attend(self, x_BND: Tensor) -> tuple[Tensor, Tensor]:
        """The mixed values and the values themselves, both BNd."""

    def forward(self, x_BND: Tensor) -> Tensor:
        y_BNd, v_BNd = self.attend(self.norm1(x_BND))
        x_BNd = v_BNd + self.dropout(self.proj(y_BNd))
        return x_BNd + self.dropout(self.fc2(F.gelu(self.fc1(self.norm2(x_BNd)))))


class TransformerLayer(TokenLayer):
    """One head; the products are scaled by the root of the width D of the input (official code)."""

    def __init__(self, in_width: int, spec: TokensToToken) -> None:
        super().__init__(in_width, spec, qkv_bias=False)
        self.scale = in_width**-0.5

    def attend(self, x_BND: Tensor) -> tuple[Tensor, Tensor]:
        q_B1Nd, k_B1Nd, v_B1Nd = self.qkv(x_BND).unsqueeze(1).chunk(3, dim=-1)
        y_B1Nd = F.scaled_dot_product_attention(q_B1Nd, k_B1Nd, v_B1Nd, scale=self.scale)
        return y_B1Nd.squeeze(1), v_B1Nd.squeeze(1)


class PerformerLayer(TokenLayer):
    """Attention linear in the tokens, by positive random features (arXiv:2009.14794, eq. 5, here without 1/sqrt(d)).

    The m features are orthogonal rows of length sqrt(m), drawn once and frozen. The rows of `qkv` are in the order of
    the official code: key, query, value.
    """

    features_md: Tensor

    def __init__(self, in_width: int, spec: TokensToToken) -> None:
        super().__init__(in_width, spec, qkv_bias=True)
        rows = torch.empty(spec.num_features, spec.token_width)
        self.register_buffer("features_md", nn.init.orthogonal_(rows) * spec.num_features**0.5)

    def attend(self, x_BND: Tensor) -> tuple[Tensor, Tensor]:
        k_BNd, q_BNd, v_BNd = self.qkv(x_BND).chunk(3, dim=-1)
        dtype = torch.promote_types(v_BNd.dtype, torch.float32)
        with _without_autocast(x_BND.device.type):
            key_BNm, query_BNm = (self._positive_features(part.to(dtype)) for part in (k_BNd, q_BNd))
            sums_Bmd = key_BNm.mT @ v_BNd.to(dtype)
            total_BN1 = query_BNm @ key_BNm.sum(1).unsqueeze(2)
            y_BNd = (query_BNm @ sums_Bmd) / (total_BN1 + 1e-8)
        return y_BNd.to(v_BNd.dtype), v_BNd

    def _positive_features(self, x_BNd: Tensor) -> Tensor:
        half_squares_BN1 = x_BNd.square().sum(-1, keepdim=True) / 2
        products_BNm = x_BNd @ self.features_md.to(x_BNd.dtype).T
        return (products_BNm - half_squares_BN1).exp() / len(self.features_md) ** 0.5


def _without_autocast(device_type: str) -> AbstractContextManager[object]:
    """Keeps exponentials in float32; a device without autocast, such as meta, needs nothing."""
    available = torch.amp.is_autocast_available(device_type)
    return torch.autocast(device_type, enabled=False) if available else nullcontext()


class TokensToTokenStem(nn.Module):
    """Images BCHW to the first stage's map, BCHW: soft splits, each with a token layer, the last with a linear one."""

    def __init__(self, width: int, spec: TokensToToken) -> None:
        super().__init__()
        layer = PerformerLayer if spec.attention == "performer" else TransformerLayer
        self.splits = spec.splits
        in_widths = (spec.in_channels, *[spec.token_width] * (len(spec.splits) - 1))
        unfolded = [channels * split.kernel**2 for channels, split in zip(in_widths, spec.splits, strict=True)]
        self.layers = nn.ModuleList(layer(in_width, spec) for in_width in unfolded[:-1])
        self.project = nn.Linear(unfolded[-1], width)
        init_linear(self.project)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        for split, layer in zip(self.splits, (*self.layers, self.project), strict=True):
            height, width = (split.out_side(side) for side in x_BCHW.shape[2:])
            x_BNd = layer(soft_split(x_BCHW, split))
            x_BCHW = x_BNd.transpose(1, 2).unflatten(2, (height, width))
        return x_BCHW


def soft_split(x_BCHW: Tensor, split: SoftSplit) -> Tensor:
    """Each window of a map as one token, BND; all positions of channel 0 come first, then those of channel 1."""
    return F.unfold(x_BCHW, split.kernel, padding=split.padding, stride=split.stride).transpose(1, 2)
