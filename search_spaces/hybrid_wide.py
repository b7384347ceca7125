"""Hybrids of PoolFormer's and the Baselines' kind: every stage its own mixer of eight (arXiv:2111.11418, 2210.13452).

Genes: what stands around the mixers, as in PoolFormer or as in the MetaFormer Baselines; those of `hybrid_stages`, with
more mixers and finer widths; for the whole the ratio and activation of the channel MLPs, in which stages the skips are
scaled, and whether the classifier has a hidden layer.

| surroundings | norms | stem and downsampling | beside |
| --- | --- | --- | --- |
| poolformer | with bias, eps 1e-5 | without norm | positions before the first attention; LayerScale |
| baselines | without bias, eps 1e-6 | with layer norm | no biases in channel MLPs and attention; head pools first |

What the papers tie to these is tied here too: with the size of the model LayerScale falls from 1e-5 to 1e-6, and drop
path and, with a hidden layer in the head, dropout rise, as from S12 to M48 and from ConvFormer-S18 to CAFormer-B36. A
separable convolution has the activation of the channel MLPs. Reduced attention brings its map down to about 7 tokens a
side, as in the first three stages of PVT (arXiv:2102.12122), and at least to half, where PVT's last stage has plain
attention; its heads have 32 channels, and its layers biases in both surroundings. On a single token it is attention.
Ablations without a norm, a skip or a channel MLP are left out, and so is RandFormer-M48, whose drop path is another
than that of PoolFormerV2-M48.
"""

from collections.abc import Mapping
from functools import cached_property
from math import prod

from metaformer.architecture import Architecture
from metaformer.errors import unknown_name
from metaformer.specs import (
    Activation,
    AttentionSpec,
    Downsample,
    Head,
    Interleaved,
    MixerSpec,
    Mlp,
    Norm,
    RandomSpec,
    ReducedAttentionSpec,
    SepConvSpec,
    Stage,
)
from metaformer.zoo import baselines
from search_spaces import hybrid_stages
from search_spaces.hybrid_stages import (
    DEPTHS,
    NORMS,
    RATIOS,
    SIZES,
    STAGES,
    HybridStages,
    depth_genes,
    distinct_pool,
    drop_path_of,
    share_depth,
)
from search_spaces.space import HEAD_SIZE, Choice, Gene, Genes, SearchSpace, SpaceError, register_space

SURROUNDINGS = ("poolformer", "baselines")
WITH_WINDOW = ("pool", "dwconv", "sep_conv")
MIXERS = (*hybrid_stages.MIXERS, "sep_conv", "random", "reduced_attention")
WIDTHS = (
    tuple(range(32, 129, 32)),
    tuple(range(64, 257, 64)),
    tuple(range(128, 513, 64)),
    tuple(range(256, 769, 64)),
)
MLP_RATIOS = (1, 2, 3, 4, 5, 6)
ACTIVATIONS: dict[str, Activation] = {"gelu": "gelu", "relu": "relu", "silu": "silu", "star_relu": "star_relu"}
SCALED_SKIPS = {"none": (), "late": (3, 4), "all": STAGES}  # stages whose skips have a learned factor
HEADS: dict[str, int | None] = {"linear": None, "mlp": 4}  # ratio of the hidden layer
EVERY = ("never", "2", "3", "4")  # which blocks of a stage have attention
REDUCED_SIDE = 7  # tokens
REFERENCES = (
    *hybrid_stages.REFERENCES,
    "metaformer_random_s12_224",
    "poolformer_s12_relu",
    "poolformer_s12_silu",
    *(name for name in baselines.MODELS if name != "randformer_m48"),
)


@register_space("hybrid_wide")
class HybridWide(HybridStages):
    """Four stages, each with its own mixer, size, norm and width, in surroundings that all share."""

    reference_names = REFERENCES
    choices = (
        Choice("surroundings", SURROUNDINGS),
        *(Choice(f"mixer_{i}", MIXERS) for i in STAGES),
        *(Choice(f"size_{i}", SIZES) for i in STAGES),
        *(Choice(f"norm_{i}", NORMS) for i in STAGES),
        *(Choice(f"width_{i}", WIDTHS[i - 1]) for i in STAGES),
        Choice("depth", DEPTHS),
        Choice("depth_ratio", RATIOS),
        Choice("mlp_ratio", MLP_RATIOS),
        Choice("activation", tuple(ACTIVATIONS)),
        Choice("scaled_skips", tuple(SCALED_SKIPS)),
        Choice("head", tuple(HEADS)),
    )

    def decode(self, genes: Mapping[str, Gene]) -> Architecture:
        is_baseline = genes["surroundings"] == "baselines"
        mixers = [self._wide_mixer(genes, i) for i in STAGES]
        depth = int(genes["depth"])
        depths = share_depth(depth, str(genes["depth_ratio"]))
        others = [
            self.interleaved(genes, i, mixer=mixer, depth=blocks)
            for i, mixer, blocks in zip(STAGES, mixers, depths, strict=True)
        ]
        with_attention = [i for i in STAGES if _is_attention(mixers[i - 1]) or others[i - 1]]
        layer_scale = None if is_baseline else 1e-5 if depth <= 24 else 1e-6
        stages = tuple(
            Stage(
                depth=depths[i - 1],
                width=round(int(genes[f"width_{i}"]) * self.settings.width_scale),
                mixer=mixers[i - 1],
                interleaved=others[i - 1],
                downsample=Downsample(pre_norm=baselines.LAYER_NORM if is_baseline else None) if i > 1 else None,
                position_embedding="learned" if not is_baseline and [i] == with_attention[:1] else None,
                norm=_norm(genes, i),
                mlp=Mlp(
                    ratio=int(genes["mlp_ratio"]),
                    activation=ACTIVATIONS[str(genes["activation"])],
                    bias=not is_baseline,
                ),
                layer_scale=layer_scale,
                res_scale=1.0 if i in SCALED_SKIPS[str(genes["scaled_skips"])] else None,
            )
            for i in STAGES
        )
        stem = self.settings.stem
        drop_path, dropout = _rates(genes, with_attention=bool(with_attention))
        return Architecture(
            resolution=self.settings.resolution,
            stem=stem.model_copy(update={"post_norm": baselines.LAYER_NORM}) if is_baseline else stem,
            stages=stages,
            head=Head(
                order="pool_then_norm" if is_baseline else "norm_then_pool",
                norm=Norm(kind="layer_norm", eps=1e-6) if is_baseline else stages[-1].norm,
                hidden_ratio=HEADS[str(genes["head"])],
                dropout=dropout,
                num_classes=self.settings.num_classes,
            ),
            drop_path=drop_path,
            init="baselines" if is_baseline else "poolformer",
        )

    def encode(self, arch: Architecture) -> Genes:
        return self._checked(self.genes_of(arch), arch)

    def genes_of(self, arch: Architecture) -> Genes:
        """What genes an architecture has, if it is one of the space.

        Raises:
            SpaceError: No genes give the depths of its stages.
        """
        genes = self.genes_of_stages(arch.stages)
        mlp = arch.stages[0].mlp or Mlp()
        scaled = tuple(i for i, stage in zip(STAGES, arch.stages, strict=True) if stage.res_scale is not None)
        skips = (name for name, stages in SCALED_SKIPS.items() if stages == scaled)
        genes |= {
            "surroundings": "baselines" if arch.init == "baselines" else "poolformer",
            "mlp_ratio": mlp.ratio,
            "activation": mlp.activation,
            "scaled_skips": next(skips, f"stages {scaled}"),
            "head": "mlp" if arch.head.hidden_ratio else "linear",
        }
        return genes

    def interleaved(self, genes: Mapping[str, Gene], i: int, *, mixer: MixerSpec, depth: int) -> Interleaved | None:
        """What some blocks of a stage have in place of its mixer; here nothing."""
        del genes, i, mixer, depth
        return None

    @cached_property
    def size(self) -> int:
        total = len(SURROUNDINGS) * len(MLP_RATIOS) * len(ACTIVATIONS) * len(SCALED_SKIPS) * len(HEADS)
        for widths in WIDTHS:
            total *= len(NORMS) * len(widths)
        return total * sum(
            prod(self.num_mixers(side, depth) for side, depth in zip(self.sides, depths, strict=True))
            for depths in depth_genes()
        )

    def num_mixers(self, side: int, depth: int) -> int:
        """Different mixers, with their windows, of a stage with a map of that side and so many blocks."""
        del depth
        pools = len({distinct_pool(size, side) for size in SIZES})
        others = len(MIXERS) - len(WITH_WINDOW) - (side < 2)  # on one token reduced attention is attention
        return pools + (len(WITH_WINDOW) - 1) * len(SIZES) + others

    def num_shared(self, other: SearchSpace) -> int | None:
        """With `hybrid_stages` all of its architectures."""
        return other.size if type(other) is HybridStages else super().num_shared(other)

    def _attention(self, genes: Mapping[str, Gene]) -> AttentionSpec:
        head_size = round(HEAD_SIZE * self.settings.width_scale)
        return AttentionSpec(head_size=head_size, proj_bias=genes["surroundings"] != "baselines")

    def _wide_mixer(self, genes: Mapping[str, Gene], i: int) -> MixerSpec:
        kind, size, side = str(genes[f"mixer_{i}"]), int(genes[f"size_{i}"]), self.sides[i - 1]
        if kind not in MIXERS:
            raise SpaceError(unknown_name(f"mixer_{i}", kind, MIXERS))
        if kind == "reduced_attention" and side > 1:
            reduction = max(2, side // REDUCED_SIDE)
            return ReducedAttentionSpec(head_size=self._attention(genes).head_size, reduction=reduction)
        if kind in ("attention", "reduced_attention"):
            return self._attention(genes)
        if kind == "sep_conv":
            return SepConvSpec(size=size, activation=ACTIVATIONS[str(genes["activation"])])
        return RandomSpec() if kind == "random" else self._mixer(kind, size, side)


@register_space("hybrid_blocks")
class HybridBlocks(HybridWide):
    """The same with attention in every second, third or fourth block of a stage, whose own mixer the others have.

    It does nothing where a stage has attention already, or fewer blocks.
    """

    choices = (*HybridWide.choices, *(Choice(f"attention_{i}", EVERY) for i in STAGES))

    def genes_of(self, arch: Architecture) -> Genes:
        genes = super().genes_of(arch)
        for i, stage in zip(STAGES, arch.stages, strict=True):
            genes[f"attention_{i}"] = str(stage.interleaved.every) if stage.interleaved else EVERY[0]
        return genes

    def interleaved(self, genes: Mapping[str, Gene], i: int, *, mixer: MixerSpec, depth: int) -> Interleaved | None:
        """Attention in every n-th block, where that says anything."""
        every = genes[f"attention_{i}"]
        if every == EVERY[0] or int(every) > depth or isinstance(mixer, AttentionSpec):
            return None
        return Interleaved(mixer=self._attention(genes), every=int(every))

    def num_mixers(self, side: int, depth: int) -> int:
        patterns = 1 + sum(int(every) <= depth for every in EVERY[1:])
        return 1 + (super().num_mixers(side, depth) - 1) * patterns

    def num_shared(self, other: SearchSpace) -> int | None:
        """With `hybrid_stages` and `hybrid_wide` all of their architectures."""
        return other.size if type(other) is HybridWide else super().num_shared(other)


def _is_attention(mixer: MixerSpec) -> bool:
    return isinstance(mixer, AttentionSpec | ReducedAttentionSpec)


def _norm(genes: Mapping[str, Gene], i: int) -> Norm:
    norm = {"kind": genes[f"norm_{i}"]}
    return Norm.model_validate(norm if genes["surroundings"] == "poolformer" else {**norm, "eps": 1e-6, "bias": False})


def _rates(genes: Mapping[str, Gene], *, with_attention: bool) -> tuple[float, float]:
    """Drop path and dropout of the head.

    With a hidden layer in the head they are those of CAFormer in its sizes, or without attention of ConvFormer, else
    those of PoolFormer, which are PoolFormerV2's too.
    """
    depth, last_width = int(genes["depth"]), int(genes["width_4"])
    if HEADS[str(genes["head"])] is None:
        return drop_path_of(depth, last_width), 0.0
    if depth <= 24:
        return (0.15 if with_attention else 0.2), 0.0
    drop_path = 0.3 if last_width <= 512 else 0.4 if last_width <= 640 else 0.6
    return drop_path, (0.0 if not with_attention else 0.4 if last_width <= 640 else 0.5)
