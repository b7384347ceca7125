"""The digits, with a gate before the third epoch of each training; the worker's side of `tests/nas/gate.py`.

Where this is imported, one more name of a dataset is known.
"""

import itertools
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from nas.data import Batch, default_recipe, register_dataset
from nas.data.digits import Digits
from nas.study.recipe import BadImages, Recipe

_EPOCH_BEFORE = 2  # epochs that are reported, and recorded, when a training comes to the gate
_POLL = 0.01  # seconds between looks at the gate


@register_dataset(__name__, resolution=16, recipe=default_recipe("digits"), argument="FOLDER")
class GatedDigits(Digits):
    """Digits whose third epoch begins when the gate is open."""

    def __init__(self, folder: str, *, resolution: int, num_workers: int, bad_images: BadImages) -> None:
        super().__init__("", resolution=resolution, num_workers=num_workers, bad_images=bad_images)
        self._folder = Path(folder)
        self.info = replace(self.info, name=f"{__name__}:{self._folder}")

    def train_batches(self, recipe: Recipe, *, epoch: int, seed: int, device: torch.device) -> Iterator[Batch]:
        if epoch == _EPOCH_BEFORE:
            self._wait()
        return super().train_batches(recipe, epoch=epoch, seed=seed, device=device)

    def _wait(self) -> None:
        """Come to the gate under the next free number, and return when it is open."""
        number = next(number for number in itertools.count() if self._is_mine(number))
        opened = (self._folder / "open", self._folder / f"open-{number}")
        while not any(path.exists() for path in opened):
            time.sleep(_POLL)

    def _is_mine(self, number: int) -> bool:
        try:
            (self._folder / f"reached-{number}").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True
