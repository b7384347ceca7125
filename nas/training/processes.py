"""Several processes that train one model together, each on a device of its own and on its part of every batch.

Each process has the whole model and draws what one process alone would draw. Gradients are averaged after the backward
pass, which torch's DistributedDataParallel does within it: there a process that lacks memory, and begins its pass again
in smaller parts, would leave the others waiting in the middle of theirs.

B batch, C channels, H height, W width.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import FileStore
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from metaformer.network.layers import DropPath
from metaformer.network.part import ALONE, Part
from nas.training.errors import ProcessLostError

_PATIENCE = timedelta(days=7)  # whoever has started the processes ends them where one is lost


@contextmanager
def joined(part: Part, meeting: Path, device: torch.device) -> Iterator[None]:
    """Be one of several processes on one machine; over NCCL on GPUs, over gloo on CPUs.

    Args:
        meeting: A file that they all can write, and that is not there before.
    """
    store = FileStore(str(meeting), part.number)
    backend = "nccl" if device.type == "cuda" else "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
    with _together():
        dist.init_process_group(backend, store=store, rank=part.rank, world_size=part.number, timeout=_PATIENCE)
        add_up(torch.zeros((), device=device), part)  # where they cannot hear each other, that is known now
    try:
        yield
    finally:
        dist.destroy_process_group()


def share_out(model: nn.Module, part: Part) -> None:
    """Let the layers that look at a whole batch, or draw for it, do so over the batches of all processes."""
    if part == ALONE:
        return
    for module in list(model.modules()):
        if isinstance(module, DropPath):
            module.part = part
        for name, child in module.named_children():
            if isinstance(child, _BatchNorm):
                setattr(module, name, _over_all(child, part))


def has_batch_norms(model: nn.Module) -> bool:
    """Whether processes that train it wait for each other within the forward pass."""
    return any(isinstance(module, _BatchNorm) for module in model.modules())


def average_gradients(model: nn.Module, loss: Tensor, part: Part) -> Tensor:
    """The mean loss of all processes; their gradients in the model are replaced by their mean.

    Args:
        loss: Of this process's part, (), detached.
    """
    if part == ALONE:
        return loss
    gradients: list[Tensor] = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    flat = torch.cat([gradient.reshape(-1).to(loss.dtype) for gradient in gradients] + [loss.reshape(1)])
    add_up(flat, part)
    flat /= part.number
    sizes = [gradient.numel() for gradient in gradients]
    for gradient, mean in zip(gradients, torch.split(flat[:-1], sizes), strict=True):
        gradient.copy_(mean.view_as(gradient))
    return flat[-1].clone()


def add_up(numbers: Tensor, part: Part) -> Tensor:
    """The sum over all processes, in place."""
    if part != ALONE:
        with _together():
            dist.all_reduce(numbers)
    return numbers


def agree(numbers: Iterable[int], part: Part, device: torch.device) -> bool:
    """Whether all processes have given the same whole numbers."""
    own = torch.tensor(list(numbers), dtype=torch.int64, device=device)
    return bool((add_up(own.clone(), part) == part.number * own).all()) if part != ALONE else True


@contextmanager
def _together() -> Iterator[None]:
    """Raise ProcessLostError for what torch raises where another process does not answer."""
    try:
        yield
    except RuntimeError as error:
        raise ProcessLostError(
            f"another process of the model was lost ({' '.join(str(error).split())[:200]})"
        ) from None


def _over_all(norm: _BatchNorm, part: Part) -> _BatchNorm:
    """The same norm over the batches of all processes; on a GPU torch's own, which knows no CPU."""
    if norm.running_mean is not None and norm.running_mean.device.type == "cuda":
        converted: _BatchNorm = nn.SyncBatchNorm.convert_sync_batchnorm(norm)  # type: ignore[no-untyped-call]  # torch gives it no types
        return converted
    dtype = None if norm.running_mean is None else norm.running_mean.dtype
    found = _CpuBatchNorm(norm.num_features, eps=norm.eps, momentum=norm.momentum, dtype=dtype)
    found.weight, found.bias, found.part = norm.weight, norm.bias, part
    found.load_state_dict(norm.state_dict())
    return found


class _CpuBatchNorm(nn.BatchNorm2d):
    """Batch norm (arXiv:1502.03167) whose mean and variance are those of the batches of all processes."""

    part = ALONE

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x_BCHW)
        number = x_BCHW.numel() // x_BCHW.shape[1] * self.part.number
        x = x_BCHW.float() if x_BCHW.dtype == torch.bfloat16 else x_BCHW
        sum_of: Callable[..., Tensor] = _Sum.apply
        mean_C = sum_of(x.sum((0, 2, 3)), self.part) / number
        centred_BCHW = x - mean_C[:, None, None]
        variance_C = sum_of(centred_BCHW.square().sum((0, 2, 3)), self.part) / number
        self._note(mean_C.detach(), variance_C.detach() * (number / max(1, number - 1)))
        y_BCHW = centred_BCHW * (variance_C + self.eps).rsqrt()[:, None, None]
        if self.weight is not None:
            y_BCHW = y_BCHW * self.weight[:, None, None]
        if self.bias is not None:
            y_BCHW = y_BCHW + self.bias[:, None, None]
        return y_BCHW.to(x_BCHW.dtype)

    @torch.no_grad()
    def _note(self, mean_C: Tensor, variance_C: Tensor) -> None:
        """Update the running mean and variance."""
        if self.num_batches_tracked is not None:
            self.num_batches_tracked += 1
        for running_C, new_C in ((self.running_mean, mean_C), (self.running_var, variance_C)):
            if running_C is not None and self.momentum is not None:
                running_C.lerp_(new_C.to(running_C.dtype), self.momentum)


class _Sum(torch.autograd.Function):
    """The sum over all processes; what depends on it in any of them adds to its gradient."""

    @staticmethod
    def forward(ctx: Any, own_C: Tensor, part: Part) -> Tensor:
        ctx.part = part
        return add_up(own_C.clone(), part)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_C: Tensor) -> tuple[Tensor, None]:
        return add_up(gradient_C.contiguous().clone(), ctx.part), None
