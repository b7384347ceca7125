"""PVT v1: a pyramid of attention stages whose keys and values come from smaller maps (arXiv:2102.12122, Table 1)."""

from metaformer.architecture import Architecture
from metaformer.specs import AttentionSpec, Downsample, Head, Mlp, Norm, ReducedAttentionSpec, Stage, Stem

WIDTHS = (64, 128, 320, 512)
RATIOS = (8, 8, 4, 4)
MIXERS = (
    ReducedAttentionSpec(reduction=8),
    ReducedAttentionSpec(reduction=4),
    ReducedAttentionSpec(reduction=2),
    AttentionSpec(head_size=64, qkv_bias=True),
)
PATCH_NORM = Norm(kind="layer_norm", eps=1e-5)
LAYER_NORM = Norm(kind="layer_norm", eps=1e-6)


def pvt(*, depths: tuple[int, ...], drop_path: float) -> Architecture:
    """Four stages for 224 pixels, each with learned positions; the last has a class token too."""
    stages = tuple(
        Stage(
            depth=depth,
            width=width,
            mixer=mixer,
            downsample=Downsample(kernel=2, stride=2, padding=0, post_norm=PATCH_NORM) if index else None,
            class_token=index == len(WIDTHS) - 1,
            position_embedding="learned",
            norm=LAYER_NORM,
            mlp=Mlp(ratio=ratio),
            layer_scale=None,
        )
        for index, (depth, width, mixer, ratio) in enumerate(zip(depths, WIDTHS, MIXERS, RATIOS, strict=True))
    )
    return Architecture(
        stem=Stem(kernel=4, stride=4, padding=0, post_norm=PATCH_NORM),
        stages=stages,
        head=Head(pool="class_token", norm=LAYER_NORM),
        drop_path=drop_path,
        init="transformer",
    )


MODELS: dict[str, Architecture] = {
    "pvt_tiny": pvt(depths=(2, 2, 2, 2), drop_path=0.1),
    "pvt_small": pvt(depths=(3, 4, 6, 3), drop_path=0.1),
    "pvt_medium": pvt(depths=(3, 4, 18, 3), drop_path=0.3),
    "pvt_large": pvt(depths=(3, 8, 27, 3), drop_path=0.3),
}
