"""Images with the statistics of photographs, and what two pipelines make of them.

C channels, H height, W width, N images, S side of a stored image, F numbers that are noted of an image.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import ks_2samp
from timm.data import create_transform
from timm.data.transforms import MaybeToTensor
from torch import Tensor, nn

from nas.data import open_dataset
from nas.data.augment import mend
from nas.data.generators import PrivateGenerators
from nas.data.packing import pack
from nas.data.prepared import read_description
from nas.data.sources.folder import FolderSource
from nas.study.recipe import Augmentation, Recipe

CPU = torch.device("cpu")
PLAIN: dict[str, object] = {"flip": 0, "rand_augment": None, "random_erasing": 0, "mixup": 0, "cutmix": 0}
WHOLE: dict[str, object] = {**PLAIN, "crop_scale": (1, 1)}
_BINS = 32  # of a histogram of grey levels


def photographs(num: int, side: int, *, seed: int) -> NDArray[np.uint8]:
    """Smooth colours of any contrast with a little noise, NSSC; no two alike."""
    noise = np.random.default_rng(seed)
    found = []
    for _ in range(num):
        few = noise.normal(noise.uniform(60, 190), noise.uniform(10, 80), (5, 5, 3)).clip(0, 255).astype(np.uint8)
        smooth = np.asarray(Image.fromarray(few).resize((side, side), Image.Resampling.BICUBIC))
        found.append((smooth + noise.normal(0, 6, smooth.shape)).clip(0, 255).astype(np.uint8))
    return np.stack(found)


def write_photographs(root: Path, *, side: int, per_class: int = 40, num_test: int = 4, seed: int = 0) -> Path:
    """`root`, with JPEGs of two classes in train and val."""
    for number, (part, label, count) in enumerate(
        (part, label, count) for part, count in (("train", per_class), ("val", num_test)) for label in ("a", "b")
    ):
        folder = root / part / label
        folder.mkdir(parents=True)
        for index, image_SSC in enumerate(photographs(count, side, seed=100 * seed + number)):
            Image.fromarray(image_SSC).save(folder / f"{index}.jpg", quality=95)
    return root


def prepare(folder: Path, out: Path, *, resolution: int, side: int) -> Path:
    """`out`, a prepared folder."""
    pack(FolderSource(str(folder)), out, resolution=resolution, side=side, num_workers=1, bad_images="stop")
    return out


def recipe_of(batch_size: int = 24, **augmentation: object) -> Recipe:
    """A recipe without augmentation but for what is given."""
    return Recipe(batch_size=batch_size, augmentation=Augmentation.model_validate({**WHOLE, **augmentation}))


def our_images(prepared: Path, recipe: Recipe, *, num_epochs: int, device: torch.device = CPU) -> Tensor:
    """Grey levels of what some epochs of a prepared folder yield, x_NCHW."""
    dataset = open_dataset(f"prepared:{prepared}", resolution=read_description(prepared).resolution)
    epochs = (dataset.train_batches(recipe, epoch=epoch, seed=5, device=device) for epoch in range(num_epochs))
    return _levels(torch.cat([batch.x_BCHW.cpu() for batches in epochs for batch in batches]), prepared)


def timm_images(
    folder: Path, prepared: Path, recipe: Recipe, *, num_epochs: int, augment: nn.Module | None = None
) -> Tensor:
    """Grey levels of what timm's transforms make of the same training files as often, x_NCHW.

    Args:
        augment: Takes the place of the recipe's `rand_augment`, after crop and flip.
    """
    description, augmentation = read_description(prepared), recipe.augmentation
    transform = create_transform(
        description.resolution,
        is_training=True,
        scale=augmentation.crop_scale,
        hflip=augmentation.flip,
        auto_augment=augmentation.rand_augment if augment is None else None,
        color_jitter=None,
        interpolation="bicubic",
        re_prob=augmentation.random_erasing,
        re_mode="pixel",
        mean=description.mean,
        std=description.std,
    )
    mend(transform)
    if augment is not None:
        [place] = [place for place, step in enumerate(transform.transforms) if isinstance(step, MaybeToTensor)]
        transform.transforms.insert(place, augment)
    source = FolderSource(str(folder))
    images = [source.read("train", place) for place in range(len(source.labels["train"]))]
    with PrivateGenerators(11):
        found = torch.stack([transform(image) for _ in range(num_epochs) for image in images])
    return _levels(found, prepared)


def _levels(x_NCHW: Tensor, prepared: Path) -> Tensor:
    """From 0 to 255, but for the noise of erasing."""
    description = read_description(prepared)
    mean, std = (torch.tensor(numbers)[:, None, None] for numbers in (description.mean, description.std))
    return (255 * (x_NCHW * std + mean)).round(decimals=2)


def assert_same_distribution(ours_NCHW: Tensor, theirs_NCHW: Tensor) -> None:
    """The same moments and histograms, as far as so many images can tell.

    Noted of each image: its mean, deviation, smallest and largest value, the means of its channels and of its quarters,
    and the mean step from pixel to pixel. Each of these has the same distribution over the images (Kolmogorov and
    Smirnov, two samples, p above 0.002, since about a hundred are compared) and the same mean within four standard
    errors. The histograms of all pixels differ by no more than a fifth more than two halves of theirs do.
    """
    ours_NF, theirs_NF = _noted(ours_NCHW), _noted(theirs_NCHW)
    for index, (ours_N, theirs_N) in enumerate(zip(ours_NF.T, theirs_NF.T, strict=True)):
        p = ks_2samp(ours_N, theirs_N).pvalue
        assert p > 0.002, f"number {index}: p {p}"
        error = np.sqrt(ours_N.var() / len(ours_N) + theirs_N.var() / len(theirs_N))
        assert abs(ours_N.mean() - theirs_N.mean()) < 4 * error, f"number {index}"
    half = len(theirs_NCHW) // 2
    apart = max(_apart(theirs_NCHW[:half], theirs_NCHW[half:], channel) for channel in range(3))
    for channel in range(3):
        assert _apart(ours_NCHW, theirs_NCHW, channel) < 1.2 * apart, f"channel {channel}"


def _apart(one_NCHW: Tensor, other_NCHW: Tensor, channel: int) -> float:
    """Part of the pixels by which two histograms of grey levels differ."""
    counts = [
        np.histogram(x_NCHW[:, channel].numpy(), np.linspace(-1, 256, _BINS + 1))[0]
        for x_NCHW in (one_NCHW, other_NCHW)
    ]
    parts = [count / count.sum() for count in counts]
    return float(np.abs(parts[0] - parts[1]).sum() / 2)


def _noted(x_NCHW: Tensor) -> NDArray[np.float64]:
    half_H, half_W = x_NCHW.shape[2] // 2, x_NCHW.shape[3] // 2
    numbers = [x_NCHW.mean((1, 2, 3)), x_NCHW.std((1, 2, 3)), x_NCHW.amin((1, 2, 3)), x_NCHW.amax((1, 2, 3))]
    numbers += list(x_NCHW.mean((2, 3)).T)
    numbers += [x_NCHW[:, :, rows, columns].mean((1, 2, 3)) for rows in _halves(half_H) for columns in _halves(half_W)]
    numbers.append(x_NCHW.diff(dim=3).abs().mean((1, 2, 3)))
    return torch.stack(numbers, dim=1).double().numpy()


def _halves(middle: int) -> tuple[slice, slice]:
    return slice(None, middle), slice(middle, None)
