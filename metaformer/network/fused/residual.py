"""The sum behind a block's half.

Forward: read x and y, write the sum. Backward: read g, with `res` x and with `scale` y; write the gradient of y, and
that of x where it is not g itself. The sums that are the gradients of the factors and of the bias come with it.

B batch, C channels, H height, W width, P partial sums.
"""

from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from metaformer.network.fused.kernels.residual import residual_backward_kernel, residual_kernel
from metaformer.network.fused.tiles import as_map, in_rows, tiles


class _ResidualSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_BCHW: Tensor,
        y_BCHW: Tensor,
        res_C: Tensor | None,
        bias_C: Tensor | None,
        scale_C: Tensor | None,
        keep_B: Tensor | None,
    ) -> Tensor:
        x_BHWC, y_BHWC = in_rows(x_BCHW), in_rows(y_BCHW)
        batch, height, width, channels = x_BHWC.shape
        given = [tensor for tensor in (x_BCHW, y_BCHW, res_C, scale_C, keep_B) if tensor is not None]
        out_BHWC = torch.empty_like(x_BHWC, dtype=reduce(torch.promote_types, (tensor.dtype for tensor in given)))
        tile = tiles(channels, height * width)
        residual_kernel[(batch * tile.chunks * tile.channel_blocks,)](
            x_BHWC,
            x_BHWC if res_C is None else res_C,
            y_BHWC,
            x_BHWC if bias_C is None else bias_C,
            x_BHWC if scale_C is None else scale_C,
            x_BHWC if keep_B is None else keep_B,
            out_BHWC,
            channels,
            height * width,
            tile.steps,
            tile.chunks,
            tile.channel_blocks,
            HAS_RES=res_C is not None,
            HAS_BIAS=bias_C is not None,
            HAS_SCALE=scale_C is not None,
            HAS_KEEP=keep_B is not None,
            BLOCK_P=tile.block_positions,
            BLOCK_C=tile.block_channels,
        )
        ctx.save_for_backward(
            x_BHWC if res_C is not None else None,
            y_BHWC if scale_C is not None else None,
            res_C,
            bias_C,
            scale_C,
            keep_B,
        )
        ctx.dtypes = x_BCHW.dtype, y_BCHW.dtype
        return as_map(out_BHWC)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BCHW: Tensor) -> tuple[Tensor | None, ...]:
        x_BHWC, y_BHWC, res_C, bias_C, scale_C, keep_B = ctx.saved_tensors
        x_dtype, y_dtype = ctx.dtypes
        grad_BHWC = in_rows(grad_BCHW)
        batch, height, width, channels = grad_BHWC.shape
        tile = tiles(channels, height * width)
        write_x = res_C is not None or x_dtype != grad_BHWC.dtype
        grad_x_BHWC = torch.empty_like(grad_BHWC, dtype=x_dtype) if write_x else grad_BHWC
        grad_y_BHWC = torch.empty_like(grad_BHWC, dtype=y_dtype)
        sums_P3C = torch.empty(batch * tile.chunks, 3, channels, dtype=torch.float32, device=grad_BHWC.device)
        residual_backward_kernel[(batch * tile.chunks * tile.channel_blocks,)](
            grad_BHWC if x_BHWC is None else x_BHWC,
            grad_BHWC if res_C is None else res_C,
            grad_BHWC if y_BHWC is None else y_BHWC,
            grad_BHWC if bias_C is None else bias_C,
            grad_BHWC if scale_C is None else scale_C,
            grad_BHWC if keep_B is None else keep_B,
            grad_BHWC,
            grad_x_BHWC,
            grad_y_BHWC,
            sums_P3C,
            channels,
            height * width,
            tile.steps,
            tile.chunks,
            tile.channel_blocks,
            HAS_RES=res_C is not None,
            HAS_BIAS=bias_C is not None,
            HAS_SCALE=scale_C is not None,
            HAS_KEEP=keep_B is not None,
            WRITE_X=write_x,
            BLOCK_P=tile.block_positions,
            BLOCK_C=tile.block_channels,
        )
        return (
            as_map(grad_x_BHWC),
            as_map(grad_y_BHWC),
            None if res_C is None else sums_P3C[:, 0].sum(0).to(res_C.dtype),
            None if bias_C is None else sums_P3C[:, 2].sum(0).to(bias_C.dtype),
            None if scale_C is None else sums_P3C[:, 1].sum(0).to(scale_C.dtype),
            None,
        )


def residual_sum(
    x_BCHW: Tensor,
    y_BCHW: Tensor,
    *,
    res_C: Tensor | None,
    scale_C: Tensor | None,
    keep_B111: Tensor | None,
    bias_C: Tensor | None = None,
) -> Tensor:
    """res x + keep scale (y + bias) in the dtype that PyTorch gives res x + keep scale y.

    None stands for a factor of 1 and a bias of 0.
    """
    sum_BCHW: Tensor = _ResidualSum.apply(x_BCHW, y_BCHW, res_C, bias_C, scale_C, keep_B111)
    return sum_BCHW
