"""Architectures as timm's MetaFormer has them."""

from benchmarks.search_rate.peer import Model
from metaformer.architecture import Architecture
from metaformer.errors import UserError
from metaformer.specs import AttentionSpec, IdentitySpec, PoolSpec, Stage, Stem

_NORMS = {"mln": "GroupNorm1", "layer_norm": "LayerNorm2d", "batch_norm": "BatchNorm2d"}


def in_timm(arch: Architecture) -> Model:
    """The same network as arguments of timm's MetaFormer.

    timm has the same blocks. What differs costs next to nothing: no position embedding, another eps in norms, and the
    head's norm after the mean instead of before.

    Raises:
        UserError: It has a part that timm's MetaFormer has not.
    """
    stem = arch.stem
    if not isinstance(stem, Stem) or stem.pre_norm or stem.post_norm or stem.activation:
        raise UserError(f"stem: must be a convolution alone to be in timm, got {stem!r}")
    attentions = [stage.mixer for stage in arch.stages if isinstance(stage.mixer, AttentionSpec)]
    scales = {stage.layer_scale for stage in arch.stages}
    if len(scales) > 1 or None in scales:
        raise UserError(f"layer_scale: must be the same in all stages to be in timm, got {scales}")
    return Model(
        depths=[stage.depth for stage in arch.stages],
        dims=[stage.width for stage in arch.stages],
        mixers=[_mixer(stage) for stage in arch.stages],
        norms=[_norm(stage) for stage in arch.stages],
        attention={
            name: value
            for mixer in attentions
            for name, value in (
                ("head_dim", mixer.head_size),
                ("qkv_bias", mixer.qkv_bias),
                ("proj_bias", mixer.proj_bias),
            )
        },
        layer_scale=next(scale for scale in scales if scale is not None),
        stem={"kernel_size": stem.kernel, "stride": stem.stride, "padding": stem.padding},
        drop_path=arch.drop_path,
    )


def _mixer(stage: Stage) -> str:
    match stage.mixer:
        case PoolSpec(size=size):
            return f"Pooling{size}"
        case AttentionSpec():
            return "Attention"
        case IdentitySpec():
            return "Identity"
    raise UserError(f"mixer: must be pool, attention or identity to be in timm, got {stage.mixer.kind}")


def _norm(stage: Stage) -> str:
    if not isinstance(stage.mixer, AttentionSpec):
        return _NORMS[stage.norm.kind]
    if stage.norm.kind != "layer_norm":
        raise UserError(f"norm: must be layer_norm beside attention to be in timm, got {stage.norm.kind}")
    return "LayerNorm"
