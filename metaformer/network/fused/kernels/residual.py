"""The sum behind a block's half, res x + scale keep (y + bias)."""

import triton
import triton.language as tl

from metaformer.network.fused.kernels.parts import place


@triton.jit(do_not_specialize=["positions", "steps", "chunks", "channel_blocks"])
def residual_kernel(
    x_ptr,
    res_ptr,
    y_ptr,
    bias_ptr,
    scale_ptr,
    keep_ptr,
    out_ptr,
    channels,
    positions,
    steps,
    chunks,
    channel_blocks,
    HAS_RES: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_SCALE: tl.constexpr,
    HAS_KEEP: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """The sum in the dtype of `out`."""
    image, chunk, channel_block = place(chunks, channel_blocks)
    c = channel_block * BLOCK_C + tl.arange(0, BLOCK_C)
    of_map = c < channels
    image_start = image.to(tl.int64) * (channels * positions)
    x_ptr += image_start
    y_ptr += image_start
    out_ptr += image_start
    if HAS_RES:
        res = tl.load(res_ptr + c, mask=of_map, other=0.0).to(tl.float32)[None, :]
    if HAS_BIAS:
        bias = tl.load(bias_ptr + c, mask=of_map, other=0.0).to(tl.float32)[None, :]
    if HAS_SCALE:
        scale = tl.load(scale_ptr + c, mask=of_map, other=0.0).to(tl.float32)[None, :]
    if HAS_KEEP:
        keep = tl.load(keep_ptr + image).to(tl.float32)
    for step in range(steps):
        p = (chunk * steps + step) * BLOCK_P + tl.arange(0, BLOCK_P)
        there = (p < positions)[:, None] & of_map[None, :]
        offsets = p[:, None] * channels + c[None, :]
        x = tl.load(x_ptr + offsets, mask=there, other=0.0).to(tl.float32)
        y = tl.load(y_ptr + offsets, mask=there, other=0.0).to(tl.float32)
        if HAS_RES:
            x *= res
        if HAS_BIAS:
            y += bias
        if HAS_SCALE:
            y *= scale
        if HAS_KEEP:
            y *= keep
        tl.store(out_ptr + offsets, (x + y).to(out_ptr.dtype.element_ty), mask=there)


@triton.jit(do_not_specialize=["positions", "steps", "chunks", "channel_blocks"])
def residual_backward_kernel(
    x_ptr,
    res_ptr,
    y_ptr,
    bias_ptr,
    scale_ptr,
    keep_ptr,
    grad_ptr,
    grad_x_ptr,
    grad_y_ptr,
    channel_sums_ptr,
    channels,
    positions,
    steps,
    chunks,
    channel_blocks,
    HAS_RES: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_SCALE: tl.constexpr,
    HAS_KEEP: tl.constexpr,
    WRITE_X: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Gradients of x (with WRITE_X) and y, and sums per chunk and channel.

    Of g x (HAS_RES), of keep g (y + bias) (HAS_SCALE) and of keep scale g (HAS_BIAS).
    """
    image, chunk, channel_block = place(chunks, channel_blocks)
    c = channel_block * BLOCK_C + tl.arange(0, BLOCK_C)
    of_map = c < channels
    image_start = image.to(tl.int64) * (channels * positions)
    x_ptr += image_start
    y_ptr += image_start
    grad_ptr += image_start
    grad_x_ptr += image_start
    grad_y_ptr += image_start
    keep = 1.0
    if HAS_RES:
        res = tl.load(res_ptr + c, mask=of_map, other=0.0).to(tl.float32)[None, :]
    if HAS_BIAS:
        bias = tl.load(bias_ptr + c, mask=of_map, other=0.0).to(tl.float32)[None, :]
    if HAS_SCALE:
        scale = tl.load(scale_ptr + c, mask=of_map, other=0.0).to(tl.float32)[None, :]
    if HAS_KEEP:
        keep = tl.load(keep_ptr + image).to(tl.float32)
    res_sums = tl.zeros([BLOCK_P, BLOCK_C], dtype=tl.float32)
    scale_sums = tl.zeros([BLOCK_P, BLOCK_C], dtype=tl.float32)
    bias_sums = tl.zeros([BLOCK_P, BLOCK_C], dtype=tl.float32)
    for step in range(steps):
        p = (chunk * steps + step) * BLOCK_P + tl.arange(0, BLOCK_P)
        there = (p < positions)[:, None] & of_map[None, :]
        offsets = p[:, None] * channels + c[None, :]
        grad = tl.load(grad_ptr + offsets, mask=there, other=0.0).to(tl.float32)
        if HAS_RES:
            x = tl.load(x_ptr + offsets, mask=there, other=0.0).to(tl.float32)
            res_sums += grad * x
        if WRITE_X:
            grad_x = grad
            if HAS_RES:
                grad_x = grad * res
            tl.store(grad_x_ptr + offsets, grad_x.to(grad_x_ptr.dtype.element_ty), mask=there)
        grad_y = grad * keep
        if HAS_SCALE:
            y = tl.load(y_ptr + offsets, mask=there, other=0.0).to(tl.float32)
            if HAS_BIAS:
                y += bias
            scale_sums += grad_y * y
            grad_y = grad_y * scale
        if HAS_BIAS:
            bias_sums += grad_y
        tl.store(grad_y_ptr + offsets, grad_y.to(grad_y_ptr.dtype.element_ty), mask=there)
    row_ptr = channel_sums_ptr + (image * chunks + chunk).to(tl.int64) * (3 * channels)
    if HAS_RES:
        tl.store(row_ptr + c, tl.sum(res_sums, axis=0), mask=of_map)
    if HAS_SCALE:
        tl.store(row_ptr + channels + c, tl.sum(scale_sums, axis=0), mask=of_map)
    if HAS_BIAS:
        tl.store(row_ptr + 2 * channels + c, tl.sum(bias_sums, axis=0), mask=of_map)
