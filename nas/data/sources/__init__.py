"""Where images come from: class names, labels of three splits, and one image at a time.

N images of a split.
"""

import statistics
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from metaformer.images import Header, ImageError
from nas.data.registry import Look, Split, find_dataset, wrong
from nas.study.splitting import DEFAULT_SPLITTING

_SIDES = (8, 16, 32, 48, 64, 96, 128, 160, 192, 224)  # pixels
_SAMPLE, _SAMPLE_SEED = 200, 2210_13452
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # torchvision's and timm's


Channels = tuple[float, float, float]  # of values from 0 to 1


class Source(ABC):
    """Images of known classes; another process gets one by pickle.

    In every split the labels rise, so that the images of a class are neighbours.
    """

    name: str  # as a user gives it, but with an absolute path
    class_names: tuple[str, ...]
    labels: Mapping[Split, NDArray[np.int64]]  # of shape (N,) each
    fingerprint: str  # equal wherever classes, images and splits are equal; it may cover the names alone
    mean_and_std: tuple[Channels, Channels] = (IMAGENET_MEAN, IMAGENET_STD)  # by which streamed images are normalised

    @abstractmethod
    def read(self, split: Split, place: int) -> Image.Image:
        """An image in RGB.

        Raises:
            ImageError: It cannot be read.
        """

    @abstractmethod
    def read_header(self, split: Split, place: int) -> Header:
        """Its size and mode.

        Raises:
            ImageError: It cannot be read.
        """

    @abstractmethod
    def path(self, split: Split, place: int) -> str:
        """What the image is called in messages."""

    def sample(self) -> Iterator[Header | ImageError]:
        """Headers of at most 200 training images, the same number of each class; the same in every run."""
        first_K = np.searchsorted(self.labels["train"], np.arange(len(self.class_names) + 1))
        counts = np.diff(first_K).tolist()
        for label, place in sample(len(counts), counts.__getitem__):
            try:
                yield self.read_header("train", int(first_K[label]) + place)
            except ImageError as error:
                yield error

    def look(self) -> Look:
        """The side that fits the photographs; see `look_at`."""
        return look_at(self.sample(), where=self.name)


def open_source(name: str) -> Source:
    """The images of a dataset by name, for those that have images in files; val is taken by the default values.

    Raises:
        DataError: It is not known, not there, or has no images in files.
    """
    from nas.data.streamed import Streamed

    make, argument = find_dataset(name)
    if not issubclass(make, Streamed):
        raise wrong("dataset", "must have images in files, as folder:PATH has", name)
    return make.make_source(argument, DEFAULT_SPLITTING)


def sample(num_classes: int, count: Callable[[int], int]) -> Iterator[tuple[int, int]]:
    """At most 200 images as class and place in the class, the same in every run.

    Each class gives the same number of images, or all where it has fewer; of more than 200 classes 200 give one each.

    Args:
        count: The number of images of a class; it is asked of the chosen classes alone.
    """
    draw = np.random.RandomState(_SAMPLE_SEED)  # numpy promises this generator the same numbers for ever
    for label in draw.permutation(num_classes)[:_SAMPLE].tolist():
        for place in draw.permutation(count(label))[: max(1, _SAMPLE // num_classes)].tolist():
            yield label, place


def look_at(headers: Iterable[Header | ImageError], *, where: str) -> Look:
    """The side that fits photographs, from the headers of a sample of them.

    Of 8, 16, 32, 48, 64, 96, 128, 160, 192 and 224 pixels it is the one nearest to the median shorter side of the
    sample, the larger of two that are as near. Reasons:
    - The shorter side, since crops are square. The median, since a few thumbnails or panoramas do not move it.
    - Fewer pixels than the photographs have cost detail; more cost time, with the square, and add nothing.
    - Sides of 16 to 64 are multiples of 16, larger ones of 32. Stems halve the side of small images and quarter that of
      large ones, and three more stages halve it again, so that every stage has a whole number of tokens.
    - 224 is the papers' side; what is larger has to be asked for. 8 is the smallest side that any dataset takes.

    Args:
        headers: Those of the sample, or why they cannot be read; such images are passed over.
        where: What the sample is of, for the message.
    Raises:
        DataError: No image of the sample can be read.
    """
    found = list(headers)
    sides = [min(header.width, header.height) for header in found if not isinstance(header, ImageError)]
    num_bad = len(found) - len(sides)
    if not sides:
        raise wrong("image", f"must be readable at least once in a sample of {where!r}", num_bad)
    side = statistics.median_low(sides)
    resolution = min(_SIDES, key=lambda known: (abs(known - side), -known))
    seen = f"a sample of {len(sides)} images has a median shorter side of {side} pixels"
    unread = f"; {num_bad} more could not be read" if num_bad else ""
    return Look(resolution, f"{seen}, and {resolution} is the nearest of {', '.join(map(str, _SIDES))}{unread}")
