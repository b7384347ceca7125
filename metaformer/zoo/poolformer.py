"""PoolFormer, its hybrids, and its ablation table (arXiv:2111.11418, Tables 1 and 5)."""

from metaformer.architecture import Architecture
from metaformer.specs import (
    Activation,
    AttentionSpec,
    DepthwiseConvSpec,
    Downsample,
    Head,
    IdentitySpec,
    MixerSpec,
    Mlp,
    Norm,
    PoolSpec,
    RandomSpec,
    SpatialMlpSpec,
    Stage,
)

SMALL = (64, 128, 320, 512)
MEDIUM = (96, 192, 384, 768)
POOL = PoolSpec()
ATTENTION = AttentionSpec()
SPATIAL_MLP = SpatialMlpSpec()
MLN = Norm(kind="mln")
LAYER_NORM = Norm(kind="layer_norm")


def four_stages(
    *,
    depths: tuple[int, ...] = (2, 2, 6, 2),
    widths: tuple[int, ...] = SMALL,
    mixers: tuple[MixerSpec, ...] = (POOL,) * 4,
    norm: Norm = MLN,
    activation: Activation = "gelu",
    mlp: bool = True,
    residual: bool = True,
    layer_scale: float = 1e-5,
    drop_path: float = 0.1,
) -> Architecture:
    """A PoolFormer-shaped architecture for 224 pixels: conv stem, four stages at strides 4, 8, 16, 32 (Figure 2).

    Learned positions are added before the first attention stage, as the official hybrids do.
    """
    first_attention = next((i for i, mixer in enumerate(mixers) if isinstance(mixer, AttentionSpec)), None)
    stages = tuple(
        Stage(
            depth=depth,
            width=width,
            mixer=mixer,
            downsample=Downsample() if index else None,
            position_embedding="learned" if index == first_attention else None,
            norm=norm,
            mlp=Mlp(activation=activation) if mlp else None,
            layer_scale=layer_scale,
            residual=residual,
        )
        for index, (depth, width, mixer) in enumerate(zip(depths, widths, mixers, strict=True))
    )
    return Architecture(stages=stages, head=Head(norm=norm), drop_path=drop_path)


MODELS: dict[str, Architecture] = {
    "poolformer_s12": four_stages(),
    "poolformer_s24": four_stages(depths=(4, 4, 12, 4)),
    "poolformer_s36": four_stages(depths=(6, 6, 18, 6), layer_scale=1e-6, drop_path=0.2),
    "poolformer_m36": four_stages(depths=(6, 6, 18, 6), widths=MEDIUM, layer_scale=1e-6, drop_path=0.3),
    "poolformer_m48": four_stages(depths=(8, 8, 24, 8), widths=MEDIUM, layer_scale=1e-6, drop_path=0.4),
    "metaformer_id_s12": four_stages(mixers=(IdentitySpec(),) * 4),
    "metaformer_pppa_s12_224": four_stages(mixers=(POOL, POOL, POOL, ATTENTION), norm=LAYER_NORM),
    "metaformer_ppaa_s12_224": four_stages(mixers=(POOL, POOL, ATTENTION, ATTENTION), norm=LAYER_NORM),
    "metaformer_pppf_s12_224": four_stages(mixers=(POOL, POOL, POOL, SPATIAL_MLP)),
    "metaformer_ppff_s12_224": four_stages(mixers=(POOL, POOL, SPATIAL_MLP, SPATIAL_MLP)),
    "metaformer_random_s12_224": four_stages(mixers=(RandomSpec(),) * 4),
    "metaformer_dwconv_s12": four_stages(mixers=(DepthwiseConvSpec(),) * 4),
    "poolformer_s12_pool5": four_stages(mixers=(PoolSpec(size=5),) * 4),
    "poolformer_s12_pool7": four_stages(mixers=(PoolSpec(size=7),) * 4),
    "poolformer_s12_pool9": four_stages(mixers=(PoolSpec(size=9),) * 4),
    "poolformer_s12_layer_norm": four_stages(norm=LAYER_NORM),
    "poolformer_s12_batch_norm": four_stages(norm=Norm(kind="batch_norm")),
    "poolformer_s12_no_norm": four_stages(norm=Norm(kind="none")),
    "poolformer_s12_relu": four_stages(activation="relu"),
    "poolformer_s12_silu": four_stages(activation="silu"),
    "poolformer_s12_no_residual": four_stages(residual=False),
    "poolformer_s12_no_channel_mlp": four_stages(mlp=False),
}
