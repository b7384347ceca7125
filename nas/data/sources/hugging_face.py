"""Images that Hugging Face's `datasets` package reads: a saved dataset, Parquet files, or folders of images.

N images of a split.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from metaformer.images import ImageError
from nas.data.registry import DataError, wrong
from nas.data.sources.rows import TEST, RowSource
from nas.data.sources.torch_sets import folder_of_datasets
from nas.study.splitting import DEFAULT_SPLITTING, Splitting

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict


class HuggingFaceSource(RowSource):
    """Its split `test`, else `validation`, is the test split; a part of each class of `train` is held out.

    The column that holds images and the one that holds classes are known by their types. Nothing is downloaded.
    """

    def __init__(self, argument: str, splitting: Splitting = DEFAULT_SPLITTING) -> None:
        """Open the dataset and read its labels.

        Args:
            argument: A folder, absolute, from here, or in the folder of datasets; see `folder_of_datasets`.
        Raises:
            DataError: The package is not installed, the folder is not there, or holds no images with classes.
        """
        given = Path(argument).expanduser()
        self._root = (given if given.is_absolute() or given.is_dir() else folder_of_datasets() / given).absolute()
        self.name = f"hfds/{self._root}"
        parts = self._open()
        self._image, label = _columns(parts["train"], self._root)
        self._test = next((name for name in TEST if name in parts), "")
        if not self._test:
            raise wrong("dataset", f"{str(self._root)!r} must have a split {' or '.join(TEST[:2])}", sorted(parts))
        train_N, test_N = (_labels(parts[part], label) for part in ("train", self._test))
        self._parts: Mapping[str, Dataset] | None = self._undecoded(parts)
        self._arrange(parts["train"].features[label].names, splitting, train_N=train_N, test_N=test_N)

    def __getstate__(self) -> dict[str, object]:
        """Without the dataset, which another process opens by itself."""
        return {**self.__dict__, "_parts": None}

    def _bytes(self, is_test: bool, row: int) -> bytes:
        if self._parts is None:
            self._parts = self._undecoded(self._open())
        found = self._parts[self._test if is_test else "train"][row][self._image]
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
                files = {part: _parquets(self._root, part) for part in ("train", *TEST)}
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


def _labels(part: "Dataset", column: str) -> NDArray[np.int64]:
    return np.asarray(part.with_format("numpy")[column], dtype=np.int64)
