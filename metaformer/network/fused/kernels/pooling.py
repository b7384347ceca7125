"""Average pooling minus the map, D x = pool(x) - x, and the half of a block around it.

That half is y = res x + keep scale D norm(x). Averages keep constants, so D norm(x) = weight rstd D x; neither the mean
nor the norm's bias is left.
"""

import triton
import triton.language as tl

from metaformer.network.fused.kernels.parts import image_statistics, image_sums, place


@triton.jit
def share(row, column, height, width, SIZE: tl.constexpr):
    """1 / (positions of the map that a window around (row, column) covers)."""
    rows = tl.minimum(row + SIZE // 2, height - 1) - tl.maximum(row - SIZE // 2, 0) + 1
    columns = tl.minimum(column + SIZE // 2, width - 1) - tl.maximum(column - SIZE // 2, 0) + 1
    return 1.0 / tl.maximum(rows * columns, 1).to(tl.float32)


@triton.jit
def pooled_difference(x_ptr, p, c, channels, height, width, SIZE: tl.constexpr, TRANSPOSED: tl.constexpr):
    """D x at positions p and channels c, and x there; TRANSPOSED: D^T x, where each neighbour counts by its own share.

    D x is the mean of the neighbours' differences to x, so that no large mean cancels.
    """
    row = p // width
    column = p % width
    inside = p < height * width
    of_map = c < channels
    centre_mask = inside[:, None] & of_map[None, :]
    centre = tl.load(x_ptr + p[:, None] * channels + c[None, :], mask=centre_mask, other=0.0).to(tl.float32)
    total = tl.zeros_like(centre)
    for window_row in range(SIZE):
        other_row = row + window_row - SIZE // 2
        row_inside = inside & (other_row >= 0) & (other_row < height)
        for window_column in tl.static_range(SIZE):
            other_column = column + window_column - SIZE // 2
            there = row_inside & (other_column >= 0) & (other_column < width)
            mask = there[:, None] & of_map[None, :]
            offsets = (other_row * width + other_column)[:, None] * channels + c[None, :]
            x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
            if TRANSPOSED:
                weight = tl.where(there, share(other_row, other_column, height, width, SIZE), 0.0)
                total += x * weight[:, None]
            else:
                total += tl.where(mask, x - centre, 0.0)
    if TRANSPOSED:
        difference = total - centre
    else:
        difference = total * share(row, column, height, width, SIZE)[:, None]
    return difference, centre


@triton.jit(do_not_specialize=["height", "width", "steps", "chunks", "channel_blocks"])
def pooled_difference_kernel(
    x_ptr,
    y_ptr,
    channels,
    height,
    width,
    steps,
    chunks,
    channel_blocks,
    SIZE: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """D x, or D^T x."""
    image, chunk, channel_block = place(chunks, channel_blocks)
    c = channel_block * BLOCK_C + tl.arange(0, BLOCK_C)
    image_start = image.to(tl.int64) * (channels * height * width)
    x_ptr += image_start
    y_ptr += image_start
    for step in range(steps):
        p = (chunk * steps + step) * BLOCK_P + tl.arange(0, BLOCK_P)
        difference, _ = pooled_difference(x_ptr, p, c, channels, height, width, SIZE, TRANSPOSED)
        there = (p < height * width)[:, None] & (c < channels)[None, :]
        tl.store(y_ptr + p[:, None] * channels + c[None, :], difference.to(y_ptr.dtype.element_ty), mask=there)


@triton.jit(do_not_specialize=["height", "width", "stat_chunks", "chunk_values", "steps", "chunks", "channel_blocks"])
def pool_branch_kernel(
    x_ptr,
    parts_ptr,
    weight_ptr,
    scale_ptr,
    keep_ptr,
    res_ptr,
    y_ptr,
    statistics_ptr,
    channels,
    height,
    width,
    stat_chunks,
    chunk_values,
    eps,
    steps,
    chunks,
    channel_blocks,
    HAS_SCALE: tl.constexpr,
    HAS_KEEP: tl.constexpr,
    HAS_RES: tl.constexpr,
    SIZE: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
    CHUNKS: tl.constexpr,
):
    """y; keeps mean and rstd of each image."""
    image, chunk, channel_block = place(chunks, channel_blocks)
    values = channels * height * width
    mean, rstd = image_statistics(parts_ptr, image, values, chunk_values, stat_chunks, eps, CHUNKS)
    if chunk + channel_block == 0:
        tl.store(statistics_ptr + image * 2, mean)
        tl.store(statistics_ptr + image * 2 + 1, rstd)
    c = channel_block * BLOCK_C + tl.arange(0, BLOCK_C)
    of_map = c < channels
    factor = tl.load(weight_ptr + c, mask=of_map, other=0.0).to(tl.float32) * rstd
    if HAS_SCALE:
        factor *= tl.load(scale_ptr + c, mask=of_map, other=0.0).to(tl.float32)
    if HAS_KEEP:
        factor *= tl.load(keep_ptr + image).to(tl.float32)
    if HAS_RES:
        res = tl.load(res_ptr + c, mask=of_map, other=0.0).to(tl.float32)[None, :]
    image_start = image.to(tl.int64) * values
    x_ptr += image_start
    y_ptr += image_start
    for step in range(steps):
        p = (chunk * steps + step) * BLOCK_P + tl.arange(0, BLOCK_P)
        difference, x = pooled_difference(x_ptr, p, c, channels, height, width, SIZE, False)
        if HAS_RES:
            x *= res
        y = x + factor[None, :] * difference
        there = (p < height * width)[:, None] & of_map[None, :]
        tl.store(y_ptr + p[:, None] * channels + c[None, :], y.to(y_ptr.dtype.element_ty), mask=there)


@triton.jit(do_not_specialize=["height", "width", "steps", "chunks", "channel_blocks"])
def pool_branch_sums_kernel(
    x_ptr,
    grad_ptr,
    statistics_ptr,
    weight_ptr,
    scale_ptr,
    keep_ptr,
    sums_ptr,
    channel_sums_ptr,
    channels,
    height,
    width,
    steps,
    chunks,
    channel_blocks,
    HAS_SCALE: tl.constexpr,
    HAS_KEEP: tl.constexpr,
    HAS_RES: tl.constexpr,
    SIZE: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Of T_C = sum of g * D x over a chunk: keep rstd T_C, and the gradient of rstd, sum of keep weight scale T_C.

    With a residual scale also the sum of g * x, its gradient.
    """
    image, chunk, channel_block = place(chunks, channel_blocks)
    rstd = tl.load(statistics_ptr + image * 2 + 1)
    c = channel_block * BLOCK_C + tl.arange(0, BLOCK_C)
    of_map = c < channels
    image_start = image.to(tl.int64) * (channels * height * width)
    x_ptr += image_start
    grad_ptr += image_start
    differences = tl.zeros([BLOCK_P, BLOCK_C], dtype=tl.float32)
    products = tl.zeros([BLOCK_P, BLOCK_C], dtype=tl.float32)
    for step in range(steps):
        p = (chunk * steps + step) * BLOCK_P + tl.arange(0, BLOCK_P)
        there = (p < height * width)[:, None] & of_map[None, :]
        grad = tl.load(grad_ptr + p[:, None] * channels + c[None, :], mask=there, other=0.0).to(tl.float32)
        difference, x = pooled_difference(x_ptr, p, c, channels, height, width, SIZE, False)
        differences += grad * difference
        if HAS_RES:
            products += grad * x
    sums_C = tl.sum(differences, axis=0)
    if HAS_KEEP:
        sums_C *= tl.load(keep_ptr + image).to(tl.float32)
    part = image * chunks + chunk
    if HAS_RES:
        row_ptr = channel_sums_ptr + part.to(tl.int64) * (2 * channels)
        tl.store(row_ptr + channels + c, tl.sum(products, axis=0), mask=of_map)
    else:
        row_ptr = channel_sums_ptr + part.to(tl.int64) * channels
    tl.store(row_ptr + c, rstd * sums_C, mask=of_map)
    factor = tl.load(weight_ptr + c, mask=of_map, other=0.0).to(tl.float32)
    if HAS_SCALE:
        factor *= tl.load(scale_ptr + c, mask=of_map, other=0.0).to(tl.float32)
    program = tl.program_id(0)
    tl.store(sums_ptr + program * 2, tl.sum(factor * sums_C, axis=0))
    tl.store(sums_ptr + program * 2 + 1, 0.0)


@triton.jit(do_not_specialize=["height", "width", "steps", "chunks", "channel_blocks"])
def pool_branch_backward_kernel(
    x_ptr,
    grad_ptr,
    statistics_ptr,
    weight_ptr,
    scale_ptr,
    keep_ptr,
    res_ptr,
    sums_ptr,
    grad_x_ptr,
    channels,
    height,
    width,
    steps,
    chunks,
    channel_blocks,
    HAS_SCALE: tl.constexpr,
    HAS_KEEP: tl.constexpr,
    HAS_RES: tl.constexpr,
    SIZE: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_PARTS: tl.constexpr,
):
    """res g + keep rstd weight scale D^T g - (gradient of rstd) rstd^3 (x - mean) / (C H W)."""
    image, chunk, channel_block = place(chunks, channel_blocks)
    mean = tl.load(statistics_ptr + image * 2)
    rstd = tl.load(statistics_ptr + image * 2 + 1)
    values = channels * height * width
    grad_rstd, _ = image_sums(sums_ptr, image, chunks * channel_blocks, BLOCK_PARTS)
    slope = grad_rstd * rstd * rstd * rstd / values
    c = channel_block * BLOCK_C + tl.arange(0, BLOCK_C)
    of_map = c < channels
    factor = tl.load(weight_ptr + c, mask=of_map, other=0.0).to(tl.float32) * rstd
    if HAS_SCALE:
        factor *= tl.load(scale_ptr + c, mask=of_map, other=0.0).to(tl.float32)
    if HAS_KEEP:
        factor *= tl.load(keep_ptr + image).to(tl.float32)
    if HAS_RES:
        res = tl.load(res_ptr + c, mask=of_map, other=0.0).to(tl.float32)[None, :]
    image_start = image.to(tl.int64) * values
    x_ptr += image_start
    grad_ptr += image_start
    grad_x_ptr += image_start
    for step in range(steps):
        p = (chunk * steps + step) * BLOCK_P + tl.arange(0, BLOCK_P)
        there = (p < height * width)[:, None] & of_map[None, :]
        offsets = p[:, None] * channels + c[None, :]
        x = tl.load(x_ptr + offsets, mask=there, other=0.0).to(tl.float32)
        difference, grad = pooled_difference(grad_ptr, p, c, channels, height, width, SIZE, True)
        if HAS_RES:
            grad *= res
        grad_x = grad + factor[None, :] * difference - slope * (x - mean)
        tl.store(grad_x_ptr + offsets, grad_x.to(grad_x_ptr.dtype.element_ty), mask=there)
