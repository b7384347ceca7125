"""Where a training stands, in memory and in its checkpoints."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pickle import UnpicklingError
from typing import Any, NamedTuple

import numpy as np
import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from metaformer.architecture import Architecture
from metaformer.checkpoints import load
from metaformer.network.model import MetaFormer, build
from metaformer.network.part import ALONE, Part
from nas.data.generators import get_states, set_states
from nas.study.lease import BEST, WEIGHTS, Lease, Start
from nas.training.checkpoints import (
    CheckpointFolder,
    DamagedCheckpointError,
    checkpoint_name,
    is_checkpoint_name,
    place_of,
)
from nas.training.errors import TrainingError
from nas.training.optimisation import make_ema, make_optimizer, with_drop_path
from nas.training.processes import share_out
from nas.training.steps import is_out_of_memory, memory_named


class Best(NamedTuple):
    """The epoch whose weights are kept as the best."""

    epoch: int
    val_accuracy: float  # in [0, 1]


@dataclass(frozen=True)
class Within:
    """A place within an epoch."""

    step: int  # steps of the epoch done so far
    loss: Tensor  # their sum, (), on the device
    generators: dict[str, Any]  # as `generator_states` gives them


@dataclass
class State:
    """Where training stands."""

    model: MetaFormer
    optimizer: torch.optim.Optimizer
    ema: ModelEmaV3 | None
    num_done: int  # whole epochs
    within: Within | None = None  # of the next one; None: at its beginning
    note: str | None = None  # which checkpoints could not be read

    @property
    def evaluated(self) -> nn.Module:
        """What is evaluated and kept in the end: the averages of the weights where the recipe has them."""
        module: nn.Module = self.model if self.ema is None else self.ema.module
        return module

    @property
    def keys(self) -> set[str]:
        """What a checkpoint holds of training beside the model."""
        return {"optimizer"} if self.ema is None else {"optimizer", "ema"}

    def state_dict(self) -> dict[str, object]:
        """What a checkpoint holds, from which training goes on."""
        state: dict[str, object] = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        if self.ema is not None:
            state["ema"] = self.ema.module.state_dict()
        if self.within is not None:
            within = {"step": self.within.step, "loss": self.within.loss, "generators": self.within.generators}
            state["within"] = within
        return state

    def load(self, state: dict[str, Any]) -> None:
        """Take over what a checkpoint has beside the model."""
        self.num_done = int(state["epoch"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.ema is not None:
            self.ema.module.load_state_dict(state["ema"])
        self.within = Within(**state["within"]) if "within" in state else None


def resume(lease: Lease, files: CheckpointFolder, device: torch.device, *, part: Part = ALONE) -> State:
    """The state in the lease's checkpoint, or in the newest one before it that can be read, or the beginning.

    Args:
        part: Of the batches, where several processes train the model.
    """
    problems = []
    for name in _newest_first(lease, files):
        state = _beginning(lease, device, part)
        try:
            restore(lease, files, name, state.model, state)
        except DamagedCheckpointError as error:
            problems.append(f"checkpoint {name} could not be read ({error})")
        else:
            state.note = "; ".join([*problems, f"went on from {name}"]) if problems else None
            return state
    state = _beginning(lease, device, part)
    state.note = "; ".join([*problems, "began again"]) if problems else None
    return state


def _newest_first(lease: Lease, files: CheckpointFolder) -> Iterator[str]:
    """The lease's checkpoint, then those before it that are there."""
    if lease.checkpoint is not None:
        yield lease.checkpoint
        newest = place_of(lease.checkpoint)
        yield from (name for name in reversed(files.checkpoints()) if place_of(name) < newest)


def _beginning(lease: Lease, device: torch.device, part: Part) -> State:
    seed_everything(lease.seed, epoch=0)
    with memory_named():
        model = build(with_drop_path(lease.architecture, lease.recipe)).to(device)
        share_out(model, part)
        if lease.start is not None:
            _load_start(model, lease.start, lease.architecture)
        optimizer, ema = make_optimizer(model, lease.recipe), make_ema(model, lease.recipe)
    return State(model, optimizer, ema, num_done=0)


def _load_start(model: MetaFormer, start: Start, arch: Architecture) -> None:
    """Load weights of the same architecture, perhaps trained at another resolution or on other classes.

    Position embeddings are resampled as the official code of the family does it.

    Raises:
        CheckpointError: There are no such weights, or they do not fit.
    """
    head = arch.head.model_copy(update={"num_classes": start.num_classes})
    other = load(arch.model_copy(update={"head": head}), start.file, resample_positions=True)
    own = model.state_dict()
    fitting = {
        name: own[name] if name.startswith("head.") and own[name].shape != tensor.shape else tensor
        for name, tensor in other.state_dict().items()
    }
    model.load_state_dict(fitting)


def save(lease: Lease, files: CheckpointFolder, training: State) -> str:
    """Write a checkpoint, and drop all but it and the one before of each kind; its file name.

    After the last epoch of the recipe it is the weights alone.
    """
    done = training.num_done
    document = _head(lease, training)
    if done == lease.recipe.epochs:
        document["model"] = training.evaluated.state_dict()
        name, kept = WEIGHTS, [checkpoint_name(done - 1)]
    elif training.within is not None:
        document |= training.state_dict()
        name = checkpoint_name(done, training.within.step)
        before = [other for other in files.checkpoints() if place_of(other) < place_of(name)]
        kept = [checkpoint_name(done - 1), checkpoint_name(done), *before[-1:], name]
    else:
        document |= training.state_dict()
        name = checkpoint_name(done)
        kept = [checkpoint_name(done - 1), name]
    files.save(name, partial(torch.save, document), attempt=lease.attempt)
    files.keep(kept)
    return name


def save_best(lease: Lease, files: CheckpointFolder, training: State, *, val_accuracy: float) -> None:
    """Write the weights as those of the best epoch so far."""
    document = _head(lease, training) | {"model": training.evaluated.state_dict(), "val_accuracy": val_accuracy}
    files.save(BEST, partial(torch.save, document), attempt=lease.attempt)


def _head(lease: Lease, training: State) -> dict[str, object]:
    """What every file of a training begins with."""
    return {"version": 1, "digest": lease.architecture.digest, "epoch": training.num_done}


def find_best(files: CheckpointFolder) -> Best | None:
    """The best epoch whose weights are kept; None where none are, or they cannot be read."""
    try:
        document = torch.load(files.read(BEST), map_location="cpu", weights_only=True)
        return Best(int(document["epoch"]), float(document["val_accuracy"]))
    except (DamagedCheckpointError, UnpicklingError, EOFError, RuntimeError, ValueError, KeyError, TypeError):
        return None


def restore(lease: Lease, files: CheckpointFolder, name: str, model: MetaFormer, training: State | None = None) -> None:
    """Load a checkpoint into what training goes on with, or what is evaluated of it into a model alone.

    Only a damaged container gives way to an older checkpoint. One that is whole but of another model means that
    something else is wrong, and training from the start would hide it at the user's cost.

    Raises:
        DamagedCheckpointError: The file cannot be read.
        TrainingError: It can, and holds something else than this lease's model; the model may be changed all the same.
    """
    content = files.read(name)
    try:
        state = torch.load(content, map_location=next(model.parameters()).device, weights_only=True)
    except UnpicklingError:
        raise DamagedCheckpointError("it holds more than weights, such as code, none of which was run") from None
    except (EOFError, RuntimeError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        raise DamagedCheckpointError(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}") from None
    where = files.where(name)
    keys = {"version", "digest", "epoch", "model", *(training.keys if training is not None else ())}
    if not isinstance(state, dict) or not keys <= set(state):
        raise TrainingError(f"checkpoint: must hold {', '.join(sorted(keys))}, got {where} without them")
    if state["digest"] != lease.architecture.digest:
        raise TrainingError(
            f"checkpoint: must be of architecture {lease.architecture.digest}, got {where} of {state['digest']}"
        )
    try:
        model.load_state_dict(state["ema" if training is None and "ema" in state else "model"])
        if training is not None:
            training.load(state)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        problem = " ".join(str(error).split())[:200]
        raise TrainingError(f"checkpoint: must fit the model, got {where} ({problem})") from None
    step = training.within.step if training is not None and training.within is not None else 0
    if is_checkpoint_name(name) and name != checkpoint_name(state["epoch"], step):
        raise TrainingError(f"checkpoint: must be of the epoch in its name, got {where} of epoch {state['epoch']}")


def seed_everything(seed: int, *, epoch: int) -> None:
    """Set every global generator from the seed and the epoch, so that no epoch depends on those before it."""
    mixed = (seed * 1_000_003 + epoch) % 2**32
    random.seed(mixed)
    np.random.seed(mixed)
    torch.manual_seed(mixed)


def generator_states(device: torch.device) -> dict[str, Any]:
    """Where the global generators of Python, numpy, torch and a GPU stand, in types that a checkpoint may hold."""
    python, (kind, keys, *rest), of_torch = get_states()
    numpy = (kind, torch.from_numpy(keys.astype(np.int64)), *rest)
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return {"python": python, "numpy": numpy, "torch": of_torch, "cuda": cuda}


def set_generators(states: dict[str, Any], device: torch.device) -> None:
    """Set them to where they stood."""
    kind, keys, *rest = states["numpy"]
    set_states(states["python"], (kind, keys.cpu().numpy().astype(np.uint32), *rest), states["torch"].cpu())
    if device.type == "cuda" and states["cuda"] is not None:
        torch.cuda.set_rng_state(states["cuda"].cpu(), device)
