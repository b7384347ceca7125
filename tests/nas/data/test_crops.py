"""Crops, flips and resizing of whole batches: Pillow and timm are the oracles."""

import math
from typing import Literal

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as of_pillow
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import ks_2samp
from timm.data import create_transform
from timm.data.transforms import RandomResizedCropAndInterpolation
from torch import Tensor
from torchvision.transforms import InterpolationMode

from nas.data.generators import PrivateGenerators
from nas.data.in_batch import crops as module
from nas.data.in_batch.crops import Crops, centre, draw_crops, resize_crops, shift_crops, whole_images
from nas.data.in_batch.epoch_plan import EpochPlan, StoredImages
from tests.nas.conftest import PreparedFolder
from tests.nas.photographs import assert_same_distribution, our_images, photographs, recipe_of, timm_images
from tests.thorough import thorough

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
SIDES = [(40, 32), (32, 32), (24, 48), (100, 80)]  # stored, seen; above 64 each image is resized by itself


def noise(num: int, side: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (num, side, side, 3), dtype=np.uint8)


def drawn(
    num: int,
    side: int,
    *,
    scale: tuple[float, float] = (0.08, 1),
    interpolation: Literal["bicubic", "bilinear", "random"] = "bicubic",
) -> Crops:
    generator = np.random.default_rng(1)
    return draw_crops(num, side, scale=scale, flip=0.5, interpolation=interpolation, generator=generator)


def by_pillow(images_NSSC: NDArray[np.uint8], crops: Crops, size: int) -> Tensor:
    """What timm does to each image once its crop is drawn."""
    found = []
    for image_SSC, top, left, height, width, flip, linear in zip(
        images_NSSC, *(field.tolist() for field in crops), strict=True
    ):
        kernel = InterpolationMode.BILINEAR if linear else InterpolationMode.BICUBIC
        image = of_pillow.resized_crop(Image.fromarray(image_SSC), top, left, height, width, [size, size], kernel)
        found.append(np.asarray(of_pillow.hflip(image) if flip else image))
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).float()


@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.5, 0.7), (0.9, 1.0), (1.0, 1.0)])
@pytest.mark.parametrize("side", [32, 256])
def test_crops_are_drawn_as_timm_draws_them(scale: tuple[float, float], side: int) -> None:
    """Area, aspect ratio and place of 6,000 crops: two samples of one distribution (Kolmogorov and Smirnov)."""
    num = 6000
    image = Image.new("RGB", (side, side))
    with PrivateGenerators(3):
        draw = RandomResizedCropAndInterpolation.get_params
        theirs_N4 = np.array([draw(image, scale, (3 / 4, 4 / 3)) for _ in range(num)])
    crops = drawn(num, side, scale=scale)
    ours_N4 = np.stack([field.numpy() for field in crops[:4]], axis=1)
    for number in (
        lambda top, left, height, width: height * width,
        lambda top, left, height, width: width / height,
        lambda top, left, height, width: top,
        lambda top, left, height, width: left,
        lambda top, left, height, width: left + width,
    ):
        assert ks_2samp(number(*ours_N4.T), number(*theirs_N4.T)).pvalue > 0.01
    assert abs(crops.flip.float().mean().item() - 0.5) < 4 * 0.5 / math.sqrt(num)


def test_crops_lie_in_the_image_and_are_never_empty() -> None:
    for side, scale in ((8, (1e-4, 1e-3)), (9, (0.08, 1.0)), (224, (0.001, 1.0))):
        top, left, height, width, *_ = drawn(2000, side, scale=scale)
        assert min(top.min(), left.min()) >= 0
        assert min(height.min(), width.min()) >= 1
        assert max((top + height).max(), (left + width).max()) <= side


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "random"])
@pytest.mark.parametrize(("side", "size"), SIDES)
def test_a_crop_is_resized_and_flipped_as_pillow_does(
    side: int, size: int, interpolation: Literal["bicubic", "bilinear", "random"]
) -> None:
    """Within two grey levels; of noise, where cutting off at 0 and 255 shows which side came first, nearly all."""
    crops = drawn(64, side, interpolation=interpolation)
    for images, part in ((photographs(64, side, seed=0), 0.0), (noise(64, side), 0.005)):
        difference = (resize_crops(torch.from_numpy(images), crops, size) - by_pillow(images, crops, size)).abs()
        assert (difference > 2).float().mean() <= part
        assert difference.mean() < 0.1


@pytest.mark.parametrize(("side", "size"), SIDES)
def test_matrix_products_and_one_image_after_another_agree(
    side: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, crops = torch.from_numpy(noise(64, side)), drawn(64, side)
    found = []
    for largest in (0, 10_000):
        monkeypatch.setattr(module, "_LARGEST_MATRIX", largest)
        found.append((resize_crops(images, crops, size), centre(images, size, part=0.9)))
    for one, other in zip(*found, strict=True):
        assert one.shape == (64, 3, size, size)
        assert (one - other).abs().max() <= 2


@pytest.mark.parametrize("part", [1.0, 0.9, 0.875, 0.7])
@pytest.mark.parametrize(("side", "size"), [*SIDES, (37, 32), (256, 224)])
def test_evaluation_cuts_the_middle_out_as_timm_does(side: int, size: int, part: float) -> None:
    images = noise(6, side)
    transform = create_transform(size, interpolation="bicubic", crop_pct=part, mean=(0, 0, 0), std=(1, 1, 1))
    expected = torch.stack([transform(Image.fromarray(image_SSC)) * 255 for image_SSC in images])
    assert (centre(torch.from_numpy(images), size, part=part) - expected).abs().max() <= 2


def test_the_whole_image_at_its_own_size_stays_as_it_is() -> None:
    images = torch.from_numpy(noise(8, 32))
    assert torch.equal(resize_crops(images, whole_images(8, 32), 32), images.permute(0, 3, 1, 2).float())
    assert torch.equal(centre(images, 32, part=1), images.permute(0, 3, 1, 2))


def test_a_shift_moves_by_whole_pixels_and_leaves_black_behind() -> None:
    images = noise(30, 12)
    generator = torch.Generator().manual_seed(0)
    shifts_2B = torch.randint(0, 7, (2, 30), generator=generator)
    flip_B = torch.rand(30, generator=generator) < 0.5
    moved = shift_crops(torch.from_numpy(images), shifts_2B, flip_B, margin=3).numpy()
    for image_SSC, found_CHW, down, right, flip in zip(
        images, moved, *shifts_2B.tolist(), flip_B.tolist(), strict=True
    ):
        padded = np.pad(image_SSC, ((3, 3), (3, 3), (0, 0)))
        expected = padded[down : down + 12, right : right + 12]
        assert (found_CHW.transpose(1, 2, 0) == (expected[:, ::-1] if flip else expected)).all()


@pytest.mark.slow
@pytest.mark.parametrize("scale", [(0.08, 1.0), *thorough([(0.6, 1.0)])])
def test_a_prepared_set_is_cropped_and_flipped_to_the_distribution_of_timm(
    prepared_folder: PreparedFolder, scale: tuple[float, float]
) -> None:
    recipe = recipe_of(crop_scale=scale, flip=0.5)
    ours = our_images(prepared_folder.prepared, recipe, num_epochs=60)
    assert len(ours) == 60 * 72
    assert_same_distribution(ours, timm_images(*prepared_folder, recipe, num_epochs=60))


@pytest.mark.gpu
@GPU
@pytest.mark.parametrize(("side", "size"), SIDES)
def test_a_gpu_gets_the_same_crops_to_rounding(side: int, size: int) -> None:
    images, crops = torch.from_numpy(photographs(64, side, seed=0)), drawn(64, side)
    there = torch.device("cuda")
    pairs = (
        (resize_crops(images, crops, size), resize_crops(images.to(there), crops.to(there), size)),
        (centre(images, size, part=0.9), centre(images.to(there), size, part=0.9)),
    )
    for here, other in pairs:
        assert (here - other.cpu()).abs().max() <= 2


@pytest.mark.parametrize("side", [72, 80])
def test_images_changed_one_by_one_are_those_changed_together(side: int) -> None:
    augmentation = recipe_of(crop_scale=(1, 1), shift=5, flip=0.5).augmentation
    plan = EpochPlan(augmentation, StoredImages(8, side, 72, (0.5, 0.5, 0.5)), np.random.default_rng(0))
    images_BSSC = torch.randint(0, 256, (8, side, side, 3), dtype=torch.uint8)
    together = plan.augment(images_BSSC, slice(0, 8)).permute(0, 2, 3, 1)
    assert torch.equal(torch.stack(list(plan.one_by_one(images_BSSC, slice(0, 8)))), together)
