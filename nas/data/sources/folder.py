"""Images in folders: PATH/train/CLASS/* and PATH/val/CLASS/*.

N images of a split.
"""

import os
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from metaformer.documents import is_folder
from metaformer.errors import nearest_first
from metaformer.images import EXTENSIONS, Header, ImageError, read_header, read_image
from nas.data.division import divide
from nas.data.registry import DataError, Look, Split, fingerprint_of, wrong
from nas.data.sources import Source, look_at, sample
from nas.study.splitting import DEFAULT_SPLITTING, Splitting


class FolderSource(Source):
    """PATH/val is the test split, and a part of each class in PATH/train is held out for validation.

    Classes are in timm's order: class2 before class10. Images lie anywhere below the folder of their class; files
    without an image's extension, hidden files, pipes and devices are passed over.
    """

    def __init__(self, path: str, splitting: Splitting = DEFAULT_SPLITTING) -> None:
        """List the images.

        Raises:
            DataError: The folder is not as it must be.
        """
        self._root = root_of(path)
        given, test = (_list_images(self._root, part) for part in ("train", "val"))
        _check_classes(self._root, given, test)
        self.name = f"folder:{self._root}"
        self.class_names = tuple(given)
        paths_N, labels_N = _as_arrays(given, self.class_names)
        division = divide(labels_N, splitting, self.class_names)
        test_paths_N, test_labels_N = _as_arrays(test, self.class_names)
        # Arrays, since a worker process would copy a million strings by counting references.
        self._paths: dict[Split, NDArray[np.bytes_]] = {
            "train": paths_N[division.train_N],
            "val": paths_N[division.val_N],
            "test": test_paths_N,
        }
        self.labels = {
            "train": labels_N[division.train_N],
            "val": labels_N[division.val_N],
            "test": test_labels_N,
        }
        lists = (b"\0".join(paths_N.tolist()) for paths_N in self._paths.values())
        self.fingerprint = fingerprint_of([b"\0".join(map(os.fsencode, self.class_names)), *lists])

    def read(self, split: Split, place: int) -> Image.Image:
        return read_image(self._file(split, place))

    def read_header(self, split: Split, place: int) -> Header:
        return read_header(self._file(split, place))

    def path(self, split: Split, place: int) -> str:
        return os.fsdecode(self._paths[split][place])

    def _file(self, split: Split, place: int) -> str:
        return f"{self._root}/{self.path(split, place)}"


def root_of(argument: str) -> Path:
    return Path(argument).expanduser().absolute()


def look_at_folder(root: Path) -> Look:
    """The side that fits the photographs in a folder, from the headers of at most 200 files in train.

    Raises:
        DataError: The folder is not as it must be, or no file of the sample can be read.
    """
    classes = _list_classes(root, "train")
    lists = cache(lambda label: _list_class(root, "train", classes[label]))

    def headers() -> Iterator[Header | ImageError]:
        for label, place in sample(len(classes), lambda label: len(lists(label))):
            try:
                yield read_header(f"{root}/{lists(label)[place]}")
            except ImageError as error:
                yield error

    return look_at(headers(), where=str(root / "train"))


def _list_images(root: Path, part: str) -> dict[str, list[str]]:
    """Class names of a part in timm's order, each with the paths of its images below `root`, sorted."""
    return {name: _list_class(root, part, name) for name in _list_classes(root, part)}


def _list_classes(root: Path, part: str) -> list[str]:
    """Class names of a part in timm's order."""
    folder = root / part
    if not is_folder(root):
        raise wrong("dataset", "PATH of folder:PATH must be a folder", str(root))
    if not is_folder(folder):
        near = nearest_first(part, sorted(inner.name for inner in root.iterdir() if inner.is_dir()))[:3]
        raise DataError(f"dataset: {str(root)!r} must hold the folders train and val, found no {part}, nearest: {near}")
    with os.scandir(folder) as entries:
        classes = [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    if len(classes) < 2:
        raise wrong("dataset", f"{str(folder)!r} must hold a folder for each of 2 or more classes", classes)
    from timm.utils import natural_key  # timm takes seconds, and sets of other kinds need none

    return sorted(classes, key=lambda name: (natural_key(name), name))  # type: ignore[no-untyped-call]


def _list_class(root: Path, part: str, name: str) -> list[str]:
    """Paths below `root` of the images of a class, sorted."""
    folder = root / part / name
    images = sorted(
        file.path[len(str(root)) + 1 :]
        for file in _regular_files(str(folder), frozenset())
        if file.name.lower().endswith(EXTENSIONS) and not file.name.startswith(".")
    )
    if not images:
        raise DataError(f"dataset: {str(folder)!r} must hold images ({', '.join(EXTENSIONS)}), found none")
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
        elif os.path.isfile(entry.path) if entry.is_symlink() else entry.is_file():  # noqa: PTH113  likewise
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


def _as_arrays(
    images: Mapping[str, list[str]], classes: tuple[str, ...]
) -> tuple[NDArray[np.bytes_], NDArray[np.int64]]:
    """Paths and labels, (N,) each."""
    labels_N = np.repeat(np.arange(len(classes)), [len(images[name]) for name in classes])
    return np.array([os.fsencode(path) for name in classes for path in images[name]]), labels_N
