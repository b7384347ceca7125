"""Folders of small images, made anew for a test."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image


def write_image(path: Path, *, size: tuple[int, int] = (40, 30), mode: str = "RGB", seed: int = 0) -> None:
    """An image of noise in the format of the suffix; `size` is width and height, mode I;16 is 16-bit grey."""
    noise = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    if mode == "I;16":
        Image.fromarray(noise.integers(0, 2**16, size[::-1], dtype=np.uint16)).save(path)
    else:
        Image.fromarray(noise.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)).convert(mode).save(path)


def write_folder(
    root: Path,
    *,
    train: Mapping[str, int],
    val: Mapping[str, int],
    suffix: str = ".jpg",
    size: tuple[int, int] = (40, 30),
) -> Path:
    """`root`, filled with that many noise images for each class of train/ and val/, no two alike."""
    seed = 0
    for part, counts in (("train", train), ("val", val)):
        for name, count in counts.items():
            for number in range(count):
                write_image(root / part / name / f"{number}{suffix}", size=size, seed=seed)
                seed += 1
    return root
