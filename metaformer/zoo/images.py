"""How the papers' evaluation makes the model's input from an image file."""

from typing import Annotated, Literal

from pydantic import Field

from metaformer.architecture import Architecture
from metaformer.specs.parts import PositiveFloat, Side, Spec
from metaformer.zoo import baselines, convmixer, isotropic, poolformer, pvt, t2t_vit

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Preprocessing(Spec):
    """The shorter side becomes `resolution / crop_pct` pixels, the square of `resolution` in the middle is cut out.

    Values from 0 to 1 are then normalised by `mean` and `std` of red, green and blue.
    """

    resolution: Side = 224
    crop_pct: Annotated[float, Field(gt=0, le=1)] = 0.9
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = IMAGENET_STD


_WIDER = Preprocessing(crop_pct=0.95)
_CIFAR = Preprocessing(
    resolution=32, crop_pct=1.0, mean=(0.4914, 0.4822, 0.4465), std=(0.2471, 0.2435, 0.2616)
)  # of the repository's script
_FAMILIES: tuple[tuple[dict[str, Architecture], Preprocessing], ...] = (
    (poolformer.MODELS, Preprocessing(crop_pct=0.9)),
    (baselines.MODELS, Preprocessing(crop_pct=1.0)),
    (isotropic.MODELS, Preprocessing(crop_pct=0.875)),  # DeiT's own program; timm's default for it is 0.9
    (pvt.MODELS, Preprocessing(crop_pct=0.875)),  # DeiT's, on which its program is built
    (convmixer.MODELS, Preprocessing(crop_pct=0.96)),
    (t2t_vit.MODELS, Preprocessing(crop_pct=0.9)),
)
_OTHERWISE: dict[str, Preprocessing] = {
    "poolformer_m36": _WIDER,
    "poolformer_m48": _WIDER,
    "metaformer_pppa_s12_224": _WIDER,
    "metaformer_ppaa_s12_224": _WIDER,
    "metaformer_ppff_s12_224": _WIDER,
    # timm's crop; the official program squeezes the whole image into the square
    **{
        name: Preprocessing(crop_pct=0.875, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
        for name in isotropic.MODELS
        if name.startswith("mixer")
    },
    # as its README evaluates; timm's default is 0.875
    **{name: Preprocessing(crop_pct=0.9) for name in isotropic.MODELS if name.startswith("resmlp")},
    **{name: _CIFAR for name, arch in convmixer.MODELS.items() if arch.resolution == 32},
}
PUBLISHED: dict[str, Preprocessing] = {
    name: _OTHERWISE.get(name, usual) for models, usual in _FAMILIES for name in models
}
