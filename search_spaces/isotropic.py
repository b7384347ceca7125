"""One mixer in all blocks: the space in which DeiT, MLP-Mixer, ResMLP and a ConvMixer are points.

Genes: patch size, mixer and its window, what stands around the mixer, positions, class token, ratio of the channel MLP,
width and depth. What stands around it is that of one of five families, whichever the mixer:

| surroundings | norm | LayerScale | beside |
| --- | --- | --- | --- |
| deit | layer norm | none | drop path 0.1 |
| mlp_mixer | layer norm | none | the classifier starts at zero |
| resmlp | affine | from 0.1, less in deep and wide models | |
| poolformer | modified layer norm | from 1e-5, 1e-6 beyond 24 blocks | drop path 0.1 |
| convmixer | batch norm behind each part | none | one linear layer in place of the channel MLP |

So a front tells what the mixer adds and what the rest does. A class token reads out attention alone: other mixers need
a map, and identity would leave it as it is. Attention has heads of 64 channels, before the widths are scaled, and
biases. DeiT's distillation, gMLP, overlapping patches and ConvMixers with ReLU or wider than 1024 are left out.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

from metaformer.architecture import Architecture, Init
from metaformer.errors import unknown_name
from metaformer.specs import (
    Activation,
    AttentionSpec,
    DepthwiseConvSpec,
    Head,
    IdentitySpec,
    MixerSpec,
    Mlp,
    Norm,
    PoolSpec,
    RandomSpec,
    ReducedAttentionSpec,
    SepConvSpec,
    SpatialMlpSpec,
    Stage,
    Stem,
    TokenMlpSpec,
)
from search_spaces import convmixer
from search_spaces.convmixer import KERNELS, ConvMixer
from search_spaces.one_stage import PATCH, OneStageSpace, useful_size
from search_spaces.space import (
    HEAD_SIZE,
    Choice,
    Gene,
    Genes,
    SearchSpace,
    SpaceError,
    SpaceSettings,
    register_space,
)


class Fitted(NamedTuple):
    """What the other genes say of a mixer."""

    width: int  # of the stage
    head_size: int
    size: int  # of its window


MIXERS: dict[str, Callable[[Fitted], MixerSpec]] = {
    "attention": lambda fitted: AttentionSpec(head_size=fitted.head_size, qkv_bias=True),
    "reduced_attention": lambda fitted: ReducedAttentionSpec(head_size=fitted.head_size),
    "spatial_mlp": lambda _: SpatialMlpSpec(bias=True),
    "token_mlp": lambda fitted: TokenMlpSpec(hidden=fitted.width // 2),
    "dwconv": lambda fitted: DepthwiseConvSpec(size=fitted.size),
    "sep_conv": lambda fitted: SepConvSpec(size=fitted.size),
    "pool": lambda fitted: PoolSpec(size=fitted.size),
    "random": lambda _: RandomSpec(),
    "identity": lambda _: IdentitySpec(),
}
WITH_WINDOW = ("dwconv", "sep_conv", "pool")
SIZES = (3, 5, 7, 9)
POSITIONS = ("none", "learned")
READOUTS = ("mean", "class_token")
RATIOS = (2, 3, 4)
WIDTHS = tuple(range(64, 1025, 64))
DEPTHS = tuple(range(4, 37, 4))
PUBLISHED = (
    "deit_tiny_patch16_224",
    "deit_small_patch16_224",
    "deit_base_patch16_224",
    "mixer_s16_224",
    "mixer_b16_224",
    "mixer_l16_224",
    "resmlp_12_224",
    "resmlp_24_224",
    "resmlp_36_224",
    "resmlp_b24_224",
    "resmlp_big_24_224",
)
LARGE = (*PUBLISHED, "convmixer_1024_20_ks9_p14")
SMALL = (*PUBLISHED, "convmixer_256_8_p1_k9", "convmixer_256_8_p2_k5", "convmixer_256_16_p1_k9")


def _no_layer_scale(depth: int, width: int) -> None:
    del depth, width


def _resmlp_layer_scale(depth: int, width: int) -> float:
    """That of S12, S24, S36 and B24 in models of their depth and width (before scaling)."""
    if depth <= 18:
        return 0.1
    return 1e-5 if depth <= 24 and width < 768 else 1e-6


def _poolformer_layer_scale(depth: int, width: int) -> float:
    del width
    return 1e-5 if depth <= 24 else 1e-6


@dataclass(frozen=True)
class Surroundings:
    """What a family has around its mixer; LayerScale by depth and width."""

    norm: Norm
    layer_scale: Callable[[int, int], float | None] = _no_layer_scale
    drop_path: float = 0.0
    drop_path_schedule: Literal["linear", "constant"] = "linear"
    zero_init: bool = False  # of the classifier
    init: Init = "poolformer"
    post_activation: Activation | None = None


SURROUNDINGS = {
    "deit": Surroundings(Norm(kind="layer_norm", eps=1e-6), drop_path=0.1, init="transformer"),
    "mlp_mixer": Surroundings(Norm(kind="layer_norm", eps=1e-6), zero_init=True),
    "resmlp": Surroundings(Norm(kind="affine"), layer_scale=_resmlp_layer_scale, drop_path_schedule="constant"),
    "poolformer": Surroundings(Norm(kind="mln"), layer_scale=_poolformer_layer_scale, drop_path=0.1),
    "convmixer": Surroundings(Norm(kind="batch_norm"), init="pytorch", post_activation="gelu"),
}
NO_NORM = Norm(kind="none")


@register_space("isotropic")
class Isotropic(OneStageSpace):
    """Patches, then equal blocks of any one mixer in the surroundings of any one family."""

    def __init__(self, settings: SpaceSettings) -> None:
        super().__init__(settings)
        self.choices = (
            Choice(PATCH, self.patches),
            Choice("mixer", tuple(MIXERS)),
            Choice("size", SIZES),
            Choice("surroundings", tuple(SURROUNDINGS)),
            Choice("readout", READOUTS),
            Choice("positions", POSITIONS),
            Choice("mlp_ratio", RATIOS),
            Choice("width", WIDTHS),
            Choice("depth", DEPTHS),
        )

    def decode(self, genes: Mapping[str, Gene]) -> Architecture:
        around = SURROUNDINGS[str(genes["surroundings"])]
        depth, width = int(genes["depth"]), int(genes["width"])
        mixer = self._mixer(genes)
        is_convmixer = around.post_activation is not None
        class_token = genes["readout"] == "class_token" and _may_have_class_token(genes)
        stage = Stage(
            depth=depth,
            width=self.scaled(width),
            mixer=mixer,
            class_token=class_token,
            position_embedding="learned" if genes["positions"] == "learned" else None,
            norm=around.norm,
            mlp=None if is_convmixer else Mlp(ratio=int(genes["mlp_ratio"])),
            layer_scale=around.layer_scale(depth, width),
            post_activation=around.post_activation,
        )
        return Architecture(
            resolution=self.settings.resolution,
            stem=_stem(int(genes[PATCH]), around),
            stages=(stage,),
            head=Head(
                pool="class_token" if class_token else "mean",
                norm=NO_NORM if is_convmixer else around.norm,
                zero_init=around.zero_init,
                num_classes=self.settings.num_classes,
            ),
            drop_path=around.drop_path,
            drop_path_schedule=around.drop_path_schedule,
            init=around.init,
        )

    def encode(self, arch: Architecture) -> Genes:
        stage, stem = self.stage_and_stem(arch)
        genes: Genes = {
            PATCH: str(stem.kernel),
            "mixer": stage.mixer.kind,
            "size": getattr(stage.mixer, "size", SIZES[0]),
            "surroundings": _surroundings_of(arch),
            "readout": arch.head.pool,
            "positions": stage.position_embedding or POSITIONS[0],
            "mlp_ratio": stage.mlp.ratio if stage.mlp else RATIOS[0],
            "width": self.width_gene(stage),
            "depth": stage.depth,
        }
        return self._checked(genes, arch)

    @cached_property
    def size(self) -> int:
        with_mlp = len(SURROUNDINGS) - 1
        read_out_by_mean = with_mlp * len(RATIOS) + 1  # surroundings and channel MLPs
        num_others = len(MIXERS) - len(WITH_WINDOW)
        total = 0
        for side in self.sides.values():
            mixers = num_others + len(WITH_WINDOW) * len({useful_size(size, side) for size in SIZES})
            total += mixers * read_out_by_mean + with_mlp * len(RATIOS)  # attention with a class token
        return total * len(POSITIONS) * len(WIDTHS) * len(DEPTHS)

    def num_shared(self, other: SearchSpace) -> int | None:
        """With `convmixer` the ConvMixers with a skip, GELU and batch norm."""
        if not isinstance(other, ConvMixer):
            return super().num_shared(other)
        kernels = sum(len({useful_size(size, side) for size in {*SIZES} & {*KERNELS}}) for side in self.sides.values())
        return kernels * len({*WIDTHS} & {*convmixer.WIDTHS}) * len({*DEPTHS} & {*convmixer.DEPTHS})

    def reference_names(self) -> tuple[str, ...]:
        return SMALL if self.is_small else LARGE

    def _mixer(self, genes: Mapping[str, Gene]) -> MixerSpec:
        kind = str(genes["mixer"])
        if kind not in MIXERS:
            raise SpaceError(unknown_name("mixer", kind, MIXERS))
        fitted = Fitted(
            width=self.scaled(int(genes["width"])),
            head_size=self.scaled(2 * HEAD_SIZE),
            size=useful_size(int(genes["size"]), self.sides[int(genes[PATCH])]),
        )
        return MIXERS[kind](fitted)


def _may_have_class_token(genes: Mapping[str, Gene]) -> bool:
    return genes["mixer"] == "attention" and genes["surroundings"] != "convmixer"


def _stem(patch: int, around: Surroundings) -> Stem:
    if around.post_activation is None:
        return Stem(kernel=patch, stride=patch, padding=0)
    return Stem(kernel=patch, stride=patch, padding=0, activation=around.post_activation, post_norm=around.norm)


def _surroundings_of(arch: Architecture) -> str:
    """The family whose surroundings an architecture has, if it has those of any."""
    [stage] = arch.stages
    if stage.post_activation is not None:
        return "convmixer"
    match stage.norm.kind:
        case "affine":
            return "resmlp"
        case "mln":
            return "poolformer"
    return "mlp_mixer" if arch.head.zero_init else "deit"
