"""The digits, with faults that another process asks for: a file of a fault's name in a folder, taken by one worker.

`--data benchmarks.soak.data:FOLDER`; see benchmarks/soak.py.
"""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.soak.check import MEMORY, MEMORY_OF_STEP, NAN, SLOW_DISK
from nas.data import Batch, Split, default_recipe, register_dataset
from nas.data.digits import Digits
from nas.study.recipe import BadImages, Recipe

SLOW_SECONDS = 5.0


class TooLarge(Tensor):
    """A batch that does not fit into memory unless it is cut."""

    def chunk(self, chunks: int, dim: int = 0) -> Any:
        if chunks == 1:
            raise torch.OutOfMemoryError("asked for by the soak")
        return self.as_subclass(Tensor).chunk(chunks, dim)


@register_dataset(__name__, resolution=16, recipe=default_recipe("digits"), argument="FOLDER")
class FaultyDigits(Digits):
    """Digits whose batches go wrong once for each file in a folder."""

    def __init__(self, folder: str, *, resolution: int, num_workers: int, bad_images: BadImages) -> None:
        super().__init__("", resolution=resolution, num_workers=num_workers, bad_images=bad_images)
        self._folder = Path(folder).absolute()
        self.info = replace(self.info, name=f"{__name__}:{self._folder}")

    def train_batches(self, recipe: Recipe, *, epoch: int, seed: int, device: torch.device) -> Iterator[Batch]:
        for batch in super().train_batches(recipe, epoch=epoch, seed=seed, device=device):
            if self._is_asked_for(SLOW_DISK):
                time.sleep(SLOW_SECONDS)
            if self._is_asked_for(NAN):
                yield Batch(torch.full_like(batch.x_BCHW, torch.nan), batch.y)
            elif self._is_asked_for(MEMORY_OF_STEP):
                yield Batch(batch.x_BCHW.as_subclass(TooLarge), batch.y)
            else:
                yield batch

    def eval_batches(self, split: Split, recipe: Recipe, *, device: torch.device) -> Iterator[Batch]:
        if split == "val" and self._is_asked_for(MEMORY):
            raise torch.OutOfMemoryError("asked for by the soak")
        return super().eval_batches(split, recipe, device=device)

    def _is_asked_for(self, fault: str) -> bool:
        """Whether the fault was asked for; only one worker is told so."""
        try:
            (self._folder / fault).unlink()
        except FileNotFoundError:
            return False
        return True
