"""What a training shows of its progress, on stderr."""

import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self

from metaformer.cli.console import progress_bar
from nas.results.words import duration_text

_LINE_EVERY = 15.0  # seconds between lines where there is no terminal


class Narrator:
    """A bar on a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        self._bar = progress_bar()
        self._console = self._bar.console  # which prints above the bar
        self._task = self._bar.add_task("", total=None)
        self._what, self._start, self._first, self._last_line = "", 0.0, 0, time.monotonic()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def say(self, text: str) -> None:
        """Print a line now."""
        self._console.print(text)

    def tell(self, what: str, done: int, total: int, note: str) -> None:
        """Show how much is done; what is done anew begins a new clock."""
        now = time.monotonic()
        if what != self._what:
            self._what, self._start, self._first = what, now, done
        self._bar.update(self._task, total=total, completed=done, description=" ".join(filter(None, (what, note))))
        if not self._console.is_terminal and now - self._last_line >= _LINE_EVERY:
            self._last_line = now
            self.say(", ".join(filter(None, (f"{what}: {done:,} of {total:,}", note, self._left(now, done, total)))))

    def _left(self, now: float, done: int, total: int) -> str:
        if done == self._first:
            return ""
        return f"about {duration_text((now - self._start) / (done - self._first) * (total - done))} left"

    def watch(self, steps: Iterable[None], total: int) -> Iterator[None]:
        """The steps, shown as they are done."""
        for number, step in enumerate(steps, start=1):
            yield step
            self.tell("checking label maps", number, total, "")
