"""The bias of a linear layer and the GELU behind it.

Forward: read x, write y. Backward: read x and g, write the gradient of x. The sum that is the gradient of the bias, a
kernel of its own behind a linear layer with bias, comes with it.

B batch, H height, W width, D channels, P partial sums.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from metaformer.network.fused.kernels.gelu import bias_gelu_backward_kernel, bias_gelu_kernel
from metaformer.network.fused.tiles import tiles


class _BiasGelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BHWD: Tensor, bias_D: Tensor) -> Tensor:
        x_BHWD = x_BHWD.contiguous()
        batch, height, width, channels = x_BHWD.shape
        y_BHWD = torch.empty_like(x_BHWD)
        tile = tiles(channels, height * width)
        bias_gelu_kernel[(batch * tile.chunks * tile.channel_blocks,)](
            x_BHWD,
            bias_D,
            y_BHWD,
            channels,
            height * width,
            tile.steps,
            tile.chunks,
            tile.channel_blocks,
            BLOCK_P=tile.block_positions,
            BLOCK_C=tile.block_channels,
        )
        ctx.save_for_backward(x_BHWD, bias_D)
        return y_BHWD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BHWD: Tensor) -> tuple[Tensor, Tensor]:
        x_BHWD, bias_D = ctx.saved_tensors
        batch, height, width, channels = x_BHWD.shape
        grad_x_BHWD = torch.empty_like(x_BHWD)
        tile = tiles(channels, height * width)
        sums_PD = torch.empty(batch * tile.chunks, channels, dtype=torch.float32, device=x_BHWD.device)
        bias_gelu_backward_kernel[(batch * tile.chunks * tile.channel_blocks,)](
            x_BHWD,
            bias_D,
            grad_BHWD.contiguous(),
            grad_x_BHWD,
            sums_PD,
            channels,
            height * width,
            tile.steps,
            tile.chunks,
            tile.channel_blocks,
            BLOCK_P=tile.block_positions,
            BLOCK_C=tile.block_channels,
        )
        return grad_x_BHWD, sums_PD.sum(0).to(bias_D.dtype)


def bias_gelu(x_BHWD: Tensor, bias_D: Tensor) -> Tensor:
    """gelu(x + bias) in the dtype of x; BHWD, contiguous."""
    y_BHWD: Tensor = _BiasGelu.apply(x_BHWD, bias_D)
    return y_BHWD
