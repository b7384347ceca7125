"""Images that `python -m nas.prepare` has decoded: one array of bytes a split, read where it lies.

Whatever is done to an image is done to the whole batch, on the device that trains. A batch depends on the images, the
recipe, the seed, the epoch and its place, and on nothing else; a GPU and a CPU give the same batch but for rounding.

B batch, C channels, H height, W width, N images of a split, S side of a stored image in pixels.
"""

import re
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import Annotated, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from metaformer.documents import read_text
from metaformer.network.part import ALONE, Part
from metaformer.zoo import Preprocessing
from nas.data.augment import check_photographs, make_mix
from nas.data.division import divide_again
from nas.data.generators import PrivateGenerators
from nas.data.in_batch.crops import centre, goes_one_by_one
from nas.data.in_batch.epoch_plan import EpochPlan, StoredImages
from nas.data.registry import (
    Batch,
    DataError,
    DataInfo,
    Dataset,
    Look,
    Split,
    mix_seed,
    register_dataset,
    train_batch_size,
    wrong,
)
from nas.study.recipe import BadImages, Recipe
from nas.study.splitting import DEFAULT_SPLITTING, Splitting

VERSION = 1
DOCUMENT = "prepared.json"
UNREADABLE = -1  # label of an image that could not be read
_COPIED = 1024  # images that are copied to a GPU at once
_AHEAD = 3  # batches on their way to a GPU that does not hold the images
_SHARE = 0.25  # of a GPU's free memory, which images may fill
_BLOCK_BYTES = 64 * 2**20  # of images as floats that a GPU changes together
_DRAWER = ThreadPoolExecutor(1, "prepared-epoch")

Channels = Annotated[tuple[float, float, float], Field(strict=True)]


class Description(BaseModel):
    """What `prepared.json` says of the arrays beside it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int
    source: str  # the dataset they were made of
    resolution: Annotated[int, Field(strict=True, gt=0)]  # of the images that a model is to see
    side: Annotated[int, Field(strict=True, gt=0)]  # of the stored images
    class_names: tuple[str, ...]
    num_images: Mapping[Split, int]  # stored, unreadable ones included
    mean: Channels  # of the training images, of values from 0 to 1
    std: Channels
    fingerprint: str  # 16 hex digits over classes, labels and every pixel
    unreadable: tuple[str, ...] = ()


class _Stored(NamedTuple):
    """A split: the files that have its images, where these are, one file after another, and their labels."""

    files: tuple[Tensor, ...]  # uint8, (M, S, S, 3) each, M images
    places_N: Tensor
    labels_N: Tensor

    @property
    def num_bytes(self) -> int:
        """Of its images."""
        return len(self.places_N) * self.files[0][0].nbytes

    def gather(self, picked_B: Tensor, out_BSSC: Tensor | None = None) -> Tensor:
        """Some of its images, images_BSSC, in `out_BSSC` if it is given."""
        places_B = self.places_N[picked_B]
        if len(self.files) == 1:
            return torch.index_select(self.files[0], 0, places_B, out=out_BSSC)
        images_BSSC = self.files[0].new_empty(len(places_B), *self.files[0].shape[1:]) if out_BSSC is None else out_BSSC
        start = 0
        for file in self.files:
            is_here_B = (start <= places_B) & (places_B < start + len(file))
            images_BSSC[is_here_B] = file[places_B[is_here_B] - start]
            start += len(file)
        return images_BSSC

    def one_by_one(self, picked_B: Tensor) -> Iterator[Tensor]:
        """The same images, each where it lies."""
        for place in self.places_N[picked_B].tolist():
            first, *others = self.files
            yield first[place] if place < len(first) else others[0][place - len(first)]

    def on(self, device: torch.device) -> "_Stored":
        """A copy on a device, of its own images alone."""
        num_images = len(self.places_N)
        images_NSSC = self.files[0].new_empty(num_images, *self.files[0].shape[1:], device=device)
        for start in range(0, num_images, _COPIED):
            picked_B = torch.arange(start, min(start + _COPIED, num_images))
            images_NSSC[start : start + _COPIED] = self.gather(picked_B).to(device)
        return _Stored((images_NSSC,), torch.arange(num_images, device=device), self.labels_N.to(device))


def _pick(train: _Stored, val: _Stored, rows_N: NDArray[np.int64]) -> _Stored:
    """Rows of train, followed by val, as a split that reads no file in vain."""
    num_train = len(train.labels_N)
    picked_N = torch.from_numpy(rows_N)
    for stored, first in ((train, 0), (val, num_train)):
        inside_N = picked_N - first
        if ((inside_N >= 0) & (inside_N < len(stored.labels_N))).all():
            return _Stored(stored.files, stored.places_N[inside_N], stored.labels_N[inside_N])
    places_N = torch.cat([train.places_N, len(train.files[0]) + val.places_N])
    labels_N = torch.cat([train.labels_N, val.labels_N])
    return _Stored((*train.files, *val.files), places_N[picked_N], labels_N[picked_N])


def images_file(root: Path, split: Split) -> Path:
    return root / f"{split}_images.npy"


def labels_file(root: Path, split: Split) -> Path:
    return root / f"{split}_labels.npy"


def read_description(root: Path) -> Description:
    """What a prepared folder holds.

    Raises:
        DataError: It is not there, damaged, or of another version.
    """
    if not root.is_dir():
        raise wrong("dataset", "PATH of prepared:PATH must be a folder that nas.prepare wrote", str(root))
    if not (root / DOCUMENT).exists():
        raise wrong("dataset", f"must hold {DOCUMENT}, which nas.prepare writes at its end", str(root))
    try:
        text = read_text(root / DOCUMENT, "dataset", error=DataError)
        if re.search(r'"version": *(?!1\b)\d+', text):
            raise wrong("dataset", f"must be of version {VERSION}; prepare it again", str(root))
        return Description.model_validate_json(text)
    except ValidationError as error:
        [first, *_] = error.errors()
        where = ".".join(map(str, first["loc"])) or DOCUMENT
        raise DataError(f"dataset: {str(root / DOCUMENT)!r} must be whole, got {where}: {first['msg']}") from None


@register_dataset("prepared", resolution=224, recipe=Recipe(), argument="PATH", takes_splitting=True)
class Prepared(Dataset):
    """PATH is what `python -m nas.prepare` wrote; its splits are those of the dataset it was made of.

    Another `Splitting` than the default one draws train and val anew from both of them.

    Training images are random resized crops of the stored squares, or with the whole square as crop and a `shift` moved
    by some pixels. RandAugment, erasing and mixing happen in the batch; augmentations that timm alone knows happen
    image by image. Pixels are normalised by the mean and deviation that `prepared.json` names.
    """

    def __init__(
        self,
        path: str,
        *,
        resolution: int,
        num_workers: int,
        bad_images: BadImages,
        splitting: Splitting = DEFAULT_SPLITTING,
    ) -> None:
        del num_workers, bad_images  # nothing is decoded while training
        self._root = _root_of(path)
        self._description = read_description(self._root)
        if resolution != self._description.resolution:
            rule = f"must be {self._description.resolution} pixels, for which {str(self._root)!r} was prepared"
            raise wrong("resolution", rule, resolution)
        self._splits = {split: self._open(split, num) for split, num in self._description.num_images.items()}
        train, val = self._splits["train"], self._splits["val"]
        labels = (train.labels_N.numpy(), val.labels_N.numpy())
        division = divide_again(*labels, splitting, self._description.class_names)
        self._splits["train"] = _pick(train, val, division.train_N)
        self._splits["val"] = _pick(train, val, division.val_N)
        self._resident: dict[torch.device, dict[Split, _Stored] | None] = {torch.device("cpu"): self._splits}
        self._means: dict[torch.device, tuple[Tensor, Tensor]] = {}
        self._drawn_ahead: dict[tuple[Recipe, int, int], Future[EpochPlan]] = {}
        self.info = DataInfo(
            name=f"prepared:{self._root}",
            num_classes=len(self._description.class_names),
            class_names=self._description.class_names,
            resolution=resolution,
            num_images={split: len(stored.labels_N) for split, stored in self._splits.items()},
            fingerprint=division.mark(self._description.fingerprint),
            splitting=splitting,
        )

    def _open(self, split: Split, num_images: int) -> _Stored:
        side = self._description.side
        images = _map(images_file(self._root, split), np.uint8, (num_images, side, side, 3))
        labels = _map(labels_file(self._root, split), np.int64, (num_images,))
        most = len(self._description.class_names) - 1
        if labels.min(initial=0) < UNREADABLE or labels.max(initial=0) > most:
            rule = f"labels must be from {UNREADABLE} to {most}; prepare it again"
            raise wrong("dataset", rule, str(labels_file(self._root, split)))
        places_N = np.flatnonzero(labels != UNREADABLE)
        return _Stored((_as_tensor(images),), torch.from_numpy(places_N), torch.from_numpy(labels[places_N]))

    @classmethod
    def look(cls, argument: str) -> Look:
        """The resolution for which it was prepared."""
        resolution = read_description(_root_of(argument)).resolution
        return Look(resolution, f"prepared for {resolution} pixels")

    @staticmethod
    def check(recipe: Recipe) -> None:
        check_photographs(recipe)
        augmentation = recipe.augmentation
        if augmentation.shift and augmentation.crop_scale[0] < 1:
            rule = "must be 0 where images are cropped (crop_scale below 1)"
            raise wrong("augmentation.shift", rule, augmentation.shift)

    def train_batches(self, recipe: Recipe, *, epoch: int, seed: int, device: torch.device) -> Iterator[Batch]:
        return self.train_part(recipe, ALONE, epoch=epoch, seed=seed, device=device)

    def train_part(self, recipe: Recipe, part: Part, *, epoch: int, seed: int, device: torch.device) -> Iterator[Batch]:
        self.check(recipe)
        if recipe.augmentation.shift > self.info.resolution:
            rule = f"must be at most the resolution, {self.info.resolution} pixels"
            raise wrong("augmentation.shift", rule, recipe.augmentation.shift)
        return self._train(recipe, part, (seed, epoch), device)

    def eval_batches(self, split: Split, recipe: Recipe, *, device: torch.device) -> Iterator[Batch]:
        return self.eval_part(split, recipe, ALONE, device=device)

    def eval_part(self, split: Split, recipe: Recipe, part: Part, *, device: torch.device) -> Iterator[Batch]:
        self.check(recipe)
        order_N = torch.arange(part.rank, self.info.num_images[split], part.number)
        for images_BSSC, y in self._gather(split, order_N, recipe.batch_size, len(order_N), device):
            x_BCHW = centre(images_BSSC, self.info.resolution, part=recipe.augmentation.eval_crop)
            yield Batch(self._normalise(x_BCHW), y)

    def preprocessing(self, recipe: Recipe) -> Preprocessing:
        return Preprocessing(
            resolution=self.info.resolution,
            crop_pct=recipe.augmentation.eval_crop,
            mean=self._description.mean,
            std=self._description.std,
        )

    def left_out(self) -> list[str]:
        return list(self._description.unreadable)

    def _train(self, recipe: Recipe, part: Part, draw: tuple[int, int], device: torch.device) -> Iterator[Batch]:
        """A part of the batches of an epoch; `draw` is the seed and the epoch."""
        seed, epoch = draw
        size, num_steps = train_batch_size(recipe, self.info.num_images["train"]), self.num_steps(recipe)
        plan = self._plan(recipe, seed, epoch, ahead=device.type == "cuda")
        if part != ALONE:
            starts_T = size * torch.arange(num_steps)
            plan = plan.taken((starts_T[:, None] + part.rows(size)).flatten())
            size //= part.number
        generators = PrivateGenerators(seed, epoch, 0)
        mix = make_mix(recipe, self.info.num_classes)
        if plan.is_plain and goes_one_by_one(device, self._description.side, self.info.resolution):
            made = self._plainly(plan, size, num_steps)
        else:
            made = self._in_blocks(plan, size, num_steps, device)
        for batch in made:
            if mix is None:
                yield batch
            else:
                with generators:
                    mixed = Batch(*mix(*batch))
                yield mixed

    def _plan(self, recipe: Recipe, seed: int, epoch: int, *, ahead: bool) -> EpochPlan:
        """What happens in an epoch; with `ahead` that of the next one is drawn while a GPU is busy with this."""

        described = self._description
        images = StoredImages(self.info.num_images["train"], described.side, described.resolution, described.mean)

        def draw(epoch: int) -> EpochPlan:
            return EpochPlan(recipe.augmentation, images, np.random.default_rng(mix_seed(seed, epoch)))

        drawn, self._drawn_ahead = self._drawn_ahead, {}
        found = drawn.get((recipe, seed, epoch))
        plan = draw(epoch) if found is None else found.result()
        if ahead and epoch + 1 < recipe.epochs:
            self._drawn_ahead[recipe, seed, epoch + 1] = _DRAWER.submit(draw, epoch + 1)
        return plan

    def _in_blocks(self, plan: EpochPlan, size: int, num_steps: int, device: torch.device) -> Iterator[Batch]:
        """Batches whose images are changed together; on a GPU several at a time where they are small.

        There it takes longer to start the many operations of RandAugment than to carry them out.
        """
        num_bytes = size * 3 * self.info.resolution**2 * 4
        num_together = max(1, _BLOCK_BYTES // num_bytes) if device.type == "cuda" else 1
        for place, (images_BSSC, y) in zip(
            _slices(size * num_together, num_steps * size),
            self._gather("train", plan.order_N, size * num_together, num_steps * size, device),
            strict=True,
        ):
            x_BCHW = plan.erase(self._normalise(plan.augment(images_BSSC, place)), place)
            yield from map(Batch, torch.split(x_BCHW, size), torch.split(y, size))

    def _plainly(self, plan: EpochPlan, size: int, num_steps: int) -> Iterator[Batch]:
        """Batches on a CPU whose images are only cropped or moved: each goes from the file to its place in one pass."""
        stored, resolution = self._splits["train"], self.info.resolution
        offset_R, factor_R = (numbers.flatten().repeat(resolution) for numbers in self._means_on(torch.device("cpu")))
        buffers = Buffers(size, resolution, 3 * resolution)  # rows of pixels
        one_HR = torch.empty(resolution, 3 * resolution)  # stays in the cache, so that memory is written once
        for place in _slices(size, num_steps * size):
            picked_B = plan.order_N[place]
            y_BHR = buffers.take()
            for y_HR, changed_HWC in zip(y_BHR, plan.one_by_one(stored.one_by_one(picked_B), place), strict=True):
                one_HR.copy_(changed_HWC.flatten(1))
                torch.addcmul(offset_R, one_HR, factor_R, out=y_HR)
            x_BCHW = y_BHR.view(size, resolution, resolution, 3).permute(0, 3, 1, 2)
            batch = Batch(plan.erase(x_BCHW, place), stored.labels_N[picked_B])
            del x_BCHW, y_BHR, y_HR
            yield batch
            del batch

    def _gather(
        self, split: Split, order_N: Tensor, size: int, num_images: int, device: torch.device
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Stored images and labels of the first so many, `size` at a time, on the device."""
        stored = self._splits[split]
        resident = self._on(device)
        places = _slices(size, num_images)
        if resident is not None:
            here = resident[split]
            order_N = order_N.to(device)
            for place in places:
                picked_B = order_N[place]
                yield here.gather(picked_B), here.labels_N[picked_B]
            return
        for images_BSSC, y in _ahead(_read(stored, order_N, places)):
            yield images_BSSC.to(device, non_blocking=True), y.to(device, non_blocking=True)

    def _on(self, device: torch.device) -> dict[Split, _Stored] | None:
        """The splits on a GPU, where they stay, if they fit; None if they do not."""
        if device not in self._resident:
            num_bytes = sum(stored.num_bytes for stored in self._splits.values())
            fits = num_bytes <= _SHARE * torch.cuda.mem_get_info(device)[0]
            self._resident[device] = (
                {split: stored.on(device) for split, stored in self._splits.items()} if fits else None
            )
        return self._resident[device]

    def _normalise(self, x_BCHW: Tensor) -> Tensor:
        """Floats in channels-last memory, of values from 0 to 255."""
        offset_C11, factor_C11 = self._means_on(x_BCHW.device)
        return torch.addcmul(offset_C11, x_BCHW.float(), factor_C11).contiguous(memory_format=torch.channels_last)

    def _means_on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """What normalised values are: offset + x * factor, (C, 1, 1) each."""
        if device not in self._means:
            mean_C11, std_C11 = (
                255 * torch.tensor(numbers, device=device)[:, None, None]
                for numbers in (self._description.mean, self._description.std)
            )
            self._means[device] = -mean_C11 / std_C11, 1 / std_C11
        return self._means[device]


class Buffers:
    """Arrays of one shape for batches, each given again when nothing holds the batch that was in it.

    To write into fresh pages takes as long as to crop the images.
    """

    def __init__(self, *shape: int) -> None:
        self._shape = shape
        self._arrays: list[NDArray[np.float32]] = []
        self._num_references = 0  # to an array that no tensor shares

    def take(self) -> Tensor:
        """Floats of any value."""
        for array in self._arrays:
            if sys.getrefcount(array) == self._num_references:
                return torch.from_numpy(array)
        self._arrays.append(np.empty(self._shape, np.float32))
        for array in self._arrays:
            self._num_references = sys.getrefcount(array)
        return torch.from_numpy(self._arrays[-1])


def _slices(size: int, num_images: int) -> Iterator[slice]:
    """The places of `size` images at a time; the last may be fewer."""
    return (slice(start, min(start + size, num_images)) for start in range(0, num_images, size))


def _read(stored: _Stored, order_N: Tensor, places: Iterator[slice]) -> Iterator[tuple[Tensor, Tensor]]:
    """Images and labels in pinned memory, from which a GPU copies while the CPU goes on."""
    for place in places:
        picked_B = order_N[place]
        images_BSSC = torch.empty(len(picked_B), *stored.files[0].shape[1:], dtype=torch.uint8, pin_memory=True)
        stored.gather(picked_B, images_BSSC)
        yield images_BSSC, stored.labels_N[picked_B].pin_memory()


def _ahead(batches: Iterator[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    """The same batches, some of which are read by a thread before they are asked for."""
    ready: Queue[tuple[Tensor, Tensor] | BaseException | None] = Queue(_AHEAD)
    stopped = threading.Event()

    def read() -> None:
        try:
            for batch in batches:
                ready.put(batch)
                if stopped.is_set():
                    return
            ready.put(None)
        except BaseException as error:  # noqa: BLE001  it belongs to the thread that asks
            ready.put(error)

    reader = threading.Thread(target=read, daemon=True, name="prepared-images")
    reader.start()
    try:
        while (found := ready.get()) is not None:
            if isinstance(found, BaseException):
                raise found
            yield found
    finally:
        stopped.set()
        while reader.is_alive():
            if not ready.empty():
                ready.get_nowait()
            reader.join(0.01)


def _root_of(argument: str) -> Path:
    return Path(argument).expanduser().absolute()


def _map(path: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> NDArray[np.generic]:
    """An array in a file, read when it is used.

    Raises:
        DataError: The file is not there, cut short, or of another type or shape.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "it was cut short or changed"
        raise wrong("dataset", f"must be whole ({reason}); prepare it again", str(path)) from None
    if array.dtype != dtype or array.shape != shape:
        raise wrong("dataset", f"must hold {np.dtype(dtype)} of shape {shape}; prepare it again", str(path))
    return cast(NDArray[np.generic], array)


def _as_tensor(array: NDArray[np.generic]) -> Tensor:
    """The tensor of an array that is only read, without torch's warning that it could be written."""
    with warnings.catch_warnings(action="ignore"):
        return torch.from_numpy(array)
