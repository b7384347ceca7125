"""How maps lie in memory, and how they are cut into the work of programs.

B batch, C channels, H height, W width.
"""

from functools import lru_cache
from typing import NamedTuple

from torch import Tensor

TILE = 2048  # numbers that a program holds at a time, 16 per thread
MOST_CHUNKS = 32  # of an image, so that what they found is cheap to put together
STATISTICS_BLOCK = 4096
PARTS_BLOCK = 64  # partial sums that are added at a time


class Tiles(NamedTuple):
    """A program takes `steps` blocks of positions and one block of channels of an image."""

    steps: int
    chunks: int
    channel_blocks: int
    block_positions: int
    block_channels: int


class Chunks(NamedTuple):
    """A program takes `steps` blocks of the numbers of an image, in the order of memory."""

    steps: int
    chunks: int


@lru_cache(maxsize=1024)
def tiles(channels: int, positions: int) -> Tiles:
    """Tiles of at most 64 channels, and at most 32 chunks of positions."""
    block_channels = min(max(power_of_two(channels), 16), 64)
    block_positions = TILE // block_channels
    blocks = divide_up(positions, block_positions)
    steps = min(max(4, divide_up(blocks, MOST_CHUNKS)), blocks)
    return Tiles(
        steps=steps,
        chunks=divide_up(blocks, steps),
        channel_blocks=divide_up(channels, block_channels),
        block_positions=block_positions,
        block_channels=block_channels,
    )


@lru_cache(maxsize=1024)
def statistics_chunks(values: int) -> Chunks:
    """At most 32 chunks of the numbers of an image."""
    steps = divide_up(values, STATISTICS_BLOCK * MOST_CHUNKS)
    return Chunks(steps, divide_up(values, STATISTICS_BLOCK * steps))


def power_of_two(number: int) -> int:
    """The smallest power of two that is not below `number`."""
    return 1 << (number - 1).bit_length()


def divide_up(number: int, divisor: int) -> int:
    return -(-number // divisor)


def in_rows(x_BCHW: Tensor) -> Tensor:
    """The map as contiguous BHWC; a copy unless it is channels-last."""
    return x_BCHW.permute(0, 2, 3, 1).contiguous()


def as_map(x_BHWC: Tensor) -> Tensor:
    """The same memory as BCHW."""
    return x_BHWC.permute(0, 3, 1, 2)
