"""RandAugment of whole batches: each operation beside Pillow's, and what timm's transforms make of the same images."""

from collections import Counter

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import ks_2samp
from timm.data import auto_augment
from timm.data.auto_augment import rand_augment_transform
from torch import Tensor
from torchvision.transforms import Compose

from nas.data.augment import mend
from nas.data.generators import PrivateGenerators
from nas.data.in_batch.rand_augment import _KINDS, _OPERATIONS, BatchRandAugment, Draws, is_batched
from tests.nas.conftest import PreparedFolder
from tests.nas.photographs import assert_same_distribution, our_images, photographs, recipe_of, timm_images

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
SIDE = 32
FILL = (124.0, 116.0, 104.0)
LEVELS = (0.0, 1.3, 2.5, 5.0, 7.7, 9.0, 10.0)
DEFAULT = "rand-m9-mstd0.5-inc1"


def noise(low: int, high: int) -> NDArray[np.uint8]:
    return np.random.default_rng(low).integers(low, high, (8, SIDE, SIDE, 3), dtype=np.uint8)


PICTURES = {
    "photographs": photographs(8, SIDE, seed=0),
    "noise": noise(0, 256),
    "little contrast": noise(100, 131),
    "one colour": np.broadcast_to(noise(0, 256)[:, :1, :1], (8, SIDE, SIDE, 3)).copy(),
    "black and white": noise(0, 2) * np.uint8(255),
}


def ours(name: str, level: float, sign: float, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """One operation on every image, NHWC."""
    kind, argue = _OPERATIONS[name]
    num = len(images)
    arguments = np.zeros((num, 1, 6), np.float32)
    if argue is not None:
        given = argue(np.full(num, level), np.full(num, sign), SIDE)
        arguments[:, 0, : given.shape[1]] = given
    augment = BatchRandAugment("rand-n1", fill=FILL, size=SIDE)
    x_BCHW = torch.from_numpy(images).permute(0, 3, 1, 2).float().contiguous()
    changed = augment(x_BCHW, Draws(np.full((num, 1), _KINDS.index(kind)), arguments))
    return changed.permute(0, 2, 3, 1).numpy()


def by_pillow(
    name: str, level: float, sign: float, images: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> NDArray[np.float32]:
    """timm's operation of that name, whose coin always falls on one side."""
    monkeypatch.setattr(auto_augment, "_randomly_negate", lambda value: sign * value)
    options = {"img_mean": tuple(map(int, FILL)), "interpolation": Image.Resampling.BICUBIC}
    operation = auto_augment.AugmentOp(name, 1.0, level, options)
    mend(Compose([auto_augment.RandAugment([operation])]))
    return np.stack([np.asarray(operation(Image.fromarray(image_SSC)), np.float32) for image_SSC in images])


def differences(name: str, picture: str, monkeypatch: pytest.MonkeyPatch) -> tuple[float, float]:
    """The largest, and the largest mean of a level and a sign."""
    images = PICTURES[picture]
    found = [
        np.abs(ours(name, level, sign, images) - by_pillow(name, level, sign, images, monkeypatch))
        for level in LEVELS
        for sign in (-1.0, 1.0)
    ]
    return max(float(one.max()) for one in found), max(float(one.mean()) for one in found)


@pytest.mark.parametrize("name", [name for name, (kind, _) in _OPERATIONS.items() if kind != "affine"])
def test_an_operation_is_pillows_and_autocontrast_to_within_a_grey_level(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for picture in PICTURES:
        largest, mean = differences(name, picture, monkeypatch)
        assert largest <= (1 if name == "AutoContrast" else 0), picture
        assert mean < 0.01, picture


# torch's cubic kernel is another one: grey levels, the largest and the largest mean of a level
AFFINE = {
    "photographs": (10, 1.0),
    "noise": (36, 4.0),
    "little contrast": (5, 0.8),
    "one colour": (0, 0.0),
    "black and white": (36, 4.0),
}


@pytest.mark.parametrize("name", [name for name, (kind, _) in _OPERATIONS.items() if kind == "affine"])
def test_turning_shearing_and_moving_are_pillows_to_within_a_stated_bound(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for picture, (largest, mean) in AFFINE.items():
        found = differences(name, picture, monkeypatch)
        assert found[0] <= largest, picture
        assert found[1] <= mean, picture


def test_turning_shearing_and_moving_make_photographs_neither_lighter_nor_darker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Pillow drops what is behind the point; to round would make every moved image half a level lighter."""
    images = PICTURES["photographs"]
    for name in ("Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel"):
        there = by_pillow(name, 7.7, 1.0, images, monkeypatch)
        assert abs((ours(name, 7.7, 1.0, images) - there).mean()) < 0.1, name


def test_every_operation_of_the_notations_that_are_done_in_the_batch_is_known() -> None:
    for notation in ("rand", "rand-inc1", "rand-tweights", "rand-tweights-inc1"):
        assert is_batched(notation)
        assert {operation.name for operation in rand_augment_transform(notation, {}).ops} <= set(_OPERATIONS)
    for notation in ("rand-t3a", "rand-m9-t3aw", "augmix-m5", "v0", "original-mstd0.5", "3a"):
        assert not is_batched(notation)


def counted(notation: str, num: int) -> tuple[Counter[str], Counter[str], list[int], list[int]]:
    """How often ours and timm draw each kind of operation, and how many operations an image gets."""
    draws = BatchRandAugment(notation, fill=FILL, size=SIDE).draw(num, np.random.default_rng(0))
    here = Counter(_KINDS[kind] for kind in draws.kinds_NL.ravel().tolist() if kind >= 0)
    augment = rand_augment_transform(notation, {"img_mean": (0, 0, 0)})
    there, seen = Counter[str](), []
    with PrivateGenerators(0):
        for _ in range(num):
            chosen = np.random.choice(
                augment.ops, augment.num_layers, replace=augment.choice_weights is None, p=augment.choice_weights
            )
            applied = [op.name for op in chosen if np.random.random() <= op.prob]
            there.update(_OPERATIONS[name][0] for name in applied)
            seen.append(len(applied))
    return here, there, (draws.kinds_NL >= 0).sum(1).tolist(), seen


@pytest.mark.parametrize("notation", [DEFAULT, "rand-m5-n3-p0.3", "rand-m9-n4-tweights", "rand-m9-p1-n1-inc1"])
def test_operations_are_chosen_as_often_as_timm_chooses_them(notation: str) -> None:
    num = 8000
    here, there, ours_N, theirs_N = counted(notation, num)
    for kind in _KINDS:
        assert abs(here[kind] - there[kind]) <= 5 * np.sqrt(here[kind] + there[kind]) + 1, kind
    assert abs(np.mean(ours_N) - np.mean(theirs_N)) < 5 * np.sqrt((np.var(ours_N) + np.var(theirs_N)) / num) + 1e-9
    assert ks_2samp(ours_N, theirs_N).pvalue > 0.01


def test_with_weights_no_image_gets_an_operation_twice() -> None:
    augment = BatchRandAugment("rand-m9-n15-p1-tweights", fill=FILL, size=SIDE)
    chosen_NL = augment._choose(500, np.random.default_rng(0))
    assert all(len(set(chosen_L)) == len(chosen_L) == 15 for chosen_L in chosen_NL.tolist())


@pytest.mark.parametrize(
    "notation", ["rand-m9-mstd0.5-inc1", "rand-m5-mstd3", "rand-m10-mstd1000", "rand-m20-mstd8-mmax30-inc1"]
)
def test_magnitudes_vary_as_timms_do(notation: str) -> None:
    """Brightness tells its level: its arguments are two samples of one distribution."""
    num = 20_000
    name = "BrightnessIncreasing" if "inc1" in notation else "Brightness"
    draws = BatchRandAugment(notation, fill=FILL, size=SIDE).draw(num, np.random.default_rng(0))
    factors = draws.arguments_NL6[draws.kinds_NL == _KINDS.index("brightness")][:, 0]
    [operation] = [op for op in rand_augment_transform(notation, {"img_mean": (0, 0, 0)}).ops if op.name == name]
    levels: list[float] = []
    operation.prob, operation.aug_fn = 1, lambda image, factor, **_: levels.append(factor)
    with PrivateGenerators(0):
        for _ in range(len(factors)):
            operation(Image.new("L", (1, 1)))
    assert ks_2samp(factors, np.array(levels, np.float32)).pvalue > 0.01


def test_an_image_without_an_operation_stays_as_it_is() -> None:
    images = torch.from_numpy(PICTURES["noise"]).permute(0, 3, 1, 2).float().contiguous()
    augment = BatchRandAugment(DEFAULT, fill=FILL, size=SIDE)
    nothing = Draws(np.full((8, 2), -1), np.zeros((8, 2, 6), np.float32))
    assert torch.equal(augment(images.clone(), nothing), images)


def test_what_happens_to_an_image_does_not_depend_on_its_neighbours() -> None:
    images = torch.from_numpy(photographs(40, SIDE, seed=3)).permute(0, 3, 1, 2).float().contiguous()
    augment = BatchRandAugment("rand-m9-n3-p1-mstd0.5", fill=FILL, size=SIDE)
    draws = augment.draw(40, np.random.default_rng(0))
    together = augment(images.clone(), draws)
    alone = [augment(images[place : place + 1].clone(), draws.of(slice(place, place + 1))) for place in range(40)]
    assert (together - torch.cat(alone)).abs().max() <= 1  # vector instructions round the last bit otherwise


@pytest.mark.slow
@pytest.mark.parametrize(
    ("notation", "num_epochs"),
    [
        (DEFAULT, 50),
        ("rand-m5-n4-p1-mstd2", 20),
        ("rand-m9-n2-tweights-inc1", 20),
    ],
)
def test_a_prepared_set_is_augmented_to_the_distribution_of_timm(
    notation: str, num_epochs: int, prepared_folder: PreparedFolder
) -> None:
    """The whole way from the same JPEGs: random resized crop, flip and RandAugment."""
    recipe = recipe_of(crop_scale=(0.08, 1), flip=0.5, rand_augment=notation)
    ours = our_images(prepared_folder.prepared, recipe, num_epochs=num_epochs)
    assert_same_distribution(ours, timm_images(*prepared_folder, recipe, num_epochs=num_epochs))


@pytest.mark.gpu
@GPU
def test_a_gpu_gets_the_same_augmented_images_to_rounding() -> None:
    """A rounding may turn one grey level, which equalizing, posterizing or solarizing then turns into more."""
    images = torch.from_numpy(photographs(400, SIDE, seed=3)).permute(0, 3, 1, 2).float().contiguous()
    augment = BatchRandAugment(DEFAULT, fill=FILL, size=SIDE)
    draws = augment.draw(400, np.random.default_rng(0))
    here, there = augment(images.clone(), draws), augment(images.cuda(), draws).cpu()
    assert _part_apart(here, there) < 0.002


def _part_apart(here: Tensor, there: Tensor) -> float:
    """Of the values, those that are more than a grey level apart."""
    return ((here - there).abs() > 1).float().mean().item()
