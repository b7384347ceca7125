"""What a model's answers are worth: COCO's average precision, and the mean intersection over union. In percent.

H height, W width, N detections, K classes.
"""

import contextlib
import io
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nas.transfer.ade import AdeData
from nas.transfer.coco import CocoData, CocoSplit
from nas.transfer.examples import labels_of
from nas.transfer.models import IGNORED
from nas.transfer.recipe import TransferRecipe

_NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl")  # the first of COCOeval's statistics
_MASK_FROM = 0.5  # probability from which on a pixel belongs to an object
Metrics = dict[str, float | None]


def make_evaluation(data: AdeData | CocoData, recipe: TransferRecipe) -> "Evaluation":
    """A new evaluation on val."""
    if isinstance(data, AdeData):
        return SegmentationEvaluation(len(data.classes))
    masks = recipe.task == "mask_rcnn"
    return DetectionEvaluation(data.val, labels_of(data, recipe), masks=masks)


class Evaluation(ABC):
    """Takes one image's answer after the other."""

    @abstractmethod
    def add(self, key: int, target: dict[str, Tensor], answer: dict[str, Tensor]) -> None:
        """Take the answer for one image."""

    @abstractmethod
    def metrics(self) -> Metrics:
        """The metrics over all images so far, the one that counts first; None where nothing can be measured."""


class DetectionEvaluation(Evaluation):
    """Average precision of boxes, and of masks, by pycocotools.

    Args:
        labels: The model's label of each category's id.
    """

    def __init__(self, split: CocoSplit, labels: dict[int, int], *, masks: bool) -> None:
        self._split, self._masks = split, masks
        self._category = {label: category for category, label in labels.items()}
        self._found: list[dict[str, Any]] = []

    def add(self, key: int, target: dict[str, Tensor], answer: dict[str, Tensor]) -> None:
        low_N2, high_N2 = answer["boxes"].float().cpu().chunk(2, dim=1)
        boxes_N4 = torch.cat([low_N2, high_N2 - low_N2], dim=1)  # x, y, width, height
        masks = self._encoded(answer["masks"]) if self._masks else [None] * len(boxes_N4)
        labels, scores = answer["labels"].tolist(), answer["scores"].tolist()
        for box, label, score, mask in zip(boxes_N4.tolist(), labels, scores, masks, strict=True):
            row = {"image_id": key, "category_id": self._category[label], "bbox": box, "score": score}
            self._found.append(row if mask is None else row | {"segmentation": mask})

    @staticmethod
    def _encoded(masks_N1HW: Tensor) -> list[Any]:
        """Run-length encodings of the masks."""
        from pycocotools import mask

        pixels_NHW = (masks_N1HW[:, 0] >= _MASK_FROM).cpu().numpy().astype(np.uint8)
        return [mask.encode(np.asfortranarray(pixels_HW)) for pixels_HW in pixels_NHW]

    def metrics(self) -> Metrics:
        kinds = {"box": "bbox", "mask": "segm"} if self._masks else {"box": "bbox"}
        return {
            f"{kind}_{name}": value
            for kind, of_coco in kinds.items()
            for name, value in zip(_NAMES, self._statistics(of_coco), strict=True)
        }

    def _statistics(self, kind: str) -> list[float | None]:
        """COCO's six; -1, of sizes that no object has, becomes None."""
        from pycocotools.cocoeval import COCOeval

        if not self._found:
            return [0.0] * len(_NAMES)
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints what it does
            truth = self._split.api()
            # with the other kind's part in a row, loadRes would take the area from that
            other = "segmentation" if kind == "bbox" else "bbox"
            found = truth.loadRes([{name: row[name] for name in row if name != other} for row in self._found])
            evaluation = COCOeval(truth, found, kind)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        return [None if value < 0 else 100 * float(value) for value in evaluation.stats[: len(_NAMES)]]


class SegmentationEvaluation(Evaluation):
    """mIoU: the mean, over the classes that occur in labels or answers, of intersection over union of all pixels."""

    def __init__(self, num_classes: int) -> None:
        self._counts_KK = torch.zeros(num_classes, num_classes, dtype=torch.long)  # by label, by answer

    def add(self, key: int, target: dict[str, Tensor], answer: dict[str, Tensor]) -> None:
        number = len(self._counts_KK)
        labels_HW, answer_HW = target["labels"].cpu(), answer["labels"].cpu()
        counted = labels_HW != IGNORED
        cells = number * labels_HW[counted] + answer_HW[counted]
        self._counts_KK += torch.bincount(cells, minlength=number**2).view(number, number)

    def metrics(self) -> Metrics:
        counts_KK = self._counts_KK.double()
        both_K = counts_KK.diagonal()
        either_K = counts_KK.sum(0) + counts_KK.sum(1) - both_K
        total = counts_KK.sum()
        if not total:
            return {"mIoU": None, "pixel_accuracy": None}
        mean = (both_K / either_K)[either_K > 0].mean()
        return {"mIoU": 100 * float(mean), "pixel_accuracy": 100 * float(both_K.sum() / total)}
