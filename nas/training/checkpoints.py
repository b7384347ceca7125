"""Checkpoint files of trials, in folders on this machine or at any URI that fsspec knows (`s3://bucket/runs`).

Bytes only; what is in them is training's. It knows no torch, so that a report needs none.
"""

import errno
import io
import re
import zipfile
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import IO

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from metaformer.errors import UserError, shown

_PART = re.compile(r".+\.(\d+)\.part")
_NAME = re.compile(r"epoch-(\d{4,})(?:-step-(\d{7,}))?\.pt")
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_WILL_STAY = {*NO_ROOM, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR}
_TRIAL_FILE, _TRIAL_BYTES = "can-be-written", b"yes"
_PLACE = re.compile(r"/|[A-Za-z][A-Za-z0-9+.-]*://")  # an absolute path, or the URI of one store
_PROCESS_ONLY = {"memory"}  # filesystems that another process does not see


class DamagedCheckpointError(RuntimeError):
    """A checkpoint that cannot be read; the message says why."""


class StorageError(RuntimeError):
    """Storage of checkpoints that fails, through no fault of a trial; the message names the place and says why.

    Attributes:
        may_pass: Whether another try may work: true of a broken connection, false of a full disk.
    """

    def __init__(self, place: str, why: Exception, *, may_pass: bool) -> None:
        rule = "must be reachable" if may_pass else "must be writable and have room"
        super().__init__(f"checkpoints: {rule}, got {place} ({_one_line(why)})")
        self.may_pass = may_pass


class CheckpointFolder:
    """The checkpoints of one trial, by file name."""

    def __init__(self, place: str) -> None:
        """Takes a path or URI; nothing need be there yet.

        Raises:
            StorageError: No filesystem is known for such a URI here.
        """
        self._place = place
        try:
            self._filesystem, self._path = url_to_fs(place)
        except Exception as error:  # noqa: BLE001  every filesystem of fsspec raises what it likes
            raise StorageError(place, error, may_pass=False) from None

    def where(self, name: str) -> str:
        """Path or URI of a file, for people."""
        return f"{self._place.rstrip('/')}/{name}"

    def checkpoints(self) -> list[str]:
        """Names of the files from which training can go on, oldest first."""
        try:
            names = self._names()
        except OSError as error:
            raise StorageError(self._place, error, may_pass=not _will_stay(error)) from None
        return sorted(filter(_NAME.fullmatch, names), key=place_of)

    def _names(self) -> list[str]:
        """Names of the files that are there."""
        try:
            self._filesystem.invalidate_cache()  # another process may have written since the last look
            return [path.rpartition("/")[2] for path in self._filesystem.ls(self._path, detail=False)]
        except FileNotFoundError:
            return []

    def save(self, name: str, write: Callable[[IO[bytes]], object], *, attempt: int) -> None:
        """Write a file whole or not at all.

        Args:
            write: Writes the content into an open file.
            attempt: Of the trial; a worker that was given up may still be writing its own.
        Raises:
            StorageError: It cannot be written; what there was of it is gone.
        """
        part = f"{self._path}/{name}.{attempt}.part"
        try:
            self._filesystem.makedirs(self._path, exist_ok=True)
            self._remove(part)  # of a killed writer, or a link, which is never followed
            with self._filesystem.open(part, "xb" if self._is_local else "wb") as file:
                write(file)
            self._filesystem.mv(part, f"{self._path}/{name}")
            if attempt > 1:
                self._drop_parts_before(attempt)
        except (OSError, RuntimeError) as error:
            self._remove(part)
            found = os_error_in(error)  # torch.save raises a RuntimeError of its own on top of it
            if found is None:
                raise
            raise StorageError(self.where(name), found, may_pass=not _will_stay(found)) from None

    @property
    def _is_local(self) -> bool:
        return isinstance(self._filesystem, LocalFileSystem)

    def _drop_parts_before(self, attempt: int) -> None:
        """Remove what killed writers of earlier attempts left; one that was given up and still writes is not asked."""
        for name in self._names():
            match = _PART.fullmatch(name)
            if match and int(match[1]) < attempt:
                self._remove(f"{self._path}/{name}")

    def read(self, name: str) -> io.BytesIO:
        """The content of a file that torch has saved, after its checksums were compared; torch itself ignores them.

        Raises:
            DamagedCheckpointError: The file is not there, or not as it was written.
            StorageError: The storage does not answer.
        """
        content = self._content(name)
        try:
            with zipfile.ZipFile(content) as archive:
                damaged = archive.testzip()
        except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError, OSError) as error:
            raise DamagedCheckpointError(_one_line(error)) from None
        if damaged is not None:
            raise DamagedCheckpointError(f"wrong checksum of {damaged}")
        content.seek(0)
        return content

    def keep(self, names: Collection[str]) -> None:
        """Remove all other files from which training could go on."""
        for name in self.checkpoints():
            if name not in names:
                self._remove(f"{self._path}/{name}")

    def has(self, name: str) -> bool:
        """Whether a file is there."""
        self._filesystem.invalidate_cache()
        return bool(self._filesystem.exists(f"{self._path}/{name}"))

    def copy(self, name: str, target: Path) -> None:
        """Write a file's content to a file of this machine, after its checksums were compared.

        Raises:
            DamagedCheckpointError: As `read`.
            StorageError: The storage does not answer.
        """
        target.write_bytes(self.read(name).getbuffer())

    def drop(self) -> None:
        """Remove all of it, as far as it is there and can be removed: what stays behind only takes up room."""
        with suppress(OSError):
            self._filesystem.rm(self._path, recursive=True)

    def _content(self, name: str) -> io.BytesIO:
        try:
            return io.BytesIO(self._filesystem.cat_file(f"{self._path}/{name}"))
        except (ConnectionError, TimeoutError) as error:
            raise StorageError(self.where(name), error, may_pass=True) from None
        except OSError as error:
            raise DamagedCheckpointError(_one_line(error)) from None

    def _remove(self, path: str) -> None:
        with suppress(OSError):  # as in `drop`
            self._filesystem.rm_file(path)


def checkpoint_name(epoch: int, step: int = 0) -> str:
    """File name of the checkpoint after so many epochs, and so many steps of the next one."""
    return f"epoch-{epoch:04d}-step-{step:07d}.pt" if step else f"epoch-{epoch:04d}.pt"


def is_checkpoint_name(name: str) -> bool:
    """Whether a file's name says after how many epochs it was written."""
    return _NAME.fullmatch(name) is not None


def place_of(name: str) -> tuple[int, int]:
    """The epochs and steps after which a checkpoint was written; past all of them for any other file name."""
    match = _NAME.fullmatch(name)
    return (int(match[1]), int(match[2] or 0)) if match else (10**9, 0)


def folder_of(place: str, trial: int) -> str:
    """Path or URI of a trial's checkpoints among those of its run."""
    return f"{place.rstrip('/')}/{trial:05d}"


def absolute(place: str) -> str:
    """The place as every process of a search may name it: a URI as it is, a path from the root.

    Raises:
        UserError: It begins with the home of somebody who has none.
    """
    if "://" in place or "::" in place:
        return place
    try:
        return str(Path(place).expanduser().absolute())
    except RuntimeError as error:
        raise _unusable(place, error) from None


def check_place(place: str, *, is_new: bool) -> None:
    """Check that checkpoints can be written to a path or URI and read again.

    Args:
        is_new: Whether the study begins; then nothing may lie there, since it may be another study's.
    Raises:
        UserError: They cannot, or something lies there.
    """
    if "::" in place or not _PLACE.match(place):
        raise _unusable(place, ValueError("no store by itself"))
    try:
        filesystem, path = url_to_fs(place)
        protocols = {filesystem.protocol} if isinstance(filesystem.protocol, str) else set(filesystem.protocol)
        if protocols & _PROCESS_ONLY:
            raise UserError(f"checkpoints: must be where every process can read them, got {place!r}")
        if is_new and filesystem.exists(path) and filesystem.ls(path, detail=False):
            raise UserError(f"checkpoints: must be empty for a new study, got {place!r}, where something lies")
        filesystem.makedirs(path, exist_ok=True)
        filesystem.pipe_file(f"{path}/{_TRIAL_FILE}", _TRIAL_BYTES)
        kept = filesystem.cat_file(f"{path}/{_TRIAL_FILE}")
        filesystem.rm_file(f"{path}/{_TRIAL_FILE}")
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001  every filesystem of fsspec raises what it likes
        raise _unusable(place, error) from None
    if kept != _TRIAL_BYTES:
        raise _unusable(place, ValueError("what was written is not what is read"))


def os_error_in(error: BaseException | None) -> OSError | None:
    """The operating system's error that an error is, or that it came of."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def _will_stay(error: OSError) -> bool:
    """Whether it is no use to try again before a person has put it right."""
    return error.errno in _WILL_STAY or isinstance(error, PermissionError)


def _unusable(place: str, error: Exception) -> UserError:
    rule = "must be a folder that can be written to, or a URI that fsspec knows"
    return UserError(f"checkpoints: {rule}, got {shown(place)} ({_one_line(error)[:100]})")


def _one_line(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(text.split())[:200] or type(error).__name__
