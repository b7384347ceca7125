"""All that is random in an epoch of stored images, drawn before it begins and carried out batch by batch.

B batch, C channels, H height, W width, N images of an epoch, S side of a stored image in pixels.
"""

from collections.abc import Iterable, Iterator
from copy import copy
from typing import NamedTuple, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from timm.data.auto_augment import augment_and_mix_transform, auto_augment_transform, rand_augment_transform
from torch import Tensor
from torchvision.transforms import Compose

from nas.data.augment import mend, read_torchvision
from nas.data.generators import PrivateGenerators
from nas.data.in_batch.crops import draw_crops, resize_crops, resize_one_by_one, shift_crops, shift_one, whole_images
from nas.data.in_batch.erasing import BatchErasing, Boxes
from nas.data.in_batch.rand_augment import (
    BatchColorJitter,
    BatchRandAugment,
    BatchTorchvisionRandAugment,
    Draws,
    is_batched,
)
from nas.study.recipe import Augmentation


class StoredImages(NamedTuple):
    """The images of an epoch, as far as their augmentation must know them."""

    num: int
    side: int  # of the stored squares, in pixels
    resolution: int  # that the model sees
    mean: tuple[float, float, float]  # of their channels, from 0 to 1


class EpochPlan:
    """What happens to every image of an epoch, drawn before it begins."""

    def __init__(self, augmentation: Augmentation, images: StoredImages, generator: np.random.Generator) -> None:
        """Draw an epoch of them."""
        num_images, side, self._size = images.num, images.side, images.resolution
        self._shift = augmentation.shift
        low, high = augmentation.crop_scale
        self._is_whole = low == high == 1
        self._is_as_stored = self._is_whole and side == self._size  # nothing is resized
        order_N = generator.permutation(num_images)
        if augmentation.repeats > 1:
            order_N = order_N.repeat(augmentation.repeats)[:num_images]
        self.order_N = torch.from_numpy(order_N)
        self.crops = draw_crops(
            num_images,
            side,
            scale=(low, high),
            flip=augmentation.flip,
            interpolation=augmentation.train_interpolation,
            generator=generator,
        )
        if self._is_whole:
            self.crops = whole_images(num_images, side)._replace(flip=self.crops.flip, linear=self.crops.linear)
        jitters = augmentation.rand_augment is None and augmentation.color_jitter > 0
        self.is_plain = augmentation.rand_augment is None and not jitters  # images are only cropped, flipped and moved
        self._shifts_2N = torch.from_numpy(generator.integers(2 * self._shift + 1, size=(2, num_images)))
        self._change: BatchRandAugment | BatchTorchvisionRandAugment | BatchColorJitter | None = None
        self._one_by_one: _OneByOne | None = None
        self._draws: Draws | None = None
        of_torchvision = read_torchvision(augmentation.rand_augment)
        if of_torchvision is not None:
            self._change = BatchTorchvisionRandAugment(*of_torchvision, size=self._size)
        elif augmentation.rand_augment is not None:
            fill = cast(tuple[float, float, float], tuple(float(round(255 * number)) for number in images.mean))
            if is_batched(augmentation.rand_augment):
                self._change = BatchRandAugment(augmentation.rand_augment, fill=fill, size=self._size)
            else:
                self._one_by_one = _OneByOne(augmentation.rand_augment, fill, int(generator.integers(2**62)))
        if jitters:
            self._change = BatchColorJitter(augmentation.color_jitter)
        if self._change is not None:
            self._draws = self._change.draw(num_images, generator)
        self._erasing = (
            BatchErasing(augmentation.random_erasing, size=self._size) if augmentation.random_erasing else None
        )
        self._boxes: Boxes | None = self._erasing.draw(num_images, generator) if self._erasing else None

    def taken(self, kept_M: Tensor) -> Self:
        """The same plan for some of the images alone, in this order; (M,) int64, places in the epoch."""
        plan, places_M = copy(self), kept_M.numpy()
        plan.order_N, plan.crops, plan._shifts_2N = (
            self.order_N[kept_M],
            self.crops.of(kept_M),
            self._shifts_2N[:, kept_M],
        )
        plan._draws = None if self._draws is None else self._draws.of(places_M)
        plan._boxes = None if self._boxes is None else self._boxes.of(places_M)
        plan._one_by_one = None if self._one_by_one is None else self._one_by_one.taken(places_M)
        return plan

    def one_by_one(self, images_BSSC: Iterable[Tensor], place: slice) -> Iterator[Tensor]:
        """Crop, flip and shift of a batch on a CPU, one image after the other; HWC in bytes."""
        crops = self.crops.of(place)
        resized = resize_one_by_one(images_BSSC, crops, self._size)
        if not self._shift:
            return resized
        down_B, right_B = self._shifts_2N[:, place] - self._shift
        if self._is_as_stored:  # `augment` moves these before it flips them
            right_B = torch.where(crops.flip, -right_B, right_B)
        return map(shift_one, resized, down_B.tolist(), right_B.tolist())

    def augment(self, images_BSSC: Tensor, place: slice) -> Tensor:
        """Crop, flip, shift, and RandAugment or jitter, of a batch; x_BCHW from 0 to 255, as bytes or floats."""
        crops = self.crops.of(place).to(images_BSSC.device)
        if self._is_as_stored:
            shifts_2B = self._shifts_2N[:, place].to(images_BSSC.device, non_blocking=True)
            x_BCHW = shift_crops(images_BSSC, shifts_2B, crops.flip, margin=self._shift)
        else:
            x_BCHW = resize_crops(images_BSSC, crops, self._size)
            if self._shift:
                shifts_2B = self._shifts_2N[:, place].to(images_BSSC.device, non_blocking=True)
                whole_BSSC = x_BCHW.to(torch.uint8).permute(0, 2, 3, 1)
                x_BCHW = shift_crops(whole_BSSC, shifts_2B, torch.zeros_like(crops.flip), margin=self._shift)
        if self._change is not None and self._draws is not None:
            return self._change(x_BCHW, self._draws.of(place))
        return self._one_by_one(x_BCHW, place) if self._one_by_one is not None else x_BCHW

    def erase(self, x_BCHW: Tensor, place: slice) -> Tensor:
        if self._erasing is None or self._boxes is None:
            return x_BCHW
        return self._erasing(x_BCHW, self._boxes.of(place))


class _OneByOne:
    """An augmentation that timm alone knows, applied to each image by itself on the CPU."""

    def __init__(self, notation: str, fill: tuple[float, float, float], seed: int) -> None:
        options = {"img_mean": tuple(round(level) for level in fill)}
        make = {"rand": rand_augment_transform, "augmix": augment_and_mix_transform}
        transform = make.get(notation.partition("-")[0], auto_augment_transform)(notation, options)
        self._transform = Compose([transform])
        mend(self._transform)
        self._seed = seed
        self._places_N: NDArray[np.int64] | None = None  # in the epoch; None: all, in their order

    def taken(self, places_M: NDArray[np.int64]) -> Self:
        other = copy(self)
        other._places_N = places_M if self._places_N is None else self._places_N[places_M]
        return other

    def __call__(self, x_BCHW: Tensor, place: slice) -> Tensor:
        images_BHWC = x_BCHW.to("cpu", torch.uint8).permute(0, 2, 3, 1).numpy()
        changed = []
        for number, image_HWC in enumerate(images_BHWC, start=place.start):
            index = number if self._places_N is None else int(self._places_N[number])
            with PrivateGenerators(self._seed, index):
                changed.append(np.asarray(self._transform(Image.fromarray(image_HWC))))
        return torch.from_numpy(np.stack(changed)).permute(0, 3, 1, 2).to(x_BCHW.device, torch.float32)
