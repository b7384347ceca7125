"""The one way from an architecture to a model.

B batch, C channels, H height, W width.
"""

from pathlib import Path

import torch
from timm.layers import DropPath
from torch import Tensor, nn

from metaformer import zoo
from metaformer.architecture import Architecture
from metaformer.errors import ArchitectureError, unknown_name
from metaformer.layers import ChannelMlp, LayerScale, PositionEmbedding, init_linear, make_conv, make_norm
from metaformer.mixers import make_mixer
from metaformer.specs import Conv, Head, Stage


class Branch(nn.Module):
    """One half of a block: x + drop_path(scale(part(norm(x)))); without residual the branch alone."""

    def __init__(self, part: nn.Module, stage: Stage, *, drop_path: float) -> None:
        super().__init__()
        self.residual = stage.residual
        self.norm = make_norm(stage.norm, stage.width)
        self.part = part
        self.scale = nn.Identity() if stage.layer_scale is None else LayerScale(stage.width, init=stage.layer_scale)
        self.drop_path = DropPath(drop_path) if drop_path and stage.residual else nn.Identity()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BCHW = self.drop_path(self.scale(self.part(self.norm(x_BCHW))))
        return x_BCHW + y_BCHW if self.residual else y_BCHW


class Block(nn.Module):
    """The general MetaFormer block: a mixer half, then a channel-MLP half (arXiv:2111.11418, eqs. 2 and 3)."""

    def __init__(self, stage: Stage, *, side: int, drop_path: float) -> None:
        super().__init__()
        self.mixer = Branch(make_mixer(stage.mixer, stage.width, side=side), stage, drop_path=drop_path)
        if stage.mlp:
            self.mlp: nn.Module = Branch(ChannelMlp(stage.width, stage.mlp), stage, drop_path=drop_path)
        else:
            self.mlp = nn.Identity()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.mlp(self.mixer(x_BCHW))


class MetaFormerStage(nn.Module):
    """What leads into a stage (stem or downsampling, positions), then its blocks."""

    def __init__(self, stage: Stage, *, embed: Conv | None, in_width: int, side: int, drop_paths: list[float]) -> None:
        super().__init__()
        self.embed = make_conv(embed, in_width, stage.width) if embed else nn.Identity()
        self.position = PositionEmbedding(stage.width, side=side) if stage.position_embedding else nn.Identity()
        self.blocks = nn.Sequential(*(Block(stage, side=side, drop_path=rate) for rate in drop_paths))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.blocks(self.position(self.embed(x_BCHW)))


class ClassifierHead(nn.Module):
    """Norm and mean over the positions in the order the spec states, then a linear layer; BCHW in, logits out."""

    def __init__(self, width: int, spec: Head) -> None:
        super().__init__()
        self.norm_first = spec.order == "norm_then_pool"
        self.norm = make_norm(spec.norm, width)
        self.fc = nn.Linear(width, spec.num_classes)
        init_linear(self.fc)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if self.norm_first:
            return self.fc(self.norm(x_BCHW).mean((2, 3)))
        return self.fc(self.norm(x_BCHW.mean((2, 3), keepdim=True)).flatten(1))


class MetaFormer(nn.Module):
    """Images x_BCHW to logits of shape (B, num_classes). Make one with `build`."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.arch = arch
        rates = [arch.drop_path * i / max(arch.depth - 1, 1) for i in range(arch.depth)]
        self.stages = nn.ModuleList()
        in_width = arch.stem.in_channels
        for index, (stage, side) in enumerate(zip(arch.stages, arch.sides(), strict=True)):
            embed = arch.stem if index == 0 else stage.downsample
            drop_paths, rates = rates[: stage.depth], rates[stage.depth :]
            self.stages.append(MetaFormerStage(stage, embed=embed, in_width=in_width, side=side, drop_paths=drop_paths))
            in_width = stage.width
        self.head = ClassifierHead(in_width, arch.head)

    def features(self, x_BCHW: Tensor) -> list[Tensor]:
        """The map after each stage, BCHW, finest first."""
        x_BCHW = x_BCHW.contiguous(memory_format=torch.channels_last)
        maps = []
        for stage in self.stages:
            x_BCHW = stage(x_BCHW)
            maps.append(x_BCHW)
        return maps

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.head(self.features(x_BCHW)[-1])


def build(source: Architecture | str | Path) -> MetaFormer:
    """A freshly initialised model of an architecture, of a zoo name, or of the architecture in a YAML file.

    Raises:
        ArchitectureError: The name is not known, or the file is missing or not an architecture.
    """
    return MetaFormer(resolve(source)).to(memory_format=torch.channels_last)


def resolve(source: Architecture | str | Path) -> Architecture:
    """The architecture behind a value, a zoo name or the path of a YAML file.

    Raises:
        ArchitectureError: As `build`.
    """
    if isinstance(source, Architecture):
        return source
    if str(source) in zoo.names():
        return zoo.get(str(source))
    if isinstance(source, Path) or Path(source).suffix in {".yaml", ".yml"} or Path(source).exists():
        return Architecture.from_file(source)
    raise ArchitectureError(unknown_name("model", source, zoo.names()))
