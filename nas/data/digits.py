"""scikit-learn's handwritten digits: a dataset that is there wherever the project is installed.

B batch, H height, W width, N images of a split.
"""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from metaformer.zoo import Preprocessing
from nas.data.division import divide_again
from nas.data.registry import (
    SMALLEST_SIDE,
    Batch,
    DataError,
    DataInfo,
    Dataset,
    Fit,
    Split,
    fingerprint_of,
    mix_seed,
    register_dataset,
    shuffled_class,
    train_batch_size,
    wrong,
)
from nas.study.recipe import BadImages, Recipe
from nas.study.recipe_files import find_recipe
from nas.study.splitting import DEFAULT_SPLITTING, Splitting

_RECIPE = find_recipe("digits")
_WHITE = 16  # the most ink of a pixel
_LARGEST_SIDE = 512  # pixels; 1.9 GB
_REFERENCES = (  # one of each pattern that fits
    "poolformer_s12",
    "metaformer_id_s12",
    "metaformer_ppaa_s12_224",
    "metaformer_dwconv_s12",
)


@register_dataset(
    "digits",
    resolution=16,
    recipe=_RECIPE,
    # Seconds a trial on one core, and little is left to find after minutes
    fit=Fit(width_scale=1 / 16, max_macs=250_000, references=_REFERENCES, until="converged"),
    takes_splitting=True,
)
class Digits(Dataset):
    """1,797 scans of handwritten digits (8 x 8 grey, scikit-learn's `load_digits`), held as tensors on the device.

    60 % of each class train, 20 % are val and 20 % test. A limit on the images of a class and another seed draw train
    and val anew; another part for val is refused. The scans are enlarged bilinearly, normalised by the mean and
    standard deviation of the training images, and repeated to three channels. No two of the scans are equal.
    """

    def __init__(
        self,
        _argument: str,
        *,
        resolution: int,
        num_workers: int,
        bad_images: BadImages,
        splitting: Splitting = DEFAULT_SPLITTING,
    ) -> None:
        del num_workers, bad_images  # nothing is read while training
        if resolution > _LARGEST_SIDE:
            raise wrong("resolution", f"must be at most {_LARGEST_SIDE} pixels for digits", resolution)
        rows_NF = _read_rows()
        scans_NHW = torch.from_numpy(rows_NF[:, :-1]).reshape(-1, 8, 8)
        labels_N = torch.from_numpy(rows_NF[:, -1]).long()
        places = _split_digits(labels_N.numpy(), splitting)
        enlarged_NHW = F.interpolate(scans_NHW[:, None].float(), (resolution,) * 2, mode="bilinear")[:, 0]
        std, mean = torch.std_mean(enlarged_NHW[places["train"]])
        self._background = float(-mean / std)
        self._mean, self._std = float(mean) / _WHITE, float(std) / _WHITE
        images_NHW = (enlarged_NHW - mean) / std
        here = {split: (images_NHW[place], labels_N[place]) for split, place in places.items()}
        self._resident = {torch.device("cpu"): here}
        parts = (x_N[place].byte().numpy().tobytes() for place in places.values() for x_N in (scans_NHW, labels_N))
        self.info = DataInfo(
            name="digits",
            num_classes=10,
            class_names=tuple("0123456789"),
            resolution=resolution,
            num_images={split: len(place) for split, place in places.items()},
            fingerprint=fingerprint_of(parts),
            splitting=splitting,
        )

    @staticmethod
    def check(recipe: Recipe) -> None:
        augmentation = recipe.augmentation
        for field, only in _RECIPE.augmentation.model_dump(exclude={"shift"}).items():
            if getattr(augmentation, field) != only:
                rule = f"must be {only} for digits, which can only be shifted"
                raise wrong(f"augmentation.{field}", rule, getattr(augmentation, field))
        if augmentation.shift > SMALLEST_SIDE:
            raise wrong("augmentation.shift", f"must be at most {SMALLEST_SIDE} for digits", augmentation.shift)

    def train_batches(self, recipe: Recipe, *, epoch: int, seed: int, device: torch.device) -> Iterator[Batch]:
        self.check(recipe)
        return self._train(recipe, mix_seed(seed, epoch), device)

    def eval_batches(self, split: Split, recipe: Recipe, *, device: torch.device) -> Iterator[Batch]:
        self.check(recipe)
        images_NHW, labels_N = self._on(device)[split]
        size = recipe.batch_size
        starts = range(0, len(labels_N), size)
        return (Batch(_three_channels(images_NHW[i : i + size]), labels_N[i : i + size]) for i in starts)

    def preprocessing(self, recipe: Recipe) -> Preprocessing:
        """Of a scan as a grey image in which the brightest ink, 16, is white."""
        del recipe
        return Preprocessing(
            resolution=self.info.resolution,
            crop_pct=1.0,
            interpolation="bilinear",
            mean=(self._mean,) * 3,
            std=(self._std,) * 3,
        )

    def _train(self, recipe: Recipe, seed: int, device: torch.device) -> Iterator[Batch]:
        images_NHW, labels_N = self._on(device)["train"]
        num_images, shift = len(labels_N), recipe.augmentation.shift
        generator = torch.Generator().manual_seed(seed)  # on the CPU, so that every device sees the same epoch
        order_N = torch.randperm(num_images, generator=generator).to(device)
        starts_2N = torch.randint(2 * shift + 1, (2, num_images), generator=generator).to(device)
        padded_NHW = F.pad(images_NHW, (shift,) * 4, value=self._background)
        side = torch.arange(self.info.resolution, device=device)
        size = train_batch_size(recipe, num_images)
        for start in range(0, self.num_steps(recipe) * size, size):
            picked_B = order_N[start : start + size]
            rows_BH, columns_BW = starts_2N[:, start : start + size, None] + side
            x_BHW = padded_NHW[picked_B[:, None, None], rows_BH[:, :, None], columns_BW[:, None, :]]
            yield Batch(_three_channels(x_BHW), labels_N[picked_B])

    def _on(self, device: torch.device) -> dict[Split, tuple[Tensor, Tensor]]:
        """The splits on a device, where they stay."""
        if device not in self._resident:
            here = self._resident[torch.device("cpu")]
            self._resident[device] = {split: (x.to(device), y.to(device)) for split, (x, y) in here.items()}
        return self._resident[device]


def _read_rows() -> NDArray[np.uint8]:
    """scikit-learn's file (N, 65): the pixels of a scan, 0 to 16, and its label.

    `load_digits` gives the same, and takes two seconds of every process for importing all of scikit-learn.

    Raises:
        DataError: scikit-learn is not installed.
    """
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        raise DataError("dataset: digits needs scikit-learn, which is not installed")
    path = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    return np.loadtxt(path, delimiter=",", dtype=np.uint8)


def _split_digits(labels_N: NDArray[np.int64], splitting: Splitting) -> dict[Split, NDArray[np.int64]]:
    """Where the images of each split are, class by class.

    Raises:
        DataError: Another part for val is asked for.
    """
    if splitting.val != DEFAULT_SPLITTING.val:
        rule = f"must be {DEFAULT_SPLITTING.val}, the default, for digits, of which a fifth is val in any case"
        raise wrong("splitting.val", rule, splitting.val)
    parts = []
    for label in range(10):
        found = np.flatnonzero(labels_N == label)
        fifth = round(0.2 * len(found))
        parts.append(np.split(found[shuffled_class(len(found), label)], [fifth, 2 * fifth]))
    val, test, train = (np.concatenate(of_split) for of_split in zip(*parts, strict=True))
    division = divide_again(labels_N[train], labels_N[val], splitting, tuple("0123456789"))
    both = np.concatenate([train, val])
    return {"train": both[division.train_N], "val": both[division.val_N], "test": test}


def _three_channels(x_BHW: Tensor) -> Tensor:
    return x_BHW[:, None].expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
