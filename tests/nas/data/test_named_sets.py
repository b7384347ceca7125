"""Datasets by the names that a user types, generated in the formats in which they are published."""

import os
import pickle
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from metaformer import Architecture
from metaformer.specs import PoolSpec, Stage, Stem
from nas.data import Batch, DataError, Dataset, Split, open_dataset, short_name, split_name
from nas.data.packing import pack
from nas.data.sources import open_source
from nas.study.lease import Lease
from nas.study.recipe import Augmentation, Recipe
from nas.training.loop import train
from tests.nas.photographs import CPU, recipe_of
from tests.nas.sets import (
    add,
    write_cifar,
    write_hugging_face,
    write_set,
    write_shard,
    write_shards,
    write_tensorflow,
)

pytestmark = [
    # Python 3.12 warns of every fork in a process with threads; torch's DataLoader forks its workers.
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
KINDS = ("cifar10", "cifar100", "imagenet", "shards", "saved", "parquet", "images", "pets")


@pytest.fixture(scope="module", params=KINDS)
def name(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_set(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def dataset(name: str) -> Dataset:
    return open_dataset(name, resolution=32)


def whole(dataset: Dataset, split: Split) -> Batch:
    xs, ys = zip(*dataset.eval_batches(split, recipe_of(16, eval_crop=1.0), device=CPU), strict=True)
    return Batch(torch.cat(xs), torch.cat(ys))


def same(one: list[Batch], other: list[Batch]) -> bool:
    pairs = list(zip(one, other, strict=True))
    return all(torch.equal(a.x_BCHW, b.x_BCHW) and torch.equal(a.y, b.y) for a, b in pairs)


# What all have in common


def test_an_epoch_is_trained_by_the_name_that_a_user_types(name: str, tmp_path: Path) -> None:
    dataset = open_dataset(name, resolution=32)
    arch = Architecture.model_validate(
        {
            "resolution": 32,
            "stem": Stem(kernel=4, stride=4, padding=0),
            "stages": (Stage(depth=1, width=16, mixer=PoolSpec()),),
            "head": {"num_classes": dataset.info.num_classes},
        }
    )
    lease = Lease(
        trial=0,
        attempt=1,
        architecture=arch,
        recipe=Recipe(epochs=1, warmup_epochs=0, batch_size=16),
        epochs=1,
        seed=0,
        folder=str(tmp_path),
    )
    [report] = train(lease, dataset, device=CPU)
    assert report.epoch == 1
    assert 0 <= report.val_accuracy <= 1


def test_splits_share_no_image_and_every_class_is_in_each(dataset: Dataset, name: str) -> None:
    source, seen = open_source(name), []
    for split in SPLITS:
        labels_N = source.labels[split]
        assert (np.diff(labels_N) >= 0).all()
        assert set(labels_N.tolist()) == set(range(len(source.class_names)))
        assert dataset.info.num_images[split] == len(labels_N)
        seen += [source.read(split, place).tobytes() for place in range(len(labels_N))]
    assert len(set(seen)) == len(seen)
    counts, held = (np.bincount(source.labels[split]) for split in ("train", "val"))
    assert held.tolist() == np.maximum(1, np.round(0.1 * (counts + held))).tolist()


def test_its_full_name_opens_the_same_from_anywhere(
    dataset: Dataset, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NAS_DATA", str(tmp_path))
    assert open_dataset(dataset.info.name, resolution=32).info == dataset.info
    assert short_name(dataset.info.name) == short_name(name)


def test_another_process_reads_the_same_images(name: str) -> None:
    source = open_source(name)
    copy = pickle.loads(pickle.dumps(source))  # noqa: S301  what a process that decodes is sent
    assert len(pickle.dumps(source)) < 20_000  # no pixels
    for split in SPLITS:
        assert copy.read(split, 1).tobytes() == source.read(split, 1).tobytes()
        assert copy.path(split, 1) == source.path(split, 1)
        header = source.read_header(split, 1)
        assert (header.width, header.height) == source.read(split, 1).size


def test_the_number_of_workers_changes_no_batch(dataset: Dataset, name: str) -> None:
    recipe = Recipe(batch_size=8)
    there = open_dataset(name, resolution=32, num_workers=2)
    here, other = (list(one.train_batches(recipe, epoch=1, seed=3, device=CPU)) for one in (dataset, there))
    assert len(here) == dataset.num_steps(recipe) > 0
    assert same(here, other)


def test_prepared_it_is_evaluated_alike(dataset: Dataset, name: str, tmp_path: Path) -> None:
    """To a grey level, each normalised by its own mean and deviation."""
    source = open_source(name)
    side = source.read("train", 0).width
    pack(source, tmp_path / "out", resolution=32, side=side, num_workers=1, bad_images="stop")
    prepared = open_dataset(f"prepared:{tmp_path / 'out'}", resolution=32)
    assert prepared.info.class_names == dataset.info.class_names
    assert prepared.info.num_images == dataset.info.num_images
    for split in SPLITS:
        here, there = whole(dataset, split), whole(prepared, split)
        assert torch.equal(here.y, there.y)
        assert _correlation(here.x_BCHW, there.x_BCHW) > 0.9999


def _correlation(one: Tensor, other: Tensor) -> float:
    """The smallest of a channel."""
    pairs = zip(one.transpose(0, 1).flatten(1), other.transpose(0, 1).flatten(1), strict=True)
    return min(torch.corrcoef(torch.stack(pair))[0, 1].item() for pair in pairs)


@pytest.mark.parametrize(
    ("name", "parts", "short"),
    [
        ("digits", ("digits", "", ""), "digits"),
        ("folder:/data/flowers", ("folder", ":", "/data/flowers"), "flowers"),
        ("torch/cifar10", ("torch", "/", "cifar10"), "cifar10"),
        ("torch/cifar10:/data/sets", ("torch", "/", "cifar10:/data/sets"), "cifar10"),
        ("wds//data/photos-train-{000..146}.tar", ("wds", "/", "/data/photos-train-{000..146}.tar"), "photos-train"),
        ("hfds//data/pets", ("hfds", "/", "/data/pets"), "pets"),
        ("flowers.loaders:7", ("flowers.loaders", ":", "7"), "7"),
    ],
)
def test_the_kind_is_what_stands_before_the_first_colon_or_slash(
    name: str, parts: tuple[str, str, str], short: str
) -> None:
    assert split_name(name) == parts
    assert short_name(name) == short


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("torch", "must be given as torch/SET, got 'torch'"),
        ("torch/", "must be given as torch/SET, got 'torch/'"),
        ("torch:cifar10", "must be given as torch/SET, got 'torch:cifar10'"),
        ("folder/data", "must be given as folder:PATH, got 'folder/data'"),
        ("torch/cifra10", "unknown name 'torch/cifra10'; known, nearest first: torch/cifar10, .*"),
        ("wds", "must be given as wds/SHARDS, got 'wds'"),
        ("hfds:x", "must be given as hfds/PATH, got 'hfds:x'"),
        ("torhc/cifar10", "unknown name 'torhc/cifar10'; known, nearest first: torch/SET, .*"),
    ],
)
def test_a_wrong_name_is_refused(name: str, message: str) -> None:
    with pytest.raises(DataError, match=f"^dataset: {message}$"):
        open_dataset(name, resolution=32)


# torchvision's


@pytest.mark.parametrize("kind", ["cifar10", "cifar100"])
def test_the_records_of_cifar_are_read_as_their_page_describes_them(kind: str, tmp_path: Path) -> None:
    """One or two labels, then 1,024 red, 1,024 green and 1,024 blue pixels, row by row."""
    source = open_source(f"torch/{kind}:{write_cifar(tmp_path, kind)}")
    files = sorted(tmp_path.glob("*/*batch*.bin")) or sorted(tmp_path.glob("*/*.bin"))
    expected: dict[str, set[tuple[int, bytes]]] = {"train": set(), "test": set()}
    for file in files:
        data, size = file.read_bytes(), 3073 if kind == "cifar10" else 3074
        for record in (data[start : start + size] for start in range(0, len(data), size)):
            colours = [Image.frombytes("L", (32, 32), record[-3072:][1024 * c : 1024 * (c + 1)]) for c in range(3)]
            image = Image.merge("RGB", colours)
            expected["test" if "test" in file.name else "train"].add((record[size - 3073], image.tobytes()))
    found = {
        split: {(int(label), source.read(split, place).tobytes()) for place, label in enumerate(source.labels[split])}
        for split in SPLITS
    }
    assert found["test"] == expected["test"]
    assert found["train"] | found["val"] == expected["train"]
    assert source.class_names[:2] == ("class_0", "class_1")


def test_cifar_is_normalised_by_its_own_training_images(tmp_path: Path) -> None:
    dataset = open_dataset(f"torch/cifar10:{write_cifar(tmp_path, 'cifar10')}", resolution=32)
    x_BCHW = whole(dataset, "train").x_BCHW
    torch.testing.assert_close(x_BCHW.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(x_BCHW.std((0, 2, 3)), torch.ones(3), atol=1e-4, rtol=0)


def test_sets_are_looked_for_where_the_environment_says_and_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAS_DATA", str(write_cifar(tmp_path / "sets", "cifar10")))
    assert open_dataset("torch/cifar10", resolution=32).info.name == f"torch/cifar10:{tmp_path / 'sets'}"
    monkeypatch.delenv("NAS_DATA")
    monkeypatch.setenv("HOME", str(tmp_path))
    write_cifar(tmp_path / ".cache/nas", "cifar100", per_class=3, per_class_test=1)
    assert open_dataset("torch/cifar100", resolution=32).info.name == f"torch/cifar100:{tmp_path}/.cache/nas"
    (tmp_path / "unpacked").symlink_to(tmp_path / "sets/cifar-10-batches-bin")
    assert open_dataset(f"torch/cifar10:{tmp_path / 'unpacked'}", resolution=32).info.num_classes == 10


@pytest.mark.parametrize(
    ("kind", "archive"),
    [
        ("cifar10", "download https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz and unpack it there"),
        ("cifar100", "download https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz and unpack it there"),
        ("imagenet", "download ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar from https://image-net.org"),
    ],
)
def test_an_absent_set_says_what_to_download_and_where_it_is_looked_for(
    kind: str, archive: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError) as caught:
        open_dataset(f"torch/{kind}:{tmp_path}", resolution=32)
    assert str(caught.value).startswith(f"dataset: torch/{kind} must be in {str(tmp_path)!r} as ")
    assert str(caught.value).endswith(archive)
    assert len(str(caught.value).splitlines()) == 1


def _cut(file: str) -> Callable[[Path], None]:
    return lambda folder: (folder / file).write_bytes((folder / file).read_bytes()[:-1])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_cut("data_batch_3.bin"), r"must hold whole records of 3073 bytes, got \d+ bytes, got '.*data_batch_3.bin'"),
        (_cut("test_batch.bin"), r"must hold whole records of 3073 bytes, got \d+ bytes, got '.*test_batch.bin'"),
        (lambda folder: (folder / "data_batch_5.bin").unlink(), r"must be readable \(No such file.*\), got '.*_5.bin'"),
        (lambda folder: (folder / "data_batch_1.bin").write_bytes(b""), "must hold whole records .* got 0 bytes, .*"),
        (lambda folder: (folder / "batches.meta.txt").unlink(), r"must be readable \(No such file.*\), got '.*txt'"),
        (lambda folder: (folder / "batches.meta.txt").write_text("one"), "must name 2 or more classes, .*"),
        (
            lambda folder: (folder / "batches.meta.txt").write_text("cat\ndog\n"),
            "labels must be below 2, the number of its classes; unpack https://.* again, got '.*'",
        ),
        (
            lambda folder: (folder / "test_batch.bin").write_bytes((folder / "test_batch.bin").read_bytes()[:3073]),
            "torch/cifar10 must hold images of each class in test, got '.*'",
        ),
    ],
)
def test_damaged_records_are_refused_in_one_line(spoil: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    spoil(write_cifar(tmp_path, "cifar10") / "cifar-10-batches-bin")
    with pytest.raises(DataError, match=f"^dataset: {message}$"):
        open_dataset(f"torch/cifar10:{tmp_path}", resolution=32)


class _Evil:
    """A pickle that makes a folder when it is opened."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self._path),)


@pytest.mark.parametrize(("kind", "folder"), [("cifar10", "cifar-10-batches-py"), ("cifar100", "cifar-100-python")])
def test_a_pickle_of_another_checksum_is_refused_and_never_opened(kind: str, folder: str, tmp_path: Path) -> None:
    (tmp_path / folder).mkdir()
    for file in (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch", "batches.meta", "train", "test", "meta"):
        (tmp_path / folder / file).write_bytes(pickle.dumps(_Evil(tmp_path / "opened")))
    message = f"^dataset: files must have the checksums of those in https://.*python.tar.gz; .*, got '.*{folder}'$"
    with pytest.raises(DataError, match=message):
        open_dataset(f"torch/{kind}:{tmp_path}", resolution=32)
    assert not (tmp_path / "opened").exists()


# Shards


def test_shards_keep_image_and_class_together(tmp_path: Path) -> None:
    source = open_source(f"wds/{write_shards(tmp_path)}")
    for split in SPLITS:
        for place, label in enumerate(source.labels[split].tolist()):
            shard, _, key = source.path(split, place).partition(":")
            assert int(key.partition("/")[2]) % 3 == label
            with tarfile.open(tmp_path / shard) as tar:
                file = tar.extractfile(f"{key}.jpg")
                assert file is not None
                with Image.open(file) as image:
                    assert source.read(split, place).tobytes() == image.tobytes()
    assert source.class_names == ("0", "1", "2")
    (tmp_path / "classes.txt").write_text("red fox\nwolf\nbear\n", encoding="utf-8")
    named = open_source(source.name)
    assert named.class_names == ("red fox", "wolf", "bear")
    assert named.fingerprint != source.fingerprint


def test_a_range_counts_as_it_is_written_and_one_shard_needs_none(tmp_path: Path) -> None:
    for number in (8, 9, 10):
        write_shard(tmp_path / f"train-{number}.tar", 9, 3, seed=number)
    write_shard(tmp_path / "test-0.tar", 3, 3, seed=1)
    assert open_dataset(f"wds/{tmp_path}/train-{{8..10}}.tar", resolution=32).info.num_images["test"] == 3
    write_shard(tmp_path / "train.tar", 9, 3, seed=11)
    write_shard(tmp_path / "validation.tar", 6, 3, seed=2)
    assert open_dataset(f"wds/{tmp_path}/train.tar", resolution=32).info.num_images == {"train": 6, "val": 3, "test": 6}


def test_an_unreadable_image_of_a_shard_is_named_or_left_out(tmp_path: Path) -> None:
    argument = write_shards(tmp_path)
    with tarfile.open(tmp_path / "photos-val-000.tar", "a") as tar:
        add(tar, "bad.jpg", b"not an image")
        add(tar, "bad.cls", b"1")
    with pytest.raises(DataError, match=r"^image: must be readable, got 'photos-val-000.tar:bad' \(.*\)$"):
        whole(open_dataset(f"wds/{argument}", resolution=32), "test")
    dataset = open_dataset(f"wds/{argument}", resolution=32, bad_images="skip")
    assert len(whole(dataset, "test").y) == 9
    assert dataset.left_out() == ["photos-val-000.tar:bad"]


def _append(name: str, data: bytes) -> Callable[[Path], None]:
    def append(root: Path) -> None:
        with tarfile.open(root / "photos-train-001.tar", "a") as tar:
            add(tar, name, data)

    return append


def _cut_shard(size: int) -> Callable[[Path], None]:
    return lambda root: os.truncate(root / "photos-train-001.tar", size)


def _compress(root: Path) -> None:
    with tarfile.open(root / "photos-train-001.tar", "w:gz") as tar:
        add(tar, "a.jpg", b"")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "photos-train-001.tar").unlink(), "every shard must be there, got '.*001.tar'"),
        (lambda root: (root / "photos-val-000.tar").unlink(), "must have shards of test beside those of train, .*"),
        (_cut_shard(700), r"shards must be whole tar files without compression \(cut short\), got '.*001.tar'"),
        (_cut_shard(0), r"shards must be whole tar files without compression \(.*\), got '.*001.tar'"),
        (_compress, r"shards must be whole tar files without compression \(.*\), got '.*001.tar'"),
        (_append("x.jpg", b"1"), "'.*001.tar' must hold an image and a .cls for each key, has no .cls for, got 'x'"),
        (_append("x.cls", b"1"), "'.*001.tar' must hold an image and a .cls for each key, has no image for, got 'x'"),
        (_append("x.cls", b"cat"), "classes in .cls must be whole numbers from 0, got b'cat' in '.*001.tar:x.cls'"),
        (
            lambda root: (root / "classes.txt").write_text("one\ntwo\n"),
            "must name 3 classes, a line each, got 2 in, got '.*classes.txt'",
        ),
        (
            lambda root: [_append("x.jpg", b"1")(root), _append("x.cls", b"7")(root)],
            "shards of train must hold 2 or more images of each class from 0 to 7, and of class 3 there are 0, got .*",
        ),
        (
            lambda root: write_shard(root / "photos-val-001.tar", 8, 4, seed=3),
            "shards of test must hold 1 or more images of each class from 0 to 2, and of class 3 there are 2, got .*",
        ),
    ],
)
def test_damaged_shards_are_refused_in_one_line(spoil: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    argument = write_shards(tmp_path)
    spoil(tmp_path)
    with pytest.raises(DataError, match=f"^dataset: {message}$") as caught:
        open_dataset(f"wds/{argument}", resolution=32)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("/data/photos-{0..3}.tar", "SHARDS of wds/SHARDS must have train in their name once, .*"),
        ("/data/train-{3..0}.tar", "ranges of shards must rise, to at most 100000 shards, got .*"),
        ("/data/train-{0..999999999}.tar", "ranges of shards must rise, to at most 100000 shards, got .*"),
        ("/data/train-{0..}.tar", "every shard must be there, got .*"),
    ],
)
def test_shards_that_cannot_be_meant_are_refused(argument: str, message: str) -> None:
    with pytest.raises(DataError, match=f"^dataset: {message}$"):
        open_dataset(f"wds/{argument}", resolution=32)


# Hugging Face's


def test_without_the_package_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    message = r"^dataset: 'hfds/.*' is read by the package datasets, which is not installed: pip install datasets$"
    with pytest.raises(DataError, match=message):
        open_dataset(f"hfds/{tmp_path}", resolution=32)


def test_the_three_forms_hold_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    roots = {form: write_hugging_face(tmp_path, form) for form in ("saved", "parquet")}
    monkeypatch.setenv("NAS_DATA", str(tmp_path))
    saved, parquet = (open_source(f"hfds/{root}") for root in roots.values())
    assert open_dataset("hfds/saved", resolution=32).info.name == f"hfds/{roots['saved']}"
    assert saved.fingerprint == parquet.fingerprint
    assert saved.class_names == ("cat", "dog")
    for split in SPLITS:
        for place, label in enumerate(saved.labels[split].tolist()):
            assert saved.read(split, place).tobytes() == parquet.read(split, place).tobytes()
            assert int(saved.path(split, place).partition("[")[2][:-1]) % 2 == label


def test_a_folder_that_the_package_does_not_read_is_refused_in_one_line(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="needs the package datasets")
    message = "^dataset: PATH of hfds/PATH must be a folder; nothing is downloaded, got '.*nothing'$"
    with pytest.raises(DataError, match=message):
        open_dataset(f"hfds/{tmp_path / 'nothing'}", resolution=32)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"^dataset: must be a folder that the package datasets reads \(.*\), got '"):
        open_dataset(f"hfds/{tmp_path / 'empty'}", resolution=32)
    damaged = write_hugging_face(tmp_path, "parquet")
    file = damaged / "data/train-00000-of-00001.parquet"
    file.write_bytes(file.read_bytes()[:900])
    with pytest.raises(DataError, match=r"^dataset: must be a folder that the package datasets reads \(.*\), got '"):
        open_dataset(f"hfds/{damaged}", resolution=32)
    plain = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]})
    datasets.DatasetDict({"train": plain, "test": plain}).save_to_disk(str(tmp_path / "text"))
    with pytest.raises(
        DataError, match=r"^dataset: '.*' must have one column of images, of its columns these are, got"
    ):
        open_dataset(f"hfds/{tmp_path / 'text'}", resolution=32)
    datasets.DatasetDict({"train": plain}).save_to_disk(str(tmp_path / "alone"))
    with pytest.raises(DataError, match=r"^dataset: '.*' must have one column of images"):
        open_dataset(f"hfds/{tmp_path / 'alone'}", resolution=32)


# TensorFlow's


def test_without_tensorflow_datasets_it_is_said_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "array_record.python.array_record_module", None)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    message = r"^dataset: 'tfds/pets:.*' needs .*, which is not installed: pip install tensorflow-datasets .*$"
    with pytest.raises(DataError, match=message):
        open_dataset(f"tfds/pets:{tmp_path}", resolution=32)


def test_a_tensorflow_set_that_is_not_there_or_damaged_is_refused_in_one_line(tmp_path: Path) -> None:
    root = write_tensorflow(tmp_path)
    with pytest.raises(DataError, match=r"^dataset: tfds/dogs must be in '.*' as tensorflow-datasets prepares it in "):
        open_dataset(f"tfds/dogs:{root}", resolution=32)
    shutil.copytree(root / "pets/1.0.0", root / "pets/2.0.0")
    with pytest.raises(DataError, match=r"^dataset: NAME of tfds/NAME must be of one configuration and version, got"):
        open_dataset(f"tfds/pets:{root}", resolution=32)
    assert open_dataset(f"tfds/pets/1.0.0:{root}", resolution=32).info.class_names == ("cat", "dog")
    (root / "pets/2.0.0/pets-train.array_record-00000-of-00001").unlink()
    with pytest.raises(DataError, match=r"^dataset: must be what tensorflow-datasets prepares in .*, got '.*2.0.0'$"):
        open_dataset(f"tfds/pets/2.0.0:{root}", resolution=32)


# The program


@pytest.mark.slow
def test_a_set_by_name_is_prepared_by_the_program(tmp_path: Path) -> None:
    write_cifar(tmp_path / "sets", "cifar10")
    command = [sys.executable, "-m", "nas.prepare", "torch/cifar10", "--out", str(tmp_path / "out"), "--workers", "1"]
    environment = {**os.environ, "NAS_DATA": str(tmp_path / "sets")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "images   train 50, val 10, test 20" in done.stdout
    dataset = open_dataset(f"prepared:{tmp_path / 'out'}", resolution=32)
    recipe = Recipe(batch_size=8, augmentation=Augmentation(crop_scale=(0.5, 1)))
    assert len(list(dataset.train_batches(recipe, epoch=0, seed=0, device=CPU))) == 6
