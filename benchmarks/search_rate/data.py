"""A part of a folder of images, as hard links: once as we read it, once split in files for others."""

import os
import shutil
from pathlib import Path
from typing import NamedTuple

from metaformer.errors import UserError
from metaformer.images import EXTENSIONS
from nas.data.sources.folder import FolderSource

_TESTED = 0.1  # images of test for one of train, as many as train gives to val


class Folders(NamedTuple):
    """The same images twice."""

    ours: Path  # train/CLASS, of which our search holds a tenth out for validation, and val/CLASS, its test
    peer: Path  # train/CLASS and val/CLASS, the two parts of our train
    num_train: int
    num_val: int
    num_test: int
    num_classes: int


def make_folders(data: Path, folder: Path, *, images_per_class: int) -> Folders:
    """Link the first images of each class of `data`, in the order of their names.

    Raises:
        UserError: `data` has no train/CLASS and val/CLASS.
    """
    ours, peer = folder / "ours", folder / "peer"
    for part, number in (("train", images_per_class), ("val", max(1, round(_TESTED * images_per_class)))):
        classes = sorted(path for path in (data / part).glob("*") if path.is_dir())
        if not classes:
            raise UserError(f"data: must have {part}/CLASS/IMAGES, got {data}")
        for path in classes:
            images = sorted(image for image in path.iterdir() if image.suffix.lower() in EXTENSIONS)
            for image in images[:number]:
                link(image, ours / part / path.name / image.name)
    source = FolderSource(str(ours))
    for split in ("train", "val"):
        for place in range(len(source.labels[split])):
            image = Path(source.path(split, place))  # train/CLASS/NAME
            link(ours / image, peer / split / image.relative_to("train"))
    num_train, num_val, num_test = (len(source.labels[split]) for split in ("train", "val", "test"))
    return Folders(ours, peer, num_train, num_val, num_test, len(source.class_names))


def link(file: Path, to: Path) -> None:
    """The same file in another place; a copy where it cannot be."""
    to.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(file, to)
    except OSError:  # another file system
        shutil.copyfile(file, to)
