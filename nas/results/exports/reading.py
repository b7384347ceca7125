"""Reading exports again; it knows nothing of runs, so that a fresh process has little to load."""

import math
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from metaformer.architecture import Architecture
from metaformer.checkpoints import load
from metaformer.network.model import build
from nas.results.exports.proof import SEED, Floats, Format, Opened, Proof, ProofError, opened_module, seeded_model

if TYPE_CHECKING:
    from onnx import ModelProto

PROOF = "proof.json"
IMAGES, LOGITS = "images", "logits"  # input and output of an ONNX graph
METADATA = "export.json"  # in a program of torch.export


def proof_of(path: Path) -> Path:
    """The proof that lies in the folder of an export, or beside its file."""
    return path / PROOF if path.is_dir() else path.with_name(f"{path.name}.{PROOF}")


def open_export(path: Path, proof: Proof, weights: Path | None) -> Opened:
    """The model of an export whose files are as they were written.

    Raises:
        UserError: It cannot be read.
    """
    return _OPENERS[proof.format](path, proof, weights)


def _open_architecture(path: Path, proof: Proof, weights: Path | None) -> Opened:
    """The model that a YAML or JSON file describes.

    Raises:
        ProofError: It is another architecture.
    """
    arch = Architecture.from_file(path)
    if arch != proof.architecture:
        raise ProofError(f"architecture: must be {proof.architecture.digest}, got {arch.digest} from the export")
    return opened_module(seeded_model(arch) if weights is None else load(arch, weights).eval(), arch)


def _open_python(path: Path, proof: Proof, weights: Path | None) -> Opened:
    """The model that a Python file builds; the file is run."""
    build = runpy.run_path(str(path))["build"]
    torch.manual_seed(SEED)
    return opened_module(build() if weights is None else build(weights), proof.architecture)


def _open_timm(path: Path, proof: Proof, _weights: Path | None) -> Opened:
    """The model that timm opens from a folder.

    Raises:
        ProofError: It is another architecture.
    """
    import timm

    from metaformer import timm_models  # registers mf_exported

    model = timm.create_model(f"local-dir:{path}", pretrained=True).eval()
    if not isinstance(model, timm_models.TimmMetaFormer) or model.arch != proof.architecture:
        raise ProofError(f"architecture: must be {proof.architecture.digest} in what timm opens, got another")
    return opened_module(model, proof.architecture)


def _open_torch(path: Path, proof: Proof, _weights: Path | None) -> Opened:
    """The program that torch.export reads."""
    with path.open("rb") as file:
        return opened_module(torch.export.load(file).module(), proof.architecture)


def _open_onnx(path: Path, proof: Proof, _weights: Path | None) -> Opened:
    """The graph that onnxruntime runs; the weights that the model trains are found by name and shape."""
    import onnx
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    graph = onnx.load(path)
    with torch.device("meta"):
        trained = {name: tuple(weight.shape) for name, weight in build(proof.architecture).named_parameters()}
    params = sum(math.prod(held.dims) for held in graph.graph.initializer if trained.get(held.name) == (*held.dims,))

    def logits(images_BCHW: Floats) -> Floats:
        [found] = session.run([LOGITS], {IMAGES: images_BCHW})
        return np.asarray(found, np.float32)

    return Opened(params, _count_macs(graph), logits)


def _count_macs(model: "ModelProto") -> int:
    """Multiply-accumulates of a graph for one image: of convolutions, linear layers and matrix products.

    Shapes are those that the graph says of its maps, and what follows from them.

    Raises:
        ProofError: It has a product of unknown shape, or one that is not counted.
    """
    import onnx

    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {held.name: list(held.dims) for held in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):  # of a map only the batch is unknown, as 0
        if value.type.tensor_type.HasField("shape"):
            shapes[value.name] = [max(1, side.dim_value) for side in value.type.tensor_type.shape.dim]
    macs = 0
    for node in graph.node:
        is_known = all(name in shapes for name in (node.output[0], *node.input[:2]))
        if node.op_type in {"ConvTranspose", "Einsum"} or (node.op_type in _PRODUCTS and not is_known):
            raise ProofError(f"macs: must be of products of known shape, got {node.op_type} {node.name}")
        if node.op_type in _PRODUCTS:
            a, b = (shapes[name] for name in node.input[:2])
            macs += math.prod(shapes[node.output[0]]) * (math.prod(b[1:]) if node.op_type == "Conv" else a[-1])
    return macs


_PRODUCTS = {"Conv", "Gemm", "MatMul"}
_OPENERS: dict[Format, Callable[[Path, Proof, Path | None], Opened]] = {
    "yaml": _open_architecture,
    "json": _open_architecture,
    "python": _open_python,
    "timm": _open_timm,
    "onnx": _open_onnx,
    "torch": _open_torch,
}
