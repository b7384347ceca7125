"""What more of the same `make test-slow` tries, and how often it strikes."""

import os
from collections.abc import Iterable, Sequence
from typing import Any

import pytest

ALL_STRIKES = "ALL_STRIKES"  # a variable of the environment


with_all_strikes = pytest.mark.skipif(
    not os.environ.get(ALL_STRIKES),
    reason=f"takes minutes; {ALL_STRIKES}=1 runs it",
)


def strikes(number: int) -> int:
    """How many drivers, workers or nodes a test takes away: a tenth of the number, all of it with ALL_STRIKES=1."""
    return number if os.environ.get(ALL_STRIKES) else max(2, number // 10)


def thorough(values: Iterable[object]) -> list[Any]:
    """Parameters of a test that is run with a few others by `make test`, and with these by `make test-slow` alone."""
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]


def every_third(values: Sequence[object]) -> list[Any]:
    """The same parameters, of which `make test` tries every third."""
    return [value if not place % 3 else thorough([value])[0] for place, value in enumerate(values)]


def every_third_row(rows: Sequence[tuple[Any, ...]]) -> list[Any]:
    """The same where each test takes several parameters."""
    return [row if not place % 3 else pytest.param(*row, marks=pytest.mark.slow) for place, row in enumerate(rows)]
