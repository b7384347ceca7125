"""A bias per channel, then GELU (erf)."""

import triton
import triton.language as tl

from metaformer.network.fused.kernels.parts import place


@triton.jit
def below(x):
    """Probability that a standard normal number is below x."""
    return 0.5 * (1.0 + tl.erf(x * 0.7071067811865476))


@triton.jit(do_not_specialize=["positions", "steps", "chunks", "channel_blocks"])
def bias_gelu_kernel(
    x_ptr,
    bias_ptr,
    y_ptr,
    channels,
    positions,
    steps,
    chunks,
    channel_blocks,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """gelu(x + bias)."""
    image, chunk, channel_block = place(chunks, channel_blocks)
    c = channel_block * BLOCK_C + tl.arange(0, BLOCK_C)
    of_map = c < channels
    bias = tl.load(bias_ptr + c, mask=of_map, other=0.0).to(tl.float32)[None, :]
    image_start = image.to(tl.int64) * (channels * positions)
    x_ptr += image_start
    y_ptr += image_start
    for step in range(steps):
        p = (chunk * steps + step) * BLOCK_P + tl.arange(0, BLOCK_P)
        there = (p < positions)[:, None] & of_map[None, :]
        offsets = p[:, None] * channels + c[None, :]
        x = tl.load(x_ptr + offsets, mask=there, other=0.0).to(tl.float32) + bias
        tl.store(y_ptr + offsets, (x * below(x)).to(y_ptr.dtype.element_ty), mask=there)


@triton.jit(do_not_specialize=["positions", "steps", "chunks", "channel_blocks"])
def bias_gelu_backward_kernel(
    x_ptr,
    bias_ptr,
    grad_ptr,
    grad_x_ptr,
    channel_sums_ptr,
    channels,
    positions,
    steps,
    chunks,
    channel_blocks,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """The gradient of x, and its sums per chunk and channel."""
    image, chunk, channel_block = place(chunks, channel_blocks)
    c = channel_block * BLOCK_C + tl.arange(0, BLOCK_C)
    of_map = c < channels
    bias = tl.load(bias_ptr + c, mask=of_map, other=0.0).to(tl.float32)[None, :]
    image_start = image.to(tl.int64) * (channels * positions)
    x_ptr += image_start
    grad_ptr += image_start
    grad_x_ptr += image_start
    sums = tl.zeros([BLOCK_P, BLOCK_C], dtype=tl.float32)
    for step in range(steps):
        p = (chunk * steps + step) * BLOCK_P + tl.arange(0, BLOCK_P)
        there = (p < positions)[:, None] & of_map[None, :]
        offsets = p[:, None] * channels + c[None, :]
        x = tl.load(x_ptr + offsets, mask=there, other=0.0).to(tl.float32) + bias
        grad = tl.load(grad_ptr + offsets, mask=there, other=0.0).to(tl.float32)
        grad_x = grad * (below(x) + x * tl.exp(-0.5 * x * x) * 0.3989422804014327)
        sums += grad_x
        tl.store(grad_x_ptr + offsets, grad_x.to(grad_x_ptr.dtype.element_ty), mask=there)
    row_ptr = channel_sums_ptr + (image * chunks + chunk).to(tl.int64) * channels
    tl.store(row_ptr + c, tl.sum(sums, axis=0), mask=of_map)
