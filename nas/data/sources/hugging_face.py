"""Images that Hugging Face's `datasets` package reads: a saved dataset, Parquet files, or folders of images.

N images of a split.
"""

import hashlib
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from metaformer.images import Header, ImageError, read_header, read_image
from nas.data.registry import DataError, Split, fingerprint_of, wrong
from nas.data.sources import Source, hold_out
from nas.data.sources.torch_sets import folder_of_datasets

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

_TEST = ("test", "validation", "val")


class HuggingFaceSource(Source):
    """Its split `test`, else `validation`, is the test split; a tenth of each class of `train` is held out.

    The column that holds images and the one that holds classes are known by their types. Nothing is downloaded.
    """

    def __init__(self, argument: str) -> None:
        """Open the dataset and read its labels.

        Args:
            argument: A folder, absolute or in the folder of datasets; see `folder_of_datasets`.
        Raises:
            DataError: The package is not installed, the folder is not there, or holds no images with classes.
        """
        given = Path(argument).expanduser()
        self._root = given if given.is_absolute() or given.is_dir() else folder_of_datasets() / given
        self._root = self._root.absolute()
        self.name = f"hfds/{self._root}"
        parts = self._open()
        self._image, label = _columns(parts["train"], self._root)
        self._test = next((name for name in _TEST if name in parts), "")
        if not self._test:
            raise wrong("dataset", f"{str(self._root)!r} must have a split {' or '.join(_TEST[:2])}", sorted(parts))
        names = parts["train"].features[label].names
        self.class_names = tuple(names)
        given_N, test_N = (_labels(parts[part], label, len(names), self._root) for part in ("train", self._test))
        order_N = np.argsort(given_N, kind="stable")
        is_val_N = hold_out(given_N[order_N])
        self._places: dict[Split, NDArray[np.int64]] = {
            "train": order_N[~is_val_N],
            "val": order_N[is_val_N],
            "test": np.argsort(test_N, kind="stable"),
        }
        of_split = {"train": given_N, "val": given_N, "test": test_N}
        self.labels = {split: of_split[split][places_N] for split, places_N in self._places.items()}
        self._parts: Mapping[str, Dataset] | None = self._undecoded(parts)
        digests = (hashlib.sha256(self._bytes(split, 0)).digest() for split in self._places)
        self.fingerprint = fingerprint_of(["\0".join(names).encode(), given_N.tobytes(), test_N.tobytes(), *digests])

    def read(self, split: Split, place: int) -> Image.Image:
        return read_image(self._file(split, place))

    def read_header(self, split: Split, place: int) -> Header:
        return read_header(self._file(split, place))

    def path(self, split: Split, place: int) -> str:
        return f"{self._test if split == 'test' else 'train'}[{self._places[split][place]}]"

    def __getstate__(self) -> dict[str, object]:
        """Without the dataset, which another process opens by itself."""
        return {**self.__dict__, "_parts": None}

    def _file(self, split: Split, place: int) -> io.BytesIO:
        file = _Named(self._bytes(split, place))
        file.name = self.path(split, place)
        return file

    def _bytes(self, split: Split, place: int) -> bytes:
        if self._parts is None:
            self._parts = self._undecoded(self._open())
        part = self._parts[self._test if split == "test" else "train"]
        found = part[int(self._places[split][place])][self._image]
        if found["bytes"] is not None:
            return cast(bytes, found["bytes"])
        try:
            return Path(found["path"]).read_bytes()
        except OSError as error:
            raise ImageError(f"image: must be readable, got {found['path']!r} ({error.strerror})") from error

    def _open(self) -> "DatasetDict":
        """All splits; train is one of them."""
        try:
            import datasets
        except ImportError:
            datasets = None
        if not hasattr(datasets, "load_dataset"):  # a folder of that name here can be imported too
            raise DataError(
                f"dataset: {self.name!r} is read by the package datasets, which is not installed: pip install datasets"
            )
        if not self._root.is_dir():
            raise wrong("dataset", "PATH of hfds/PATH must be a folder; nothing is downloaded", str(self._root))
        with _one_line(self._root), _quiet():
            if (self._root / "dataset_dict.json").exists():
                found = datasets.load_from_disk(str(self._root))
            elif any(self._root.rglob("*.parquet")):
                files = {part: _parquets(self._root, part) for part in ("train", *_TEST)}
                given = {part: here for part, here in files.items() if here}
                found = datasets.load_dataset("parquet", data_files=given)
            else:
                found = datasets.load_dataset("imagefolder", data_dir=str(self._root))
        if "train" not in found:
            raise wrong("dataset", f"{str(self._root)!r} must have a split train", sorted(found))
        return cast("DatasetDict", found)

    def _undecoded(self, parts: "DatasetDict") -> "Mapping[str, Dataset]":
        from datasets import Image as Images

        return {part: here.cast_column(self._image, Images(decode=False)) for part, here in parts.items()}


class _Named(io.BytesIO):
    """Bytes that are called something in messages."""

    name: str


def _parquets(root: Path, part: str) -> list[str]:
    """Files of a split as the Hub names them: train-00000-of-00001.parquet, or in a folder train."""
    files = (*root.rglob(f"{part}-*.parquet"), *root.rglob(f"{part}.parquet"), *root.rglob(f"{part}/*.parquet"))
    return sorted({str(path) for path in files})


@contextmanager
def _one_line(root: Path) -> Iterator[None]:
    """What the package makes of a damaged folder, in one line."""
    import datasets
    import pyarrow

    errors = (datasets.exceptions.DatasetsError, OSError, ValueError, TypeError, KeyError, pyarrow.ArrowException)
    try:
        yield
    except errors as error:
        reason = str(error).strip().partition("\n")[0][:120]
        raise wrong("dataset", f"must be a folder that the package datasets reads ({reason})", str(root)) from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the package's bars of progress."""
    import datasets

    was_on = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if was_on:
            datasets.enable_progress_bars()


def _columns(part: "Dataset", root: Path) -> tuple[str, str]:
    """The column of images and that of classes."""
    from datasets import ClassLabel
    from datasets import Image as Images

    found = []
    for kind, what in ((Images, "images"), (ClassLabel, "classes (ClassLabel)")):
        columns = [name for name, feature in part.features.items() if isinstance(feature, kind)]
        if len(columns) != 1:
            raise wrong("dataset", f"{str(root)!r} must have one column of {what}, of its columns these are", columns)
        found += columns
    return found[0], found[1]


def _labels(part: "Dataset", column: str, num_classes: int, root: Path) -> NDArray[np.int64]:
    labels_N = np.asarray(part.with_format("numpy")[column], dtype=np.int64)
    counts = np.bincount(labels_N, minlength=num_classes) if labels_N.min(initial=0) >= 0 else np.zeros(1)
    if len(counts) != num_classes or not counts.all():
        raise DataError(f"dataset: {str(root)!r} must have images of each class in each split, and no others")
    return labels_N
