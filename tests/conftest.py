"""What holds for every test."""

import pytest
from hypothesis import settings

# No deadline: a property is never timed. The same examples in every run, so that a failure comes again;
# `pytest --hypothesis-profile explore` looks further.
settings.register_profile("repeat", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=2000)
settings.load_profile("repeat")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep groups of xdist together: 3.8 notes them where pytest 9.2 no longer looks (pytest-xdist issue 1386)."""
    for item in items:
        noted, identity = getattr(item, "_nodeid", None), getattr(item, "_id", None)
        if noted and identity:
            item._id = type(identity).parse(noted)  # type: ignore[attr-defined]
