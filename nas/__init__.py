"""Search of architectures; `open_run` and `run_search` are for Python and notebooks, the programs for a shell.

They are loaded when they are first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nas.from_python import OpenedRun, open_run, run_search

__all__ = ["OpenedRun", "open_run", "run_search"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("nas.from_python"), name)
