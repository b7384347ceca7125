"""Where a program works, and sums that several programs share.

A program has an image, a chunk of its positions and a block of its channels; it walks through the chunk in `steps`
blocks of BLOCK_P positions. What it sums goes into a place of its own, so that a result never depends on their order.
"""

import triton
import triton.language as tl


@triton.jit
def place(chunks, channel_blocks):
    """Image, chunk and block of channels of this program."""
    program = tl.program_id(0)
    rest = program // channel_blocks
    return rest // chunks, rest % chunks, program % channel_blocks


@triton.jit
def image_sums(sums_ptr, image, num_parts, BLOCK: tl.constexpr):
    """Sums over `num_parts` pairs of an image; two scalars."""
    lanes = tl.arange(0, BLOCK)
    first = tl.zeros([BLOCK], dtype=tl.float32)
    second = tl.zeros([BLOCK], dtype=tl.float32)
    for start in range(0, num_parts, BLOCK):
        there = start + lanes < num_parts
        pair_ptr = sums_ptr + (image * num_parts + start + lanes) * 2
        first += tl.load(pair_ptr, mask=there, other=0.0)
        second += tl.load(pair_ptr + 1, mask=there, other=0.0)
    return tl.sum(first, axis=0), tl.sum(second, axis=0)


@triton.jit
def image_statistics(parts_ptr, image, values, chunk_values, stat_chunks, eps, CHUNKS: tl.constexpr):
    """Mean and 1 / sqrt(variance + eps) of an image, from the means and squared deviations of its chunks."""
    chunk = tl.arange(0, CHUNKS)
    there = chunk < stat_chunks
    pair_ptr = parts_ptr + (image * stat_chunks + chunk) * 2
    means = tl.load(pair_ptr, mask=there, other=0.0)
    squares = tl.load(pair_ptr + 1, mask=there, other=0.0)
    counts = tl.where(there, tl.minimum(values - chunk * chunk_values, chunk_values), 0).to(tl.float32)
    mean = tl.sum(counts * means, axis=0) / values
    apart = means - mean
    variance = tl.sum(squares + counts * apart * apart, axis=0) / values
    return mean, tl.rsqrt(variance + eps)


@triton.jit(do_not_specialize=["steps", "stat_chunks"])
def statistics_kernel(x_ptr, parts_ptr, values, steps, stat_chunks, BLOCK: tl.constexpr):
    """Mean and sum of squared deviations of each chunk of an image's `values` numbers.

    Deviations are first taken from the mean of the chunk's first block, so that no large mean cancels.
    """
    program = tl.program_id(0)
    image = program // stat_chunks
    first = (program % stat_chunks) * steps * BLOCK
    x_ptr += image.to(tl.int64) * values
    lanes = first + tl.arange(0, BLOCK)
    there = lanes < values
    x = tl.load(x_ptr + lanes, mask=there, other=0.0).to(tl.float32)
    pivot = tl.sum(x, axis=0) / tl.minimum(values - first, BLOCK).to(tl.float32)
    apart = tl.where(there, x - pivot, 0.0)
    sums = apart
    squares = apart * apart
    for step in range(1, steps):
        lanes = first + step * BLOCK + tl.arange(0, BLOCK)
        there = lanes < values
        x = tl.load(x_ptr + lanes, mask=there, other=0.0).to(tl.float32)
        apart = tl.where(there, x - pivot, 0.0)
        sums += apart
        squares += apart * apart
    count = tl.minimum(values - first, steps * BLOCK).to(tl.float32)
    total = tl.sum(sums, axis=0)
    tl.store(parts_ptr + program * 2, pivot + total / count)
    tl.store(parts_ptr + program * 2 + 1, tl.maximum(tl.sum(squares, axis=0) - total * total / count, 0.0))
