"""GroupNorm of one group on channels-last maps.

Forward: read x, read x, write y. Backward: read x and g, read x and g, write the gradient of x.

B batch, C channels, H height, W width, P partial sums.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from metaformer.network.fused.kernels.map_norm import map_norm_backward_kernel, map_norm_kernel, map_norm_sums_kernel
from metaformer.network.fused.kernels.parts import statistics_kernel
from metaformer.network.fused.tiles import (
    MOST_CHUNKS,
    PARTS_BLOCK,
    STATISTICS_BLOCK,
    Chunks,
    as_map,
    in_rows,
    statistics_chunks,
    tiles,
)


def chunk_statistics(x_BHWC: Tensor) -> tuple[Tensor, Chunks]:
    """Mean and sum of squared deviations of each chunk of each image, (B, chunks, 2), and what the chunks are."""
    values = x_BHWC[0].numel()
    cut = statistics_chunks(values)
    parts_BP2 = torch.empty(len(x_BHWC), cut.chunks, 2, dtype=torch.float32, device=x_BHWC.device)
    statistics_kernel[(len(x_BHWC) * cut.chunks,)](
        x_BHWC, parts_BP2, values, cut.steps, cut.chunks, BLOCK=STATISTICS_BLOCK, num_warps=8
    )
    return parts_BP2, cut


class _MapNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_BCHW: Tensor, weight_C: Tensor, bias_C: Tensor | None, eps: float, dtype: torch.dtype
    ) -> Tensor:
        x_BHWC = in_rows(x_BCHW)
        batch, height, width, channels = x_BHWC.shape
        parts_BP2, cut = chunk_statistics(x_BHWC)
        statistics_B2 = torch.empty(batch, 2, dtype=torch.float32, device=x_BHWC.device)
        y_BHWC = torch.empty_like(x_BHWC, dtype=dtype)
        tile = tiles(channels, height * width)
        map_norm_kernel[(batch * tile.chunks * tile.channel_blocks,)](
            x_BHWC,
            parts_BP2,
            weight_C,
            weight_C if bias_C is None else bias_C,
            y_BHWC,
            statistics_B2,
            channels,
            height * width,
            cut.chunks,
            cut.steps * STATISTICS_BLOCK,
            eps,
            tile.steps,
            tile.chunks,
            tile.channel_blocks,
            HAS_BIAS=bias_C is not None,
            BLOCK_P=tile.block_positions,
            BLOCK_C=tile.block_channels,
            CHUNKS=MOST_CHUNKS,
        )
        ctx.save_for_backward(x_BHWC, weight_C, statistics_B2)
        ctx.bias_dtype = None if bias_C is None else bias_C.dtype
        return as_map(y_BHWC)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BCHW: Tensor) -> tuple[Tensor | None, ...]:
        x_BHWC, weight_C, statistics_B2 = ctx.saved_tensors
        grad_BHWC = in_rows(grad_BCHW)
        batch, height, width, channels = x_BHWC.shape
        tile = tiles(channels, height * width)
        programs = batch * tile.chunks * tile.channel_blocks
        sums_P2 = torch.empty(programs, 2, dtype=torch.float32, device=x_BHWC.device)
        channel_sums_P2C = torch.empty(batch * tile.chunks, 2, channels, dtype=torch.float32, device=x_BHWC.device)
        sizes = (channels, height * width, tile.steps, tile.chunks, tile.channel_blocks)
        blocks = {"BLOCK_P": tile.block_positions, "BLOCK_C": tile.block_channels}
        map_norm_sums_kernel[(programs,)](
            x_BHWC, grad_BHWC, statistics_B2, weight_C, sums_P2, channel_sums_P2C, *sizes, **blocks
        )
        grad_x_BHWC = torch.empty_like(x_BHWC)
        map_norm_backward_kernel[(programs,)](
            x_BHWC, grad_BHWC, statistics_B2, weight_C, sums_P2, grad_x_BHWC, *sizes, **blocks, BLOCK_PARTS=PARTS_BLOCK
        )
        grad_weight_C, grad_bias_C = channel_sums_P2C.sum(0)
        return (
            as_map(grad_x_BHWC),
            grad_weight_C.to(weight_C.dtype),
            None if ctx.bias_dtype is None else grad_bias_C.to(ctx.bias_dtype),
            None,
            None,
        )


def map_norm(x_BCHW: Tensor, weight_C: Tensor, bias_C: Tensor | None, *, eps: float, dtype: torch.dtype) -> Tensor:
    """The norm of each image over channels and positions, times weight, plus bias, in `dtype`; BCHW, channels-last."""
    y_BCHW: Tensor = _MapNorm.apply(x_BCHW, weight_C, bias_C, eps, dtype)
    return y_BCHW
