"""One thing of each kind that can be added, written as CONTRIBUTING.md says: a mixer, a space, a dataset, an objective,
a proposer. Importing this module registers them.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from metaformer.architecture import Architecture
from metaformer.network.mixers import register_mixer
from metaformer.network.model import MetaFormer
from metaformer.specs import Head, MixerSpec, PartCost, Stage, Stem, TokenMap
from nas.data import Batch, DataInfo, Dataset, Split, register_dataset, train_batch_size
from nas.record.trials import TrialRecord
from nas.session.proposers import Proposer, register_proposer
from nas.session.proposers.base import FreshGenes
from nas.study.objectives import MeasuredObjective, register_objective
from nas.study.objectives.base import Objectives
from nas.study.recipe import Augmentation, BadImages, Recipe
from search_spaces.space import Choice, Gene, Genes, Limits, SearchSpace, SpaceError, register_space


class ScaleSpec(MixerSpec):
    """A learned factor for each channel, and a shift of the map by `step` columns."""

    kind: Literal["scale"] = "scale"
    step: int = 1

    def cost(self, width: int, tokens: TokenMap) -> PartCost:
        return PartCost(params=width)


@register_mixer("scale", layout="BCHW")
class ScaleMixer(nn.Module):
    """What ScaleSpec says, on maps x_BCHW."""

    def __init__(self, width: int, spec: ScaleSpec, *, side: int) -> None:
        super().__init__()
        self.step = spec.step
        self.factor = nn.Parameter(torch.ones(width, 1, 1))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.factor * x_BCHW.roll(self.step, dims=3)


@register_space("scales")
class Scales(SearchSpace):
    """One stage of the new mixer: its step and the number of blocks."""

    choices = (Choice("step", (1, 2, 3)), Choice("depth", (1, 2)))
    size = 6

    def decode(self, genes: Mapping[str, Gene]) -> Architecture:
        stage = Stage(depth=int(genes["depth"]), width=8, mixer=ScaleSpec(step=int(genes["step"])))
        head = Head(num_classes=self.settings.num_classes)
        stem = Stem(kernel=2, stride=2, padding=0)
        return Architecture(resolution=self.settings.resolution, stem=stem, stages=(stage,), head=head)

    def encode(self, arch: Architecture) -> Genes:
        stage = arch.stages[0]
        if not isinstance(stage.mixer, ScaleSpec):
            raise SpaceError(f"architecture: must have the mixer scale, got {stage.mixer.kind}")
        return self._checked({"step": stage.mixer.step, "depth": stage.depth}, arch)

    def references(self) -> dict[str, Architecture]:
        return {}


_PLAIN = Augmentation(
    crop_scale=(1.0, 1.0), flip=0, rand_augment=None, random_erasing=0, mixup=0, cutmix=0, eval_crop=1.0
)


@register_dataset(__name__, resolution=8, recipe=Recipe(epochs=2, warmup_epochs=1, batch_size=16, augmentation=_PLAIN))
class Stripes(Dataset):
    """Images of noise with a bright row or a bright column; which of them is the class."""

    def __init__(self, argument: str, *, resolution: int, num_workers: int, bad_images: BadImages) -> None:
        self._side = resolution
        self.info = DataInfo(
            name=__name__,
            num_classes=2,
            class_names=("row", "column"),
            resolution=resolution,
            num_images={"train": 64, "val": 32, "test": 32},
            fingerprint="stripes000000000",
        )

    @staticmethod
    def check(recipe: Recipe) -> None:
        """Takes every recipe, and follows none of its augmentation."""

    def train_batches(self, recipe: Recipe, *, epoch: int, seed: int, device: torch.device) -> Iterator[Batch]:
        size = train_batch_size(recipe, 64)
        return self._batches(64 // size, size, seed=1000 * seed + epoch, device=device)

    def eval_batches(self, split: Split, recipe: Recipe, *, device: torch.device) -> Iterator[Batch]:
        number = self.info.num_images[split]
        return self._batches(1, number, seed={"train": -1, "val": -2, "test": -3}[split], device=device)

    def _batches(self, number: int, size: int, *, seed: int, device: torch.device) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(seed)
        for _ in range(number):
            x_BCHW = 0.1 * torch.randn(size, 3, self._side, self._side, generator=generator)
            y_B = torch.arange(size) % 2
            x_BCHW[0::2, :, self._side // 2] += 1
            x_BCHW[1::2, :, :, self._side // 2] += 1
            yield Batch(x_BCHW.to(device, memory_format=torch.channels_last), y_B.to(device))


@register_objective("largest_output")
class LargestOutput(MeasuredObjective):
    """The largest logit for a black image, plus 1: small is good. It means nothing, but it is measured."""

    metric = "largest_output"
    title = "largest output"

    def measure(self, model: MetaFormer, *, resolution: int, device: torch.device) -> float:
        with torch.inference_mode():
            return 1 + float(model(torch.zeros(1, 3, resolution, resolution, device=device)).abs().max())

    def text(self, value: float) -> str:
        return f"{value:.2f}"

    def parse_limit(self, text: str) -> float:
        return float(text)


class InOrder(Proposer):
    """The architectures of the space in a random order."""

    def __init__(self, space: SearchSpace, objectives: Objectives) -> None:
        self._fresh = FreshGenes(space)

    def propose(self, history: Sequence[TrialRecord], *, limits: Limits, seed: int) -> Genes | None:
        import random

        self._fresh.read(history)
        return self._fresh.draw(limits, random.Random(seed))


register_proposer("in_order", InOrder)
