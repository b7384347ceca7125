"""RandAugment of a whole batch at once, each image with its own operations, as timm or torchvision draws them.

The images of one operation are changed together. Pixels are floats that hold whole numbers from 0 to 255. They are
Pillow's, for autocontrast to within a grey level, but for images that timm turns, shears and moves, which torch
interpolates by another cubic kernel (a = -0.75 instead of -1).

B batch, C channels, H height, W width, N images of an epoch, L operations an image, K operations there are.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from timm.data.auto_augment import AugmentOp, rand_augment_transform
from torch import Tensor
from torchvision.transforms.v2.functional import equalize_image

Levels = NDArray[np.float64]
_TOP = 10.0  # timm's largest level where the notation names none
_GREY = (19595 / 65536, 38470 / 65536, 7471 / 65536)  # Pillow's weights of red, green and blue (ITU-R 601)
_NUM_ARGUMENTS = 6
_FIXED = 65536  # Pillow's nearest pixels are found in numbers with 16 bits behind the point


class Draws(NamedTuple):
    """Which operation each image gets in each layer, -1 for none, and its arguments."""

    kinds_NL: NDArray[np.int64]
    arguments_NL6: NDArray[np.float32]

    def of(self, place: slice | NDArray[np.int64]) -> "Draws":
        return Draws(self.kinds_NL[place], self.arguments_NL6[place])


def is_batched(notation: str) -> bool:
    """Whether this one of timm's augmentations is done in the batch; the others are done image by image."""
    return notation.startswith("rand") and "-t3a" not in notation


class BatchRandAugment:
    """One notation of timm's, such as rand-m9-mstd0.5-inc1, for a batch."""

    def __init__(self, notation: str, *, fill: tuple[float, float, float], size: int) -> None:
        """Read a notation that `check_augmentation` and `is_batched` let pass.

        Args:
            fill: Grey levels, 0 to 255, of what a moved image leaves open.
            size: Of the images, in pixels a side.
        """
        timm_s = rand_augment_transform(notation, {"img_mean": (0, 0, 0)})
        self._operations: list[AugmentOp] = list(timm_s.ops)
        self._num_layers: int = timm_s.num_layers
        self._weights: NDArray[np.float64] | None = timm_s.choice_weights
        self._size = size
        self._fill_C11 = {torch.device("cpu"): torch.tensor(fill)[:, None, None]}  # on each device once: a copy waits

    def draw(self, num_images: int, generator: np.random.Generator) -> Draws:
        """Operations for that many images."""
        chosen_NL = self._choose(num_images, generator)
        kinds_NL = np.full_like(chosen_NL, -1)
        arguments_NL6 = np.zeros((*chosen_NL.shape, _NUM_ARGUMENTS), np.float32)
        for index, operation in enumerate(self._operations):
            images, layers = np.nonzero(chosen_NL == index)
            applied = generator.random(len(images)) <= operation.prob
            images, layers = images[applied], layers[applied]
            levels = _draw_levels(operation, len(images), generator)
            signs = np.where(generator.random(len(images)) > 0.5, -1.0, 1.0)
            kind, argue = _OPERATIONS[operation.name]
            kinds_NL[images, layers] = _KINDS.index(kind)
            if argue is not None:
                arguments = argue(levels, signs, self._size)
                arguments_NL6[images, layers, : arguments.shape[1]] = arguments
        return Draws(kinds_NL, arguments_NL6)

    def _choose(self, num_images: int, generator: np.random.Generator) -> NDArray[np.int64]:
        """Which of timm's operations, (N, L); with weights an image gets none twice."""
        shape = num_images, self._num_layers
        if self._weights is None:
            return generator.integers(len(self._operations), size=shape)
        # The largest of log-weights plus Gumbel noise are draws without replacement (arXiv:1903.06059).
        noise = generator.gumbel(size=(num_images, len(self._operations)))
        return np.argsort(-(np.log(self._weights) + noise), axis=1)[:, : self._num_layers]

    def __call__(self, x_BCHW: Tensor, draws: Draws) -> Tensor:
        """The images changed, as floats."""
        return change(x_BCHW, draws, self._fill_on(x_BCHW.device))

    def _fill_on(self, device: torch.device) -> Tensor:
        if device not in self._fill_C11:
            self._fill_C11[device] = self._fill_C11[torch.device("cpu")].to(device)
        return self._fill_C11[device]


class BatchTorchvisionRandAugment:
    """torchvision's RandAugment, with its nearest pixels and black outside, for a batch."""

    def __init__(self, magnitude: int, num_operations: int, *, size: int) -> None:
        """Choose the strength.

        Args:
            magnitude: From 0 to 30.
            num_operations: Of each image.
            size: Of the images, in pixels a side.
        """
        rows = _torchvision_operations(magnitude, size).values()
        self._num_operations = num_operations
        self._kinds_K = np.array([-1 if kind is None else _KINDS.index(kind) for kind, _ in rows])
        self._arguments_K26 = np.zeros((len(rows), 2, _NUM_ARGUMENTS), np.float32)
        for arguments_26, (_, given) in zip(self._arguments_K26, rows, strict=True):
            arguments_26[:, : given.shape[1]] = given

    def draw(self, num_images: int, generator: np.random.Generator) -> Draws:
        """Operations for that many images."""
        chosen_NL = generator.integers(len(self._kinds_K), size=(num_images, self._num_operations))
        signs_NL = generator.integers(2, size=chosen_NL.shape)
        return Draws(self._kinds_K[chosen_NL], self._arguments_K26[chosen_NL, signs_NL])

    def __call__(self, x_BCHW: Tensor, draws: Draws) -> Tensor:
        """The images changed, as floats."""
        return change(x_BCHW, draws, None)


class BatchColorJitter:
    """Brightness, contrast and saturation times a number around 1, in any order, as torchvision's ColorJitter."""

    def __init__(self, strength: float) -> None:
        self._strength = strength

    def draw(self, num_images: int, generator: np.random.Generator) -> Draws:
        kinds_3 = np.array([_KINDS.index(kind) for kind in ("brightness", "contrast", "color")])
        kinds_N3 = generator.permuted(np.tile(kinds_3, (num_images, 1)), axis=1)
        arguments_N36 = np.zeros((num_images, 3, _NUM_ARGUMENTS), np.float32)
        arguments_N36[:, :, 0] = generator.uniform(1 - self._strength, 1 + self._strength, (num_images, 3))
        return Draws(kinds_N3, arguments_N36)

    def __call__(self, x_BCHW: Tensor, draws: Draws) -> Tensor:
        """The images changed, as floats."""
        return change(x_BCHW, draws, None)


def change(x_BCHW: Tensor, draws: Draws, fill_C11: Tensor | None) -> Tensor:
    """The images after the operations drawn for them, as floats; those of one operation are changed together."""
    x_BCHW = x_BCHW.to(torch.float32, copy=True)
    for layer in range(draws.kinds_NL.shape[1]):
        kinds_B = draws.kinds_NL[:, layer]
        order_B = np.argsort(kinds_B, kind="stable")
        places_B = torch.from_numpy(order_B).to(x_BCHW.device, non_blocking=True)
        arguments_B6 = torch.from_numpy(draws.arguments_NL6[order_B, layer]).to(x_BCHW.device, non_blocking=True)
        ends = np.searchsorted(kinds_B[order_B], np.arange(-1, len(_KINDS)), side="right")
        for kind, start, end in zip(_KINDS, ends[:-1].tolist(), ends[1:].tolist(), strict=True):
            if start < end:
                places = places_B[start:end]
                changed = _change(kind, x_BCHW.index_select(0, places), arguments_B6[start:end], fill_C11)
                x_BCHW.index_copy_(0, places, changed)
    return x_BCHW


def _draw_levels(operation: AugmentOp, num: int, generator: np.random.Generator) -> Levels:
    std = operation.magnitude_std
    if std == float("inf"):
        levels = generator.uniform(0, operation.magnitude, num)
    else:
        levels = (
            generator.normal(operation.magnitude, std, num) if std > 0 else np.full(num, float(operation.magnitude))
        )
    return levels.clip(0, operation.magnitude_max or _TOP)


def _column(*columns: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.stack(np.broadcast_arrays(*columns), axis=1)


def _turn(levels: Levels, signs: Levels, size: int) -> NDArray[np.float64]:
    angle = -np.deg2rad(levels / _TOP * 30 * signs)
    cos, sin, middle = np.cos(angle), np.sin(angle), size / 2
    return _column(cos, sin, middle - cos * middle - sin * middle, -sin, cos, middle + sin * middle - cos * middle)


def _shear(across: bool) -> Callable[[Levels, Levels, int], NDArray[np.float64]]:
    def argue(levels: Levels, signs: Levels, size: int) -> NDArray[np.float64]:
        factor, one, zero = levels / _TOP * 0.3 * signs, np.ones(()), np.zeros(())
        return _column(one, factor, zero, zero, one, zero) if across else _column(one, zero, zero, factor, one, zero)

    return argue


def _move(across: bool) -> Callable[[Levels, Levels, int], NDArray[np.float64]]:
    def argue(levels: Levels, signs: Levels, size: int) -> NDArray[np.float64]:
        pixels, one, zero = levels / _TOP * 0.45 * signs * size, np.ones(()), np.zeros(())
        return _column(one, zero, pixels, zero, one, zero) if across else _column(one, zero, zero, zero, one, pixels)

    return argue


def _enhance(levels: Levels, _signs: Levels, _size: int) -> NDArray[np.float64]:
    return _column(levels / _TOP * 1.8 + 0.1)


def _enhance_increasing(levels: Levels, signs: Levels, _size: int) -> NDArray[np.float64]:
    return _column(np.maximum(0.1, 1 + levels / _TOP * 0.9 * signs))


def _bits(increasing: bool) -> Callable[[Levels, Levels, int], NDArray[np.float64]]:
    """Bits that stay; at least one, where timm's range ends at none (see `augment.mend`)."""

    def argue(levels: Levels, _signs: Levels, _size: int) -> NDArray[np.float64]:
        bits = np.floor(levels / _TOP * 4)
        return _column(np.maximum(1, 4 - bits if increasing else bits))

    return argue


def _threshold(increasing: bool) -> Callable[[Levels, Levels, int], NDArray[np.float64]]:
    def argue(levels: Levels, _signs: Levels, _size: int) -> NDArray[np.float64]:
        threshold = np.minimum(256, np.floor(levels / _TOP * 256))
        return _column(256 - threshold if increasing else threshold)

    return argue


def _addend(levels: Levels, _signs: Levels, _size: int) -> NDArray[np.float64]:
    return _column(np.minimum(128, np.floor(levels / _TOP * 110)))


# timm's name of each operation: what is done, and its arguments from level, sign and side of the image in pixels
_OPERATIONS: Mapping[str, tuple[str, Callable[[Levels, Levels, int], NDArray[np.float64]] | None]] = {
    "AutoContrast": ("stretch", None),
    "Equalize": ("equalize", None),
    "Invert": ("invert", None),
    "Rotate": ("affine", _turn),
    "ShearX": ("affine", _shear(across=True)),
    "ShearY": ("affine", _shear(across=False)),
    "TranslateXRel": ("affine", _move(across=True)),
    "TranslateYRel": ("affine", _move(across=False)),
    "Posterize": ("posterize", _bits(increasing=False)),
    "PosterizeIncreasing": ("posterize", _bits(increasing=True)),
    "Solarize": ("solarize", _threshold(increasing=False)),
    "SolarizeIncreasing": ("solarize", _threshold(increasing=True)),
    "SolarizeAdd": ("solarize_add", _addend),
    "Color": ("color", _enhance),
    "ColorIncreasing": ("color", _enhance_increasing),
    "Contrast": ("contrast", _enhance),
    "ContrastIncreasing": ("contrast", _enhance_increasing),
    "Brightness": ("brightness", _enhance),
    "BrightnessIncreasing": ("brightness", _enhance_increasing),
    "Sharpness": ("sharpness", _enhance),
    "SharpnessIncreasing": ("sharpness", _enhance_increasing),
}
_KINDS = (*dict.fromkeys(kind for kind, _ in _OPERATIONS.values()), "nearest")


def _torchvision_operations(magnitude: int, size: int) -> dict[str, tuple[str | None, NDArray[np.float64]]]:
    """torchvision's name of each operation: what is done, None for nothing, and arguments for both signs, (2, 0 to 6).

    A magnitude of 30 is timm's level of 10. Moves are whole pixels, up to 150/331 of the size. Factors and threshold
    are torchvision's float32 to the last bit, which may decide a grey level.
    """
    levels, signs = np.full(2, magnitude / 3), np.array([1.0, -1.0])
    one, zero, none = np.ones(()), np.zeros(()), np.zeros((2, 0))
    factors = _column(1.0 + signs * torch.linspace(0, 0.9, 31)[magnitude].item())
    pixels = -signs * (5 * size * magnitude // 331)
    bits = round(8 - magnitude / 7.5)
    threshold = math.ceil(255 * torch.linspace(1, 0, 31)[magnitude].item())  # above the levels that stay
    return {
        "Identity": (None, none),
        "ShearX": ("nearest", _fixed(_shear(across=True)(levels, signs, size))),
        "ShearY": ("nearest", _fixed(_shear(across=False)(levels, signs, size))),
        "TranslateX": ("nearest", _fixed(_column(one, zero, pixels, zero, one, zero))),
        "TranslateY": ("nearest", _fixed(_column(one, zero, zero, zero, one, pixels))),
        "Rotate": ("nearest", _fixed(_turn(levels, signs, size))),
        "Brightness": ("brightness", factors),
        "Color": ("color", factors),
        "Contrast": ("contrast", factors),
        "Sharpness": ("sharpness", factors),
        "Posterize": ("posterize", np.full((2, 1), float(bits))),
        "Solarize": ("solarize", np.full((2, 1), float(threshold))),
        "AutoContrast": ("stretch", none),
        "Equalize": ("equalize", none),
    }


def _fixed(matrices_26: NDArray[np.float64]) -> NDArray[np.float64]:
    """The matrices in units of 1/65536 pixel, from the middle of the first pixel, as Pillow rounds them."""
    a, b, c, d, e, f = matrices_26.T
    return np.floor(_column(a, b, c + a / 2 + b / 2, d, e, f + d / 2 + e / 2) * _FIXED + 0.5)


def _change(kind: str, x_BCHW: Tensor, arguments_B6: Tensor, fill_C11: Tensor | None) -> Tensor:
    if kind == "affine" and fill_C11 is not None:
        return _affine(x_BCHW, arguments_B6, fill_C11)
    if kind == "nearest":
        return _nearest(x_BCHW, arguments_B6)
    return _POINTWISE[kind](x_BCHW, arguments_B6[:, 0, None, None, None])


def _stretch(x_BCHW: Tensor, _: Tensor) -> Tensor:
    """Each channel from 0 to 255."""
    low, high = x_BCHW.amin((2, 3), keepdim=True), x_BCHW.amax((2, 3), keepdim=True)
    return torch.where(high > low, ((x_BCHW - low) * (255 / (high - low)) + 1e-3).floor_(), x_BCHW)


def _equalize(x_BCHW: Tensor, _: Tensor) -> Tensor:
    return equalize_image(x_BCHW.to(torch.uint8)).to(x_BCHW.dtype)


def _posterize(x_BCHW: Tensor, bits_B111: Tensor) -> Tensor:
    step_B111 = torch.exp2(8 - bits_B111)
    return (x_BCHW / step_B111).floor_() * step_B111


def _solarize(x_BCHW: Tensor, threshold_B111: Tensor) -> Tensor:
    return torch.where(x_BCHW < threshold_B111, x_BCHW, 255 - x_BCHW)


def _solarize_add(x_BCHW: Tensor, addend_B111: Tensor) -> Tensor:
    return torch.where(x_BCHW < 128, (x_BCHW + addend_B111).clamp_(max=255), x_BCHW)


def _contrast(x_BCHW: Tensor, factor_B111: Tensor) -> Tensor:
    return _blend((_grey(x_BCHW).mean((2, 3), keepdim=True) + 0.5).floor_(), x_BCHW, factor_B111)


def _blend(other: Tensor, x_BCHW: Tensor, factor_B111: Tensor) -> Tensor:
    """`other` at factor 0, the image at 1, and beyond; Pillow drops what is behind the point."""
    return ((x_BCHW - other) * factor_B111 + other).clamp_(0, 255).floor_()


def _grey(x_BCHW: Tensor) -> Tensor:
    """One channel, B1HW."""
    red, green, blue = x_BCHW.unbind(1)
    return (red * _GREY[0] + green * _GREY[1] + blue * _GREY[2] + 0.5).floor_()[:, None]


def _smooth(x_BCHW: Tensor) -> Tensor:
    """Pillow's SMOOTH filter: 3 x 3 ones with a 5 in the middle, over 13; the border stays."""
    inner = (F.avg_pool2d(x_BCHW, 3, 1) * 9 + 4 * x_BCHW[:, :, 1:-1, 1:-1]) / 13
    smooth_BCHW = x_BCHW.clone()
    smooth_BCHW[:, :, 1:-1, 1:-1] = (inner + 0.5).floor_()
    return smooth_BCHW


def _affine(x_BCHW: Tensor, matrix_B6: Tensor, fill_C11: Tensor) -> Tensor:
    """Each pixel taken from where the matrix says, in pixels of the image: (ax + by + c, dx + ey + f).

    Pillow drops what is behind the point here too.
    """
    height, width = x_BCHW.shape[2:]
    y_H1 = torch.arange(height, device=x_BCHW.device)[:, None] + 0.5
    x_W = torch.arange(width, device=x_BCHW.device) + 0.5
    a, b, c, d, e, f = matrix_B6[:, :, None, None].unbind(1)
    from_x_BHW, from_y_BHW = a * x_W + b * y_H1 + c, d * x_W + e * y_H1 + f
    grid_BHW2 = torch.stack([from_x_BHW * (2 / width) - 1, from_y_BHW * (2 / height) - 1], dim=3)
    moved_BCHW = F.grid_sample(x_BCHW, grid_BHW2, mode="bicubic", padding_mode="border", align_corners=False)
    inside_BHW = (from_x_BHW >= 0) & (from_x_BHW < width) & (from_y_BHW >= 0) & (from_y_BHW < height)
    return torch.where(inside_BHW[:, None], moved_BCHW.add_(1e-3).floor_().clamp_(0, 255), fill_C11)


def _nearest(x_BCHW: Tensor, matrix_B6: Tensor) -> Tensor:
    """Each pixel taken whole from where the matrix (see `_fixed`) says; black where that is outside."""
    height, width = x_BCHW.shape[2:]
    y_H1 = torch.arange(height, device=x_BCHW.device)[:, None]
    x_W = torch.arange(width, device=x_BCHW.device)
    a, b, c, d, e, f = matrix_B6.long()[:, :, None, None].unbind(1)
    from_x_BHW, from_y_BHW = (a * x_W + b * y_H1 + c) // _FIXED, (d * x_W + e * y_H1 + f) // _FIXED
    inside_BHW = (from_x_BHW >= 0) & (from_x_BHW < width) & (from_y_BHW >= 0) & (from_y_BHW < height)
    places_BHW = from_y_BHW.clamp_(0, height - 1) * width + from_x_BHW.clamp_(0, width - 1)
    places_BCP = places_BHW.flatten(1)[:, None].expand(-1, x_BCHW.shape[1], -1)
    return x_BCHW.flatten(2).gather(2, places_BCP).view_as(x_BCHW).mul_(inside_BHW[:, None])


_POINTWISE: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "stretch": _stretch,
    "equalize": _equalize,
    "invert": lambda x_BCHW, _: 255 - x_BCHW,
    "posterize": _posterize,
    "solarize": _solarize,
    "solarize_add": _solarize_add,
    "color": lambda x_BCHW, factor_B111: _blend(_grey(x_BCHW), x_BCHW, factor_B111),
    "contrast": _contrast,
    "brightness": lambda x_BCHW, factor_B111: _blend(torch.zeros_like(factor_B111), x_BCHW, factor_B111),
    "sharpness": lambda x_BCHW, factor_B111: _blend(_smooth(x_BCHW), x_BCHW, factor_B111),
}
