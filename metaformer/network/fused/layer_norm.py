"""Layer norm over the channels of each position.

Forward: read x, write y. Backward: read x and g, write the gradient of x.

B batch, C channels, H height, W width, R rows (positions of all images), P partial sums.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from metaformer.network.fused.kernels.layer_norm import layer_norm_backward_kernel, layer_norm_kernel
from metaformer.network.fused.tiles import TILE, as_map, divide_up, in_rows, power_of_two

MOST_CHANNELS = 4096  # a program holds whole rows
_MOST_PARTS = 1024


class _LayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_BCHW: Tensor, weight_C: Tensor, bias_C: Tensor | None, eps: float, dtype: torch.dtype
    ) -> Tensor:
        x_BHWC = in_rows(x_BCHW)
        channels = x_BHWC.shape[3]
        rows = x_BHWC.numel() // channels
        statistics_R2 = torch.empty(rows, 2, dtype=torch.float32, device=x_BHWC.device)
        y_BHWC = torch.empty_like(x_BHWC, dtype=dtype)
        block_rows, block_channels = _blocks(channels)
        layer_norm_kernel[(divide_up(rows, block_rows),)](
            x_BHWC,
            weight_C,
            weight_C if bias_C is None else bias_C,
            y_BHWC,
            statistics_R2,
            rows,
            channels,
            eps,
            HAS_BIAS=bias_C is not None,
            BLOCK_R=block_rows,
            BLOCK_C=block_channels,
            num_warps=_num_warps(block_channels),
        )
        ctx.save_for_backward(x_BHWC, weight_C, statistics_R2)
        ctx.bias_dtype = None if bias_C is None else bias_C.dtype
        return as_map(y_BHWC)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BCHW: Tensor) -> tuple[Tensor | None, ...]:
        x_BHWC, weight_C, statistics_R2 = ctx.saved_tensors
        grad_BHWC = in_rows(grad_BCHW)
        channels, rows = x_BHWC.shape[3], len(statistics_R2)
        block_rows, block_channels = _blocks(channels)
        steps = divide_up(rows, block_rows * _MOST_PARTS)
        programs = divide_up(rows, block_rows * steps)
        channel_sums_P2C = torch.empty(programs, 2, channels, dtype=torch.float32, device=x_BHWC.device)
        grad_x_BHWC = torch.empty_like(x_BHWC)
        layer_norm_backward_kernel[(programs,)](
            x_BHWC,
            grad_BHWC,
            statistics_R2,
            weight_C,
            grad_x_BHWC,
            channel_sums_P2C,
            rows,
            channels,
            steps,
            BLOCK_R=block_rows,
            BLOCK_C=block_channels,
            num_warps=_num_warps(block_channels),
        )
        grad_weight_C, grad_bias_C = channel_sums_P2C.sum(0)
        return (
            as_map(grad_x_BHWC),
            grad_weight_C.to(weight_C.dtype),
            None if ctx.bias_dtype is None else grad_bias_C.to(ctx.bias_dtype),
            None,
            None,
        )


def _blocks(channels: int) -> tuple[int, int]:
    """Rows and channels that a program holds at a time."""
    block_channels = max(power_of_two(channels), 16)
    return max(TILE // block_channels, 1), block_channels


def _num_warps(block_channels: int) -> int:
    return 8 if block_channels > TILE else 4


def layer_norm(x_BCHW: Tensor, weight_C: Tensor, bias_C: Tensor | None, *, eps: float, dtype: torch.dtype) -> Tensor:
    """The norm of each position over its channels, times weight, plus bias, in `dtype`; BCHW, channels-last."""
    y_BCHW: Tensor = _LayerNorm.apply(x_BCHW, weight_C, bias_C, eps, dtype)
    return y_BCHW
