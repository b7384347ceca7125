"""Accuracy of a model on a folder of images, by its published preprocessing; with nas/data.py the door to timm.data.

B batch, C channels, H height, W width, K classes.
"""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from pydantic import ValidationError
from timm.data import create_transform
from timm.utils import natural_key
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from metaformer.architecture import Architecture
from metaformer.documents import is_folder
from metaformer.errors import UserError, explain, shown
from metaformer.images import EXTENSIONS, ImageError, read_image
from metaformer.zoo import Preprocessing

Precision = Literal["float32", "bfloat16"]


class ImageFolderError(UserError):
    """Images that cannot be read or used as asked; the message is one line and names field, rule and value."""


@dataclass(frozen=True)
class Accuracy:
    """What came out; accuracies in percent."""

    num_images: int
    num_classes: int
    top1: float
    top5: float  # among all classes, where there are fewer than five
    seconds: float  # reading the images included

    @property
    def images_per_second(self) -> float:
        return self.num_images / self.seconds


class _Images(ImageFolder):  # type: ignore[misc]  # torchvision has no types
    """Classes in natural order (class2 before class10), as timm and the search on a folder number them."""

    def find_classes(self, directory: str | Path) -> tuple[list[str], dict[str, int]]:
        classes = sorted(_folders_in(directory), key=natural_key)
        return classes, {name: index for index, name in enumerate(classes)}

    @staticmethod
    def make_dataset(
        directory: str | Path, class_to_idx: dict[str, int], *_: object, **__: object
    ) -> list[tuple[str, int]]:
        """The images of each class with its number; torchvision follows links that lead back, again and again."""
        return [
            (path, index)
            for name, index in sorted(class_to_idx.items())
            for path in sorted(_images_below(str(Path(directory) / name), frozenset()))
        ]


def adapt(preprocessing: Preprocessing, *, resolution: int | None, crop_pct: float | None) -> Preprocessing:
    """The preprocessing with another resolution or crop, where they are given.

    Raises:
        ImageFolderError: There is no such resolution or crop.
    """
    given = {"resolution": resolution, "crop_pct": crop_pct}
    changes = {field: value for field, value in given.items() if value is not None}
    try:
        return Preprocessing.model_validate(preprocessing.model_dump() | changes)
    except ValidationError as error:
        raise ImageFolderError(explain(error, Preprocessing)) from None


def check_fit(arch: Architecture, preprocessing: Preprocessing) -> None:
    """Whether a model of this architecture can see such images.

    Raises:
        ImageFolderError: It takes other channels than red, green and blue.
        ArchitectureError: It does not run at this resolution.
    """
    if arch.stem.in_channels != 3:
        raise ImageFolderError(f"in_channels: must be 3, for red, green and blue, got {arch.stem.in_channels}")
    arch.sides(preprocessing.resolution)


def open_folder(folder: Path, split: str | None, preprocessing: Preprocessing, *, num_classes: int) -> ImageFolder:
    """The images of `folder/split`, or of `folder` itself, which has a folder per class.

    Args:
        split: None for val where there is one, otherwise `folder` itself.
    Raises:
        ImageFolderError: The folder, its classes or its images are not there, or the classes are not as many.
    """
    root = _find_split(folder, split)
    classes = _folders_in(root)
    if len(classes) != num_classes:
        raise ImageFolderError(
            f"data: {str(root)!r} must hold as many folders of classes as the model has classes, {num_classes}, "
            f"got {len(classes)}"
        )
    transform = create_transform(
        (3, preprocessing.resolution, preprocessing.resolution),
        crop_pct=preprocessing.crop_pct,
        interpolation=preprocessing.interpolation,
        mean=preprocessing.mean,
        std=preprocessing.std,
    )
    images = _Images(root, transform, loader=read_image)
    if not images.samples:
        raise ImageFolderError(f"data: {str(root)!r} must hold images in the folders of its classes, found none")
    return images


def _folders_in(folder: str | Path) -> list[str]:
    """Names of the folders in a folder, and of links to some."""
    return [name for name in os.listdir(folder) if name[0] != "." and is_folder(Path(folder) / name)]  # noqa: PTH208  names alone


def _images_below(folder: str, above: frozenset[tuple[int, int]]) -> Iterator[str]:
    """Paths of the images below a folder; what is hidden is none, nor a pipe or a device, which would be waited for.

    Args:
        above: Device and number of each folder above this one, to which a link may lead back.
    """
    itself = os.stat(folder)  # noqa: PTH116  a text, of which there may be a million
    here = (itself.st_dev, itself.st_ino)
    if here in above:
        return
    for name in os.listdir(folder):  # noqa: PTH208  names alone, of which there may be a million
        if name.startswith("."):
            continue
        path = os.path.join(folder, name)  # noqa: PTH118  likewise
        if is_folder(path):
            yield from _images_below(path, above | {here})
        elif name.lower().endswith(EXTENSIONS) and os.path.isfile(path):  # noqa: PTH113  a loop of links is none
            yield path


def _find_split(folder: Path, split: str | None) -> Path:
    if not is_folder(folder):
        raise ImageFolderError(f"data: must be a folder, got {shown(str(folder))}")
    root = folder / (split or "val")
    if is_folder(root):
        return root
    if split is not None:
        raise ImageFolderError(f"split: must be a folder in {str(folder)!r}, got {shown(split)}")
    return folder


@torch.inference_mode()
def measure_accuracy(
    model: nn.Module,
    images: ImageFolder,
    *,
    batch_size: int = 64,
    num_workers: int = 0,
    device: torch.device,
    precision: Precision = "float32",
    on_batch: Callable[[int], None] = lambda _num_images: None,
) -> Accuracy:
    """How often the right class comes first, and among the first five.

    Args:
        on_batch: Called after each batch with the number of images in it.
    Raises:
        ImageFolderError: An image cannot be read.
    """
    model = model.to(device).eval()
    num_classes, num_right = len(images.classes), torch.zeros(2, dtype=torch.long)
    start = time.perf_counter()
    for x_BCHW, y_B in _batches(images, batch_size=batch_size, num_workers=num_workers, device=device):
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            logits_BK = model(x_BCHW.to(device, memory_format=torch.channels_last, non_blocking=True))
        best_B5 = logits_BK.float().topk(min(5, num_classes)).indices.cpu()
        hit_B5 = best_B5 == y_B[:, None]
        num_right += torch.stack([hit_B5[:, 0].sum(), hit_B5.sum()])
        on_batch(len(y_B))
    top1, top5 = (100 * count / len(images) for count in num_right.tolist())
    return Accuracy(len(images), num_classes, top1, top5, time.perf_counter() - start)


def _batches(
    images: ImageFolder, *, batch_size: int, num_workers: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    loader = DataLoader(images, batch_size, num_workers=num_workers, pin_memory=device.type == "cuda")
    try:
        yield from loader
    except ImageError as error:  # torch puts a worker's traceback before the message
        message = str(error).rstrip().rpartition("ImageError: ")[2]
        raise ImageFolderError(message) from error.with_traceback(None)


def find_device(name: str | None) -> torch.device:
    """The device of that name; the first GPU, or the CPU, where none is given.

    Raises:
        ImageFolderError: It is not there.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError):  # unknown, not there, without memory such as meta
        raise ImageFolderError(f"device: must be one that torch finds here, such as cpu, got {name!r}") from None
    return device
