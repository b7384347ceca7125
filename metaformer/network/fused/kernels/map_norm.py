"""Norm of an image over all its channels and positions."""

import triton
import triton.language as tl

from metaformer.network.fused.kernels.parts import image_statistics, image_sums, place


@triton.jit(do_not_specialize=["positions", "stat_chunks", "chunk_values", "steps", "chunks", "channel_blocks"])
def map_norm_kernel(
    x_ptr,
    parts_ptr,
    weight_ptr,
    bias_ptr,
    y_ptr,
    statistics_ptr,
    channels,
    positions,
    stat_chunks,
    chunk_values,
    eps,
    steps,
    chunks,
    channel_blocks,
    HAS_BIAS: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
    CHUNKS: tl.constexpr,
):
    """(x - mean) * rstd * weight + bias; keeps mean and rstd of each image."""
    image, chunk, channel_block = place(chunks, channel_blocks)
    values = channels * positions
    mean, rstd = image_statistics(parts_ptr, image, values, chunk_values, stat_chunks, eps, CHUNKS)
    if chunk + channel_block == 0:
        tl.store(statistics_ptr + image * 2, mean)
        tl.store(statistics_ptr + image * 2 + 1, rstd)
    c = channel_block * BLOCK_C + tl.arange(0, BLOCK_C)
    weight = tl.load(weight_ptr + c, mask=c < channels, other=0.0).to(tl.float32)[None, :]
    if HAS_BIAS:
        bias = tl.load(bias_ptr + c, mask=c < channels, other=0.0).to(tl.float32)[None, :]
    image_start = image.to(tl.int64) * values
    x_ptr += image_start
    y_ptr += image_start
    for step in range(steps):
        p = (chunk * steps + step) * BLOCK_P + tl.arange(0, BLOCK_P)
        there = (p < positions)[:, None] & (c < channels)[None, :]
        offsets = p[:, None] * channels + c[None, :]
        x = tl.load(x_ptr + offsets, mask=there, other=0.0).to(tl.float32)
        y = (x - mean) * rstd * weight
        if HAS_BIAS:
            y += bias
        tl.store(y_ptr + offsets, y.to(y_ptr.dtype.element_ty), mask=there)


@triton.jit(do_not_specialize=["positions", "steps", "chunks", "channel_blocks"])
def map_norm_sums_kernel(
    x_ptr,
    grad_ptr,
    statistics_ptr,
    weight_ptr,
    sums_ptr,
    channel_sums_ptr,
    channels,
    positions,
    steps,
    chunks,
    channel_blocks,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Sums over a chunk of g * xhat and g: per channel, and over the channels times weight."""
    image, chunk, channel_block = place(chunks, channel_blocks)
    mean = tl.load(statistics_ptr + image * 2)
    rstd = tl.load(statistics_ptr + image * 2 + 1)
    c = channel_block * BLOCK_C + tl.arange(0, BLOCK_C)
    weight = tl.load(weight_ptr + c, mask=c < channels, other=0.0).to(tl.float32)
    image_start = image.to(tl.int64) * (channels * positions)
    x_ptr += image_start
    grad_ptr += image_start
    products = tl.zeros([BLOCK_P, BLOCK_C], dtype=tl.float32)
    grads = tl.zeros([BLOCK_P, BLOCK_C], dtype=tl.float32)
    for step in range(steps):
        p = (chunk * steps + step) * BLOCK_P + tl.arange(0, BLOCK_P)
        there = (p < positions)[:, None] & (c < channels)[None, :]
        offsets = p[:, None] * channels + c[None, :]
        x = tl.load(x_ptr + offsets, mask=there, other=0.0).to(tl.float32)
        grad = tl.load(grad_ptr + offsets, mask=there, other=0.0).to(tl.float32)
        products += grad * ((x - mean) * rstd)
        grads += grad
    products_C = tl.sum(products, axis=0)
    grads_C = tl.sum(grads, axis=0)
    row_ptr = channel_sums_ptr + (image * chunks + chunk).to(tl.int64) * (2 * channels)
    tl.store(row_ptr + c, products_C, mask=c < channels)
    tl.store(row_ptr + channels + c, grads_C, mask=c < channels)
    program = tl.program_id(0)
    tl.store(sums_ptr + program * 2, tl.sum(products_C * weight, axis=0))
    tl.store(sums_ptr + program * 2 + 1, tl.sum(grads_C * weight, axis=0))


@triton.jit(do_not_specialize=["positions", "steps", "chunks", "channel_blocks"])
def map_norm_backward_kernel(
    x_ptr,
    grad_ptr,
    statistics_ptr,
    weight_ptr,
    sums_ptr,
    grad_x_ptr,
    channels,
    positions,
    steps,
    chunks,
    channel_blocks,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_PARTS: tl.constexpr,
):
    """rstd * (g * w - mean of g * w - xhat * mean of g * w * xhat)."""
    image, chunk, channel_block = place(chunks, channel_blocks)
    mean = tl.load(statistics_ptr + image * 2)
    rstd = tl.load(statistics_ptr + image * 2 + 1)
    values = channels * positions
    product, total = image_sums(sums_ptr, image, chunks * channel_blocks, BLOCK_PARTS)
    slope = product / values
    level = total / values
    c = channel_block * BLOCK_C + tl.arange(0, BLOCK_C)
    weight = tl.load(weight_ptr + c, mask=c < channels, other=0.0).to(tl.float32)[None, :]
    image_start = image.to(tl.int64) * values
    x_ptr += image_start
    grad_ptr += image_start
    grad_x_ptr += image_start
    for step in range(steps):
        p = (chunk * steps + step) * BLOCK_P + tl.arange(0, BLOCK_P)
        there = (p < positions)[:, None] & (c < channels)[None, :]
        offsets = p[:, None] * channels + c[None, :]
        x = tl.load(x_ptr + offsets, mask=there, other=0.0).to(tl.float32)
        grad = tl.load(grad_ptr + offsets, mask=there, other=0.0).to(tl.float32)
        grad_x = rstd * (grad * weight - level - (x - mean) * rstd * slope)
        tl.store(grad_x_ptr + offsets, grad_x.to(grad_x_ptr.dtype.element_ty), mask=there)
