"""Images from files, decoded for every epoch anew; one of the doors to timm.data.

B batch, C channels, H height, W width, N images of a split.
"""

import itertools
import math
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data import Mixup, create_loader
from torch import Tensor
from torchvision.transforms import Compose

from metaformer.images import ImageError
from metaformer.network.part import ALONE, Part
from metaformer.zoo import Preprocessing
from nas.data.augment import check_photographs, make_mix, mend, put_torchvision, timm_notation
from nas.data.generators import PrivateGenerators
from nas.data.registry import (
    Batch,
    DataError,
    DataInfo,
    Dataset,
    Look,
    Split,
    train_batch_size,
    wrong,
)
from nas.data.sources import Source
from nas.study.recipe import BadImages, Recipe
from nas.study.splitting import DEFAULT_SPLITTING, Splitting

_BAD_LABEL = -1  # of an image that could not be read and is to be left out


class Streamed(Dataset):
    """The images of a `Source`, decoded and augmented one by one by timm's transforms in processes of timm's loader."""

    def __init__(
        self,
        argument: str,
        *,
        resolution: int,
        num_workers: int,
        bad_images: BadImages,
        splitting: Splitting = DEFAULT_SPLITTING,
    ) -> None:
        self._source = self.make_source(argument, splitting)
        self._num_workers = num_workers
        labels = self._source.labels
        self._is_bad: dict[Split, Tensor] = {}  # which images cannot be read, as far as found; shared with the workers
        if bad_images == "skip":
            self._is_bad = {
                split: torch.zeros(len(labels_N), dtype=torch.bool).share_memory_()  # type: ignore[no-untyped-call]
                for split, labels_N in labels.items()
            }
        self.info = DataInfo(
            name=self._source.name,
            num_classes=len(self._source.class_names),
            class_names=self._source.class_names,
            resolution=resolution,
            num_images={split: len(labels_N) for split, labels_N in labels.items()},
            fingerprint=self._source.fingerprint,
            splitting=splitting,
        )

    @staticmethod
    @abstractmethod
    def make_source(argument: str, splitting: Splitting) -> Source:
        """The images that are meant by what follows the kind in a name.

        Raises:
            DataError: They are not there or not as they must be.
        """

    @classmethod
    def look(cls, argument: str) -> Look:
        """The resolution that fits the photographs; see `look_at`."""
        return cls.make_source(argument, DEFAULT_SPLITTING).look()

    @staticmethod
    def check(recipe: Recipe) -> None:
        check_photographs(recipe)
        augmentation = recipe.augmentation
        if augmentation.shift:
            rule = "must be 0 where images are decoded one by one and cropped"
            raise wrong("augmentation.shift", rule, augmentation.shift)
        if augmentation.repeats > 1:
            rule = "must be 1 for a folder, and wherever images are decoded one by one; prepared sets repeat them"
            raise wrong("augmentation.repeats", rule, augmentation.repeats)

    def train_batches(self, recipe: Recipe, *, epoch: int, seed: int, device: torch.device) -> Iterator[Batch]:
        return self.train_part(recipe, ALONE, epoch=epoch, seed=seed, device=device)

    def train_part(self, recipe: Recipe, part: Part, *, epoch: int, seed: int, device: torch.device) -> Iterator[Batch]:
        self.check(recipe)
        augmentation = recipe.augmentation
        num_images = self.info.num_images["train"]
        # timm's random crop of fewer pixels than these can round to none; its aspect ratios go up to 4/3
        min_pixels = math.ceil(1 / (3 * augmentation.crop_scale[0]))
        images = _Images(
            self._source,
            "train",
            self._is_bad.get("train"),
            seed=(seed, epoch),
            min_pixels=min_pixels,
            replaces=True,
        )
        loader = self._load(
            images,
            device,
            batch_size=train_batch_size(recipe, num_images),
            is_training=True,
            scale=augmentation.crop_scale,
            hflip=augmentation.flip,
            auto_augment=timm_notation(augmentation.rand_augment),
            color_jitter=augmentation.color_jitter or None,  # timm leaves it out beside rand_augment
            interpolation=augmentation.train_interpolation,
            re_prob=augmentation.random_erasing,
            re_mode="pixel",  # PoolFormer's
            # The prefetcher would draw the erased boxes of each process's batches by the same numbers
            prefetches=part == ALONE or not augmentation.random_erasing,
        )
        if part != ALONE:
            sampler = _batches_of(loader)
            sampler.sampler = _PartSampler(sampler.sampler, part, sampler.batch_size)
            sampler.batch_size //= part.number
        put_torchvision(images.transform, augmentation.rand_augment)
        mix = make_mix(recipe, self.info.num_classes)
        return _iterate(loader, PrivateGenerators(seed, epoch, 0), device, mix=mix)

    def eval_batches(self, split: Split, recipe: Recipe, *, device: torch.device) -> Iterator[Batch]:
        return self.eval_part(split, recipe, ALONE, device=device)

    def eval_part(self, split: Split, recipe: Recipe, part: Part, *, device: torch.device) -> Iterator[Batch]:
        self.check(recipe)
        is_bad_N = self._is_bad.get(split)
        images = _Images(self._source, split, is_bad_N, seed=(0, 0), min_pixels=1, replaces=False)
        size, crop = recipe.batch_size, recipe.augmentation.eval_crop
        loader = self._load(images, device, batch_size=size, crop_pct=crop, interpolation="bicubic")
        if part != ALONE:
            _batches_of(loader).sampler = range(part.rank, len(images), part.number)
        batches = _iterate(loader, PrivateGenerators(0, 0, 0), device)
        return batches if is_bad_N is None else _without_bad(batches, is_bad_N, split)

    def left_out(self) -> list[str]:
        found = (
            self._source.path(split, place)
            for split, is_bad_N in self._is_bad.items()
            for place in is_bad_N.nonzero()[:, 0].tolist()
        )
        return [name.encode(errors="replace").decode() for name in found]  # a file's name may be no text

    def preprocessing(self, recipe: Recipe) -> Preprocessing:
        mean, std = self._source.mean_and_std
        return Preprocessing(
            resolution=self.info.resolution, crop_pct=recipe.augmentation.eval_crop, mean=mean, std=std
        )

    def _load(
        self, images: "_Images", device: torch.device, *, prefetches: bool = True, **options: Any
    ) -> Iterable[list[Tensor]]:
        """timm's loader; it normalises by the source's mean and standard deviation."""
        on_gpu = device.type == "cuda"
        mean, std = self._source.mean_and_std
        loader: Iterable[list[Tensor]] = create_loader(
            images,  # type: ignore[arg-type]  # has what timm asks of its ImageDataset
            input_size=(3, self.info.resolution, self.info.resolution),
            mean=mean,
            std=std,
            num_workers=self._num_workers,
            persistent_workers=False,  # they would keep the first epoch's seed
            use_prefetcher=on_gpu and prefetches,
            pin_memory=on_gpu,
            device=device,
            **options,
        )
        mend(images.transform)
        return loader


def _batches_of(loader: Iterable[list[Tensor]]) -> Any:
    """What tells torch's loader the places of each batch; on a GPU timm's prefetcher stands around that loader."""
    inner: Any = getattr(loader, "loader", loader)
    return inner.batch_sampler


class _PartSampler:
    """Of each whole batch of places that a sampler draws, a part."""

    def __init__(self, sampler: Any, part: Part, size: int) -> None:
        self._sampler, self._size, self._rows = sampler, size, part.rows(size).tolist()

    def __len__(self) -> int:
        return len(self._sampler) // self._size * len(self._rows)

    def __iter__(self) -> Iterator[int]:
        places = iter(self._sampler)
        while len(batch := list(itertools.islice(places, self._size))) == self._size:
            yield from (batch[row] for row in self._rows)


class _Images:
    """Images of a split for torch's DataLoader: what happens to each depends on the seed and its place alone.

    Not timm's ImageDataset, which puts the next image in the place of one it cannot read.
    """

    transform: Compose  # set by timm's create_loader

    def __init__(
        self,
        source: Source,
        split: Split,
        is_bad_N: Tensor | None,
        *,
        seed: tuple[int, int],
        min_pixels: int,
        replaces: bool,
    ) -> None:
        """Describe a split.

        Args:
            is_bad_N: Takes down which images cannot be read; None: such an image raises DataError.
            min_pixels: Smaller images are enlarged to as many.
            replaces: Whether the next image of its class that can be read takes the place of a bad one; otherwise it
                is blank and has the label -1.
        """
        self._source, self._split, self._is_bad_N = source, split, is_bad_N
        self._labels_N = source.labels[split]
        self._seed, self._min_pixels, self._replaces = seed, min_pixels, replaces

    def __len__(self) -> int:
        return len(self._labels_N)

    def __getitem__(self, place: int) -> tuple[Any, int]:
        label = int(self._labels_N[place])
        image = self._read(place) if self._is_bad_N is None else self._find(place, self._is_bad_N)
        if image is None:
            image, label = Image.new("RGB", (1, 1)), _BAD_LABEL
        num_pixels = image.width * image.height
        if num_pixels < self._min_pixels:
            times = math.ceil(math.sqrt(self._min_pixels / num_pixels))
            image = image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)
        with PrivateGenerators(*self._seed, 1 + place):
            return self.transform(image), label

    def _read(self, place: int) -> Image.Image:
        try:
            return self._source.read(self._split, place)
        except ImageError as error:
            raise DataError(str(error)) from error

    def _find(self, place: int, is_bad_N: Tensor) -> Image.Image | None:
        """The image, or the next readable one of its class, wrapping around; None where a bad one is not replaced."""
        first, end = np.searchsorted(self._labels_N, self._labels_N[place] + np.array([0, 1])).tolist()
        others = (*range(place + 1, end), *range(first, place)) if self._replaces else ()
        for other in (place, *others):
            if not is_bad_N[other]:
                try:
                    return self._read(other)
                except DataError:
                    is_bad_N[other] = True
        if not self._replaces:
            return None
        where = f"{self._split} of class {self._source.class_names[self._labels_N[place]]!r}"
        raise DataError(f"image: must be readable at least once in each class, got none in {where}")


def _without_bad(batches: Iterator[Batch], is_bad_N: Tensor, split: Split) -> Iterator[Batch]:
    """The batches without the images that could not be read."""
    num_good = 0
    for x_BCHW, y in batches:
        if is_bad_N.any():  # on the CPU, so that no batch waits for a GPU as long as all is well
            is_good_B = y != _BAD_LABEL
            good = Batch(x_BCHW[is_good_B].contiguous(memory_format=torch.channels_last), y[is_good_B])
        else:
            good = Batch(x_BCHW, y)
        if len(good.y):
            num_good += len(good.y)
            yield good
    if not num_good:
        raise DataError(f"image: must be readable at least once in {split}, got {len(is_bad_N)} that are not")


def _iterate(
    loader: Iterable[list[Tensor]], generators: PrivateGenerators, device: torch.device, *, mix: Mixup | None = None
) -> Iterator[Batch]:
    """What the loader yields, on the device and mixed, while the global generators are ours."""
    with generators:
        batches = iter(loader)
    while True:
        try:
            with generators:
                found = next(batches, None)
                if found is None:
                    return
                x_BCHW = found[0].to(device, memory_format=torch.channels_last, non_blocking=True)
                y = found[1].to(device, non_blocking=True)
                batch = Batch(*mix(x_BCHW, y)) if mix else Batch(x_BCHW, y)
        except DataError as error:  # torch puts a worker's traceback before the message
            message = str(error).rstrip().rpartition("DataError: ")[2]
            del batches  # stops the workers; left to the collector of cycles, torch waits 5 s for each
            raise DataError(message) from error.with_traceback(None)
        yield batch
