"""One form for everything that can be wrong in something a person wrote down."""

import difflib
from collections.abc import Iterable

from pydantic import BaseModel, ValidationError


class UserError(ValueError):
    """Something a person can put right; the message is one line. Programs print it and end with code 2."""


class ArchitectureError(UserError):
    """An architecture that cannot be read, built or run as asked; the message names field, rule and value."""


class CheckpointError(UserError):
    """Weights that cannot be had, read or fitted into an architecture."""


def nearest_first(name: str, known: Iterable[str]) -> list[str]:
    """The known names, those most like `name` first, the rest in their own order."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    return close + [other for other in names if other not in close]


def unknown_name(field: str, name: str, known: Iterable[str]) -> str:
    """One line for a name that is not known: field, value and the known names, nearest first."""
    names = nearest_first(name, known)
    shown = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
    return f"{field}: unknown name {name!r}; known, nearest first: {shown}"


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """One line for the first thing pydantic found wrong: path of the field, rule, value, nearest known field."""
    first = error.errors(include_url=False)[0]
    path = ".".join(str(part) for part in first["loc"])
    rule = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        key = str(first["loc"][-1])
        known = _fields_at(model, first["loc"][:-1])
        text = unknown_name(path, key, known) if known else f"{path}: no such field"
    elif not path or rule.startswith(path):
        text = rule
    elif first["type"] == "value_error" and ("got " in rule or "unknown name" in rule):
        text = f"{path}: {rule}"
    elif first["type"] == "missing":
        text = f"{path}: must be given"
    else:
        text = f"{path}: {rule[0].lower()}{rule[1:]}, got {first['input']!r}"
    more = error.error_count() - 1
    one_line = " ".join(text.splitlines())  # a field's name may hold anything
    return one_line + (f" (and {more} more)" if more else "")


def _fields_at(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """Names of the fields of the model that sits at `path` below `model`; empty where it cannot be told."""
    current: type[BaseModel] | None = model
    for part in path:
        if isinstance(part, int) or current is None:
            continue
        field = current.model_fields.get(part)
        current = _model_in(field.annotation) if field else None
    return list(current.model_fields) if current else []


def _model_in(annotation: object) -> type[BaseModel] | None:
    """The pydantic model in an annotation such as `Stage`, `Mlp | None` or `tuple[Stage, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = _model_in(inner)
        if found:
            return found
    return None
