"""A MetaFormer with the methods that timm expects of its models.

B batch, C channels, H height, W width, L positions of a map.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from metaformer.architecture import Architecture
from metaformer.errors import ArchitectureError
from metaformer.network.layers import ClassToken, make_norm
from metaformer.network.model import ClassifierHead, MetaFormer, MetaFormerStage, initialise
from metaformer.specs.parts import Conv, TokensToToken

GlobalPool = Literal["", "avg", "token"]
_POOLS: Mapping[str, GlobalPool] = {"mean": "avg", "class_token": "token"}


class _Tap(NamedTuple):
    """A map on its way: after a block of a model of one stage, after a stage of the others."""

    x_BCHW: Tensor
    shape: tuple[int, int]  # height and width in tokens, without the class token
    has_class_token: bool
    fits_norm: bool  # the head's norm has its width


class TimmMetaFormer(MetaFormer):
    """A MetaFormer with the methods timm expects of a model; parameters have the names that `build` gives them.

    `arch` is what it was made from, with the classes of the present classifier. Features are counted as timm counts
    them: by block in a model of one stage whose blocks are equally wide, by stage in the others.

    With `feature_norms` each stage's map passes a norm of its own, fresh, of the kind of the stage's blocks: norm0,
    norm2, norm4 and norm6 of PoolFormer's code for dense prediction (its `fork_feat`).
    """

    def __init__(
        self,
        arch: Architecture,
        *,
        num_classes: int | None = None,
        global_pool: str | None = None,
        feature_norms: bool = False,
    ) -> None:
        super().__init__(arch)
        self.in_chans = arch.stem.in_channels
        self.num_features = self.head_hidden_size = arch.stages[-1].out_width
        self.num_classes = arch.head.num_classes
        self.drop_rate = arch.head.dropout
        self.feature_info = _feature_info(arch)
        self.global_pool: str = _POOLS[arch.head.pool]
        self._by_block = counts_blocks(arch)
        self.feature_norms = _feature_norms(arch) if feature_norms else None
        if (num_classes is not None and num_classes != self.num_classes) or global_pool is not None:
            self.reset_classifier(self.num_classes if num_classes is None else num_classes, global_pool)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x_BCHW))

    def forward_features(self, x_BCHW: Tensor) -> Tensor:
        """The map after the last block, before the head's norm, as the last of `features`."""
        return self.features(x_BCHW)[-1]

    def forward_head(self, x_BCHW: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits of such a map; with `pre_logits`, or without a classifier, the normed and pooled features BC."""
        if not self.global_pool:
            return self.head.norm(x_BCHW)
        x_BC11 = self.head.normed_and_pooled(x_BCHW)
        return x_BC11.flatten(1) if pre_logits else self.head.classify(x_BC11)

    def get_classifier(self) -> nn.Module:
        """The last linear layer, or an identity where there is none."""
        return self.head.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a new classifier, a hidden layer included, in the place of the old.

        Args:
            num_classes: 0 leaves the pooled features.
            global_pool: "" leaves the map, where there is no classifier; None leaves the pooling as it is.
        Raises:
            ArchitectureError: There are fewer than 0 classes, or no such pooling.
        """
        if num_classes < 0:
            raise ArchitectureError(f"num_classes: must be 0 or more, got {num_classes}")
        self.global_pool = self._checked_pool(num_classes, self.global_pool if global_pool is None else global_pool)
        self.num_classes = num_classes
        if num_classes == 0:
            self.head.hidden, self.head.dropout, self.head.fc = nn.Identity(), nn.Identity(), nn.Identity()  # type: ignore[assignment]
            return
        self.arch = self.arch.model_copy(
            update={"head": self.arch.head.model_copy(update={"num_classes": num_classes})}
        )
        weight = next(self.parameters())
        fresh = new_head(self.arch, self.num_features).to(weight.device, weight.dtype).train(self.training)
        self.head.hidden, self.head.dropout, self.head.fc = fresh.hidden, fresh.dropout, fresh.fc

    def _checked_pool(self, num_classes: int, global_pool: str) -> str:
        own = _POOLS[self.arch.head.pool]
        if global_pool not in {"", own}:
            raise ArchitectureError(
                f"global_pool: must be {own!r}, as the architecture pools, or '', got {global_pool!r}"
            )
        if num_classes and not global_pool:
            raise ArchitectureError(f"global_pool: must be {own!r} with a classifier, got ''")
        return global_pool

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute each block again in the backward pass: less memory, equal gradients.

        Running statistics of batch norm are then updated twice a step.
        """
        for stage in self._stages():
            stage.grad_checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """Parameters that weight decay leaves alone: class tokens, and the learned positions of a model of one stage.

        So do DeiT, T2T-ViT and PVT, which decays its positions. What has one dimension, timm leaves alone by itself.
        """
        exempt = ("cls_token", "pos_embed") if len(self.arch.stages) == 1 else ("cls_token",)
        return {name for name, _ in self.named_parameters() if name.endswith(exempt)}

    def group_matcher(self, coarse: bool = False) -> dict[str, str | list[tuple[str, tuple[int, ...] | None]]]:
        """Patterns that group parameters from image to classifier for timm: the stem, then each block.

        What leads into a later stage goes with its first block, the last norm with the last block; `coarse` groups by
        stage, where there are several.
        """
        last_norm = (r"^head\.norm", (99999,))  # timm's word for: with the group before
        within = r"^stages\.(\d+)" if coarse and len(self.arch.stages) > 1 else r"^stages\.(\d+)\.blocks\.(\d+)"
        leads_in = (r"^stages\.(\d+)\.(?:embed|class_token|position)\b", None if coarse else (0,))
        return {
            "stem": r"^stages\.0\.(?:embed|class_token|position)\b",
            "blocks": [(within, None), leads_in, last_norm],
        }

    def forward_intermediates(
        self,
        x_BCHW: Tensor,
        indices: int | Sequence[int] | None = None,
        *,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """Maps from inside the model, without class tokens, finest first.

        Args:
            indices: Which, negative from the end; a number: the last so many; None: all.
            return_prefix_tokens: Each map comes in a pair with its class token, B1C, where there is one.
            norm: The head's norm is applied to the maps it fits: all in a model of one stage, the last in the others.
            stop_early: Compute nothing behind the last map asked for.
            output_fmt: NCHW for maps, NLC for tokens.
        Returns:
            What `forward_features` gives, and the list of maps; with `intermediates_only` the list alone.
        Raises:
            ArchitectureError: There is no such index or format.
        """
        if output_fmt not in {"NCHW", "NLC"}:
            raise ArchitectureError(f"output_fmt: must be NCHW or NLC, got {output_fmt!r}")
        taken, maps = self._taken(indices), []
        for index, tap in enumerate(self._taps(x_BCHW)):
            last_BCHW = tap.x_BCHW
            if index in taken:
                normed = self._normed(tap, index, by_head=norm)
                y, prefix_B1C = _split(normed, output_fmt)
                maps.append((y, prefix_B1C) if return_prefix_tokens and prefix_B1C is not None else y)
            if stop_early and index == max(taken):
                break
        return maps if intermediates_only else (last_BCHW, maps)

    def _normed(self, tap: _Tap, index: int, *, by_head: bool) -> _Tap:
        """The map behind its own norm, where there is one, else behind the head's, where that is asked for and fits."""
        if self.feature_norms is not None:
            return tap._replace(x_BCHW=self.feature_norms[index](tap.x_BCHW))
        return tap._replace(x_BCHW=self.head.norm(tap.x_BCHW)) if by_head and tap.fits_norm else tap

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Leave out what `forward_intermediates` does not need for these indices; says which they are, from 0.

        Raises:
            ArchitectureError: There is no such index.
        """
        taken = self._taken(indices)
        end, total = max(taken) + 1, len(self.feature_info)
        if self._by_block:
            self._stages()[0].blocks = self._stages()[0].blocks[:end]
        else:
            self.stages = self.stages[:end]
            self.num_features = self.head_hidden_size = self.arch.stages[end - 1].out_width
        if self.feature_norms is not None:
            unused = (norm if index in taken else nn.Identity() for index, norm in enumerate(self.feature_norms[:end]))
            self.feature_norms = nn.ModuleList(unused)
        if prune_norm or (end < total and not self._by_block):
            self.head.norm = nn.Identity()
        if prune_head or end < total:
            self.reset_classifier(0, "")
        return taken

    def _taken(self, indices: int | Sequence[int] | None) -> list[int]:
        """The indices counted from 0."""
        total = len(self.feature_info)
        if isinstance(indices, int) and not 1 <= indices <= total:
            raise ArchitectureError(f"indices: must be 1 to {total} of the last maps, got {indices}")
        if indices is None or isinstance(indices, int):
            return list(range(total - (indices or total), total))
        wrong = [index for index in indices if not -total <= index < total]
        if wrong or not indices:
            raise ArchitectureError(f"indices: must be some of {-total} to {total - 1}, got {list(indices)}")
        return [index % total for index in indices]

    def _taps(self, x_BCHW: Tensor) -> Iterator[_Tap]:
        x_BCHW = x_BCHW.contiguous(memory_format=torch.channels_last)
        for index, stage in enumerate(self._stages()):
            x_BCHW = stage.embed(x_BCHW)
            height, width = x_BCHW.shape[2:]
            x_BCHW = stage.position(stage.class_token(x_BCHW))
            has_class_token = isinstance(stage.class_token, ClassToken)
            fits_norm = index == len(self.arch.stages) - 1
            maps = stage.after_each_block(x_BCHW) if self._by_block else iter([stage.mix(x_BCHW)])
            for map_BCHW in maps:
                yield _Tap(map_BCHW, (height, width), has_class_token, fits_norm)
            x_BCHW = map_BCHW

    def _stages(self) -> list[MetaFormerStage]:
        return [stage for stage in self.stages if isinstance(stage, MetaFormerStage)]


def counts_blocks(arch: Architecture) -> bool:
    """Whether features are maps of single blocks; the norm of the head fits each of them."""
    return len(arch.stages) == 1 and arch.stages[0].dense is None


def _feature_norms(arch: Architecture) -> nn.ModuleList:
    """A norm for the map of each stage.

    Raises:
        ArchitectureError: The features of such a model are counted by block.
    """
    if len(arch.stages) == 1:
        raise ArchitectureError("feature_norms: must be for a model of several stages, got one of 1")
    return nn.ModuleList(make_norm(stage.norm, stage.out_width) for stage in arch.stages)


def new_head(arch: Architecture, width: int) -> ClassifierHead:
    """A freshly initialised head for maps of `width` channels."""
    head = ClassifierHead(width, arch.head)
    initialise(head, arch.init)
    if arch.head.zero_init:
        nn.init.zeros_(head.fc.weight)
    return head


def _split(tap: _Tap, output_fmt: str) -> tuple[Tensor, Tensor | None]:
    """The map in the format asked for, and the class token B1C."""
    y_BCHW, prefix_B1C = tap.x_BCHW, None
    if tap.has_class_token:
        prefix_B1C = y_BCHW[:, :, :1, 0].mT
        y_BCHW = y_BCHW[:, :, 1:].reshape(*y_BCHW.shape[:2], *tap.shape)
    return (y_BCHW.flatten(2).mT if output_fmt == "NLC" else y_BCHW), prefix_B1C


def _stride(embed: Conv | TokensToToken | None) -> int:
    return embed.stride if embed else 1


def _feature_info(arch: Architecture) -> list[dict[str, int | str]]:
    """Width, stride in pixels and module of each map."""
    if counts_blocks(arch):
        [stage] = arch.stages
        modules = [(f"stages.0.blocks.{i}", stage.width, _stride(arch.stem)) for i in range(stage.depth)]
    else:
        modules, stride = [], _stride(arch.stem)
        for index, stage in enumerate(arch.stages):
            stride *= _stride(stage.downsample)
            modules.append((f"stages.{index}", stage.out_width, stride))
    return [{"num_chs": width, "reduction": stride, "module": module} for module, width, stride in modules]
