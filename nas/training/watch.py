"""How fast an epoch trains, how long it waits for its images, and the memory that it takes."""

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from nas.data import Batch
from nas.study.lease import Metrics

_MIB = 2**20
_Item = TypeVar("_Item")


class EpochWatch:
    """Watches one epoch: `timed` around its batches, `stop` after its last step, then `metrics`.

    It never waits for the device. A GPU works on while the loop waits for the next batch, so there the waiting is the
    most that the images can have cost.
    """

    def __init__(self, device: torch.device) -> None:
        """Begin a new peak of the GPU's memory."""
        self._device = device
        self._num_images = 0
        self._waited = self._start = self._seconds = 0.0
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def timed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The batches; the time until each is there is counted, and so are its images."""
        return self.timed_by(lambda batch: len(batch.x_BCHW), batches)

    def timed_by(self, count: Callable[[_Item], int], batches: Iterator[_Item]) -> Iterator[_Item]:
        """The same of batches of another form, with what gives the images of one."""
        self._start = time.perf_counter()
        while True:
            asked = time.perf_counter()
            batch = next(batches, None)
            self._waited += time.perf_counter() - asked
            if batch is None:
                return
            self._num_images += count(batch)
            yield batch

    def stop(self) -> None:
        """End the time of training; to be called when the device has done its last step."""
        self._seconds = time.perf_counter() - self._start

    def metrics(self, *, epoch: int, val_top5: float | None, num_processes: int = 1) -> Metrics:
        """What was seen of the epoch, its evaluation's memory included; rounded, since it is written every epoch.

        Args:
            num_processes: That train the model together, each on as many images.
        """
        seconds = max(self._seconds, 1e-9)
        is_gpu = self._device.type == "cuda"
        return Metrics(
            epoch=epoch,
            val_top5=val_top5,
            images_per_s=round(num_processes * self._num_images / seconds, 2),
            waiting=round(min(self._waited / seconds, 1.0), 4),
            peak_mib=round(torch.cuda.max_memory_allocated(self._device) / _MIB, 1) if is_gpu else None,
        )
