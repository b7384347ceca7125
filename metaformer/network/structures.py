"""Blocks as T2T-ViT borrows them from CNNs (arXiv:2101.11986, section 3.2): excitation and dense connections.

B batch, C channels, H height, W width, D channels of a hidden layer. Ghost operations are in the layers they change.
"""

import torch
from torch import Tensor, nn

from metaformer.network.layers import ChannelLinear, Gelu, init_linear


class Excited(nn.Module):
    """What a mixer gives, each channel times a factor between 0 and 1 (squeeze-and-excitation, arXiv:1709.01507).

    The factors are sigmoid(W2 relu(W1 z)), z_C the means over all tokens (eqs. 2 to 4); BCHW in, BCHW out.
    """

    def __init__(self, mixer: nn.Module, width: int, *, reduction: int) -> None:
        super().__init__()
        hidden = max(width // reduction, 1)
        self.mixer = mixer
        self.fc1 = nn.Linear(width, hidden, bias=False)
        self.fc2 = nn.Linear(hidden, width, bias=False)
        init_linear(self.fc1)
        init_linear(self.fc2)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BCHW = self.mixer(x_BCHW)
        hidden_BD = self.fc1(y_BCHW.mean((2, 3))).relu()
        return y_BCHW * self.fc2(hidden_BD).sigmoid()[:, :, None, None]


class DenseBlock(nn.Module):
    """A block, behind whose input join the channels that a linear layer makes of its output; perhaps a transition.

    A transition, a linear layer and GELU, follows where `out_width` is not the width of what is joined. BCHW in, BCHW
    out (arXiv:1608.06993, eq. 2; the official code of T2T-ViT-Dense).
    """

    def __init__(self, block: nn.Module, width: int, *, growth: int, out_width: int) -> None:
        super().__init__()
        self.block = block
        self.grow = ChannelLinear(width, growth)
        joined = width + growth
        self.transition = (
            nn.Identity() if out_width == joined else nn.Sequential(ChannelLinear(joined, out_width), Gelu())
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.transition(torch.cat([x_BCHW, self.grow(self.block(x_BCHW))], dim=1))
