"""Which images train and which are val: stratified, drawn by a seed, limited, and the same on every machine."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from nas.data import DataError, Split, default_recipe, open_dataset, register_dataset, registry
from nas.data.digits import Digits
from nas.data.division import divide, divide_again
from nas.data.packing import pack
from nas.data.registry import find_dataset
from nas.data.sources import Source, open_source
from nas.data.sources.folder import FolderSource
from nas.data.streamed import Streamed
from nas.study.recipe import BadImages
from nas.study.splitting import DEFAULT_SPLITTING, Splitting
from tests.nas.images import write_folder
from tests.nas.photographs import CPU, recipe_of
from tests.nas.sets import write_set

pytestmark = [
    # Python 3.12 warns of every fork in a process with threads; torch's DataLoader forks its workers.
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
PER_CLASS = {"a": 20, "b": 35, "c": 2}
OTHERS = (
    Splitting(images_per_class=4),
    Splitting(seed=7),
    Splitting(val=0.3),
    Splitting(val=0.45, images_per_class=3, seed=2**32 - 1),
)
splittings = st.builds(
    Splitting,
    val=st.floats(0.01, 0.7),
    images_per_class=st.none() | st.integers(1, 60),
    seed=st.integers(0, 2**32 - 1),
)
class_sizes = st.lists(st.integers(4, 60), min_size=2, max_size=5)


def labels_of(counts: list[int]) -> np.ndarray:
    return np.repeat(np.arange(len(counts)), counts)


def names_of(counts: list[int]) -> list[str]:
    return [f"class {label}" for label in range(len(counts))]


def written(kind: str, root: Path) -> str:
    """A set of a kind below `root`, and its name."""
    if kind == "folder":
        return f"folder:{write_folder(root, train=PER_CLASS, val=dict.fromkeys(PER_CLASS, 2))}"
    return write_set(kind, root)


# The default, which is what there was before anything else could be asked for

VAL_BEFORE = {
    "folder": ["a/15.jpg", "a/6.jpg", "b/10.jpg", "b/16.jpg", "b/32.jpg", "b/9.jpg", "c/0.jpg"],
    "cifar10": [f"train[{row}]" for row in (27, 47, 45, 2, 1, 59, 49, 4, 6, 20)],
    "shards": [f"photos-train-{key[:3]}.tar:{key}" for key in ("001/000000", "002/000006", "000/000016")]
    + [f"photos-train-{key[:3]}.tar:{key}" for key in ("002/000019", "001/000014", "002/000008")],
    "saved": ["train[22]", "train[5]"],
}


@pytest.mark.parametrize("kind", VAL_BEFORE)
def test_the_default_holds_out_the_images_that_it_always_did(kind: str, tmp_path: Path) -> None:
    source = open_source(written(kind, tmp_path))
    found = [source.path("val", place).removeprefix("train/") for place in range(len(source.labels["val"]))]
    assert found == VAL_BEFORE[kind]


def test_the_default_leaves_the_fingerprints_of_studies_as_they_were(tmp_path: Path) -> None:
    assert open_dataset("digits", resolution=16).info.fingerprint == "0b55eda3ad9a6e1a"
    folder = open_dataset(written("folder", tmp_path), resolution=16)
    assert folder.info.fingerprint == "46d03b56b6ed13a9"
    more_than_there_are = Splitting(images_per_class=10**6)
    same = open_dataset(folder.info.name, resolution=16, splitting=more_than_there_are).info
    assert (same.fingerprint, same.num_images) == (folder.info.fingerprint, folder.info.num_images)


# Properties of the draw


@given(counts=class_sizes, splitting=splittings)
def test_every_class_gives_its_part_to_val_and_at_most_the_limit_to_train(
    counts: list[int], splitting: Splitting
) -> None:
    labels_N = labels_of(counts)
    train_N, val_N, _ = divide(labels_N, splitting, names_of(counts))
    assert not set(train_N) & set(val_N)
    assert (np.diff(train_N) > 0).all()
    assert (np.diff(val_N) > 0).all()
    held, trained = (np.bincount(labels_N[places_N], minlength=len(counts)) for places_N in (val_N, train_N))
    for count, in_val, in_train in zip(counts, held.tolist(), trained.tolist(), strict=True):
        assert in_val >= 1
        assert abs(in_val - splitting.val * count) < 1
        assert in_train == min(splitting.images_per_class or count, count - in_val)


@given(counts=class_sizes, splitting=splittings)
def test_a_limit_changes_no_val_and_a_larger_one_adds_images(counts: list[int], splitting: Splitting) -> None:
    labels_N, names = labels_of(counts), names_of(counts)
    few, more, all_ = (
        divide(labels_N, splitting.model_copy(update={"images_per_class": limit}), names) for limit in (2, 9, None)
    )
    assert few.val_N.tolist() == more.val_N.tolist() == all_.val_N.tolist()
    assert set(few.train_N) <= set(more.train_N) <= set(all_.train_N)


@given(counts=class_sizes, splitting=splittings)
def test_divided_data_give_the_same_images_as_those_they_came_from(counts: list[int], splitting: Splitting) -> None:
    """Divided by the default, then again by other values: what the other values alone would have given."""
    labels_N, names = labels_of(counts), names_of(counts)
    usual = divide(labels_N, DEFAULT_SPLITTING, names)
    again = divide_again(labels_N[usual.train_N], labels_N[usual.val_N], splitting, names)
    order_N = np.concatenate([usual.train_N, usual.val_N])
    at_once = divide(labels_N, splitting, names)
    assert order_N[again.train_N].tolist() == at_once.train_N.tolist()
    assert order_N[again.val_N].tolist() == at_once.val_N.tolist()
    assert again.is_default == at_once.is_default


def test_the_draw_is_the_same_on_every_machine_and_another_for_another_seed() -> None:
    """Written down once; numpy promises that its RandomState never changes."""
    labels_N, names = labels_of([12, 9]), names_of([12, 9])
    found = divide(labels_N, Splitting(val=0.25, images_per_class=4, seed=3), names)
    assert (found.train_N.tolist(), found.val_N.tolist()) == TRAIN_AND_VAL_OF_SEED_3
    assert divide(labels_N, Splitting(val=0.25, seed=4), names).val_N.tolist() != found.val_N.tolist()
    assert divide(labels_N, Splitting(val=0.25), names).val_N.tolist() != found.val_N.tolist()


TRAIN_AND_VAL_OF_SEED_3 = ([3, 4, 7, 9, 13, 14, 17, 19], [0, 1, 11, 12, 15])


def test_a_class_that_would_not_train_is_refused() -> None:
    labels_N = labels_of([10, 3])
    message = "must leave an image of each class to train on, of 'small' it takes all 3, got 0.9"
    with pytest.raises(DataError, match=rf"^splitting\.val: {message}$"):
        divide(labels_N, Splitting(val=0.9), ("large", "small"))
    with pytest.raises(DataError, match="^dataset: must have 2 or more images of each class .*, got 'lonely'$"):
        divide(labels_of([10, 1]), DEFAULT_SPLITTING, ("large", "lonely"))


@pytest.mark.parametrize(
    "fields",
    [
        *({"val": val} for val in (0, 1, -0.1, 1.5, float("nan"), "0.1", True, None)),
        *({"images_per_class": limit} for limit in (0, -1, 1.5, "3", True)),
        *({"seed": seed} for seed in (-1, 2**32, 0.5, "3", None, True)),
        {"test": 0.1},
    ],
)
def test_a_value_that_breaks_a_rule_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Splitting.model_validate(fields)


# Datasets


@pytest.fixture(scope="module", params=["folder", "cifar10", "imagenet", "shards", "saved", "prepared", "digits"])
def name(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp(request.param)
    if request.param == "digits":
        return "digits"
    if request.param != "prepared":
        return written(request.param, root)
    pack(
        open_source(written("folder", root / "f")),
        root / "out",
        resolution=32,
        side=32,
        num_workers=1,
        bad_images="stop",
    )
    return f"prepared:{root / 'out'}"


def images_of(name: str, splitting: Splitting, split: Split) -> list[tuple[int, bytes]]:
    """Label and content of every image of a split, whatever it is normalised by."""
    make, argument = find_dataset(name)
    if issubclass(make, Streamed):
        source = make.make_source(argument, splitting)
        return [(int(label), source.read(split, i).tobytes()) for i, label in enumerate(source.labels[split])]
    recipe = default_recipe(name)
    resolution = 8 if name == "digits" else 32  # of the scans
    batches = open_dataset(name, resolution=resolution, splitting=splitting).eval_batches(split, recipe, device=CPU)
    xs, ys = zip(*batches, strict=True)
    x_NCHW = torch.cat(xs)
    if name == "digits":
        x_NCHW = (16 * (x_NCHW - x_NCHW.min()) / (x_NCHW.max() - x_NCHW.min())).round()
    contents = [x_CHW.contiguous().numpy().tobytes() for x_CHW in x_NCHW]
    return list(zip(torch.cat(ys).tolist(), contents, strict=True))


@pytest.mark.parametrize("splitting", OTHERS, ids=str)
def test_a_dataset_obeys(name: str, splitting: Splitting) -> None:
    if name == "digits" and splitting.val != DEFAULT_SPLITTING.val:
        pytest.skip("digits have a val of a fifth")
    usual, other = (open_dataset(name, resolution=32, splitting=one) for one in (DEFAULT_SPLITTING, splitting))
    assert other.info.splitting == splitting
    before, now = ({split: images_of(name, one, split) for split in SPLITS} for one in (DEFAULT_SPLITTING, splitting))
    assert now["test"] == before["test"]
    pool, drawn = (Counter(found["train"] + found["val"]) for found in (before, now))
    assert drawn <= pool  # no image twice, and none of test
    in_pool, in_train, in_val = (
        Counter(label for label, _ in images) for images in (pool.elements(), now["train"], now["val"])
    )
    for label, count in in_pool.items():
        if name != "digits":
            assert in_val[label] == max(1, round(splitting.val * count))
        assert in_train[label] == min(splitting.images_per_class or count, count - in_val[label])
    assert {split: len(images) for split, images in now.items()} == other.info.num_images
    if drawn != pool or Counter(now["val"]) != Counter(before["val"]):
        assert other.info.fingerprint != usual.info.fingerprint
    again = open_dataset(other.info.name, resolution=32, splitting=splitting)
    assert again.info == other.info


def test_fingerprints_tell_splits_apart(name: str) -> None:
    kept = [one for one in (DEFAULT_SPLITTING, *OTHERS) if name != "digits" or one.val == DEFAULT_SPLITTING.val]
    found = {open_dataset(name, resolution=32, splitting=one).info.fingerprint for one in kept}
    assert len(found) == len(kept)


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A folder of squares without loss, and the same prepared."""
    root = tmp_path_factory.mktemp("exact")
    folder = write_folder(root / "f", train=PER_CLASS, val=dict.fromkeys(PER_CLASS, 2), suffix=".png", size=(32, 32))
    pack(FolderSource(str(folder)), root / "p", resolution=32, side=32, num_workers=1, bad_images="stop")
    return f"folder:{folder}", f"prepared:{root / 'p'}"


@pytest.mark.parametrize("splitting", [DEFAULT_SPLITTING, *OTHERS], ids=str)
def test_prepared_and_folder_give_the_same_images(exact: tuple[str, str], splitting: Splitting) -> None:
    folder, prepared = (open_dataset(name, resolution=32, splitting=splitting) for name in exact)
    assert folder.info.num_images == prepared.info.num_images
    recipe = recipe_of(16, eval_crop=1.0)
    for split in SPLITS:
        (x_NCHW, y_N), (other_NCHW, other_N) = (
            (torch.cat(parts) for parts in zip(*one.eval_batches(split, recipe, device=CPU), strict=True))
            for one in (folder, prepared)
        )
        assert torch.equal(y_N, other_N)
        pairs = zip(x_NCHW.transpose(0, 1).flatten(1), other_NCHW.transpose(0, 1).flatten(1), strict=True)
        for pair in pairs:  # of a channel, which the two normalise by other numbers
            assert torch.corrcoef(torch.stack(pair))[0, 1] > 0.99999


@pytest.mark.parametrize("largest_matrix", [None, 0])  # pixels, above which images are cropped one by one
@pytest.mark.parametrize("splitting", OTHERS, ids=str)
def test_prepared_trains_on_the_images_that_were_drawn(
    exact: tuple[str, str], splitting: Splitting, largest_matrix: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An epoch of whole images has each of train, with its class, as evaluation sees it."""
    if largest_matrix is not None:
        monkeypatch.setattr("nas.data.in_batch.crops._LARGEST_MATRIX", largest_matrix)
    dataset = open_dataset(exact[1], resolution=32, splitting=splitting)
    recipe = recipe_of(dataset.info.num_images["train"], eval_crop=1.0)
    [(x_NCHW, y_N)] = dataset.eval_batches("train", recipe, device=CPU)
    [(shuffled_NCHW, shuffled_N)] = dataset.train_batches(recipe, epoch=0, seed=0, device=CPU)
    assert _pairs(shuffled_NCHW, shuffled_N) == _pairs(x_NCHW, y_N)
    assert len(set(_pairs(x_NCHW, y_N))) == len(y_N)


def _pairs(x_NCHW: Tensor, y_N: Tensor) -> list[tuple[int, bytes]]:
    contents = (x_CHW.contiguous().numpy().tobytes() for x_CHW in x_NCHW)
    return sorted(zip(y_N.tolist(), contents, strict=True))


@pytest.mark.gpu
@GPU
@pytest.mark.parametrize("splitting", OTHERS, ids=str)
def test_a_gpu_gets_the_images_that_were_drawn(
    exact: tuple[str, str], splitting: Splitting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the images stay on the GPU, and where they are sent to it batch by batch."""
    recipe, there = recipe_of(9), torch.device("cuda")
    found = []
    for device, share in ((CPU, 0.25), (there, 0.25), (there, 0.0)):
        monkeypatch.setattr("nas.data.prepared._SHARE", share)
        dataset = open_dataset(exact[1], resolution=32, splitting=splitting)
        found.append(list(dataset.train_batches(recipe, epoch=1, seed=0, device=device)))
    for here, resident, sent in zip(*found, strict=True):
        assert torch.equal(resident.x_BCHW, sent.x_BCHW)
        torch.testing.assert_close(here.x_BCHW, resident.x_BCHW.cpu(), atol=1e-4, rtol=0)
        assert here.y.tolist() == resident.y.tolist() == sent.y.tolist()


def test_prepared_with_unreadable_images_keeps_its_val_under_a_limit(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "f", train={"a": 20, "b": 20}, val={"a": 2, "b": 2})
    source = FolderSource(str(root))
    spoilt: tuple[tuple[Split, int], ...] = (("val", 0), ("train", 3), ("train", 20))
    for split, place in spoilt:
        (root / source.path(split, place)).write_bytes(b"no image")
    pack(source, tmp_path / "p", resolution=32, side=32, num_workers=1, bad_images="skip")
    name, limit = f"prepared:{tmp_path / 'p'}", Splitting(images_per_class=4)
    usual, limited, other = (
        open_dataset(name, resolution=32, splitting=one) for one in (DEFAULT_SPLITTING, limit, Splitting(seed=5))
    )
    assert images_of(name, limit, "val") == images_of(name, DEFAULT_SPLITTING, "val")
    assert limited.info.num_images == {"train": 8, "val": 3, "test": 4}
    assert other.info.num_images == usual.info.num_images == {"train": 34, "val": 3, "test": 4}


def test_processes_that_read_have_the_same_splits(tmp_path: Path) -> None:
    name = written("cifar10", tmp_path)
    here, there = (open_dataset(name, resolution=32, num_workers=number, splitting=OTHERS[-1]) for number in (0, 2))
    for one, other in zip(*(x.eval_batches("val", recipe_of(16), device=CPU) for x in (here, there)), strict=True):
        assert torch.equal(one.x_BCHW, other.x_BCHW)
        assert torch.equal(one.y, other.y)


def test_a_dataset_that_takes_no_splitting_has_the_default_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))

    @register_dataset("fixed", resolution=16, recipe=default_recipe("digits"))
    class Fixed(Digits):
        def __init__(self, argument: str, *, resolution: int, num_workers: int, bad_images: BadImages) -> None:
            super().__init__(argument, resolution=resolution, num_workers=num_workers, bad_images=bad_images)

    assert isinstance(open_dataset("fixed", resolution=16, splitting=Splitting()), Fixed)
    message = "^splitting: must be the default for 'fixed', whose splits are fixed, got .*'seed': 1"
    with pytest.raises(DataError, match=message):
        open_dataset("fixed", resolution=16, splitting=Splitting(seed=1))


def test_digits_take_no_other_part_for_val() -> None:
    with pytest.raises(DataError, match=r"^splitting\.val: must be 0\.1, the default, for digits, .*, got 0\.2$"):
        open_dataset("digits", resolution=16, splitting=Splitting(val=0.2))


def test_a_source_by_name_has_the_default_splits(tmp_path: Path) -> None:
    """What is prepared is what is divided again."""
    source: Source = open_source(written("folder", tmp_path))
    assert len(source.labels["val"]) == 7
