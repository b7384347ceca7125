"""Annotations that are refused, and examples that fit their images."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from nas.data import DataError
from nas.transfer.ade import read_ade
from nas.transfer.coco import CocoData, read_coco
from nas.transfer.evaluation import DetectionEvaluation, SegmentationEvaluation
from nas.transfer.examples import AdeExamples, CocoExamples, labels_of, train_batches
from nas.transfer.models import IGNORED
from nas.transfer.recipe import TransferRecipe
from tests.nas.transfer.shapes import CATEGORIES, instances, write_ade, write_coco, write_instances

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools 2.0.11
RECIPE = TransferRecipe(task="mask_rcnn", epochs=1, batch_size=3, flip=1.0)


def read(root: Path) -> CocoData:
    return read_coco(root, masks=True, say=lambda _: None)


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coco(tmp_path_factory.mktemp("shapes") / "coco", num_train=5, num_val=3)


def _first(name: str, **changes: object) -> Callable[[dict[str, Any]], object]:
    return lambda document: document[name][0].update(changes)


WRONG: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (_first("images", file_name="gone.png"), "images.file_name: must be a file in .*, got 'gone.png'"),
    (_first("images", width="64"), "images.width: must be a whole number above 0, got '64'"),
    (_first("images", id=None), "images.id: must be a whole number, got None"),
    (_first("images", id=101), "images.id: must be of one row, got 101"),
    (
        _first("annotations", category_id=5),
        "annotations.category_id: must be the id of one of the category rows, got 5",
    ),
    (_first("annotations", image_id=5), "annotations.image_id: must be the id of one of the image rows, got 5"),
    (_first("annotations", bbox=[1, 2, 3]), r"annotations.bbox: must be four numbers .*, got \[1, 2, 3\]"),
    (_first("annotations", bbox=[1, 2, 3, float("nan")]), "annotations.bbox: must be four numbers"),
    (_first("annotations", segmentation=[[1, 2, 3, 4, 5, "6"]]), "annotations.segmentation: must be polygons"),
    (
        _first("annotations", segmentation={"size": [64, 64], "counts": [5]}),
        "annotations.segmentation: must be polygons",
    ),
    (_first("annotations", segmentation=[[1, 2]]), "annotations.segmentation: must be polygons"),
    (lambda document: document.pop("images"), "images: must be a list of mappings, got None"),
    (lambda document: document.update(categories=[3]), r"categories: must be a list of mappings, got \[3\]"),
]


@pytest.mark.parametrize(("change", "line"), WRONG, ids=[line[:40] for _, line in WRONG])
def test_annotations_that_fit_nothing_are_refused(
    change: Callable[[dict[str, Any]], object], line: str, tmp_path: Path
) -> None:
    root = write_coco(tmp_path / "coco", num_train=2, num_val=1)
    document = instances(root, "train")
    change(document)
    write_instances(root, "train", document)
    with pytest.raises(DataError, match=f"^data instances_train.json: {line}"):
        read(root)


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "[]", "\x00"])
def test_malformed_json_is_refused(text: str, tmp_path: Path) -> None:
    root = write_coco(tmp_path / "coco", num_train=1, num_val=1)
    (root / "annotations" / "instances_val.json").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"^data.*: must be (JSON|a mapping of images)"):
        read(root)


def test_boxes_and_masks_of_flipped_images_lie_on_the_shapes(coco: Path) -> None:
    examples = CocoExamples(read(coco), RECIPE)
    for batch in train_batches(examples, RECIPE, seed=0, first_step=0, last_step=2, num_workers=0):
        for example in batch:
            painted_HW = (example.image != example.image[:, :1, :1]).any(0)
            masks_NHW, boxes_N4 = example.target["masks"].bool(), example.target["boxes"]
            assert (masks_NHW.any(0) != painted_HW).float().mean() < 0.03  # polygons end half a pixel earlier
            for mask_HW, box in zip(masks_NHW, boxes_N4, strict=True):
                rows, columns = torch.where(mask_HW)
                found = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
                assert (found - box).abs().max() <= 1
            assert set(example.target["labels"].tolist()) <= {1, 2}


def test_a_run_length_encoding_is_the_mask_of_its_polygons(tmp_path: Path) -> None:
    """Uncompressed, as COCO's files have those of crowds: columns, the number outside first."""
    root = write_coco(tmp_path / "coco", num_train=1, num_val=1)
    expected_NHW = CocoExamples(read(root), RECIPE).train(0, torch.Generator().manual_seed(0)).target["masks"]
    document = instances(root, "train")
    for row, mask_HW in zip(document["annotations"], expected_NHW.flip(-1), strict=True):
        pixels = mask_HW.T.flatten().numpy()
        changes = np.flatnonzero(np.diff(pixels, prepend=0, append=1 - pixels[-1]))
        row["segmentation"] = {"size": [64, 64], "counts": np.diff(changes, prepend=0).tolist()}
    write_instances(root, "train", document)
    found_NHW = CocoExamples(read(root), RECIPE).train(0, torch.Generator().manual_seed(0)).target["masks"]
    assert torch.equal(found_NHW, expected_NHW)


def test_an_image_that_a_process_cannot_read_is_named(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "coco", num_train=3, num_val=1)
    examples = CocoExamples(read(root), RECIPE)
    Image.new("RGB", (32, 64)).save(root / "train" / "train_1.png")
    with pytest.raises(DataError, match=r"^data: must have 64 x 64 pixels in .*train_1.png, got 32 x 64$"):
        list(train_batches(examples, RECIPE, seed=0, first_step=0, last_step=1, num_workers=1))
    (root / "train" / "train_1.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"^image.*train_1.png"):
        list(train_batches(examples, RECIPE, seed=0, first_step=0, last_step=1, num_workers=1))


def test_a_step_sees_the_same_images_whenever_it_comes(coco: Path) -> None:
    examples = CocoExamples(read(coco), RECIPE)
    whole = list(train_batches(examples, RECIPE, seed=3, first_step=0, last_step=5, num_workers=0))
    rest = list(train_batches(examples, RECIPE, seed=3, first_step=2, last_step=5, num_workers=0))
    assert [[example.key for example in batch] for batch in whole[2:]] == [[e.key for e in batch] for batch in rest]
    assert all(torch.equal(a.image, b.image) for a, b in zip(whole[2], rest[0], strict=True))
    seen = [example.key for batch in whole for example in batch]
    assert sorted(seen[:5]) == sorted(seen[5:10]) == sorted(seen[10:15])  # every image once an epoch


def test_the_truth_as_answer_has_full_precision(coco: Path) -> None:
    data = read(coco)
    plain = RECIPE.model_copy(update={"flip": 0.0})
    swapped = CocoExamples(CocoData(data.val, data.train, data.categories), plain)
    evaluation = DetectionEvaluation(data.val, labels_of(data, plain), masks=True)
    assert evaluation.metrics()["box_AP"] == 0
    for number in range(swapped.num_train):
        example = swapped.train(number, torch.Generator())
        answer = {**example.target, "scores": torch.ones(len(example.target["boxes"]))}
        answer["masks"] = answer["masks"][:, None].float()
        evaluation.add(example.key, {}, answer)
    metrics = evaluation.metrics()
    assert [metrics[name] for name in ("box_AP", "mask_AP", "box_APs")] == pytest.approx([100, 100, 100])
    assert metrics["box_APl"] is None  # no object is that large


def test_miou_by_hand() -> None:
    evaluation = SegmentationEvaluation(4)
    labels, answer = torch.tensor([[0, 0, 1, IGNORED]]), torch.tensor([[0, 1, 1, 3]])
    evaluation.add(0, {"labels": labels}, {"labels": answer})
    assert evaluation.metrics() == {"mIoU": pytest.approx(50), "pixel_accuracy": pytest.approx(200 / 3)}


def test_label_maps_follow_their_images(tmp_path: Path) -> None:
    """The classes lie where their colours are, after scale, crop, flip and padding."""
    data = read_ade(write_ade(tmp_path / "ade", num_train=4, num_val=1), watch=lambda steps, _: steps)
    assert data.classes == ("ground", *CATEGORIES.values())
    recipe = TransferRecipe(task="semantic_fpn", steps=4, batch_size=2, size=96, max_size=384, scale_range=(0.5, 2.0))
    for batch in train_batches(AdeExamples(data, recipe), recipe, seed=0, first_step=0, last_step=4, num_workers=0):
        for example in batch:
            labels_HW = example.target["labels"]
            assert example.image.shape == (3, 96, 96)
            assert labels_HW.shape == (96, 96)
            red_HW = (example.image[0] > 200) & (labels_HW != IGNORED)
            assert ((labels_HW == 1) != red_HW).float().mean() < 0.05


def test_label_maps_that_fit_nothing_are_refused(tmp_path: Path) -> None:
    root = write_ade(tmp_path / "ade", num_train=2, num_val=1)

    def refused(line: str) -> None:
        with pytest.raises(DataError, match=line):
            read_ade(root, watch=lambda steps, _: steps)

    path = root / "annotations" / "training" / "1.png"
    Image.fromarray(np.full((64, 64), 4, np.uint8)).save(path)
    refused(r"^data 1.png: must have values of 0 to 3, the classes, got 4$")
    Image.fromarray(np.ones((32, 64), np.uint8)).save(path)
    refused(r"^data 1.png: must be 64 x 64 as its image, got '64 x 32'$")
    path.write_bytes(b"no image")
    refused(r"^data 1.png: must be a readable PNG")
    path.unlink()
    refused(f"^data: must have one image in {re.escape(str(root))}.* for each name, got '1 in one of them'$")
    (root / "classes.txt").unlink()
    refused(r"^data: must hold classes.txt, a name a line, or objectInfo150.txt")
