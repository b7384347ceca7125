"""Random erasing of whole batches: timm's RandomErasing is the oracle."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import ks_2samp, kstest
from timm.data.random_erasing import RandomErasing

from nas.data.generators import PrivateGenerators
from nas.data.in_batch.erasing import BatchErasing
from tests.nas.conftest import PreparedFolder
from tests.nas.photographs import assert_same_distribution, our_images, recipe_of, timm_images
from tests.thorough import thorough

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def boxes_of_timm(num: int, size: int, probability: float) -> NDArray[np.int64]:
    """Top, left, height and width of what timm erases, all 0 for nothing."""
    erase = RandomErasing(probability, mode="pixel", device="cpu")
    found = np.zeros((num, 4), np.int64)
    with PrivateGenerators(2):
        for place in range(num):
            erased_HW = erase(torch.full((1, size, size), 99.0))[0] != 99
            if erased_HW.any():
                (top, bottom), (left, right) = (erased_HW.any(side).nonzero().aminmax() for side in (1, 0))
                found[place] = top, left, bottom - top + 1, right - left + 1
    return found


@pytest.mark.parametrize(("size", "probability"), [(32, 0.25), (32, 1.0), (224, 1.0)])
def test_boxes_are_drawn_as_timm_draws_them(size: int, probability: float) -> None:
    num = 8000 if size == 32 else 1500
    theirs_N4 = boxes_of_timm(num, size, probability)
    ours_N4 = BatchErasing(probability, size=size).draw(num, np.random.default_rng(0)).boxes_N4
    erased = [(boxes_N4[:, 2] > 0) for boxes_N4 in (ours_N4, theirs_N4)]
    rates = [is_N.mean() for is_N in erased]
    assert abs(rates[0] - rates[1]) <= 4 * np.sqrt(2 * 0.25 / num)
    ours_M4, theirs_M4 = ours_N4[erased[0]], theirs_N4[erased[1]]
    for number in (
        lambda top, left, height, width: height * width,
        lambda top, left, height, width: height / width,
        lambda top, left, height, width: top,
        lambda top, left, height, width: left,
        lambda top, left, height, width: top + height,
    ):
        assert ks_2samp(number(*ours_M4.T), number(*theirs_M4.T)).pvalue > 0.01


def test_a_box_holds_normal_noise_and_the_rest_stays() -> None:
    num, size = 600, 32
    erase = BatchErasing(0.5, size=size)
    boxes = erase.draw(num, np.random.default_rng(0))
    before = torch.full((num, 3, size, size), 7.0)
    after = erase(before.clone(), boxes)
    found = []
    for x_CHW, (top, left, height, width) in zip(after, boxes.boxes_N4.tolist(), strict=True):
        inside_HW = torch.zeros(size, size, dtype=torch.bool)
        inside_HW[top : top + height, left : left + width] = True
        assert (x_CHW[:, ~inside_HW] == 7).all()
        assert (x_CHW[:, inside_HW] != 7).all()
        found.append(x_CHW[:, inside_HW].flatten())
    values = torch.cat(found).numpy()
    assert abs(values.mean()) < 0.01
    assert abs(values.std() - 1) < 0.01
    assert kstest(values[::53], "norm").pvalue > 0.01
    flat = [one[:64] for one in found if len(one) >= 64]
    assert len({one.numpy().tobytes() for one in flat}) == len(flat)  # no two images get the same noise


@pytest.mark.slow
@pytest.mark.parametrize("augmentation", [{}, *thorough([{"rand_augment": "rand-m9-mstd0.5-inc1"}])])
def test_a_prepared_set_is_erased_to_the_distribution_of_timm(
    augmentation: dict[str, object], prepared_folder: PreparedFolder
) -> None:
    """The whole way from the same JPEGs, erasing at the end."""
    recipe = recipe_of(crop_scale=(0.08, 1), flip=0.5, random_erasing=0.5, **augmentation)
    ours = our_images(prepared_folder.prepared, recipe, num_epochs=40)
    assert_same_distribution(ours, timm_images(*prepared_folder, recipe, num_epochs=40))


@pytest.mark.gpu
@GPU
def test_a_gpu_erases_the_same_pixels_by_the_same_noise() -> None:
    erase = BatchErasing(0.5, size=32)
    boxes = erase.draw(64, np.random.default_rng(0))
    x_BCHW = torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(erase(x_BCHW.clone(), boxes), erase(x_BCHW.cuda(), boxes).cpu())
