"""Images that tensorflow-datasets has prepared, read without TensorFlow.

N images of a split.
"""

import importlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from metaformer.errors import one_line
from metaformer.images import ImageError
from nas.data.registry import DataError, wrong
from nas.data.sources.folder import root_of
from nas.data.sources.rows import TEST, RowSource
from nas.data.sources.torch_sets import folder_of_datasets
from nas.study.splitting import DEFAULT_SPLITTING, Splitting

_Rows = Sequence[Mapping[str, Any]]  # features of an example by name
# what was seen of files that are damaged or of another version
_DAMAGES = (OSError, ValueError, TypeError, NotImplementedError, ImportError, RuntimeError)
_FORMAT = "array_record"  # the one that is read without TensorFlow, in any order


class TensorFlowSource(RowSource):
    """ROOT/NAME/VERSION, or ROOT/NAME/CONFIG/VERSION, in the format array_record.

    Its split `test`, else `validation`, is the test split; a part of each class of `train` is held out. Nothing is
    downloaded or prepared.
    """

    def __init__(self, argument: str, splitting: Splitting = DEFAULT_SPLITTING) -> None:
        """Open the dataset and read its labels.

        Args:
            argument: NAME, or NAME:ROOT.
        Raises:
            DataError: The package is not installed, the dataset is not there, or has no images with classes.
        """
        name, _, given = argument.partition(":")
        root = root_of(given) if given else folder_of_datasets()
        self.name = f"tfds/{name}:{root}"
        _import(self.name)
        found = sorted(path.parent for path in (root / name).rglob("dataset_info.json"))
        if not found:
            form = f"as tensorflow-datasets prepares it in the format {_FORMAT}"
            raise DataError(f"dataset: tfds/{name} must be in {str(root)!r} {form}")
        if len(found) > 1:
            rule = "NAME of tfds/NAME must be of one configuration and version"
            raise wrong("dataset", rule, [str(path.relative_to(root)) for path in found])
        self._folder = found[0]
        features, parts = self._open()
        self._image, self._label = (_only(features, kind, self.name) for kind in ("Image", "ClassLabel"))
        self._test = next((part for part in TEST if part in parts), "")
        if "train" not in parts or not self._test:
            raise wrong("dataset", f"{self.name!r} must have the splits train and {TEST[0]}", sorted(parts))
        self._parts: Mapping[str, _Rows] | None = parts
        train_N, test_N = (self._labels(parts[part]) for part in ("train", self._test))
        self._arrange(features[self._label].names, splitting, train_N=train_N, test_N=test_N)

    def __getstate__(self) -> dict[str, object]:
        """Without the open files, which another process opens by itself."""
        return {**self.__dict__, "_parts": None}

    def _bytes(self, is_test: bool, row: int) -> bytes:
        if self._parts is None:
            self._parts = self._open()[1]
        part = self._test if is_test else "train"
        try:
            return cast(bytes, self._parts[part][row][self._image])
        except _DAMAGES as error:
            raise ImageError(f"image: must be readable, got '{part}[{row}]' ({one_line(str(error), 90)})") from error

    def _labels(self, rows: _Rows) -> NDArray[np.int64]:
        with _one_line(str(self._folder)):
            return np.array([rows[row][self._label] for row in range(len(rows))], dtype=np.int64)

    def _open(self) -> tuple[Mapping[str, Any], Mapping[str, _Rows]]:
        """Its features, and the rows of each split with images as they are in their files."""
        package = _import(self.name)
        with _one_line(str(self._folder)):
            builder = package.builder_from_directory(str(self._folder))
            features = dict(builder.info.features)
            skip = {name: package.decode.SkipDecoding() for name in features if _kind(features[name]) == "Image"}
            return features, dict(builder.as_data_source(decoders=skip))


@contextmanager
def _one_line(folder: str) -> Iterator[None]:
    """What the package makes of a damaged folder, in one line."""
    try:
        yield
    except _DAMAGES as error:
        rule = f"must be what tensorflow-datasets prepares in the format {_FORMAT} ({one_line(str(error), 90)})"
        raise wrong("dataset", rule, folder) from None


def _import(name: str) -> Any:
    try:
        importlib.import_module("array_record.python.array_record_module")
        return importlib.import_module("tensorflow_datasets")
    except ImportError as error:
        packages = "tensorflow-datasets array_record importlib_resources"
        rule = f"needs {error.name}, which is not installed: pip install {packages}"
        raise DataError(f"dataset: {name!r} {rule}") from None


def _kind(feature: object) -> str:
    return type(feature).__name__


def _only(features: Mapping[str, Any], kind: str, name: str) -> str:
    found = [feature for feature in features if _kind(features[feature]) == kind]
    if len(found) != 1:
        raise wrong("dataset", f"{name!r} must have one feature of the kind {kind}, of its features these are", found)
    return found[0]
