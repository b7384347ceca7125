"""Images with their targets as tensors, in an order and with changes that depend on seed and place alone.

B batch, C channels, H height, W width, N objects. Images are uint8; they are resized, or normalised, by the model.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import RandomPhotometricDistort
from torchvision.transforms.v2 import functional as transforms

from metaformer.images import ImageError, read_image
from nas.data import DataError, mix_seed
from nas.transfer.ade import AdeData, read_labels
from nas.transfer.coco import CocoData, Row
from nas.transfer.models import IGNORED
from nas.transfer.recipe import TransferRecipe

_MEAN_COLOUR = [124, 116, 104]  # ImageNet's, with which a small crop is filled up
_CROPS = 10  # tries for one in which no class takes more than this part of the pixels:
_LARGEST_PART = 0.75


class Example(NamedTuple):
    """One image and what is known of it."""

    key: int  # the image's id in COCO, else its place
    image: Tensor  # CHW
    target: dict[str, Tensor]


class Place(NamedTuple):
    """Which image comes, and in which epoch."""

    epoch: int
    number: int


class Examples(ABC):
    """The examples of a dataset."""

    num_train: int
    num_val: int

    @abstractmethod
    def train(self, index: int, generator: torch.Generator) -> Example:
        """One of the training images, changed as the generator draws.

        Raises:
            ImageError, DataError: It cannot be read.
        """

    @abstractmethod
    def val(self, index: int) -> Example:
        """One of the others, as it is; its target is empty where the evaluation has it."""


def labels_of(data: CocoData, recipe: TransferRecipe) -> dict[int, int]:
    """The model's label of each category; class 0 of torchvision's Mask R-CNN is the background."""
    first = 1 if recipe.task == "mask_rcnn" else 0
    return {category: first + place for place, category in enumerate(data.categories)}


class CocoExamples(Examples):
    """Objects: `boxes` N4 (x0, y0, x1, y1, in pixels), `labels` N and, on request, `masks` NHW."""

    def __init__(self, data: CocoData, recipe: TransferRecipe) -> None:
        self._data, self._flip, self._masks = data, recipe.flip, recipe.task == "mask_rcnn"
        self._labels = labels_of(data, recipe)
        self.num_train, self.num_val = len(data.train_images), len(data.val.images)

    def train(self, index: int, generator: torch.Generator) -> Example:
        row = self._data.train_images[index]
        objects = self._data.train.objects[row["id"]]
        image = _read(self._data.train.folder / row["file_name"], row)
        height, width = image.shape[-2:]
        boxes = torch.tensor([item["bbox"] for item in objects], dtype=torch.float32)
        boxes[:, 2:] += boxes[:, :2]
        boxes[:, 0::2].clamp_(0, width)
        boxes[:, 1::2].clamp_(0, height)
        target = {"boxes": boxes, "labels": torch.tensor([self._labels[item["category_id"]] for item in objects])}
        if self._masks:
            target["masks"] = torch.stack([_mask(item["segmentation"], height, width) for item in objects])
        kept = (boxes[:, 2:] > boxes[:, :2]).all(1)  # others lay outside the image
        target = {name: value[kept] for name, value in target.items()}
        if _draw(generator) < self._flip:
            image = image.flip(-1)
            target["boxes"][:, 0::2] = width - target["boxes"][:, 0::2].flip(1)
            if self._masks:
                target["masks"] = target["masks"].flip(-1)
        return Example(row["id"], image, target)

    def val(self, index: int) -> Example:
        row = self._data.val.images[index]
        return Example(row["id"], _read(self._data.val.folder / row["file_name"], row), {})


class AdeExamples(Examples):
    """Label maps: `labels` HW, the classes from 0, 255 for what does not count."""

    def __init__(self, data: AdeData, recipe: TransferRecipe) -> None:
        self._data, self._recipe = data, recipe
        self.num_train, self.num_val = len(data.train), len(data.val)
        self._distort = RandomPhotometricDistort(brightness=(0.875, 1.125))

    def train(self, index: int, generator: torch.Generator) -> Example:
        """A random scale, crop and flip, then colours, as MMSegmentation has it for ADE20K."""
        recipe = self._recipe
        image, labels = self._pair(index, is_train=True)
        low, high = recipe.scale_range
        scale = low + (high - low) * _draw(generator)
        sides = image.shape[-2:]
        factor = scale * min(recipe.size / min(sides), recipe.max_size / max(sides))
        resized = [max(1, round(side * factor)) for side in sides]
        image = transforms.resize(image, resized, antialias=False)
        labels = transforms.resize(labels, resized, interpolation=transforms.InterpolationMode.NEAREST)
        top, left = _crop(labels[0], recipe.size, generator)
        image, labels = (_cut(whole, top, left, recipe.size) for whole in (image, labels))
        if _draw(generator) < recipe.flip:
            image, labels = image.flip(-1), labels.flip(-1)
        if recipe.photometric:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
                image = self._distort(image)
        padding = [0, 0, recipe.size - image.shape[-1], recipe.size - image.shape[-2]]  # left, top, right, bottom
        image = transforms.pad(image, padding, fill=_MEAN_COLOUR)
        labels = transforms.pad(labels, padding, fill=[IGNORED])
        return Example(index, image, {"labels": labels[0].long()})

    def val(self, index: int) -> Example:
        image, labels = self._pair(index, is_train=False)
        return Example(index, image, {"labels": labels[0].long()})

    def _pair(self, index: int, *, is_train: bool) -> tuple[Tensor, Tensor]:
        """The image CHW, and its labels 1HW."""
        pair = (self._data.train if is_train else self._data.val)[index]
        labels = read_labels(pair.labels).astype(np.int16)
        labels = np.where(labels == 0, IGNORED, labels - 1).astype(np.uint8)
        return _read(pair.image), torch.from_numpy(labels)[None]


def _read(path: Path, row: Row | None = None) -> Tensor:
    """An image, CHW.

    Raises:
        ImageError: It cannot be read.
        DataError: It has another size than its row says.
    """
    with read_image(path) as image:
        if row is not None and image.size != (row["width"], row["height"]):
            found = f"{image.size[0]} x {image.size[1]}"
            raise DataError(f"data: must have {row['width']} x {row['height']} pixels in {path}, got {found}")
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _mask(segmentation: Any, height: int, width: int) -> Tensor:
    """The pixels of an object, HW, of polygons or a run-length encoding."""
    from pycocotools import mask

    encoded = segmentation
    if isinstance(segmentation, list) or isinstance(segmentation["counts"], list):
        encoded = mask.frPyObjects(segmentation, height, width)
    if isinstance(encoded, list):
        encoded = mask.merge(encoded)
    return torch.from_numpy(mask.decode(encoded))


def _draw(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator))


def _crop(labels_HW: Tensor, size: int, generator: torch.Generator) -> tuple[int, int]:
    """Top and left of a random crop in which no class takes more than three quarters, if ten tries find one."""
    height, width = labels_HW.shape
    place = (0, 0)
    for _ in range(_CROPS):
        place = (
            int(torch.randint(max(height - size, 0) + 1, (), generator=generator)),
            int(torch.randint(max(width - size, 0) + 1, (), generator=generator)),
        )
        values = _cut(labels_HW, *place, size)
        counts = torch.bincount(values[values != IGNORED].flatten())
        if (counts > 0).sum() > 1 and counts.max() < _LARGEST_PART * counts.sum():
            break
    return place


def _cut(x_HW: Tensor, top: int, left: int, size: int) -> Tensor:
    return x_HW[..., top : top + size, left : left + size]


def make_examples(data: AdeData | CocoData, recipe: TransferRecipe) -> Examples:
    """The examples of these data."""
    return AdeExamples(data, recipe) if isinstance(data, AdeData) else CocoExamples(data, recipe)


class _TrainSet(Dataset[list[Example]]):
    def __init__(self, examples: Examples, seed: int) -> None:
        self._examples, self._seed = examples, seed

    def __getitem__(self, batch: list[Place]) -> list[Example]:
        return [
            self._examples.train(place.number, torch.Generator().manual_seed(mix_seed(self._seed, *place) % 2**63))
            for place in batch
        ]


class _ValSet(Dataset[list[Example]]):
    def __init__(self, examples: Examples) -> None:
        self._examples = examples

    def __len__(self) -> int:
        return self._examples.num_val

    def __getitem__(self, index: int) -> list[Example]:
        return [self._examples.val(index)]


class _Order:
    """Which images the steps see: all, each epoch in its own order; an epoch's last batch goes on in the next."""

    def __init__(self, num_images: int, batch_size: int, seed: int, *, first_step: int, last_step: int) -> None:
        self._num, self._size, self._seed = num_images, batch_size, seed
        self._steps = range(first_step, last_step)

    def __len__(self) -> int:
        return len(self._steps)

    def __iter__(self) -> Iterator[list[Place]]:
        epoch, order = -1, np.arange(0)
        for step in self._steps:
            batch = []
            for place in range(step * self._size, (step + 1) * self._size):
                if place // self._num != epoch:
                    epoch = place // self._num
                    order = np.random.default_rng(mix_seed(self._seed, epoch)).permutation(self._num)
                batch.append(Place(epoch, int(order[place % self._num])))
            yield batch


def train_batches(
    examples: Examples, recipe: TransferRecipe, *, seed: int, first_step: int, last_step: int, num_workers: int
) -> Iterator[list[Example]]:
    """The batches of the steps from the first up to the last one; each depends on the seed and its step alone.

    Raises:
        ImageError, DataError: An image cannot be read.
    """
    order = _Order(examples.num_train, recipe.batch_size, seed, first_step=first_step, last_step=last_step)
    loader = DataLoader(_TrainSet(examples, seed), None, sampler=order, num_workers=num_workers)
    return _loaded(loader)


def val_batches(examples: Examples, *, num_workers: int) -> Iterator[list[Example]]:
    """The images of val, one by one: they have different sizes.

    Raises:
        ImageError, DataError: An image cannot be read.
    """
    return _loaded(DataLoader(_ValSet(examples), None, num_workers=num_workers))


def _loaded(loader: "DataLoader[list[Example]]") -> Iterator[list[Example]]:
    try:
        yield from loader
    except (ImageError, DataError) as error:  # torch puts a worker's traceback before the message
        message = str(error).rstrip().rpartition("Error: ")[2]
        raise DataError(message) from error.with_traceback(None)
