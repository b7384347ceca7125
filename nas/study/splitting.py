"""Which of a dataset's training images train, and which are held out to choose by."""

from typing import Annotated

from pydantic import Field

from metaformer.specs import Spec

Part = Annotated[float, Field(strict=True, gt=0, lt=1)]
NumImages = Annotated[int, Field(strict=True, gt=0, le=10**9)]
SplitSeed = Annotated[int, Field(strict=True, ge=0, lt=2**32)]


class Splitting(Spec):
    """How val is taken from the images that a dataset has for training; its own test images stay test.

    Val does not depend on `images_per_class`, and a larger limit adds training images to those of a smaller one.
    """

    val: Part = 0.1  # of each class, rounded to whole images, at least one
    images_per_class: NumImages | None = None  # most of a class to train on once val is held out; None: all
    seed: SplitSeed = 0  # of the draw of both


DEFAULT_SPLITTING = Splitting()
