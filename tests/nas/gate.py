"""A gate in each training, at which a test knows where a search stands.

The search is given its `data`: the digits, batch for batch. In `tests.nas.gated` the gate is before the third epoch: a
worker that has come to it has reported two epochs, and both are recorded. In `tests.nas.gated_within` it is in the
middle of the first epoch.
"""

from collections.abc import Callable
from pathlib import Path


class Gate:
    """Workers come to it one after another, numbered from 0, and wait until it is opened."""

    def __init__(self, folder: Path, *, data: str = "tests.nas.gated") -> None:
        folder.mkdir(parents=True)
        self._folder = folder.absolute()
        self.data = f"{data}:{self._folder}"

    def reached(self, number: int) -> Callable[[], bool]:
        """Whether the worker of that number is there, or has been."""
        return (self._folder / f"reached-{number}").exists

    def open(self, *numbers: int) -> None:
        """Let these workers pass, also those that have yet to come."""
        for number in numbers:
            (self._folder / f"open-{number}").touch()

    def open_for_all(self) -> None:
        """Let everyone pass from now on."""
        (self._folder / "open").touch()
