"""StarReLU. Forward: read x, write y. Backward: read x and g, write the gradient of x.

P partial sums.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from metaformer.network.fused.kernels.star_relu import star_relu_backward_kernel, star_relu_kernel
from metaformer.network.fused.tiles import divide_up

_BLOCK = 2048
_STEPS = 4  # blocks of a program


class _StarReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        is_dense = x.is_contiguous() or (x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last))
        x = x if is_dense else x.contiguous()
        y = torch.empty_like(x)
        star_relu_kernel[(divide_up(x.numel(), _BLOCK * _STEPS),)](
            x, scale, bias, y, x.numel(), BLOCK=_BLOCK, STEPS=_STEPS
        )
        ctx.save_for_backward(x, scale)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, scale = ctx.saved_tensors
        if grad_y.stride() != x.stride():
            grad_y = torch.empty_like(x, dtype=grad_y.dtype).copy_(grad_y)
        grad_x = torch.empty_like(x)
        programs = divide_up(x.numel(), _BLOCK * _STEPS)
        sums_P2 = torch.empty(programs, 2, dtype=torch.float32, device=x.device)
        star_relu_backward_kernel[(programs,)](x, grad_y, scale, grad_x, sums_P2, x.numel(), BLOCK=_BLOCK, STEPS=_STEPS)
        sums_2 = sums_P2.sum(0).to(scale.dtype)
        return grad_x, sums_2[:1], sums_2[1:]


def star_relu(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """scale * relu(x)^2 + bias in the dtype and memory order of x; `scale` and `bias` have one element."""
    y: Tensor = _StarReLU.apply(x, scale, bias)
    return y
