"""What stands around a mixer: norms, activations, scales, the channel MLP, positions and convolutions.

B batch, C channels, H height and W width in tokens. Maps are BCHW tensors in channels-last memory, so that a view as
BHWC or as B(HW)C tokens costs nothing.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metaformer.specs import Activation, Conv, Mlp, Norm


class ChannelLayerNorm(nn.Module):
    """Layer norm over the channels of each position."""

    def __init__(self, width: int, *, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BHWC = x_BCHW.permute(0, 2, 3, 1)
        return F.layer_norm(x_BHWC, self.weight.shape, self.weight, self.bias, self.eps).permute(0, 3, 1, 2)


def make_norm(spec: Norm, width: int) -> nn.Module:
    """The norm `spec` describes, for maps of `width` channels; BCHW in, BCHW out."""
    match spec.kind:
        case "mln":
            return nn.GroupNorm(1, width, eps=spec.eps)
        case "layer_norm":
            return ChannelLayerNorm(width, eps=spec.eps)
        case "batch_norm":
            return nn.BatchNorm2d(width, eps=spec.eps)
        case "none":
            return nn.Identity()


def make_activation(name: Activation) -> nn.Module:
    """The element-wise activation called `name`; GELU is the exact one (erf)."""
    match name:
        case "gelu":
            return nn.GELU()
        case "relu":
            return nn.ReLU()
        case "silu":
            return nn.SiLU()


def make_conv(spec: Conv, in_width: int, width: int) -> nn.Conv2d:
    """A convolution with bias in PyTorch's default initialisation, as the official stem and downsampling have."""
    return nn.Conv2d(in_width, width, spec.kernel, spec.stride, spec.padding)


def init_linear(linear: nn.Linear) -> None:
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


class ChannelMlp(nn.Module):
    """Two linear layers over the channels with an activation between; BCHW in, BCHW out."""

    def __init__(self, width: int, spec: Mlp) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, spec.ratio * width)
        self.act = make_activation(spec.activation)
        self.fc2 = nn.Linear(spec.ratio * width, width)
        init_linear(self.fc1)
        init_linear(self.fc2)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BHWC = x_BCHW.permute(0, 2, 3, 1)
        return self.fc2(self.act(self.fc1(x_BHWC))).permute(0, 3, 1, 2)


class PositionEmbedding(nn.Module):
    """A learned vector per position, zero at the start, added to the map."""

    def __init__(self, width: int, *, side: int) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.zeros(1, width, side, side))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW + self.pos_embed
