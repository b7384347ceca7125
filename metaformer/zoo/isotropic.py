"""Models of one stage behind 16 x 16 patches: DeiT (arXiv:2012.12877), MLP-Mixer (arXiv:2105.01601) and ResMLP
(arXiv:2105.03404)."""

from metaformer.architecture import Architecture
from metaformer.specs import AttentionSpec, Head, Norm, SpatialMlpSpec, Stage, Stem, TokenMlpSpec

PATCHES = Stem(kernel=16, stride=16, padding=0)
SMALL_PATCHES = Stem(kernel=8, stride=8, padding=0)
LAYER_NORM = Norm(kind="layer_norm", eps=1e-6)
AFFINE = Norm(kind="affine")


def deit(*, width: int) -> Architecture:
    """DeiT without distillation: 12 blocks, a class token, learned positions, heads of 64 channels."""
    stage = Stage(
        depth=12,
        width=width,
        mixer=AttentionSpec(head_size=64, qkv_bias=True),
        class_token=True,
        position_embedding="learned",
        norm=LAYER_NORM,
        layer_scale=None,
    )
    head = Head(pool="class_token", norm=LAYER_NORM)
    return Architecture(stem=PATCHES, stages=(stage,), head=head, drop_path=0.1, init="transformer")


def mlp_mixer(*, depth: int, width: int) -> Architecture:
    """MLP-Mixer: the hidden width over the tokens is half the number of channels, that over the channels four times."""
    mixer = TokenMlpSpec(hidden=width // 2)
    stage = Stage(depth=depth, width=width, mixer=mixer, norm=LAYER_NORM, layer_scale=None)
    return Architecture(stem=PATCHES, stages=(stage,), head=Head(norm=LAYER_NORM, zero_init=True))


def resmlp(*, depth: int, width: int, layer_scale: float, stem: Stem = PATCHES) -> Architecture:
    """ResMLP: one linear layer with bias over the tokens, and affine transformations in place of norms.

    Nothing is dropped by default; where a rate is given, it is that of every block, as in the official code.
    """
    mixer = SpatialMlpSpec(bias=True)
    stage = Stage(depth=depth, width=width, mixer=mixer, norm=AFFINE, layer_scale=layer_scale)
    return Architecture(stem=stem, stages=(stage,), head=Head(norm=AFFINE), drop_path_schedule="constant")


MODELS: dict[str, Architecture] = {
    "deit_tiny_patch16_224": deit(width=192),
    "deit_small_patch16_224": deit(width=384),
    "deit_base_patch16_224": deit(width=768),
    "mixer_s16_224": mlp_mixer(depth=8, width=512),
    "mixer_b16_224": mlp_mixer(depth=12, width=768),
    "mixer_l16_224": mlp_mixer(depth=24, width=1024),
    "resmlp_12_224": resmlp(depth=12, width=384, layer_scale=0.1),
    "resmlp_24_224": resmlp(depth=24, width=384, layer_scale=1e-5),
    "resmlp_36_224": resmlp(depth=36, width=384, layer_scale=1e-6),
    "resmlp_b24_224": resmlp(depth=24, width=768, layer_scale=1e-6),  # the row of the paper
    "resmlp_big_24_224": resmlp(depth=24, width=768, layer_scale=1e-6, stem=SMALL_PATCHES),  # the released weights
}
