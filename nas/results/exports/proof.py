"""What a model that is read from an export must give: parameters, MACs, and logits of fixed images.

B batch, C channels, H height, W width, K classes.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import NonNegativeInt, ValidationError
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from metaformer.architecture import Architecture
from metaformer.cost import count_cost
from metaformer.documents import read_text, sha256_of
from metaformer.errors import UserError, explain, shown
from metaformer.network.model import MetaFormer, build
from metaformer.specs import Spec, Version
from metaformer.specs.parts import PositiveFloat

Floats = NDArray[np.float32]
Format = Literal["yaml", "json", "python", "timm", "onnx", "torch"]
NUM_IMAGES = 3  # together in one batch; the first one also alone
SEED = 0  # of the images, and of the weights where an export has none
WHOLE = "export"  # the name of an export of one file among the digests
WEIGHTS = "weights"  # and that of the file of weights beside it
_TOLERANCE = 1e-4  # times the largest logit, or 1 if that is smaller


class ProofError(UserError):
    """An export that is not what was written, or gives another model."""


class Proof(Spec):
    """What an export must give when it is read."""

    version: Version = 1
    format: Format
    architecture: Architecture
    params: NonNegativeInt
    macs: NonNegativeInt  # of one image
    logits: tuple[tuple[float, ...], ...]  # of each of the fixed images
    tolerance: PositiveFloat  # most that a logit may differ
    sha256: dict[str, str]  # of each file


class Opened(NamedTuple):
    """A model that was read from an export."""

    params: int
    macs: int
    logits: Callable[[Floats], Floats]  # of x_BCHW


def fixed_images(arch: Architecture) -> Floats:
    """Normal noise x_BCHW that is the same everywhere; numpy never changes what this generator draws."""
    shape = (NUM_IMAGES, arch.stem.in_channels, arch.resolution, arch.resolution)
    return np.random.RandomState(SEED).standard_normal(shape).astype(np.float32)


def seeded_model(arch: Architecture) -> MetaFormer:
    """A fresh model in evaluation mode with equal weights in every process; torch's generator stays as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return build(arch).eval()


def expect(model: MetaFormer, kind: Format, sha256: Mapping[str, str]) -> Proof:
    """What an export of a model in evaluation mode must give.

    Raises:
        ProofError: The model gives no finite logits.
    """
    opened, images_BCHW = opened_module(model, model.arch), fixed_images(model.arch)
    logits_BK = opened.logits(images_BCHW)
    if not np.isfinite(logits_BK).all():
        raise ProofError("weights: must give finite logits, got NaN or infinity for normal noise")
    cost = count_cost(model.arch)
    return Proof(
        format=kind,
        architecture=model.arch,
        params=cost.params,
        macs=cost.macs,
        logits=tuple(map(tuple, logits_BK.tolist())),
        tolerance=_TOLERANCE * max(1.0, float(np.abs(logits_BK).max())),
        sha256=dict(sha256),
    )


def opened_module(module: nn.Module, arch: Architecture) -> Opened:
    """A torch module whose parameters are counted and whose MACs torch's counter sees."""

    def logits(images_BCHW: Floats) -> Floats:
        with torch.no_grad():
            found: Floats = module(torch.from_numpy(images_BCHW)).numpy()
        return found

    with FlopCounterMode(display=False) as counter:
        logits(fixed_images(arch)[:1])
    params = sum(parameter.numel() for parameter in module.parameters())
    return Opened(params, counter.get_total_flops() // 2, logits)


def compare(opened: Opened, proof: Proof) -> float:
    """The largest difference of a logit, in batches of one and of all fixed images.

    Raises:
        ProofError: Parameters or MACs differ, or logits by more than the tolerance.
    """
    for name, found, expected in (
        ("params", opened.params, proof.params),
        ("macs", opened.macs, proof.macs),
    ):
        if found != expected:
            raise ProofError(f"{name}: must be {expected:,}, as those of the trial, got {found:,} from the export")
    images_BCHW, expected_BK = fixed_images(proof.architecture), np.array(proof.logits, np.float32)
    largest = 0.0
    for count in (1, NUM_IMAGES):
        found_BK = opened.logits(images_BCHW[:count])
        if found_BK.shape != expected_BK[:count].shape:
            raise ProofError(f"logits: must have the shape {expected_BK[:count].shape}, got {found_BK.shape}")
        difference = float(np.abs(found_BK - expected_BK[:count]).max(initial=0.0))
        if not difference <= proof.tolerance:  # a NaN too
            raise ProofError(
                f"logits: must differ by at most {proof.tolerance:.1e} from the trial's, got {difference:.1e} "
                f"in a batch of {count}"
            )
        largest = max(largest, difference)
    return largest


def check_digests(files: Mapping[str, Path], sha256: Mapping[str, str]) -> None:
    """Check that files are as they were written.

    Raises:
        ProofError: One is missing, longer, shorter or changed.
    """
    for name, expected in sha256.items():
        path = files[name]
        try:
            found = sha256_of(path)
        except OSError as error:
            raise ProofError(f"export: must be whole, got no readable {shown(str(path))} ({error.strerror})") from None
        if found != expected:
            raise ProofError(
                f"export: must be as it was written, got {shown(str(path))} changed or truncated "
                f"(SHA-256 {found[:12]}…, not {expected[:12]}…)"
            )


def read_proof(path: Path) -> Proof:
    """The proof in a file.

    Raises:
        ProofError: There is none, or it is damaged.
    """
    text = read_text(path, "proof", error=ProofError)
    try:
        return Proof.model_validate_json(text)
    except ValidationError as error:
        raise ProofError(f"{path}: {explain(error, Proof)}") from None
