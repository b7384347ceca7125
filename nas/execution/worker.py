"""What a worker does with a lease: it opens the data once, and turns each step into an outcome. It knows no ray.

What trains is imported where it is called: it loads timm, which takes seconds that a driver need not spend.
"""

import platform
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from metaformer.architecture import Architecture
from metaformer.network.part import ALONE, Part
from metaformer.specs import Spec
from nas.data import DataError, DataInfo, Dataset, open_dataset
from nas.execution.devices import Devices
from nas.study.lease import (
    EpochDone,
    Evaluated,
    Failed,
    Halted,
    Lease,
    LossCause,
    Lost,
    Measured,
    Metrics,
    Outcome,
    Report,
    SignOfLife,
    Step,
)
from nas.study.recipe import BadImages, Recipe
from nas.study.splitting import DEFAULT_SPLITTING, Splitting
from nas.training.checkpoints import StorageError
from nas.training.errors import ProcessLostError, TrainingError


class Data(Spec):
    """What a worker opens: a dataset by name."""

    name: str
    resolution: int
    fingerprint: str
    num_loaders: int  # processes that read images, beside the worker itself
    bad_images: BadImages = "stop"
    splitting: Splitting = DEFAULT_SPLITTING

    @classmethod
    def of(cls, info: DataInfo, *, num_loaders: int, bad_images: BadImages) -> "Data":
        """That of an opened dataset."""
        return cls(
            name=info.name,
            resolution=info.resolution,
            fingerprint=info.fingerprint,
            num_loaders=num_loaders,
            bad_images=bad_images,
            splitting=info.splitting,
        )

    def open(self) -> Dataset:
        """The dataset, as this node has it.

        Raises:
            DataError: It is not there, or not what the driver has.
        """
        dataset = open_dataset(
            self.name,
            resolution=self.resolution,
            num_workers=self.num_loaders,
            bad_images=self.bad_images,
            splitting=self.splitting,
        )
        if dataset.info.fingerprint != self.fingerprint:
            raise DataError(
                f"data: must be the same on every node (fingerprint {self.fingerprint}), "
                f"got {dataset.info.fingerprint} on {socket.gethostname()}"
            )
        return dataset


class Worker:
    """One device with the data on it, for one lease after another; with others, where several train one model."""

    def __init__(self, data: Data, devices: Devices, part: Part = ALONE) -> None:
        """Open the data, and take the device.

        Args:
            part: Of every batch, which this worker has.
        Raises:
            DataError: The data are not there.
        """
        self.device = devices.take()
        self._part = part
        self._dataset = data.open()
        self._told: set[str] = set()  # images left out
        self._outcomes: Iterator[Outcome] = iter(())

    def begin(self, lease: Lease) -> None:
        """Take a lease; the one before is forgotten."""
        self._outcomes = self._carry_out(lease)

    def step(self) -> Outcome:
        """The next outcome of the lease: a measurement, an epoch, a test, or what ends it."""
        try:
            return next(self._outcomes)
        except TrainingError as error:
            return Failed(reason=str(error))
        except DataError as error:
            return Halted(reason=str(error))
        except StorageError as error:
            if error.may_pass:
                return Lost(reason=str(error), cause=LossCause.STORAGE)
            return Halted(reason=str(error))
        except ProcessLostError as error:
            return Lost(reason=str(error), cause=LossCause.WORKER)

    def newly_left_out(self) -> list[str]:
        """Images that were found unreadable since this was last asked."""
        new = set(self._dataset.left_out()) - self._told
        self._told |= new
        return sorted(new)

    def _carry_out(self, lease: Lease) -> Iterator[Outcome]:
        from nas.training.loop import evaluate, train
        from nas.training.measure import measure_objectives

        if lease.task == "test":
            accuracy = evaluate(lease, self._dataset, device=self.device, part=self._part)
            yield Evaluated(accuracy=accuracy)
            return
        if lease.measure and self._part.rank == 0:
            yield Measured(
                measurement=measure_objectives(
                    lease.architecture, lease.measure, device=self.device, device_name=device_name(self.device)
                )
            )
        seen: list[Metrics] = []
        for given in train(lease, self._dataset, device=self.device, on_metrics=seen.append, part=self._part):
            if isinstance(given, Report):
                yield EpochDone(report=given, metrics=seen.pop())
            else:
                yield SignOfLife(sign=given)


def measure_steps(
    data: Data, devices: Devices, archs: Sequence[Architecture], recipe: Recipe, objectives: Sequence[str]
) -> tuple[list[Step], float]:
    """What a step of training takes for each architecture, and what the device measures of it; seconds of all steps.

    Raises:
        UserError, TrainingError: Not even a step of training works.
    """
    from nas.training.loop import measure_trainings
    from nas.training.measure import measure_objectives

    device, dataset = devices.take(), data.open()
    start, name = time.monotonic(), device_name(device)
    trained = measure_trainings(archs, recipe, dataset, device=device)
    steps = [step.model_copy(update={"device": name}) for step in trained]
    if objectives:
        measured = [measure_objectives(arch, objectives, device=device, device_name=name) for arch in archs]
        steps = [step.model_copy(update={"measurement": each}) for step, each in zip(steps, measured, strict=True)]
    return steps, time.monotonic() - start


def device_name(device: torch.device) -> str:
    """The kind of a device: the GPU's or the processor's name, and on a CPU how many threads are used."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):  # elsewhere than on Linux, or a processor that gives no name
        name = platform.processor() or platform.machine()
    threads = torch.get_num_threads()
    return f"{name}, {threads} thread{'s' * (threads > 1)}"
