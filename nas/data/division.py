"""The images that a dataset has for training, divided into train and val.

N images, whose labels rise, so that those of a class are neighbours; C images of a class.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from metaformer.errors import shown
from nas.data.registry import fingerprint_of, shuffled_class, wrong
from nas.study.splitting import DEFAULT_SPLITTING, Splitting

Places = NDArray[np.int64]


class Division(NamedTuple):
    """Which images train and which are val, by their places among all of them."""

    train_N: Places
    val_N: Places
    is_default: bool  # whether the default values give the same

    def mark(self, fingerprint: str) -> str:
        """The fingerprint of images and division, from that of the images; equal to it where the default was taken."""
        if self.is_default:
            return fingerprint
        return fingerprint_of([fingerprint.encode(), self.train_N.tobytes(), self.val_N.tobytes()])


def divide(labels_N: NDArray[np.int64], splitting: Splitting, class_names: Sequence[str]) -> Division:
    """Hold out val class by class, and limit what is left to train on; the same on every machine.

    Raises:
        DataError: No image of a class would be left to train on.
    """
    counts = np.bincount(labels_N, minlength=len(class_names)).tolist()
    train_N, val_N = _draw(counts, splitting, class_names)
    if splitting == DEFAULT_SPLITTING:
        return Division(train_N, val_N, is_default=True)
    usual = _draw(counts, DEFAULT_SPLITTING, class_names)
    return Division(train_N, val_N, np.array_equal(train_N, usual[0]) and np.array_equal(val_N, usual[1]))


def divide_again(
    train_N: NDArray[np.int64], val_N: NDArray[np.int64], splitting: Splitting, class_names: Sequence[str]
) -> Division:
    """Divide train and val of a dataset that comes divided by the default values; places count train, then val.

    Images of a class are put back into the order that they had before, so that the same values give the same images
    as they do where the dataset came from. With the default part for val each class keeps its number of images in val.

    Args:
        train_N: Labels of the images that train.
        val_N: Labels of the images of val.
    Raises:
        DataError: No image of a class would be left to train on.
    """
    as_given = np.arange(len(train_N)), len(train_N) + np.arange(len(val_N))
    if splitting == DEFAULT_SPLITTING:
        return Division(*as_given, is_default=True)
    num_train, num_val = (np.bincount(of_N, minlength=len(class_names)).tolist() for of_N in (train_N, val_N))
    order, first_train, first_val = [], 0, len(train_N)
    for label, (here, held) in enumerate(zip(num_train, num_val, strict=True)):
        is_val_C = np.zeros(here + held, dtype=bool)
        is_val_C[shuffled_class(here + held, label)[:held]] = True
        places_C = np.empty(here + held, dtype=np.int64)
        places_C[is_val_C] = first_val + np.arange(held)
        places_C[~is_val_C] = first_train + np.arange(here)
        order.append(places_C)
        first_train, first_val = first_train + here, first_val + held
    order_N = np.concatenate(order)
    counts = (np.array(num_train) + num_val).tolist()
    kept = num_val if splitting.val == DEFAULT_SPLITTING.val else None
    found = [order_N[places_N] for places_N in _draw(counts, splitting, class_names, num_val=kept)]
    is_default = all(np.array_equal(now, before) for now, before in zip(found, as_given, strict=True))
    return Division(found[0], found[1], is_default)


def _draw(
    counts: Sequence[int], splitting: Splitting, class_names: Sequence[str], *, num_val: Sequence[int] | None = None
) -> tuple[Places, Places]:
    """Rising places of train and of val among so many images of each class.

    Args:
        num_val: Images of each class to hold out; None: as `splitting` says.
    """
    train, val, first = [], [], 0
    for label, count in enumerate(counts):
        held = max(1, round(splitting.val * count)) if num_val is None else num_val[label]
        if count == 1:
            rule = "must have 2 or more images of each class to train and choose by, has 1 of"
            raise wrong("dataset", rule, class_names[label])
        order_C = first + shuffled_class(count, label, seed=splitting.seed)
        val.append(order_C[:held])
        train.append(order_C[held:][: splitting.images_per_class])
        if count and not len(train[-1]):
            rule = f"must leave an image of each class to train on, of {shown(class_names[label])} it takes all {count}"
            raise wrong("splitting.val", rule, splitting.val)
        first += count
    return np.sort(np.concatenate(train)), np.sort(np.concatenate(val))
