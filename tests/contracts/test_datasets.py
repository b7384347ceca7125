"""What every dataset keeps: the same batches for the same recipe, epoch and seed, and every image of a split once."""

import itertools
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch

from metaformer.network.part import Part
from nas.data import Batch, DataError, Dataset, Split, check_recipe, default_recipe, fit_of, look, open_dataset
from nas.data.packing import pack
from nas.data.sources import open_source
from nas.study.recipe import Recipe
from tests.nas.images import write_folder
from tests.nas.sets import write_cifar, write_hugging_face, write_shards

CPU = torch.device("cpu")
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@pytest.fixture(scope="module", params=["digits", "folder", "prepared", "torch", "wds", "hfds"])
def name(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    if request.param == "digits":
        return "digits"
    folder = tmp_path_factory.mktemp("data")
    if request.param == "torch":
        return f"torch/cifar10:{write_cifar(folder, 'cifar10')}"
    if request.param == "wds":
        return f"wds/{write_shards(folder)}"
    if request.param == "hfds":
        return f"hfds/{write_hugging_face(folder, 'saved')}"
    name = f"folder:{write_folder(folder, train={'a': 20, 'b': 20}, val={'a': 3, 'b': 4})}"
    if request.param == "folder":
        return name
    prepared = folder / "prepared"
    pack(open_source(name), prepared, resolution=16, side=20, num_workers=1, bad_images="stop")
    return f"prepared:{prepared}"


@pytest.fixture(scope="module")
def recipe(name: str) -> Recipe:
    return default_recipe(name).model_copy(update={"batch_size": 8})


@pytest.fixture(scope="module")
def dataset(name: str) -> Dataset:
    return open_dataset(name, resolution=16)


def same(one: list[Batch], other: list[Batch]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a.x_BCHW, b.x_BCHW) and torch.equal(a.y, b.y) for a, b in zip(one, other, strict=True)
    )


@pytest.mark.slow
def test_its_own_recipe_passes_its_check(name: str, recipe: Recipe) -> None:
    check_recipe(name, recipe)


def test_a_look_gives_a_resolution_with_a_reason_and_a_fit(name: str) -> None:
    found = look(name)
    assert found.resolution >= 8
    assert len(found.reason.splitlines()) == 1
    assert fit_of(name, resolution=10**6) == fit_of(name, resolution=10**6 + 1)  # none but at its own resolution


def test_an_epoch_has_its_steps_of_equal_size_and_the_form_that_models_take(dataset: Dataset, recipe: Recipe) -> None:
    batches = list(dataset.train_batches(recipe, epoch=0, seed=0, device=CPU))
    assert len(batches) == dataset.num_steps(recipe) > 0
    for batch in batches:
        assert batch.x_BCHW.shape == (8, 3, 16, 16)
        assert batch.x_BCHW.dtype == torch.float32
        assert batch.x_BCHW.is_contiguous(memory_format=torch.channels_last)
        assert batch.y.shape in ((8,), (8, dataset.info.num_classes))


def test_batches_depend_on_epoch_and_seed_and_on_nothing_else(name: str, dataset: Dataset, recipe: Recipe) -> None:
    def epoch(number: int, seed: int, source: Dataset = dataset) -> list[Batch]:
        return list(source.train_batches(recipe, epoch=number, seed=seed, device=CPU))

    first = epoch(1, 0)
    torch.manual_seed(5)
    epoch(0, 0)
    assert same(first, epoch(1, 0))
    assert same(first, epoch(1, 0, open_dataset(name, resolution=16)))
    assert not same(first, epoch(2, 0))
    assert not same(first, epoch(1, 1))


def test_parts_of_a_batch_are_together_that_batch(dataset: Dataset, recipe: Recipe) -> None:
    whole = list(dataset.train_batches(recipe, epoch=1, seed=3, device=CPU))
    for rank in range(2):
        part = Part(rank, 2)
        own = list(dataset.train_part(recipe, part, epoch=1, seed=3, device=CPU))
        assert len(own) == len(whole)
        for batch, all_of_it in zip(own, whole, strict=True):
            assert batch.x_BCHW.is_contiguous(memory_format=torch.channels_last)
            torch.testing.assert_close(batch, Batch(*(tensor[part.rows(8)] for tensor in all_of_it)))


def test_parts_of_a_split_have_each_image_once(dataset: Dataset, recipe: Recipe) -> None:
    def images(batches: Iterable[Batch]) -> list[tuple[int, float]]:
        return sorted(
            (int(label), float(x_CHW.sum())) for batch in batches for x_CHW, label in zip(*batch, strict=True)
        )

    parts = (dataset.eval_part("val", recipe, Part(rank, 2), device=CPU) for rank in range(2))
    assert images(itertools.chain(*parts)) == images(dataset.eval_batches("val", recipe, device=CPU))


@pytest.mark.parametrize("split", SPLITS)
def test_evaluation_sees_every_image_of_a_split_once_with_a_hard_label(
    dataset: Dataset, recipe: Recipe, split: Split
) -> None:
    batches = list(dataset.eval_batches(split, recipe, device=CPU))
    labels = torch.cat([batch.y for batch in batches])
    assert len(labels) == dataset.info.num_images[split]
    assert labels.dtype == torch.int64
    assert set(labels.tolist()) == set(range(dataset.info.num_classes))
    assert same(batches, list(dataset.eval_batches(split, recipe, device=CPU)))


def test_its_info_is_that_of_another_opening(name: str, dataset: Dataset) -> None:
    again = open_dataset(dataset.info.name, resolution=16).info
    assert again == dataset.info
    assert len(again.fingerprint) == 16
    assert len(again.class_names) == again.num_classes


def test_a_resolution_that_is_too_small_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^resolution: must be at least 8 pixels, got 4$"):
        open_dataset(name, resolution=4)
