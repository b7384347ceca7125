"""Whether the kernels agree with PyTorch on a device, tried on a small map before they are trusted with a training.

B batch, C channels, H height, W width.
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from metaformer.network.fused.gelu import bias_gelu
from metaformer.network.fused.layer_norm import layer_norm
from metaformer.network.fused.map_norm import map_norm
from metaformer.network.fused.pooling import pool_branch, pooled_difference
from metaformer.network.fused.residual import residual_sum
from metaformer.network.fused.star_relu import star_relu

_TOLERANCE = 1e-3  # of the largest number; rounding of float32 stays far below
_EPS = 1e-5

Function = Callable[..., Tensor]


def disagreeing(device: torch.device) -> list[str]:
    """Names of the kernels whose outputs or gradients are not PyTorch's, on one map of odd sizes in float32."""
    draw = torch.Generator().manual_seed(0)
    with (
        torch.inference_mode(mode=False),
        torch.enable_grad(),
        torch.autocast(device.type, enabled=False),
    ):
        x_BCHW, y_BCHW, grad_BCHW = (
            torch.randn(2, 20, 7, 5, generator=draw).to(device).contiguous(memory_format=torch.channels_last)
            for _ in range(3)
        )
        a_C, b_C, c_C = (torch.randn(20, generator=draw).to(device) for _ in range(3))
        keep_B111 = torch.tensor([0.0, 2.0]).view(2, 1, 1, 1).to(device)
        maps = x_BCHW, y_BCHW
        return [
            name
            for name, fused, plain, inputs in _pairs(maps, (a_C, b_C, c_C), keep_B111)
            if not _agree(fused, plain, inputs, grad_BCHW)
        ]


def _pairs(
    maps: tuple[Tensor, Tensor], vectors_C: tuple[Tensor, Tensor, Tensor], keep_B111: Tensor
) -> Iterator[tuple[str, Function, Function, tuple[Tensor, ...]]]:
    """Each kernel, what it stands for, and what both take."""
    x_BCHW, y_BCHW = maps
    a_C, b_C, c_C = vectors_C

    def pool(x_BCHW: Tensor) -> Tensor:
        # Contiguous, since PyTorch's gradient of a channels-last map may be wrong (see PoolMixer).
        return F.avg_pool2d(x_BCHW.contiguous(), 3, 1, 1, count_include_pad=False) - x_BCHW

    def in_rows(norm: Function) -> Function:
        return lambda x, *others: norm(x.permute(0, 2, 3, 1), *others).permute(0, 3, 1, 2)

    yield (
        "map_norm",
        lambda x, w, b: map_norm(x, w, b, eps=_EPS, dtype=torch.float32),
        lambda x, w, b: F.group_norm(x, 1, w, b, _EPS),
        (x_BCHW, a_C, b_C),
    )
    yield (
        "layer_norm",
        lambda x, w, b: layer_norm(x, w, b, eps=_EPS, dtype=torch.float32),
        in_rows(lambda x, w, b: F.layer_norm(x, w.shape, w, b, _EPS)),
        (x_BCHW, a_C, b_C),
    )
    yield (
        "pool_branch",
        lambda x, w, s, r: pool_branch(
            x, w, None, scale_C=s, res_C=r, keep_B111=keep_B111, eps=_EPS, size=3, dtype=torch.float32
        ),
        lambda x, w, s, r: (
            r[:, None, None] * x + keep_B111 * s[:, None, None] * pool(F.group_norm(x, 1, w, None, _EPS))
        ),
        (x_BCHW, a_C, b_C, c_C),
    )
    yield "pooled_difference", lambda x: pooled_difference(x, size=3), pool, (x_BCHW,)
    yield (
        "residual_sum",
        lambda x, y, s, r, b: residual_sum(x, y, res_C=r, scale_C=s, keep_B111=keep_B111, bias_C=b),
        lambda x, y, s, r, b: r[:, None, None] * x + keep_B111 * s[:, None, None] * (y + b[:, None, None]),
        (x_BCHW, y_BCHW, a_C, b_C, c_C),
    )
    yield "bias_gelu", in_rows(bias_gelu), in_rows(lambda x, b: F.gelu(x + b)), (x_BCHW, a_C)
    yield (
        "star_relu",
        star_relu,
        lambda x, s, b: s * F.relu(x) ** 2 + b,
        (x_BCHW, a_C[:1].clone(), b_C[:1].clone()),
    )


def _agree(fused: Function, plain: Function, inputs: tuple[Tensor, ...], grad_BCHW: Tensor) -> bool:
    results = []
    for function in (fused, plain):
        leaves = [given.detach().requires_grad_() for given in inputs]
        y_BCHW = function(*leaves)
        results.append([y_BCHW, *torch.autograd.grad(y_BCHW, leaves, grad_BCHW)])
    return all(
        bool((ours - theirs).abs().max() <= _TOLERANCE * (theirs.abs().max() + 1e-3))
        for ours, theirs in zip(*results, strict=True)
    )
