"""Small sets of coloured shapes in the formats of COCO and ADE20K, and a small architecture with four stages."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from metaformer.architecture import Architecture
from metaformer.specs import Downsample, PoolSpec, SepConvSpec, Stage

_COLOURS = {"square": (220, 40, 40), "triangle": (40, 60, 220)}
CATEGORIES = {3: "square", 7: "triangle"}  # by ids that leave some out, as COCO's do
_SIDE = 64


class Shape(NamedTuple):
    """One shape: its category, and its corners."""

    category: int
    corners: list[tuple[int, int]]


def tiny_pyramid() -> Architecture:
    """Four stages of strides 4, 8, 16 and 32, one block each."""
    widths, mixers = (16, 32, 48, 64), (PoolSpec(), PoolSpec(), SepConvSpec(size=3), SepConvSpec(size=3))
    stages = tuple(
        Stage(depth=1, width=width, mixer=mixer, downsample=Downsample() if index else None, layer_scale=None)
        for index, (width, mixer) in enumerate(zip(widths, mixers, strict=True))
    )
    return Architecture(resolution=64, stages=stages)


def write_coco(root: Path, *, num_train: int = 16, num_val: int = 8) -> Path:
    """A folder as COCO's, with polygons."""
    for split, number, seed in (("train", num_train, 0), ("val", num_val, 1)):
        images, annotations = [], []
        (root / split).mkdir(parents=True)
        for index, shapes in enumerate(_scenes(number, seed)):
            name = f"{split}_{index}.png"
            _painted(shapes).save(root / split / name)
            images.append({"id": 100 + index, "file_name": name, "width": _SIDE, "height": _SIDE})
            annotations += [_annotation(shape, 100 + index) for shape in shapes]
        for place, row in enumerate(annotations, start=1):
            row["id"] = place
        categories = [{"id": number, "name": name} for number, name in CATEGORIES.items()]
        write_instances(root, split, {"images": images, "annotations": annotations, "categories": categories})
    return root


def instances(root: Path, split: str) -> dict[str, Any]:
    """The document of a split's annotations."""
    document: dict[str, Any] = json.loads(_file(root, split).read_text(encoding="utf-8"))
    return document


def write_instances(root: Path, split: str, document: dict[str, Any]) -> None:
    """Write a split's annotations."""
    _file(root, split).parent.mkdir(exist_ok=True)
    _file(root, split).write_text(json.dumps(document), encoding="utf-8")


def write_ade(root: Path, *, num_train: int = 16, num_val: int = 8) -> Path:
    """A folder as ADE20K's, of three classes: ground and the two shapes; the first row of each map does not count."""
    (root / "classes.txt").parent.mkdir(parents=True, exist_ok=True)
    (root / "classes.txt").write_text("\n".join(["ground", *CATEGORIES.values()]) + "\n", encoding="utf-8")
    for split, number, seed in (("training", num_train, 0), ("validation", num_val, 1)):
        for kind in ("images", "annotations"):
            (root / kind / split).mkdir(parents=True)
        for index, shapes in enumerate(_scenes(number, seed)):
            _painted(shapes).save(root / "images" / split / f"{index}.png")
            labels = Image.new("L", (_SIDE, _SIDE), 1)
            draw = ImageDraw.Draw(labels)
            for shape in shapes:
                draw.polygon(shape.corners, fill=2 + list(CATEGORIES).index(shape.category))
            draw.line([(0, 0), (_SIDE, 0)], fill=0)
            labels.save(root / "annotations" / split / f"{index}.png")
    return root


def _file(root: Path, split: str) -> Path:
    return root / "annotations" / f"instances_{split}.json"


def _scenes(number: int, seed: int) -> list[list[Shape]]:
    """One or two shapes each, side by side."""
    rng = np.random.default_rng(seed)
    return [[_shape(rng, left) for left in (0, _SIDE // 2)[: rng.integers(1, 3)]] for _ in range(number)]


def _shape(rng: np.random.Generator, left: int) -> Shape:
    size = int(rng.integers(20, 28))
    x, y = left + int(rng.integers(1, 4)), int(rng.integers(1, _SIDE - 30))
    if rng.integers(2):
        return Shape(3, [(x, y), (x + size, y), (x + size, y + size), (x, y + size)])
    return Shape(7, [(x, y + size), (x + size // 2, y), (x + size, y + size)])


def _painted(shapes: list[Shape]) -> Image.Image:
    image = Image.new("RGB", (_SIDE, _SIDE), (150, 160, 150))
    draw = ImageDraw.Draw(image)
    for shape in shapes:
        draw.polygon(shape.corners, fill=_COLOURS[CATEGORIES[shape.category]])
    return image


def _annotation(shape: Shape, image: int) -> dict[str, Any]:
    xs, ys = zip(*shape.corners, strict=True)
    box = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
    flat = [side for corner in shape.corners for side in corner]
    return {"image_id": image, "category_id": shape.category, "bbox": box, "segmentation": [flat]}
