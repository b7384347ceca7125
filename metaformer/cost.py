"""Parameters and multiply-accumulates in closed form; no tensors."""

from dataclasses import dataclass
from functools import cached_property

from metaformer.architecture import Architecture
from metaformer.specs import PartCost, Stage


@dataclass(frozen=True)
class StageCost:
    """Cost of one stage: what leads into it, and all its blocks' two halves with their norms and scales."""

    embedding: PartCost  # stem or downsampling, and the position embedding
    mixer: PartCost
    mlp: PartCost

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
    sides = arch.sides(resolution)
    stages = []
    in_width = arch.stem.in_channels
    for index, (stage, side) in enumerate(zip(arch.stages, sides, strict=True)):
        conv = arch.stem if index == 0 else stage.downsample
        embedding = conv.cost(in_width, stage.width, side) if conv else PartCost()
        if stage.position_embedding:
            embedding += PartCost(params=stage.width * side**2)
        stages.append(_count_stage(stage, side, embedding))
        in_width = stage.width
    return Cost(stages=tuple(stages), head=arch.head.cost(in_width))


def _count_stage(stage: Stage, side: int, embedding: PartCost) -> StageCost:
    around = stage.norm.cost(stage.width)  # every half-block has a norm and perhaps a scale
    if stage.layer_scale is not None:
        around += PartCost(params=stage.width)
    mixer = (stage.mixer.cost(stage.width, side) + around) * stage.depth
    mlp = (stage.mlp.cost(stage.width, side) + around) * stage.depth if stage.mlp else PartCost()
    return StageCost(embedding=embedding, mixer=mixer, mlp=mlp)
