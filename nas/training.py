"""One plain training loop on one device; knows neither ray nor optuna.

B batch, C channels, H height, W width, K classes. What an epoch does depends on the lease, its number and the model it
starts from, on nothing else: a run that goes on from a checkpoint gives what an uninterrupted one gives.
"""

import itertools
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
import torch.nn.functional as F
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from torch import Tensor, nn

from metaformer.architecture import Architecture
from metaformer.model import MetaFormer, build
from nas.data import Batch, Dataset
from nas.lease import WEIGHTS, Lease, Report
from nas.recipe import Recipe

_CHECK_EVERY = 50  # steps between looks at the loss, each of which waits for the device


class TrainingError(RuntimeError):
    """Training that cannot go on; the message says why."""


def train(lease: Lease, dataset: Dataset, *, device: torch.device) -> Iterator[Report]:
    """One report for each epoch from the lease's checkpoint up to its last epoch.

    Each epoch leaves a checkpoint in the lease's folder, where the newest two are kept; the last epoch of the recipe
    leaves the weights alone.

    Raises:
        TrainingError: The loss is not finite, the checkpoint cannot be read, or one image does not fit into memory.
    """
    folder = Path(lease.folder)
    folder.mkdir(parents=True, exist_ok=True)
    seed_everything(lease.seed, epoch=0)
    model = build(lease.architecture).to(device)
    recipe = lease.recipe
    optimizer = _make_optimizer(model, recipe)
    num_done = _restore(folder / lease.checkpoint, model, optimizer, device) if lease.checkpoint else 0
    num_steps = dataset.num_steps(recipe)
    schedule = CosineLRScheduler(
        optimizer,
        t_initial=recipe.epochs * num_steps,
        lr_min=recipe.final_lr,
        warmup_t=recipe.warmup_epochs * num_steps,
        warmup_lr_init=recipe.warmup_lr,
        t_in_epochs=False,
    )
    chunks = Chunks()
    for epoch in range(num_done, lease.epochs):
        seed_everything(lease.seed, epoch=epoch + 1)
        batches = dataset.train_batches(recipe, epoch=epoch, seed=lease.seed, device=device)
        loss = _train_epoch(model, batches, optimizer, schedule, recipe, chunks, first_step=epoch * num_steps)
        eval_batches = dataset.eval_batches("val", recipe, device=device)
        val_accuracy = _accuracy(model, eval_batches, recipe)
        checkpoint = _save(lease, model, optimizer, num_done=epoch + 1)
        yield Report(epoch=epoch + 1, val_accuracy=val_accuracy, train_loss=loss, checkpoint=checkpoint)


def evaluate(lease: Lease, dataset: Dataset, *, device: torch.device) -> float:
    """Accuracy in [0, 1] of the lease's checkpoint on the test split.

    Raises:
        TrainingError: The checkpoint cannot be read.
    """
    model = build(lease.architecture).to(device)
    _restore(Path(lease.folder) / (lease.checkpoint or WEIGHTS), model, None, device)
    return _accuracy(model, dataset.eval_batches("test", lease.recipe, device=device), lease.recipe)


def measure_seconds_per_image(
    arch: Architecture, recipe: Recipe, dataset: Dataset, *, device: torch.device, num_steps: int = 3
) -> float:
    """Median seconds of a training step of the architecture, by image, reading included; one more step warms up.

    Raises:
        TrainingError: Not even one image fits into the device's memory.
    """
    seed_everything(0, epoch=0)
    model = build(arch).to(device)
    optimizer = _make_optimizer(model, recipe)
    epochs = (dataset.train_batches(recipe, epoch=epoch, seed=0, device=device) for epoch in itertools.count())
    batches = itertools.chain.from_iterable(epochs)
    chunks = Chunks()
    times = []
    for _ in range(num_steps + 1):
        start = time.perf_counter()
        batch = next(batches)
        _train_step(model, batch, optimizer, recipe, chunks).item()
        times.append((time.perf_counter() - start) / len(batch.x_BCHW))
    return sorted(times[1:])[num_steps // 2]


def seed_everything(seed: int, *, epoch: int) -> None:
    """Set every global generator from the seed and the epoch, so that no epoch depends on those before it."""
    mixed = (seed * 1_000_003 + epoch) % 2**32
    random.seed(mixed)
    np.random.seed(mixed)
    torch.manual_seed(mixed)


def _make_optimizer(model: MetaFormer, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW in one kernel; biases and other one-dimensional parameters do not decay."""
    return create_optimizer_v2(model, opt="adamw", lr=recipe.peak_lr, weight_decay=recipe.weight_decay, fused=True)


@dataclass
class Chunks:
    """Into how many parts a batch is cut, so that one at a time fits into the device's memory."""

    number: int = 1


def _train_epoch(
    model: MetaFormer,
    batches: Iterator[Batch],
    optimizer: torch.optim.Optimizer,
    schedule: CosineLRScheduler,
    recipe: Recipe,
    chunks: Chunks,
    *,
    first_step: int,
) -> float:
    """Mean loss of one epoch."""
    model.train()
    total = torch.zeros(())
    num_steps = 0
    for num_steps, batch in enumerate(batches, start=1):
        schedule.step_update(first_step + num_steps - 1)
        total = total.to(batch.x_BCHW.device) + _train_step(model, batch, optimizer, recipe, chunks)
        if num_steps % _CHECK_EVERY == 0:
            _check_finite(total)
    _check_finite(total)
    return float(total) / max(num_steps, 1)


def _train_step(
    model: MetaFormer, batch: Batch, optimizer: torch.optim.Optimizer, recipe: Recipe, chunks: Chunks
) -> Tensor:
    """The loss of one optimiser step, detached, on the device.

    A batch that does not fit into the device's memory is cut into twice as many parts, whose gradients are added up;
    the step is the same but for batch norms, which see one part at a time.
    """
    loss = None
    while loss is None:
        try:
            loss = _accumulate_gradients(model, batch, optimizer, recipe, chunks.number)
        except torch.OutOfMemoryError:
            if chunks.number >= len(batch.x_BCHW):
                raise TrainingError("memory: must hold one image of a training step, got too little for it") from None
            chunks.number *= 2
        if loss is None:
            optimizer.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
    if recipe.clip_grad is not None:
        nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_grad)
    optimizer.step()
    return loss


def _accumulate_gradients(
    model: MetaFormer, batch: Batch, optimizer: torch.optim.Optimizer, recipe: Recipe, num_chunks: int
) -> Tensor:
    """Mean loss of a batch, detached, with its gradients in the model."""
    optimizer.zero_grad(set_to_none=True)
    smoothing = recipe.label_smoothing if batch.y.ndim == 1 else 0.0  # soft targets come smoothed
    losses = []
    for x_BCHW, y in zip(batch.x_BCHW.chunk(num_chunks), batch.y.chunk(num_chunks), strict=True):
        with _precision(x_BCHW.device, recipe):
            logits_BK = model(x_BCHW)
        part = F.cross_entropy(logits_BK.float(), y, label_smoothing=smoothing, reduction="sum") / len(batch.y)
        part.backward()  # type: ignore[no-untyped-call]
        losses.append(part.detach())
    return torch.stack(losses).sum()


@torch.inference_mode()
def _accuracy(model: MetaFormer, batches: Iterator[Batch], recipe: Recipe) -> float:
    model.eval()
    num_right, num_seen = 0, 0
    for x_BCHW, y in batches:
        with _precision(x_BCHW.device, recipe):
            logits_BK = model(x_BCHW)
        num_right += int((logits_BK.argmax(1) == y).sum())
        num_seen += len(y)
    return num_right / num_seen


def _precision(device: torch.device, recipe: Recipe) -> torch.autocast:
    """Autocast to bfloat16 where the recipe asks for it, or leaves it open and the device is a GPU that has it."""
    if recipe.precision == "auto":
        enabled = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        enabled = recipe.precision == "bfloat16"
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def _check_finite(loss: Tensor) -> None:
    if not torch.isfinite(loss):
        raise TrainingError(f"loss: must stay finite, got {float(loss)}")


def _save(lease: Lease, model: MetaFormer, optimizer: torch.optim.Optimizer, *, num_done: int) -> str:
    """Write a checkpoint whole or not at all, and drop those older than the one before it; its file name."""
    folder = Path(lease.folder)
    state: dict[str, object] = {"version": 1, "epoch": num_done, "model": model.state_dict()}
    is_last = num_done == lease.recipe.epochs
    name = WEIGHTS
    if not is_last:
        state["optimizer"] = optimizer.state_dict()
        name = f"epoch-{num_done:04d}.pt"
    part = folder / f"{name}.{lease.attempt}.part"  # a worker that was given up may still be writing its own
    torch.save(state, part)
    part.replace(folder / name)
    for old in sorted(folder.glob("epoch-*.pt"))[: -1 if is_last else -2]:
        old.unlink()
    return name


def _restore(path: Path, model: MetaFormer, optimizer: torch.optim.Optimizer | None, device: torch.device) -> int:
    """Load a checkpoint into the model and the optimiser; the number of epochs it was trained for."""
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        if optimizer is not None:
            optimizer.load_state_dict(state["optimizer"])
        return int(state["epoch"])
    except (OSError, EOFError, KeyError, RuntimeError, ValueError, UnpicklingError) as error:
        raise TrainingError(
            f"checkpoint: must be readable, got {path} ({' '.join(str(error).split())[:200]})"
        ) from None
