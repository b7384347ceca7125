"""Annotations in COCO's format, read and checked before anything is trained; torch is not needed here.

A folder holds `annotations/instances_train2017.json`, `annotations/instances_val2017.json`, `train2017/` and `val2017/`
with the images, all perhaps without the `2017`.
"""

import contextlib
import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaformer.documents import check_path, exists, is_folder
from metaformer.errors import UserError, one_line
from nas.data import DataError, wrong

if TYPE_CHECKING:
    from pycocotools.coco import COCO

Row = dict[str, Any]  # an image or an annotation, as the file has it
_YEARS = ("2017", "")
_LARGE_BYTES = 2**24  # which take more than a second to read
_SMALLEST_BOX = 1.0  # pixels of a side, below which a box is not trained on, as in MMDetection


@dataclass(frozen=True)
class CocoSplit:
    """Images and annotations of one split, checked."""

    folder: Path
    document: Mapping[str, Any]  # the file's `images`, `annotations` and `categories`
    fingerprint: str  # SHA-256 of the file

    @property
    def images(self) -> list[Row]:
        found: list[Row] = self.document["images"]
        return found

    @cached_property
    def objects(self) -> dict[int, list[Row]]:
        """Annotations of each image that can be trained on: no crowds, no boxes without area."""
        found: dict[int, list[Row]] = {image["id"]: [] for image in self.images}
        for row in self.document["annotations"]:
            if not row["iscrowd"] and min(row["bbox"][2:]) >= _SMALLEST_BOX:
                found[row["image_id"]].append(row)
        return found

    def api(self) -> "COCO":
        """The split as pycocotools has it, without what it prints."""
        from pycocotools.coco import COCO

        with contextlib.redirect_stdout(io.StringIO()):
            coco = COCO()
            coco.dataset = {"info": {}, **self.document}
            coco.createIndex()
        return coco


@dataclass(frozen=True)
class CocoData:
    """Two splits with the same categories, numbered from 0 in the order of their ids."""

    train: CocoSplit
    val: CocoSplit
    categories: dict[int, str]  # by the file's id, in rising order

    @cached_property
    def train_images(self) -> list[Row]:
        """Images with something to learn from."""
        return [image for image in self.train.images if self.train.objects[image["id"]]]

    @property
    def facts(self) -> dict[str, Any]:
        """What tells these data from others."""
        return {
            "train_images": len(self.train_images),
            "val_images": len(self.val.images),
            "classes": len(self.categories),
            "fingerprint": hashlib.sha256((self.train.fingerprint + self.val.fingerprint).encode()).hexdigest()[:16],
        }


def check_pycocotools() -> None:
    """Check that pycocotools is there, without loading it.

    Raises:
        UserError: It is not.
    """
    from importlib.util import find_spec

    if find_spec("pycocotools") is None:
        raise UserError("task: needs pycocotools, not installed here; pip install 'metaformer-nas[transfer]'")


def read_coco(root: Path, *, masks: bool, say: Callable[[str], None]) -> CocoData:
    """The data of a folder.

    Args:
        masks: Whether each object must have a mask.
        say: Told of a large file before it is read.
    Raises:
        DataError: A file is missing or malformed, or names an image or a category that does not exist.
    """
    check_path(root, "data", error=DataError)
    if not is_folder(root):
        raise wrong("data", "must be a folder", str(root))
    train, val = (_read_split(root, split, masks=masks, say=say) for split in ("train", "val"))
    categories = [{row["id"]: row["name"] for row in split.document["categories"]} for split in (train, val)]
    if categories[0] != categories[1]:
        raise wrong("data", "must have the same categories in train and val", categories[1])
    data = CocoData(train, val, dict(sorted(categories[0].items())))
    if not data.train_images:
        raise wrong("data", "must have images with objects to train on", str(train.folder))
    return data


def _read_split(root: Path, split: str, *, masks: bool, say: Callable[[str], None]) -> CocoSplit:
    files = [root / "annotations" / f"instances_{split}{year}.json" for year in _YEARS]
    folders = [root / f"{split}{year}" for year in _YEARS]
    file = next(filter(exists, files), None)
    folder = next(filter(is_folder, folders), None)
    if file is None:
        raise DataError(f"data: must hold annotations/{files[0].name} or annotations/{files[1].name}, got {root}")
    if folder is None:
        raise DataError(f"data: must hold the folder {folders[0].name} or {folders[1].name}, got {root}")
    if file.is_file() and file.stat().st_size > _LARGE_BYTES:
        say(f"reading {file}")
    content = _read(file)
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"data: must be JSON, got {file} ({one_line(str(error), 100)})") from None
    checked = _Checker(file, folder, masks=masks).checked(document)
    return CocoSplit(folder, checked, hashlib.sha256(content).hexdigest())


def _read(file: Path) -> bytes:
    try:
        if not file.is_file():  # a pipe would be waited for
            raise OSError(0, "is no regular file")
        return file.read_bytes()
    except OSError as error:
        raise DataError(f"data: must be a readable file, got {file} ({error.strerror})") from None


class _Checker:
    """The checks of one annotation file; each error is one line that names the file and the row."""

    def __init__(self, file: Path, folder: Path, *, masks: bool) -> None:
        self._file, self._folder, self._masks = file, folder, masks

    def checked(self, document: Any) -> dict[str, list[Row]]:
        """The three lists of the document; what COCO's own files always have is filled in where it is missing.

        Raises:
            DataError: Something is wrong with it.
        """
        if not isinstance(document, dict):
            raise self._error("must be a mapping of images, annotations and categories", type(document).__name__)
        images, annotations, categories = (
            self._rows(document, name) for name in ("images", "annotations", "categories")
        )
        for kind, row in self._all(images=images, annotations=annotations, categories=categories):
            if type(row.get("id")) is not int:
                raise self._error(f"{kind}.id: must be a whole number", row.get("id"))
        for kind, rows in (("images", images), ("annotations", annotations), ("categories", categories)):
            twice = [number for number, count in Counter(row["id"] for row in rows).items() if count > 1]
            if twice:
                raise self._error(f"{kind}.id: must be of one row", twice[0])
        self._check_images(images)
        self._check_annotations(annotations, images, categories)
        if not categories:
            raise self._error("categories: must not be empty", categories)
        for row in categories:
            row.setdefault("name", str(row["id"]))
        return {"images": images, "annotations": annotations, "categories": categories}

    def _rows(self, document: dict[str, Any], name: str) -> list[Row]:
        rows = document.get(name)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise self._error(f"{name}: must be a list of mappings", rows)
        return rows

    @staticmethod
    def _all(**rows: list[Row]) -> Iterator[tuple[str, Row]]:
        for kind, of_kind in rows.items():
            for row in of_kind:
                yield kind, row

    def _check_images(self, images: list[Row]) -> None:
        there = set(os.listdir(self._folder))  # noqa: PTH208  names alone, of which there may be 100,000
        for row in images:
            name = row.get("file_name")
            if not isinstance(name, str) or (name not in there and not (self._folder / name).is_file()):
                raise self._error(f"images.file_name: must be a file in {self._folder}", name)
            for side in ("width", "height"):
                if type(row.get(side)) is not int or row[side] <= 0:
                    raise self._error(f"images.{side}: must be a whole number above 0", row.get(side))
        if not images:
            raise self._error("images: must not be empty", images)

    def _check_annotations(self, annotations: list[Row], images: list[Row], categories: list[Row]) -> None:
        by_id = {row["id"]: row for row in images}
        known = {"image_id": by_id.keys(), "category_id": {row["id"] for row in categories}}
        for row in annotations:
            for field, ids in known.items():
                value = row.get(field)
                if type(value) is not int or value not in ids:
                    where = f"annotations.{field}: must be the id of one of the {field.split('_')[0]} rows"
                    raise self._error(where, value)
            box = row.get("bbox")
            if not (isinstance(box, list) and len(box) == 4 and all(_is_number(side) for side in box)):
                raise self._error("annotations.bbox: must be four numbers x, y, width, height", box)
            row.setdefault("iscrowd", 0)
            row.setdefault("area", box[2] * box[3])
            if self._masks and not _is_mask(row.get("segmentation"), by_id[row["image_id"]]):
                rule = "annotations.segmentation: must be polygons of three points or more, or an RLE, for a mask"
                raise self._error(rule, row.get("segmentation"))

    def _error(self, rule: str, value: object) -> DataError:
        return wrong(f"data {self._file.name}", rule, value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 10**9


def _is_mask(value: object, image: Row) -> bool:
    """Whether a value is a list of polygons, or a run-length encoding of the image's size."""
    if isinstance(value, dict):
        counts = value.get("counts")
        if isinstance(counts, list):
            num_pixels = image["height"] * image["width"]
            is_whole = all(type(count) is int and count >= 0 for count in counts) and sum(counts) == num_pixels
        else:
            is_whole = isinstance(counts, str) and counts.isascii()
        return is_whole and value.get("size") == [image["height"], image["width"]]
    return isinstance(value, list) and bool(value) and all(map(_is_polygon, value))


def _is_polygon(value: object) -> bool:
    return isinstance(value, list) and len(value) >= 6 and len(value) % 2 == 0 and set(map(type, value)) <= {int, float}
