"""Random resized crops, flips and centre crops of a whole batch of square images at once.

Images are resampled by Pillow's rule, a cubic kernel (a = -0.5) or a linear one, which widens where the image shrinks:
the result is that of timm's crop, flip and resize to within two grey levels. It is two matrix products an image, or
torch's own kernel where those are slower, so a GPU and a CPU give the same images but for rounding.

B batch, C channels, H height, W width, N images of an epoch, S side of a stored image.
"""

import math
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

_ASPECT = (3 / 4, 4 / 3)  # width over height of a random crop
_TRIES = 10  # draws of a crop that fits, as in timm; then the whole image
_LARGEST_MATRIX = 64  # pixels a side; of larger images on a CPU, torch's kernel is faster than matrix products


class Crops(NamedTuple):
    """Where each image is cut out, in pixels of the stored image, and how it is resized; all of shape (N,)."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor
    flip: Tensor  # whether it is mirrored
    linear: Tensor  # whether it is resized by the linear kernel instead of the cubic one

    def of(self, place: slice | Tensor) -> "Crops":
        return Crops(*(field[place] for field in self))

    def to(self, device: torch.device) -> "Crops":
        return Crops(*(field.to(device, non_blocking=True) for field in self))


def draw_crops(
    num_images: int,
    side: int,
    *,
    scale: tuple[float, float],
    flip: float,
    interpolation: Literal["bicubic", "bilinear", "random"],
    generator: np.random.Generator,
) -> Crops:
    """Random crops as timm draws them: a part of the area in `scale`, an aspect ratio of 3/4 to 4/3, anywhere.

    Args:
        side: Of the stored images, in pixels.
        scale: Smallest and largest part of the area.
        flip: Probability of a horizontal flip.
        interpolation: Of the resize; random: one of the two for each image.
    """
    height_N, width_N = np.full((2, num_images), side)
    open_N = np.arange(num_images)
    for _ in range(_TRIES):
        area = generator.uniform(*scale, len(open_N)) * side**2
        aspect = np.exp(generator.uniform(math.log(_ASPECT[0]), math.log(_ASPECT[1]), len(open_N)))
        height, width = np.rint(np.sqrt(area / aspect)).astype(int), np.rint(np.sqrt(area * aspect)).astype(int)
        fits = (height <= side) & (width <= side)
        height_N[open_N[fits]], width_N[open_N[fits]] = np.maximum(height[fits], 1), np.maximum(width[fits], 1)
        open_N = open_N[~fits]
    top_N = generator.integers(0, side - height_N, endpoint=True)
    left_N = generator.integers(0, side - width_N, endpoint=True)
    flip_N = generator.random(num_images) < flip
    linear_N = generator.random(num_images) < {"bicubic": 0.0, "bilinear": 1.0, "random": 0.5}[interpolation]
    return Crops(*map(_tensor, (top_N, left_N, height_N, width_N, flip_N, linear_N)))


def whole_images(num_images: int, side: int) -> Crops:
    """Crops that leave images as they are."""
    zero = torch.zeros(num_images, dtype=torch.long)
    return Crops(zero, zero, zero + side, zero + side, zero.bool(), zero.bool())


def _tensor(values_N: NDArray[np.generic]) -> Tensor:
    return torch.from_numpy(values_N)


def goes_one_by_one(device: torch.device, side: int, size: int) -> bool:
    """Whether images are resized one by one, by torch's kernel, rather than all at once by matrix products."""
    return device.type == "cpu" and max(side, size) > _LARGEST_MATRIX


def resize_crops(images_BSSC: Tensor, crops: Crops, size: int) -> Tensor:
    """Each image cut out, resized to `size` pixels a side and flipped where asked.

    Args:
        images_BSSC: uint8.
    Returns:
        x_BCHW of whole numbers from 0 to 255, as bytes in channels-last memory or as floats.
    """
    side = images_BSSC.shape[1]
    if goes_one_by_one(images_BSSC.device, side, size):
        x_BHWC = torch.empty(len(images_BSSC), size, size, images_BSSC.shape[3], dtype=torch.uint8)
        for x_HWC, resized_HWC in zip(x_BHWC, resize_one_by_one(images_BSSC, crops, size), strict=True):
            x_HWC.copy_(resized_HWC)
        return x_BHWC.permute(0, 3, 1, 2)
    rows_BHS = _weights(crops.top, crops.height, crops.linear, side, size)
    columns_BWS = _weights(crops.left, crops.width, crops.linear, side, size)
    columns_BWS = torch.where(crops.flip[:, None, None], columns_BWS.flip(1), columns_BWS)
    return _resample(images_BSSC, rows_BHS, columns_BWS)


def resize_one_by_one(images_BSSC: Iterable[Tensor], crops: Crops, size: int) -> Iterator[Tensor]:
    """The same on a CPU for one image after the other, HWC in bytes."""
    for image_SSC, top, left, height, width, flip, linear in zip(
        images_BSSC, *(field.tolist() for field in crops), strict=True
    ):
        crop_HWC = image_SSC[top : top + height, left : left + width]
        crop_HWC = crop_HWC.flip(1) if flip else crop_HWC.contiguous()  # torch's fast kernel takes channels-last memory
        if height == width == size:
            yield crop_HWC
            continue
        crop_1CHW = crop_HWC[None].permute(0, 3, 1, 2)
        mode = "bilinear" if linear else "bicubic"
        yield F.interpolate(crop_1CHW, (size, size), mode=mode, antialias=True)[0].permute(1, 2, 0)


def centre(images_BSSC: Tensor, size: int, *, part: float) -> Tensor:
    """The middle of each image as timm evaluates: resized to `size / part` pixels, of which `size` are kept.

    Args:
        images_BSSC: uint8.
        part: Of the side, "crop pct".
    Returns:
        x_BCHW of whole numbers from 0 to 255, as bytes in channels-last memory or as floats.
    """
    side, resized = images_BSSC.shape[1], math.floor(size / part)
    edge = round((resized - size) / 2)
    if resized == side:
        return images_BSSC[:, edge : edge + size, edge : edge + size].permute(0, 3, 1, 2)
    if goes_one_by_one(images_BSSC.device, side, size):
        whole = whole_images(len(images_BSSC), side)
        return resize_crops(images_BSSC, whole, resized)[:, :, edge : edge + size, edge : edge + size]
    zero = torch.zeros(1, dtype=torch.long, device=images_BSSC.device)
    weights_1HS = _weights(zero, zero + side, zero.bool(), side, resized)[:, edge : edge + size]
    return _resample(images_BSSC, weights_1HS, weights_1HS)


def shift_crops(images_BSSC: Tensor, shift_2B: Tensor, flip_B: Tensor, *, margin: int) -> Tensor:
    """Each image moved by some pixels, black outside, and flipped where asked: one gather.

    Args:
        images_BSSC: uint8.
        shift_2B: Downwards and to the right, from 0 to 2 * margin; `margin` leaves an image where it is.
    Returns:
        x_BCHW of bytes in channels-last memory.
    """
    side = images_BSSC.shape[1]
    padded_BSSC = F.pad(images_BSSC, (0, 0, margin, margin, margin, margin)) if margin else images_BSSC
    pixels = torch.arange(side, device=images_BSSC.device)
    columns_BW = torch.where(flip_B[:, None], side - 1 - pixels, pixels) + shift_2B[1, :, None]
    rows_BH = shift_2B[0, :, None] + pixels
    images_B = torch.arange(len(images_BSSC), device=images_BSSC.device)
    return padded_BSSC[images_B[:, None, None], rows_BH[:, :, None], columns_BW[:, None, :]].permute(0, 3, 1, 2)


def shift_one(image_SSC: Tensor, down: int, right: int) -> Tensor:
    """What `shift_crops` cuts out of one image: the part that begins so many pixels further, black where none is."""
    side = len(image_SSC)
    moved_SSC = torch.zeros_like(image_SSC)
    (to_row, from_row), (to_column, from_column) = ((max(0, -far), max(0, far)) for far in (down, right))
    kept_SSC = image_SSC[from_row : side - to_row, from_column : side - to_column]
    moved_SSC[to_row : side - from_row, to_column : side - from_column] = kept_SSC
    return moved_SSC


def _weights(start_B: Tensor, length_B: Tensor, linear_B: Tensor, side: int, size: int) -> Tensor:
    """What each of `side` pixels gives to each of `size` new ones, which divide `length` pixels from `start`; BHS."""
    device = start_B.device
    scale_B11 = (length_B.float() / size)[:, None, None]
    spread_B11 = scale_B11.clamp(min=1)
    new_H1 = torch.arange(size, device=device, dtype=torch.float32)[:, None] + 0.5
    old_S = torch.arange(side, device=device)
    distance_BHS = (start_B[:, None, None] + new_H1 * scale_B11 - (old_S + 0.5)).abs() / spread_B11
    inside_B1S = ((old_S >= start_B[:, None]) & (old_S < (start_B + length_B)[:, None]))[:, None, :]
    kernel_BHS = torch.where(linear_B[:, None, None], (1 - distance_BHS).clamp(min=0), _cubic(distance_BHS))
    weights_BHS = kernel_BHS * inside_B1S
    return weights_BHS / weights_BHS.sum(2, keepdim=True)


def _cubic(x: Tensor) -> Tensor:
    """Keys' kernel with a = -0.5, of distances 0 and more (IEEE Trans. ASSP 29(6), 1981, eq. 4).

    Each of its pieces is 0 where the other begins, so that they are added with the distance held to their range.
    """
    near = x.clamp(max=1)
    far = x.clamp(1, 2)
    sum_of_far = far.mul(-0.5).add_(2.5).mul_(far).sub_(4).mul_(far).add_(2)
    return near.mul(1.5).sub_(2.5).mul_(near).mul_(near).add_(1).add_(sum_of_far)


def _resample(images_BSSC: Tensor, rows_BHS: Tensor, columns_BWS: Tensor) -> Tensor:
    """Both sides of each image by matrix products, in float32 whatever autocast is on.

    As in Pillow, what the first one gives are grey levels again: whole numbers from 0 to 255.
    """
    with torch.autocast(images_BSSC.device.type, enabled=False):
        x_BCSS = images_BSSC.permute(0, 3, 1, 2).float()
        x_BCSW = torch.matmul(x_BCSS, columns_BWS.transpose(1, 2)[:, None]).round_().clamp_(0, 255)
        x_BCHW = torch.matmul(rows_BHS[:, None], x_BCSW)
    return x_BCHW.round_().clamp_(0, 255)
