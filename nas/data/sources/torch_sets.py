"""torchvision's datasets in the files in which they are published: CIFAR-10, CIFAR-100, ImageNet.

K classes, N images, P pixels of a channel.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torchvision.datasets import CIFAR10, CIFAR100

from metaformer.errors import unknown_name
from metaformer.images import Header
from nas.data.division import divide
from nas.data.registry import DataError, Split, fingerprint_of, wrong
from nas.data.sources import Channels, Source
from nas.data.sources.folder import FolderSource, root_of
from nas.study.splitting import DEFAULT_SPLITTING, Splitting

_SIDE = 32
_PIXELS = 3 * _SIDE**2
_SOME = 4096  # images that are counted at once


class _Cifar(NamedTuple):
    """What is known of one of the two: see https://www.cs.toronto.edu/~kriz/cifar.html."""

    binary_folder: str
    archive: str
    train: tuple[str, ...]  # files of records: labels, the last of which counts, then red, green and blue pixels
    test: str
    labels: int  # bytes before the pixels of a record
    names: str  # file with a class a line
    python: type[CIFAR10]


_CIFARS = {
    "cifar10": _Cifar(
        binary_folder="cifar-10-batches-bin",
        archive="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        train=tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
        test="test_batch.bin",
        labels=1,
        names="batches.meta.txt",
        python=CIFAR10,
    ),
    "cifar100": _Cifar(
        binary_folder="cifar-100-binary",
        archive="https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        train=("train.bin",),
        test="test.bin",
        labels=2,
        names="fine_label_names.txt",
        python=CIFAR100,
    ),
}
_IMAGENET = "ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar"
SETS = (*_CIFARS, "imagenet")


def open_torch_set(argument: str, splitting: Splitting = DEFAULT_SPLITTING) -> Source:
    """The set of a name such as cifar10, or cifar10:ROOT.

    Without ROOT it is looked for in the folder that the environment variable NAS_DATA names, else in ~/.cache/nas.

    Raises:
        DataError: The set is unknown, not there or damaged.
    """
    name, _, given = argument.partition(":")
    if name not in SETS:
        raise DataError(unknown_name("dataset", f"torch/{name}", [f"torch/{known}" for known in SETS]))
    root = root_of(given) if given else folder_of_datasets()
    return ImageNetSource(root, splitting) if name == "imagenet" else CifarSource(name, root, splitting)


def folder_of_datasets() -> Path:
    """Where datasets by name are looked for."""
    return root_of(os.environ.get("NAS_DATA") or "~/.cache/nas")


class ImageNetSource(FolderSource):
    """ROOT/train and ROOT/val as torchvision unpacks the archives, or ROOT/imagenet/train and ROOT/imagenet/val."""

    def __init__(self, root: Path, splitting: Splitting = DEFAULT_SPLITTING) -> None:
        found = [folder for folder in (root, root / "imagenet") if (folder / "train").is_dir()]
        if not found:
            raise DataError(
                f"dataset: torch/imagenet must be in {str(root)!r} as train/CLASS/* and val/CLASS/*, as torchvision "
                f"unpacks them; download {_IMAGENET} from https://image-net.org"
            )
        super().__init__(str(found[0]), splitting)
        self.name = f"torch/imagenet:{root}"


class _Loaded(NamedTuple):
    """What the files hold, in their order."""

    names: tuple[str, ...]
    train_NCP: NDArray[np.uint8]
    labels_N: NDArray[np.int64]
    test_NCP: NDArray[np.uint8]
    test_labels_N: NDArray[np.int64]


class CifarSource(Source):
    """The test images are the test split; a part of each class of the others is held out for validation.

    The binary version is read as it is; torchvision reads the Python version, which is a pickle, after it has compared
    its checksum. Both give the same images in the same order. Images are normalised by mean and deviation of the ones
    for training.
    """

    def __init__(self, name: str, root: Path, splitting: Splitting = DEFAULT_SPLITTING) -> None:
        """Read labels and pixels.

        Raises:
            DataError: The set is not there, or damaged.
        """
        self._set, self._root = name, root
        self.name = f"torch/{name}:{root}"
        loaded = self._load()
        self.class_names = loaded.names
        order_N, test_order_N = (np.argsort(of_N, kind="stable") for of_N in (loaded.labels_N, loaded.test_labels_N))
        for part, labels_N in (("train", loaded.labels_N), ("test", loaded.test_labels_N)):
            if not np.bincount(labels_N, minlength=len(loaded.names)).all():
                raise wrong("dataset", f"torch/{name} must hold images of each class in {part}", str(root))
        division = divide(loaded.labels_N[order_N], splitting, self.class_names)
        self._places: dict[Split, NDArray[np.int64]] = {
            "train": order_N[division.train_N],
            "val": order_N[division.val_N],
            "test": test_order_N,
        }
        self.labels = {
            split: (loaded.test_labels_N if split == "test" else loaded.labels_N)[places_N]
            for split, places_N in self._places.items()
        }
        self.mean_and_std = _mean_and_std(loaded.train_NCP, self._places["train"])
        pixels = (piece.tobytes() for part in (loaded.train_NCP, loaded.test_NCP) for piece in _pieces(part))
        labels = (loaded.labels_N.tobytes(), loaded.test_labels_N.tobytes())
        whole = fingerprint_of(["\0".join(loaded.names).encode(), *labels, *pixels])
        self.fingerprint = division.mark(whole)
        self._loaded: _Loaded | None = loaded

    def read(self, split: Split, place: int) -> Image.Image:
        if self._loaded is None:  # in another process
            self._loaded = self._load()
        pixels_NCP = self._loaded.test_NCP if split == "test" else self._loaded.train_NCP
        pixels_CP = pixels_NCP[self._places[split][place]]
        return Image.fromarray(np.ascontiguousarray(pixels_CP.reshape(3, _SIDE, _SIDE).transpose(1, 2, 0)))

    def read_header(self, split: Split, place: int) -> Header:
        return Header(_SIDE, _SIDE, "RGB")

    def path(self, split: Split, place: int) -> str:
        return f"{'test' if split == 'test' else 'train'}[{self._places[split][place]}]"

    def __getstate__(self) -> dict[str, object]:
        """Without the pixels, which another process reads by itself."""
        return {**self.__dict__, "_loaded": None}

    def _load(self) -> _Loaded:
        cifar = _CIFARS[self._set]
        for folder in (self._root / cifar.binary_folder, self._root):
            if (folder / cifar.test).exists():
                return _load_binary(folder, cifar)
        if (self._root / cifar.python.base_folder).is_dir():
            return _load_python(self._root, cifar)
        raise DataError(
            f"dataset: torch/{self._set} must be in {str(self._root)!r} as {cifar.binary_folder} or "
            f"{cifar.python.base_folder}; download {cifar.archive} and unpack it there"
        )


def _load_binary(folder: Path, cifar: _Cifar) -> _Loaded:
    names = _read_names(folder / cifar.names)
    train_NB, test_NB = (
        np.concatenate([_read_records(folder / file, cifar.labels + _PIXELS) for file in files])
        for files in (cifar.train, (cifar.test,))
    )
    labels_N, test_labels_N = (records_NB[:, cifar.labels - 1].astype(np.int64) for records_NB in (train_NB, test_NB))
    if max(labels_N.max(), test_labels_N.max()) >= len(names):
        rule = f"labels must be below {len(names)}, the number of its classes; unpack {cifar.archive} again"
        raise wrong("dataset", rule, str(folder))
    train_NCP, test_NCP = (records_NB[:, cifar.labels :].reshape(-1, 3, _SIDE**2) for records_NB in (train_NB, test_NB))
    return _Loaded(names, train_NCP, labels_N, test_NCP, test_labels_N)


def _load_python(root: Path, cifar: _Cifar) -> _Loaded:
    found = []
    for is_train in (True, False):
        try:
            images = cifar.python(str(root), train=is_train)
        except (RuntimeError, OSError):  # a pickle is not opened before its checksum was compared
            rule = f"files must have the checksums of those in {cifar.python.url}; unpack it again, or {cifar.archive}"
            raise wrong("dataset", rule, str(root / cifar.python.base_folder)) from None
        found += [
            np.ascontiguousarray(images.data.transpose(0, 3, 1, 2)).reshape(-1, 3, _SIDE**2),
            np.asarray(images.targets, dtype=np.int64),
        ]
    return _Loaded(tuple(images.classes), *found)


def _read_names(path: Path) -> tuple[str, ...]:
    try:
        names = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise wrong("dataset", f"must be readable ({getattr(error, 'strerror', 'no text')})", str(path)) from None
    if len(names) < 2 or len(set(names)) != len(names):
        raise wrong("dataset", f"must name 2 or more classes, a line each, got {len(names)}", str(path))
    return tuple(names)


def _read_records(path: Path, size: int) -> NDArray[np.uint8]:
    """(N, size)."""
    try:
        data_B = np.fromfile(path, np.uint8)
    except OSError as error:
        raise wrong("dataset", f"must be readable ({error.strerror})", str(path)) from None
    if not len(data_B) or len(data_B) % size:
        raise wrong("dataset", f"must hold whole records of {size} bytes, got {len(data_B)} bytes", str(path))
    return data_B.reshape(-1, size)


def _pieces(pixels_NCP: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    """Some images after another, so that no copy of all is made."""
    return (pixels_NCP[start : start + _SOME] for start in range(0, len(pixels_NCP), _SOME))


def _mean_and_std(pixels_NCP: NDArray[np.uint8], places_N: NDArray[np.int64]) -> tuple[Channels, Channels]:
    """Of each channel over these images, of values from 0 to 1."""
    counts_CL = np.zeros((3, 256), np.int64)
    for start in range(0, len(places_N), _SOME):
        some_NCP = pixels_NCP[places_N[start : start + _SOME]]
        counts_CL += np.stack([np.bincount(some_NCP[:, channel].ravel(), minlength=256) for channel in range(3)])
    levels_L = np.arange(256) / 255
    mean_C = counts_CL @ levels_L / counts_CL.sum(1)
    std_C = np.sqrt(np.maximum(counts_CL @ levels_L**2 / counts_CL.sum(1) - mean_C**2, 1 / 255**2))
    return cast(tuple[Channels, Channels], (tuple(mean_C.round(6).tolist()), tuple(std_C.round(6).tolist())))
