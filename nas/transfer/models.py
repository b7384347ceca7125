"""Detectors and a segmenter on the four maps of a backbone.

All are called alike: in training on a list of images x_CHW (0 to 1) and targets, which gives losses by name; in
evaluation on the images alone, which gives an answer for each. B batch, C channels, H height, W width, K classes.
"""

from collections import OrderedDict
from math import ceil

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, LastLevelMaxPool, LastLevelP6P7

from metaformer.architecture import Architecture
from metaformer.network.layers import make_norm
from metaformer.network.model import MetaFormer, build
from metaformer.specs import Norm
from nas.training.optimisation import with_drop_path
from nas.training.precision import autocast
from nas.transfer.recipe import TransferRecipe

IGNORED = 255  # label of pixels that do not count
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's
_MULTIPLE = 32  # of the sides of what the backbone sees
_PER_IMAGE = 100  # detections
_PROPOSALS = 1000  # of an image
_BOX_WIDTH = 1024  # of the two hidden layers of a box's head
_DROPOUT = 0.1  # before the last layer of the semantic head


class Pyramid(nn.Module):
    """A backbone without its head, a norm for each of its maps, and a feature pyramid over them.

    The norms are PoolFormer's (GroupNorm of one group), as its code for dense prediction has them whatever the blocks'
    own norm is. Maps below `start_level` are not used, and have none.
    """

    def __init__(
        self,
        trunk: MetaFormer,
        recipe: TransferRecipe,
        *,
        start_level: int = 0,
        extra_blocks: ExtraFPNBlock | None = None,
    ) -> None:
        super().__init__()
        trunk.head = nn.Identity()  # type: ignore[assignment]
        self.trunk, self.out_channels, self._optimisation = trunk, recipe.channels, recipe.optimisation
        widths = [stage.width for stage in trunk.arch.stages]
        self.norms = nn.ModuleDict(
            {
                str(level): make_norm(Norm(kind="mln"), width)
                for level, width in enumerate(widths)
                if level >= start_level
            }
        )
        self.fpn = FeaturePyramidNetwork(widths[start_level:], recipe.channels, extra_blocks)

    def forward(self, x_BCHW: Tensor) -> "OrderedDict[str, Tensor]":
        """The pyramid's maps, BCHW, finest first, in float32: boxes are decoded to fractions of a pixel from them."""
        with autocast(x_BCHW.device, self._optimisation):
            maps = self.trunk.features(x_BCHW)
            found = self.fpn(OrderedDict((level, norm(maps[int(level)])) for level, norm in self.norms.items()))
        return OrderedDict((level, map_BCHW.float()) for level, map_BCHW in found.items())


def make_model(arch: Architecture, recipe: TransferRecipe, *, num_classes: int) -> nn.Module:
    """A freshly initialised model of the recipe's task on an architecture that `check_pyramid` lets through."""
    trunk = build(with_drop_path(arch, recipe.optimisation))
    match recipe.task:
        case "retinanet":
            return _make_retinanet(trunk, recipe, num_classes)
        case "mask_rcnn":
            return _make_mask_rcnn(trunk, recipe, num_classes)
        case "semantic_fpn":
            return SemanticFPN(trunk, recipe, num_classes=num_classes)


def _make_retinanet(trunk: MetaFormer, recipe: TransferRecipe, num_classes: int) -> nn.Module:
    """RetinaNet (arXiv:1708.02002) as in MMDetection: maps of strides 8 to 128, the last two made of the backbone's."""
    extra = LastLevelP6P7(trunk.arch.stages[-1].width, recipe.channels)
    extra.use_P5 = False  # torchvision would take the pyramid's map where the widths are equal
    pyramid = Pyramid(trunk, recipe, start_level=1, extra_blocks=extra)
    sizes = tuple(tuple(int(side * 2 ** (third / 3)) for third in range(3)) for side in (32, 64, 128, 256, 512))
    return RetinaNet(
        pyramid,
        num_classes,
        anchor_generator=AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(sizes)),
        detections_per_img=_PER_IMAGE,
        **_transform(recipe),
    )


def _make_mask_rcnn(trunk: MetaFormer, recipe: TransferRecipe, num_classes: int) -> nn.Module:
    """Mask R-CNN (arXiv:1703.06870) as torchvision has it; its boxes have coordinates for the background too."""
    pyramid = Pyramid(trunk, recipe, extra_blocks=LastLevelMaxPool())
    width = recipe.channels
    return MaskRCNN(
        pyramid,
        box_detections_per_img=_PER_IMAGE,
        rpn_post_nms_top_n_train=_PROPOSALS,
        box_predictor=FastRCNNPredictor(_BOX_WIDTH, num_classes + 1),
        mask_head=MaskRCNNHeads(width, (width,) * 4, dilation=1),
        mask_predictor=MaskRCNNPredictor(width, width, num_classes + 1),
        **_transform(recipe),
    )


def _transform(recipe: TransferRecipe) -> dict[str, object]:
    return {
        "min_size": recipe.size,
        "max_size": recipe.max_size,
        "image_mean": list(_MEAN),
        "image_std": list(_STD),
        "size_divisible": _MULTIPLE,
    }


class SemanticFPN(nn.Module):
    """The semantic branch of Panoptic FPN (arXiv:1901.02446, section 3.1) over the pyramid's four maps.

    Each map is brought to stride 4 by convolutions (3 x 3, batch norm, ReLU) with bilinear upsampling between; their
    sum goes through dropout and one linear layer. Targets are `labels` HW of 0 to K - 1, or 255 where none counts.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, trunk: MetaFormer, recipe: TransferRecipe, *, num_classes: int) -> None:
        super().__init__()
        self.pyramid = Pyramid(trunk, recipe)
        self._size, self._max_size, self._optimisation = recipe.size, recipe.max_size, recipe.optimisation
        width = recipe.channels // 2
        self.branches = nn.ModuleList(_branch(recipe.channels, width, doublings=level) for level in range(4))
        self.dropout = nn.Dropout2d(_DROPOUT)
        self.classify = nn.Conv2d(width, num_classes, 1)
        nn.init.normal_(self.classify.weight, std=0.01)
        nn.init.constant_(self.classify.get_parameter("bias"), 0.0)
        self.register_buffer("mean", torch.tensor(_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(_STD)[:, None, None], persistent=False)

    def forward(
        self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """In training the cross-entropy of images of one size; else the likeliest `labels` HW of each image."""
        if targets is None:
            return [{"labels": self._label(image_CHW)} for image_CHW in images]
        y_BHW = torch.stack([target["labels"] for target in targets])
        logits_BKHW = self._logits(torch.stack(images))
        return {"cross_entropy": F.cross_entropy(logits_BKHW, y_BHW, ignore_index=IGNORED)}

    def _logits(self, x_BCHW: Tensor) -> Tensor:
        """At the input's size."""
        maps = self.pyramid((x_BCHW - self.mean) / self.std).values()
        with autocast(x_BCHW.device, self._optimisation):
            branches = [branch(map_BCHW) for branch, map_BCHW in zip(self.branches, maps, strict=True)]
            logits_BKHW = self.classify(self.dropout(torch.stack(branches).sum(0)))
        return _resize(logits_BKHW.float(), x_BCHW.shape[-2:])

    def _label(self, image_CHW: Tensor) -> Tensor:
        height, width = image_CHW.shape[-2:]
        factor = min(self._size / min(height, width), self._max_size / max(height, width))
        sides = [_MULTIPLE * ceil(round(side * factor) / _MULTIPLE) for side in (height, width)]
        logits_BKHW = self._logits(_resize(image_CHW[None], sides))
        return _resize(logits_BKHW, (height, width))[0].argmax(0)


def _branch(in_channels: int, width: int, *, doublings: int) -> nn.Sequential:
    """From a map of a stride of 4 times 2 ** `doublings` to one of stride 4; BCHW in, BCHW out."""
    parts: list[nn.Module] = []
    for index in range(max(1, doublings)):
        conv = nn.Conv2d(width if index else in_channels, width, 3, padding=1, bias=False)
        parts += [conv, nn.BatchNorm2d(width), nn.ReLU()]
        if doublings:
            parts.append(nn.Upsample(scale_factor=2, mode="bilinear"))
    return nn.Sequential(*parts)


def _resize(x_BCHW: Tensor, sides: "torch.Size | list[int] | tuple[int, int]") -> Tensor:
    return F.interpolate(x_BCHW, size=tuple(sides), mode="bilinear")
