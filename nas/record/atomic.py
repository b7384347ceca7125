"""Files and folders that are replaced whole."""

import glob
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from metaformer.documents import check_path
from metaformer.errors import UserError, shown


def replace_text(path: Path, text: str) -> None:
    """Write a file so that at any moment either the old one is there or the new one, whole."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """An empty file to write, which takes the place of `path` when the block ends well, and goes when it does not.

    Neither is a symbolic link followed: a link in place of `path` is replaced. What killed writers left goes as well.
    """
    _drop_parts_of_the_dead(path)
    part = part_of(path)
    try:
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666))
        yield part
        part.replace(path)
    except BaseException:  # an interrupt too
        part.unlink(missing_ok=True)
        raise


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """An empty folder to fill, which becomes `path` when the block ends well, and goes when it does not.

    Where `path` is a folder already its files are replaced one by one, each whole, and others stay.
    """
    _drop_parts_of_the_dead(path)
    part = part_of(path)
    part.mkdir()
    try:
        yield part
        if path.is_dir():
            for file in sorted(part.iterdir()):
                file.replace(path / file.name)
            part.rmdir()
        else:
            part.replace(path)
    except BaseException:  # an interrupt too
        shutil.rmtree(part, ignore_errors=True)
        raise


def check_free(path: Path, option: str, *, force: bool) -> None:
    """Check that a file may be written.

    Raises:
        UserError: Its folder is not there, something lies there that is not to be replaced, or is no regular file.
    """
    check_path(path, option, error=UserError)
    if path.is_dir() or not path.parent.is_dir():
        raise UserError(f"{option}: must be a file in a folder that exists, got {str(path)!r}")
    if (path.exists() or path.is_symlink()) and not force:
        raise UserError(f"{option}: must be a new file, or take --force to replace it, got {str(path)!r}")
    if path.exists() and not path.is_file():  # such as /dev/null, which a program as root could replace
        raise UserError(f"{option}: must be a regular file where there is one, got {str(path)!r}")


def unwritable(option: str, path: Path, error: OSError) -> UserError:
    """What to raise where a file that was asked for cannot be written."""
    reason = error.strerror or type(error).__name__
    return UserError(f"{option}: must be a file that can be written, got {shown(str(path))} ({reason})")


def part_of(path: Path) -> Path:
    """Where a file is written until it is whole; two programs that write the same file do not meet there."""
    return path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.part")


def is_alive(pid: int) -> bool:
    """Whether a process of this machine runs."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # of another user
        return True
    return True


def _drop_parts_of_the_dead(path: Path) -> None:
    """Remove what processes of this machine that have ended left of a file; of others nothing can be told."""
    for part in path.parent.glob(f".{glob.escape(path.name)}.{glob.escape(socket.gethostname())}.*.part"):
        pid = part.name.split(".")[-2]
        is_ours = pid.isascii() and pid.isdigit()
        if is_ours and (int(pid) == os.getpid() or not is_alive(int(pid))):  # of an earlier process of this number
            with suppress(OSError):
                if part.is_dir() and not part.is_symlink():
                    shutil.rmtree(part)
                else:
                    part.unlink()
