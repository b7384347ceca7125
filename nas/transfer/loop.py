"""Training of a model for a dense task on one device, evaluated and checkpointed on the way.

What a step does depends on the seed, its number and the weights before it, on nothing else: a run that goes on from a
checkpoint gives what an uninterrupted one gives.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from metaformer.architecture import Architecture
from metaformer.checkpoints import load
from nas.study.lease import WEIGHTS, Metrics
from nas.training.checkpoints import CheckpointFolder, DamagedCheckpointError, checkpoint_name, place_of
from nas.training.errors import TrainingError
from nas.training.optimisation import make_optimizer
from nas.training.state import seed_everything
from nas.training.steps import is_out_of_memory
from nas.training.watch import EpochWatch
from nas.transfer import evaluation
from nas.transfer.evaluation import Evaluation
from nas.transfer.examples import Example, Examples, train_batches, val_batches
from nas.transfer.models import make_model
from nas.transfer.recipe import TransferRecipe

_LOOK_EVERY = 20  # steps between looks at the loss, each of which waits for the device
Tell = Callable[[str, int, int, str], None]  # what is done, how much of it, of how much, and a note


@dataclass(frozen=True)
class Job:
    """A training: what is trained, how, on what, and where its checkpoints go."""

    arch: Architecture
    recipe: TransferRecipe
    examples: Examples
    make_evaluation: Callable[[], Evaluation]
    num_classes: int
    start: Path | None  # weights of the backbone
    seed: int
    device: torch.device
    files: CheckpointFolder
    checkpoint_every: float | None  # seconds
    num_workers: int

    def begin(self) -> nn.Module:
        """The model before its first step."""
        seed_everything(self.seed, epoch=0)
        model = make_model(self.arch, self.recipe, num_classes=self.num_classes)
        if self.start is not None:
            trunk = next(module for name, module in model.named_modules() if name.endswith("trunk"))
            trunk.get_submodule("stages").load_state_dict(load(self.arch, self.start).stages.state_dict())
        return model.to(self.device)


def count_params(job: Job) -> int:
    """Trainable parameters of the whole model, counted without making it."""
    with torch.device("meta"):
        model = make_model(job.arch, job.recipe, num_classes=job.num_classes)
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def device_name(device: torch.device) -> str:
    """The GPU's name, or cpu."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


class Evaluated(NamedTuple):
    """What came of the steps up to an evaluation."""

    step: int  # steps done
    train_loss: float  # mean over the steps since the last evaluation
    metrics: evaluation.Metrics
    speed: Metrics
    seconds: float  # since the last evaluation, this one included
    note: str | None  # on a checkpoint that could not be read


def train(
    job: Job, *, num_evaluated: int, tell: Tell, clock: Callable[[], float] = time.monotonic
) -> Iterator[Evaluated]:
    """What came of each evaluation after the first `num_evaluated`; the last one leaves the weights.

    Args:
        tell: Told of each step and image.
        clock: Gives the seconds by which checkpoints are due.
    Raises:
        TrainingError: The loss is not finite, memory does not suffice, or a checkpoint is of something else.
        StorageError: A checkpoint cannot be written.
        DataError: An image cannot be read.
    """
    with _memory_named(job.recipe):
        training = _Training(job, tell=tell, clock=clock)
    note = training.resume(num_evaluated)
    rounds = job.recipe.rounds(job.examples.num_train)
    for index in range(num_evaluated, len(rounds)):
        start, watch = time.monotonic(), EpochWatch(job.device)
        with _memory_named(job.recipe):
            loss = training.train_up_to(rounds[index], index=index, watch=watch)
            metrics = training.evaluate()
        if index + 1 == len(rounds):
            training.save_weights()
        speed = watch.metrics(epoch=index + 1, val_top5=None)
        yield Evaluated(rounds[index], loss, metrics, speed, time.monotonic() - start, note)
        note = None
    job.files.keep([])


@contextmanager
def _memory_named(recipe: TransferRecipe) -> Iterator[None]:
    """Raise TrainingError where memory does not suffice."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, TrainingError) or not is_out_of_memory(error):
            raise
        rule = f"memory: must hold the model and a batch of {recipe.batch_size}; try a smaller --batch-size"
        raise TrainingError(f"{rule}, got too little ({' '.join(str(error).split())[:100]})") from None


class _Training:
    """A training under way."""

    def __init__(self, job: Job, *, tell: Tell, clock: Callable[[], float]) -> None:
        self._job, self._tell, self._clock = job, tell, clock
        self._model = job.begin()
        self._optimizer = make_optimizer(self._model, job.recipe.optimisation)
        self._num_steps = job.recipe.num_steps(job.examples.num_train)
        self._step = 0
        self._seen = ""  # the loss when it was last looked at
        self._forget_loss()

    def _forget_loss(self) -> None:
        """Begin a new mean of the loss."""
        self._num_summed = 0
        self._loss = torch.zeros((), device=self._job.device)  # sum over so many steps

    def resume(self, num_evaluated: int) -> str | None:
        """Go on from the newest checkpoint that can be read; what could not be read, in a sentence.

        Raises:
            TrainingError: It is of something else.
        """
        problems = []
        for name in reversed(self._job.files.checkpoints()):
            if place_of(name)[0] > num_evaluated:
                continue  # of before the record of this run was lost
            try:
                self._load(name)
            except DamagedCheckpointError as error:
                problems.append(f"checkpoint {name} could not be read ({error})")
                continue
            if place_of(name)[0] < num_evaluated:
                self._forget_loss()
            return "; ".join([*problems, f"went on from {name}"]) if problems else None
        if num_evaluated:
            raise TrainingError(
                f"checkpoint: must be there after {num_evaluated} evaluations, got none that can be read"
            )
        return "; ".join([*problems, "began again"]) if problems else None

    def _load(self, name: str) -> None:
        where = self._job.files.where(name)
        try:
            state = torch.load(self._job.files.read(name), map_location=self._job.device, weights_only=True)
            self._model.load_state_dict(state["model"])
            self._optimizer.load_state_dict(state["optimizer"])
            self._step, self._loss, self._num_summed = state["step"], state["loss"], state["num_summed"]
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            if isinstance(error, DamagedCheckpointError):
                raise
            problem = " ".join(str(error).split())[:200]
            raise TrainingError(f"checkpoint: must fit the model, got {where} ({problem})") from None

    def train_up_to(self, last_step: int, *, index: int, watch: EpochWatch) -> float:
        """Mean loss of the steps since the last evaluation, after training up to a step."""
        job, first_step = self._job, self._step
        batches = train_batches(
            job.examples,
            job.recipe,
            seed=job.seed,
            first_step=first_step,
            last_step=last_step,
            num_workers=job.num_workers,
        )
        self._model.train()
        last_checkpoint = self._clock()
        for batch in watch.timed_by(len, batches):
            self._loss = self._loss + self._train_step(batch)
            self._num_summed += 1
            if self._num_summed == 1 or self._num_summed % _LOOK_EVERY == 0:
                self._seen = f"loss {self._mean_loss():.4g}"
            self._tell("training", self._step, self._num_steps, self._seen)
            if self._is_due(self._clock() - last_checkpoint) and self._step < last_step:
                self._save(index)
                last_checkpoint = self._clock()
        watch.stop()
        mean = self._mean_loss()
        if self._step > first_step:
            self._save(index)
        return mean

    def _train_step(self, batch: list[Example]) -> Tensor:
        """The loss of the next step, detached."""
        recipe, device = self._job.recipe, self._job.device
        seed_everything(self._job.seed, epoch=self._step + 1)
        for group in self._optimizer.param_groups:
            group["lr"] = recipe.rate(self._step, self._num_steps)
        losses = self._model(
            [_input(example, device) for example in batch], [_target(example, device) for example in batch]
        )
        loss = torch.stack(list(losses.values())).sum()
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if recipe.clip_grad is not None:
            nn.utils.clip_grad_norm_(self._model.parameters(), recipe.clip_grad)
        self._optimizer.step()
        self._step += 1
        return loss.detach()

    @torch.inference_mode()
    def evaluate(self) -> evaluation.Metrics:
        """The metrics on val; a new mean of the loss begins."""
        job = self._job
        self._forget_loss()
        self._model.eval()
        found = job.make_evaluation()
        for number, [example] in enumerate(val_batches(job.examples, num_workers=job.num_workers), start=1):
            [answer] = self._model([_input(example, job.device)])
            found.add(example.key, example.target, answer)
            self._tell("evaluating", number, job.examples.num_val, "")
        return found.metrics()

    def save_weights(self) -> None:
        """Write the weights alone."""
        document = {
            "version": 1,
            "digest": self._job.arch.digest,
            "step": self._step,
            "model": self._model.state_dict(),
        }
        self._job.files.save(WEIGHTS, partial(torch.save, document), attempt=1)

    def _save(self, index: int) -> None:
        """Write a checkpoint on the way to the evaluation of this number; it and the one before are kept."""
        document: dict[str, Any] = {"version": 1, "digest": self._job.arch.digest, "step": self._step}
        document |= {"loss": self._loss, "num_summed": self._num_summed}
        document |= {"model": self._model.state_dict(), "optimizer": self._optimizer.state_dict()}
        name = checkpoint_name(index, self._num_summed)
        files = self._job.files
        before = [other for other in files.checkpoints() if place_of(other) < place_of(name)]
        files.save(name, partial(torch.save, document), attempt=1)
        files.keep([*before[-1:], name])

    def _is_due(self, seconds: float) -> bool:
        every = self._job.checkpoint_every
        return every is not None and seconds >= every

    def _mean_loss(self) -> float:
        """Mean over the steps since the last evaluation; waits for the device.

        Raises:
            TrainingError: It is not finite.
        """
        mean = float(self._loss) / max(1, self._num_summed)
        if not isfinite(mean):
            raise TrainingError(f"loss: must stay finite, got {mean} after {self._step} steps; try a smaller rate")
        return mean


def _input(example: Example, device: torch.device) -> Tensor:
    """The image CHW, 0 to 1, on the device."""
    return example.image.to(device).float() / 255


def _target(example: Example, device: torch.device) -> dict[str, Tensor]:
    return {name: value.to(device) for name, value in example.target.items()}
