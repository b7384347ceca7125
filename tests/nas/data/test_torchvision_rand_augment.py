"""torchvision's RandAugment in whole batches and image by image: torchvision itself, on Pillow's images, is the oracle.

N images, L operations an image, C channels, S side of an image.
"""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import chisquare
from timm.data import create_transform
from torch import Tensor, nn
from torchvision import transforms as v1
from torchvision.transforms import v2

from nas.data import open_dataset
from nas.data.augment import read_torchvision
from nas.data.generators import PrivateGenerators
from nas.data.in_batch.rand_augment import (
    _KINDS,
    BatchTorchvisionRandAugment,
    Draws,
    _torchvision_operations,
)
from nas.data.sources.folder import FolderSource
from tests.nas.conftest import PreparedFolder
from tests.nas.photographs import CPU, assert_same_distribution, our_images, photographs, recipe_of, timm_images
from tests.thorough import thorough

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
SPACE = (
    v2.RandAugment._AUGMENTATION_SPACE
)  # name: the 31 magnitudes for a height and a width, and whether they have a sign
GEOMETRIC = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
SIGNS = (1.0, -1.0)  # in the order of `_torchvision_operations`


def pictures(size: int) -> NDArray[np.uint8]:
    """Photographs, noise, little contrast, black and white, every grey level, and one colour."""
    noise = np.random.default_rng(size)
    shape = (2, size, size, 3)
    return np.concatenate(
        [
            photographs(3, size, seed=size),
            noise.integers(0, 256, shape, dtype=np.uint8),
            noise.integers(100, 131, shape, dtype=np.uint8),
            noise.integers(0, 2, shape, dtype=np.uint8) * np.uint8(255),
            np.resize(np.arange(256, dtype=np.uint8), (1, size, size, 3)),
            np.full((1, size, size, 3), (7, 90, 201), np.uint8),
        ]
    )


def ours(name: str, magnitude: int, sign: float, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """One operation on every image, NSSC."""
    num, size = len(images), images.shape[1]
    augment = BatchTorchvisionRandAugment(magnitude, 1, size=size)
    chosen, place = list(SPACE).index(name), SIGNS.index(sign)
    kinds_N1 = np.full((num, 1), augment._kinds_K[chosen])
    arguments_N16 = np.tile(augment._arguments_K26[chosen, place], (num, 1, 1))
    x_NCSS = torch.from_numpy(images).permute(0, 3, 1, 2).float().contiguous()
    return augment(x_NCSS, Draws(kinds_N1, arguments_N16)).permute(0, 2, 3, 1).numpy()


def by_torchvision(name: str, magnitude: int, sign: float, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The same by torchvision's own step from a name and a magnitude to the changed image."""
    magnitudes, signed = SPACE[name]
    values = magnitudes(31, *images.shape[1:3])
    value = 0.0 if values is None else float(values[magnitude]) * (sign if signed else 1)
    augment = v2.RandAugment()
    changed = [
        augment._apply_image_or_video_transform(
            Image.fromarray(image_SSC), name, value, interpolation=augment.interpolation, fill=augment._fill
        )
        for image_SSC in images
    ]
    return np.stack([np.asarray(image, np.float32) for image in changed])


def apart(name: str, magnitude: int, size: int) -> NDArray[np.float32]:
    """Grey levels between ours and torchvision's, with either sign."""
    images = pictures(size)
    both = [
        np.abs(ours(name, magnitude, sign, images) - by_torchvision(name, magnitude, sign, images)) for sign in SIGNS
    ]
    return np.stack(both)


def test_the_operations_are_torchvisions() -> None:
    assert list(_torchvision_operations(12, 32)) == list(SPACE)


@pytest.mark.parametrize("name", GEOMETRIC)
@pytest.mark.parametrize("size", [8, 31, 32, *thorough([224, 331])])
def test_sheared_moved_and_turned_images_are_torchvisions_to_the_last_pixel(name: str, size: int) -> None:
    """At 331 pixels each move is a whole number, which a rounding could make one less."""
    for magnitude in range(31) if size <= 32 else (1, 12, 29, 30):
        assert not apart(name, magnitude, size).any(), magnitude


@pytest.mark.parametrize("name", [name for name in SPACE if name not in {*GEOMETRIC, "AutoContrast"}])
def test_the_other_operations_are_torchvisions_to_the_last_pixel(name: str) -> None:
    for magnitude in range(31):
        assert not apart(name, magnitude, 32).any(), magnitude


def test_autocontrast_is_torchvisions_to_within_a_grey_level() -> None:
    found = apart("AutoContrast", 12, 32)
    assert found.max() <= 1
    assert found.mean() < 0.01


def test_both_signs_differ_where_torchvision_draws_one() -> None:
    images = pictures(32)
    for name, (_, signed) in SPACE.items():
        differ = not np.array_equal(ours(name, 12, 1.0, images), ours(name, 12, -1.0, images))
        assert differ == signed, name


def test_operations_and_signs_are_drawn_evenly_and_every_image_gets_as_many() -> None:
    num = 20_000
    augment = BatchTorchvisionRandAugment(12, 3, size=32)
    draws = augment.draw(num, np.random.default_rng(0))
    assert draws.kinds_NL.shape == (num, 3)
    operations = _torchvision_operations(12, 32)
    expected: Counter[tuple[int, tuple[float, ...]]] = Counter()  # of 28, an operation with a sign each
    for kind, arguments in operations.values():
        for given in arguments:
            place = -1 if kind is None else _KINDS.index(kind)
            expected[place, tuple(np.pad(given, (0, 6 - len(given))).astype(np.float32).tolist())] += 1
    for layer in range(3):
        rows = zip(draws.kinds_NL[:, layer].tolist(), draws.arguments_NL6[:, layer].tolist(), strict=True)
        found = Counter((kind, tuple(given)) for kind, given in rows)
        assert set(found) == set(expected)
        shares = [expected[row] * num / 28 for row in expected]
        assert chisquare([found[row] for row in expected], shares).pvalue > 0.001, layer
    pairs = Counter(map(tuple, draws.kinds_NL[:, :2].tolist()))
    assert sum(pairs[kind, kind] for kind in range(-1, len(_KINDS))) > num / 14  # an operation may come twice


def test_no_operation_and_identity_leave_an_image_as_it_is() -> None:
    images = pictures(32)
    x_NCSS = torch.from_numpy(images).permute(0, 3, 1, 2).float().contiguous()
    augment = BatchTorchvisionRandAugment(12, 0, size=32)
    assert torch.equal(augment(x_NCSS, augment.draw(len(images), np.random.default_rng(0))), x_NCSS)


def test_a_seed_decides_the_draws_and_neighbours_change_no_image() -> None:
    x_NCSS = torch.from_numpy(photographs(40, 32, seed=3)).permute(0, 3, 1, 2).float().contiguous()
    augment = BatchTorchvisionRandAugment(12, 3, size=32)
    one, same, other = (augment.draw(40, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert all(np.array_equal(here, there) for here, there in zip(one, same, strict=True))
    assert not np.array_equal(one.kinds_NL, other.kinds_NL)
    together = augment(x_NCSS, one)
    alone = [augment(x_NCSS[place : place + 1], one.of(slice(place, place + 1))) for place in range(40)]
    assert (together - torch.cat(alone)).abs().max() <= 1  # vector instructions round the last bit otherwise


@pytest.mark.slow
@pytest.mark.parametrize(
    ("notation", "make", "num_epochs"),
    [
        ("torchvision-m12-n2", v1.RandAugment, 50),  # what the source of the recipe for CIFAR-10 calls
        ("torchvision-m30-n1", v2.RandAugment, 30),
        ("torchvision-m5-n4", v2.RandAugment, 30),
    ],
)
def test_a_prepared_set_is_augmented_to_the_distribution_of_torchvision(
    notation: str, make: Callable[[int, int], nn.Module], num_epochs: int, prepared_folder: PreparedFolder
) -> None:
    """The whole way from the same JPEGs: random resized crop, flip and RandAugment."""
    recipe = recipe_of(crop_scale=(0.08, 1), flip=0.5, rand_augment=notation)
    figures = read_torchvision(notation)
    assert figures is not None
    augment = make(figures.num_operations, figures.magnitude)
    theirs = timm_images(*prepared_folder, recipe, num_epochs=num_epochs, augment=augment)
    assert_same_distribution(our_images(prepared_folder.prepared, recipe, num_epochs=num_epochs), theirs)


def streamed(folder: Path, notation: str | None, *, epoch: int = 0, num_workers: int = 0, jitter: float = 0) -> Tensor:
    """One epoch of the folder's images, in the order of the loader."""
    recipe = recipe_of(crop_scale=(0.5, 1), flip=0.5, rand_augment=notation, color_jitter=jitter)
    dataset = open_dataset(f"folder:{folder}", resolution=32, num_workers=num_workers)
    return torch.cat([batch.x_BCHW for batch in dataset.train_batches(recipe, epoch=epoch, seed=3, device=CPU)])


def ordered(x_NCHW: Tensor) -> list[bytes]:
    return sorted(x_CHW.contiguous().numpy().tobytes() for x_CHW in x_NCHW)


def test_streamed_images_are_those_of_torchvision_by_the_generator_of_each(prepared_folder: PreparedFolder) -> None:
    """Crop and flip are timm's, then torchvision's RandAugment as published, on the same random states."""
    source = FolderSource(str(prepared_folder.folder))
    mean, std = source.mean_and_std
    transform = create_transform(
        *(32, True), mean=mean, std=std, scale=(0.5, 1), hflip=0.5, color_jitter=None, interpolation="bicubic"
    )
    transform.transforms.insert(2, v2.RandAugment(num_ops=2, magnitude=12))
    expected = []
    for place in range(len(source.labels["train"])):
        with PrivateGenerators(3, 0, 1 + place):
            expected.append(transform(source.read("train", place)))
    assert ordered(streamed(prepared_folder.folder, "torchvision-m12-n2")) == ordered(torch.stack(expected))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_streamed_images_depend_on_seed_and_epoch_alone(prepared_folder: PreparedFolder) -> None:
    folder, notation = prepared_folder.folder, "torchvision-m12-n2"
    one = streamed(folder, notation)
    torch.rand(3)  # the global generator is at another place
    assert torch.equal(streamed(folder, notation, num_workers=2), one)
    assert ordered(streamed(folder, notation, epoch=1)) != ordered(one)
    assert ordered(streamed(folder, None)) != ordered(one)
    assert torch.equal(streamed(folder, notation, jitter=0.4), one)  # jitter has no effect beside it, as in timm


@pytest.mark.gpu
@GPU
def test_a_gpu_gets_the_same_augmented_images_to_rounding() -> None:
    """A rounding may turn one grey level, which equalizing, posterizing or solarizing then turns into more."""
    x_NCSS = torch.from_numpy(photographs(400, 32, seed=3)).permute(0, 3, 1, 2).float().contiguous()
    augment = BatchTorchvisionRandAugment(12, 2, size=32)
    draws = augment.draw(400, np.random.default_rng(0))
    here, there = augment(x_NCSS, draws), augment(x_NCSS.cuda(), draws).cpu()
    assert ((here - there).abs() > 1).float().mean() < 0.002
