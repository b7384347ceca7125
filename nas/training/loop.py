"""One plain training loop on one device; knows neither ray nor optuna.

B batch, C channels, H height, W width, K classes. What an epoch does depends on the lease, its number and the model it
starts from, on nothing else: a run that goes on from a checkpoint gives what an uninterrupted one gives.
"""

import itertools
import random
import resource
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from timm.scheduler.scheduler import Scheduler
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from metaformer.architecture import Architecture
from metaformer.network.model import MetaFormer, build
from nas.data import Batch, Dataset
from nas.study.lease import WEIGHTS, Lease, Report, Step
from nas.study.recipe import Recipe
from nas.training.checkpoints import CheckpointFolder, DamagedCheckpointError, epoch_name
from nas.training.optimisation import make_ema, make_optimizer, make_schedule, with_drop_path
from nas.training.steps import (
    EAGER_STEPS,
    Chunks,
    Stepper,
    TrainingError,
    in_parts,
    is_out_of_memory,
    memory_named,
    precision,
)

_CHECK_EVERY = 50  # steps between looks at the loss, each of which waits for the device


def train(lease: Lease, dataset: Dataset, *, device: torch.device) -> Iterator[Report]:
    """One report for each epoch from the lease's checkpoint up to its last epoch.

    Each epoch leaves a checkpoint in the lease's folder, where the newest two are kept; the last epoch of the recipe
    leaves the weights alone. Where the lease's checkpoint cannot be read, training goes on from the newest one before
    it that can, or begins again; the first report has a note of that.

    Raises:
        TrainingError: The loss or the outputs are not finite, or one image does not fit into memory.
        StorageError: A checkpoint cannot be written, or the place of the checkpoints does not answer.
        DataError: An image cannot be read.
    """
    files = CheckpointFolder(lease.folder)
    _prepare(device)
    state = _resume(lease, files, device)
    model, optimizer, ema, note = state.model, state.optimizer, state.ema, state.note
    recipe = lease.recipe
    num_steps = dataset.num_steps(recipe)
    schedule = make_schedule(optimizer, recipe, num_steps)
    chunks = Chunks()
    step = Stepper(model, optimizer, recipe, chunks)
    for epoch in range(state.num_done, lease.epochs):
        seed_everything(lease.seed, epoch=epoch + 1)
        with memory_named():
            batches = dataset.train_batches(recipe, epoch=epoch, seed=lease.seed, device=device)
            loss = _train_epoch(model, batches, step, schedule, ema, first_step=epoch * num_steps)
            evaluated = dataset.eval_batches("val", recipe, device=device)
            val_accuracy = _accuracy(state.evaluated, evaluated, recipe, chunks)
        checkpoint = _save(lease, files, state, num_done=epoch + 1)
        said, note, step.note = "; ".join(filter(None, (note, step.note))) or None, None, None
        yield Report(epoch=epoch + 1, val_accuracy=val_accuracy, train_loss=loss, checkpoint=checkpoint, note=said)


def evaluate(lease: Lease, dataset: Dataset, *, device: torch.device) -> float:
    """Accuracy in [0, 1] of the lease's checkpoint on the test split.

    Raises:
        TrainingError: The checkpoint cannot be read, its outputs are not finite, or one image does not fit into memory.
        StorageError: The place of the checkpoints does not answer.
        DataError: An image cannot be read.
    """
    files, name = CheckpointFolder(lease.folder), lease.checkpoint or WEIGHTS
    with memory_named():
        model = build(lease.architecture).to(device)
        try:
            _restore(lease, files, name, model)
        except DamagedCheckpointError as error:
            raise TrainingError(f"checkpoint: must be readable, got {files.where(name)} ({error})") from None
        batches = dataset.eval_batches("test", lease.recipe, device=device)
        return _accuracy(model, batches, lease.recipe, Chunks())


def measure_training(
    arch: Architecture, recipe: Recipe, dataset: Dataset, *, device: torch.device, num_steps: int = 3
) -> Step:
    """Median seconds of a training step of the architecture, by image, reading included, and the most memory it takes.

    One more step warms up; on a GPU four, after which the step is a CUDA graph.

    Raises:
        TrainingError: Not even one image fits into the device's memory.
    """
    seed_everything(0, epoch=0)
    _prepare(device)
    memory_before = _watch_memory(device)
    model = build(with_drop_path(arch, recipe)).to(device)
    optimizer, ema = make_optimizer(model, recipe), make_ema(model, recipe)
    epochs = (dataset.train_batches(recipe, epoch=epoch, seed=0, device=device) for epoch in itertools.count())
    batches = itertools.chain.from_iterable(epochs)
    train_step = Stepper(model, optimizer, recipe, Chunks())
    num_warm = 1 + (EAGER_STEPS if device.type == "cuda" else 0)
    times = []
    for _ in range(num_steps + num_warm):
        start = time.perf_counter()
        with memory_named():
            batch = next(batches)
            train_step(batch).item()
            if ema is not None:
                ema.update(model)
        times.append((time.perf_counter() - start) / len(batch.x_BCHW))
    peak_bytes = max(0, _peak_memory(device) - memory_before)
    return Step(seconds_per_image=sorted(times[num_warm:])[num_steps // 2], peak_bytes=peak_bytes)


def _prepare(device: torch.device) -> None:
    """Let cuDNN choose its kernels by trying them, since all steps of a training have the same shapes."""
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True


def _watch_memory(device: torch.device) -> int:
    """Begin a new peak of memory; bytes of it that are taken already."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return 0
    with suppress(OSError):  # elsewhere than on Linux the peak is that of the process's whole life
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _peak_memory(device)


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def seed_everything(seed: int, *, epoch: int) -> None:
    """Set every global generator from the seed and the epoch, so that no epoch depends on those before it."""
    mixed = (seed * 1_000_003 + epoch) % 2**32
    random.seed(mixed)
    np.random.seed(mixed)
    torch.manual_seed(mixed)


def _train_epoch(
    model: MetaFormer,
    batches: Iterator[Batch],
    step: Stepper,
    schedule: Scheduler,
    ema: ModelEmaV3 | None,
    *,
    first_step: int,
) -> float:
    """Mean loss of one epoch."""
    model.train()
    total = torch.zeros(())
    num_steps = 0
    for num_steps, batch in enumerate(batches, start=1):
        schedule.step_update(first_step + num_steps - 1)
        total = total.to(batch.x_BCHW.device) + step(batch)
        if ema is not None:
            ema.update(model)
        if num_steps % _CHECK_EVERY == 0:
            _check_finite(total)
    _check_finite(total)
    return float(total) / max(num_steps, 1)


@torch.inference_mode()
def _accuracy(model: nn.Module, batches: Iterator[Batch], recipe: Recipe, chunks: Chunks) -> float:
    """Accuracy in [0, 1].

    Raises:
        TrainingError: An output is not finite, or one image does not fit into memory.
    """

    def logits(x_BCHW: Tensor, num_chunks: int) -> Tensor:
        with precision(x_BCHW.device, recipe):
            return torch.cat([model(part) for part in x_BCHW.chunk(num_chunks)])

    model.eval()
    num_right, num_seen = 0, 0
    for batch in batches:
        logits_BK = in_parts(batch, chunks, partial(logits, batch.x_BCHW))
        if not torch.isfinite(logits_BK).all():
            raise TrainingError("outputs: must stay finite, got some that are not after an epoch whose loss was")
        num_right += int((logits_BK.argmax(1) == batch.y).sum())
        num_seen += len(batch.y)
    return num_right / num_seen


def _check_finite(loss: Tensor) -> None:
    if not torch.isfinite(loss):
        raise TrainingError(f"loss: must stay finite, got {float(loss)}")


@dataclass
class _State:
    """Where training stands."""

    model: MetaFormer
    optimizer: torch.optim.Optimizer
    ema: ModelEmaV3 | None
    num_done: int  # epochs
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
        """What is under these keys."""
        averages = {} if self.ema is None else {"ema": self.ema.module.state_dict()}
        return {"optimizer": self.optimizer.state_dict(), **averages}

    def load(self, state: dict[str, Any]) -> None:
        """Take over what a checkpoint has under these keys."""
        self.optimizer.load_state_dict(state["optimizer"])
        if self.ema is not None:
            self.ema.module.load_state_dict(state["ema"])


def _resume(lease: Lease, files: CheckpointFolder, device: torch.device) -> _State:
    """The state in the lease's checkpoint, or in the newest one before it that can be read, or the beginning."""
    problems = []
    for name in _newest_first(lease, files):
        state = _beginning(lease, device)
        try:
            state.num_done = _restore(lease, files, name, state.model, state)
        except DamagedCheckpointError as error:
            problems.append(f"checkpoint {name} could not be read ({error})")
        else:
            state.note = "; ".join([*problems, f"went on from {name}"]) if problems else None
            return state
    state = _beginning(lease, device)
    state.note = "; ".join([*problems, "began again"]) if problems else None
    return state


def _newest_first(lease: Lease, files: CheckpointFolder) -> Iterator[str]:
    """The lease's checkpoint, then those of the epochs before it that are there."""
    if lease.checkpoint is not None:
        yield lease.checkpoint
        yield from (name for name in map(epoch_name, reversed(files.epochs())) if name < lease.checkpoint)


def _beginning(lease: Lease, device: torch.device) -> _State:
    seed_everything(lease.seed, epoch=0)
    with memory_named():
        model = build(with_drop_path(lease.architecture, lease.recipe)).to(device)
        optimizer, ema = make_optimizer(model, lease.recipe), make_ema(model, lease.recipe)
    return _State(model, optimizer, ema, num_done=0)


def _save(lease: Lease, files: CheckpointFolder, training: _State, *, num_done: int) -> str:
    """Write a checkpoint, and drop all but it and the one before; its file name."""
    digest, is_last = lease.architecture.digest, num_done == lease.recipe.epochs
    state: dict[str, object] = {"version": 1, "digest": digest, "epoch": num_done}
    if is_last:
        state["model"] = training.evaluated.state_dict()
    else:
        state |= {"model": training.model.state_dict(), **training.state_dict()}
    name = WEIGHTS if is_last else epoch_name(num_done)
    files.save(name, partial(torch.save, state), attempt=lease.attempt)
    files.keep({num_done - 1} if is_last else {num_done - 1, num_done})
    return name


def _restore(
    lease: Lease, files: CheckpointFolder, name: str, model: MetaFormer, training: _State | None = None
) -> int:
    """Load a checkpoint into what training goes on with, or what is evaluated of it into a model alone.

    Returns the number of epochs it was trained for.

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
    if name not in (WEIGHTS, epoch_name(state["epoch"])):
        raise TrainingError(f"checkpoint: must be of the epoch in its name, got {where} of epoch {state['epoch']}")
    try:
        model.load_state_dict(state["ema" if training is None and "ema" in state else "model"])
        if training is not None:
            training.load(state)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        problem = " ".join(str(error).split())[:200]
        raise TrainingError(f"checkpoint: must fit the model, got {where} ({problem})") from None
    return int(state["epoch"])
