"""Tar shards of a WebDataset: for each key an image, KEY.jpg or KEY.png, and its class, KEY.cls.

N images of a split.
"""

import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from metaformer.images import Header, ImageError, read_header, read_image
from nas.data.division import divide
from nas.data.registry import DataError, Split, fingerprint_of, wrong
from nas.data.sources import Source
from nas.data.sources.rows import NamedBytes
from nas.study.splitting import DEFAULT_SPLITTING, Splitting

_IMAGES = ("jpg", "jpeg", "png")
_TEST = ("test", "val", "validation")  # in the place of train
_MOST = 100_000  # shards of a range


class _Index(NamedTuple):
    """Where each image lies; arrays, since worker processes copy them."""

    shards: tuple[str, ...]
    shard_N: NDArray[np.int32]
    start_N: NDArray[np.int64]  # in bytes
    size_N: NDArray[np.int64]
    keys_N: NDArray[np.bytes_]
    labels_N: NDArray[np.int64]

    def of(self, places_N: NDArray[np.generic]) -> "_Index":
        return _Index(self.shards, *(field[places_N] for field in self[1:]))


class ShardSource(Source):
    """Shards such as /data/train-{000..146}.tar hold the training images, a part of each class of which is held out.

    The test images are in the shards beside them whose name says test, val or validation in the place of train. Classes
    are numbers from 0; classes.txt beside the shards may name them, one a line. The shards are plain tar files, whose
    headers are read once.
    """

    def __init__(self, argument: str, splitting: Splitting = DEFAULT_SPLITTING) -> None:
        """List what the shards hold.

        Raises:
            DataError: A shard is missing, compressed or cut short, or an image has no class.
        """
        pattern = os.path.abspath(os.path.expanduser(argument))  # noqa: PTH100, PTH111  braces and all
        folder = Path(pattern).parent
        if Path(pattern).name.count("train") != 1:
            rule = "SHARDS of wds/SHARDS must have train in their name once, such as train-{00..99}.tar"
            raise wrong("dataset", rule, pattern)
        train = _sorted(_list_images(_expand(pattern)))
        test = _sorted(_list_images(_find_test(pattern)))
        self.name = f"wds/{pattern}"
        num_classes = int(train.labels_N[-1]) + 1
        self.class_names = _class_names(folder, num_classes)
        for split, index, least in (("train", train, 2), ("test", test, 1)):
            counts = np.bincount(index.labels_N, minlength=num_classes)
            if len(counts) > num_classes or counts.min() < least:
                label = num_classes if len(counts) > num_classes else int(counts.argmin())
                rule = f"shards of {split} must hold {least} or more images of each class from 0 to {num_classes - 1}"
                raise wrong("dataset", f"{rule}, and of class {label} there are {counts[label]}", pattern)
        division = divide(train.labels_N, splitting, self.class_names)
        self._indexes: dict[Split, _Index] = {
            "train": train.of(division.train_N),
            "val": train.of(division.val_N),
            "test": test,
        }
        self.labels = {split: index.labels_N for split, index in self._indexes.items()}
        parts = (field for index in (train, test) for field in (index.keys_N, index.labels_N, index.size_N))
        whole = fingerprint_of(["\0".join(self.class_names).encode(), *(part.tobytes() for part in parts)])
        self.fingerprint = division.mark(whole)

    def read(self, split: Split, place: int) -> Image.Image:
        return read_image(self._file(split, place))

    def read_header(self, split: Split, place: int) -> Header:
        return read_header(self._file(split, place))

    def path(self, split: Split, place: int) -> str:
        index = self._indexes[split]
        return f"{Path(index.shards[index.shard_N[place]]).name}:{os.fsdecode(index.keys_N[place])}"

    def _file(self, split: Split, place: int) -> NamedBytes:
        index = self._indexes[split]
        try:
            with open(index.shards[index.shard_N[place]], "rb") as shard:  # noqa: PTH123  a string, one an image
                data = os.pread(shard.fileno(), int(index.size_N[place]), int(index.start_N[place]))
        except OSError as error:
            where = self.path(split, place)
            raise ImageError(f"image: must be readable, got {where!r} ({error.strerror})") from error
        return NamedBytes(data, self.path(split, place))


def _expand(pattern: str) -> list[Path]:
    """The shards of a pattern with ranges such as {000..146}."""
    found = re.search(r"\{(\d+)\.\.(\d+)\}", pattern)
    if found is None:
        return [Path(pattern)]
    first, last = found.groups()
    if not 0 <= int(last) - int(first) < _MOST:
        raise wrong("dataset", f"ranges of shards must rise, to at most {_MOST} shards", pattern)
    numbers = (str(number).zfill(len(first)) for number in range(int(first), int(last) + 1))
    return [path for number in numbers for path in _expand(pattern[: found.start()] + number + pattern[found.end() :])]


def _find_test(pattern: str) -> list[Path]:
    """The shards of the test images: other names beside those of training, in any number."""
    folder, name = Path(pattern).parent, Path(pattern).name
    before, after = (
        "".join(r"\d+" if part.startswith("{") else re.escape(part) for part in re.split(r"(\{\d+\.\.\d+\})", text))
        for text in name.split("train")
    )
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    for word in _TEST:
        shards = [path for path in files if re.fullmatch(f"{before}{word}{after}", path.name)]
        if shards:
            return shards
    rule = f"must have shards of test beside those of train, with {', '.join(_TEST)} in the name instead"
    raise wrong("dataset", f"{rule}, found none", pattern)


def _list_images(shards: list[Path]) -> _Index:
    """The images of some shards, in their order."""
    rows: list[tuple[int, int, int, bytes, int]] = []
    for index, path in enumerate(shards):
        rows += [(index, *row) for row in _list_shard(path)]
    if not rows:
        raise wrong(
            "dataset", f"shards must hold images ({', '.join(_IMAGES)}) with a .cls each, found none", str(shards[0])
        )
    shard, start, size, keys, labels = zip(*rows, strict=True)
    return _Index(
        tuple(map(str, shards)),
        np.array(shard, np.int32),
        np.array(start, np.int64),
        np.array(size, np.int64),
        np.array(keys),
        np.array(labels, np.int64),
    )


def _list_shard(shard: Path) -> Iterator[tuple[int, int, bytes, int]]:
    """Start and size of each image, its key and its class."""
    images: dict[str, tuple[int, int]] = {}
    labels: dict[str, int] = {}
    try:
        num_bytes = shard.stat().st_size
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                if not member.isfile():
                    continue
                if member.offset_data + member.size > num_bytes:
                    raise tarfile.ReadError("cut short")
                folder, _, name = member.name.rpartition("/")
                stem, _, ending = name.partition(".")
                key = f"{folder}/{stem}" if folder else stem
                if ending.lower() in _IMAGES:
                    images[key] = member.offset_data, member.size
                elif ending.lower() == "cls":
                    file = tar.extractfile(member)
                    text = file.read(20) if file is not None else b""
                    labels[key] = _label(text, f"{shard.name}:{member.name}")
    except FileNotFoundError:
        raise wrong("dataset", "every shard must be there", str(shard)) from None
    except (tarfile.TarError, OSError) as error:
        rule = f"shards must be whole tar files without compression ({getattr(error, 'strerror', None) or error})"
        raise wrong("dataset", rule, str(shard)) from None
    if images.keys() != labels.keys():
        odd = min(images.keys() ^ labels.keys())
        what = "image" if odd in labels else ".cls"
        raise wrong("dataset", f"{str(shard)!r} must hold an image and a .cls for each key, has no {what} for", odd)
    for key, (start, size) in images.items():
        yield start, size, os.fsencode(key), labels[key]


def _label(text: bytes, where: str) -> int:
    if not re.fullmatch(rb"\s*\d{1,6}\s*", text):
        raise DataError(f"dataset: classes in .cls must be whole numbers from 0, got {text[:10]!r} in {where!r}")
    return int(text)


def _sorted(index: _Index) -> _Index:
    """By class; those of a class stay in their order."""
    return index.of(np.argsort(index.labels_N, kind="stable"))


def _class_names(folder: Path, num_classes: int) -> tuple[str, ...]:
    path = folder / "classes.txt"
    if not path.exists():
        return tuple(map(str, range(num_classes)))
    names = path.read_text(encoding="utf-8", errors="replace").splitlines()
    if len(names) != num_classes or len(set(names)) != num_classes:
        raise wrong("dataset", f"must name {num_classes} classes, a line each, got {len(names)} in", str(path))
    return tuple(names)
