"""One plain training loop on one device; knows neither ray nor optuna.

B batch, C channels, H height, W width, K classes. What an epoch does depends on the lease, its number and the model it
starts from, on nothing else: a run that goes on from a checkpoint gives what an uninterrupted one gives.
"""

import random
import time
from collections.abc import Iterator
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
        TrainingError: The loss is not finite, or the checkpoint cannot be read.
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
    for epoch in range(num_done, lease.epochs):
        seed_everything(lease.seed, epoch=epoch + 1)
        batches = dataset.train_batches(recipe, epoch=epoch, seed=lease.seed, device=device)
        loss = _train_epoch(model, batches, optimizer, schedule, recipe, first_step=epoch * num_steps)
        eval_batches = dataset.eval_batches("val", recipe, device=device)
        val_accuracy = _accuracy(model, eval_batches, recipe)
        checkpoint = _save(folder, model, optimizer, num_done=epoch + 1, is_last=epoch + 1 == recipe.epochs)
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
    """Median seconds of a training step of the architecture, by image; one more step warms up."""
    seed_everything(0, epoch=0)
    model = build(arch).to(device)
    optimizer = _make_optimizer(model, recipe)
    batch = next(iter(dataset.train_batches(recipe, epoch=0, seed=0, device=device)))
    times = []
    for _ in range(num_steps + 1):
        start = time.perf_counter()
        _train_step(model, batch, optimizer, recipe).item()
        times.append(time.perf_counter() - start)
    return sorted(times[1:])[num_steps // 2] / len(batch.x_BCHW)


def seed_everything(seed: int, *, epoch: int) -> None:
    """Set every global generator from the seed and the epoch, so that no epoch depends on those before it."""
    mixed = (seed * 1_000_003 + epoch) % 2**32
    random.seed(mixed)
    np.random.seed(mixed)
    torch.manual_seed(mixed)


def _make_optimizer(model: MetaFormer, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW in one kernel; biases and other one-dimensional parameters do not decay."""
    return create_optimizer_v2(model, opt="adamw", lr=recipe.peak_lr, weight_decay=recipe.weight_decay, fused=True)


def _train_epoch(
    model: MetaFormer,
    batches: Iterator[Batch],
    optimizer: torch.optim.Optimizer,
    schedule: CosineLRScheduler,
    recipe: Recipe,
    *,
    first_step: int,
) -> float:
    """Mean loss of one epoch."""
    model.train()
    total = torch.zeros(())
    num_steps = 0
    for num_steps, batch in enumerate(batches, start=1):
        schedule.step_update(first_step + num_steps - 1)
        total = total.to(batch.x_BCHW.device) + _train_step(model, batch, optimizer, recipe)
        if num_steps % _CHECK_EVERY == 0:
            _check_finite(total)
    _check_finite(total)
    return float(total) / max(num_steps, 1)


def _train_step(model: MetaFormer, batch: Batch, optimizer: torch.optim.Optimizer, recipe: Recipe) -> Tensor:
    """The loss of one optimiser step, detached, on the device."""
    optimizer.zero_grad(set_to_none=True)
    with _precision(batch.x_BCHW.device, recipe):
        logits_BK = model(batch.x_BCHW)
    smoothing = recipe.label_smoothing if batch.y.ndim == 1 else 0.0  # soft targets come smoothed
    loss: Tensor = F.cross_entropy(logits_BK.float(), batch.y, label_smoothing=smoothing)
    loss.backward()  # type: ignore[no-untyped-call]
    if recipe.clip_grad is not None:
        nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_grad)
    optimizer.step()
    return loss.detach()


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


def _save(folder: Path, model: MetaFormer, optimizer: torch.optim.Optimizer, *, num_done: int, is_last: bool) -> str:
    """Write a checkpoint whole or not at all, and drop those older than the one before it; its file name."""
    state: dict[str, object] = {"version": 1, "epoch": num_done, "model": model.state_dict()}
    name = WEIGHTS
    if not is_last:
        state["optimizer"] = optimizer.state_dict()
        name = f"epoch-{num_done:04d}.pt"
    part = folder / f"{name}.part"
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
