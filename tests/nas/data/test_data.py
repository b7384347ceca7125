"""Datasets: what is in each split, what a batch holds, and that nothing but the arguments decides it."""

import hashlib
import multiprocessing
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.datasets import load_digits
from timm.data import ImageDataset, create_transform
from torch import Tensor

from nas import data
from nas.data import Batch, DataError, Dataset, Split, open_dataset, registry
from nas.data.sources.folder import FolderSource
from nas.study.recipe import Augmentation, BadImages, Recipe
from tests.nas.images import write_folder, write_image

pytestmark = [
    # Python 3.12 warns of every fork in a process with threads; torch's DataLoader forks its workers.
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning"),
    # torch's advice on a machine of one core; the test is about two workers.
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
]
CPU = torch.device("cpu")
SPLITS: tuple[Split, ...] = ("train", "val", "test")
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def of_digits(*, batch_size: int = 64, shift: int = 2) -> Recipe:
    default = data.default_recipe("digits")
    augmentation = default.augmentation.model_copy(update={"shift": shift})
    return default.model_copy(update={"batch_size": batch_size, "augmentation": augmentation})


def of_folder(batch_size: int = 4, *, plain: bool = False, **augmentation: object) -> Recipe:
    """The default recipe, or one without augmentation, but for what is given."""
    off = {"crop_scale": (1, 1), "flip": 0, "rand_augment": None, "random_erasing": 0, "mixup": 0, "cutmix": 0}
    fields = {**(off if plain else {}), **augmentation}
    return Recipe(batch_size=batch_size, augmentation=Augmentation.model_validate(fields))


def hashes(x_BCHW: Tensor) -> list[str]:
    return [hashlib.sha256(x_CHW.contiguous().numpy().tobytes()).hexdigest() for x_CHW in x_BCHW]


def content(batches: Iterable[Batch]) -> list[str]:
    """A hash of each image in order, then of the labels."""
    xs, ys = zip(*batches, strict=True)
    return [*hashes(torch.cat(xs)), hashlib.sha256(torch.cat(ys).numpy().tobytes()).hexdigest()]


def whole(dataset: Dataset, split: Split, recipe: Recipe) -> Batch:
    xs, ys = zip(*dataset.eval_batches(split, recipe, device=CPU), strict=True)
    return Batch(torch.cat(xs), torch.cat(ys))


def epoch_of(dataset: Dataset, recipe: Recipe, *, epoch: int = 0, seed: int = 0) -> list[str]:
    return content(dataset.train_batches(recipe, epoch=epoch, seed=seed, device=CPU))


def global_states() -> list[bytes]:
    python, numpy, of_torch = random.getstate(), np.random.get_state(), torch.get_rng_state()
    return [repr(python).encode(), repr(numpy).encode() + numpy[1].tobytes(), of_torch.numpy().tobytes()]


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return open_dataset("digits", resolution=32)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of 2, 10 and 25 images for training, 3 each for testing."""
    counts = {"class1": 2, "class2": 10, "class10": 25}
    return write_folder(tmp_path_factory.mktemp("images"), train=counts, val=dict.fromkeys(counts, 3))


@pytest.fixture(scope="module")
def folder(root: Path) -> Dataset:
    return open_dataset(f"folder:{root}", resolution=32)


# Digits


def test_digits_holds_every_scan_of_scikit_learn_once_with_its_label() -> None:
    dataset = open_dataset("digits", resolution=8)  # the size of the scans: enlarging changes nothing
    found = load_digits()
    labels = {scan.astype(np.uint8).tobytes(): label for scan, label in zip(found.images, found.target, strict=True)}
    assert sum(dataset.info.num_images.values()) == len(labels) == 1797
    seen = []
    for split in SPLITS:
        x_BCHW, y_B = whole(dataset, split, of_digits())
        scans_BHW = (16 * (x_BCHW[:, 0] - x_BCHW.min()) / (x_BCHW.max() - x_BCHW.min())).round().byte()
        seen += [scan.numpy().tobytes() for scan in scans_BHW]
        assert [labels[scan] for scan in seen[-len(y_B) :]] == y_B.tolist()
    assert len(set(seen)) == 1797


def test_no_digit_is_in_two_splits(digits: Dataset) -> None:
    found = {split: set(hashes(whole(digits, split, of_digits()).x_BCHW)) for split in SPLITS}
    assert {split: len(images) for split, images in found.items()} == digits.info.num_images
    assert len(set.union(*found.values())) == 1797


@pytest.mark.parametrize(("split", "share"), [("train", 0.6), ("val", 0.2), ("test", 0.2)])
def test_digits_are_split_in_proportion_in_every_class(digits: Dataset, split: Split, share: float) -> None:
    here = Counter(whole(digits, split, of_digits()).y.tolist())
    for label, total in Counter(load_digits().target.tolist()).items():
        assert abs(here[label] - share * total) <= 2


def test_digits_are_normalised_by_the_training_images(digits: Dataset) -> None:
    x_BCHW = whole(digits, "train", of_digits()).x_BCHW
    torch.testing.assert_close(x_BCHW.mean(), torch.tensor(0.0), atol=1e-5, rtol=0)
    torch.testing.assert_close(x_BCHW.std(), torch.tensor(1.0), atol=1e-3, rtol=0)
    assert x_BCHW.dtype == torch.float32
    assert torch.equal(x_BCHW[:, 0], x_BCHW[:, 1])
    assert torch.equal(x_BCHW[:, 0], x_BCHW[:, 2])


def test_digits_are_enlarged_as_pillow_does(digits: Dataset) -> None:
    small = whole(open_dataset("digits", resolution=8), "val", of_digits()).x_BCHW[:20, 0]
    large = whole(digits, "val", of_digits()).x_BCHW[:20, 0]
    scans = [Image.fromarray(x_HW.numpy()).resize((32, 32), Image.Resampling.BILINEAR) for x_HW in small]
    oracle = torch.from_numpy(np.stack([np.asarray(scan) for scan in scans]))
    # The two are normalised by statistics of their own resolution: equal up to one scale and offset.
    scale = (large.max() - large.min()) / (oracle.max() - oracle.min())
    torch.testing.assert_close((oracle - oracle.min()) * scale + large.min(), large, atol=1e-4, rtol=1e-4)


def test_a_training_digit_is_an_original_moved_by_at_most_the_shift() -> None:
    dataset = open_dataset("digits", resolution=16)
    originals_NHW = whole(dataset, "train", of_digits()).x_BCHW[:, 0]
    labels = whole(dataset, "train", of_digits()).y.tolist()
    padded = F.pad(originals_NHW, (2, 2, 2, 2), value=float(originals_NHW.min()))
    known: dict[str, set[tuple[int, int, int, int]]] = {}
    for dy in range(5):
        for dx in range(5):
            for number, name in enumerate(hashes(padded[:, dy : dy + 16, dx : dx + 16])):
                known.setdefault(name, set()).add((number, labels[number], dy, dx))
    moves, numbers = Counter[tuple[int, int]](), []
    for x_BCHW, y_B in dataset.train_batches(of_digits(), epoch=3, seed=1, device=CPU):
        for name, label in zip(hashes(x_BCHW[:, 0]), y_B.tolist(), strict=True):
            number, known_label, dy, dx = min(known[name])
            assert known_label == label
            moves[dy, dx] += 1
            numbers.append(number)
    assert len(moves) == 25
    assert max(moves.values()) < 3 * len(numbers) / 25
    assert len(set(numbers)) == len(numbers) == 16 * 64  # nothing twice; what does not fill a batch is left out


def test_without_shift_an_epoch_holds_the_originals(digits: Dataset) -> None:
    originals = set(hashes(whole(digits, "train", of_digits()).x_BCHW))
    assert set(epoch_of(digits, of_digits(batch_size=13, shift=0))[:-1]) == originals  # 13 divides 1,079


@pytest.mark.parametrize(("batch_size", "num_steps", "size"), [(64, 16, 64), (1079, 1, 1079), (5000, 1, 1079)])
def test_batches_are_full_unless_the_data_are_fewer(
    digits: Dataset, batch_size: int, num_steps: int, size: int
) -> None:
    recipe = of_digits(batch_size=batch_size)
    batches = list(digits.train_batches(recipe, epoch=0, seed=0, device=CPU))
    assert digits.num_steps(recipe) == len(batches) == num_steps
    assert {len(batch.y) for batch in batches} == {size}
    assert all(batch.x_BCHW.is_contiguous(memory_format=torch.channels_last) for batch in batches)
    assert all(batch.y.dtype == torch.int64 for batch in batches)


def test_digits_can_be_evaluated_first_and_trained_on_then(digits: Dataset) -> None:
    with torch.inference_mode():
        next(digits.eval_batches("val", of_digits(), device=CPU))
    x_BCHW, y_B = next(digits.train_batches(of_digits(), epoch=0, seed=0, device=CPU))
    layer = torch.nn.Linear(32, 10)
    F.cross_entropy(layer(x_BCHW.mean((1, 2))), y_B).backward()
    assert layer.weight.grad is not None


@pytest.mark.slow
def test_another_process_sees_the_same_digits_and_loads_no_more_than_it_needs(digits: Dataset) -> None:
    code = """if True:
        import sys, torch
        from nas import data
        print(sorted({"sklearn", "ray", "optuna"} & set(sys.modules)))
        dataset = data.open_dataset("digits", resolution=32)
        print(dataset.info.fingerprint)
        batch = next(dataset.train_batches(data.default_recipe("digits"), epoch=2, seed=5, device=torch.device("cpu")))
        print(batch.y.tolist())
    """
    command = [sys.executable, "-c", code]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    first = next(digits.train_batches(data.default_recipe("digits"), epoch=2, seed=5, device=CPU))
    assert lines == ["[]", digits.info.fingerprint, str(first.y.tolist())]


@pytest.mark.gpu
@GPU
def test_a_gpu_sees_the_same_digits(digits: Dataset) -> None:
    here = digits.train_batches(of_digits(), epoch=1, seed=0, device=CPU)
    there = digits.train_batches(of_digits(), epoch=1, seed=0, device=torch.device("cuda"))
    for one, other in zip(here, there, strict=True):
        assert other.x_BCHW.is_cuda
        assert torch.equal(one.y, other.y.cpu())
        assert torch.equal(one.x_BCHW, other.x_BCHW.cpu())


# What decides a batch, for both kinds


@pytest.fixture(params=["digits", "folder", "folder, 2 workers"])
def any_data(request: pytest.FixtureRequest, root: Path, digits: Dataset, folder: Dataset) -> tuple[Dataset, Recipe]:
    if request.param == "digits":
        return digits, of_digits()
    if request.param == "folder":
        return folder, of_folder()
    return open_dataset(f"folder:{root}", resolution=32, num_workers=2), of_folder()


def test_an_epoch_repeats_whatever_came_before(any_data: tuple[Dataset, Recipe]) -> None:
    dataset, recipe = any_data
    first = epoch_of(dataset, recipe, epoch=2, seed=7)
    epoch_of(dataset, recipe, epoch=0, seed=7)
    random.seed(99), np.random.seed(99), torch.manual_seed(99)
    assert epoch_of(dataset, recipe, epoch=2, seed=7) == first


def test_epochs_and_seeds_differ(any_data: tuple[Dataset, Recipe]) -> None:
    dataset, recipe = any_data
    runs = [epoch_of(dataset, recipe, epoch=epoch, seed=seed) for epoch, seed in [(0, 0), (1, 0), (0, 1), (0, -1)]]
    assert len({tuple(run) for run in runs}) == 4


def test_batches_neither_need_nor_touch_the_global_generators(any_data: tuple[Dataset, Recipe]) -> None:
    dataset, recipe = any_data
    first = epoch_of(dataset, recipe)
    before = global_states()
    batches = dataset.train_batches(recipe, epoch=0, seed=0, device=CPU)
    found = [next(batches)]
    assert global_states() == before
    random.random(), np.random.rand(), torch.rand(1)  # as a training step would
    assert content([*found, *batches]) == first
    before = global_states()
    list(dataset.eval_batches("val", recipe, device=CPU))
    next(dataset.train_batches(recipe, epoch=0, seed=0, device=CPU))  # and left there
    assert global_states() == before


def test_the_number_of_workers_changes_no_batch(root: Path, folder: Dataset) -> None:
    with_workers = open_dataset(f"folder:{root}", resolution=32, num_workers=2)
    for recipe in (of_folder(), of_folder(plain=True, flip=0.5, random_erasing=1)):
        assert epoch_of(with_workers, recipe, epoch=1) == epoch_of(folder, recipe, epoch=1)
    assert content(with_workers.eval_batches("test", recipe, device=CPU)) == content(
        folder.eval_batches("test", recipe, device=CPU)
    )


# Folders


def test_a_folder_is_split_class_by_class(root: Path, folder: Dataset) -> None:
    info = folder.info
    assert info.name == f"folder:{root}"
    assert info.class_names == ("class1", "class2", "class10")  # timm's order
    assert info.num_classes == 3
    assert info.resolution == 32
    assert info.num_images == {"train": 1 + 9 + 23, "val": 1 + 1 + 2, "test": 9}
    counts = {split: np.bincount(whole(folder, split, of_folder()).y).tolist() for split in SPLITS}
    assert counts == {"train": [1, 9, 23], "val": [1, 1, 2], "test": [3, 3, 3]}


def test_evaluation_agrees_with_timm(root: Path, folder: Dataset) -> None:
    """timm is the oracle: its listing, its labels, its transform."""
    transform = create_transform(32, interpolation="bicubic", crop_pct=0.9)
    oracle = {}
    for part in ("train", "val"):
        oracle[part] = Counter[tuple[str, int]]()
        for path, label in ImageDataset(str(root / part)).reader.samples:
            with Image.open(path) as image:
                oracle[part][hashes(transform(image)[None])[0], label] += 1
    ours = {}
    for split in SPLITS:
        x_BCHW, y_B = whole(folder, split, of_folder())
        ours[split] = Counter(zip(hashes(x_BCHW), y_B.tolist(), strict=True))
    assert ours["test"] == oracle["val"]
    assert ours["train"] + ours["val"] == oracle["train"]
    assert not ours["train"] & ours["val"]


def test_equal_folders_have_equal_splits_wherever_and_in_whatever_order_they_were_written(
    root: Path, folder: Dataset, tmp_path: Path
) -> None:
    for path in sorted(root.rglob("*.jpg"), reverse=True):
        copy = tmp_path / path.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    copied = open_dataset(f"folder:{tmp_path}", resolution=32)
    assert copied.info.fingerprint == folder.info.fingerprint
    assert hashes(whole(copied, "val", of_folder()).x_BCHW) == hashes(whole(folder, "val", of_folder()).x_BCHW)
    (tmp_path / "train/class2/0.jpg").rename(tmp_path / "train/class2/other.jpg")
    assert open_dataset(f"folder:{tmp_path}", resolution=32).info.fingerprint != folder.info.fingerprint


def test_training_images_without_augmentation_are_the_evaluated_ones(tmp_path: Path) -> None:
    for number in range(8):
        for part in ("train", "val"):
            write_image(tmp_path / part / f"class{number % 2}" / f"{number}.png", size=(40, 40), seed=number)
    dataset = open_dataset(f"folder:{tmp_path}", resolution=32)
    recipe = of_folder(6, plain=True, eval_crop=1)
    x_BCHW = whole(dataset, "train", recipe).x_BCHW
    assert set(epoch_of(dataset, recipe)[:-1]) == set(hashes(x_BCHW))
    mirrored = of_folder(6, plain=True, flip=1)
    (batch,) = dataset.train_batches(mirrored, epoch=0, seed=0, device=CPU)
    assert set(hashes(batch.x_BCHW.flip(3))) == set(hashes(x_BCHW))


def test_random_erasing_puts_noise_in_a_rectangle(folder: Dataset) -> None:
    plain = next(folder.train_batches(of_folder(4, plain=True), epoch=0, seed=0, device=CPU)).x_BCHW
    erased = next(folder.train_batches(of_folder(4, plain=True, random_erasing=1), epoch=0, seed=0, device=CPU)).x_BCHW
    for other_HW in (plain != erased).any(1):
        rows, columns = other_HW.any(1).nonzero(), other_HW.any(0).nonzero()
        assert other_HW[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].all()


@pytest.mark.parametrize("mixing", [{"mixup": 0.8}, {"cutmix": 1.0}, {"mixup": 0.8, "cutmix": 1.0}])
def test_mixed_images_have_soft_targets_that_sum_to_one(folder: Dataset, mixing: dict[str, float]) -> None:
    recipe = of_folder(6, plain=True, **mixing)
    batches = list(folder.train_batches(recipe, epoch=0, seed=0, device=CPU))
    assert len(batches) == folder.num_steps(recipe) == 5
    for _, y_BK in batches:
        assert y_BK.shape == (6, 3)
        torch.testing.assert_close(y_BK.sum(1), torch.ones(6))
        assert y_BK.min() >= recipe.label_smoothing / 3 - 1e-6


def test_a_folder_smaller_than_a_batch_is_one_even_batch(folder: Dataset) -> None:
    assert [len(y) for _, y in folder.train_batches(of_folder(512), epoch=0, seed=0, device=CPU)] == [32]
    assert folder.num_steps(of_folder(512)) == 1
    hard = list(folder.train_batches(of_folder(512, mixup=0, cutmix=0), epoch=0, seed=0, device=CPU))
    assert [y.shape for _, y in hard] == [(33,)]
    assert hard[0].y.dtype == torch.int64


ODD_IMAGES = [
    ("dot.jpg", (1, 1), "L"),
    ("pair.png", (2, 1), "RGB"),
    ("thin.jpg", (3, 500), "RGB"),
    ("flat.JPEG", (500, 3), "L"),
    ("print.jpg", (20, 31), "CMYK"),
    ("clear.png", (20, 30), "RGBA"),
    ("grey_clear.png", (20, 30), "LA"),
    ("palette.png", (20, 30), "P"),
    ("bits.png", (20, 30), "1"),
    ("deep.png", (20, 30), "I;16"),
]


def test_images_of_odd_sizes_and_modes_work(tmp_path: Path) -> None:
    for part in ("train", "val"):
        for name, size, mode in ODD_IMAGES:
            for label in ("a", "b"):
                write_image(tmp_path / part / label / name, size=size, mode=mode)
    palette = Image.new("P", (9, 9))
    palette.putpalette([0, 0, 0, 255, 0, 0])
    palette.save(tmp_path / "val/a/clear_palette.png", transparency=b"\x10\x20")
    dataset = open_dataset(f"folder:{tmp_path}", resolution=24)
    assert dataset.info.num_images["test"] == 2 * len(ODD_IMAGES) + 1
    for seed in range(3):
        for x_BCHW, y in dataset.train_batches(of_folder(18), epoch=0, seed=seed, device=CPU):
            assert x_BCHW.shape == (18, 3, 24, 24)
            assert x_BCHW.dtype == torch.float32
            assert x_BCHW.isfinite().all()
            assert x_BCHW.is_contiguous(memory_format=torch.channels_last)
            assert y.shape == (18, 2)
    assert whole(dataset, "test", of_folder()).x_BCHW.isfinite().all()


def test_deep_grey_is_scaled_and_not_clipped(tmp_path: Path) -> None:
    root = write_folder(tmp_path, train={"a": 2, "b": 2}, val={"a": 1, "b": 1}, suffix=".png")
    Image.fromarray(np.full((9, 9), 100 * 257, dtype=np.uint16)).save(root / "val/a/0.png")
    Image.new("L", (9, 9), 100).save(root / "val/b/0.png")
    deep, shallow = whole(open_dataset(f"folder:{root}", resolution=8), "test", of_folder()).x_BCHW
    assert torch.equal(deep, shallow)


def test_other_files_and_hidden_ones_are_passed_over_and_inner_folders_count(tmp_path: Path) -> None:
    root = write_folder(tmp_path, train={"a": 2, "b": 2}, val={"a": 1, "b": 1})
    for name in ("train/a/notes.txt", "train/a/._0.jpg", "train/list.csv", "train/.cache/x.jpg"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("no image")
    write_image(root / "train/b/images/inner.jpg", seed=50)
    info = open_dataset(f"folder:{root}", resolution=8).info
    assert info.class_names == ("a", "b")
    assert info.num_images == {"train": 3, "val": 2, "test": 2}


@pytest.mark.gpu
@GPU
def test_a_gpu_gets_the_same_folder_to_rounding(folder: Dataset) -> None:
    recipe = of_folder(4, random_erasing=0)
    here = folder.train_batches(recipe, epoch=1, seed=0, device=CPU)
    there = folder.train_batches(recipe, epoch=1, seed=0, device=torch.device("cuda"))
    for one, other in zip(here, there, strict=True):
        assert other.x_BCHW.is_cuda
        assert other.x_BCHW.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(one.y, other.y.cpu())
        torch.testing.assert_close(one.x_BCHW, other.x_BCHW.cpu(), atol=1e-4, rtol=1e-4)


# Errors


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("damage", ["text", "half"])
def test_an_unreadable_image_is_named_in_one_line(tmp_path: Path, damage: str, num_workers: int) -> None:
    root = write_folder(tmp_path, train={"a": 2, "b": 2}, val={"a": 2, "b": 2})
    bad = root / "val/b/1.jpg"
    bad.write_bytes(b"not an image" if damage == "text" else bad.read_bytes()[:700])
    dataset = open_dataset(f"folder:{root}", resolution=8, num_workers=num_workers)
    with pytest.raises(DataError, match=r"^image: must be readable, got '.*val/b/1.jpg' \(.+\)$") as caught:
        list(dataset.eval_batches("test", of_folder(2), device=CPU))
    assert len(str(caught.value).splitlines()) == 1
    assert not multiprocessing.active_children()  # the workers are gone at once


BAD = ("train/a/1.png", "train/b/0.png", "train/b/1.png", "train/b/2.png", "train/b/3.png", "val/b/5.png")


@pytest.fixture
def spoilt(tmp_path: Path) -> tuple[Path, Path]:
    """Two folders of equal images, but that in the second a few are no images."""
    counts = {"a": 5, "b": 6}
    roots = tmp_path / "whole", tmp_path / "spoilt"
    for root in roots:
        write_folder(root, train=counts, val=counts, suffix=".png")
        for seed, path in enumerate(sorted(root.glob("*/*/*"))):
            write_image(path, size=(8, 8), seed=seed)
    for name in BAD:
        (roots[1] / name).write_bytes(b"not an image")
    return roots


def split_of(root: Path, name: str) -> tuple[Split, int]:
    """The split that an image of a folder is in, and its place there."""
    source = FolderSource(str(root))
    [found] = [
        (split, place)
        for split, labels_N in source.labels.items()
        for place in range(len(labels_N))
        if source.path(split, place) == name
    ]
    return found


@pytest.mark.parametrize("num_workers", [0, 2])
def test_bad_images_are_left_out_of_evaluation_and_named(spoilt: tuple[Path, Path], num_workers: int) -> None:
    whole_, bad = (open_dataset(f"folder:{root}", resolution=8, bad_images="skip") for root in spoilt)
    recipe = of_folder(4)
    for split in ("val", "test"):
        expected = hashes(whole(whole_, split, recipe).x_BCHW)
        gone = {place for name in BAD for where, place in [split_of(spoilt[0], name)] if where == split}
        loaded = open_dataset(f"folder:{spoilt[1]}", resolution=8, num_workers=num_workers, bad_images="skip")
        found = whole(loaded, split, recipe)
        assert hashes(found.x_BCHW) == [one for place, one in enumerate(expected) if place not in gone]
        assert found.y.min() >= 0
        assert set(loaded.left_out()) == {name for name in BAD if split_of(spoilt[0], name)[0] == split}
    assert not whole_.left_out()
    assert not bad.left_out()  # nobody has looked yet


@pytest.mark.gpu
@GPU
def test_a_gpu_gets_the_same_folder_without_its_bad_images(spoilt: tuple[Path, Path]) -> None:
    dataset = open_dataset(f"folder:{spoilt[1]}", resolution=8, num_workers=2, bad_images="skip")
    recipe = of_folder(9, plain=True)
    of_gpu = torch.device("cuda")
    for split in ("val", "test"):
        here, there = (list(dataset.eval_batches(split, recipe, device=device)) for device in (CPU, of_gpu))
        for one, other in zip(here, there, strict=True):
            torch.testing.assert_close(one.y, other.y.cpu())
            torch.testing.assert_close(one.x_BCHW, other.x_BCHW.cpu(), atol=1e-4, rtol=1e-4)
    [batch] = dataset.train_batches(recipe, epoch=0, seed=0, device=of_gpu)
    assert len(batch.y) == 9
    assert set(dataset.left_out()) == set(BAD)


def test_another_image_of_the_class_takes_the_place_of_a_bad_one_in_training(spoilt: tuple[Path, Path]) -> None:
    """Without augmentation, what stands in is the next image of the class that can be read."""
    whole_, bad = (open_dataset(f"folder:{root}", resolution=8, bad_images="skip") for root in spoilt)
    recipe = of_folder(9, plain=True)
    original, now = (epoch_of(dataset, recipe) for dataset in (whole_, bad))
    assert len(original) == 9 + 1  # all images and, in the same order as ever, their labels
    assert now[-1] == original[-1]
    gone = {before for before, after in zip(original, now, strict=True) if after != before}
    in_training = {name for name in BAD if split_of(spoilt[0], name)[0] == "train"}
    assert len(gone) == len(in_training) > 2
    assert set(now) == set(original) - gone
    assert set(bad.left_out()) == in_training


def test_an_epoch_with_bad_images_repeats_whatever_came_before(spoilt: tuple[Path, Path]) -> None:
    name, recipe = f"folder:{spoilt[1]}", of_folder(2)
    fresh, used, shared = (open_dataset(name, resolution=8, num_workers=n, bad_images="skip") for n in (0, 0, 2))
    expected = epoch_of(fresh, recipe, epoch=3)
    epoch_of(used, recipe, epoch=1)
    assert epoch_of(used, recipe, epoch=3) == expected
    assert epoch_of(shared, recipe, epoch=3) == expected


def test_a_split_or_a_class_without_a_readable_image_is_refused(tmp_path: Path) -> None:
    root = write_folder(tmp_path, train={"a": 3, "b": 3}, val={"a": 1, "b": 1})
    for bad in (*root.glob("val/*/*"), *root.glob("train/b/*")):
        bad.write_bytes(b"not an image")
    dataset = open_dataset(f"folder:{root}", resolution=8, bad_images="skip")
    with pytest.raises(DataError, match="^image: must be readable at least once in test, got 2 that are not$"):
        list(dataset.eval_batches("test", of_folder(2), device=CPU))
    message = "^image: must be readable at least once in each class, got none in train of class 'b'$"
    with pytest.raises(DataError, match=message):
        list(dataset.train_batches(of_folder(2), epoch=0, seed=0, device=CPU))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digts", r"^dataset: unknown name 'digts'; known, nearest first: digits, folder:PATH.*$"),
        ("foldr:/data", r"^dataset: unknown name 'foldr'; known, nearest first: folder:PATH, digits.*$"),
        ("digits:8", r"^dataset: nothing may follow digits, got 'digits:8'$"),
        ("digits:", r"^dataset: nothing may follow digits, got 'digits:'$"),
        ("folder:", r"^dataset: must be given as folder:PATH, got 'folder:'$"),
        ("folder", r"^dataset: must be given as folder:PATH, got 'folder'$"),
        ("folder:/no/such", r"^dataset: PATH of folder:PATH must be a folder, got '/no/such'$"),
        ("no.such", r"^dataset: must be in a module that can be imported \(No module named 'no'\), got 'no.such'$"),
        ("./pictures.d", r"^dataset: unknown name './pictures.d'; known, nearest first: .*folder:PATH"),
        ("os.path", r"^dataset: must be registered by its module under __name__, got 'os.path'$"),
        (f"folder:{__file__}", r"^dataset: PATH of folder:PATH must be a folder, got '.*test_data.py'$"),
    ],
)
def test_a_wrong_name_is_refused(name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_dataset(name, resolution=32)


OWN_DATASET = """
from dataclasses import replace
from nas.data import default_recipe, register_dataset
from nas.data.digits import Digits

@register_dataset(__name__, resolution=16, recipe=default_recipe("digits"), argument="PAGE")
class Scans(Digits):
    def __init__(self, page, **options):
        super().__init__("", **options)
        self.info = replace(self.info, name=f"{__name__}:{page}")
"""


@pytest.mark.slow
def test_a_dataset_of_ones_own_is_known_by_its_module(tmp_path: Path) -> None:
    """In a process of its own, since a dataset stays registered."""
    module = tmp_path / "scans" / "loaders.py"
    module.parent.mkdir()
    module.write_text(OWN_DATASET, encoding="utf-8")
    code = """if True:
        from nas import data
        print(data.default_resolution("scans.loaders:7"))
        print(data.open_dataset("scans.loaders:7", resolution=16).info.name)
    """
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{Path.cwd()}"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.splitlines() == ["16", "scans.loaders:7"]


FULL = {"a": 2, "b": 2}


@pytest.mark.parametrize(
    ("train", "val", "message"),
    [
        ({}, FULL, r"must hold the folders train and val, found no train, nearest: \['val'\]$"),
        (FULL, {}, r"must hold the folders train and val, found no val, nearest: \['train'\]$"),
        ({"a": 2}, {"a": 1}, r"train' must hold a folder for each of 2 or more classes, got \['a'\]$"),
        ({"a": 2, "b": 0}, FULL, r"train/b' must hold images \(\.jpg, .*\), found none$"),
        (FULL, {"a": 2, "b": 0}, r"val/b' must hold images \(\.jpg, .*\), found none$"),
        ({"a": 2, "b": 1}, FULL, r"train/b' must hold 2 or more images, got 1$"),
        (
            {"cat": 2, "dog": 2},
            {"catt": 2, "dog": 2},
            r"must be in train and in val, got 'cat' in train only; nearest in val: catt, dog$",
        ),
        (
            {"cat": 2, "dog": 2},
            {"cat": 2, "dog": 2, "bat": 1},
            r"must be in train and in val, got 'bat' in val only; nearest in train: cat, dog$",
        ),
    ],
)
def test_a_folder_not_as_it_must_be_is_refused(
    tmp_path: Path, train: dict[str, int], val: dict[str, int], message: str
) -> None:
    write_folder(tmp_path, train=train, val=val)
    for part, counts in (("train", train), ("val", val)):
        for name in counts:
            (tmp_path / part / name).mkdir(exist_ok=True, parents=True)
    with pytest.raises(DataError, match=r"^dataset: .*" + message) as caught:
        open_dataset(f"folder:{tmp_path}", resolution=32)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("resolution", "num_workers", "message"),
    [
        (7, 0, r"^resolution: must be at least 8 pixels, got 7$"),
        (32, -1, r"^num_workers: must be 0 or more, got -1$"),
    ],
)
def test_a_wrong_option_is_refused(resolution: int, num_workers: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_dataset("digits", resolution=resolution, num_workers=num_workers)


def test_digits_without_scikit_learn_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.data.digits.find_spec", lambda _name: None)
    with pytest.raises(DataError, match=r"^dataset: digits needs scikit-learn, which is not installed$"):
        open_dataset("digits", resolution=32)


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("digits", {"flip": 0.5}, r"^augmentation.flip: must be 0.0 for digits, which can only be shifted, got 0.5$"),
        ("digits", {"rand_augment": "rand-m9"}, r"^augmentation.rand_augment: must be None for digits.*got 'rand-m9'$"),
        ("digits", {"random_erasing": 0.25}, r"^augmentation.random_erasing: must be 0.0 for digits.*got 0.25$"),
        ("digits", {"mixup": 0.8}, r"^augmentation.mixup: must be 0.0 for digits.*got 0.8$"),
        ("digits", {"cutmix": 1.0}, r"^augmentation.cutmix: must be 0.0 for digits.*got 1.0$"),
        ("digits", {"crop_scale": (0.5, 1)}, r"^augmentation.crop_scale: must be \(1.0, 1.0\) for .*got \(0.5, 1.0\)$"),
        ("digits", {"eval_crop": 0.9}, r"^augmentation.eval_crop: must be 1.0 for digits.*got 0.9$"),
        ("digits", {"shift": 9}, r"^augmentation.shift: must be at most 8 for digits, got 9$"),
        ("folder:x", {"shift": 1}, r"^augmentation.shift: must be 0 where images are decoded one by one .*, got 1$"),
        ("folder:x", {"crop_scale": (0, 1)}, r"^augmentation.crop_scale: must rise and be above 0, got \(0.0, 1.0\)$"),
        ("folder:x", {"crop_scale": (1, 0.5)}, r"^augmentation.crop_scale: must rise and be above 0, got"),
        ("folder:x", {"rand_augment": "rand-x3"}, r"^augmentation.rand_augment: must be in timm's .*got 'rand-x3'$"),
        ("folder:x", {"rand_augment": "cutout"}, r"^augmentation.rand_augment: must be in timm's notation"),
    ],
)
def test_a_recipe_that_the_data_cannot_follow_is_refused(name: str, fields: dict[str, object], message: str) -> None:
    default = data.default_recipe(name)
    augmentation = Augmentation.model_validate({**default.augmentation.model_dump(), **fields})
    with pytest.raises(DataError, match=message):
        data.check_recipe(name, default.model_copy(update={"augmentation": augmentation}))


def test_mixing_odd_batches_is_refused(folder: Dataset) -> None:
    message = r"^batch_size: must be even for mixup and cutmix, got 5$"
    with pytest.raises(DataError, match=message):
        data.check_recipe("folder:x", of_folder(5))
    with pytest.raises(DataError, match=message):
        folder.train_batches(of_folder(5), epoch=0, seed=0, device=CPU)
    data.check_recipe("folder:x", of_folder(5, mixup=0, cutmix=0))


def test_a_recipe_is_checked_where_it_is_used(digits: Dataset) -> None:
    with pytest.raises(DataError, match=r"^augmentation.crop_scale: must be"):
        digits.train_batches(Recipe(), epoch=0, seed=0, device=CPU)
    with pytest.raises(DataError, match=r"^augmentation.crop_scale: must be"):
        digits.eval_batches("val", Recipe(), device=CPU)


# Names


def test_defaults_go_by_name_and_pass_their_own_check() -> None:
    files = ["hfds/PATH", "prepared:PATH", "tfds/NAME", "torch/SET", "wds/SHARDS"]
    assert data.names() == ["digits", "folder:PATH", *files]
    assert data.default_resolution("digits") == 16
    with pytest.raises(DataError, match="PATH of folder:PATH must be a folder"):
        data.default_resolution("folder:/no/such/data")
    assert data.default_recipe("folder:/data") == Recipe()
    for name in data.names():
        data.check_recipe(name, data.default_recipe(name))


@pytest.mark.parametrize(
    "text", ["rand-m9-mstd0.5-inc1", "rand-m7-n3-p0.5-mmax20", "rand-m10-n15-p1-tweights", "v0r-mstd1", "augmix-m10"]
)
def test_timms_notation_is_accepted(text: str, folder: Dataset) -> None:
    recipe = of_folder(plain=True, rand_augment=text)
    assert next(folder.train_batches(recipe, epoch=0, seed=0, device=CPU)).x_BCHW.isfinite().all()


def test_a_dataset_is_registered_once_and_then_opened_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
    with pytest.raises(ValueError, match=r"^dataset: must be registered once, got 'digits' again$"):
        data.register_dataset("digits", resolution=8, recipe=Recipe())

    @data.register_dataset("zeros", resolution=8, recipe=Recipe(), argument="COUNT")
    class Zeros(Dataset):
        def __init__(self, argument: str, *, resolution: int, num_workers: int, bad_images: BadImages) -> None:
            self.count = int(argument)

        @staticmethod
        def check(recipe: Recipe) -> None:
            pass

        def train_batches(self, recipe: Recipe, *, epoch: int, seed: int, device: torch.device) -> Iterator[Batch]:
            return iter(())

        def eval_batches(self, split: Split, recipe: Recipe, *, device: torch.device) -> Iterator[Batch]:
            return iter(())

    found = open_dataset("zeros:3", resolution=8)
    assert isinstance(found, Zeros)
    assert found.count == 3
    assert data.names()[-1] == "zeros:COUNT"
