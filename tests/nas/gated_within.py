"""The digits, with a gate in the middle of the first epoch of each training: an epoch that ends when a test lets it."""

import itertools
from collections.abc import Iterator
from dataclasses import replace

import torch

from nas.data import Batch, default_recipe, register_dataset
from nas.data.digits import Digits
from nas.study.recipe import BadImages, Recipe
from tests.nas.gated import GatedDigits

_STEPS_BEFORE = 8


@register_dataset(__name__, resolution=16, recipe=default_recipe("digits"), argument="FOLDER")
class GatedWithin(GatedDigits):
    """Digits whose first epoch goes on past its eighth step when the gate is open."""

    def __init__(self, folder: str, *, resolution: int, num_workers: int, bad_images: BadImages) -> None:
        super().__init__(folder, resolution=resolution, num_workers=num_workers, bad_images=bad_images)
        self.info = replace(self.info, name=f"{__name__}:{folder}")

    def train_batches(self, recipe: Recipe, *, epoch: int, seed: int, device: torch.device) -> Iterator[Batch]:
        batches = Digits.train_batches(self, recipe, epoch=epoch, seed=seed, device=device)
        if epoch == 0:
            yield from itertools.islice(batches, _STEPS_BEFORE)
            self._wait()
        yield from batches
