"""The random augmentations that a recipe may name, in timm's notation or as torchvision-mN-nN; a door to timm.data.

RandAugment (arXiv:1909.13719), AutoAugment (arXiv:1805.09501), 3-Augment (arXiv:2204.07118), AugMix (arXiv:1912.02781).
torchvision's RandAugment has other operations and magnitudes than timm's, takes the nearest pixel and fills with black.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from PIL import Image
from timm.data import Mixup
from timm.data.auto_augment import (
    AugmentOp,
    AugMixAugment,
    AutoAugment,
    RandAugment,
    posterize,
    rand_augment_choices,
)
from torchvision.transforms import Compose, v2

from nas.data.registry import DataError, mixes, wrong
from nas.study.recipe import Recipe


class _Number(NamedTuple):
    """The values that a section of the notation takes."""

    lowest: int
    highest: int
    whole: bool = True

    def allows(self, text: str) -> bool:
        form = r"[0-9]{1,4}" if self.whole else r"[0-9]{1,4}(\.[0-9]{1,6})?"
        return bool(re.fullmatch(form, text)) and self.lowest <= float(text) <= self.highest

    def __str__(self) -> str:
        return f"a {'whole number' if self.whole else 'number'} from {self.lowest} to {self.highest}"


_MAGNITUDE = {"m": _Number(0, 100), "mstd": _Number(0, 1000, whole=False)}  # mstd above 100 of rand: uniform
_RAND = {"n": _Number(0, 20), "p": _Number(0, 1, whole=False), "mmax": _Number(1, 100), "inc": _Number(0, 1)}
_AUGMIX = {"w": _Number(1, 10), "d": _Number(1, 10), "b": _Number(0, 1)}
_FORMS: dict[str, dict[str, _Number]] = {
    "rand": {**_MAGNITUDE, **_RAND},
    **{policy: {"mstd": _MAGNITUDE["mstd"]} for policy in ("original", "originalr", "v0", "v0r", "3a")},
    "augmix": {**_MAGNITUDE, **_AUGMIX},
    "torchvision": {"m": _Number(0, 30), "n": _RAND["n"]},
}
_SETS = {"tweights": "weights", "t3a": "3a", "t3aw": "3aw"}  # sections of rand, and timm's names of the operations
_WEIGHTED = ("weights", "3aw")  # of these an image gets none twice
_STAND_IN = "rand-n0"  # timm's, which changes nothing


class TorchvisionFigures(NamedTuple):
    """What `torchvision-mN-nN` says; torchvision's own defaults."""

    magnitude: int = 9  # 0 to 30
    num_operations: int = 2


def check_photographs(recipe: Recipe) -> None:
    """Check what every dataset of photographs asks of a recipe.

    Raises:
        DataError: A field of the augmentation, or the batch for mixing, breaks a rule.
    """
    augmentation = recipe.augmentation
    low, high = augmentation.crop_scale
    if not 0 < low <= high:
        raise wrong("augmentation.crop_scale", "must rise and be above 0", augmentation.crop_scale)
    if augmentation.rand_augment is not None:
        check_augmentation(augmentation.rand_augment)
    if mixes(recipe) and recipe.batch_size % 2:
        raise wrong("batch_size", "must be even for mixup and cutmix", recipe.batch_size)


def make_mix(recipe: Recipe, num_classes: int) -> Mixup | None:
    """Mixup and CutMix for batches; None where the recipe mixes nothing."""
    if not mixes(recipe):
        return None
    return Mixup(  # type: ignore[no-untyped-call]  # timm's, without types
        mixup_alpha=recipe.augmentation.mixup,
        cutmix_alpha=recipe.augmentation.cutmix,
        label_smoothing=recipe.label_smoothing,
        num_classes=num_classes,
    )


def check_augmentation(notation: str) -> None:
    """Check that timm or torchvision, and Pillow, can carry out an augmentation, for any image in RGB.

    timm itself passes over sections it does not know, and takes values that fail at some later image.

    Raises:
        DataError: The text is in neither notation, or a value is out of range.
    """
    form, *sections = notation.split("-")
    if form not in _FORMS:
        raise _wrong(f"begins with one of {', '.join(_FORMS)}", notation)
    chosen: dict[str, str] = {}
    for section in sections:
        key, value = _read_section(section, form, notation)
        if key in chosen:
            raise _wrong(f"says {key} once", notation)
        chosen[key] = value
    if chosen.get("t") in _WEIGHTED:
        most = len(rand_augment_choices(chosen["t"]))
        if int(chosen.get("n", 2)) > most:
            raise _wrong(f"n is at most {most} with t{chosen['t']}", notation)


def _read_section(section: str, form: str, notation: str) -> tuple[str, str]:
    """The key and the value of one section."""
    if form == "rand" and section in _SETS:
        return "t", _SETS[section]
    known = _FORMS[form]
    parts = re.fullmatch(r"([a-z]+)([0-9.]+)", section)
    if parts is None or parts[1] not in known:
        forms = [f"{key}N" for key in known] + (list(_SETS) if form == "rand" else [])
        raise _wrong(f"{form} is followed by {', '.join(forms)}, not {section!r}", notation)
    key, value = parts.groups()
    if not known[key].allows(value):
        raise _wrong(f"{key} is {known[key]}", notation)
    return key, value


def _wrong(rule: str, notation: str) -> DataError:
    examples = "must be in timm's notation, such as 'rand-m9-mstd0.5-inc1', or torchvision-mN-nN"
    return wrong("augmentation.rand_augment", f"{examples}: {rule}", notation)


def read_torchvision(notation: str | None) -> TorchvisionFigures | None:
    """The figures of `torchvision-mN-nN`, which `check_augmentation` let pass; None for timm's augmentations."""
    form, *sections = (notation or "").split("-")
    if form != "torchvision":
        return None
    said = {section[0]: int(section[1:]) for section in sections}
    default = TorchvisionFigures()
    return TorchvisionFigures(said.get("m", default.magnitude), said.get("n", default.num_operations))


def timm_notation(notation: str | None) -> str | None:
    """What timm makes a transform of: for torchvision's RandAugment a step that `put_torchvision` replaces."""
    return notation if read_torchvision(notation) is None else _STAND_IN


def put_torchvision(transform: Compose, notation: str | None) -> None:
    """Put torchvision's RandAugment, where the notation names it, in the place of timm's in a transform for training.

    It draws from torch's global generator.
    """
    figures = read_torchvision(notation)
    if figures is None:
        return
    [place] = [place for place, step in enumerate(transform.transforms) if isinstance(step, RandAugment)]
    transform.transforms[place] = v2.RandAugment(figures.num_operations, figures.magnitude)


def mend(transform: Compose) -> None:
    """Let the posterize operations of one of timm's transforms keep at least one bit.

    timm 1.0.31 asks for 0 bits, or fewer, at the strong end of the range. Up to version 12 Pillow gave a black image,
    13 raises ValueError. This may go when timm asks for 1 or more.
    """
    for operation in _operations(transform):
        if operation.aug_fn is posterize:
            operation.aug_fn = _posterize


def _operations(transform: Compose) -> Iterator[AugmentOp]:
    for step in transform.transforms:
        if isinstance(step, RandAugment | AugMixAugment):
            yield from step.ops
        elif isinstance(step, AutoAugment):
            for policy in step.policy:
                yield from policy


def _posterize(image: Image.Image, bits_to_keep: int, **options: object) -> Image.Image:
    return posterize(image, max(1, bits_to_keep), **options)  # type: ignore[no-untyped-call]
