"""Images in folders; one of the doors to timm.data.

B batch, C channels, H height, W width, N images of a split.
"""

import math
import os
import statistics
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from timm.data import Mixup, create_loader, get_img_extensions
from timm.utils import natural_key
from torch import Tensor
from torchvision.transforms import Compose

from metaformer.errors import nearest_first
from metaformer.images import ImageError, read_image, read_size
from nas.data.augment import check_augmentation, mend
from nas.data.generators import PrivateGenerators
from nas.data.registry import (
    Batch,
    DataError,
    DataInfo,
    Dataset,
    Look,
    Split,
    fingerprint_of,
    mixes,
    register_dataset,
    shuffled_class,
    train_batch_size,
    wrong,
)
from nas.study.recipe import BadImages, Recipe

_SIDES = (8, 16, 32, 48, 64, 96, 128, 160, 192, 224)  # pixels
_SAMPLE, _SAMPLE_SEED = 200, 2210_13452
_BAD_LABEL = -1  # of an image that could not be read and is to be left out


class _Files(NamedTuple):
    """Images of a split; arrays, since a worker process would copy a million strings by counting references."""

    paths_N: NDArray[np.bytes_]  # below the dataset's folder
    labels_N: NDArray[np.int64]  # rising


@register_dataset("folder", resolution=224, recipe=Recipe(), argument="PATH")
class Folder(Dataset):
    """PATH/train/CLASS/* and PATH/val/CLASS/*: val is our test, and a tenth of each class in train is our val.

    Classes are in timm's order: class2 before class10. Images lie anywhere below the folder of their class; files
    without an image's extension, hidden files, pipes and devices are passed over.
    """

    def __init__(self, path: str, *, resolution: int, num_workers: int, bad_images: BadImages) -> None:
        self._root = _root_of(path)
        self._num_workers = num_workers
        given, test = (_list_images(self._root, part) for part in ("train", "val"))
        _check_classes(self._root, given, test)
        classes = list(given)
        train, val = _hold_out(_as_arrays(given, classes))
        self._files: dict[Split, _Files] = {"train": train, "val": val, "test": _as_arrays(test, classes)}
        self._is_bad: dict[Split, Tensor] = {}  # which images cannot be read, as far as found; shared with the workers
        if bad_images == "skip":
            self._is_bad = {
                split: torch.zeros(len(files.labels_N), dtype=torch.bool).share_memory_()  # type: ignore[no-untyped-call]
                for split, files in self._files.items()
            }
        lists = (b"\0".join(files.paths_N.tolist()) for files in self._files.values())
        self.info = DataInfo(
            name=f"folder:{self._root}",
            num_classes=len(classes),
            class_names=tuple(classes),
            resolution=resolution,
            num_images={split: len(files.labels_N) for split, files in self._files.items()},
            fingerprint=fingerprint_of([b"\0".join(map(os.fsencode, classes)), *lists]),
        )

    @staticmethod
    def look(argument: str) -> Look:
        """The resolution that fits the photographs in PATH; see `default_resolution_of`."""
        return default_resolution_of(_root_of(argument))

    @staticmethod
    def check(recipe: Recipe) -> None:
        augmentation = recipe.augmentation
        low, high = augmentation.crop_scale
        if not 0 < low <= high:
            raise wrong("augmentation.crop_scale", "must rise and be above 0", augmentation.crop_scale)
        if augmentation.rand_augment is not None:
            check_augmentation(augmentation.rand_augment)
        if augmentation.shift:
            rule = "must be 0 for a folder, whose images are cropped"
            raise wrong("augmentation.shift", rule, augmentation.shift)
        if mixes(recipe) and recipe.batch_size % 2:
            raise wrong("batch_size", "must be even for mixup and cutmix", recipe.batch_size)

    def train_batches(self, recipe: Recipe, *, epoch: int, seed: int, device: torch.device) -> Iterator[Batch]:
        self.check(recipe)
        augmentation = recipe.augmentation
        files = self._files["train"]
        # timm's random crop of fewer pixels than these can round to none; its aspect ratios go up to 4/3
        min_pixels = math.ceil(1 / (3 * augmentation.crop_scale[0]))
        loader = self._load(
            _Images(
                self._root, files, self._is_bad.get("train"), seed=(seed, epoch), min_pixels=min_pixels, replaces=True
            ),
            device,
            batch_size=train_batch_size(recipe, len(files.labels_N)),
            is_training=True,
            scale=augmentation.crop_scale,
            hflip=augmentation.flip,
            auto_augment=augmentation.rand_augment,
            color_jitter=None,  # timm's default would jitter whenever rand_augment is off
            re_prob=augmentation.random_erasing,
            re_mode="pixel",  # PoolFormer's
        )
        mix = None
        if mixes(recipe):
            mix = Mixup(  # type: ignore[no-untyped-call]
                mixup_alpha=augmentation.mixup,
                cutmix_alpha=augmentation.cutmix,
                label_smoothing=recipe.label_smoothing,
                num_classes=self.info.num_classes,
            )
        return _iterate(loader, PrivateGenerators(seed, epoch, 0), device, mix=mix)

    def eval_batches(self, split: Split, recipe: Recipe, *, device: torch.device) -> Iterator[Batch]:
        self.check(recipe)
        is_bad_N = self._is_bad.get(split)
        images = _Images(self._root, self._files[split], is_bad_N, seed=(0, 0), min_pixels=1, replaces=False)
        loader = self._load(images, device, batch_size=recipe.batch_size, crop_pct=recipe.augmentation.eval_crop)
        batches = _iterate(loader, PrivateGenerators(0, 0, 0), device)
        return batches if is_bad_N is None else _without_bad(batches, is_bad_N, split)

    def left_out(self) -> list[str]:
        found = (
            os.fsdecode(path)
            for split, is_bad_N in self._is_bad.items()
            for path in self._files[split].paths_N[is_bad_N.numpy()].tolist()
        )
        return [name.encode(errors="replace").decode() for name in found]  # a file's name may be no text

    def _load(self, images: "_Images", device: torch.device, **options: Any) -> Iterable[list[Tensor]]:
        """timm's loader; it normalises by ImageNet's mean and standard deviation."""
        on_gpu = device.type == "cuda"
        loader: Iterable[list[Tensor]] = create_loader(
            images,  # type: ignore[arg-type]  # has what timm asks of its ImageDataset
            input_size=(3, self.info.resolution, self.info.resolution),
            interpolation="bicubic",
            num_workers=self._num_workers,
            persistent_workers=False,  # they would keep the first epoch's seed
            use_prefetcher=on_gpu,
            pin_memory=on_gpu,
            device=device,
            **options,
        )
        mend(images.transform)
        return loader


def _root_of(argument: str) -> Path:
    return Path(argument).expanduser().absolute()


def default_resolution_of(root: Path) -> Look:
    """The side that fits the photographs in a folder, from the headers of at most 200 files in train.

    Of 8, 16, 32, 48, 64, 96, 128, 160, 192 and 224 pixels it is the one nearest to the median shorter side of the
    sample, the larger of two that are as near. Reasons:
    - The shorter side, since crops are square. The median, since a few thumbnails or panoramas do not move it.
    - Fewer pixels than the photographs have cost detail; more cost time, with the square, and add nothing.
    - Sides of 16 to 64 are multiples of 16, larger ones of 32. Stems halve the side of small images and quarter that of
      large ones, and three more stages halve it again, so that every stage has a whole number of tokens.
    - 224 is the papers' side; what is larger has to be asked for. 8 is the smallest side that any dataset takes.

    The sample is the same in every run. Each class gives the same number of files, or all where it has fewer; where
    there are more than 200 classes, 200 of them give one each. Files that cannot be read are passed over.

    Raises:
        DataError: The folder is not as it must be, or no file of the sample can be read.
    """
    sizes, num_bad = [], 0
    for path in _sample(root):
        try:
            sizes.append(min(read_size(path)))
        except ImageError:
            num_bad += 1
    if not sizes:
        raise wrong("image", f"must be readable at least once in a sample of {str(root / 'train')!r}", num_bad)
    side = statistics.median_low(sizes)
    resolution = min(_SIDES, key=lambda known: (abs(known - side), -known))
    seen = f"a sample of {len(sizes)} images has a median shorter side of {side} pixels"
    unread = f"; {num_bad} more could not be read" if num_bad else ""
    return Look(resolution, f"{seen}, and {resolution} is the nearest of {', '.join(map(str, _SIDES))}{unread}")


def _sample(root: Path) -> Iterator[str]:
    """Paths of at most `_SAMPLE` images in train, the same number of each class."""
    draw = np.random.RandomState(_SAMPLE_SEED)  # numpy promises this generator the same numbers for ever
    classes = _list_classes(root, "train")
    for place in draw.permutation(len(classes))[:_SAMPLE].tolist():
        images = _list_class(root, "train", classes[place])
        for chosen in draw.permutation(len(images))[: max(1, _SAMPLE // len(classes))].tolist():
            yield f"{root}/{images[chosen]}"


def _list_images(root: Path, part: str) -> dict[str, list[str]]:
    """Class names of a part in timm's order, each with the paths of its images below `root`, sorted."""
    return {name: _list_class(root, part, name) for name in _list_classes(root, part)}


def _list_classes(root: Path, part: str) -> list[str]:
    """Class names of a part in timm's order."""
    folder = root / part
    if not root.is_dir():
        raise wrong("dataset", "PATH of folder:PATH must be a folder", str(root))
    if not folder.is_dir():
        near = nearest_first(part, sorted(inner.name for inner in root.iterdir() if inner.is_dir()))[:3]
        raise DataError(f"dataset: {str(root)!r} must hold the folders train and val, found no {part}, nearest: {near}")
    with os.scandir(folder) as entries:
        classes = [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    if len(classes) < 2:
        raise wrong("dataset", f"{str(folder)!r} must hold a folder for each of 2 or more classes", classes)
    return sorted(classes, key=lambda name: (natural_key(name), name))  # type: ignore[no-untyped-call]


def _list_class(root: Path, part: str, name: str) -> list[str]:
    """Paths below `root` of the images of a class, sorted."""
    extensions = get_img_extensions()  # type: ignore[no-untyped-call]
    folder = root / part / name
    images = sorted(
        file.path[len(str(root)) + 1 :]
        for file in _regular_files(str(folder), frozenset())
        if file.name.lower().endswith(extensions) and not file.name.startswith(".")
    )
    if not images:
        raise DataError(f"dataset: {str(folder)!r} must hold images ({', '.join(extensions)}), found none")
    return images


def _regular_files(folder: str, above: frozenset[tuple[int, int]]) -> Iterator[os.DirEntry[str]]:
    """The files below a folder; pipes and devices are passed over, and links that lead back to a folder above.

    Args:
        above: Device and number of each folder above this one.
    Raises:
        DataError: A folder cannot be read.
    """
    try:
        itself = os.stat(folder)  # noqa: PTH116  a string, of which there may be a million
        with os.scandir(folder) as found:
            entries = list(found)
    except OSError as error:
        raise wrong("dataset", f"folders must be readable ({error.strerror})", folder) from None
    here = (itself.st_dev, itself.st_ino)
    if here in above:
        return
    for entry in entries:
        if os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir():  # noqa: PTH112  a loop of links is none
            yield from _regular_files(entry.path, above | {here})
        elif os.path.isfile(entry.path) if entry.is_symlink() else entry.is_file():  # noqa: PTH113
            yield entry


def _check_classes(root: Path, train: Mapping[str, list[str]], val: Mapping[str, list[str]]) -> None:
    for name in sorted(set(train) ^ set(val)):
        has, lacks = ("train", "val") if name in train else ("val", "train")
        near = nearest_first(name, val if name in train else train)[:3]
        rule = f"classes in {str(root)!r} must be in train and in val"
        raise DataError(f"dataset: {rule}, got {name!r} in {has} only; nearest in {lacks}: {', '.join(near)}")
    for name, found in train.items():
        if len(found) < 2:
            raise wrong("dataset", f"{str(root / 'train' / name)!r} must hold 2 or more images", len(found))


def _as_arrays(images: Mapping[str, list[str]], classes: list[str]) -> _Files:
    labels_N = np.repeat(np.arange(len(classes)), [len(images[name]) for name in classes])
    return _Files(np.array([os.fsencode(path) for name in classes for path in images[name]]), labels_N)


def _hold_out(files: _Files) -> tuple[_Files, _Files]:
    """What stays, and the tenth of each class that is held out, at least one image."""
    is_held_N = np.zeros(len(files.labels_N), dtype=bool)
    first = 0
    for label, count in enumerate(np.bincount(files.labels_N).tolist()):
        is_held_N[first + shuffled_class(count, label)[: max(1, round(0.1 * count))]] = True
        first += count
    stay, held = (_Files(files.paths_N[chosen], files.labels_N[chosen]) for chosen in (~is_held_N, is_held_N))
    return stay, held


class _Images:
    """Images of a split for torch's DataLoader: what happens to each depends on the seed and its place alone.

    Not timm's ImageDataset, which puts the next image in the place of one it cannot read.
    """

    transform: Compose  # set by timm's create_loader

    def __init__(
        self,
        root: Path,
        files: _Files,
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
        self._root, self._files, self._is_bad_N = root, files, is_bad_N
        self._seed, self._min_pixels, self._replaces = seed, min_pixels, replaces

    def __len__(self) -> int:
        return len(self._files.labels_N)

    def __getitem__(self, place: int) -> tuple[Any, int]:
        label = int(self._files.labels_N[place])
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
            return read_image(f"{self._root}/{os.fsdecode(self._files.paths_N[place])}")
        except ImageError as error:
            raise DataError(str(error)) from error

    def _find(self, place: int, is_bad_N: Tensor) -> Image.Image | None:
        """The image, or the next readable one of its class, wrapping around; None where a bad one is not replaced."""
        first, end = np.searchsorted(self._files.labels_N, self._files.labels_N[place] + np.array([0, 1])).tolist()
        others = (*range(place + 1, end), *range(first, place)) if self._replaces else ()
        for other in (place, *others):
            if not is_bad_N[other]:
                try:
                    return self._read(other)
                except DataError:
                    is_bad_N[other] = True
        if not self._replaces:
            return None
        class_folder = "/".join(os.fsdecode(self._files.paths_N[place]).split("/")[:2])
        raise DataError(f"image: must be readable at least once in each class, got none in {class_folder!r}")


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
