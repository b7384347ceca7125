"""A folder's images beside another reader of them, and the resolution that fits them."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from metaformer.validation import ImageFolderError, measure_accuracy, open_folder
from metaformer.zoo import Preprocessing
from nas.data import SMALLEST_SIDE, DataError, open_dataset
from nas.data.named_sets import Folder
from nas.study.recipe import Augmentation, Recipe
from tests.nas.images import write_folder, write_image


def test_validation_and_the_search_see_the_same_pixels_of_an_image_of_every_mode(tmp_path: Path) -> None:
    root = write_folder(tmp_path, train={"a": 2, "b": 2}, val={"a": 1, "b": 1}, suffix=".png")
    for mode in ("I;16", "L", "LA", "RGBA", "P", "1"):
        write_image(root / f"val/a/{mode.replace(';', '')}.png", mode=mode)
    write_image(root / "val/b/CMYK.jpg", mode="CMYK")
    half_NM = np.full((40, 40), 2**15, dtype=np.uint16)
    Image.fromarray(half_NM).save(root / "val/b/half.png")
    seen = Preprocessing(resolution=32, crop_pct=0.9, interpolation="bicubic")
    there = open_folder(root, "val", seen, num_classes=2)
    here = open_dataset(f"folder:{root}", resolution=32).eval_batches("test", Recipe(), device=torch.device("cpu"))
    x_BCHW = torch.cat([x_BCHW for x_BCHW, _ in here])
    assert len(there) == len(x_BCHW) == 10
    assert torch.equal(x_BCHW, torch.stack([x_CHW for x_CHW, _ in there]))


def folder_of(root: Path, sizes: list[tuple[int, int]], *, num_classes: int = 2) -> str:
    """A folder whose classes hold images of these sizes in train; nothing else is looked at."""
    for number, size in enumerate(size for _ in range(num_classes) for size in sizes):
        path = root / f"train/class{number // len(sizes)}/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("1", size).save(path)
    return str(root)


@pytest.mark.parametrize(
    ("size", "resolution"),
    [
        ((1, 1), 8),
        ((8, 8), 8),
        ((28, 28), 32),  # MNIST
        ((32, 32), 32),  # CIFAR
        ((40, 40), 48),  # as near to 32
        ((64, 64), 64),  # Tiny ImageNet
        ((96, 96), 96),  # STL-10
        ((111, 300), 96),
        ((300, 112), 128),
        ((175, 175), 160),
        ((176, 176), 192),
        ((500, 375), 224),  # ImageNet
        ((3000, 2000), 224),
    ],
)
def test_models_see_the_side_nearest_to_the_photographs(tmp_path: Path, size: tuple[int, int], resolution: int) -> None:
    found = Folder.look(folder_of(tmp_path, [size]))
    assert found.resolution == resolution >= SMALLEST_SIDE
    assert found.reason == (
        f"a sample of 2 images has a median shorter side of {min(size)} pixels, "
        f"and {resolution} is the nearest of 8, 16, 32, 48, 64, 96, 128, 160, 192, 224"
    )


@pytest.mark.parametrize(
    ("num_classes", "num_images", "num_seen"), [(2, 150, 200), (3, 4, 12), (7, 40, 196), (201, 2, 200)]
)
def test_the_sample_has_at_most_200_images_and_as_many_of_each_class(
    tmp_path: Path, num_classes: int, num_images: int, num_seen: int
) -> None:
    argument = folder_of(tmp_path, [(9, 9)] * num_images, num_classes=num_classes)
    assert Folder.look(argument).reason.startswith(f"a sample of {num_seen} images has ")


def test_a_large_class_of_thumbnails_does_not_outweigh_the_others(tmp_path: Path) -> None:
    folder_of(tmp_path, [(96, 96)] * 70, num_classes=3)
    for number in range(500):
        Image.new("1", (16, 16)).save(tmp_path / f"train/class0/thumbnail{number}.png")
    assert Folder.look(str(tmp_path)).resolution == 96


def test_the_same_folder_is_always_seen_the_same(tmp_path: Path) -> None:
    sizes = [(side, 300) for side in range(1, 241)]
    looks = {Folder.look(folder_of(tmp_path / name, sizes)) for name in ("here", "there")}
    looks.add(Folder.look(str(tmp_path / "here")))
    assert len(looks) == 1


def test_files_that_cannot_be_read_are_passed_over_and_counted(tmp_path: Path) -> None:
    argument = folder_of(tmp_path, [(32, 32)] * 3)
    (tmp_path / "train/class0/0.png").write_bytes(b"not an image")
    found = Folder.look(argument)
    assert found.resolution == 32
    assert found.reason.startswith("a sample of 5 images has ")
    assert found.reason.endswith("; 1 more could not be read")
    for path in tmp_path.glob("train/*/*"):
        path.write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"^image: must be readable at least once in a sample of '.*/train', got 6$"):
        Folder.look(argument)


def test_only_the_headers_are_read(tmp_path: Path) -> None:
    argument = folder_of(tmp_path, [(300, 200)])
    for path in tmp_path.glob("train/*/*"):
        path.write_bytes(path.read_bytes()[:50])
    assert Folder.look(argument).resolution == 192


def test_a_look_at_what_is_no_such_folder_says_what_opening_it_would(tmp_path: Path) -> None:
    for argument in (str(tmp_path / "none"), str(tmp_path)):
        with pytest.raises(DataError) as looking:
            Folder.look(argument)
        with pytest.raises(DataError) as opening:
            open_dataset(f"folder:{argument}", resolution=32)
        assert str(looking.value) == str(opening.value)


def test_pipes_and_devices_in_a_class_are_passed_over_here_and_in_validation(tmp_path: Path) -> None:
    root = write_folder(tmp_path, train={"a": 3, "b": 3}, val={"a": 2, "b": 2})
    before = open_dataset(f"folder:{root}", resolution=32).info
    for folder in ("train/a", "val/b"):
        os.mkfifo(root / folder / "pipe.jpg")
        (root / folder / "zero.jpg").symlink_to("/dev/zero")
        (root / folder / "gone.jpg").symlink_to(root / "nothing.jpg")
    assert open_dataset(f"folder:{root}", resolution=32).info == before
    assert len(open_folder(root, "val", Preprocessing(resolution=32), num_classes=2)) == 4


def test_a_link_to_a_folder_is_followed_and_one_that_leads_back_is_not(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", train={"a": 2, "b": 2}, val={"a": 1, "b": 1})
    write_image(tmp_path / "elsewhere/deep/9.jpg")
    (root / "train/a/more").symlink_to(tmp_path / "elsewhere")
    (root / "train/a/back").symlink_to(root / "train/a")
    (root / "train/b/itself").symlink_to(root / "train/b/itself")
    info = open_dataset(f"folder:{root}", resolution=32).info
    assert info.num_images["train"] + info.num_images["val"] == 5


@pytest.mark.parametrize(
    ("values", "rule"),
    [
        (np.full((20, 20), 0.5, np.float32), "mode F: floating-point values have no fixed range"),
        (np.full((20, 20), 70_000, np.int32), "mode I: values must be from 0 to 65535"),
        (np.full((20, 20), -1, np.int32), "mode I: values must be from 0 to 65535"),
    ],
)
def test_values_without_a_range_are_refused_by_the_search_and_by_validation_alike(
    tmp_path: Path, values: np.ndarray, rule: str
) -> None:
    root = write_folder(tmp_path, train={"a": 2, "b": 2}, val={"a": 1, "b": 1})
    Image.fromarray(values).save(root / "val/a/odd.png", "TIFF")  # the search takes no .tif
    folder = open_folder(root, "val", Preprocessing(resolution=32), num_classes=2)
    with pytest.raises(ImageFolderError, match=rule):
        measure_accuracy(torch.nn.Flatten(), folder, device=torch.device("cpu"))
    batches = open_dataset(f"folder:{root}", resolution=32).eval_batches("test", Recipe(), device=torch.device("cpu"))
    with pytest.raises(DataError, match=rule):
        list(batches)


def test_an_orientation_in_exif_is_applied_neither_by_the_search_nor_by_validation(tmp_path: Path) -> None:
    root = write_folder(tmp_path, train={"a": 2, "b": 2}, val={"a": 1, "b": 1})
    seen = Preprocessing(resolution=32, crop_pct=0.9)
    plain = [open_folder(root, "val", seen, num_classes=2)[0][0], _first(root)]
    exif = Image.Exif()
    exif[0x0112] = 6
    data = (root / "val/a/0.jpg").read_bytes()
    part = exif.tobytes()
    (root / "val/a/0.jpg").write_bytes(data[:2] + b"\xff\xe1" + (len(part) + 2).to_bytes(2, "big") + part + data[2:])
    with Image.open(root / "val/a/0.jpg") as turned:
        assert turned.getexif()[0x0112] == 6
    assert torch.equal(open_folder(root, "val", seen, num_classes=2)[0][0], plain[0])
    assert torch.equal(_first(root), plain[1])


def _first(root: Path) -> torch.Tensor:
    """The first test image as the search sees it."""
    dataset = open_dataset(f"folder:{root}", resolution=32)
    return next(iter(dataset.eval_batches("test", Recipe(), device=torch.device("cpu")))).x_BCHW[0]


# Fields of a recipe that folders follow


CPU = torch.device("cpu")
PLAIN = {"crop_scale": (0.5, 1), "flip": 0, "rand_augment": None, "random_erasing": 0, "mixup": 0, "cutmix": 0}


def recipe_of(**augmentation: object) -> Recipe:
    return Recipe(batch_size=8, augmentation=Augmentation.model_validate({**PLAIN, **augmentation}))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("images"), train={"a": 10, "b": 10}, val={"a": 1, "b": 1})


def images_of(photos: Path, recipe: Recipe) -> torch.Tensor:
    dataset = open_dataset(f"folder:{photos}", resolution=32)
    return torch.cat([batch.x_BCHW for batch in dataset.train_batches(recipe, epoch=0, seed=0, device=CPU)])


def test_each_interpolation_gives_other_images_and_random_one_of_the_two_for_each(photos: Path) -> None:
    found = {name: images_of(photos, recipe_of(train_interpolation=name)) for name in ("bicubic", "bilinear", "random")}
    assert not torch.equal(found["bicubic"], found["bilinear"])
    torch.testing.assert_close(images_of(photos, recipe_of()), found["bicubic"], rtol=0, atol=0)
    assert not torch.equal(found["random"], found["bicubic"])
    assert not torch.equal(found["random"], found["bilinear"])


def test_jitter_changes_colours_where_there_is_no_rand_augment(photos: Path) -> None:
    plain, jittered = images_of(photos, recipe_of()), images_of(photos, recipe_of(color_jitter=0.4))
    assert not torch.equal(plain, jittered)
    rand = "rand-m9-mstd0.5-inc1"
    without, beside = (images_of(photos, recipe_of(rand_augment=rand, color_jitter=jitter)) for jitter in (0.0, 0.4))
    assert torch.equal(without, beside)


def test_images_that_stand_several_times_in_an_epoch_are_refused() -> None:
    with pytest.raises(DataError, match=r"^augmentation.repeats: must be 1 for a folder, .*, got 3$"):
        Folder.check(recipe_of(repeats=3))
