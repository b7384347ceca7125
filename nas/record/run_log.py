"""The log of a run: what its driver did and when, in the run's folder.

It is kept to a few files of a limited size: `run.log`, and before it `run.log.1`, `run.log.2`, … A file is renamed
whole, so who reads one meanwhile reads on in the same.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import RotatingFileHandler
from pathlib import Path

MOST_BYTES = 10 * 2**20  # of one file
NUM_EARLIER = 3  # files beside the last
_LONGEST = 4096  # bytes of a line, more or less
_LOGGER = logging.getLogger("nas")


class _Handler(RotatingFileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  logging's own name
        """Nothing: a log that cannot be written stops no search, whose record says what is wrong with the disk."""
        del record


@contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Append what the package logs to a file until the block ends."""
    handler = _Handler(path, maxBytes=MOST_BYTES, backupCount=NUM_EARLIER, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    level, propagate = _LOGGER.level, _LOGGER.propagate
    _LOGGER.addHandler(handler)
    _LOGGER.setLevel(logging.INFO)
    _LOGGER.propagate = False  # the console shows what people need there
    try:
        yield
    finally:
        _LOGGER.removeHandler(handler)
        _LOGGER.setLevel(level)
        _LOGGER.propagate = propagate
        handler.close()


def last_lines(path: Path, number: int) -> list[str]:
    """The last lines of a log, oldest first, those of the file before it too where it has just begun anew."""
    lines = _tail(path, number)
    if len(lines) < number:
        lines = _tail(path.with_name(f"{path.name}.1"), number - len(lines)) + lines
    return lines


def _tail(path: Path, number: int) -> list[str]:
    """The last lines of a file; none where there is no file that can be read."""
    if number < 1 or not path.is_file():
        return []
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - number * _LONGEST))
            return file.read().decode(errors="replace").splitlines()[-number:]
    except OSError:
        return []
