"""Datasets by name; with metaformer/validation.py the only file that imports timm.data.

What a dataset yields depends on its images, the recipe, the epoch and the seed, on nothing else: not on earlier epochs,
the global random generators or the number of worker processes. A run that goes on from a checkpoint sees what an
uninterrupted one sees.

B batch, C channels, H height, W width, N images of a split, K classes.
"""

import hashlib
import importlib
import math
import os
import random
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from timm.data import Mixup, create_loader, get_img_extensions
from timm.utils import natural_key
from torch import Tensor

from metaformer.errors import UserError, nearest_first, unknown_name
from nas.recipe import Augmentation, BadImages, Recipe

Split = Literal["train", "val", "test"]
_SPLIT_SEED = 2111_11418  # fixes which images are held out
_SMALLEST_SIDE = 8  # pixels


class DataError(UserError):
    """Data that cannot be read or used as asked; the message is one line and names field, rule and value."""


def _wrong(field: str, rule: str, value: object) -> DataError:
    return DataError(f"{field}: {rule}, got {value!r}")


@dataclass(frozen=True)
class DataInfo:
    """What a dataset holds. `fingerprint` is equal on every machine whose classes, images and splits are equal."""

    name: str  # as given, but with an absolute path
    num_classes: int
    class_names: tuple[str, ...]
    resolution: int  # side of the square images that a model sees, in pixels
    num_images: Mapping[Split, int]
    fingerprint: str  # 16 hex digits; of a folder's images it covers the names, not the content


class Batch(NamedTuple):
    """Images (float32, channels-last) and labels: (B,) int64, or (B, K) soft and smoothed where images were mixed."""

    x_BCHW: Tensor
    y: Tensor


class Dataset(ABC):
    """Images and labels in three splits: `val` is for choosing, `test` for reporting."""

    info: DataInfo

    @abstractmethod
    def __init__(self, argument: str, *, resolution: int, num_workers: int, bad_images: BadImages) -> None:
        """Takes what follows the colon in the name; the rest is `open_dataset`'s."""

    @staticmethod
    @abstractmethod
    def check(recipe: Recipe) -> None:
        """Raises DataError for a recipe that such a dataset cannot follow."""

    @abstractmethod
    def train_batches(self, recipe: Recipe, *, epoch: int, seed: int, device: torch.device) -> Iterator[Batch]:
        """The batches of one epoch on `device`, `num_steps(recipe)` of equal size; what does not fill one is left out.

        Raises:
            DataError: The recipe asks for what this dataset cannot do, or an image cannot be read.
        """

    @abstractmethod
    def eval_batches(self, split: Split, recipe: Recipe, *, device: torch.device) -> Iterator[Batch]:
        """Every image of a split once, in a fixed order, with hard labels; only the last batch may be smaller.

        Where bad images are skipped, their batches are smaller by them.

        Raises:
            DataError: The recipe asks for what this dataset cannot do, or an image cannot be read.
        """

    def num_steps(self, recipe: Recipe) -> int:
        """Batches, that is optimiser steps, of one epoch."""
        num_images = self.info.num_images["train"]
        return num_images // _train_batch_size(recipe, num_images)

    def left_out(self) -> list[str]:
        """The images that have been found unreadable so far and are left out, by name."""
        return []


class _Kind(NamedTuple):
    make: type[Dataset]
    argument: str | None
    resolution: int
    recipe: Recipe


_REGISTRY: dict[str, _Kind] = {}


def register_dataset(
    kind: str, *, resolution: int, recipe: Recipe, argument: str | None = None
) -> Callable[[type[Dataset]], type[Dataset]]:
    """Make a class the datasets called `kind`.

    Args:
        resolution: Default side of the images in pixels.
        recipe: Default recipe.
        argument: What must follow the colon in a name, such as PATH; None where a name has no colon.

    A dataset of one's own need not be in this file: in a module such as `flowers.loaders` that can be imported on every
    node, registered under that module's `__name__`, it is known as `flowers.loaders`.

    Raises:
        ValueError: The kind is registered already.
    """
    if kind in _REGISTRY:
        raise ValueError(f"dataset: must be registered once, got {kind!r} again")

    def register(make: type[Dataset]) -> type[Dataset]:
        _REGISTRY[kind] = _Kind(make, argument, resolution, recipe)
        return make

    return register


def names() -> list[str]:
    """The known names; a capital word stands for what the user fills in, as in `folder:PATH`."""
    return [kind if entry.argument is None else f"{kind}:{entry.argument}" for kind, entry in _REGISTRY.items()]


def default_resolution(name: str) -> int:
    """Side in pixels of the images that a model sees if nothing else is asked for."""
    return _find(name)[0].resolution


def default_recipe(name: str) -> Recipe:
    """The recipe for this dataset if nothing else is asked for."""
    return _find(name)[0].recipe


def check_recipe(name: str, recipe: Recipe) -> None:
    """Raises DataError where the dataset cannot do what the recipe asks; reads no image."""
    _find(name)[0].make.check(recipe)


def open_dataset(name: str, *, resolution: int, num_workers: int = 0, bad_images: BadImages = "stop") -> Dataset:
    """The dataset of that name, ready to yield batches.

    Args:
        resolution: Side of the square images that a model sees, in pixels.
        num_workers: Processes that read images; 0 reads them in this process. Changes no batch.
        bad_images: What an image that cannot be read does: `stop` raises, `skip` leaves it out. In training another
            of its class takes its place, the next one in the list that can be read.
    Raises:
        DataError: The name is unknown, the data are not there or not as they must be.
    """
    entry, argument = _find(name)
    if resolution < _SMALLEST_SIDE:
        raise _wrong("resolution", f"must be at least {_SMALLEST_SIDE} pixels", resolution)
    if num_workers < 0:
        raise _wrong("num_workers", "must be 0 or more", num_workers)
    return entry.make(argument, resolution=resolution, num_workers=num_workers, bad_images=bad_images)


def _find(name: str) -> tuple[_Kind, str]:
    """The entry of a name and what follows the colon."""
    kind, _, argument = name.partition(":")
    if kind not in _REGISTRY and "." in kind and all(part.isidentifier() for part in kind.split(".")):
        _import(kind)
    if kind not in _REGISTRY:
        raise DataError(unknown_name("dataset", kind, names()))
    entry = _REGISTRY[kind]
    if entry.argument is None and name != kind:
        raise _wrong("dataset", f"nothing may follow {kind}", name)
    if entry.argument is not None and not argument:
        raise _wrong("dataset", f"must be given as {kind}:{entry.argument}", name)
    return entry, argument


def _import(module: str) -> None:
    """Import a module that registers a dataset under its own name.

    Raises:
        DataError: It cannot be imported here, or registers no such dataset.
    """
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise _wrong("dataset", f"must be in a module that can be imported ({error})", module) from error
    if module not in _REGISTRY:
        raise _wrong("dataset", "must be registered by its module under __name__", module)


def _train_batch_size(recipe: Recipe, num_images: int) -> int:
    """The recipe's batch size, or all images where there are fewer; even for Mixup, which pairs first with last."""
    size = min(recipe.batch_size, num_images)
    return size - size % 2 if _mixes(recipe) else size


def _mixes(recipe: Recipe) -> bool:
    return recipe.augmentation.mixup > 0 or recipe.augmentation.cutmix > 0


def _shuffled_class(num_images: int, label: int) -> NDArray[np.int64]:
    """The order in which images of a class are held out; numpy promises this generator the same numbers for ever."""
    return np.random.RandomState([_SPLIT_SEED, label]).permutation(num_images)


def _fingerprint(parts: Iterable[bytes]) -> str:
    """16 hex digits over the parts and where each ends."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()[:16]


def _mix_seed(*numbers: int) -> int:
    """64 bits in which each of the numbers tells; they may be negative, and must be equally many for one use."""
    return int(np.random.SeedSequence([number % 2**64 for number in numbers]).generate_state(1, np.uint64)[0])


_DIGITS_AUGMENTATION = Augmentation(
    crop_scale=(1.0, 1.0), flip=0, rand_augment=None, random_erasing=0, mixup=0, cutmix=0, shift=2, eval_crop=1.0
)


@register_dataset(
    "digits",
    resolution=32,
    recipe=Recipe(epochs=4, batch_size=64, lr_per_1024=0.1, warmup_epochs=1, augmentation=_DIGITS_AUGMENTATION),
)
class Digits(Dataset):
    """1,797 scans of handwritten digits (8 x 8 grey, scikit-learn's `load_digits`), held as tensors on the device.

    60 % of each class train, 20 % are val and 20 % test. The scans are enlarged bilinearly, normalised by the mean and
    standard deviation of the training images, and repeated to three channels. No two of the scans are equal.
    """

    def __init__(self, _argument: str, *, resolution: int, num_workers: int, bad_images: BadImages) -> None:
        del num_workers, bad_images  # nothing is read while training
        try:
            from sklearn.datasets import load_digits
        except ModuleNotFoundError as error:
            raise DataError("dataset: digits needs scikit-learn, which is not installed") from error
        found = load_digits()
        scans_NHW, labels_N = torch.from_numpy(found.images).byte(), torch.from_numpy(found.target).long()
        places = _split_digits(found.target)
        enlarged_NHW = F.interpolate(scans_NHW[:, None].float(), (resolution,) * 2, mode="bilinear")[:, 0]
        std, mean = torch.std_mean(enlarged_NHW[places["train"]])
        self._background = float(-mean / std)
        images_NHW = (enlarged_NHW - mean) / std
        here = {split: (images_NHW[place], labels_N[place]) for split, place in places.items()}
        self._resident = {torch.device("cpu"): here}
        parts = (x_N[place].byte().numpy().tobytes() for place in places.values() for x_N in (scans_NHW, labels_N))
        self.info = DataInfo(
            name="digits",
            num_classes=10,
            class_names=tuple("0123456789"),
            resolution=resolution,
            num_images={split: len(place) for split, place in places.items()},
            fingerprint=_fingerprint(parts),
        )

    @staticmethod
    def check(recipe: Recipe) -> None:
        augmentation = recipe.augmentation
        for field, only in _DIGITS_AUGMENTATION.model_dump(exclude={"shift"}).items():
            if getattr(augmentation, field) != only:
                rule = f"must be {only} for digits, which can only be shifted"
                raise _wrong(f"augmentation.{field}", rule, getattr(augmentation, field))
        if augmentation.shift > _SMALLEST_SIDE:
            raise _wrong("augmentation.shift", f"must be at most {_SMALLEST_SIDE} for digits", augmentation.shift)

    def train_batches(self, recipe: Recipe, *, epoch: int, seed: int, device: torch.device) -> Iterator[Batch]:
        self.check(recipe)
        return self._train(recipe, _mix_seed(seed, epoch), device)

    def eval_batches(self, split: Split, recipe: Recipe, *, device: torch.device) -> Iterator[Batch]:
        self.check(recipe)
        images_NHW, labels_N = self._on(device)[split]
        size = recipe.batch_size
        starts = range(0, len(labels_N), size)
        return (Batch(_three_channels(images_NHW[i : i + size]), labels_N[i : i + size]) for i in starts)

    def _train(self, recipe: Recipe, seed: int, device: torch.device) -> Iterator[Batch]:
        images_NHW, labels_N = self._on(device)["train"]
        num_images, shift = len(labels_N), recipe.augmentation.shift
        generator = torch.Generator().manual_seed(seed)  # on the CPU, so that every device sees the same epoch
        order_N = torch.randperm(num_images, generator=generator).to(device)
        starts_2N = torch.randint(2 * shift + 1, (2, num_images), generator=generator).to(device)
        padded_NHW = F.pad(images_NHW, (shift,) * 4, value=self._background)
        side = torch.arange(self.info.resolution, device=device)
        size = _train_batch_size(recipe, num_images)
        for start in range(0, self.num_steps(recipe) * size, size):
            picked_B = order_N[start : start + size]
            rows_BH, columns_BW = starts_2N[:, start : start + size, None] + side
            x_BHW = padded_NHW[picked_B[:, None, None], rows_BH[:, :, None], columns_BW[:, None, :]]
            yield Batch(_three_channels(x_BHW), labels_N[picked_B])

    def _on(self, device: torch.device) -> dict[Split, tuple[Tensor, Tensor]]:
        """The splits on a device, where they stay."""
        if device not in self._resident:
            here = self._resident[torch.device("cpu")]
            self._resident[device] = {split: (x.to(device), y.to(device)) for split, (x, y) in here.items()}
        return self._resident[device]


def _split_digits(labels_N: NDArray[np.int64]) -> dict[Split, NDArray[np.int64]]:
    """Where the images of each split are, class by class."""
    parts = []
    for label in range(10):
        found = np.flatnonzero(labels_N == label)
        fifth = round(0.2 * len(found))
        parts.append(np.split(found[_shuffled_class(len(found), label)], [fifth, 2 * fifth]))
    val, test, train = (np.concatenate(of_split) for of_split in zip(*parts, strict=True))
    return {"train": train, "val": val, "test": test}


def _three_channels(x_BHW: Tensor) -> Tensor:
    return x_BHW[:, None].expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)


_RAND_AUGMENT = re.compile(r"rand(-(m\d+|n\d+|p[01]?\.?\d+|mstd\d*\.?\d+|mmax\d+|inc[01]|t(weights|3aw|3a)))*")


_BAD_LABEL = -1  # of an image that could not be read and is to be left out


class _Files(NamedTuple):
    """Images of a split; arrays, since a worker process would copy a million strings by counting references."""

    paths_N: NDArray[np.bytes_]  # below the dataset's folder
    labels_N: NDArray[np.int64]  # rising


@register_dataset("folder", resolution=224, recipe=Recipe(), argument="PATH")
class Folder(Dataset):
    """PATH/train/CLASS/* and PATH/val/CLASS/*: val is our test, and a tenth of each class in train is our val.

    Classes are in timm's order: class2 before class10. Images lie anywhere below the folder of their class; files
    without an image's extension and hidden files are passed over.
    """

    def __init__(self, path: str, *, resolution: int, num_workers: int, bad_images: BadImages) -> None:
        self._root = Path(path).expanduser().absolute()
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
            fingerprint=_fingerprint([b"\0".join(map(os.fsencode, classes)), *lists]),
        )

    @staticmethod
    def check(recipe: Recipe) -> None:
        augmentation = recipe.augmentation
        low, high = augmentation.crop_scale
        if not 0 < low <= high:
            raise _wrong("augmentation.crop_scale", "must rise and be above 0", augmentation.crop_scale)
        if augmentation.rand_augment is not None and not _RAND_AUGMENT.fullmatch(augmentation.rand_augment):
            rule = "must be in timm's notation, such as 'rand-m9-mstd0.5-inc1'"
            raise _wrong("augmentation.rand_augment", rule, augmentation.rand_augment)
        if augmentation.shift:
            rule = "must be 0 for a folder, whose images are cropped"
            raise _wrong("augmentation.shift", rule, augmentation.shift)
        if _mixes(recipe) and recipe.batch_size % 2:
            raise _wrong("batch_size", "must be even for mixup and cutmix", recipe.batch_size)

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
            batch_size=_train_batch_size(recipe, len(files.labels_N)),
            is_training=True,
            scale=augmentation.crop_scale,
            hflip=augmentation.flip,
            auto_augment=augmentation.rand_augment,
            color_jitter=None,  # timm's default would jitter whenever rand_augment is off
            re_prob=augmentation.random_erasing,
            re_mode="pixel",  # PoolFormer's
        )
        mix = None
        if _mixes(recipe):
            mix = Mixup(  # type: ignore[no-untyped-call]
                mixup_alpha=augmentation.mixup,
                cutmix_alpha=augmentation.cutmix,
                label_smoothing=recipe.label_smoothing,
                num_classes=self.info.num_classes,
            )
        return _iterate(loader, _Generators(seed, epoch, 0), device, mix=mix)

    def eval_batches(self, split: Split, recipe: Recipe, *, device: torch.device) -> Iterator[Batch]:
        self.check(recipe)
        is_bad_N = self._is_bad.get(split)
        images = _Images(self._root, self._files[split], is_bad_N, seed=(0, 0), min_pixels=1, replaces=False)
        loader = self._load(images, device, batch_size=recipe.batch_size, crop_pct=recipe.augmentation.eval_crop)
        batches = _iterate(loader, _Generators(0, 0, 0), device)
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
        return create_loader(
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


def _list_images(root: Path, part: str) -> dict[str, list[str]]:
    """Class names of a part in timm's order, each with the paths of its images below `root`, sorted."""
    folder = root / part
    if not root.is_dir():
        raise _wrong("dataset", "PATH of folder:PATH must be a folder", str(root))
    if not folder.is_dir():
        near = nearest_first(part, sorted(inner.name for inner in root.iterdir() if inner.is_dir()))[:3]
        raise DataError(f"dataset: {str(root)!r} must hold the folders train and val, found no {part}, nearest: {near}")
    with os.scandir(folder) as entries:
        classes = [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    if len(classes) < 2:
        raise _wrong("dataset", f"{str(folder)!r} must hold a folder for each of 2 or more classes", classes)
    extensions = get_img_extensions()  # type: ignore[no-untyped-call]
    images: dict[str, list[str]] = {}
    for name in sorted(classes, key=lambda name: (natural_key(name), name)):  # type: ignore[no-untyped-call]
        images[name] = sorted(
            f"{where}/{file}"[len(str(root)) + 1 :]
            for where, _, files in os.walk(folder / name, followlinks=True)
            for file in files
            if file.lower().endswith(extensions) and not file.startswith(".")
        )
        if not images[name]:
            raise DataError(f"dataset: {str(folder / name)!r} must hold images ({', '.join(extensions)}), found none")
    return images


def _check_classes(root: Path, train: Mapping[str, list[str]], val: Mapping[str, list[str]]) -> None:
    for name in sorted(set(train) ^ set(val)):
        has, lacks = ("train", "val") if name in train else ("val", "train")
        near = nearest_first(name, val if name in train else train)[:3]
        rule = f"classes in {str(root)!r} must be in train and in val"
        raise DataError(f"dataset: {rule}, got {name!r} in {has} only; nearest in {lacks}: {', '.join(near)}")
    for name, found in train.items():
        if len(found) < 2:
            raise _wrong("dataset", f"{str(root / 'train' / name)!r} must hold 2 or more images", len(found))


def _as_arrays(images: Mapping[str, list[str]], classes: list[str]) -> _Files:
    labels_N = np.repeat(np.arange(len(classes)), [len(images[name]) for name in classes])
    return _Files(np.array([os.fsencode(path) for name in classes for path in images[name]]), labels_N)


def _hold_out(files: _Files) -> tuple[_Files, _Files]:
    """What stays, and the tenth of each class that is held out, at least one image."""
    is_held_N = np.zeros(len(files.labels_N), dtype=bool)
    first = 0
    for label, count in enumerate(np.bincount(files.labels_N).tolist()):
        is_held_N[first + _shuffled_class(count, label)[: max(1, round(0.1 * count))]] = True
        first += count
    stay, held = (_Files(files.paths_N[chosen], files.labels_N[chosen]) for chosen in (~is_held_N, is_held_N))
    return stay, held


class _Images:
    """Images of a split for torch's DataLoader: what happens to each depends on the seed and its place alone.

    Not timm's ImageDataset, which puts the next image in the place of one it cannot read.
    """

    transform: Callable[[Image.Image], Any]  # set by timm's create_loader

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
        with _Generators(*self._seed, 1 + place):
            return self.transform(image), label

    def _read(self, place: int) -> Image.Image:
        return _read_image(f"{self._root}/{os.fsdecode(self._files.paths_N[place])}")

    def _find(self, place: int, is_bad_N: Tensor) -> Image.Image | None:
        """The image, or the next of its class that can be read, the first coming after the last; None: nothing may."""
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


def _read_image(path: str) -> Image.Image:
    """The image in RGB: 16-bit grey is scaled to 8 bits, transparency dropped."""
    try:
        with Image.open(path) as image:
            if image.mode.startswith("I"):  # Pillow would clip at 255
                return Image.fromarray((np.asarray(image) // 257).clip(0, 255).astype(np.uint8)).convert("RGB")
            if image.mode == "P" and "transparency" in image.info:  # Pillow warns of the direct way
                return image.convert("RGBA").convert("RGB")
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # all seen from damaged files
        raise DataError(f"image: must be readable, got {path!r} ({' '.join(str(error).split())})") from error


class _Generators:
    """Python's, numpy's and torch's global generators, replaced inside `with` by private ones that go on at the next.

    timm's transforms, loader and Mixup draw from the global ones. A GPU's generator is left alone: timm draws from it
    only the noise in erased rectangles, in the order of the training steps.
    """

    def __init__(self, *seed: int) -> None:
        self._seed = _mix_seed(*seed)
        self._ours: tuple[Any, Any, Tensor] | None = None

    def __enter__(self) -> None:
        self._theirs = _get_states()
        if self._ours is not None:
            _set_states(*self._ours)
        else:
            random.seed(self._seed)
            np.random.seed(self._seed % 2**32)
            torch.default_generator.manual_seed(self._seed)  # torch.manual_seed would set the GPU's too

    def __exit__(self, *_: object) -> None:
        self._ours = _get_states()
        _set_states(*self._theirs)


def _get_states() -> tuple[Any, Any, Tensor]:
    return random.getstate(), np.random.get_state(), torch.get_rng_state()


def _set_states(python: Any, numpy: Any, of_torch: Tensor) -> None:
    random.setstate(python)
    np.random.set_state(numpy)
    torch.set_rng_state(of_torch)


def _iterate(
    loader: Iterable[list[Tensor]], generators: _Generators, device: torch.device, *, mix: Mixup | None = None
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
