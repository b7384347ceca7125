"""Python's search for cycles of objects that nobody uses any more, put off while very many objects are made."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collection() -> Iterator[None]:
    """Inside the block no cycles are searched for.

    Python searches the sooner the more objects are made, and each search goes through all that are there. Where nearly
    all of them stay, as those of a record do, that takes as long as to make them.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
