"""Each kernel, forward and backward, beside PyTorch's own operations in float64 on the same (rounded) numbers.

B batch, C channels, H height, W width.
"""

from collections.abc import Callable, Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.metaformer.network.fused.machine import DEVICE, INTERPRETED, skip_unless_kernels_run

skip_unless_kernels_run()

from metaformer.network.fused import self_check  # noqa: E402
from metaformer.network.fused.gelu import bias_gelu  # noqa: E402
from metaformer.network.fused.layer_norm import layer_norm  # noqa: E402
from metaformer.network.fused.map_norm import map_norm  # noqa: E402
from metaformer.network.fused.pooling import pool_branch, pooled_difference  # noqa: E402
from metaformer.network.fused.residual import residual_sum  # noqa: E402
from metaformer.network.fused.star_relu import star_relu  # noqa: E402

FLOAT, BRAIN = torch.float32, torch.bfloat16
DTYPES = [FLOAT, BRAIN]
# Odd sizes; several blocks of channels and chunks of positions. On a GPU also one position, two channels, and several
# steps of a chunk (statistics above 131,072 numbers); the interpreter is slow.
SHAPES = [(2, 20, 7, 5), (1, 70, 12, 11)]
LARGE_SHAPES = [(2, 130, 9, 8), (2, 64, 33, 20), (1, 48, 56, 53), (2, 66, 1, 1), (2, 2, 6, 5), (3, 320, 14, 14)]
ALL_SHAPES = SHAPES if INTERPRETED else SHAPES + LARGE_SHAPES
POOLS = [(SHAPES[0], 3)] if INTERPRETED else [*((shape, 3) for shape in ALL_SHAPES), (SHAPES[0], 5), (SHAPES[1], 9)]
LAYOUTS = [torch.channels_last, torch.contiguous_format]
FACTORS = ["", "scale keep res"] if INTERPRETED else ["", "scale keep res", "scale", "keep"]  # each is compiled anew

Make = Callable[..., Tensor]


def random(*shape: int, seed: int = 0, spread: float = 1.0, shift: float = 0.0, dtype: torch.dtype = FLOAT) -> Tensor:
    numbers = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * spread + shift
    return numbers.to(device=DEVICE, dtype=dtype)


def a_map(
    shape: Sequence[int], *, seed: int, dtype: torch.dtype = FLOAT, layout: torch.memory_format = torch.channels_last
) -> Tensor:
    """With a mean that is not small beside the spread."""
    return random(*shape, seed=seed, shift=3.0, dtype=dtype).contiguous(memory_format=layout)


def check(fused: Make, plain: Make, inputs: list[Tensor | None], *, dtype: torch.dtype, grad: Tensor) -> None:
    """Outputs and all gradients of `fused` are those of `plain` in float64, to the rounding of their dtypes."""
    ours = [None if tensor is None else tensor.detach().requires_grad_() for tensor in inputs]
    theirs = [None if tensor is None else tensor.detach().double().requires_grad_() for tensor in inputs]
    y, expected = fused(*ours), plain(*theirs)
    assert (y.dtype, y.shape) == (dtype, expected.shape)
    close(y, expected)
    grad = grad.to(dtype)
    leaves = [tensor for tensor in ours if tensor is not None]
    exact = [tensor for tensor in theirs if tensor is not None]
    gradients = torch.autograd.grad(y, leaves, grad)
    again = gradients if INTERPRETED else torch.autograd.grad(fused(*ours), leaves, grad)
    expected_gradients = torch.autograd.grad(expected, exact, grad.double(), allow_unused=True)
    for leaf, gradient, second, wanted in zip(leaves, gradients, again, expected_gradients, strict=True):
        assert (gradient.dtype, gradient.shape) == (leaf.dtype, leaf.shape)
        assert torch.equal(gradient, second)  # the same bits again
        close(gradient, torch.zeros_like(gradient).double() if wanted is None else wanted)


def close(actual: Tensor, expected: Tensor) -> None:
    epsilon = 3e-6 if actual.dtype == FLOAT else torch.finfo(actual.dtype).eps
    largest = float(expected.detach().abs().max())
    torch.testing.assert_close(actual.double(), expected, rtol=epsilon, atol=2 * epsilon * largest + 1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", ALL_SHAPES)
def test_the_norm_of_a_map(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    channels = shape[1]

    def fused(x_BCHW: Tensor, weight_C: Tensor, bias_C: Tensor | None) -> Tensor:
        return map_norm(x_BCHW, weight_C, bias_C, eps=1e-5, dtype=dtype)

    def plain(x_BCHW: Tensor, weight_C: Tensor, bias_C: Tensor | None) -> Tensor:
        return F.group_norm(x_BCHW, 1, weight_C, bias_C, 1e-5)

    weight_C, bias_C = random(channels, seed=3), random(channels, seed=4)
    for layout, bias in zip(LAYOUTS, (bias_C, None), strict=True):
        x_BCHW = a_map(shape, seed=1, dtype=dtype, layout=layout)
        check(fused, plain, [x_BCHW, weight_C, bias], dtype=dtype, grad=a_map(shape, seed=2, layout=layout))


@pytest.mark.parametrize(("dtype_in", "dtype_out"), [(FLOAT, BRAIN), (BRAIN, FLOAT)])
def test_norms_write_another_dtype_than_they_read(dtype_in: torch.dtype, dtype_out: torch.dtype) -> None:
    shape = (2, 20, 7, 5)
    inputs: list[Tensor | None] = [a_map(shape, seed=1, dtype=dtype_in), random(20, seed=3), random(20, seed=4)]
    grad_BCHW = a_map(shape, seed=2)
    check(
        lambda x, weight, bias: map_norm(x, weight, bias, eps=1e-5, dtype=dtype_out),
        lambda x, weight, bias: F.group_norm(x, 1, weight, bias, 1e-5),
        inputs,
        dtype=dtype_out,
        grad=grad_BCHW,
    )
    check(
        lambda x, weight, bias: layer_norm(x, weight, bias, eps=1e-5, dtype=dtype_out),
        plain_layer_norm,
        inputs,
        dtype=dtype_out,
        grad=grad_BCHW,
    )


def test_a_mean_far_above_the_spread_does_not_cancel() -> None:
    height, width = (12, 11) if INTERPRETED else (95, 91)
    x_BCHW = random(1, 16, height, width, spread=0.25, shift=300.0).contiguous(memory_format=torch.channels_last)
    ones_C, zeros_C = torch.ones(16, device=DEVICE), torch.zeros(16, device=DEVICE)
    y_BCHW = map_norm(x_BCHW, ones_C, zeros_C, eps=1e-5, dtype=FLOAT)
    expected_BCHW = F.group_norm(x_BCHW.double(), 1, eps=1e-5)
    torch.testing.assert_close(y_BCHW.double(), expected_BCHW, rtol=1e-3, atol=1e-3)
    pooled_BCHW = pool_branch(
        x_BCHW, ones_C, zeros_C, scale_C=None, res_C=zeros_C, keep_B111=None, eps=1e-5, size=3, dtype=FLOAT
    )
    mean_BCHW = F.avg_pool2d(expected_BCHW, 3, 1, 1, count_include_pad=False)
    torch.testing.assert_close(pooled_BCHW.double(), mean_BCHW - expected_BCHW, rtol=1e-3, atol=1e-3)


def plain_layer_norm(x_BCHW: Tensor, weight_C: Tensor, bias_C: Tensor | None) -> Tensor:
    x_BHWC = x_BCHW.permute(0, 2, 3, 1)
    return F.layer_norm(x_BHWC, weight_C.shape, weight_C, bias_C, 1e-5).permute(0, 3, 1, 2)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [*ALL_SHAPES, (1, 1100, 2, 2), (1, 4096, 1, 1)])
def test_the_norm_of_each_position(shape: tuple[int, ...], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a program takes several blocks of rows."""
    monkeypatch.setattr("metaformer.network.fused.layer_norm._MOST_PARTS", 2)

    def fused(x_BCHW: Tensor, weight_C: Tensor, bias_C: Tensor | None) -> Tensor:
        return layer_norm(x_BCHW, weight_C, bias_C, eps=1e-5, dtype=dtype)

    shape = (shape[0], max(shape[1], 8), *shape[2:])  # of two channels that are near each other nothing is left to norm
    weight_C, bias_C = random(shape[1], seed=3), random(shape[1], seed=4)
    for layout, bias in zip(LAYOUTS, (bias_C, None), strict=True):
        x_BCHW = a_map(shape, seed=1, dtype=dtype, layout=layout)
        check(fused, plain_layer_norm, [x_BCHW, weight_C, bias], dtype=dtype, grad=a_map(shape, seed=2, layout=layout))


@pytest.mark.parametrize("factors", FACTORS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "size"), POOLS)
def test_the_pooling_half(shape: tuple[int, ...], size: int, dtype: torch.dtype, factors: str) -> None:
    """With windows that are larger than the map, too."""
    batch, channels = shape[:2]
    keep_B111 = torch.arange(batch, device=DEVICE, dtype=dtype)[:, None, None, None] if "keep" in factors else None

    def fused(x: Tensor, weight: Tensor, bias: Tensor, scale: Tensor | None, res: Tensor | None) -> Tensor:
        factors = {"scale_C": scale, "res_C": res, "keep_B111": keep_B111}
        return pool_branch(x, weight, bias, **factors, eps=1e-5, size=size, dtype=dtype)

    def plain(x: Tensor, weight: Tensor, bias: Tensor, scale: Tensor | None, res: Tensor | None) -> Tensor:
        normed = F.group_norm(x, 1, weight, bias, 1e-5)
        y = F.avg_pool2d(normed, size, 1, size // 2, count_include_pad=False) - normed
        y = y if scale is None else y * scale[:, None, None]
        y = y if keep_B111 is None else y * keep_B111
        return y + (x if res is None else x * res[:, None, None])

    inputs: list[Tensor | None] = [
        a_map(shape, seed=1, dtype=dtype),
        random(channels, seed=3),
        random(channels, seed=4),
    ]
    inputs.append(random(channels, seed=5) if "scale" in factors else None)
    inputs.append(random(channels, seed=6) if "res" in factors else None)
    check(fused, plain, inputs, dtype=dtype, grad=a_map(shape, seed=2))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "size"), POOLS)
def test_pooling_minus_the_map(shape: tuple[int, ...], size: int, dtype: torch.dtype) -> None:
    def plain(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, size, 1, size // 2, count_include_pad=False) - x

    x_BCHW = a_map(shape, seed=1, dtype=dtype, layout=torch.contiguous_format)
    check(lambda x: pooled_difference(x, size=size), plain, [x_BCHW], dtype=dtype, grad=a_map(shape, seed=2))


@pytest.mark.parametrize("factors", [*FACTORS[1:], "bias", "bias scale keep res"])
@pytest.mark.parametrize("dtypes", [(FLOAT, BRAIN), (BRAIN, BRAIN), (BRAIN, FLOAT), (FLOAT, FLOAT)])
@pytest.mark.parametrize("shape", ALL_SHAPES[:1] if INTERPRETED else ALL_SHAPES[1:4])
def test_the_sum_behind_a_half(shape: tuple[int, ...], dtypes: tuple[torch.dtype, ...], factors: str) -> None:
    """In the dtype that PyTorch gives the sum."""
    batch, channels = shape[:2]
    keep_B111 = None
    if "keep" in factors:
        keep_B111 = torch.arange(batch, device=DEVICE, dtype=dtypes[0])[:, None, None, None]

    def fused(x: Tensor, y: Tensor, scale: Tensor | None, res: Tensor | None, bias: Tensor | None) -> Tensor:
        return residual_sum(x, y, scale_C=scale, res_C=res, keep_B111=keep_B111, bias_C=bias)

    def plain(x: Tensor, y: Tensor, scale: Tensor | None, res: Tensor | None, bias: Tensor | None) -> Tensor:
        y = y if bias is None else y + bias[:, None, None]
        y = y if scale is None else y * scale[:, None, None]
        y = y if keep_B111 is None else y * keep_B111
        return y + (x if res is None else x * res[:, None, None])

    x_BCHW = a_map(shape, seed=1, dtype=dtypes[0])
    y_BCHW = a_map(shape, seed=2, dtype=dtypes[1], layout=torch.contiguous_format)
    scale_C = random(channels, seed=3) if "scale" in factors else None
    res_C = random(channels, seed=4) if "res" in factors else None
    bias_C = random(channels, seed=6) if "bias" in factors else None
    dtype = plain(x_BCHW, y_BCHW, scale_C, res_C, None).dtype
    check(fused, plain, [x_BCHW, y_BCHW, scale_C, res_C, bias_C], dtype=dtype, grad=a_map(shape, seed=5))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", ALL_SHAPES)
def test_a_bias_and_gelu(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    def plain(x_BHWD: Tensor, bias_D: Tensor) -> Tensor:
        return F.gelu(x_BHWD + bias_D)

    x_BHWD = random(*shape, seed=1, spread=2.0, dtype=dtype).permute(0, 2, 3, 1).contiguous()
    grad_BHWD = random(*shape, seed=2).permute(0, 2, 3, 1)
    check(bias_gelu, plain, [x_BHWD, random(shape[1], seed=3)], dtype=dtype, grad=grad_BHWD)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(5,), (2, 20, 7, 5), (1, 64, 33, 5), (2, 3, 7, 11)])
def test_star_relu(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Of any shape, in either memory order, with a gradient in another order than the map."""

    def plain(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        return scale * F.relu(x) ** 2 + bias

    x, grad = random(*shape, seed=1, dtype=dtype), random(*shape, seed=2, shift=1.0)
    parameters: list[Tensor | None] = [random(1, seed=3), random(1, seed=4)]
    check(star_relu, plain, [x, *parameters], dtype=dtype, grad=grad)
    if len(shape) == 4:
        check(star_relu, plain, [x.to(memory_format=torch.channels_last), *parameters], dtype=dtype, grad=grad)
        check(star_relu, plain, [x.permute(0, 2, 3, 1), *parameters], dtype=dtype, grad=grad.permute(0, 2, 3, 1))
        check(star_relu, plain, [x.transpose(1, 3)[:, 1:], *parameters], dtype=dtype, grad=grad.transpose(1, 3)[:, 1:])


def test_a_number_that_is_none_stays_so() -> None:
    x = torch.tensor([float("nan"), 1.0], device=DEVICE)
    assert star_relu(x, torch.ones(1, device=DEVICE), torch.zeros(1, device=DEVICE)).isnan().tolist() == [True, False]


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE.type != "cuda", reason="needs a CUDA device")
def test_maps_of_more_numbers_than_32_bits_count() -> None:
    """The last image, beyond 2^31 numbers, is computed as if it were alone."""
    x_BCHW = torch.randn(1, 256, 256, 64, device=DEVICE, dtype=BRAIN).expand(513, -1, -1, -1).permute(0, 3, 1, 2)
    x_BCHW = x_BCHW.contiguous(memory_format=torch.channels_last).requires_grad_()
    weight_C, bias_C, one = random(64, seed=1), random(64, seed=2), torch.ones(1, device=DEVICE)

    def pooled(x: Tensor) -> Tensor:
        factors = {"scale_C": weight_C, "res_C": None, "keep_B111": None}
        return pool_branch(x, weight_C, bias_C, **factors, eps=1e-5, size=3, dtype=BRAIN)

    kernels: list[Callable[[Tensor], Tensor]] = [
        pooled,
        lambda x: pooled_difference(x, size=3),
        lambda x: bias_gelu(x.permute(0, 2, 3, 1), bias_C).permute(0, 3, 1, 2),
        lambda x: map_norm(x, weight_C, bias_C, eps=1e-5, dtype=BRAIN),
        lambda x: layer_norm(x, weight_C, bias_C, eps=1e-5, dtype=BRAIN),
        lambda x: star_relu(x, one, one),
        lambda x: residual_sum(x, x, scale_C=weight_C, res_C=None, keep_B111=None),
    ]
    for kernel in kernels:
        last_BCHW = x_BCHW.detach()[-1:].clone().requires_grad_()
        y_BCHW, expected_BCHW = kernel(x_BCHW), kernel(last_BCHW)
        assert torch.equal(y_BCHW[-1:], expected_BCHW)
        (grad_BCHW,) = torch.autograd.grad(y_BCHW, x_BCHW, y_BCHW.detach())
        (expected_grad_BCHW,) = torch.autograd.grad(expected_BCHW, last_BCHW, expected_BCHW.detach())
        assert torch.equal(grad_BCHW[-1:], expected_grad_BCHW)
        del y_BCHW, grad_BCHW


def test_the_check_before_first_use_finds_kernels_that_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    assert self_check.disagreeing(DEVICE) == []
    monkeypatch.setattr(self_check, "bias_gelu", lambda x, bias: 1.01 * bias_gelu(x, bias))
    monkeypatch.setattr(self_check, "pool_branch", lambda *given, **named: 0.99 * pool_branch(*given, **named))
    assert self_check.disagreeing(DEVICE) == ["pool_branch", "bias_gelu"]
