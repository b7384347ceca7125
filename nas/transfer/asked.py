"""What was asked for, checked before anything heavy is loaded: the architecture and the data."""

from pathlib import Path

from metaformer.architecture import Architecture
from metaformer.errors import ArchitectureError, UserError, shown
from nas.transfer.ade import AdeData, read_ade
from nas.transfer.coco import CocoData, check_pycocotools, read_coco
from nas.transfer.narrator import Narrator
from nas.transfer.recipe import Task

_STRIDES = (4, 8, 16, 32)
_SIDE = 256  # of an image on which the strides are read off


def check_pyramid(arch: Architecture) -> None:
    """Check that an architecture has four stages of strides 4, 8, 16 and 32, for images of any size.

    Raises:
        ArchitectureError: It has others, or a class token, is tied to one resolution, or takes no colour images.
    """
    rule = "must be four of strides 4, 8, 16 and 32 for a feature pyramid"
    if len(arch.stages) != len(_STRIDES):
        raise ArchitectureError(f"stages: {rule}, got {len(arch.stages)}")
    if arch.stem.in_channels != 3:
        raise ArchitectureError(f"in_channels: must be 3, for red, green and blue, got {arch.stem.in_channels}")
    if any(stage.class_token for stage in arch.stages):
        raise ArchitectureError("class_token: must be false for a feature pyramid, got true")
    if arch.fixes_resolution:
        raise ArchitectureError(
            f"resolution: must be free for images of all sizes, got {arch.resolution}, which a spatial MLP, a token "
            "MLP, a random matrix or a position embedding fixes"
        )
    strides = tuple(_SIDE // side for side in arch.sides(_SIDE))
    if strides != _STRIDES:
        raise ArchitectureError(f"stages: {rule}, got strides {', '.join(map(str, strides))}")


def find_data(task: Task, data: str) -> Path:
    """The folder of the data: `coco:PATH` for detectors, `ade:PATH` for segmentation.

    Raises:
        UserError: They are of another kind, or what reads them is not installed.
    """
    kind = "ade" if task == "semantic_fpn" else "coco"
    prefix, _, path = data.partition(":")
    if prefix != kind or not path:
        raise UserError(f"data: must be {kind}:PATH for task {task}, got {shown(data)}")
    if kind == "coco":
        check_pycocotools()
    return Path(path)


def read_data(task: Task, root: Path, narrator: Narrator) -> AdeData | CocoData:
    """The data in a folder, checked.

    Raises:
        DataError: They are not as they should be.
    """
    if task == "semantic_fpn":
        return read_ade(root, watch=narrator.watch)
    return read_coco(root, masks=task == "mask_rcnn", say=narrator.say)
