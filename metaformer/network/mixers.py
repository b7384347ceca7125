"""Token mixers: the modules behind the specs, in one registry.

B batch, C channels, H height, W width, N = H * W tokens, M tokens of a smaller map, h heads, d channels of a
head.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metaformer.errors import ArchitectureError, UserError, check_new_name, check_subclass, shown, unknown_name
from metaformer.network import fused
from metaformer.network.layers import ChannelLayerNorm, ghost_factors, init_linear, make_activation
from metaformer.specs import (
    AttentionSpec,
    DepthwiseConvSpec,
    IdentitySpec,
    MixerSpec,
    PoolSpec,
    RandomSpec,
    ReducedAttentionSpec,
    SepConvSpec,
    SpatialMlpSpec,
    TokenMlpSpec,
)

Layout = Literal["BCHW", "BNC"]


class _Entry(NamedTuple):
    make: Callable[..., nn.Module]
    layout: Layout
    multiplies_first: bool


_REGISTRY: dict[str, _Entry] = {}


def register_mixer(
    kind: str, *, layout: Layout, multiplies_first: bool = False
) -> Callable[[type[nn.Module]], type[nn.Module]]:
    """Make a module class the mixer called `kind`; it is made as `cls(width, spec, side=...)`.

    `multiplies_first` says that its input goes into matrix products or convolutions and nowhere else, so that under
    autocast it may as well come in autocast's dtype.
    A spec class of that kind must exist (see `MixerSpec`): it holds the fields, the demands and the cost.

    Raises:
        UserError: No spec is known by that name, or it already has a module; or what is registered is none.
    """
    check_new_name("mixer", kind, _REGISTRY)
    if kind not in MixerSpec.known:
        raise UserError(f"mixer: must have a MixerSpec subclass of its kind, got {shown(kind)}")
    if layout not in get_args(Layout):
        raise UserError(f"layout: must be one of {', '.join(get_args(Layout))}, got {shown(layout)}")

    def register(make: type[nn.Module]) -> type[nn.Module]:
        check_subclass("mixer", make, nn.Module)
        _REGISTRY[kind] = _Entry(make, layout, multiplies_first)
        return make

    return register


def make_mixer(spec: MixerSpec, width: int, *, side: int) -> nn.Module:
    """The mixer `spec` describes, for maps of `width` channels and `side` by `side` tokens; BCHW in, BCHW out.

    Raises:
        ArchitectureError: No module is registered for its kind.
    """
    entry = _entry(spec)
    mixer = entry.make(width, spec, side=side)
    return OnTokens(mixer) if entry.layout == "BNC" else mixer


def multiplies_first(spec: MixerSpec) -> bool:
    """Whether the input of this mixer goes into matrix products or convolutions and nowhere else.

    Raises:
        ArchitectureError: No module is registered for its kind.
    """
    return _entry(spec).multiplies_first


def _entry(spec: MixerSpec) -> _Entry:
    if spec.kind not in _REGISTRY:
        raise ArchitectureError(unknown_name("mixer", spec.kind, _REGISTRY))
    return _REGISTRY[spec.kind]


class OnTokens(nn.Module):
    """Runs a mixer of BNC tokens on a BCHW map."""

    def __init__(self, mixer: nn.Module) -> None:
        super().__init__()
        self.mixer = mixer

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BNC = x_BCHW.flatten(2).transpose(1, 2)
        return self.mixer(x_BNC).transpose(1, 2).unflatten(2, x_BCHW.shape[2:])


def _has_slow_backward(x: Tensor) -> bool:
    """Whether gradients would take longer in bfloat16 than in float32.

    On CPU those of oneDNN's depthwise convolution do (torch 2.15: four times), and those of torch's fused attention.
    """
    return x.device.type == "cpu" and torch.is_autocast_enabled("cpu") and torch.is_grad_enabled()


def convolve(conv: nn.Conv2d, x_BCHW: Tensor) -> Tensor:
    """A depthwise convolution, computed in the faster precision."""
    if _has_slow_backward(x_BCHW):
        with torch.autocast("cpu", enabled=False):
            return conv(x_BCHW.float()).to(torch.get_autocast_dtype("cpu"))
    return conv(x_BCHW)


def attend(q_BhNd: Tensor, k_BhMd: Tensor, v_BhMd: Tensor) -> Tensor:
    """Softmax attention, q's shape, in the faster precision."""
    if _has_slow_backward(q_BhNd):
        with torch.autocast("cpu", enabled=False):
            return F.scaled_dot_product_attention(q_BhNd.float(), k_BhMd.float(), v_BhMd.float())
    return F.scaled_dot_product_attention(q_BhNd, k_BhMd, v_BhMd)


@register_mixer("pool", layout="BCHW")
class PoolMixer(nn.Module):
    """Mean of the neighbours that exist, minus the input (PoolFormer, arXiv:2111.11418, eq. 4)."""

    def __init__(self, width: int, spec: PoolSpec, *, side: int) -> None:
        super().__init__()
        self.size = spec.size

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if fused.usable(x_BCHW):
            from metaformer.network.fused.pooling import pooled_difference

            return pooled_difference(x_BCHW, size=self.size)
        # On CUDA the gradient of a padded, channels-last pooling is wrong in torch 2.11 and others (pytorch/pytorch
        # issue 188344). The copy may go when no version in use has that fault.
        given_BCHW = x_BCHW.contiguous() if x_BCHW.is_cuda else x_BCHW
        mean_BCHW = F.avg_pool2d(given_BCHW, self.size, 1, self.size // 2, count_include_pad=False)
        return mean_BCHW.sub_(x_BCHW)


@register_mixer("attention", layout="BNC", multiplies_first=True)
class AttentionMixer(nn.Module):
    """Multi-head self-attention with fused softmax (arXiv:1706.03762, eq. 1).

    With Ghost operations `qkv` gives half of the channels of each, and their ghosts are the others.
    """

    def __init__(self, width: int, spec: AttentionSpec, *, side: int) -> None:
        super().__init__()
        self.head_size = spec.head_size
        self.qkv = nn.Linear(width, 3 * width // (2 if spec.ghost else 1), bias=spec.qkv_bias)
        self.ghosts = ghost_factors(3, width // 2) if spec.ghost else None
        self.proj = nn.Linear(width, width, bias=spec.proj_bias)
        init_linear(self.qkv)
        init_linear(self.proj)

    def forward(self, x_BNC: Tensor) -> Tensor:
        qkv_BN3C = self.qkv(x_BNC).unflatten(2, (3, -1))
        if self.ghosts is not None:
            qkv_BN3C = torch.cat([qkv_BN3C, qkv_BN3C * self.ghosts.to(qkv_BN3C.dtype)], dim=3)
        qkv_3BhNd = qkv_BN3C.unflatten(3, (-1, self.head_size)).permute(2, 0, 3, 1, 4)
        y_BhNd = attend(*qkv_3BhNd.unbind(0))
        return self.proj(y_BhNd.transpose(1, 2).flatten(2))


@register_mixer("reduced_attention", layout="BCHW", multiplies_first=True)
class ReducedAttentionMixer(nn.Module):
    """Self-attention to keys and values of a smaller map (PVT, arXiv:2102.12122, eqs. 1 to 3)."""

    def __init__(self, width: int, spec: ReducedAttentionSpec, *, side: int) -> None:
        super().__init__()
        self.head_size = spec.head_size
        self.q = nn.Linear(width, width)
        self.reduce = nn.Conv2d(width, width, spec.reduction, spec.reduction)
        self.norm = ChannelLayerNorm(width, eps=1e-5, before_product=True)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)
        for linear in (self.q, self.kv, self.proj):
            init_linear(linear)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BNC = x_BCHW.flatten(2).transpose(1, 2)
        reduced_BMC = self.norm(self.reduce(x_BCHW)).flatten(2).transpose(1, 2)
        q_BhNd = self.q(x_BNC).unflatten(2, (-1, self.head_size)).transpose(1, 2)
        k_BhMd, v_BhMd = self.kv(reduced_BMC).unflatten(2, (2, -1, self.head_size)).permute(2, 0, 3, 1, 4).unbind(0)
        y_BhNd = attend(q_BhNd, k_BhMd, v_BhMd)
        y_BNC = self.proj(y_BhNd.transpose(1, 2).flatten(2))
        return y_BNC.transpose(1, 2).unflatten(2, x_BCHW.shape[2:])


def over_positions(linear: nn.Linear, x_BNC: Tensor) -> Tensor:
    """A linear layer along the positions, the same for every channel."""
    y_BNC = torch.matmul(linear.weight, x_BNC)
    return y_BNC if linear.bias is None else y_BNC + linear.bias[:, None]


@register_mixer("spatial_mlp", layout="BNC", multiplies_first=True)
class SpatialMlpMixer(nn.Module):
    """One linear layer over the positions, the same for every channel (the paper's SpatialFC; ResMLP's with bias)."""

    def __init__(self, width: int, spec: SpatialMlpSpec, *, side: int) -> None:
        super().__init__()
        self.fc = nn.Linear(side**2, side**2, bias=spec.bias)
        init_linear(self.fc)

    def forward(self, x_BNC: Tensor) -> Tensor:
        return over_positions(self.fc, x_BNC)


@register_mixer("token_mlp", layout="BNC", multiplies_first=True)
class TokenMlpMixer(nn.Module):
    """Two linear layers over the positions with an activation between (MLP-Mixer, arXiv:2105.01601, eq. 1)."""

    def __init__(self, width: int, spec: TokenMlpSpec, *, side: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(side**2, spec.hidden)
        self.act = make_activation(spec.activation)
        self.fc2 = nn.Linear(spec.hidden, side**2)
        init_linear(self.fc1)
        init_linear(self.fc2)

    def forward(self, x_BNC: Tensor) -> Tensor:
        return over_positions(self.fc2, self.act(over_positions(self.fc1, x_BNC)))


@register_mixer("dwconv", layout="BCHW", multiplies_first=True)
class DepthwiseConvMixer(nn.Module):
    """Depthwise convolution in place of the pooling; nothing is subtracted."""

    def __init__(self, width: int, spec: DepthwiseConvSpec, *, side: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, spec.size, padding=spec.size // 2, groups=width)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return convolve(self.conv, x_BCHW)


@register_mixer("sep_conv", layout="BCHW", multiplies_first=True)
class SepConvMixer(nn.Module):
    """Linear, activation, depthwise convolution, linear; no biases (arXiv:2210.13452, eq. 9)."""

    def __init__(self, width: int, spec: SepConvSpec, *, side: int) -> None:
        super().__init__()
        hidden = spec.ratio * width
        self.pwconv1 = nn.Linear(width, hidden, bias=False)
        self.act1 = make_activation(spec.activation)
        self.dwconv = nn.Conv2d(hidden, hidden, spec.size, padding=spec.size // 2, groups=hidden, bias=False)
        self.pwconv2 = nn.Linear(hidden, width, bias=False)
        init_linear(self.pwconv1)
        init_linear(self.pwconv2)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        hidden_BHWC = self.act1(self.pwconv1(x_BCHW.permute(0, 2, 3, 1)))
        mixed_BCHW = convolve(self.dwconv, hidden_BHWC.permute(0, 3, 1, 2))
        return self.pwconv2(mixed_BCHW.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


@register_mixer("identity", layout="BCHW")
class IdentityMixer(nn.Module):
    """The normalised input itself."""

    def __init__(self, width: int, spec: IdentitySpec, *, side: int) -> None:
        super().__init__()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW


@register_mixer("random", layout="BNC", multiplies_first=True)
class RandomMixer(nn.Module):
    """A frozen matrix of uniform numbers, softmax over each row, times the tokens."""

    random_matrix: Tensor

    def __init__(self, width: int, spec: RandomSpec, *, side: int) -> None:
        super().__init__()
        self.register_buffer("random_matrix", torch.softmax(torch.rand(side**2, side**2), dim=-1))

    def forward(self, x_BNC: Tensor) -> Tensor:
        return torch.matmul(self.random_matrix.to(x_BNC.dtype), x_BNC)
