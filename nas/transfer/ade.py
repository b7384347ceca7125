"""Label maps in ADE20K's layout, read and checked before anything is trained; torch is not needed here.

A folder holds `images/training`, `images/validation` (JPEG or PNG), `annotations/training`, `annotations/validation`
(a PNG of the image's name each) and the classes: `objectInfo150.txt` as ADE20K has it, or `classes.txt`, a name a line.
The value of a pixel is 0 for what does not count, and n for the n-th class.
"""

import hashlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from metaformer.documents import check_path, exists, is_folder, read_text
from metaformer.images import EXTENSIONS, read_header
from nas.data import DataError, wrong

_READERS = 8  # threads that look through the label maps
_UNREADABLE = (OSError, SyntaxError, TypeError, ValueError)  # of Pillow, from damaged files
_MOST_CLASSES = 254  # of 8 bits: 0 and 255 are no classes


class Pair(NamedTuple):
    """An image and its label map."""

    image: Path
    labels: Path


@dataclass(frozen=True)
class AdeData:
    """Two splits and the names of the classes."""

    train: list[Pair]
    val: list[Pair]
    classes: tuple[str, ...]

    @property
    def facts(self) -> dict[str, Any]:
        """What tells these data from others."""
        names = "\n".join(f"{pair.image.name} {pair.labels.stat().st_size}" for pair in (*self.train, *self.val))
        return {
            "train_images": len(self.train),
            "val_images": len(self.val),
            "classes": len(self.classes),
            "fingerprint": hashlib.sha256("\n".join([names, *self.classes]).encode()).hexdigest()[:16],
        }


def read_ade(root: Path, *, watch: Callable[[Iterable[None], int], Iterable[None]]) -> AdeData:
    """The data of a folder; every label map is looked through, which for ADE20K takes a minute or two.

    Args:
        watch: Shows the progress of so many steps.
    Raises:
        DataError: A file is missing or damaged, or names a class that does not exist.
    """
    check_path(root, "data", error=DataError)
    if not is_folder(root):
        raise wrong("data", "must be a folder", str(root))
    classes = _classes(root)
    data = AdeData(_pairs(root, "training"), _pairs(root, "validation"), classes)
    pairs = [*data.train, *data.val]
    with ThreadPoolExecutor(_READERS) as readers:
        try:
            for _ in watch(readers.map(lambda pair: _check_labels(pair, len(classes)), pairs), len(pairs)):
                pass
        except BaseException:  # Ctrl-C too: thousands of maps would still be read
            readers.shutdown(cancel_futures=True)
            raise
    return data


def read_labels(path: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The values of a label map, HW.

    Raises:
        DataError: It cannot be read, or has other than 8 bits.
    """
    try:
        with Image.open(path) as image:
            if image.mode not in ("L", "P"):
                raise wrong(f"data {path.name}", "must be a PNG of 8 bits, grey or with a palette", image.mode)
            return np.asarray(image)
    except DataError:
        raise
    except _UNREADABLE as error:
        raise DataError(f"data {path.name}: must be a readable PNG, got {path} ({type(error).__name__})") from None


def _classes(root: Path) -> tuple[str, ...]:
    for name, skipped in (("objectInfo150.txt", 1), ("classes.txt", 0)):
        if exists(root / name):
            lines = read_text(root / name, "data", error=DataError).splitlines()[skipped:]
            classes = tuple(line.split("\t")[-1].strip() for line in lines if line.strip())
            if not 0 < len(classes) <= _MOST_CLASSES:
                raise wrong(f"data {name}", f"must name 1 to {_MOST_CLASSES} classes", len(classes))
            return classes
    raise DataError(f"data: must hold classes.txt, a name a line, or objectInfo150.txt, got {root}")


def _pairs(root: Path, split: str) -> list[Pair]:
    images, labels = root / "images" / split, root / "annotations" / split
    for folder in (images, labels):
        if not is_folder(folder):
            raise DataError(f"data: must hold the folder {folder.relative_to(root)}, got {root}")
    known = {path.stem: path for path in images.iterdir() if path.suffix.lower() in EXTENSIONS}
    maps = {path.stem: path for path in labels.glob("*.png")}
    for stem in sorted(known.keys() ^ maps.keys()):
        rule = f"must have one image in {images} and one PNG in {labels} for each name"
        raise wrong("data", rule, f"{stem} in one of them")
    if not known:
        raise wrong("data", "must hold images", str(images))
    return [Pair(known[stem], maps[stem]) for stem in sorted(known)]


def _check_labels(pair: Pair, num_classes: int) -> None:
    values = read_labels(pair.labels)
    header = read_header(pair.image)
    if values.shape != (header.height, header.width):
        size = f"{values.shape[1]} x {values.shape[0]}"
        raise wrong(f"data {pair.labels.name}", f"must be {header.width} x {header.height} as its image", size)
    highest = int(values.max())
    if highest > num_classes:
        raise wrong(f"data {pair.labels.name}", f"must have values of 0 to {num_classes}, the classes", highest)
