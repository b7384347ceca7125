"""What stands around a mixer: norms, activations, scales, the channel MLP, class token, positions and convolutions.

B batch, C channels, H height and W width in tokens, G ghosts of each channel. Maps are BCHW tensors in channels-last
memory, so that a view as BHWC or as B(HW)C tokens costs nothing.
"""

from collections import OrderedDict
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import DropPath as TimmDropPath
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from metaformer.network import fused
from metaformer.network.part import ALONE
from metaformer.specs.parts import Activation, Conv, Mlp, Norm


class DropPath(TimmDropPath):
    """Drops the branch of single images (arXiv:1603.09382), by timm's draws.

    Where several processes train one model, each draws for the whole batch and takes its own `part`; where their
    generators stand alike, they drop together what one process would.
    """

    part = ALONE

    def factor(self, x_BCHW: Tensor) -> Tensor | None:
        """What each image's branch is multiplied by, drawn anew, B111; None where nothing can be dropped."""
        if not (self.training and self.drop_prob):
            return None
        kept, size = 1 - self.drop_prob, len(x_BCHW) * self.part.number
        factor_B111 = x_BCHW.new_empty(size, 1, 1, 1).bernoulli_(kept).div_(kept)
        return factor_B111 if self.part == ALONE else factor_B111[self.part.rows(size).to(x_BCHW.device)]

    def forward(self, x_BCHW: Tensor) -> Tensor:
        factor_B111 = self.factor(x_BCHW)
        return x_BCHW if factor_B111 is None else x_BCHW * factor_B111


def norm_dtype(x: Tensor, *, before_product: bool) -> torch.dtype:
    """The dtype of the norm of x.

    Autocast computes norms in float32. What leads into matrix products or convolutions is then rounded to autocast's
    dtype, and can as well be written so at once.
    """
    device_type = x.device.type
    if not torch.is_autocast_enabled(device_type):
        return x.dtype
    return torch.get_autocast_dtype(device_type) if before_product else torch.float32


class MapLayerNorm(nn.GroupNorm):
    """Layer norm over channels and positions of an image (PoolFormer's modified layer norm): GroupNorm of one group.

    `before_product` says that only matrix products and convolutions see what comes out.
    """

    def __init__(self, width: int, *, eps: float, before_product: bool = False) -> None:
        super().__init__(1, width, eps=eps)
        self.before_product = before_product

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if fused.usable(x_BCHW):
            from metaformer.network.fused.map_norm import map_norm

            dtype = norm_dtype(x_BCHW, before_product=self.before_product)
            return map_norm(x_BCHW, self.weight, self.bias, eps=self.eps, dtype=dtype)
        return super().forward(x_BCHW)


class ChannelLayerNorm(nn.Module):
    """Layer norm over the channels of each position; `before_product` as in MapLayerNorm."""

    def __init__(self, width: int, *, eps: float, before_product: bool = False) -> None:
        super().__init__()
        self.eps = eps
        self.before_product = before_product
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if fused.usable(x_BCHW):
            from metaformer.network.fused.layer_norm import MOST_CHANNELS, layer_norm

            if len(self.weight) <= MOST_CHANNELS:
                dtype = norm_dtype(x_BCHW, before_product=self.before_product)
                return layer_norm(x_BCHW, self.weight, self.bias, eps=self.eps, dtype=dtype)
        x_BHWC = x_BCHW.permute(0, 2, 3, 1)
        return F.layer_norm(x_BHWC, self.weight.shape, self.weight, self.bias, self.eps).permute(0, 3, 1, 2)


class Affine(nn.Module):
    """Weight and bias per channel without any statistics."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BCHW = x_BCHW * self.weight[:, None, None]
        return y_BCHW if self.bias is None else y_BCHW + self.bias[:, None, None]


def make_norm(spec: Norm, width: int, *, before_product: bool = False) -> nn.Module:
    """The norm `spec` describes, for maps of `width` channels; BCHW in, BCHW out.

    `before_product`: only matrix products and convolutions see what comes out.
    """
    norm: nn.Module
    match spec.kind:
        case "mln":
            norm = MapLayerNorm(width, eps=spec.eps, before_product=before_product)
        case "layer_norm":
            norm = ChannelLayerNorm(width, eps=spec.eps, before_product=before_product)
        case "batch_norm":
            norm = nn.BatchNorm2d(width, eps=spec.eps)
        case "affine":
            norm = Affine(width)
        case "none":
            return nn.Identity()
    if not spec.bias:
        norm.register_parameter("bias", None)
    return norm


class _StarReLUFunction(torch.autograd.Function):
    """StarReLU in the dtype of x. Keeps x alone for the backward pass; makes one new map forward and one backward.

    `scale` and `bias` have no dimension, so that they do not raise a bfloat16 map to float32.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, scale)
        return F.relu(x).square_().mul_(scale).add_(bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, scale = ctx.saved_tensors
        grad_x = torch.ops.aten.threshold_backward(grad_y, x, 0).mul_(x)  # grad_y * relu(x), so far
        grad_scale = torch.linalg.vecdot(grad_x.flatten(), x.flatten())
        return grad_x.mul_(2 * scale), grad_scale.to(scale.dtype), grad_y.sum().to(scale.dtype)


class StarReLU(nn.Module):
    """s * relu(x)^2 + b with one learned s, 1 at the start, and one b, 0 at the start (arXiv:2210.13452, eq. 7)."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        if fused.usable(x):
            from metaformer.network.fused.star_relu import star_relu

            return star_relu(x, self.scale, self.bias)
        return _StarReLUFunction.apply(x, self.scale.squeeze(), self.bias.squeeze())


class SquaredReLU(nn.Module):
    """relu(x)^2 (arXiv:2109.08668)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x).square()


class Gelu(nn.Module):
    """The exact GELU (erf). A channels-last map is passed as a contiguous view, which oneDNN's fast kernel needs.

    On CPU (torch 2.15) the kernel for other memory layouts is slower, most of all in bfloat16.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 4 and not x.is_cuda and x.is_contiguous(memory_format=torch.channels_last):
            return F.gelu(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return F.gelu(x)


def make_activation(name: Activation) -> nn.Module:
    """The element-wise activation called `name`; GELU is the exact one (erf)."""
    match name:
        case "star_relu":
            return StarReLU()
        case "squared_relu":
            return SquaredReLU()
        case "gelu":
            return Gelu()
        case "relu":
            return nn.ReLU()
        case "silu":
            return nn.SiLU()


def make_conv(spec: Conv, in_width: int, width: int) -> nn.Module:
    """A convolution with bias in PyTorch's default initialisation, with what the spec puts around it; BCHW to BCHW."""
    conv = nn.Conv2d(in_width, width, spec.kernel, spec.stride, spec.padding)
    if not (spec.pre_norm or spec.activation or spec.post_norm):
        return conv
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    if spec.pre_norm:
        parts["pre_norm"] = make_norm(spec.pre_norm, in_width, before_product=True)
    parts["conv"] = conv
    if spec.activation:
        parts["act"] = make_activation(spec.activation)
    if spec.post_norm:
        parts["post_norm"] = make_norm(spec.post_norm, width)
    return nn.Sequential(parts)


def init_linear(linear: nn.Linear | nn.Conv2d) -> None:
    """Truncated normal weights of standard deviation 0.02 and zero bias."""
    nn.init.trunc_normal_(linear.weight, std=0.02)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)


class LayerScale(nn.Module):
    """A learned factor per channel (arXiv:2103.17239)."""

    def __init__(self, width: int, *, init: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((width,), init))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW * self.scale[:, None, None]


def ghost_factors(num_ghosts: int, width: int) -> nn.Parameter:
    """A factor per ghost of each channel, GC; drawn like the weights of a depthwise convolution of kernel 1."""
    return nn.Parameter(torch.empty(num_ghosts, width).uniform_(-1, 1))


class ChannelMlp(nn.Module):
    """Two linear layers over the channels with an activation between; BCHW in, BCHW out.

    With Ghost operations the first gives C channels; G ghosts of each follow them in the hidden layer.
    """

    def __init__(self, width: int, spec: Mlp) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, width if spec.ghost else spec.ratio * width, bias=spec.bias)
        self.act = make_activation(spec.activation)
        self.ghosts_GC = ghost_factors(spec.ratio - 1, width) if spec.ghost else None
        self.fc2 = nn.Linear(spec.ratio * width, width, bias=spec.bias)
        init_linear(self.fc1)
        init_linear(self.fc2)

    def forward(self, x_BCHW: Tensor, scale_C: Tensor | None = None) -> Tensor:
        """The map, times `scale_C` where given; that is multiplied into the last layer's weights, not into a map."""
        weight_CD, bias_C = self._last_layer(scale_C)
        return F.linear(self._hidden(x_BCHW), weight_CD, bias_C).permute(0, 3, 1, 2)

    def without_last_bias(self, x_BCHW: Tensor, scale_C: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The map before the last bias is added, and that bias; both times `scale_C`."""
        weight_CD, bias_C = self._last_layer(scale_C)
        return F.linear(self._hidden(x_BCHW), weight_CD).permute(0, 3, 1, 2), bias_C

    def _last_layer(self, scale_C: Tensor | None) -> tuple[Tensor, Tensor | None]:
        weight_CD, bias_C = self.fc2.weight, self.fc2.bias
        if scale_C is None:
            return weight_CD, bias_C
        return weight_CD * scale_C[:, None], None if bias_C is None else bias_C * scale_C

    def _hidden(self, x_BCHW: Tensor) -> Tensor:
        """BHWD, D the hidden width."""
        hidden_BHWD = self._first_layer(x_BCHW)
        if self.ghosts_GC is None:
            return hidden_BHWD
        ghosts_BHWGC = hidden_BHWD.unsqueeze(3) * self.ghosts_GC.to(hidden_BHWD.dtype)
        return torch.cat([hidden_BHWD, self.act(ghosts_BHWGC.flatten(3))], dim=3)

    def _first_layer(self, x_BCHW: Tensor) -> Tensor:
        x_BHWC = x_BCHW.permute(0, 2, 3, 1)
        if isinstance(self.act, Gelu) and self.fc1.bias is not None and fused.usable(x_BCHW):
            from metaformer.network.fused.gelu import bias_gelu

            return bias_gelu(F.linear(x_BHWC, self.fc1.weight), self.fc1.bias)
        return self.act(self.fc1(x_BHWC))


class ChannelLinear(nn.Module):
    """One linear layer over the channels (a 1 x 1 convolution); BCHW in, BCHW out."""

    def __init__(self, in_width: int, width: int) -> None:
        super().__init__()
        self.fc = nn.Linear(in_width, width)
        init_linear(self.fc)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return F.conv2d(x_BCHW, self.fc.weight[:, :, None, None], self.fc.bias)


class ClassToken(nn.Module):
    """Puts a learned token in front of those of a map: BCHW in, one column BC(1+HW)1 out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        nn.init.trunc_normal_(self.cls_token, std=0.02)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BNC = x_BCHW.flatten(2).transpose(1, 2)
        # not len(), which would tie an exported graph to one size of batch
        x_BNC = torch.cat([self.cls_token.expand(x_BNC.shape[0], -1, -1), x_BNC], dim=1)
        return x_BNC.transpose(1, 2).unsqueeze(3)


class PositionEmbedding(nn.Module):
    """A learned vector per position, zero at the start, added to a map of `shape` (height, width)."""

    def __init__(self, width: int, *, shape: tuple[int, int]) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.zeros(1, width, *shape))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW + self.pos_embed


class SinusoidalPositions(nn.Module):
    """A frozen table of sines and cosines, in row-major order of the positions, added to a map of `shape`.

    Position p, channel c: sin (c even) or cos (c odd) of p / 10000^(2 floor(c / 2) / C) (arXiv:1706.03762, 3.5).
    """

    pos_embed: Tensor

    def __init__(self, width: int, *, shape: tuple[int, int]) -> None:
        super().__init__()
        positions = torch.arange(shape[0] * shape[1], dtype=torch.float64)
        channels = torch.arange(width, dtype=torch.float64)  # else the exponents are rounded to 32 bits
        angles_CN = positions / 10000.0 ** (2 * (channels // 2) / width)[:, None]
        table_CN = torch.where(channels[:, None] % 2 == 0, angles_CN.sin(), angles_CN.cos())
        self.register_buffer("pos_embed", table_CN.view(1, width, *shape).float())

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW + self.pos_embed.to(x_BCHW.dtype)
