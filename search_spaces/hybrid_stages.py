"""Every stage its own mixer: the space in which PoolFormer and its hybrids are points (arXiv:2111.11418).

Genes: for each of four stages a mixer, a kernel or pool size, a norm and a width; for the whole the number of blocks
and how they are shared out. What the papers tie to these is tied here too: positions are learned before the first
attention stage, the last norm is that of stage 4, LayerScale starts at 1e-5 up to 24 blocks and at 1e-6 beyond, and the
drop path grows with the model as from S12 to M48.
"""

from collections.abc import Mapping, Sequence
from functools import cache, cached_property, lru_cache

from metaformer import zoo
from metaformer.architecture import Architecture
from metaformer.specs import (
    AttentionSpec,
    DepthwiseConvSpec,
    Downsample,
    Head,
    IdentitySpec,
    MixerSpec,
    Norm,
    PoolSpec,
    SpatialMlpSpec,
    Stage,
)
from search_spaces.space import HEAD_SIZE, Choice, Gene, Genes, SearchSpace, SpaceError, SpaceSettings, register_space

MIXERS = ("pool", "attention", "spatial_mlp", "dwconv", "identity")
SIZES = (3, 5, 7, 9)
NORMS = ("mln", "layer_norm", "batch_norm")
WIDTHS = (
    tuple(range(32, 129, 32)),
    tuple(range(64, 257, 64)),
    tuple(range(128, 385, 64)),
    tuple(range(256, 769, 128)),
)
DEPTHS = tuple(range(6, 49, 6))
RATIOS = ("1:1:3:1", "1:1:1:1", "1:1:2:2", "1:2:2:1", "1:4:6:1", "3:4:6:3", "2:1:1:1")
STAGES = (1, 2, 3, 4)
REFERENCES = (
    "poolformer_s12",
    "metaformer_id_s12",
    "metaformer_pppa_s12_224",
    "metaformer_ppaa_s12_224",
    "metaformer_pppf_s12_224",
    "metaformer_ppff_s12_224",
    "metaformer_dwconv_s12",
    "poolformer_s12_pool5",
    "poolformer_s12_pool7",
    "poolformer_s12_pool9",
    "poolformer_s12_layer_norm",
    "poolformer_s12_batch_norm",
    "poolformer_s24",
    "poolformer_s36",
    "poolformer_m36",
    "poolformer_m48",
)


@cache
def share_depth(depth: int, ratio: str) -> tuple[int, ...]:
    """`depth` blocks over the stages in proportion `ratio`, at least one each, by largest remainder."""
    parts = [int(part) for part in ratio.split(":")]
    exact = [depth * part / sum(parts) for part in parts]
    shares = [max(1, int(value)) for value in exact]
    order = sorted(range(len(parts)), key=lambda i: shares[i] - exact[i])
    for i in order[: max(0, depth - sum(shares))]:
        shares[i] += 1
    while sum(shares) > depth:
        shares[shares.index(max(shares))] -= 1
    return tuple(shares)


@cache
def depth_genes() -> dict[tuple[int, ...], tuple[int, str]]:
    """Blocks per stage to the first depth and ratio that give them."""
    table: dict[tuple[int, ...], tuple[int, str]] = {}
    for depth in DEPTHS:
        for ratio in RATIOS:
            table.setdefault(share_depth(depth, ratio), (depth, ratio))
    return table


@cache
def _norm(kind: str) -> Norm:
    return Norm.model_validate({"kind": kind})


def _mixer(kind: str, size: int, side: int, head_size: int) -> MixerSpec:
    match kind:
        case "pool":
            return PoolSpec(size=distinct_pool(size, side))
        case "attention":
            return AttentionSpec(head_size=head_size)
        case "spatial_mlp":
            return SpatialMlpSpec()
        case "dwconv":
            return DepthwiseConvSpec(size=size)
        case "identity":
            return IdentitySpec()
    raise SpaceError(f"mixer: must be one of {MIXERS}, got {kind!r}")


@lru_cache(maxsize=2**14)  # the trials of a study have few different stages
def _stage(  # noqa: PLR0913  what a stage here differs in
    depth: int,
    width: int,
    mixer: tuple[str, int, int, int],
    norm: str,
    *,
    is_fed: bool,
    has_positions: bool,
    layer_scale: float,
) -> Stage:
    """A stage by values that are hashed at once: a mixer by what `_mixer` takes."""
    return Stage(
        depth=depth,
        width=width,
        mixer=_mixer(*mixer),
        downsample=Downsample() if is_fed else None,
        position_embedding="learned" if has_positions else None,
        norm=_norm(norm),
        layer_scale=layer_scale,
    )


@register_space("hybrid_stages")
class HybridStages(SearchSpace):
    """Four stages, each with its own mixer, size, norm and width, and a common depth and depth ratio."""

    num_maps = len(STAGES)
    reference_names: tuple[str, ...] = REFERENCES
    choices = (
        *(Choice(f"mixer_{i}", MIXERS) for i in STAGES),
        *(Choice(f"size_{i}", SIZES) for i in STAGES),
        *(Choice(f"norm_{i}", NORMS) for i in STAGES),
        *(Choice(f"width_{i}", WIDTHS[i - 1]) for i in STAGES),
        Choice("depth", DEPTHS),
        Choice("depth_ratio", RATIOS),
    )

    def __init__(self, settings: SpaceSettings) -> None:
        super().__init__(settings)
        side = settings.stem.out_side(settings.resolution)
        sides = [side]
        for _ in STAGES[1:]:
            sides.append(Downsample().out_side(sides[-1]))
        if min(sides) < 1:
            raise SpaceError(
                f"resolution: must leave every stage a token after a stem of stride {settings.stem.stride}, "
                f"got {settings.resolution}"
            )
        self.sides = tuple(sides)  # of the map of each stage, in tokens

    def decode(self, genes: Mapping[str, Gene]) -> Architecture:
        depth, ratio = int(genes["depth"]), str(genes["depth_ratio"])
        kinds = [str(genes[f"mixer_{i}"]) for i in STAGES]
        with_positions = kinds.index("attention") if "attention" in kinds else None
        layer_scale = 1e-5 if depth <= 24 else 1e-6
        head_size = round(HEAD_SIZE * self.settings.width_scale)
        stages = tuple(
            _stage(
                blocks,
                round(int(genes[f"width_{i + 1}"]) * self.settings.width_scale),
                (kinds[i], int(genes[f"size_{i + 1}"]), self.sides[i], head_size),
                str(genes[f"norm_{i + 1}"]),
                is_fed=i > 0,
                has_positions=i == with_positions,
                layer_scale=layer_scale,
            )
            for i, blocks in enumerate(share_depth(depth, ratio))
        )
        return Architecture(
            resolution=self.settings.resolution,
            stem=self.settings.stem,
            stages=stages,
            head=Head(norm=stages[-1].norm, num_classes=self.settings.num_classes),
            drop_path=drop_path_of(depth, int(genes["width_4"])),
        )

    def encode(self, arch: Architecture) -> Genes:
        return self._checked(self.genes_of_stages(arch.stages), arch)

    def genes_of_stages(self, stages: Sequence[Stage]) -> Genes:
        """The genes that stages have of their own, and those of their depths.

        Raises:
            SpaceError: No genes give these depths.
        """
        depths = tuple(stage.depth for stage in stages)
        if depths not in depth_genes():
            raise SpaceError(f"stages: must have depths that {self.name} shares out, got {depths}")
        genes: Genes = {}
        for i, stage in zip(STAGES, stages, strict=True):
            genes[f"mixer_{i}"] = stage.mixer.kind
            genes[f"size_{i}"] = getattr(stage.mixer, "size", SIZES[0])
            genes[f"norm_{i}"] = stage.norm.kind
            genes[f"width_{i}"] = round(stage.width / self.settings.width_scale)
        genes["depth"], genes["depth_ratio"] = depth_genes()[depths]
        return genes

    @cached_property
    def size(self) -> int:
        total = len(depth_genes())
        for side, widths in zip(self.sides, WIDTHS, strict=True):
            pools = len({distinct_pool(size, side) for size in SIZES})
            total *= (pools + len(SIZES) + 3) * len(NORMS) * len(widths)
        return total

    def references(self) -> dict[str, Architecture]:
        original = type(self)(SpaceSettings())
        return {name: self.decode(original.encode(zoo.get(name))) for name in self.reference_names}

    def _mixer(self, kind: str, size: int, side: int) -> MixerSpec:
        return _mixer(kind, size, side, round(HEAD_SIZE * self.settings.width_scale))


def distinct_pool(size: int, side: int) -> int:
    """The smallest pool size that computes the same: every window of 2 * side - 1 or more covers the whole map."""
    return next((other for other in SIZES if 2 * side - 1 <= other < size), size)


def drop_path_of(depth: int, last_width: int) -> float:
    """The rates of S12 and S24, S36, M36 and M48 for models of their depth and last width (before scaling)."""
    if depth <= 24:
        return 0.1
    if depth <= 36:
        return 0.3 if last_width >= 768 else 0.2
    return 0.4
