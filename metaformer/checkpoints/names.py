"""What the tensors of a model are called by us, by its official code and by timm; tables, no tensors.

A place of ours is first named by its role: `stages.2.blocks.0.mlp.norm.weight` is `block.mlp.norm.weight` of stage 2,
block 0. A naming maps roles to the names of others by their longest known prefix. C channels, N tokens.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, NamedTuple

from metaformer import zoo
from metaformer.architecture import Architecture
from metaformer.specs import Conv, Norm, Stage, TokensToToken

Convention = Literal["ours", "official", "timm"]
Layout = Literal["same", "convolution", "tokens", "leading_ones"]
Shape = tuple[int, ...]
Resampling = Literal["antialiased bicubic", "bicubic", "bilinear"]


class Place(NamedTuple):
    """Where a tensor of a checkpoint belongs: the whole of one of ours, or some thirds of its rows."""

    path: str  # our name
    shape: Shape  # in the checkpoint
    layout: Layout = "same"
    thirds: tuple[int, int] = (0, 3)


@dataclass(frozen=True)
class Naming:
    """How others call the roles, and in which layout they keep what is a linear layer or a BCHW table with us.

    In a name, {stage} and {block} count from 0, {number} is the stage from 1, {block_item} and {last_item} count the
    items of ConvMixer's nested sequence, {stage_item}, {down_item} and {position_item} those of PoolFormer's list.
    """

    names: Mapping[str, str]
    convolutions: frozenset[str] = frozenset()  # roles that are 1 x 1 convolutions there, CC11
    linear_stages: frozenset[str] = frozenset()  # but not in stages of these mixers
    leading_ones: frozenset[str] = frozenset()  # roles that are 11C there
    positions: Layout = "tokens"  # 1NC
    splits_qkv: bool = False  # q and kv where we have qkv
    resampling: Resampling = "antialiased bicubic"  # of positions; timm's, where the official code has none


def _blocks(prefix: str, names: Mapping[str, str]) -> dict[str, str]:
    return {f"block.{role}": prefix + name for role, name in names.items()}


_MLP = frozenset({"block.mlp.part.fc1", "block.mlp.part.fc2"})

POOLFORMER = Naming(
    {
        "stem": "patch_embed.proj",
        "down": "network.{down_item}.proj",
        "position": "network.{position_item}",
        **_blocks(
            "network.{stage_item}.{block}.",
            {
                "mixer.norm": "norm1",
                "mixer.part.mixer": "token_mixer",
                "mixer.scale.scale": "layer_scale_1",
                "mlp.norm": "norm2",
                "mlp.part": "mlp",
                "mlp.scale.scale": "layer_scale_2",
            },
        ),
        "head.norm": "norm",
        "head.fc": "head",
    },
    convolutions=_MLP,
    positions="same",
)
_BASELINE_BLOCK = {
    "mixer.norm": "norm1",
    "mixer.part": "token_mixer",
    "mixer.part.mixer": "token_mixer",
    "mixer.scale": "layer_scale1",
    "mixer.res_scale": "res_scale1",
    "mlp.norm": "norm2",
    "mlp.part": "mlp",
    "mlp.scale": "layer_scale2",
    "mlp.res_scale": "res_scale2",
}
BASELINES = Naming(
    {
        "stem": "downsample_layers.0",
        "down": "downsample_layers.{stage}",
        **_blocks("stages.{stage}.{block}.", _BASELINE_BLOCK),
        "head.norm": "norm",
        "head.fc": "head",
    },
)
BASELINES_HIDDEN = Naming(
    {**BASELINES.names, "head.hidden.fc": "head.fc1", "head.hidden.norm": "head.norm", "head.fc": "head.fc2"},
)
TIMM_METAFORMER = Naming(
    {
        "stem": "stem.conv",
        "stem.conv": "stem.conv",
        "stem.post_norm": "stem.norm",
        "down": "stages.{stage}.downsample.conv",
        "down.conv": "stages.{stage}.downsample.conv",
        "down.pre_norm": "stages.{stage}.downsample.norm",
        **_blocks("stages.{stage}.blocks.{block}.", _BASELINE_BLOCK),
        "head.norm": "head.norm",
        "head.fc": "head.fc",
    },
    convolutions=_MLP | {"block.mixer.part.pwconv1", "block.mixer.part.pwconv2"},
    linear_stages=frozenset({"attention"}),
)
TIMM_METAFORMER_HIDDEN = Naming(
    {
        **TIMM_METAFORMER.names,
        "head.hidden.fc": "head.fc.fc1",
        "head.hidden.norm": "head.fc.norm",
        "head.fc": "head.fc.fc2",
    },
    convolutions=TIMM_METAFORMER.convolutions,
    linear_stages=TIMM_METAFORMER.linear_stages,
)
VIT = Naming(
    {
        "stem": "patch_embed.proj",
        "class_token": "",
        "position": "",
        **_blocks(
            "blocks.{block}.",
            {"mixer.norm": "norm1", "mixer.part.mixer": "attn", "mlp.norm": "norm2", "mlp.part": "mlp"},
        ),
        "head.norm": "norm",
        "head.fc": "head",
    },
    resampling="bicubic",
)
_AFFINES = {
    "block.mixer.norm": "blocks.{block}.norm1",
    "block.mlp.norm": "blocks.{block}.norm2",
    "head.norm": "norm",
}
_AFFINE_NAMES = {
    f"{role}.{ours}": f"{name}.{theirs}"
    for role, name in _AFFINES.items()
    for ours, theirs in (("weight", "alpha"), ("bias", "beta"))
}
RESMLP = Naming(
    {
        "stem": "patch_embed.proj",
        **_AFFINE_NAMES,
        **_blocks(
            "blocks.{block}.",
            {
                "mixer.part.mixer.fc": "attn",
                "mixer.scale.scale": "gamma_1",
                "mlp.part": "mlp",
                "mlp.scale.scale": "gamma_2",
            },
        ),
        "head.fc": "head",
    },
)
TIMM_MIXER = Naming(
    {
        "stem": "stem.proj",
        **_blocks(
            "blocks.{block}.",
            {
                "mixer.norm": "norm1",
                "mixer.part.mixer": "mlp_tokens",
                "mlp.norm": "norm2",
                "mlp.part": "mlp_channels",
            },
        ),
        "head.norm": "norm",
        "head.fc": "head",
    },
)
TIMM_RESMLP = Naming(
    {
        **TIMM_MIXER.names,
        **_AFFINE_NAMES,
        **_blocks(
            "blocks.{block}.",
            {"mixer.part.mixer.fc": "linear_tokens", "mixer.scale.scale": "ls1", "mlp.scale.scale": "ls2"},
        ),
    },
    leading_ones=frozenset(_AFFINES),
)
PVT = Naming(
    {
        "stem.conv": "patch_embed1.proj",
        "stem.post_norm": "patch_embed1.norm",
        "down.conv": "patch_embed{number}.proj",
        "down.post_norm": "patch_embed{number}.norm",
        "class_token": "",
        "position.pos_embed": "pos_embed{number}",
        **_blocks(
            "block{number}.{block}.",
            {
                "mixer.norm": "norm1",
                "mixer.part": "attn",
                "mixer.part.mixer": "attn",
                "mixer.part.reduce": "attn.sr",
                "mlp.norm": "norm2",
                "mlp.part": "mlp",
            },
        ),
        "head.norm": "norm",
        "head.fc": "head",
    },
    splits_qkv=True,
    resampling="bilinear",
)
_CONVMIXER_BLOCK = {"mixer.part.conv": "0.fn.0", "mixer.norm": "0.fn.2", "mlp.part.fc": "1", "mlp.norm": "3"}
CONVMIXER = Naming(
    {
        "stem.conv": "0",
        "stem.post_norm": "2",
        **_blocks("{block_item}.", _CONVMIXER_BLOCK),
        "head.fc": "{last_item}",
    },
    convolutions=frozenset({"block.mlp.part.fc"}),
)
TIMM_CONVMIXER = Naming(
    {
        "stem.conv": "stem.0",
        "stem.post_norm": "stem.2",
        **_blocks("blocks.{block}.", _CONVMIXER_BLOCK),
        "head.fc": "head",
    },
    convolutions=CONVMIXER.convolutions,
)


def _t2t_vit(layer: Mapping[str, str]) -> Naming:
    stem = {
        f"stem.layers.{index}.{ours}": f"tokens_to_token.attention{index + 1}.{theirs}"
        for index in (0, 1)
        for ours, theirs in layer.items()
    }
    names = {**VIT.names, **stem, "stem.project": "tokens_to_token.project"}
    return Naming(names, resampling=VIT.resampling)


T2T_PERFORMER = _t2t_vit(
    {
        "features_md": "w",
        "norm1": "norm1",
        "qkv": "kqv",
        "proj": "proj",
        "norm2": "norm2",
        "fc1": "mlp.0",
        "fc2": "mlp.2",
    }
)
T2T_TRANSFORMER = _t2t_vit(
    {
        "norm1": "norm1",
        "qkv": "attn.qkv",
        "proj": "attn.proj",
        "norm2": "norm2",
        "fc1": "mlp.fc1",
        "fc2": "mlp.fc2",
    }
)
T2T_SE = Naming(
    {
        **T2T_PERFORMER.names,
        **_blocks(
            "blocks.{block}.",
            {
                "mixer.part.mixer.mixer": "attn",
                "mixer.part.fc1": "attn.se_layer.fc.0",
                "mixer.part.fc2": "attn.se_layer.fc.2",
            },
        ),
    },
    resampling=T2T_PERFORMER.resampling,
)

# By one model of each form. The official code of PoolFormer takes any norm; timm has the one of PoolFormer alone.
_NAMINGS: Mapping[str, Mapping[Convention, Naming]] = MappingProxyType(
    {
        "poolformer_s12": {"official": POOLFORMER, "timm": TIMM_METAFORMER},
        "poolformer_s12_layer_norm": {"official": POOLFORMER},
        "poolformer_s12_batch_norm": {"official": POOLFORMER},
        "poolformer_s12_no_norm": {"official": POOLFORMER},
        "metaformer_id_s12": {"official": POOLFORMER},
        "metaformer_pppa_s12_224": {"official": POOLFORMER},
        "metaformer_ppaa_s12_224": {"official": POOLFORMER},
        "metaformer_pppf_s12_224": {"official": POOLFORMER},
        "metaformer_ppff_s12_224": {"official": POOLFORMER},
        "identityformer_s12": {"official": BASELINES},
        "randformer_s12": {"official": BASELINES},
        "poolformerv2_s12": {"official": BASELINES, "timm": TIMM_METAFORMER},
        "convformer_s18": {"official": BASELINES_HIDDEN, "timm": TIMM_METAFORMER_HIDDEN},
        "caformer_s18": {"official": BASELINES_HIDDEN, "timm": TIMM_METAFORMER_HIDDEN},
        "deit_tiny_patch16_224": {"official": VIT, "timm": VIT},
        "mixer_s16_224": {"timm": TIMM_MIXER},
        "resmlp_12_224": {"official": RESMLP, "timm": TIMM_RESMLP},
        "pvt_tiny": {"official": PVT},
        "convmixer_256_8_p2_k5": {"official": CONVMIXER, "timm": TIMM_CONVMIXER},
        "t2t_vit_7": {"official": T2T_PERFORMER},
        "t2t_vit_t_14": {"official": T2T_TRANSFORMER},
        "t2t_vit_14_se": {"official": T2T_SE},
    }
)


def conventions(arch: Architecture) -> tuple[Convention, ...]:
    """Which names the tensors of this architecture have: ours always, others where a paper's model is built like it."""
    return ("ours", *_namings(arch))


def resampling(arch: Architecture) -> Resampling:
    """How the official code of the architecture's family fits position embeddings to another resolution."""
    official = _namings(arch).get("official")
    return official.resampling if official else Naming.resampling


def places(arch: Architecture, convention: Convention, shapes: Mapping[str, Shape]) -> dict[str, Place]:
    """By its name in `convention`, where each tensor belongs; `shapes` are those of our own tensors.

    Raises:
        KeyError: The architecture has no such names, see `conventions`.
    """
    if convention == "ours":
        return {path: Place(path, shape) for path, shape in shapes.items()}
    naming = _namings(arch)[convention]
    items = _list_items(arch)
    found = {}
    for path, shape in shapes.items():
        at = _locate(path)
        name = _rename(at, naming, depth=arch.depth, items=items[at.stage])
        mixer = arch.stages[at.stage].mixer_of(at.block).kind
        found.update(_split(name, _lay_out(at.role, path, shape, mixer, naming), naming))
    return found


def _namings(arch: Architecture) -> Mapping[Convention, Naming]:
    form = _form(arch)
    return next((namings for name, namings in _NAMINGS.items() if _form(zoo.get(name)) == form), {})


def _form(arch: Architecture) -> object:
    """What decides the names of an architecture's tensors, whatever their number and shape."""
    stem = arch.stem.attention if isinstance(arch.stem, TokensToToken) else _conv_form(arch.stem)
    head = (arch.head.pool, _norm_form(arch.head.norm), arch.head.hidden_ratio is None)
    return stem, tuple(_stage_form(stage) for stage in arch.stages), head


def _stage_form(stage: Stage) -> object:
    choices = {name: value for name, value in stage.mixer.model_dump().items() if isinstance(value, bool)}
    learned = {getattr(part, "activation", None) == "star_relu" for part in (stage.mixer, stage.mlp)}
    return (
        (stage.mixer.kind, choices, learned, stage.interleaved is None),
        _norm_form(stage.norm),
        None if stage.mlp is None else (stage.mlp.bias, stage.mlp.ghost),
        (stage.class_token, stage.position_embedding, stage.residual),
        (stage.layer_scale is None, stage.res_scale is None, stage.post_activation is None),
        (stage.se_reduction is None, stage.dense is None),
        _conv_form(stage.downsample),
    )


def _conv_form(conv: Conv | None) -> object:
    if conv is None:
        return None
    norms = [norm and _norm_form(norm) for norm in (conv.pre_norm, conv.post_norm)]
    return conv.activation is None, conv.activation == "star_relu", norms


def _norm_form(norm: Norm) -> object:
    return norm.kind, norm.bias


def _list_items(arch: Architecture) -> list[dict[str, int]]:
    """Of each stage, where PoolFormer's list has its downsampling, its positions and its blocks."""
    items, following = [], 0
    for index, stage in enumerate(arch.stages):
        down = following
        position = down + bool(index)
        blocks = position + bool(stage.position_embedding)
        items.append({"down_item": down, "position_item": position, "stage_item": blocks})
        following = blocks + 1
    return items


class _Location(NamedTuple):
    role: str
    stage: int = 0
    block: int = 0


_STAGE = re.compile(r"stages\.(\d+)\.(?:(embed|class_token|position)|blocks\.(\d+))(.*)")


def _locate(path: str) -> _Location:
    match = _STAGE.fullmatch(path)
    if not match:
        return _Location(path)
    stage, block = int(match[1]), int(match[3] or 0)
    kind = match[2] or "block"
    if kind == "embed":
        kind = "down" if stage else "stem"
    return _Location(kind + match[4], stage, block)


def _rename(at: _Location, naming: Naming, *, depth: int, items: Mapping[str, int]) -> str:
    prefix = next(prefix for prefix in _prefixes(at.role) if prefix in naming.names)
    name = naming.names[prefix] + at.role[len(prefix) :]
    counted = {
        "stage": at.stage,
        "number": at.stage + 1,
        "block": at.block,
        "block_item": at.block + 3,
        "last_item": depth + 5,
    }
    return name.lstrip(".").format(**counted, **items)


def _prefixes(role: str) -> Iterable[str]:
    """The role and its prefixes, longest first."""
    while role:
        yield role
        role = role.rpartition(".")[0]


def _lay_out(role: str, path: str, shape: Shape, mixer: str, naming: Naming) -> Place:
    module = role.rpartition(".")[0]
    if module == "position" and naming.positions == "tokens":
        return Place(path, (1, shape[2] * shape[3], shape[1]), "tokens")
    if module in naming.convolutions and len(shape) == 2 and mixer not in naming.linear_stages:
        return Place(path, (*shape, 1, 1), "convolution")
    if module in naming.leading_ones:
        return Place(path, (1, 1, *shape), "leading_ones")
    return Place(path, shape)


def _split(name: str, place: Place, naming: Naming) -> dict[str, Place]:
    if not (naming.splits_qkv and ".qkv." in name):
        return {name: place}
    third = place.shape[0] // 3
    parts: dict[str, tuple[int, int]] = {"q": (0, 1), "kv": (1, 3)}
    return {
        name.replace(".qkv.", f".{part}."): place._replace(
            shape=((stop - start) * third, *place.shape[1:]), thirds=(start, stop)
        )
        for part, (start, stop) in parts.items()
    }
