"""Datasets by name, and what they have in common.

What a dataset yields depends on its images, the recipe, the epoch and the seed, on nothing else: not on earlier epochs,
the global random generators or the number of worker processes. A run that goes on from a checkpoint sees what an
uninterrupted one sees.

B batch, C channels, H height, W width, N images of a split, K classes.
"""

import hashlib
import importlib
import itertools
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metaformer.errors import UserError, check_new_name, check_subclass, check_type, shown, unknown_name
from metaformer.network.part import ALONE, Part
from metaformer.specs import LARGEST_SIDE, Stem
from metaformer.zoo import Preprocessing
from nas.study.recipe import BadImages, Recipe
from nas.study.splitting import DEFAULT_SPLITTING, Splitting

Split = Literal["train", "val", "test"]
_SPLIT_SEED = 2111_11418  # fixes which images are held out
_BUILT_IN = {  # modules that register these names
    "digits": "nas.data.digits",
    "folder": "nas.data.named_sets",
    "hfds": "nas.data.named_sets",
    "prepared": "nas.data.prepared",
    "tfds": "nas.data.named_sets",
    "torch": "nas.data.named_sets",
    "wds": "nas.data.named_sets",
}
SMALLEST_SIDE = 8  # pixels


class DataError(UserError):
    """Data that cannot be read or used as asked; the message is one line and names field, rule and value."""


def wrong(field: str, rule: str, value: object) -> DataError:
    """A value that breaks a rule."""
    return DataError(f"{field}: {rule}, got {shown(value)}")


@dataclass(frozen=True)
class DataInfo:
    """What a dataset holds. `fingerprint` is equal on every machine whose classes, images and splits are equal."""

    name: str  # as given, but with an absolute path
    num_classes: int
    class_names: tuple[str, ...]
    resolution: int  # side of the square images that a model sees, in pixels
    num_images: Mapping[Split, int]
    fingerprint: str  # 16 hex digits; of a folder's images it covers the names, not the content
    splitting: Splitting = DEFAULT_SPLITTING  # how val was taken from what there is for training


class Batch(NamedTuple):
    """Images (float32, channels-last) and labels: (B,) int64, or (B, K) soft and smoothed where images were mixed."""

    x_BCHW: Tensor
    y: Tensor


class Dataset(ABC):
    """Images and labels in three splits: `val` is for choosing, `test` for reporting."""

    info: DataInfo

    @abstractmethod
    def __init__(
        self,
        argument: str,
        *,
        resolution: int,
        num_workers: int,
        bad_images: BadImages,
        splitting: Splitting = DEFAULT_SPLITTING,
    ) -> None:
        """Takes what follows the kind in the name; the rest is `open_dataset`'s.

        A `splitting` is given to those alone that are registered with `takes_splitting`.
        """

    @staticmethod
    @abstractmethod
    def check(recipe: Recipe) -> None:
        """Raises DataError for a recipe that such a dataset cannot follow."""

    @classmethod
    def look(cls, argument: str) -> "Look | None":
        """What the images themselves say of the resolution; None: they are not asked, and the registered one holds.

        Args:
            argument: What follows the kind in the name.
        """
        del argument
        return None

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

    def train_part(self, recipe: Recipe, part: Part, *, epoch: int, seed: int, device: torch.device) -> Iterator[Batch]:
        """That part of each of `train_batches`, where several processes train one model.

        Here every process makes the whole batch; a dataset whose images take long to read reads its part alone.
        """
        batches = self.train_batches(recipe, epoch=epoch, seed=seed, device=device)
        if part == ALONE:
            return batches
        rows_B = part.rows(train_batch_size(recipe, self.info.num_images["train"])).to(device)
        return (Batch(x_BCHW[rows_B].contiguous(memory_format=torch.channels_last), y[rows_B]) for x_BCHW, y in batches)

    def eval_part(self, split: Split, recipe: Recipe, part: Part, *, device: torch.device) -> Iterator[Batch]:
        """Of `number` parts one, as batches of `eval_batches` or as other ones; together they have each image once."""
        return itertools.islice(self.eval_batches(split, recipe, device=device), part.rank, None, part.number)

    def preprocessing(self, recipe: Recipe) -> Preprocessing | None:
        """How `eval_batches` makes the model's input from an image file; None where the dataset does not say."""
        del recipe
        return None

    def num_steps(self, recipe: Recipe) -> int:
        """Batches, that is optimiser steps, of one epoch."""
        num_images = self.info.num_images["train"]
        return num_images // train_batch_size(recipe, num_images)

    def left_out(self) -> list[str]:
        """The images that have been found unreadable so far and are left out, by name."""
        return []


class Look(NamedTuple):
    """What a look at the images says of the side that a model should see."""

    resolution: int  # in pixels
    reason: str  # a clause for people: what was seen, and by which rule


@dataclass(frozen=True)
class Fit:
    """How a search is fitted to a dataset where the rules by image size do not do; None: they do."""

    stem: Stem | None = None
    width_scale: float | None = None
    max_macs: int | None = None
    references: tuple[str, ...] | None = None  # hand-designed models to train first
    until: str | None = None  # when a search without a number of trials ends before its budget is spent


class _Kind(NamedTuple):
    make: type[Dataset]
    argument: str | None
    separator: str
    resolution: int
    recipe: Recipe
    fit: Fit
    takes_splitting: bool

    def form(self, kind: str) -> str:
        """What a user types; a capital word is what is filled in."""
        return kind if self.argument is None else f"{kind}{self.separator}{self.argument}"


_REGISTRY: dict[str, _Kind] = {}


def register_dataset(
    kind: str,
    *,
    resolution: int,
    recipe: Recipe,
    argument: str | None = None,
    separator: Literal[":", "/"] = ":",
    fit: Fit | None = None,
    takes_splitting: bool = False,
) -> Callable[[type[Dataset]], type[Dataset]]:
    """Make a class the datasets called `kind`.

    Args:
        resolution: Default side of the images in pixels.
        recipe: Default recipe.
        argument: What must follow the separator in a name, such as PATH; None where a name has none.
        separator: What stands between the kind and the argument.
        fit: How a search is fitted to it; None: by the size of its images.
        takes_splitting: Whether its splits can be drawn as a `Splitting` says; otherwise only the default is taken.

    A dataset of one's own need not be in this package: in a module such as `flowers.loaders` that can be imported on
    every node, registered under that module's `__name__`, it is known as `flowers.loaders`.

    Raises:
        UserError: The kind is registered already or no text, or what is registered is no Dataset.
    """
    to_come = {name for name, module in _BUILT_IN.items() if module not in sys.modules}
    check_new_name("dataset", kind, {*_REGISTRY, *to_come})

    def register(make: type[Dataset]) -> type[Dataset]:
        check_subclass("dataset", make, Dataset)
        _REGISTRY[kind] = _Kind(make, argument, separator, resolution, recipe, fit or Fit(), takes_splitting)
        return make

    return register


def names() -> list[str]:
    """The known names; a capital word stands for what the user fills in, as in `folder:PATH`."""
    _register_built_in(*_BUILT_IN)
    return [entry.form(kind) for kind, entry in sorted(_REGISTRY.items())]


def look(name: str) -> Look:
    """The side of the images that a model sees if nothing else is asked for, and why."""
    entry, argument = _find(name)
    return entry.make.look(argument) or Look(
        entry.resolution, f"{entry.resolution} pixels, the default of {split_name(name)[0]}"
    )


def default_resolution(name: str) -> int:
    """Side in pixels of the images that a model sees if nothing else is asked for."""
    return look(name).resolution


def fit_of(name: str, *, resolution: int) -> Fit:
    """How a search is fitted to this dataset, where its images have the registered resolution."""
    entry = _find(name)[0]
    return entry.fit if resolution == entry.resolution else Fit()


def default_recipe(name: str) -> Recipe:
    """The recipe for this dataset if nothing else is asked for."""
    return _find(name)[0].recipe


def takes_splitting(name: str) -> bool:
    """Whether the splits of this dataset can be drawn as a `Splitting` says."""
    return _find(name)[0].takes_splitting


def check_recipe(name: str, recipe: Recipe) -> None:
    """Raises DataError where the dataset cannot do what the recipe asks; reads no image."""
    _find(name)[0].make.check(recipe)


def open_dataset(
    name: str,
    *,
    resolution: int,
    num_workers: int = 0,
    bad_images: BadImages = "stop",
    splitting: Splitting = DEFAULT_SPLITTING,
) -> Dataset:
    """The dataset of that name, ready to yield batches.

    Args:
        resolution: Side of the square images that a model sees, in pixels.
        num_workers: Processes that read images; 0 reads them in this process. Changes no batch.
        bad_images: What an image that cannot be read does: `stop` raises, `skip` leaves it out. In training another
            of its class takes its place, the next one in the list that can be read.
        splitting: How val is taken from what there is for training, and how much of the rest trains.
    Raises:
        DataError: The name is unknown, the data are not there or not as they must be, or cannot be split so.
    """
    entry, argument = _find(name)
    for field, number in (("resolution", resolution), ("num_workers", num_workers)):
        check_type(number, int, f"{field}: must be a whole number", error=DataError)
    if resolution < SMALLEST_SIDE:
        raise wrong("resolution", f"must be at least {SMALLEST_SIDE} pixels", resolution)
    if resolution > LARGEST_SIDE:
        raise wrong("resolution", f"must be at most {LARGEST_SIDE} pixels", resolution)
    if num_workers < 0:
        raise wrong("num_workers", "must be 0 or more", num_workers)
    make = partial(entry.make, argument, resolution=resolution, num_workers=num_workers, bad_images=bad_images)
    if entry.takes_splitting:
        return make(splitting=splitting)
    if splitting != DEFAULT_SPLITTING:
        rule = f"must be the default for {shown(name)}, whose splits are fixed"
        raise wrong("splitting", rule, splitting.model_dump())
    return make()


def find_dataset(name: str) -> tuple[type[Dataset], str]:
    """The class of a name, and what follows its kind.

    Raises:
        DataError: The name is unknown or not complete.
    """
    entry, argument = _find(name)
    return entry.make, argument


def split_name(name: str) -> tuple[str, str, str]:
    """The kind, which is what stands before the first colon or slash; that sign, or nothing; and what follows."""
    kind = re.split("[:/]", name, maxsplit=1)[0]
    return kind, name[len(kind) : len(kind) + 1], name[len(kind) + 1 :]


def short_name(name: str) -> str:
    """A word for a dataset, such as cifar10 for torch/cifar10, equal for the name that `DataInfo` makes of it."""
    kind, separator, argument = split_name(name)
    if separator == "/":
        argument = Path(argument.partition(":")[0]).name.partition("{")[0].rstrip("-_.")
    return Path(argument).name or kind


def _find(name: str) -> tuple[_Kind, str]:
    """The entry of a name and its argument."""
    check_type(name, str, "dataset: must be a name", error=DataError)
    kind, separator, argument = split_name(name)
    _register_built_in(kind)
    if kind not in _REGISTRY and "." in kind and all(part.isidentifier() for part in kind.split(".")):
        _import(kind)
    if kind not in _REGISTRY:
        raise DataError(unknown_name("dataset", name.partition(":")[0], names()))
    entry = _REGISTRY[kind]
    if entry.argument is None and name != kind:
        raise wrong("dataset", f"nothing may follow {kind}", name)
    if entry.argument is not None and (not argument or separator != entry.separator):
        raise wrong("dataset", f"must be given as {entry.form(kind)}", name)
    return entry, argument


def _register_built_in(*kinds: str) -> None:
    """Import the modules of those of these that are our own; they import this one."""
    for kind in kinds:
        if kind in _BUILT_IN and kind not in _REGISTRY:
            importlib.import_module(_BUILT_IN[kind])


def _import(module: str) -> None:
    """Import a module that registers a dataset under its own name.

    Raises:
        DataError: It cannot be imported here, or registers no such dataset.
    """
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise wrong("dataset", f"must be in a module that can be imported ({error})", module) from error
    if module not in _REGISTRY:
        raise wrong("dataset", "must be registered by its module under __name__", module)


def train_batch_size(recipe: Recipe, num_images: int) -> int:
    """The recipe's batch size, or all images where there are fewer; even for Mixup, which pairs first with last."""
    size = min(recipe.batch_size, num_images)
    return size - size % 2 if mixes(recipe) else size


def check_processes(field: str, number: int, recipe: Recipe, num_images: int) -> None:
    """Check that so many processes can divide a batch among themselves.

    Raises:
        DataError: They cannot.
    """
    size, unit = train_batch_size(recipe, num_images), number * (2 if mixes(recipe) else 1)
    if number > 1 and size % unit:
        why = "in pairs that mixup and cutmix mix" if mixes(recipe) else "in equal parts"
        raise wrong(field, f"must divide a batch of {size} images {why}; --batch-size sets another", number)


def mixes(recipe: Recipe) -> bool:
    """Whether images are mixed, by Mixup or CutMix, so that labels are soft."""
    return recipe.augmentation.mixup > 0 or recipe.augmentation.cutmix > 0


def shuffled_class(num_images: int, label: int, *, seed: int = 0) -> NDArray[np.int64]:
    """The order in which images of a class are held out; numpy never changes what this generator draws."""
    key = [_SPLIT_SEED, label, seed] if seed else [_SPLIT_SEED, label]  # without 0: as before there were other seeds
    return np.random.RandomState(key).permutation(num_images)


def fingerprint_of(parts: Iterable[bytes]) -> str:
    """16 hex digits over the parts and where each ends."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()[:16]


def mix_seed(*numbers: int) -> int:
    """Hash integers into one 64-bit seed; they may be negative. Always pass the same count per use."""
    return int(np.random.SeedSequence([number % 2**64 for number in numbers]).generate_state(1, np.uint64)[0])
