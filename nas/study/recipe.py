"""How every candidate of a study is trained: one written-down recipe for all, so that the comparison is fair.

Recipes by name are files; see `recipe_files.py`.
"""

from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from metaformer.specs import Flag, PositiveFloat, Spec

Fraction = Annotated[float, Field(strict=True, ge=0, le=1)]
NonNegativeFloat = Annotated[float, Field(strict=True, ge=0)]
Part = Annotated[float, Field(strict=True, gt=0, le=1)]
BelowOne = Annotated[float, Field(strict=True, ge=0, lt=1)]
Pixels = Annotated[int, Field(strict=True, ge=0, le=8192)]
Epochs = Annotated[int, Field(strict=True, gt=0, le=100_000)]
FewEpochs = Annotated[int, Field(strict=True, ge=0, lt=100_000)]
Precision = Literal["auto", "float32", "bfloat16"]
BadImages = Literal["stop", "skip"]  # what an image that cannot be read does: end the search, or be left out
NoDecay = Literal["vectors", "position_embedding", "class_token"]  # vectors: biases and what has one dimension
LrPoints = Annotated[tuple[tuple[Fraction, NonNegativeFloat], ...], Field(min_length=1, max_length=1000)]

# Fields that only some optimizers or schedules read; with another they must have their default.
_READ_BY: dict[str, tuple[str, tuple[str, ...]]] = {
    "betas": ("optimizer", ("adamw", "lamb")),
    "eps": ("optimizer", ("adamw", "lamb")),
    "momentum": ("optimizer", ("sgd",)),
    "nesterov": ("optimizer", ("sgd",)),
    "final_lr": ("schedule", ("cosine", "onecycle")),
    "cooldown_epochs": ("schedule", ("cosine", "onecycle")),
    "lr_points": ("schedule", ("piecewise", "step")),
}


class Augmentation(Spec):
    """What is done to a training image; the defaults are PoolFormer's (arXiv:2111.11418, Table 6)."""

    crop_scale: tuple[Fraction, Fraction] = (0.08, 1.0)  # area of the random resized crop
    train_interpolation: Literal["random", "bilinear", "bicubic"] = (
        "bicubic"  # of that crop; random: one of the other two for each image. Evaluation is always bicubic
    )
    flip: Fraction = 0.5  # probability of a horizontal flip
    color_jitter: Fraction = (
        0.0  # brightness, contrast and saturation times 1 - this to 1 + this, where rand_augment is null (as in timm)
    )
    rand_augment: str | None = (
        "rand-m9-mstd0.5-inc1"  # RandAugment, AutoAugment or AugMix in timm's notation, or torchvision-m9-n2
    )
    random_erasing: Fraction = 0.25
    mixup: NonNegativeFloat = 0.8
    cutmix: NonNegativeFloat = 1.0
    repeats: Annotated[int, Field(strict=True, ge=1, le=100)] = (
        1  # repeated augmentation (arXiv:1902.05509): times that an epoch has each image it has; so many fewer images
    )
    shift: Annotated[int, Field(strict=True, ge=0, le=8192)] = (
        0  # random translation in pixels, zeros outside; for datasets held as tensors
    )
    eval_crop: Annotated[float, Field(strict=True, gt=0, le=1)] = (
        0.9  # part of the image that evaluation sees ("crop pct")
    )


class Recipe(Spec):
    """One way to train; the defaults are PoolFormer's but for the epochs.

    Learning rates are of a step, counted from 0, and change with every step. The schedules:
    - cosine: linear from `warmup_lr` to the peak over the warm-up; then the cosine from the peak to `final_lr` that
      began with the first step of all (arXiv:1608.03983, without restarts; as timm has it).
    - onecycle: half a cosine from `warmup_lr` to the peak over the warm-up, half a cosine from there to `final_lr`
      (arXiv:1708.07120 in the form of torch's OneCycleLR).
    - piecewise: linear between the `lr_points`; a step has the rate of its end.
    - step: linear from `warmup_lr` to the peak over the warm-up; else the factor of the last of the `lr_points` that
      has been reached.
    """

    epochs: Epochs = 30  # in all, with warm-up and cool-down
    batch_size: Annotated[int, Field(strict=True, gt=0, le=65_536)] = 512
    optimizer: Literal["adamw", "lamb", "sgd"] = "adamw"
    betas: tuple[BelowOne, BelowOne] | None = None  # None: 0.9 and 0.999
    eps: PositiveFloat | None = None  # None: 1e-8 for AdamW, 1e-6 for LAMB
    momentum: BelowOne = 0.9
    nesterov: Flag = True
    weight_decay: NonNegativeFloat = 0.05
    no_decay: tuple[NoDecay, ...] = ("vectors",)  # parameters that do not decay
    lr_per_1024: PositiveFloat = 1e-3  # peak learning rate is this times batch_size / 1024
    schedule: Literal["cosine", "onecycle", "piecewise", "step"] = "cosine"
    warmup_epochs: FewEpochs = 5
    warmup_lr: NonNegativeFloat = 1e-6
    final_lr: NonNegativeFloat = 1e-5
    cooldown_epochs: FewEpochs = 0  # at the end, with `final_lr`
    lr_points: LrPoints | None = None  # pairs: part of the training from 0 to 1, factor on the peak learning rate
    drop_path: BelowOne | None = None  # rate of the last block; None: the architecture's own
    ema_decay: Annotated[float, Field(strict=True, gt=0, lt=1)] | None = (
        None  # of the moving average of the weights, a step; evaluated and kept are the averages
    )
    label_smoothing: BelowOne = 0.1
    clip_grad: PositiveFloat | None = None  # largest norm of the gradient
    precision: Precision = "auto"  # auto: bfloat16 on GPUs that have it, on CPUs the faster of both
    augmentation: Augmentation = Augmentation()

    @model_validator(mode="after")
    def _check_read(self) -> Self:
        for name, (by, readers) in _READ_BY.items():
            value, reader = getattr(self, name), getattr(self, by)
            default = type(self).model_fields[name].default
            if reader not in readers and value != default:
                rule = f"must be {_spelled(default)} unless {by} is {' or '.join(readers)}"
                raise ValueError(f"{name}: {rule}, got {value!r} with {reader}")
        return self

    @model_validator(mode="after")
    def _check_warmup(self) -> Self:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs: must be less than epochs {self.epochs}, got {self.warmup_epochs}")
        left = self.epochs - self.warmup_epochs
        if self.cooldown_epochs >= left:
            rule = f"must be less than the {left} epochs after the warm-up"
            raise ValueError(f"cooldown_epochs: {rule}, got {self.cooldown_epochs}")
        if self.schedule == "piecewise" and self.warmup_epochs:
            rule = "must be 0 with schedule piecewise, whose lr_points hold the warm-up"
            raise ValueError(f"warmup_epochs: {rule}, got {self.warmup_epochs}")
        return self

    @model_validator(mode="after")
    def _check_points(self) -> Self:
        if self.schedule not in _READ_BY["lr_points"][1]:
            return self
        if self.lr_points is None:
            raise ValueError(f"lr_points: must be given with schedule {self.schedule}, got None")
        places = [place for place, _ in self.lr_points]
        if places[0] != 0 or any(later <= earlier for earlier, later in pairwise(places)):
            raise ValueError(f"lr_points: must begin at 0 and rise, got {places}")
        if self.schedule == "piecewise" and places[-1] != 1:
            raise ValueError(f"lr_points: must end at 1 with schedule piecewise, got {places}")
        return self

    @property
    def peak_lr(self) -> float:
        return self.lr_per_1024 * self.batch_size / 1024


def _spelled(value: object) -> str:
    """A value as YAML has it."""
    return {"None": "null", "True": "true", "False": "false"}.get(str(value), str(value))
