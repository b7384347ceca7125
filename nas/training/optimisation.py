"""What a recipe says of optimising: which optimizer, at which learning rates, and the moving average of the weights."""

import math
from bisect import bisect_right
from functools import partial
from typing import Any

import numpy as np
import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.scheduler.scheduler import Scheduler
from timm.utils import ModelEmaV3
from torch import nn

from metaformer.architecture import Architecture
from nas.study.recipe import Recipe

_NAMES = {"position_embedding": "pos_embed", "class_token": "cls_token"}  # of parameters in our networks


def with_drop_path(arch: Architecture, recipe: Recipe) -> Architecture:
    """The architecture with the recipe's rate of drop path, where it has one."""
    return arch if recipe.drop_path is None else arch.model_copy(update={"drop_path": recipe.drop_path})


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer, in one kernel where torch has it; parameters that do not decay are a group of their own.

    LAMB (arXiv:1904.00962) is timm's, which also divides all gradients by their norm where that is above 1.
    """
    make = partial(
        create_optimizer_v2,
        model,
        lr=recipe.peak_lr,
        weight_decay=recipe.weight_decay,
        param_group_fn=partial(_groups, recipe=recipe),
    )
    if recipe.optimizer == "sgd":
        return make(opt="sgd", momentum=recipe.momentum, nesterov=recipe.nesterov, fused=True)
    options: dict[str, Any] = {
        name: value for name, value in (("betas", recipe.betas), ("eps", recipe.eps)) if value is not None
    }
    if recipe.optimizer == "lamb":
        return make(opt="lamb", **options)
    on_gpu = next(model.parameters()).device.type == "cuda"
    return make(opt="adamw", fused=True, capturable=on_gpu, **options)  # capturable: by a CUDA graph


def _groups(model: nn.Module, *, recipe: Recipe) -> list[dict[str, Any]]:
    """Parameters that do not decay, then those that do; groups that would be empty are left out."""
    names = {_NAMES[kind] for kind in recipe.no_decay if kind in _NAMES}

    def decays(name: str, parameter: nn.Parameter) -> bool:
        is_vector = parameter.ndim <= 1 or name.endswith(".bias")
        is_exempt = (is_vector and "vectors" in recipe.no_decay) or name.rpartition(".")[2] in names
        return recipe.weight_decay > 0 and not is_exempt

    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    groups = (
        {"params": [p for name, p in trained if decays(name, p) == decay], "weight_decay": recipe.weight_decay * decay}
        for decay in (False, True)
    )
    return [group for group in groups if group["params"]]


def make_schedule(optimizer: torch.optim.Optimizer, recipe: Recipe, num_steps: int) -> Scheduler:
    """The learning rate of each step of training, by `step_update(step)`; it depends on the step alone.

    Args:
        num_steps: Optimiser steps of one epoch.
    """
    for group in optimizer.param_groups:
        group["initial_lr"] = recipe.peak_lr
    if recipe.schedule != "cosine":
        return _Curve(optimizer, recipe, num_steps)
    return CosineLRScheduler(
        optimizer,
        t_initial=(recipe.epochs - recipe.cooldown_epochs) * num_steps,
        lr_min=recipe.final_lr,
        warmup_t=recipe.warmup_epochs * num_steps,
        warmup_lr_init=recipe.warmup_lr,
        t_in_epochs=False,
    )


class _Curve(Scheduler):
    """The schedules that timm does not have."""

    def __init__(self, optimizer: torch.optim.Optimizer, recipe: Recipe, num_steps: int) -> None:
        super().__init__(optimizer, param_group_field="lr", t_in_epochs=False)
        self._recipe = recipe
        self._num_steps = recipe.epochs * num_steps
        self._num_warmup = recipe.warmup_epochs * num_steps
        self._num_cooldown = recipe.cooldown_epochs * num_steps

    def _get_lr(self, t: int) -> list[float]:
        return [self._rate(t)] * len(self.optimizer.param_groups)

    def _rate(self, step: int) -> float:
        recipe = self._recipe
        if recipe.schedule == "piecewise":
            places, factors = zip(*recipe.lr_points or (), strict=True)
            return recipe.peak_lr * float(np.interp((step + 1) / self._num_steps, places, factors))
        if recipe.schedule == "onecycle":
            return self._onecycle(step)
        if step < self._num_warmup:
            return recipe.warmup_lr + (recipe.peak_lr - recipe.warmup_lr) * step / self._num_warmup
        points = recipe.lr_points or ()
        reached = bisect_right([place * self._num_steps for place, _ in points], step)
        return recipe.peak_lr * points[reached - 1][1]

    def _onecycle(self, step: int) -> float:
        recipe = self._recipe
        if step < self._num_warmup:
            return _half_cosine(recipe.warmup_lr, recipe.peak_lr, step / self._num_warmup)
        num_falling = self._num_steps - self._num_cooldown - self._num_warmup
        return _half_cosine(recipe.peak_lr, recipe.final_lr, min(1.0, (step - self._num_warmup) / num_falling))


def _half_cosine(start: float, end: float, part: float) -> float:
    """From `start` at part 0 to `end` at part 1, level at both."""
    return end + (start - end) * (1 + math.cos(math.pi * part)) / 2


def make_ema(model: nn.Module, recipe: Recipe) -> ModelEmaV3 | None:
    """The moving average of the weights, which begins with those of the model; None: the recipe has none.

    `update(model)` after each step; `module` has the averages. Without warm-up, as the papers' scripts have it: until
    1 / (1 - decay) steps are done the beginning weighs most.
    """
    return None if recipe.ema_decay is None else ModelEmaV3(model, decay=recipe.ema_decay)
