"""The digits, batch for batch, but half a second apart, as from a slow disk: an epoch that takes a while."""

import time
from collections.abc import Iterator
from dataclasses import replace

import torch

from nas.data import Batch, default_recipe, register_dataset
from nas.data.digits import Digits
from nas.study.recipe import BadImages, Recipe

SECONDS = 0.5  # before each batch


@register_dataset(__name__, resolution=16, recipe=default_recipe("digits"))
class SlowDigits(Digits):
    """Digits whose training batches take their time."""

    def __init__(self, argument: str, *, resolution: int, num_workers: int, bad_images: BadImages) -> None:
        super().__init__(argument, resolution=resolution, num_workers=num_workers, bad_images=bad_images)
        self.info = replace(self.info, name=__name__)

    def train_batches(self, recipe: Recipe, *, epoch: int, seed: int, device: torch.device) -> Iterator[Batch]:
        for batch in super().train_batches(recipe, epoch=epoch, seed=seed, device=device):
            time.sleep(SECONDS)
            yield batch
