"""Reading exports again; it knows nothing of runs, so that a fresh process has little to load."""

import runpy
from collections.abc import Callable
from pathlib import Path

import torch

from metaformer.architecture import Architecture
from metaformer.checkpoints import load
from nas.results.exports.proof import SEED, Format, Opened, Proof, ProofError, opened_module, seeded_model

PROOF = "proof.json"


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


_OPENERS: dict[Format, Callable[[Path, Proof, Path | None], Opened]] = {
    "yaml": _open_architecture,
    "json": _open_architecture,
    "python": _open_python,
    "timm": _open_timm,
}
