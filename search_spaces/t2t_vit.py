"""A ViT behind tokens-to-token or plain patches: the space in which T2T-ViTs are points (arXiv:2101.11986).

Genes: the stem, the pixels between its tokens, how far its soft splits overlap, the width of its token layers; the
readout, positions, head size, ratio of the channel MLP, width and depth. The pixels between tokens are shared out over
three splits, so that 16 of them are the paper's strides of 4, 2 and 2. A kernel is as large as the stride, as large as
in the paper (7, 3 and 3 for these), or larger by two. Token layers are performers, with dropout 0.1 as in the official
code, or transformers. Plain patches have neither an overlap nor token layers. Attention has no bias but that of its
projection, and drop path is 0.1.

`t2t_structures` is the same with what the paper borrows from CNNs (section 3.2): a gene `structure`, and smaller heads.
"""

from collections.abc import Callable, Mapping
from functools import cached_property
from itertools import accumulate, pairwise
from math import prod
from typing import Literal

from metaformer.architecture import Architecture
from metaformer.specs import (
    AttentionSpec,
    Dense,
    Head,
    Mlp,
    SoftSplit,
    Stage,
    Stem,
    TokensToToken,
)
from metaformer.zoo.t2t_vit import LAYER_NORM, PERFORMER, PLAIN, STRUCTURED, TRANSFORMER
from search_spaces.convmixer import ConvMixer
from search_spaces.isotropic import Isotropic
from search_spaces.one_stage import PATCH, OneStageSpace
from search_spaces.space import Choice, Gene, Genes, SearchSpace, SpaceError, SpaceSettings, register_space

STEMS = {"performer": PERFORMER, "transformer": TRANSFORMER, "patches": None}
OVERLAPS: dict[str, Callable[[int], int]] = {  # kernel of a soft split by its stride
    "none": lambda stride: stride,
    "paper": lambda stride: max(3, 2 * stride - 1),
    "wide": lambda stride: max(3, 2 * stride - 1) + 2,
}
TOKEN_WIDTHS = (32, 64)
READOUTS = ("class_token", "mean")
POSITIONS: dict[str, Literal["sinusoidal", "learned"] | None] = {
    "sinusoidal": "sinusoidal",
    "learned": "learned",
    "none": None,
}
HEAD_SIZES = (32, 64)
SPLIT_HEAD_SIZES = ("16", "32", "64")  # text, since they are not evenly spaced
STRUCTURES = ("plain", "se", "ghost", "dense")
SE_REDUCTION = 16
DENSE_GROUPS = (3, 6, 6, 4)  # blocks of T2T-ViT-Dense between its transitions
GROWTH = 64  # channels that a block of it adds
RATIOS = (2, 3, 4)
WIDTHS = tuple(range(64, 769, 64))
DEPTHS = tuple(range(4, 25))
STEM_GENES = ("stem", PATCH, "overlap", "token_width")
NUM_LATER_SPLITS = 2  # behind the first; their strides are 2 as long as they divide the whole


@register_space("t2t_vit")
class T2TViT(OneStageSpace):
    """Tokens-to-token or patches, then equal blocks of attention and a channel MLP."""

    def __init__(self, settings: SpaceSettings) -> None:
        """Raises SpaceError also where the token layers, which need an even width, cannot be scaled."""
        super().__init__(settings)
        if self.scaled(min(TOKEN_WIDTHS)) % 2:
            raise SpaceError(
                f"settings.width_scale: must turn the width {min(TOKEN_WIDTHS)} of token layers into an even number in "
                f"{self.name}, got {settings.width_scale}"
            )
        self.choices = (
            Choice("stem", tuple(STEMS)),
            Choice(PATCH, self.patches),
            Choice("overlap", tuple(OVERLAPS)),
            Choice("token_width", TOKEN_WIDTHS),
            Choice("readout", READOUTS),
            Choice("positions", tuple(POSITIONS)),
            Choice("head_size", HEAD_SIZES),
            Choice("mlp_ratio", RATIOS),
            Choice("width", WIDTHS),
            Choice("depth", DEPTHS),
        )

    def decode(self, genes: Mapping[str, Gene]) -> Architecture:
        class_token = genes["readout"] == "class_token"
        return Architecture(
            resolution=self.settings.resolution,
            stem=self._stem(genes),
            stages=(self._stage(genes),),
            head=Head(
                pool="class_token" if class_token else "mean",
                norm=LAYER_NORM,
                num_classes=self.settings.num_classes,
            ),
            drop_path=0.1,
        )

    def encode(self, arch: Architecture) -> Genes:
        return self._checked(self.genes_of(arch), arch)

    def genes_of(self, arch: Architecture) -> Genes:
        """The genes that an architecture has if it is of the space."""
        stage = self.only_stage(arch)
        if not isinstance(stage.mixer, AttentionSpec):
            raise SpaceError(f"mixer: must be attention in {self.name}, got {stage.mixer.kind}")
        genes: Genes = {
            "stem": arch.stem.attention if isinstance(arch.stem, TokensToToken) else "patches",
            PATCH: str(arch.stem.stride),
            "overlap": next(iter(OVERLAPS)),
            "token_width": TOKEN_WIDTHS[0],
            "readout": arch.head.pool,
            "positions": stage.position_embedding or "none",
            "head_size": round(stage.mixer.head_size / self.settings.width_scale),
            "mlp_ratio": stage.mlp.ratio if stage.mlp else RATIOS[0],
            "width": self.width_gene(stage),
            "depth": stage.depth,
        }
        if isinstance(arch.stem, TokensToToken):
            first = arch.stem.splits[0]
            overlaps = (name for name, kernel in OVERLAPS.items() if kernel(first.stride) == first.kernel)
            genes["overlap"] = next(overlaps, f"kernel {first.kernel}")
            genes["token_width"] = round(arch.stem.token_width / self.settings.width_scale)
        return genes

    @cached_property
    def size(self) -> int:
        stems = 2 * len(OVERLAPS) * len(TOKEN_WIDTHS) + 1  # performers, transformers, patches
        of_blocks = (choice for choice in self.choices if choice.name not in STEM_GENES)
        return len(self.patches) * stems * prod(len(choice.values) for choice in of_blocks)

    def num_shared(self, other: SearchSpace) -> int | None:
        """None with the other spaces of one stage: their attention has biases, or they have none."""
        return 0 if isinstance(other, ConvMixer | Isotropic) else super().num_shared(other)

    def reference_names(self) -> tuple[str, ...]:
        return tuple(PLAIN)

    def _stage(self, genes: Mapping[str, Gene]) -> Stage:
        structure, depth = genes.get("structure"), int(genes["depth"])
        ghost, is_dense = structure == "ghost", structure == "dense"
        return Stage(
            depth=depth,
            width=self.scaled(int(genes["width"])),
            mixer=AttentionSpec(head_size=self.scaled(int(genes["head_size"])), ghost=ghost),
            class_token=genes["readout"] == "class_token",
            position_embedding=POSITIONS[str(genes["positions"])],
            norm=LAYER_NORM,
            mlp=Mlp(ratio=int(genes["mlp_ratio"]), ghost=ghost),
            layer_scale=None,
            se_reduction=SE_REDUCTION if structure == "se" else None,
            dense=Dense(growth=self.scaled(GROWTH), groups=dense_groups(depth)) if is_dense else None,
        )

    def _stem(self, genes: Mapping[str, Gene]) -> Stem | TokensToToken:
        kind, patch = str(genes["stem"]), int(genes[PATCH])
        published = STEMS[kind]
        if published is None:
            return Stem(kernel=patch, stride=patch, padding=0)
        kernel = OVERLAPS[str(genes["overlap"])]
        return published.model_copy(
            update={
                "token_width": self.scaled(int(genes["token_width"])),
                "splits": tuple(soft_split(kernel(stride), stride) for stride in share_stride(patch)),
            }
        )


@register_space("t2t_structures")
class T2TStructures(T2TViT):
    """The same with the structures of CNNs that the paper tries, and with heads of 16 channels for its split ones.

    `se`: squeeze-and-excitation behind the attention. `ghost`: Ghost operations in the attention and the channel MLP.
    `dense`: a width that grows by 64 a block, and halves at three transitions, which stand where those of T2T-ViT-Dense
    do; it is a multiple of the head size, where the paper keeps the number of heads.
    """

    def __init__(self, settings: SpaceSettings) -> None:
        super().__init__(settings)
        heads = Choice("head_size", SPLIT_HEAD_SIZES)
        own = (heads if choice.name == heads.name else choice for choice in self.choices)
        self.choices = (*own, Choice("structure", STRUCTURES))

    def genes_of(self, arch: Architecture) -> Genes:
        genes = super().genes_of(arch)
        stage = self.only_stage(arch)
        structures = {"se": stage.se_reduction, "ghost": stage.mlp and stage.mlp.ghost, "dense": stage.dense}
        genes["structure"] = next((name for name, has in structures.items() if has), STRUCTURES[0])
        genes["head_size"] = str(genes["head_size"])
        return genes

    def reference_names(self) -> tuple[str, ...]:
        return (*PLAIN, *STRUCTURED)

    def num_shared(self, other: SearchSpace) -> int | None:
        """With `t2t_vit` all of its architectures."""
        return other.size if type(other) is T2TViT else super().num_shared(other)


def dense_groups(depth: int) -> tuple[int, ...]:
    """Numbers of blocks between transitions, which come as early as in T2T-ViT-Dense: 3, 6, 6 and 4 of 19."""
    ends = [0, *(round(depth * end / sum(DENSE_GROUPS)) for end in accumulate(DENSE_GROUPS))]
    return tuple(end - start for start, end in pairwise(ends))


def share_stride(stride: int) -> tuple[int, ...]:
    """The strides of three soft splits, whose product is `stride`: the last two are 2 where that divides it."""
    later: list[int] = []
    for _ in range(NUM_LATER_SPLITS):
        later.append(1 if stride % 2 else 2)
        stride //= later[-1]
    return (stride, *later)


def soft_split(kernel: int, stride: int) -> SoftSplit:
    """One that turns a map whose side the stride divides into one of that part of its side."""
    return SoftSplit(kernel=kernel, stride=stride, padding=(kernel - stride + 1) // 2)
