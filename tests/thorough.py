"""What more of the same `make test-slow` tries."""

from collections.abc import Iterable
from typing import Any

import pytest


def thorough(values: Iterable[object]) -> list[Any]:
    """Parameters of a test that is run with a few others by `make test`, and with these by `make test-slow` alone."""
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]
