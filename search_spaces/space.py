"""Search spaces by name, and all that is needed to write one."""

from collections.abc import Callable

from metaformer.errors import UserError, check_new_name, check_subclass, check_type, shown, unknown_name
from search_spaces.base import (
    HEAD_SIZE,
    SMALL_IMAGES,
    SMALL_WIDTHS,
    Choice,
    CostName,
    Gene,
    Genes,
    Limits,
    SearchSpace,
    SpaceError,
    SpaceSettings,
    Suggester,
)
from search_spaces.union import JOIN, Union

__all__ = [
    "HEAD_SIZE",
    "SMALL_IMAGES",
    "SMALL_WIDTHS",
    "Choice",
    "CostName",
    "Gene",
    "Genes",
    "Limits",
    "SearchSpace",
    "SpaceError",
    "SpaceSettings",
    "Suggester",
    "Union",
    "get",
    "names",
    "register_space",
]

_SPACES: dict[str, type[SearchSpace]] = {}


def register_space(name: str) -> Callable[[type[SearchSpace]], type[SearchSpace]]:
    """Make a class the space called `name`.

    Raises:
        UserError: The name is taken, or what is registered is no space.
    """
    check_new_name("space", name, _SPACES)
    if JOIN in name:
        raise UserError(f"space: must be registered without {JOIN}, which joins spaces, got {shown(name)}")

    def register(cls: type[SearchSpace]) -> type[SearchSpace]:
        check_subclass("space", cls, SearchSpace)
        cls.name = name
        _SPACES[name] = cls
        return cls

    return register


def names() -> list[str]:
    """Names of all spaces."""
    return list(_SPACES)


def get(name: str, settings: SpaceSettings | None = None) -> SearchSpace:
    """The space called `name`, or the union of several joined by +, fitted to `settings`.

    Args:
        settings: By default ImageNet at 224 pixels.
    Raises:
        SpaceError: A space has no such name, or stands there twice.
    """
    check_type(name, str, "space: must be a name", error=SpaceError)
    check_type(settings, (SpaceSettings, type(None)), "settings: must be SpaceSettings", error=SpaceError)
    settings = settings or SpaceSettings()
    parts = name.split(JOIN)
    for place, part in enumerate(parts):
        if len(parts) > 1 and not part:
            raise SpaceError(f"space: must have a name on both sides of {JOIN}, got {shown(name)}")
        if part not in _SPACES:
            raise SpaceError(unknown_name("space", part, _SPACES))
        if part in parts[:place]:
            raise SpaceError(f"space: must have each name of a union once, got {shown(name)}")
    return Union([_SPACES[part] for part in parts], settings) if len(parts) > 1 else _SPACES[name](settings)
