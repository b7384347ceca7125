"""Random erasing (arXiv:1708.04896) of a whole batch at once: a box of normal noise in some of the images.

B batch, C channels, H height, W width, N images of an epoch, M of them that are erased.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_AREA = (0.02, 1 / 3)  # part of the image; timm's, as the recipes of the papers use it
_ASPECT = (0.3, 1 / 0.3)  # height over width
_TRIES = 10  # draws of a box that fits; then the image stays whole
_NOISE_SEED, _SPARE_NOISE = 2111_11418, 2**20


class Boxes(NamedTuple):
    """Where each image is erased, in pixels, (N, 4) as top, left, height, width, all 0 for none; and its noise."""

    boxes_N4: NDArray[np.int64]
    noise_N: NDArray[np.int64]  # where the image's noise begins

    def of(self, place: slice | NDArray[np.int64]) -> "Boxes":
        return Boxes(self.boxes_N4[place], self.noise_N[place])


class BatchErasing:
    """Fills boxes with noise of mean 0 and deviation 1, for normalised images of one size.

    The noise is drawn once and read from a place that is drawn for each image, so that every device erases alike.
    """

    def __init__(self, probability: float, *, size: int, channels: int = 3) -> None:
        self._probability, self._size = probability, size
        self._pixels = channels * size**2

    def draw(self, num_images: int, generator: np.random.Generator) -> Boxes:
        """Boxes for that many images."""
        boxes_N4 = np.zeros((num_images, 4), np.int64)
        open_M = np.flatnonzero(generator.random(num_images) < self._probability)
        for _ in range(_TRIES):
            area = generator.uniform(*_AREA, len(open_M)) * self._size**2
            aspect = np.exp(generator.uniform(math.log(_ASPECT[0]), math.log(_ASPECT[1]), len(open_M)))
            sides = np.rint(np.stack([np.sqrt(area * aspect), np.sqrt(area / aspect)], axis=1)).astype(int)
            fits = (sides < self._size).all(1)
            boxes_N4[open_M[fits], 2:] = sides[fits]
            open_M = open_M[~fits]
        boxes_N4[:, :2] = generator.integers(0, self._size - boxes_N4[:, 2:], endpoint=True)
        return Boxes(boxes_N4, generator.integers(_SPARE_NOISE, size=num_images))

    def __call__(self, x_BCHW: Tensor, boxes: Boxes) -> Tensor:
        """The images erased, in place."""
        device = x_BCHW.device
        erased_M = np.flatnonzero(boxes.boxes_N4[:, 2:].all(1))
        if not len(erased_M):
            return x_BCHW
        numbers_M6 = np.column_stack([erased_M, boxes.boxes_N4[erased_M], boxes.noise_N[erased_M]])
        places_M, top, left, height, width, noise_M = (
            torch.from_numpy(numbers_M6).to(device, non_blocking=True).unbind(1)
        )
        pixels = torch.arange(self._size, device=device)
        rows_MH = (pixels >= top[:, None]) & (pixels < (top + height)[:, None])
        columns_MW = (pixels >= left[:, None]) & (pixels < (left + width)[:, None])
        inside_M1HW = (rows_MH[:, :, None] & columns_MW[:, None, :])[:, None]
        noise = _noise_on(device, self._pixels + _SPARE_NOISE)
        noise_MCHW = noise.unfold(0, self._pixels, 1)[noise_M].view(-1, *x_BCHW.shape[1:])
        erased_MCHW = torch.where(inside_M1HW, noise_MCHW.to(x_BCHW.dtype), x_BCHW.index_select(0, places_M))
        return x_BCHW.index_copy_(0, places_M, erased_MCHW)


@lru_cache(maxsize=16)
def _noise_on(device: torch.device, num_numbers: int) -> Tensor:
    """So much noise, kept on the device: the same for every epoch and training."""
    if device.type != "cpu":
        return _noise_on(torch.device("cpu"), num_numbers).to(device)
    return torch.randn(num_numbers, generator=torch.Generator().manual_seed(_NOISE_SEED))
