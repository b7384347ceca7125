"""The one way from an architecture to a model.

B batch, C channels, H height, W width.
"""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from metaformer import zoo
from metaformer.architecture import Architecture, Init
from metaformer.network import fused
from metaformer.network.layers import (
    ChannelLayerNorm,
    ChannelLinear,
    ChannelMlp,
    ClassToken,
    DropPath,
    LayerScale,
    MapLayerNorm,
    PositionEmbedding,
    SinusoidalPositions,
    init_linear,
    make_activation,
    make_conv,
    make_norm,
    norm_dtype,
)
from metaformer.network.mixers import PoolMixer, make_mixer, multiplies_first
from metaformer.network.structures import DenseBlock, Excited
from metaformer.network.tokens_to_token import TokensToTokenStem
from metaformer.specs import Head, MixerSpec, Stage
from metaformer.specs.parts import Activation, Conv, TokenMap, TokensToToken


def _scale_of(module: nn.Module) -> Tensor | None:
    """The factors of a LayerScale, C; None where there is none."""
    return module.scale if isinstance(module, LayerScale) else None


def _drop_factor(drop_path: nn.Module, x_BCHW: Tensor) -> Tensor | None:
    """What drop path multiplies each image's branch by, B111; None where nothing can be dropped."""
    return drop_path.factor(x_BCHW) if isinstance(drop_path, DropPath) else None


def _product(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return a if b is None else b if a is None else a * b


def _residual_sum(
    x_BCHW: Tensor, y_BCHW: Tensor, *, res_C: Tensor | None, scale_C: Tensor | None, keep_B111: Tensor | None
) -> Tensor:
    """`res x + keep scale y`, None standing for 1, with as few new maps as can be."""
    is_weighted = not (res_C is None and scale_C is None and keep_B111 is None)
    if is_weighted and fused.usable(x_BCHW) and fused.usable(y_BCHW):
        from metaformer.network.fused.residual import residual_sum

        return residual_sum(x_BCHW, y_BCHW, res_C=res_C, scale_C=scale_C, keep_B111=keep_B111)
    factor = _product(None if scale_C is None else scale_C[:, None, None], keep_B111)
    if res_C is not None:
        return torch.addcmul(y_BCHW if factor is None else y_BCHW * factor, x_BCHW, res_C[:, None, None])
    return x_BCHW + y_BCHW if factor is None else torch.addcmul(x_BCHW, y_BCHW, factor)


class Branch(nn.Module):
    """One half of a block: res_scale(x) + drop_path(scale(part(norm(x)))); without residual the branch alone.

    `multiplies_first`: the part puts its input into matrix products or convolutions and nowhere else.
    """

    def __init__(self, part: nn.Module, stage: Stage, *, drop_path: float, multiplies_first: bool = False) -> None:
        super().__init__()
        self.residual = stage.residual
        self.norm = make_norm(stage.norm, stage.width, before_product=multiplies_first)
        self.part = part
        self.scale = nn.Identity() if stage.layer_scale is None else LayerScale(stage.width, init=stage.layer_scale)
        self.drop_path = DropPath(drop_path) if drop_path and stage.residual else nn.Identity()
        self.res_scale = nn.Identity() if stage.res_scale is None else LayerScale(stage.width, init=stage.res_scale)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if not self.residual:
            return self.scale(self.part(self.norm(x_BCHW)))
        if isinstance(self.part, PoolMixer) and isinstance(self.norm, MapLayerNorm) and fused.usable(x_BCHW):
            return self._pooled(x_BCHW, self.norm, self.part)
        normed_BCHW = self.norm(x_BCHW)
        keep_B111 = _drop_factor(self.drop_path, x_BCHW)
        scale_C, res_C = _scale_of(self.scale), _scale_of(self.res_scale)
        if not isinstance(self.part, ChannelMlp):
            y_BCHW = self.part(normed_BCHW)
            return _residual_sum(x_BCHW, y_BCHW, res_C=res_C, scale_C=scale_C, keep_B111=keep_B111)
        if self.part.fc2.bias is not None and fused.usable(x_BCHW):
            from metaformer.network.fused.residual import residual_sum

            y_BCHW, bias_C = self.part.without_last_bias(normed_BCHW, scale_C)
            return residual_sum(x_BCHW, y_BCHW, res_C=res_C, scale_C=None, keep_B111=keep_B111, bias_C=bias_C)
        y_BCHW = self.part(normed_BCHW, scale_C)
        return _residual_sum(x_BCHW, y_BCHW, res_C=res_C, scale_C=None, keep_B111=keep_B111)

    def _pooled(self, x_BCHW: Tensor, norm: MapLayerNorm, pool: PoolMixer) -> Tensor:
        """The whole half in one kernel each way."""
        from metaformer.network.fused.pooling import pool_branch

        keep_B111 = _drop_factor(self.drop_path, x_BCHW)
        scale_C, res_C = _scale_of(self.scale), _scale_of(self.res_scale)
        dtype = torch.promote_types(x_BCHW.dtype, norm_dtype(x_BCHW, before_product=False))
        for factor in (scale_C, res_C):
            dtype = dtype if factor is None else torch.promote_types(dtype, factor.dtype)
        return pool_branch(
            x_BCHW,
            norm.weight,
            norm.bias,
            scale_C=scale_C,
            res_C=res_C,
            keep_B111=keep_B111,
            eps=norm.eps,
            size=pool.size,
            dtype=dtype,
        )


class PostActivationBranch(nn.Module):
    """One half of a ConvMixer block: x + drop_path(norm(act(part(x)))); without residual the branch alone."""

    def __init__(
        self, part: nn.Module, stage: Stage, *, activation: Activation, residual: bool, drop_path: float
    ) -> None:
        super().__init__()
        self.residual = residual
        self.part = part
        self.act = make_activation(activation)
        self.norm = make_norm(stage.norm, stage.width)
        self.drop_path = DropPath(drop_path) if drop_path and residual else nn.Identity()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BCHW = self.drop_path(self.norm(self.act(self.part(x_BCHW))))
        return x_BCHW + y_BCHW if self.residual else y_BCHW


class Block(nn.Module):
    """The general MetaFormer block: a mixer half, then a channel-MLP half (arXiv:2111.11418, eqs. 2 and 3).

    ConvMixer's activates and normalises behind each part, and its second half is one linear layer without a skip
    (arXiv:2201.09792, eqs. 2 and 3).
    """

    def __init__(self, stage: Stage, spec: MixerSpec, *, side: int, drop_path: float) -> None:
        super().__init__()
        mixer, activation = make_mixer(spec, stage.width, side=side), stage.post_activation
        if stage.se_reduction:
            mixer = Excited(mixer, stage.width, reduction=stage.se_reduction)
        self.mixer: nn.Module
        self.mlp: nn.Module = nn.Identity()
        if activation:
            self.mixer = PostActivationBranch(
                mixer, stage, activation=activation, residual=stage.residual, drop_path=drop_path
            )
            self.mlp = PostActivationBranch(
                ChannelLinear(stage.width, stage.width), stage, activation=activation, residual=False, drop_path=0.0
            )
            return
        self.mixer = Branch(mixer, stage, drop_path=drop_path, multiplies_first=multiplies_first(spec))
        if stage.mlp:
            mlp = ChannelMlp(stage.width, stage.mlp)
            self.mlp = Branch(mlp, stage, drop_path=drop_path, multiplies_first=True)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.mlp(self.mixer(x_BCHW))


class MetaFormerStage(nn.Module):
    """What leads into a stage (stem or downsampling, class token, positions), then its blocks."""

    def __init__(
        self,
        stage: Stage,
        *,
        embed: Conv | TokensToToken | None,
        in_width: int,
        tokens: TokenMap,
        drop_paths: list[float],
    ) -> None:
        super().__init__()
        self.embed = _make_embedding(embed, in_width, stage.width)
        self.class_token = ClassToken(stage.width) if stage.class_token else nn.Identity()
        self.position = _make_positions(stage, tokens)
        self.blocks = nn.Sequential(
            *(_make_block(stage, block, side=tokens.side, drop_path=rate) for block, rate in enumerate(drop_paths))
        )
        self.grad_checkpointing = False

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.mix(self.position(self.class_token(self.embed(x_BCHW))))

    def mix(self, x_BCHW: Tensor) -> Tensor:
        """The map after the last block; with `grad_checkpointing` each block is computed again in the backward pass."""
        if not self.grad_checkpointing:
            return self.blocks(x_BCHW)
        *_, last_BCHW = self.after_each_block(x_BCHW)
        return last_BCHW

    def after_each_block(self, x_BCHW: Tensor) -> Iterator[Tensor]:
        """The map after each block, from the map before the first."""
        for block in self.blocks:
            if self.grad_checkpointing and torch.is_grad_enabled():
                x_BCHW = checkpoint(block, x_BCHW, use_reentrant=False)
            else:
                x_BCHW = block(x_BCHW)
            yield x_BCHW


def _make_block(stage: Stage, index: int, *, side: int, drop_path: float) -> nn.Module:
    mixer = stage.mixer_of(index)
    if stage.dense is None:
        return Block(stage, mixer, side=side, drop_path=drop_path)
    width, out_width = stage.widths[index : index + 2]
    block = Block(stage.model_copy(update={"width": width}), mixer, side=side, drop_path=drop_path)
    return DenseBlock(block, width, growth=stage.dense.growth, out_width=out_width)


def _make_embedding(spec: Conv | TokensToToken | None, in_width: int, width: int) -> nn.Module:
    if spec is None:
        return nn.Identity()
    return TokensToTokenStem(width, spec) if isinstance(spec, TokensToToken) else make_conv(spec, in_width, width)


def _make_positions(stage: Stage, tokens: TokenMap) -> nn.Module:
    match stage.position_embedding:
        case "learned":
            return PositionEmbedding(stage.width, shape=tokens.shape)
        case "sinusoidal":
            return SinusoidalPositions(stage.width, shape=tokens.shape)
        case None:
            return nn.Identity()


class ClassifierHead(nn.Module):
    """Norm and pooling in the order the spec states, perhaps a hidden layer, a linear layer; BCHW in, logits out."""

    def __init__(self, width: int, spec: Head) -> None:
        super().__init__()
        self.norm_first = spec.order == "norm_then_pool"
        self.take_class_token = spec.pool == "class_token"
        self.norm = make_norm(spec.norm, width)
        hidden = spec.hidden_ratio * width if spec.hidden_ratio else width
        self.hidden = HiddenLayer(width, hidden) if spec.hidden_ratio else nn.Identity()
        self.dropout = nn.Dropout(spec.dropout) if spec.dropout else nn.Identity()
        self.fc = nn.Linear(hidden, spec.num_classes)
        init_linear(self.fc)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.classify(self.normed_and_pooled(x_BCHW))

    def normed_and_pooled(self, x_BCHW: Tensor) -> Tensor:
        """What the classifier sees; BC11."""
        return self.pool(self.norm(x_BCHW)) if self.norm_first else self.norm(self.pool(x_BCHW))

    def classify(self, x_BC11: Tensor) -> Tensor:
        """Logits of what `normed_and_pooled` gives."""
        return self.fc(self.dropout(self.hidden(x_BC11).flatten(1)))

    def pool(self, x_BCHW: Tensor) -> Tensor:
        """The class token, which comes first, or the mean of all tokens; BC11."""
        return x_BCHW[:, :, :1] if self.take_class_token else x_BCHW.mean((2, 3), keepdim=True)


class HiddenLayer(nn.Module):
    """Linear, squared ReLU, layer norm of eps 1e-5 (the head of ConvFormer and CAFormer); BC11 in, BD11 out."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc = nn.Linear(width, hidden)
        self.act = make_activation("squared_relu")
        self.norm = ChannelLayerNorm(hidden, eps=1e-5)
        init_linear(self.fc)

    def forward(self, x_BC11: Tensor) -> Tensor:
        return self.norm(self.act(self.fc(x_BC11.flatten(1)))[:, :, None, None])


class MetaFormer(nn.Module):
    """Images x_BCHW to logits of shape (B, num_classes). Make one with `build`."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.arch = arch
        rates = arch.drop_paths
        self.stages = nn.ModuleList()
        in_width = arch.stem.in_channels
        for index, (stage, tokens) in enumerate(zip(arch.stages, arch.token_maps(), strict=True)):
            embed = arch.stem if index == 0 else stage.downsample
            drop_paths, rates = rates[: stage.depth], rates[stage.depth :]
            self.stages.append(
                MetaFormerStage(stage, embed=embed, in_width=in_width, tokens=tokens, drop_paths=drop_paths)
            )
            in_width = stage.out_width
        self.head = ClassifierHead(in_width, arch.head)
        initialise(self, arch.init)
        if arch.head.zero_init:
            nn.init.zeros_(self.head.fc.weight)

    def features(self, x_BCHW: Tensor) -> list[Tensor]:
        """The map after each stage, BCHW, finest first; with a class token its tokens as one column, BC(1+HW)1."""
        x_BCHW = x_BCHW.contiguous(memory_format=torch.channels_last)
        maps = []
        for stage in self.stages:
            x_BCHW = stage(x_BCHW)
            maps.append(x_BCHW)
        return maps

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.head(self.features(x_BCHW)[-1])


def initialise(model: nn.Module, init: Init) -> None:
    """Draw the weights that this initialisation draws differently from the defaults of the layers."""
    for module in model.modules():
        if init == "pytorch" and isinstance(module, nn.Linear | nn.Conv2d):
            module.reset_parameters()
        elif init == "baselines" and isinstance(module, nn.Conv2d):
            init_linear(module)
        elif init == "transformer" and isinstance(module, PositionEmbedding):
            nn.init.trunc_normal_(module.pos_embed, std=0.02)


def build(source: Architecture | str | Path) -> MetaFormer:
    """A freshly initialised model of an architecture, of a zoo name, or of the architecture in a YAML file.

    Raises:
        ArchitectureError: The name is not known, or the file is missing or not an architecture.
    """
    return MetaFormer(zoo.resolve(source)).to(memory_format=torch.channels_last)
