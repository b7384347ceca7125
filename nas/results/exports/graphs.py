"""Writing a model as a graph of operations, by torch.export or as ONNX; both take batches of any size."""

import copy
import json
from importlib.util import find_spec
from pathlib import Path

import torch

from metaformer.errors import UserError
from metaformer.network.model import MetaFormer
from nas.results.exports.proof import fixed_images
from nas.results.exports.reading import IMAGES, LOGITS, METADATA
from nas.results.exports.subject import Subject

OPSET = 20  # of ONNX; the first with GELU as one operation
_NEEDED = ("onnx", "onnxruntime", "onnxscript")


def check_onnx() -> None:
    """Check that ONNX can be written and run here.

    Raises:
        UserError: A package is not installed.
    """
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise UserError(
            f"format: onnx needs {', '.join(missing)}, not installed here; pip install 'metaformer-nas[export]'"
        )


def write_torch(subject: Subject, target: Path, *, model: MetaFormer) -> None:
    """The program of a model in evaluation mode, as `torch.export.load` reads it."""
    model, images_BCHW, shapes = _traceable(model)
    with torch.no_grad():
        program = torch.export.export(model, images_BCHW, dynamic_shapes=shapes)
    with target.open("wb") as file:
        torch.export.save(program, file, extra_files={METADATA: json.dumps(_metadata(subject))})


def write_onnx(subject: Subject, target: Path, *, model: MetaFormer) -> None:
    """The graph of a model in evaluation mode, weights inside under their names; runtimes optimise it."""
    model, images_BCHW, shapes = _traceable(model)
    with torch.no_grad():
        program = torch.onnx.export(
            model,
            images_BCHW,
            dynamo=True,
            input_names=[IMAGES],
            output_names=[LOGITS],
            opset_version=OPSET,
            dynamic_shapes=shapes,
            optimize=False,
            verbose=False,
        )
    if program is None:
        raise UserError("format: onnx must be written by torch's exporter, got no program from it")
    program.model.metadata_props.update(_metadata(subject))
    program.save(target)


def _traceable(model: MetaFormer) -> tuple[MetaFormer, tuple[torch.Tensor], tuple[dict[int, object]]]:
    """A copy in plain memory layout, as both writers ask for; images to trace it with, and what of them is dynamic."""
    plain = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
    return plain, (torch.from_numpy(fixed_images(model.arch)),), ({0: torch.export.Dim("batch")},)


def _metadata(subject: Subject) -> dict[str, str]:
    """What a program that runs the graph has to know: the architecture, and how its input is made."""
    known = {"architecture": subject.trial.architecture.model_dump_json(), "command": subject.command}
    if subject.images is not None:
        known["preprocessing"] = subject.images.preprocessing.model_dump_json()
        known["class_names"] = json.dumps(subject.images.class_names)
    return known
