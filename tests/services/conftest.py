"""What tests with services share."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.services.browser import running_browser


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    with running_browser() as browser:
        yield browser
