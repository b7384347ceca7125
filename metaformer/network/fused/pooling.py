"""Pooling minus the map, alone or with norm and sum of a block's half in one.

Alone, forward and backward: read (the neighbours from cache), write. In one, forward: read x twice, write y; backward:
read x and g twice, write the gradient.

B batch, C channels, H height, W width, P partial sums.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from metaformer.network.fused.kernels.pooling import (
    pool_branch_backward_kernel,
    pool_branch_kernel,
    pool_branch_sums_kernel,
    pooled_difference_kernel,
)
from metaformer.network.fused.map_norm import chunk_statistics
from metaformer.network.fused.tiles import MOST_CHUNKS, PARTS_BLOCK, STATISTICS_BLOCK, as_map, in_rows, tiles

_NUM_WARPS = 8  # a thread holds the numbers of several neighbours


def _difference(x_BCHW: Tensor, size: int, *, transposed: bool) -> Tensor:
    x_BHWC = in_rows(x_BCHW)
    batch, height, width, channels = x_BHWC.shape
    y_BHWC = torch.empty_like(x_BHWC)
    tile = tiles(channels, height * width)
    pooled_difference_kernel[(batch * tile.chunks * tile.channel_blocks,)](
        x_BHWC,
        y_BHWC,
        channels,
        height,
        width,
        tile.steps,
        tile.chunks,
        tile.channel_blocks,
        SIZE=size,
        TRANSPOSED=transposed,
        BLOCK_P=tile.block_positions,
        BLOCK_C=tile.block_channels,
        num_warps=_NUM_WARPS,
    )
    return as_map(y_BHWC)


class _PooledDifference(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BCHW: Tensor, size: int) -> Tensor:
        ctx.size = size
        return _difference(x_BCHW, size, transposed=False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BCHW: Tensor) -> tuple[Tensor, None]:
        return _difference(grad_BCHW, ctx.size, transposed=True), None


def pooled_difference(x_BCHW: Tensor, *, size: int) -> Tensor:
    """pool(x) - x, the mean over those of `size` x `size` neighbours that exist, in the dtype of x; channels-last."""
    y_BCHW: Tensor = _PooledDifference.apply(x_BCHW, size)
    return y_BCHW


class _PoolBranch(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_BCHW: Tensor,
        weight_C: Tensor,
        bias_C: Tensor | None,
        scale_C: Tensor | None,
        res_C: Tensor | None,
        keep_B: Tensor | None,
        eps: float,
        size: int,
        dtype: torch.dtype,
    ) -> Tensor:
        x_BHWC = in_rows(x_BCHW)
        batch, height, width, channels = x_BHWC.shape
        parts_BP2, cut = chunk_statistics(x_BHWC)
        statistics_B2 = torch.empty(batch, 2, dtype=torch.float32, device=x_BHWC.device)
        y_BHWC = torch.empty_like(x_BHWC, dtype=dtype)
        tile = tiles(channels, height * width)
        pool_branch_kernel[(batch * tile.chunks * tile.channel_blocks,)](
            x_BHWC,
            parts_BP2,
            weight_C,
            weight_C if scale_C is None else scale_C,
            weight_C if keep_B is None else keep_B,
            weight_C if res_C is None else res_C,
            y_BHWC,
            statistics_B2,
            channels,
            height,
            width,
            cut.chunks,
            cut.steps * STATISTICS_BLOCK,
            eps,
            tile.steps,
            tile.chunks,
            tile.channel_blocks,
            HAS_SCALE=scale_C is not None,
            HAS_KEEP=keep_B is not None,
            HAS_RES=res_C is not None,
            SIZE=size,
            BLOCK_P=tile.block_positions,
            BLOCK_C=tile.block_channels,
            CHUNKS=MOST_CHUNKS,
            num_warps=_NUM_WARPS,
        )
        ctx.save_for_backward(x_BHWC, weight_C, bias_C, scale_C, res_C, keep_B, statistics_B2)
        ctx.size = size
        return as_map(y_BHWC)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BCHW: Tensor) -> tuple[Tensor | None, ...]:
        x_BHWC, weight_C, bias_C, scale_C, res_C, keep_B, statistics_B2 = ctx.saved_tensors
        grad_BHWC = in_rows(grad_BCHW)
        batch, height, width, channels = x_BHWC.shape
        tile = tiles(channels, height * width)
        programs = batch * tile.chunks * tile.channel_blocks
        num_sums = 1 if res_C is None else 2
        sums_P2 = torch.empty(programs, 2, dtype=torch.float32, device=x_BHWC.device)
        channel_sums = torch.empty(batch * tile.chunks, num_sums, channels, dtype=torch.float32, device=x_BHWC.device)
        inputs = (
            x_BHWC,
            grad_BHWC,
            statistics_B2,
            weight_C,
            weight_C if scale_C is None else scale_C,
            weight_C if keep_B is None else keep_B,
        )
        sizes = (channels, height, width, tile.steps, tile.chunks, tile.channel_blocks)
        constants = {
            "HAS_SCALE": scale_C is not None,
            "HAS_KEEP": keep_B is not None,
            "HAS_RES": res_C is not None,
            "SIZE": ctx.size,
            "BLOCK_P": tile.block_positions,
            "BLOCK_C": tile.block_channels,
            "num_warps": _NUM_WARPS,
        }
        pool_branch_sums_kernel[(programs,)](*inputs, sums_P2, channel_sums, *sizes, **constants)
        grad_x_BHWC = torch.empty_like(x_BHWC)
        pool_branch_backward_kernel[(programs,)](
            *inputs,
            weight_C if res_C is None else res_C,
            sums_P2,
            grad_x_BHWC,
            *sizes,
            **constants,
            BLOCK_PARTS=PARTS_BLOCK,
        )
        totals = channel_sums.sum(0)
        grad_weight_C = totals[0] if scale_C is None else totals[0] * scale_C
        return (
            as_map(grad_x_BHWC),
            grad_weight_C.to(weight_C.dtype),
            None if bias_C is None else torch.zeros_like(bias_C),
            None if scale_C is None else (totals[0] * weight_C).to(scale_C.dtype),
            None if res_C is None else totals[1].to(res_C.dtype),
            *(None,) * 4,
        )


def pool_branch(
    x_BCHW: Tensor,
    weight_C: Tensor,
    bias_C: Tensor | None,
    *,
    scale_C: Tensor | None,
    res_C: Tensor | None,
    keep_B111: Tensor | None,
    eps: float,
    size: int,
    dtype: torch.dtype,
) -> Tensor:
    """res x + keep scale (pool(n) - n) with n the norm of x over an image, in `dtype`; None stands for a factor of 1.

    `bias_C`, the norm's, changes nothing, and its gradient is zero.
    """
    y_BCHW: Tensor = _PoolBranch.apply(x_BCHW, weight_C, bias_C, scale_C, res_C, keep_B111, eps, size, dtype)
    return y_BCHW
