"""Finished trials an hour, from the times at which trials ended."""

from collections.abc import Callable, Sequence
from statistics import median
from typing import NamedTuple


class Trial(NamedTuple):
    """One that has ended."""

    model: str
    params: int
    val_accuracy: float
    ended: float  # seconds since 1970


class Measured(NamedTuple):
    """A search."""

    trials: list[Trial]
    wall_seconds: float  # from the start of the command to its end
    prepare_seconds: float  # that came before it, once for a dataset
    num_at_a_time: int

    @property
    def rate(self) -> float:
        """Trials an hour of the command's whole time."""
        return 3600 * len(self.trials) / self.wall_seconds

    @property
    def rate_with_prepare(self) -> float:
        """The same with what came before the command."""
        return 3600 * len(self.trials) / (self.wall_seconds + self.prepare_seconds)

    @property
    def steady_rate(self) -> float:
        """Trials an hour between the ends of trials, when the search has started and has not ended."""
        return steady_rate([trial.ended for trial in self.trials], num_at_a_time=self.num_at_a_time)


def steady_rate(ended: Sequence[float], *, num_at_a_time: int) -> float:
    """Ends an hour after the first ones, of which there are as many as trials at a time, up to the last."""
    order = sorted(ended)
    first = order[num_at_a_time - 1]
    return 3600 * (len(order) - num_at_a_time) / (order[-1] - first)


class Ratio(NamedTuple):
    """Ours divided by the peer's, over rounds."""

    middle: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.middle:.2f} ({self.low:.2f}-{self.high:.2f})"


class Row(NamedTuple):
    """One kind of rate."""

    name: str
    ours: float  # trials an hour, median over rounds
    peer: float
    ratio: Ratio  # taken within a round


_RATES: dict[str, Callable[[Measured], float]] = {
    "whole command": lambda measured: measured.rate,
    "nas.prepare and whole command": lambda measured: measured.rate_with_prepare,
    "between trials": lambda measured: measured.steady_rate,
}


def make_rows(ours: Sequence[Measured], peer: Sequence[Measured]) -> list[Row]:
    """A row for each kind of rate; the searches of a round have the same place in both."""
    rows = []
    for name, rate_of in _RATES.items():
        mine, theirs = [rate_of(found) for found in ours], [rate_of(found) for found in peer]
        ratios = [a / b for a, b in zip(mine, theirs, strict=True)]
        rows.append(Row(name, median(mine), median(theirs), Ratio(median(ratios), min(ratios), max(ratios))))
    return rows
