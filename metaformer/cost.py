"""Parameters and multiply-accumulates in closed form; no tensors."""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise

from metaformer.architecture import Architecture
from metaformer.errors import ArchitectureError, check_type
from metaformer.specs import Dense, Stage
from metaformer.specs.parts import PartCost, TokenMap, activation_cost


@dataclass(frozen=True)
class StageCost:
    """Cost of one stage: what leads into it, and all its blocks' two halves with their norms and scales."""

    embedding: PartCost  # stem or downsampling, class token and position embedding
    mixer: PartCost
    mlp: PartCost  # with what makes connections dense

    @property
    def total(self) -> PartCost:
        return self.embedding + self.mixer + self.mlp


@dataclass(frozen=True)
class Cost:
    """Cost of a whole model, by stage and in total."""

    stages: tuple[StageCost, ...]
    head: PartCost

    @cached_property
    def total(self) -> PartCost:
        return sum((stage.total for stage in self.stages), self.head)

    @property
    def params(self) -> int:
        """Trainable parameters."""
        return self.total.params

    @property
    def frozen_params(self) -> int:
        """Numbers in the state dict that are drawn once and never trained."""
        return self.total.frozen_params

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image."""
        return self.total.macs


def count_cost(arch: Architecture, *, resolution: int | None = None) -> Cost:
    """Parameters and multiply-accumulates of one forward pass over one image, in closed form.

    Args:
        resolution: Side of the square input image in pixels; the architecture's own where it is left out.
    Returns:
        Per-stage and total counts. MACs are multiply-accumulates of convolutions, linear layers and matrix products;
        norms, activations, pooling and additions count as nothing (torch's FlopCounterMode counts the same, times two).
    Raises:
        ArchitectureError: A stage would be smaller than one token at this resolution, or a part is tied to another.
    """
    check_type(arch, Architecture, "arch: must be an architecture", error=ArchitectureError)
    stages = []
    in_width = arch.stem.in_channels
    in_side = arch.resolution if resolution is None else resolution
    for index, (stage, tokens) in enumerate(zip(arch.stages, arch.token_maps(resolution), strict=True)):
        conv = arch.stem if index == 0 else stage.downsample
        embedding = conv.cost(in_width, stage.width, in_side) if conv else PartCost()
        if stage.class_token or stage.position_embedding:
            embedding += _count_tokens_added(stage, tokens)
        stages.append(StageCost(embedding, *_count_blocks(stage, tokens)))
        in_width, in_side = stage.out_width, tokens.side
    return Cost(stages=tuple(stages), head=arch.head.cost(in_width))


def _count_tokens_added(stage: Stage, tokens: TokenMap) -> PartCost:
    """Class token and position embedding; a sinusoidal one is frozen."""
    positions = stage.width * tokens.num_tokens
    params = (stage.width if stage.class_token else 0) + (positions if stage.position_embedding == "learned" else 0)
    return PartCost(params=params, frozen_params=positions if stage.position_embedding == "sinusoidal" else 0)


@lru_cache(maxsize=2**14)  # a search meets few different stages, and spaces make each once
def _count_blocks(stage: Stage, tokens: TokenMap) -> tuple[PartCost, PartCost]:
    """The mixers' half and the MLPs' half of all blocks."""
    if stage.dense:
        return _count_dense(stage, stage.dense, tokens)
    around = _count_around(stage, stage.width)
    mixers = _count_mixers(stage, tokens) + (around + _count_excitation(stage, stage.width)) * stage.depth
    return mixers, _count_mlp(stage, stage.width, tokens, around) * stage.depth


def _count_dense(stage: Stage, dense: Dense, tokens: TokenMap) -> tuple[PartCost, PartCost]:
    """Block by block, since each has a width of its own."""
    mixers = mlps = PartCost()
    for block, (width, out_width) in enumerate(pairwise(stage.widths)):
        around = _count_around(stage, width)
        mixers += stage.mixer_of(block).cost(width, tokens) + around + _count_excitation(stage, width)
        mlps += _count_mlp(stage, width, tokens, around) + dense.cost(width, out_width, tokens.num_tokens)
    return mixers, mlps


def _count_mixers(stage: Stage, tokens: TokenMap) -> PartCost:
    mixer, other = stage.mixer.cost(stage.width, tokens), stage.interleaved
    if other is None:
        return mixer * stage.depth
    num_others = stage.depth // other.every
    return mixer * (stage.depth - num_others) + other.mixer.cost(stage.width, tokens) * num_others


def _count_around(stage: Stage, width: int) -> PartCost:
    """What every half-block has: a norm, and perhaps scales or an activation behind."""
    around = stage.norm.cost(width)
    for scale in (stage.layer_scale, stage.res_scale):
        if scale is not None:
            around += PartCost(params=width)
    return around + activation_cost(stage.post_activation) if stage.post_activation else around


def _count_excitation(stage: Stage, width: int) -> PartCost:
    """Two linear layers on the channels' means."""
    weights = 2 * width * max(width // stage.se_reduction, 1) if stage.se_reduction else 0
    return PartCost(params=weights, macs=weights)


def _count_mlp(stage: Stage, width: int, tokens: TokenMap, around: PartCost) -> PartCost:
    """The second half of a block."""
    if stage.post_activation:
        return PartCost(params=width**2 + width, macs=width**2 * tokens.num_tokens) + around
    return stage.mlp.cost(width, tokens.num_tokens) + around if stage.mlp else PartCost()
