"""MetaFormer Baselines: IdentityFormer, RandFormer, PoolFormerV2, ConvFormer, CAFormer (arXiv:2210.13452)."""

from metaformer.architecture import Architecture
from metaformer.specs import (
    AttentionSpec,
    Downsample,
    Head,
    IdentitySpec,
    MixerSpec,
    Mlp,
    Norm,
    PoolSpec,
    RandomSpec,
    SepConvSpec,
    Stage,
    Stem,
)

IDENTITY = IdentitySpec()
RANDOM = RandomSpec()
POOL = PoolSpec()
SEP_CONV = SepConvSpec()
ATTENTION = AttentionSpec(proj_bias=False)

MLN = Norm(kind="mln", eps=1e-6, bias=False)
LAYER_NORM = Norm(kind="layer_norm", eps=1e-6, bias=False)
STAR_MLP = Mlp(activation="star_relu", bias=False)

SMALL = (64, 128, 320, 512)
MEDIUM = (96, 192, 384, 768)
# Table 1: blocks and widths by size, and the drop path of each family's scripts.
POOLFORMER_SIZES = {
    "s12": ((2, 2, 6, 2), SMALL, 0.1),
    "s24": ((4, 4, 12, 4), SMALL, 0.1),
    "s36": ((6, 6, 18, 6), SMALL, 0.2),
    "m36": ((6, 6, 18, 6), MEDIUM, 0.3),
    "m48": ((8, 8, 24, 8), MEDIUM, 0.4),
}
CONVFORMER_SIZES = {
    "s18": ((3, 3, 9, 3), SMALL, 0.2),
    "s36": ((3, 12, 18, 3), SMALL, 0.3),
    "m36": ((3, 12, 18, 3), (96, 192, 384, 576), 0.4),
    "b36": ((3, 12, 18, 3), (128, 256, 512, 768), 0.6),
}
CAFORMER_DROPS = {"s18": (0.15, 0.0), "s36": (0.3, 0.4), "m36": (0.4, 0.4), "b36": (0.6, 0.5)}  # drop path, dropout


def baseline(
    mixers: tuple[MixerSpec, ...],
    *,
    depths: tuple[int, ...],
    widths: tuple[int, ...],
    norm: Norm,
    drop_path: float,
    hidden_ratio: int | None = None,
    dropout: float = 0.0,
) -> Architecture:
    """Four stages for 224 pixels in the manner of the Baselines: StarReLU, no biases, a scaled skip in the last two."""
    stages = tuple(
        Stage(
            depth=depth,
            width=width,
            mixer=mixer,
            downsample=Downsample(pre_norm=LAYER_NORM) if index else None,
            norm=norm,
            mlp=STAR_MLP,
            layer_scale=None,
            res_scale=1.0 if index >= 2 else None,
        )
        for index, (depth, width, mixer) in enumerate(zip(depths, widths, mixers, strict=True))
    )
    last_norm = Norm(kind="layer_norm", eps=1e-6)
    return Architecture(
        stem=Stem(post_norm=LAYER_NORM),
        stages=stages,
        head=Head(order="pool_then_norm", norm=last_norm, hidden_ratio=hidden_ratio, dropout=dropout),
        drop_path=drop_path,
        init="baselines",
    )


def _poolformer_like(mixers: tuple[MixerSpec, ...], size: str, *, drop_path: float | None = None) -> Architecture:
    depths, widths, usual = POOLFORMER_SIZES[size]
    rate = usual if drop_path is None else drop_path
    return baseline(mixers, depths=depths, widths=widths, norm=MLN, drop_path=rate)


def _convformer(size: str) -> Architecture:
    depths, widths, rate = CONVFORMER_SIZES[size]
    return baseline((SEP_CONV,) * 4, depths=depths, widths=widths, norm=LAYER_NORM, drop_path=rate, hidden_ratio=4)


def _caformer(size: str) -> Architecture:
    depths, widths, _ = CONVFORMER_SIZES[size]
    rate, dropout = CAFORMER_DROPS[size]
    mixers = (SEP_CONV, SEP_CONV, ATTENTION, ATTENTION)
    return baseline(
        mixers, depths=depths, widths=widths, norm=LAYER_NORM, drop_path=rate, hidden_ratio=4, dropout=dropout
    )


_RANDFORMER = (IDENTITY, IDENTITY, RANDOM, RANDOM)

MODELS: dict[str, Architecture] = {
    **{f"identityformer_{size}": _poolformer_like((IDENTITY,) * 4, size) for size in POOLFORMER_SIZES},
    **{f"randformer_{size}": _poolformer_like(_RANDFORMER, size) for size in ("s12", "s24", "s36", "m36")},
    "randformer_m48": _poolformer_like(_RANDFORMER, "m48", drop_path=0.3),  # as its script has it
    **{f"poolformerv2_{size}": _poolformer_like((POOL,) * 4, size) for size in POOLFORMER_SIZES},
    **{f"convformer_{size}": _convformer(size) for size in CONVFORMER_SIZES},
    **{f"caformer_{size}": _caformer(size) for size in CONVFORMER_SIZES},
}
