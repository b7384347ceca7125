"""Prepared sets: what decides a batch, and what becomes of folders that are damaged."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from nas.data import Batch, DataError, Dataset, Split, check_recipe, look, open_dataset
from nas.data.prepared import Buffers, Prepared, read_description
from nas.study.recipe import Augmentation, Recipe
from tests.nas.conftest import PreparedFolder
from tests.nas.photographs import CPU, prepare, recipe_of, write_photographs

SPLITS: tuple[Split, ...] = ("train", "val", "test")
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
RECIPES = {
    "default": Recipe(batch_size=24),
    "plain": recipe_of(eval_crop=1.0),
    "crop and flip": recipe_of(crop_scale=(0.3, 0.8), flip=0.5),
    "shift": recipe_of(shift=3, flip=0.5),
    "erasing": recipe_of(random_erasing=0.5),
    "image by image": recipe_of(rand_augment="augmix-m3-w2"),
    "mixed": recipe_of(mixup=0.8, cutmix=1.0),
}


@pytest.fixture(scope="module")
def dataset(prepared_folder: PreparedFolder) -> Dataset:
    return open_dataset(f"prepared:{prepared_folder.prepared}", resolution=32)


@pytest.fixture(params=RECIPES)
def recipe(request: pytest.FixtureRequest) -> Recipe:
    return RECIPES[request.param]


def epoch_of(dataset: Dataset, recipe: Recipe, *, epoch: int = 0, seed: int = 0) -> list[Batch]:
    return list(dataset.train_batches(recipe, epoch=epoch, seed=seed, device=CPU))


def joined(batches: Iterable[Batch]) -> Batch:
    xs, ys = zip(*batches, strict=True)
    return Batch(torch.cat(xs), torch.cat(ys))


def same(one: list[Batch], other: list[Batch]) -> bool:
    pairs = list(zip(one, other, strict=True))
    return all(torch.equal(a.x_BCHW, b.x_BCHW) and torch.equal(a.y, b.y) for a, b in pairs)


# What decides a batch


def test_a_batch_depends_on_seed_epoch_and_place_alone(dataset: Dataset, recipe: Recipe) -> None:
    first = epoch_of(dataset, recipe, epoch=2, seed=7)
    torch.manual_seed(99), np.random.seed(99)
    epoch_of(dataset, recipe, epoch=0, seed=7)
    fresh = open_dataset(dataset.info.name, resolution=32, num_workers=2)
    assert same(first, epoch_of(fresh, recipe, epoch=2, seed=7))
    others = [epoch_of(dataset, recipe, epoch=epoch, seed=seed) for epoch, seed in ((3, 7), (2, 8), (2, -7))]
    assert not any(same(first, other) for other in others)


@pytest.mark.slow
def test_another_process_sees_the_same_batches_and_loads_no_more_than_it_needs(dataset: Dataset) -> None:
    code = """if True:
        import hashlib, sys, torch
        from nas.data import open_dataset
        from nas.study.recipe import Recipe
        dataset = open_dataset(sys.argv[1], resolution=32)
        print(sorted({"ray", "optuna", "sklearn", "pandas"} & set(sys.modules)))
        for batch in dataset.train_batches(Recipe(batch_size=24), epoch=2, seed=5, device=torch.device("cpu")):
            print(hashlib.sha256(batch.x_BCHW.contiguous().numpy().tobytes() + batch.y.numpy().tobytes()).hexdigest())
    """
    command = [sys.executable, "-c", code, dataset.info.name]
    there = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    here = (
        batch.x_BCHW.contiguous().numpy().tobytes() + batch.y.numpy().tobytes()
        for batch in epoch_of(dataset, RECIPES["default"], epoch=2, seed=5)
    )
    assert there == ["[]", *(hashlib.sha256(one).hexdigest() for one in here)]


def test_global_generators_are_neither_needed_nor_touched(dataset: Dataset, recipe: Recipe) -> None:
    states = torch.get_rng_state(), np.random.get_state()[1].tobytes()
    batches = dataset.train_batches(recipe, epoch=0, seed=0, device=CPU)
    found = [next(batches)]
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tobytes() == states[1]
    torch.rand(1), np.random.rand()  # as a training step would
    assert same([*found, *batches], epoch_of(dataset, recipe))


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("eval_crop", [1.0, 0.9, 0.8])
def test_evaluation_sees_what_the_folder_shows_to_a_grey_level(
    prepared_folder: PreparedFolder, dataset: Dataset, split: Split, eval_crop: float
) -> None:
    """timm's transforms on the JPEGs, from which the folder is read, are the oracle."""
    recipe = recipe_of(10, eval_crop=eval_crop)
    folder = open_dataset(f"folder:{prepared_folder.folder}", resolution=32)
    description = read_description(prepared_folder.prepared)
    there, here = (joined(one.eval_batches(split, recipe, device=CPU)) for one in (folder, dataset))
    assert torch.equal(there.y, here.y)
    imagenet = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    pairs = (_levels(there.x_BCHW, *imagenet), _levels(here.x_BCHW, description.mean, description.std))
    difference = (pairs[0] - pairs[1]).abs()
    assert difference.max() < 1.5
    assert difference.mean() < 0.05


def _levels(x_BCHW: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    return 255 * (x_BCHW * torch.tensor(std)[:, None, None] + torch.tensor(mean)[:, None, None])


def test_training_images_are_normalised_by_their_own_mean_and_deviation(dataset: Dataset) -> None:
    x_BCHW = joined(dataset.eval_batches("train", recipe_of(eval_crop=0.8), device=CPU)).x_BCHW  # 32 of 40 pixels
    assert x_BCHW.mean((0, 2, 3)).abs().max() < 0.1
    assert (x_BCHW.std((0, 2, 3)) - 1).abs().max() < 0.1


def test_an_epoch_holds_every_image_once(dataset: Dataset) -> None:
    recipe = recipe_of(24, eval_crop=1.0)
    found = joined(epoch_of(dataset, recipe))
    originals = joined(dataset.eval_batches("train", recipe, device=CPU))
    assert _hashes(found.x_BCHW) == _hashes(originals.x_BCHW)
    assert len(set(_hashes(found.x_BCHW))) == len(found.y) == 72
    mirrored = joined(epoch_of(dataset, recipe_of(24, flip=1)))
    assert _hashes(mirrored.x_BCHW.flip(3)) == _hashes(originals.x_BCHW)


def _hashes(x_BCHW: Tensor) -> list[bytes]:
    return sorted(x_CHW.contiguous().numpy().tobytes() for x_CHW in x_BCHW)


@pytest.mark.parametrize("stored", [40, 32])
def test_a_shift_moves_each_image_by_at_most_so_many_pixels(
    prepared_folder: PreparedFolder, dataset: Dataset, tmp_path: Path, stored: int
) -> None:
    if stored != 40:
        name = f"prepared:{prepare(prepared_folder.folder, tmp_path / 'out', resolution=32, side=stored)}"
        dataset = open_dataset(name, resolution=32)
    shifted = joined(epoch_of(dataset, recipe_of(72, shift=2))).x_BCHW
    originals = joined(dataset.eval_batches("train", recipe_of(eval_crop=1.0), device=CPU)).x_BCHW
    middles = {x_CHW.contiguous().numpy().tobytes() for x_CHW in originals[:, :, 4:-4, 4:-4]}
    moves = []
    for x_CHW in shifted:
        views = {(y, x): x_CHW[:, 4 + y : 28 + y, 4 + x : 28 + x] for y in range(-2, 3) for x in range(-2, 3)}
        [move] = [move for move, view in views.items() if view.contiguous().numpy().tobytes() in middles]
        moves.append(move)
    assert len(set(moves)) > 15  # of 25


@pytest.mark.parametrize("mixing", [{"mixup": 0.8}, {"cutmix": 1.0}, {"mixup": 0.8, "cutmix": 1.0}])
def test_mixed_targets_say_what_is_in_the_image(dataset: Dataset, mixing: dict[str, float]) -> None:
    """Smoothed and summing to one; undone, the smoothing leaves the weights with which an image and its partner are
    added, or the parts of the area.
    """
    recipe = recipe_of(24, **mixing)
    plain, mixed = (epoch_of(dataset, one) for one in (recipe_of(24), recipe))
    assert [batch.y.dtype for batch in plain] == [torch.int64] * 3
    for before, after in zip(plain, mixed, strict=True):
        torch.testing.assert_close(after.y.sum(1), torch.ones(24))
        smoothing = recipe.label_smoothing
        weights_BK = (after.y - smoothing / 2) / (1 - smoothing)
        hot_BK = torch.nn.functional.one_hot(before.y, 2).float()
        differs_B = before.y != before.y.flip(0)
        part = (weights_BK * hot_BK).sum(1)[differs_B].mean()
        if "cutmix" in mixing and len(mixing) == 1:
            kept = (after.x_BCHW == before.x_BCHW).all(1).float().mean((1, 2))
            torch.testing.assert_close(kept.mean(), part, atol=0.02, rtol=0)
        elif len(mixing) == 1:
            expected = part * before.x_BCHW + (1 - part) * before.x_BCHW.flip(0)
            torch.testing.assert_close(after.x_BCHW, expected, atol=1e-4, rtol=1e-4)


def test_augmentations_that_timm_alone_knows_are_done_image_by_image(dataset: Dataset) -> None:
    plain = joined(epoch_of(dataset, recipe_of(24)))
    for notation in ("augmix-m3-w2", "v0-mstd0.5", "original", "3a", "rand-m9-t3a"):
        recipe = recipe_of(24, rand_augment=notation)
        found = joined(epoch_of(dataset, recipe))
        assert torch.equal(found.y, plain.y)
        changed = (found.x_BCHW != plain.x_BCHW).flatten(1).any(1)
        assert changed.float().mean() > 0.5
        larger = joined(epoch_of(dataset, recipe.model_copy(update={"batch_size": 36})))
        assert torch.equal(larger.x_BCHW, found.x_BCHW)  # the size of the batch changes no image


def test_the_size_of_a_batch_changes_no_image(dataset: Dataset) -> None:
    fields = {"crop_scale": (0.08, 1), "flip": 0.5, "rand_augment": "rand-m9-mstd0.5-inc1", "random_erasing": 0.5}
    one, other = (joined(epoch_of(dataset, recipe_of(size, **fields))) for size in (24, 36))
    assert ((one.x_BCHW - other.x_BCHW).abs() > 0.02).float().mean() < 1e-3  # a level may round otherwise


def test_an_epoch_that_is_drawn_ahead_is_the_same(prepared_folder: PreparedFolder, dataset: Dataset) -> None:
    """As it is where a GPU trains; asked for another one, what was drawn is thrown away."""
    recipe = recipe_of(rand_augment="rand-m9-mstd0.5-inc1", random_erasing=0.5, flip=0.5)
    recipe = recipe.model_copy(update={"epochs": 3})
    busy = Prepared(str(prepared_folder.prepared), resolution=32, num_workers=0, bad_images="stop")
    num_steps = busy.num_steps(recipe)
    for epoch in (0, 1, 0, 2):
        drawn = busy._plan(recipe, 0, epoch, ahead=True)
        assert list(busy._drawn_ahead) == ([(recipe, 0, epoch + 1)] if epoch < 2 else [])
        batches = list(busy._in_blocks(drawn, recipe.batch_size, num_steps, CPU))
        assert same(batches, epoch_of(dataset, recipe, epoch=epoch))


def test_the_info_is_that_of_the_folder(prepared_folder: PreparedFolder, dataset: Dataset) -> None:
    folder = open_dataset(f"folder:{prepared_folder.folder}", resolution=32).info
    assert dataset.info.class_names == folder.class_names
    assert dataset.info.num_images == folder.num_images
    assert dataset.info.fingerprint != folder.fingerprint  # it covers the pixels
    assert look(dataset.info.name) == (32, "prepared for 32 pixels")
    assert dataset.left_out() == []


@pytest.mark.gpu
@GPU
def test_a_gpu_gets_the_same_batches_to_rounding(
    dataset: Dataset, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the images stay on the GPU, and where they are sent to it batch by batch."""
    there = torch.device("cuda")
    here = epoch_of(dataset, recipe, epoch=1)
    resident = list(dataset.train_batches(recipe, epoch=1, seed=0, device=there))
    monkeypatch.setattr("nas.data.prepared._SHARE", 0)
    sent = list(open_dataset(dataset.info.name, resolution=32).train_batches(recipe, epoch=1, seed=0, device=there))
    assert same(resident, sent)
    for one, other in zip(here, resident, strict=True):
        assert other.x_BCHW.is_cuda
        torch.testing.assert_close(one.y, other.y.cpu())
        # A rounding may turn one grey level, which equalizing or posterizing then turns into more.
        assert ((one.x_BCHW - other.x_BCHW.cpu()).abs() > 0.05).float().mean() < 0.005
    for one, other in zip(*(dataset.eval_batches("test", recipe, device=on) for on in (CPU, there)), strict=True):
        assert ((one.x_BCHW - other.x_BCHW.cpu()).abs() > 0.05).float().mean() < 1e-3


# What is refused


@pytest.mark.parametrize(
    ("augmentation", "message"),
    [
        ({"crop_scale": (0.0, 1.0)}, r"^augmentation.crop_scale: must rise and be above 0, got \(0.0, 1.0\)$"),
        ({"crop_scale": (0.9, 0.1)}, r"^augmentation.crop_scale: must rise and be above 0"),
        ({"shift": 2, "crop_scale": (0.5, 1)}, r"^augmentation.shift: must be 0 where images are cropped"),
        ({"rand_augment": "nothing"}, r"^augmentation.rand_augment: must be in timm's notation"),
    ],
)
def test_a_recipe_that_cannot_be_followed_is_refused(augmentation: dict[str, object], message: str) -> None:
    fields = {"shift": 0, "crop_scale": (1, 1), **augmentation}
    with pytest.raises(DataError, match=message):
        check_recipe("prepared:anywhere", Recipe(augmentation=Augmentation.model_validate(fields)))


def test_an_odd_batch_cannot_be_mixed_and_a_shift_is_not_wider_than_the_image(dataset: Dataset) -> None:
    with pytest.raises(DataError, match="^batch_size: must be even for mixup and cutmix, got 7$"):
        epoch_of(dataset, Recipe(batch_size=7))
    with pytest.raises(DataError, match="^augmentation.shift: must be at most the resolution, 32 pixels, got 33$"):
        epoch_of(dataset, recipe_of(shift=33))


def _change(name: str, **fields: object) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        noted = json.loads((root / name).read_text(encoding="utf-8"))
        (root / name).write_text(json.dumps({**noted, **fields}), encoding="utf-8")

    return change


def _cut(name: str, part: float) -> Callable[[Path], None]:
    def cut(root: Path) -> None:
        data = (root / name).read_bytes()
        (root / name).write_bytes(data[: int(part * len(data))])

    return cut


def _save(name: str, array: np.ndarray) -> Callable[[Path], None]:
    return lambda root: np.save(root / name, array)


WHOLE = r"must be whole \(it was cut short or changed\); prepare it again, got '.*"
DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "half the images": (_cut("train_images.npy", 0.5), WHOLE + "train_images.npy'"),
    "a byte short": (_cut("test_images.npy", 0.99999), WHOLE + "test_images.npy'"),
    "no images": (_cut("train_images.npy", 0), WHOLE + "train_images.npy'"),
    "a header and a half": (_cut("val_labels.npy", 0.3), WHOLE + "val_labels.npy'"),
    "no array": (lambda root: (root / "val_images.npy").unlink(), r"must be whole \(No such file or directory\); prep"),
    "text": (lambda root: (root / "val_images.npy").write_text("x" * 900), WHOLE + "val_images.npy'"),
    "objects": (_save("val_labels.npy", np.array([{}, 1], dtype=object)), WHOLE + "val_labels.npy'"),
    "another shape": (
        _save("train_images.npy", np.zeros((72, 40, 39, 3), np.uint8)),
        r"must hold uint8 of shape \(72, 40, 40, 3\); prepare it again, got '.*train_images.npy'",
    ),
    "another type": (
        _save("train_labels.npy", np.zeros(72, np.int32)),
        r"must hold int64 of shape \(72,\); prepare it again, got '.*train_labels.npy'",
    ),
    "labels out of range": (
        _save("train_labels.npy", np.full(72, 2)),
        r"labels must be from -1 to 1; prepare it again, got '.*train_labels.npy'",
    ),
    "another version": (_change("prepared.json", version=2), "must be of version 1; prepare it again, got '.*'"),
    "no version": (_change("prepared.json", version=None), "must be whole, got version: Input should be a valid int"),
    "another side": (_change("prepared.json", side=48), r"must hold uint8 of shape \(72, 48, 48, 3\); prepare"),
    "an unknown field": (_change("prepared.json", more=1), "must be whole, got more: Extra inputs are not permitted"),
    "half a document": (_cut("prepared.json", 0.5), "must be whole, got prepared.json: Invalid JSON"),
    "no document": (
        lambda root: (root / "prepared.json").unlink(),
        "must hold prepared.json, which nas.prepare writes at its end, got '.*'",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_folder_is_refused_in_one_line(damage: str, prepared_folder: PreparedFolder, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(prepared_folder.prepared, root)
    spoil, message = DAMAGES[damage]
    spoil(root)
    with pytest.raises(DataError, match=f"^dataset: .*{message}") as caught:
        open_dataset(f"prepared:{root}", resolution=32)
    assert len(str(caught.value).splitlines()) == 1


def test_a_resolution_for_which_it_was_not_prepared_is_refused(dataset: Dataset) -> None:
    with pytest.raises(DataError, match=r"^resolution: must be 32 pixels, for which '.*' was prepared, got 48$"):
        open_dataset(dataset.info.name, resolution=48)


def test_what_is_no_prepared_folder_is_refused(tmp_path: Path) -> None:
    message = "^dataset: PATH of prepared:PATH must be a folder that nas.prepare wrote, got '.*'$"
    with pytest.raises(DataError, match=message):
        open_dataset(f"prepared:{tmp_path / 'nothing'}", resolution=32)
    with pytest.raises(DataError, match=r"^dataset: must hold prepared.json, "):
        open_dataset(f"prepared:{write_photographs(tmp_path / 'f', side=8, per_class=2)}", resolution=32)


def test_a_buffer_is_given_again_when_nothing_holds_what_was_in_it() -> None:
    buffers = Buffers(2, 3)
    held = buffers.take().fill_(1).view(3, 2)[0]
    other = buffers.take().fill_(2)
    assert held.tolist() == [1, 1]
    place = other.data_ptr()
    del other
    assert buffers.take().data_ptr() == place
    assert held.tolist() == [1, 1]
