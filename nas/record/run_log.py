"""The log of a run: what its driver did and when, in the run's folder."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LOGGER = logging.getLogger("nas")


class _Handler(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  logging's own name
        """Nothing: a log that cannot be written stops no search, whose record says what is wrong with the disk."""
        del record


@contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Append what the package logs to a file until the block ends."""
    handler = _Handler(path, encoding="utf-8")
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
