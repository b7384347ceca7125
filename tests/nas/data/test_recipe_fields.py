"""Fields of a recipe that folders follow: the interpolation of the crop and colour jitter."""

from pathlib import Path

import pytest
import torch

from nas.data import DataError, open_dataset
from nas.data.image_folder import Folder
from nas.study.recipe import Augmentation, Recipe
from tests.nas.images import write_folder

CPU = torch.device("cpu")
PLAIN = {"crop_scale": (0.5, 1), "flip": 0, "rand_augment": None, "random_erasing": 0, "mixup": 0, "cutmix": 0}


def recipe_of(**augmentation: object) -> Recipe:
    return Recipe(batch_size=8, augmentation=Augmentation.model_validate({**PLAIN, **augmentation}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("images"), train={"a": 10, "b": 10}, val={"a": 1, "b": 1})


def images_of(folder: Path, recipe: Recipe) -> torch.Tensor:
    dataset = open_dataset(f"folder:{folder}", resolution=32)
    return torch.cat([batch.x_BCHW for batch in dataset.train_batches(recipe, epoch=0, seed=0, device=CPU)])


def test_each_interpolation_gives_other_images_and_random_one_of_the_two_for_each(folder: Path) -> None:
    found = {name: images_of(folder, recipe_of(train_interpolation=name)) for name in ("bicubic", "bilinear", "random")}
    assert not torch.equal(found["bicubic"], found["bilinear"])
    torch.testing.assert_close(images_of(folder, recipe_of()), found["bicubic"], rtol=0, atol=0)
    assert not torch.equal(found["random"], found["bicubic"])
    assert not torch.equal(found["random"], found["bilinear"])


def test_jitter_changes_colours_where_there_is_no_rand_augment(folder: Path) -> None:
    plain, jittered = images_of(folder, recipe_of()), images_of(folder, recipe_of(color_jitter=0.4))
    assert not torch.equal(plain, jittered)
    rand = "rand-m9-mstd0.5-inc1"
    without, beside = (images_of(folder, recipe_of(rand_augment=rand, color_jitter=jitter)) for jitter in (0.0, 0.4))
    assert torch.equal(without, beside)


def test_images_that_stand_several_times_in_an_epoch_are_refused() -> None:
    with pytest.raises(DataError, match=r"^augmentation.repeats: must be 1 for a folder, .*, got 3$"):
        Folder.check(recipe_of(repeats=3))
