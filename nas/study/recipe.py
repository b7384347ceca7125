"""How every candidate of a study is trained: one written-down recipe for all, so that the comparison is fair."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from metaformer.specs import PositiveFloat, Spec

Fraction = Annotated[float, Field(strict=True, ge=0, le=1)]
NonNegativeFloat = Annotated[float, Field(strict=True, ge=0)]
Part = Annotated[float, Field(strict=True, gt=0, le=1)]
Pixels = Annotated[int, Field(strict=True, ge=0, le=8192)]
Epochs = Annotated[int, Field(strict=True, gt=0, le=100_000)]
BadImages = Literal["stop", "skip"]  # what an image that cannot be read does: end the search, or be left out


class Augmentation(Spec):
    """What is done to a training image; the defaults are PoolFormer's (arXiv:2111.11418, Table 6)."""

    crop_scale: tuple[Fraction, Fraction] = (0.08, 1.0)  # area of the random resized crop
    flip: Fraction = 0.5  # probability of a horizontal flip
    rand_augment: str | None = "rand-m9-mstd0.5-inc1"  # RandAugment, AutoAugment or AugMix in timm's notation
    random_erasing: Fraction = 0.25
    mixup: NonNegativeFloat = 0.8
    cutmix: NonNegativeFloat = 1.0
    shift: Annotated[int, Field(strict=True, ge=0, le=8192)] = (
        0  # random translation in pixels, zeros outside; for datasets held as tensors
    )
    eval_crop: Annotated[float, Field(strict=True, gt=0, le=1)] = (
        0.9  # part of the image that evaluation sees ("crop pct")
    )


class Recipe(Spec):
    """AdamW with linear warm-up and one cosine to `final_lr`; the defaults are PoolFormer's but for the epochs."""

    epochs: Epochs = 30
    batch_size: Annotated[int, Field(strict=True, gt=0, le=65_536)] = 512
    lr_per_1024: PositiveFloat = 1e-3  # peak learning rate is this times batch_size / 1024
    final_lr: NonNegativeFloat = 1e-5
    warmup_epochs: Annotated[int, Field(strict=True, ge=0, lt=100_000)] = 5
    warmup_lr: NonNegativeFloat = 1e-6
    weight_decay: NonNegativeFloat = 0.05
    label_smoothing: Annotated[float, Field(strict=True, ge=0, lt=1)] = 0.1
    clip_grad: PositiveFloat | None = None  # largest norm of the gradient
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: bfloat16 on GPUs that have it
    augmentation: Augmentation = Augmentation()

    @model_validator(mode="after")
    def _check_warmup(self) -> Self:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs: must be less than epochs {self.epochs}, got {self.warmup_epochs}")
        return self

    @property
    def peak_lr(self) -> float:
        return self.lr_per_1024 * self.batch_size / 1024
