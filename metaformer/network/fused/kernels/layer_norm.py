"""Norm of each row over its channels."""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["rows"])
def layer_norm_kernel(
    x_ptr,
    weight_ptr,
    bias_ptr,
    y_ptr,
    statistics_ptr,
    rows,
    channels,
    eps,
    HAS_BIAS: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """(x - mean) * rstd * weight + bias of BLOCK_R rows; keeps mean and rstd of each."""
    row = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    c = tl.arange(0, BLOCK_C)
    there = (row < rows)[:, None] & (c < channels)[None, :]
    offsets = row.to(tl.int64)[:, None] * channels + c[None, :]
    x = tl.load(x_ptr + offsets, mask=there, other=0.0).to(tl.float32)
    mean = tl.sum(x, axis=1) / channels
    apart = tl.where(there, x - mean[:, None], 0.0)
    rstd = tl.rsqrt(tl.sum(apart * apart, axis=1) / channels + eps)
    weight = tl.load(weight_ptr + c, mask=c < channels, other=0.0).to(tl.float32)
    y = apart * rstd[:, None] * weight[None, :]
    if HAS_BIAS:
        y += tl.load(bias_ptr + c, mask=c < channels, other=0.0).to(tl.float32)[None, :]
    tl.store(y_ptr + offsets, y.to(y_ptr.dtype.element_ty), mask=there)
    tl.store(statistics_ptr + row * 2, mean, mask=row < rows)
    tl.store(statistics_ptr + row * 2 + 1, rstd, mask=row < rows)


@triton.jit(do_not_specialize=["rows", "steps"])
def layer_norm_backward_kernel(
    x_ptr,
    grad_ptr,
    statistics_ptr,
    weight_ptr,
    grad_x_ptr,
    channel_sums_ptr,
    rows,
    channels,
    steps,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """The gradient of `steps` blocks of rows, and their sums of g * xhat and g per channel."""
    program = tl.program_id(0)
    c = tl.arange(0, BLOCK_C)
    weight = tl.load(weight_ptr + c, mask=c < channels, other=0.0).to(tl.float32)[None, :]
    products = tl.zeros([BLOCK_R, BLOCK_C], dtype=tl.float32)
    grads = tl.zeros([BLOCK_R, BLOCK_C], dtype=tl.float32)
    for step in range(steps):
        row = (program * steps + step) * BLOCK_R + tl.arange(0, BLOCK_R)
        there = (row < rows)[:, None] & (c < channels)[None, :]
        offsets = row.to(tl.int64)[:, None] * channels + c[None, :]
        x = tl.load(x_ptr + offsets, mask=there, other=0.0).to(tl.float32)
        grad = tl.load(grad_ptr + offsets, mask=there, other=0.0).to(tl.float32)
        mean = tl.load(statistics_ptr + row * 2, mask=row < rows, other=0.0)
        rstd = tl.load(statistics_ptr + row * 2 + 1, mask=row < rows, other=0.0)
        normed = tl.where(there, (x - mean[:, None]) * rstd[:, None], 0.0)
        products += grad * normed
        grads += grad
        weighted = grad * weight
        level = tl.sum(weighted, axis=1) / channels
        slope = tl.sum(weighted * normed, axis=1) / channels
        grad_x = rstd[:, None] * (weighted - level[:, None] - normed * slope[:, None])
        tl.store(grad_x_ptr + offsets, grad_x.to(grad_x_ptr.dtype.element_ty), mask=there)
    row_ptr = channel_sums_ptr + program.to(tl.int64) * (2 * channels)
    tl.store(row_ptr + c, tl.sum(products, axis=0), mask=c < channels)
    tl.store(row_ptr + channels + c, tl.sum(grads, axis=0), mask=c < channels)
