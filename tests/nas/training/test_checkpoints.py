"""Checkpoint files on every kind of filesystem that is here, on a disk that is full, and damaged."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO
from uuid import uuid4

import pytest
import torch
from fsspec.core import url_to_fs

from metaformer.errors import UserError
from nas.training.checkpoints import (
    CheckpointFolder,
    DamagedCheckpointError,
    StorageError,
    absolute,
    check_place,
    checkpoint_name,
    folder_of,
    place_of,
)

STATE = {"weights": torch.arange(1000.0)}


@pytest.fixture(params=["path", "file://", "dir::file://", "memory://"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder that is not there yet."""
    folder = tmp_path / "checkpoints" / "00007"
    return str(folder) if request.param == "path" else f"{request.param}{folder}{uuid4().hex}"


def save(folder: CheckpointFolder, name: str, state: object = STATE) -> None:
    folder.save(name, partial(torch.save, state), attempt=1)


def test_what_was_saved_is_read_again(place: str) -> None:
    save(CheckpointFolder(place), checkpoint_name(1))
    read = torch.load(CheckpointFolder(place).read(checkpoint_name(1)), weights_only=True)
    assert torch.equal(read["weights"], STATE["weights"])
    assert CheckpointFolder(place).has(checkpoint_name(1))


def test_only_the_checkpoints_to_be_kept_stay(place: str) -> None:
    folder = CheckpointFolder(place)
    assert folder.checkpoints() == []
    oldest_first = [checkpoint_name(*done) for done in ((0, 7), (1, 0), (2, 0), (2, 9), (2, 10), (3, 0), (10, 0))]
    for name in sorted(oldest_first, reverse=True):
        save(folder, name)
    save(folder, "weights.pt")
    assert folder.checkpoints() == oldest_first
    folder.keep(oldest_first[3:5])
    assert CheckpointFolder(place).checkpoints() == oldest_first[3:5]
    assert folder.has("weights.pt")


def test_the_place_of_a_checkpoint_is_in_its_name() -> None:
    for done in ((0, 1), (3, 0), (12, 1234567), (123456, 12345678)):
        assert place_of(checkpoint_name(*done)) == done
    assert place_of("weights.pt") > place_of(checkpoint_name(99999, 99999))


def test_a_folder_that_was_dropped_is_gone_and_may_be_dropped_again(place: str) -> None:
    folder = CheckpointFolder(place)
    save(folder, "weights.pt")
    for _ in range(2):
        folder.drop()
        assert not folder.has("weights.pt")


def test_a_copy_holds_what_was_saved(place: str, tmp_path: Path) -> None:
    folder = CheckpointFolder(place)
    save(folder, "weights.pt")
    folder.copy("weights.pt", tmp_path / "copy.pt")
    assert torch.equal(torch.load(tmp_path / "copy.pt", weights_only=True)["weights"], STATE["weights"])


def test_a_write_that_breaks_off_leaves_what_was_there_before_and_nothing_else(place: str) -> None:
    folder = CheckpointFolder(place)
    save(folder, checkpoint_name(1))

    def write(file: IO[bytes]) -> None:
        file.write(b"the first half")
        raise ConnectionResetError("the connection was reset")

    with pytest.raises(StorageError, match=r"checkpoints: must be reachable, got .*0001.pt \(the conn.*\)$") as caught:
        folder.save(checkpoint_name(1), write, attempt=2)
    assert caught.value.may_pass
    folder.read(checkpoint_name(1))
    names = [path.rpartition("/")[2] for path in folder._filesystem.ls(folder._path, detail=False)]
    assert names == [checkpoint_name(1)]


def test_a_link_in_place_of_what_is_being_written_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious", encoding="utf-8")
    (tmp_path / "trial").mkdir()
    for name in ("weights.pt.1.part", "weights.pt"):
        (tmp_path / "trial" / name).symlink_to(victim)
    save(CheckpointFolder(str(tmp_path / "trial")), "weights.pt")
    assert victim.read_text(encoding="utf-8") == "precious"
    assert [path.name for path in (tmp_path / "trial").iterdir() if not path.is_symlink()] == ["weights.pt"]


def test_what_killed_writers_left_goes_with_the_next_attempt(place: str) -> None:
    folder = CheckpointFolder(place)
    filesystem, path = url_to_fs(place)
    filesystem.makedirs(path, exist_ok=True)
    for name in ("epoch-0001.pt.1.part", "epoch-0002.pt.2.part", "epoch-0002.pt.4.part", "notes.part"):
        filesystem.pipe_file(f"{path}/{name}", b"half")
    folder.save("epoch-0002.pt", partial(torch.save, STATE), attempt=3)
    left = {found.rpartition("/")[2] for found in filesystem.ls(path, detail=False)}
    assert left == {"epoch-0002.pt", "epoch-0002.pt.4.part", "notes.part"}


def test_a_full_disk_leaves_what_was_there_before_and_nothing_else(small_disk: Path) -> None:
    folder = CheckpointFolder(str(small_disk / "00000"))
    save(folder, checkpoint_name(1))
    large = {"weights": torch.zeros(1_000_000)}
    with pytest.raises(
        StorageError, match="checkpoints: must be writable and have room, got .*No space left"
    ) as caught:
        save(folder, checkpoint_name(2), large)
    assert not caught.value.may_pass
    assert [path.name for path in (small_disk / "00000").iterdir()] == [checkpoint_name(1)]
    folder.read(checkpoint_name(1))


def flip_a_bit(content: bytes) -> bytes:
    """Somewhere in the weights, where torch itself does not see it."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize(
    "damage", [flip_a_bit, lambda content: content[: len(content) // 2], lambda _: b"", lambda _: b"other content" * 99]
)
def test_a_damaged_file_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    folder = CheckpointFolder(str(tmp_path))
    save(folder, "weights.pt")
    path = tmp_path / "weights.pt"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DamagedCheckpointError):
        folder.read("weights.pt")


def test_a_file_that_is_not_there_is_refused(place: str) -> None:
    with pytest.raises(DamagedCheckpointError):
        CheckpointFolder(place).read("weights.pt")


def test_a_scheme_that_is_not_known_is_refused() -> None:
    with pytest.raises(StorageError, match=r"got nosuch://runs \(Protocol not known: nosuch\)") as caught:
        CheckpointFolder("nosuch://runs")
    assert not caught.value.may_pass
    with pytest.raises(UserError, match=r"checkpoints: must be .* a URI that fsspec knows, got 'nosuch://runs'"):
        check_place("nosuch://runs", is_new=True)


def test_a_place_that_others_use_is_not_for_a_new_study(tmp_path: Path) -> None:
    check_place(str(tmp_path / "new"), is_new=True)
    check_place(f"file://{tmp_path}/new", is_new=True)
    assert not list((tmp_path / "new").iterdir())
    (tmp_path / "new" / "00000").mkdir()
    check_place(str(tmp_path / "new"), is_new=False)
    with pytest.raises(UserError, match="checkpoints: must be empty for a new study, got '.*new', where"):
        check_place(str(tmp_path / "new"), is_new=True)


def test_a_place_that_cannot_be_written_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        UserError, match=r"checkpoints: must be a folder that can be written to.* got '.*file/inner' \("
    ):
        check_place(str(tmp_path / "file" / "inner"), is_new=True)


def test_memory_that_other_processes_do_not_see_is_refused() -> None:
    with pytest.raises(UserError, match="checkpoints: must be where every process can read them, got 'memory://runs'"):
        check_place("memory://runs", is_new=True)


def test_a_path_becomes_absolute_and_a_uri_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute("runs") == str(tmp_path / "runs")
    assert absolute("s3://bucket/runs") == "s3://bucket/runs"
    assert folder_of("s3://bucket/runs/", 7) == folder_of("s3://bucket/runs", 7) == "s3://bucket/runs/00007"
