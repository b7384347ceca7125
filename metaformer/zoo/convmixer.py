"""ConvMixer for ImageNet, and the repository's models for CIFAR-10 (arXiv:2201.09792)."""

from metaformer.architecture import Architecture
from metaformer.specs import Activation, DepthwiseConvSpec, Head, Norm, Stage, Stem

BATCH_NORM = Norm(kind="batch_norm")


def convmixer(
    width: int,
    depth: int,
    *,
    patch: int,
    kernel: int,
    activation: Activation = "gelu",
    norm: Norm = BATCH_NORM,
    residual: bool = True,
    resolution: int = 224,
    num_classes: int = 1000,
) -> Architecture:
    """Patches, then blocks of a depthwise and a pointwise convolution, each with activation and norm behind.

    `residual`: whether the input of a depthwise convolution is added to what comes behind its norm.
    """
    stage = Stage(
        depth=depth,
        width=width,
        mixer=DepthwiseConvSpec(size=kernel),
        norm=norm,
        mlp=None,
        layer_scale=None,
        residual=residual,
        post_activation=activation,
    )
    return Architecture(
        resolution=resolution,
        stem=Stem(kernel=patch, stride=patch, padding=0, activation=activation, post_norm=norm),
        stages=(stage,),
        head=Head(norm=Norm(kind="none"), num_classes=num_classes),
        init="pytorch",
    )


MODELS: dict[str, Architecture] = {
    "convmixer_1536_20": convmixer(1536, 20, patch=7, kernel=9),
    "convmixer_768_32": convmixer(768, 32, patch=7, kernel=7, activation="relu"),  # as the released weights
    "convmixer_1024_20_ks9_p14": convmixer(1024, 20, patch=14, kernel=9),
    "convmixer_256_8_p1_k9": convmixer(256, 8, patch=1, kernel=9, resolution=32, num_classes=10),
    "convmixer_256_8_p2_k5": convmixer(256, 8, patch=2, kernel=5, resolution=32, num_classes=10),
    "convmixer_256_16_p1_k9": convmixer(256, 16, patch=1, kernel=9, resolution=32, num_classes=10),
}
