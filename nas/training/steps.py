"""One step of the optimiser: in parts where memory is short, and on a GPU as one CUDA graph.

B batch, C channels, H height, W width, K classes.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metaformer.network.model import MetaFormer
from metaformer.network.part import ALONE, Part
from nas.data import Batch
from nas.study.recipe import Recipe
from nas.training.errors import TrainingError
from nas.training.precision import autocast
from nas.training.processes import average_gradients, has_batch_norms

_NO_MEMORY = ("DefaultCPUAllocator", "could not create a primitive")  # what torch and oneDNN say on a CPU
EAGER_STEPS = 3  # of each training on a GPU before its graph: kernels are chosen and memory is found


@dataclass
class Chunks:
    """Into how many parts a batch is cut, so that one at a time fits into the device's memory."""

    number: int = 1
    may_grow: bool = True


class Stepper:
    """Steps of one model and optimiser on batches of one shape.

    A small model's step is some hundred kernels, which a GPU finishes faster than Python can start them. So after a few
    steps the whole step is captured as a CUDA graph, which then starts at once. What a graph computes is the same.
    Where several processes train the model there is no graph: they exchange gradients within the step.
    """

    def __init__(
        self,
        model: MetaFormer,
        optimizer: torch.optim.Optimizer,
        recipe: Recipe,
        chunks: Chunks,
        *,
        part: Part = ALONE,
    ) -> None:
        self._part = part
        if part != ALONE and has_batch_norms(model):
            chunks.may_grow = False  # the others wait in the middle of their own pass
        self._model, self._optimizer, self._recipe, self._chunks = model, optimizer, recipe, chunks
        self._num_eager = 0
        self._graph: _Graph | None = None
        self._may_capture = (
            part == ALONE and next(model.parameters()).device.type == "cuda" and _is_capturable(optimizer)
        )
        self.note: str | None = None  # why there is no graph where there should be one

    def __call__(self, batch: Batch) -> Tensor:
        """The mean loss of one step over all processes, detached, on the device.

        The gradients of a batch that is cut into parts are added up; the step is the same but for batch norms, which
        see one part at a time.

        Raises:
            TrainingError: One image does not fit into memory.
        """
        if self._graph is None and self._may_capture and self._chunks.number == 1 and self._num_eager >= EAGER_STEPS:
            self._capture(batch)
        if self._graph is not None and self._graph.takes(batch):
            return self._graph.replay(batch, self._optimizer)
        self._num_eager += 1
        return self._step(batch)

    def _step(self, batch: Batch) -> Tensor:
        loss = in_parts(batch, self._chunks, lambda number: self._accumulate_gradients(batch, number))
        loss = average_gradients(self._model, loss, self._part)
        self._update()
        return loss

    def _update(self) -> None:
        if self._recipe.clip_grad is not None:
            nn.utils.clip_grad_norm_(self._model.parameters(), self._recipe.clip_grad)
        self._optimizer.step()

    def _accumulate_gradients(self, batch: Batch, num_chunks: int) -> Tensor:
        """Mean loss of a batch, detached, with its gradients in the model."""
        self._optimizer.zero_grad(set_to_none=True)
        recipe = self._recipe
        smoothing = recipe.label_smoothing if batch.y.ndim == 1 else 0.0  # soft targets come smoothed
        losses = []
        for x_BCHW, y in zip(batch.x_BCHW.chunk(num_chunks), batch.y.chunk(num_chunks), strict=True):
            with autocast(x_BCHW.device, recipe):
                logits_BK = self._model(x_BCHW)
            part = F.cross_entropy(logits_BK.float(), y, label_smoothing=smoothing, reduction="sum") / len(batch.y)
            part.backward()  # type: ignore[no-untyped-call]
            losses.append(part.detach())
        return torch.stack(losses).sum()

    def _capture(self, batch: Batch) -> None:
        """Make the graph; where that fails training goes on without, and a note says so."""
        self._may_capture = False

        def step(batch: Batch) -> Tensor:
            loss = self._accumulate_gradients(batch, 1)
            self._update()
            return loss

        try:
            self._graph = _Graph(step, batch, self._optimizer)
        except RuntimeError as error:
            torch.cuda.synchronize()
            self._optimizer.zero_grad(set_to_none=True)
            self.note = f"no CUDA graph of the step ({' '.join(str(error).split())[:120]})"


def _is_capturable(optimizer: torch.optim.Optimizer) -> bool:
    """Whether a graph can hold its step: timm's LAMB counts steps in Python, which a graph would not see."""
    plain = isinstance(optimizer, torch.optim.SGD)
    return plain or all(group.get("capturable", False) for group in optimizer.param_groups)


class _Graph:
    """A captured step, its inputs, and the learning rates that it reads."""

    def __init__(self, step: Callable[[Batch], Tensor], batch: Batch, optimizer: torch.optim.Optimizer) -> None:
        """Capture; nothing is computed.

        Raises:
            RuntimeError: The step does something that no graph can hold, or memory is short.
        """
        self._batch = Batch(batch.x_BCHW.clone(memory_format=torch.preserve_format), batch.y.clone())
        device = batch.x_BCHW.device
        rates = [group["lr"] for group in optimizer.param_groups]
        self._rates = [torch.tensor(float(rate), device=device) for rate in rates]
        optimizer.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()  # the graph keeps its own memory
        self._graph = torch.cuda.CUDAGraph()
        try:
            for group, rate in zip(optimizer.param_groups, self._rates, strict=True):
                group["lr"] = rate
            with torch.cuda.graph(self._graph):
                self._loss = step(self._batch)
        finally:
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate

    def takes(self, batch: Batch) -> bool:
        return all(
            mine.shape == given.shape and mine.dtype == given.dtype
            for mine, given in zip(self._batch, batch, strict=True)
        )

    def replay(self, batch: Batch, optimizer: torch.optim.Optimizer) -> Tensor:
        for mine, given in zip(self._batch, batch, strict=True):
            mine.copy_(given, non_blocking=True)
        for mine, group in zip(self._rates, optimizer.param_groups, strict=True):
            mine.fill_(group["lr"])
        self._graph.replay()
        return self._loss.clone()


def in_parts(batch: Batch, chunks: Chunks, work: Callable[[int], Tensor]) -> Tensor:
    """What `work` gives for a batch cut into as many parts; twice as many as long as they do not fit into memory.

    Raises:
        TrainingError: One image does not fit.
    """
    while True:
        try:
            return work(chunks.number)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if not chunks.may_grow or chunks.number >= len(batch.x_BCHW):
                raise _out_of_memory(error) from None
        chunks.number *= 2  # outside the handler, where the error no longer holds what did not fit
        torch.cuda.empty_cache()


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory of the GPU, or of the machine, is what lacked."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(sign in str(error) for sign in _NO_MEMORY)


def _out_of_memory(error: Exception) -> TrainingError:
    rule = "memory: must hold the model and one image of a training step"
    return TrainingError(f"{rule}, got too little for it ({' '.join(str(error).split())[:200]})")


@contextmanager
def memory_named() -> Iterator[None]:
    """Raise TrainingError for out-of-memory that a smaller micro-batch cannot fix."""
    try:
        yield
    except TrainingError:
        raise
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise _out_of_memory(error) from None
