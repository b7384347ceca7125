"""A cache of decoded datasets: made once, found again, and within its limit."""

from pathlib import Path

import pytest

from nas.data import DataError, open_dataset
from nas.data.sources.cached import Cache, is_decoded
from nas.data.sources.folder import FolderSource
from tests.nas.images import write_folder, write_image

MANY_BYTES = 2**30
TRAIN, VAL = {"a": 12, "b": 14}, {"a": 3, "b": 4}

pytestmark = pytest.mark.timeout(600)  # processes that decode load torch, which takes its time on a busy machine


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("images"), train=TRAIN, val=VAL)


@pytest.mark.slow
def test_a_copy_is_made_once_and_found_again(folder: Path, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", most_bytes=MANY_BYTES)
    told: list[tuple[int, int]] = []
    kept = [
        cache.keep(
            FolderSource(str(folder)),
            resolution=16,
            bad_images="stop",
            progress=lambda done, total: told.append((done, total)),
        )
        for _ in range(2)
    ]
    assert kept[0] == kept[1]
    info, of_folder = (open_dataset(name, resolution=16).info for name in (kept[0], f"folder:{folder}"))
    assert info.num_images == of_folder.num_images
    assert info.class_names == of_folder.class_names
    num_images = sum(info.num_images.values())
    assert sum(done for done, _ in told) == num_images  # decoded once
    assert {total for _, total in told} == {num_images}


def test_another_side_or_other_images_are_another_copy(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "images", train=TRAIN, val=VAL)
    cache = Cache(tmp_path / "cache", most_bytes=MANY_BYTES)
    first = cache.keep(FolderSource(str(folder)), resolution=16, bad_images="stop")
    assert cache.keep(FolderSource(str(folder)), resolution=32, bad_images="stop") != first
    write_image(next(folder.glob("train/*")) / "one_more.png")
    assert cache.keep(FolderSource(str(folder)), resolution=16, bad_images="stop") != first


def test_what_would_exceed_the_limit_is_refused_before_it_is_decoded(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "cache/earlier").mkdir(parents=True)
    (tmp_path / "cache/earlier/train.npy").write_bytes(bytes(90_000))
    message = (
        r"^cache: must have room for 0.1 MiB of decoded images, got 0.0 MiB that --cache-limit leaves in '.*cache'$"
    )
    with pytest.raises(DataError, match=message):
        Cache(tmp_path / "cache", most_bytes=100_000).keep(FolderSource(str(folder)), resolution=32, bad_images="stop")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["earlier"]


def test_what_is_decoded_already_needs_no_copy(folder: Path) -> None:
    assert is_decoded("digits")
    assert is_decoded("prepared:/fast/cifar10")
    assert not is_decoded(f"folder:{folder}")
