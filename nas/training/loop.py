"""One plain training loop on one device, or on one of several that train a model together; knows no ray or optuna.

B batch, C channels, H height, W width, K classes. What an epoch does depends on the lease, its number and the model it
starts from, on nothing else: a run that goes on from a checkpoint gives what an uninterrupted one gives.
"""

import itertools
import resource
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from metaformer.architecture import Architecture
from metaformer.network.model import build
from metaformer.network.part import ALONE, Part
from nas.data import Batch, Dataset, Split
from nas.study.lease import WEIGHTS, Lease, Metrics, Report, Sign, Step
from nas.study.recipe import Precision, Recipe
from nas.training.checkpoints import CheckpointFolder, DamagedCheckpointError, StorageError, checkpoint_name
from nas.training.errors import TrainingError
from nas.training.optimisation import make_ema, make_optimizer, make_schedule, with_drop_path
from nas.training.precision import autocast, faster, open_precisions
from nas.training.processes import add_up, agree
from nas.training.state import (
    State,
    Within,
    find_best,
    generator_states,
    restore,
    resume,
    save,
    save_best,
    seed_everything,
    set_generators,
)
from nas.training.steps import EAGER_STEPS, Chunks, Stepper, in_parts, memory_named
from nas.training.watch import EpochWatch

SIGN_EVERY = 30.0  # seconds between signs of life within an epoch
_TOP = 5  # of top-5 accuracy
_CHECK_EVERY = 50  # steps between looks at the loss, each of which waits for the device
_FEW_IMAGES = 16  # with which measuring begins on a CPU
_LONG_STEP = 1.0  # seconds, from which on it takes no more of them


class Accuracy(NamedTuple):
    """Shares of the images, in [0, 1]."""

    top1: float  # whose class has the highest output
    top5: float | None  # whose class is among the five highest; None where there are no more classes


def train(
    lease: Lease,
    dataset: Dataset,
    *,
    device: torch.device,
    clock: Callable[[], float] = time.monotonic,
    on_metrics: Callable[[Metrics], None] = lambda _metrics: None,
    part: Part = ALONE,
) -> Iterator[Report | Sign]:
    """One report for each epoch from the lease's checkpoint up to its last epoch, and signs of life on the way.

    Each epoch leaves a checkpoint in the lease's folder, where the newest two are kept; the last epoch of the recipe
    leaves the weights alone. Within an epoch there is a sign of life every half minute, and a checkpoint as often as
    the lease asks for. Where the lease's checkpoint cannot be read, training goes on from the newest one before it that
    can, or begins again; the first report has a note of that.

    Args:
        clock: Gives the seconds by which signs and checkpoints within an epoch are due.
        on_metrics: Told the metrics of each epoch, before its report is given.
        part: Of each batch, where several processes train the model; those that have `joined` each other all call this.
            The first alone gives signs and writes checkpoints; all give the same reports.
    Raises:
        TrainingError: The loss or the outputs are not finite, or one image does not fit into memory.
        StorageError: A checkpoint cannot be written, or the place of the checkpoints does not answer.
        DataError: An image cannot be read.
        ProcessLostError: Another process has ended.
    """
    files = CheckpointFolder(lease.folder)
    _prepare(device)
    state = resume(lease, files, device, part=part)
    if not agree((state.num_done, state.within.step if state.within else 0), part, device):
        why = OSError("processes of one model have read different checkpoints")
        raise StorageError(lease.folder, why, may_pass=True)
    training = _Training(lease, dataset, files, state, device=device, clock=clock, part=part)
    notes = [state.note]
    for epoch in range(state.num_done, lease.epochs):
        seed_everything(lease.seed, epoch=epoch + 1)
        watch = EpochWatch(device)
        with memory_named():
            loss = yield from training.train_epoch(watch)
            val = training.evaluate()
        state.num_done = epoch + 1
        training.keep_best(val.top1)
        checkpoint = training.save()
        agree((state.num_done,), part, device)  # none goes on before it is written
        notes.append(training.take_note())
        note = "; ".join(filter(None, notes)) or None
        notes.clear()
        on_metrics(watch.metrics(epoch=epoch + 1, val_top5=val.top5, num_processes=part.number))
        yield Report(epoch=epoch + 1, val_accuracy=val.top1, train_loss=loss, checkpoint=checkpoint, note=note)


def evaluate(lease: Lease, dataset: Dataset, *, device: torch.device, part: Part = ALONE) -> float:
    """Accuracy in [0, 1] of the lease's checkpoint on the test split; errors as `measure_accuracy`."""
    return measure_accuracy(lease, dataset, split="test", device=device, part=part).top1


def measure_accuracy(
    lease: Lease, dataset: Dataset, *, split: Split, device: torch.device, part: Part = ALONE
) -> Accuracy:
    """Accuracies of the lease's checkpoint on a split; with a `part` that of all processes, each of which calls this.

    Raises:
        TrainingError: The checkpoint cannot be read, its outputs are not finite, or one image does not fit into memory.
        StorageError: The place of the checkpoints does not answer.
        DataError: An image cannot be read.
    """
    files, name = CheckpointFolder(lease.folder), lease.checkpoint or WEIGHTS
    with memory_named():
        model = build(lease.architecture).to(device)
        try:
            restore(lease, files, name, model)
        except DamagedCheckpointError as error:
            raise TrainingError(f"checkpoint: must be readable, got {files.where(name)} ({error})") from None
        batches = dataset.eval_part(split, lease.recipe, part, device=device)
        count = _Count(lease.architecture.head.num_classes, part, device)
        return _accuracy(model, batches, lease.recipe, Chunks(), count)


def measure_training(
    arch: Architecture, recipe: Recipe, dataset: Dataset, *, device: torch.device, num_steps: int = 3
) -> Step:
    """Median seconds of a training step of the architecture, by image, reading included, and the most memory it takes.

    One more step warms up; on a GPU four, after which the step is a CUDA graph. On a CPU, which takes as long for an
    image whatever their number, steps grow from a few images up to the batch, or to a second: a large model's whole
    step would take minutes, and more memory than the machine has. Memory is then that of a whole step in proportion.

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

    def read() -> tuple[Batch, float]:
        """The next batch, and seconds of reading by image."""
        start = time.perf_counter()
        with memory_named():
            batch = next(batches)
        return batch, (time.perf_counter() - start) / len(batch.x_BCHW)

    def step(batch: Batch, most: int) -> tuple[int, float]:
        """Images of a step on at most so many of the batch, and seconds by image."""
        start = time.perf_counter()
        part = Batch(batch.x_BCHW[:most], batch.y[:most])
        with memory_named():
            train_step(part).item()
            if ema is not None:
                ema.update(model)
        return len(part.x_BCHW), (time.perf_counter() - start) / len(part.x_BCHW)

    batch, _ = read()
    num_all = len(batch.x_BCHW)
    most = _FEW_IMAGES if device.type == "cpu" else recipe.batch_size
    for _ in range(EAGER_STEPS if device.type == "cuda" else 0):
        step(batch, most)
    num, seconds = step(batch, most)
    while num < num_all and num * seconds < _LONG_STEP:
        num, seconds = step(batch, 2 * num)
    times = []
    for _ in range(num_steps):
        batch, reading = read()
        times.append((reading + step(batch, num)[1], reading))
    seconds, reading = sorted(times)[num_steps // 2]
    peak_bytes = max(0, _peak_memory(device) - memory_before) * num_all // num
    return Step(seconds_per_image=seconds, reading=reading, peak_bytes=peak_bytes)


def measure_trainings(
    archs: Sequence[Architecture], recipe: Recipe, dataset: Dataset, *, device: torch.device
) -> list[Step]:
    """The same for several architectures. Where the recipe leaves the precision open, the faster one, which they name.

    Raises:
        TrainingError: Not even one image of one of them fits into the device's memory.
    """
    precisions = open_precisions(device, recipe)
    if not precisions:
        return [measure_training(arch, recipe, dataset, device=device) for arch in archs]
    steps: dict[Precision, list[Step]] = {precision: [] for precision in precisions}
    for arch in archs:
        for precision, found in steps.items():
            asked = recipe.model_copy(update={"precision": precision})
            found.append(measure_training(arch, asked, dataset, device=device))
    chosen = faster(steps)
    return [step.model_copy(update={"precision": chosen}) for step in steps[chosen]]


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


class _Training:
    """A training under way, epoch by epoch."""

    def __init__(
        self,
        lease: Lease,
        dataset: Dataset,
        files: CheckpointFolder,
        state: State,
        *,
        device: torch.device,
        clock: Callable[[], float],
        part: Part,
    ) -> None:
        """Go on from `state`."""
        self._part = part
        self._lease, self._dataset, self._files, self._state = lease, dataset, files, state
        self._device, self._clock = device, clock
        self._recipe = lease.recipe
        self._num_steps = dataset.num_steps(self._recipe)
        self._schedule = make_schedule(state.optimizer, self._recipe, self._num_steps)
        self._chunks = Chunks()
        self._step = Stepper(state.model, state.optimizer, self._recipe, self._chunks, part=part)
        self._keeps_best = lease.keep_best and part.rank == 0
        kept = find_best(files) if self._keeps_best and state.num_done else None
        self._best = 0.0 if kept is None else kept.val_accuracy

    def train_epoch(self, watch: EpochWatch) -> Generator[Sign, None, float]:
        """The mean loss of the next epoch, which may be begun already, after its signs of life."""
        state, recipe = self._state, self._recipe
        state.model.train()
        batches = self._dataset.train_part(
            recipe, self._part, epoch=state.num_done, seed=self._lease.seed, device=self._device
        )
        first_step, total = 0, torch.zeros((), device=self._device)
        if state.within is not None:
            first_step, total = state.within.step, state.within.loss
            for _ in itertools.islice(batches, first_step):
                pass  # they are read, so that what draws from generators on the way has drawn as often
            set_generators(state.within.generators, self._device)
            state.within = None
        last_sign = last_checkpoint = self._clock()
        for num_done, batch in enumerate(watch.timed(batches), start=first_step + 1):
            self._schedule.step_update(state.num_done * self._num_steps + num_done - 1)
            total = total + self._step(batch)
            if state.ema is not None:
                state.ema.update(state.model)
            if num_done % _CHECK_EVERY == 0:
                _check_finite(total)
            now = self._clock()
            is_due = self._is_checkpoint_due(now - last_checkpoint)
            is_sign_due = is_due or now - last_sign >= SIGN_EVERY
            if is_sign_due and self._part.rank == 0 and num_done < self._num_steps:
                yield self._give_sign(num_done, total, with_checkpoint=is_due)
                last_sign = self._clock()
                last_checkpoint = last_sign if is_due else last_checkpoint
        _check_finite(total)  # waits for the device
        watch.stop()
        return float(total) / self._num_steps

    def evaluate(self) -> Accuracy:
        """Accuracy on val."""
        batches = self._dataset.eval_part("val", self._recipe, self._part, device=self._device)
        return _accuracy(self._state.evaluated, batches, self._recipe, self._chunks, self._count())

    def keep_best(self, val_accuracy: float) -> None:
        """Keep the weights, where the lease asks for that and no epoch was better; of equal ones the later."""
        if self._keeps_best and val_accuracy >= self._best:
            save_best(self._lease, self._files, self._state, val_accuracy=val_accuracy)
            self._best = val_accuracy

    def save(self) -> str:
        """The name of the checkpoint of this place, which the first of the processes writes."""
        if self._part.rank == 0:
            return save(self._lease, self._files, self._state)
        done = self._state.num_done
        return WEIGHTS if done == self._recipe.epochs else checkpoint_name(done)

    def _count(self) -> "_Count":
        return _Count(self._lease.architecture.head.num_classes, self._part, self._device)

    def take_note(self) -> str | None:
        """What went wrong with the steps without ending anything, once."""
        note, self._step.note = self._step.note, None
        return note

    def _is_checkpoint_due(self, seconds: float) -> bool:
        every = self._lease.checkpoint_every
        return every is not None and seconds >= every

    def _give_sign(self, step: int, loss: Tensor, *, with_checkpoint: bool) -> Sign:
        """A sign of life, with a checkpoint that goes on after this step."""
        _check_finite(loss)
        name = None
        if with_checkpoint:
            self._state.within = Within(step, loss, generator_states(self._device))
            name = self.save()
            self._state.within = None
        return Sign(step=step, num_steps=self._num_steps, checkpoint=name)


@torch.inference_mode()
def _accuracy(model: nn.Module, batches: Iterator[Batch], recipe: Recipe, chunks: Chunks, count: "_Count") -> Accuracy:
    """Top-1 and top-5 accuracy.

    Raises:
        TrainingError: An output is not finite, or one image does not fit into memory.
    """

    def logits(x_BCHW: Tensor, num_chunks: int) -> Tensor:
        with autocast(x_BCHW.device, recipe):
            return torch.cat([model(part) for part in x_BCHW.chunk(num_chunks)])

    model.eval()
    for batch in batches:
        count.add(in_parts(batch, chunks, partial(logits, batch.x_BCHW)), batch.y)
    return count.accuracy()


class _Count:
    """Counts right answers on the device, which is not waited for before the end; there over all processes."""

    def __init__(self, num_classes: int, part: Part, device: torch.device) -> None:
        self._has_top5, self._part = num_classes > _TOP, part
        self._counts_4 = torch.zeros(4, dtype=torch.int64, device=device)  # not finite, right, among five, seen

    def add(self, logits_BK: Tensor, y: Tensor) -> None:
        counts = [(~torch.isfinite(logits_BK)).sum(), (logits_BK.argmax(1) == y).sum()]
        counts.append((logits_BK.topk(_TOP, dim=1).indices == y[:, None]).sum() if self._has_top5 else counts[1])
        self._counts_4[:3] += torch.stack(counts)
        self._counts_4[3] += len(y)

    def accuracy(self) -> Accuracy:
        num_wrong, right, right5, num_seen = add_up(self._counts_4, self._part).tolist()
        if num_wrong:
            raise TrainingError("outputs: must stay finite, got some that are not after an epoch whose loss was")
        return Accuracy(right / num_seen, right5 / num_seen if self._has_top5 else None)


def _check_finite(loss: Tensor) -> None:
    if not torch.isfinite(loss):
        raise TrainingError(f"loss: must stay finite, got {float(loss)}")
