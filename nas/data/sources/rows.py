"""Encoded images and their classes in the rows of a table, as packages of datasets give them.

N images of a split.
"""

import hashlib
import io
from abc import abstractmethod
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from metaformer.images import Header, read_header, read_image
from nas.data.division import divide
from nas.data.registry import DataError, Split, fingerprint_of
from nas.data.sources import Source
from nas.study.splitting import Splitting

TEST = ("test", "validation", "val")  # the first of these parts that there is


class RowSource(Source):
    """A part `train`, a part of each class of which is held out, and a part whose images are the test split."""

    def _arrange(
        self, names: Iterable[str], splitting: Splitting, *, train_N: NDArray[np.int64], test_N: NDArray[np.int64]
    ) -> None:
        """Fill in what a source has, from the names of the classes and the labels of the rows.

        Raises:
            DataError: A label is out of range, or a part has no image of a class.
        """
        self.class_names = tuple(names)
        for labels_N in (train_N, test_N):
            is_whole = set(np.unique(labels_N).tolist()) == set(range(len(self.class_names)))
            if not is_whole or len(self.class_names) < 2:
                raise DataError(f"dataset: {self.name!r} must have images of each of its classes in train and in test")
        if np.bincount(train_N).min() < 2:
            raise DataError(f"dataset: {self.name!r} must have 2 or more images of each class in train")
        order_N = np.argsort(train_N, kind="stable")
        division = divide(train_N[order_N], splitting, self.class_names)
        self._places: dict[Split, NDArray[np.int64]] = {
            "train": order_N[division.train_N],
            "val": order_N[division.val_N],
            "test": np.argsort(test_N, kind="stable"),
        }
        self.labels = {
            split: (test_N if split == "test" else train_N)[places_N] for split, places_N in self._places.items()
        }
        digests = (hashlib.sha256(self._bytes(is_test, 0)).digest() for is_test in (False, True))
        labels = (train_N.tobytes(), test_N.tobytes())
        whole = fingerprint_of(["\0".join(self.class_names).encode(), *labels, *digests])
        self.fingerprint = division.mark(whole)

    @abstractmethod
    def _bytes(self, is_test: bool, row: int) -> bytes:
        """The file that an image of the test part, or of train, is in.

        Raises:
            ImageError: It cannot be read.
        """

    def read(self, split: Split, place: int) -> Image.Image:
        return read_image(self._file(split, place))

    def read_header(self, split: Split, place: int) -> Header:
        return read_header(self._file(split, place))

    def path(self, split: Split, place: int) -> str:
        return f"{'test' if split == 'test' else 'train'}[{self._places[split][place]}]"

    def _file(self, split: Split, place: int) -> "NamedBytes":
        return NamedBytes(self._bytes(split == "test", int(self._places[split][place])), self.path(split, place))


class NamedBytes(io.BytesIO):
    """Bytes that are called something in messages."""

    def __init__(self, data: bytes, name: str) -> None:
        super().__init__(data)
        self.name = name
