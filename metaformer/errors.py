"""One form for everything that can be wrong in something a person wrote down."""

import difflib
import re
import reprlib
from collections.abc import Collection, Iterable

from pydantic import BaseModel, ValidationError

_MOST_SHOWN = 100  # characters of one value in a message
_MOST_NAMES = 12  # known names in a message
_MOST_OF_NAMES = 140  # characters of them together
LONGEST_LINE = 300  # characters of what a program prints about an error
_SECRETS = (
    re.compile(r"(?P<before>://[^:/@\s]*:)\S*(?=@)"),
    re.compile(r"(?P<before>[?&\s]password=)[^&\s']*"),
)


class UserError(ValueError):
    """Something a person can put right; the message is one line. Programs print it and end with code 2."""


def check_type(value: object, types: type | tuple[type, ...], rule: str, *, error: type[UserError]) -> None:
    """Check the type of what a caller gave; yes and no are no numbers.

    Args:
        rule: The field and what it must be, such as `resolution: must be a whole number`.

    Raises:
        UserError: Of the class `error`: it has another type.
    """
    if not isinstance(value, types) or (isinstance(value, bool) and types is not bool):
        raise error(f"{rule}, got {shown(value)}")


def check_new_name(field: str, name: object, known: Collection[str]) -> None:
    """Check the name under which something is registered.

    Raises:
        UserError: It is no text, or taken.
    """
    check_type(name, str, f"{field}: must be registered under a name", error=UserError)
    if name in known:
        raise UserError(f"{field}: must be registered once, got {shown(name)} again")


def check_subclass(field: str, made: object, base: type) -> None:
    """Check that what is registered is a class of the right kind.

    Raises:
        UserError: It is not.
    """
    if not (isinstance(made, type) and issubclass(made, base)):
        raise UserError(f"{field}: must be a subclass of {base.__name__}, got {shown(made)}")


class ArchitectureError(UserError):
    """An architecture that cannot be read, built or run as asked; the message names field, rule and value."""


class CheckpointError(UserError):
    """Weights that cannot be had, read or fitted into an architecture."""


def mask_passwords(text: str) -> str:
    """The text with `***` for every password of a URL in it, also of one that cannot be parsed."""
    for secret in _SECRETS:
        text = secret.sub(r"\g<before>***", text)
    return text


def printable(text: str) -> str:
    """The text with escapes in place of control characters and what no terminal shows; line ends stay."""
    return "".join(
        char if char.isprintable() or char == "\n" else char.encode("unicode_escape", "surrogatepass").decode()
        for char in text
    )


def as_line(path: object) -> str:
    """The text of a path as it is printed: escapes in place of control characters and line ends."""
    return printable(str(path)).replace("\n", "\\n")


def one_line(text: str, most: int = LONGEST_LINE) -> str:
    """The text as one printable line of at most `most` characters; the middle of a longer one is left out."""
    line = printable(" ".join(text[: 100 * most].split()))
    if len(line) <= most:
        return line
    end = most // 3
    return f"{line[: most - end - 3]} … {line[-end:]}"


class _Short(reprlib.Repr):
    """`repr` that looks at no more of a value than it shows."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = _MOST_SHOWN
        self.maxlevel = 3

    def repr_int(self, value: int, level: int) -> str:
        """A number; of one with more digits than Python writes out, their count alone."""
        try:
            return super().repr_int(value, level)
        except ValueError:
            return f"a whole number of {value.bit_length()} bits"


def shown(value: object) -> str:
    """A value as a message shows it: one line, at most 100 characters, however large the value is."""
    return one_line(_Short().repr(value), _MOST_SHOWN)


def nearest_first(name: str, known: Iterable[str]) -> list[str]:
    """The known names, those most like `name` first, the rest in their own order."""
    names = list(known)
    close = difflib.get_close_matches(name[:_MOST_SHOWN], names, n=3, cutoff=0.4)
    return close + [other for other in names if other not in close]


def unknown_name(field: str, name: str, known: Iterable[str]) -> str:
    """One line for a name that is not known: field, value and the known names, nearest first."""
    names = nearest_first(name, known)
    num_shown, room = 0, _MOST_OF_NAMES
    while num_shown < min(len(names), _MOST_NAMES) and (room := room - len(names[num_shown]) - 2) >= 0:
        num_shown += 1
    left_out = len(names) - num_shown
    listed = ", ".join(names[:num_shown]) + (f" and {left_out} more" if left_out else "")
    return f"{field}: unknown name {shown(name)}; known, nearest first: {listed}"


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """One line for the first thing pydantic found wrong: path of the field, rule, value, nearest known field."""
    first = error.errors(include_url=False)[0]
    path = one_line(".".join(str(part) for part in first["loc"]), _MOST_SHOWN)
    rule = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        key = str(first["loc"][-1])
        known = _fields_at(model, first["loc"][:-1])
        text = unknown_name(path, key, known) if known else f"{path}: no such field"
    elif not path or rule.startswith(path):
        text = rule
    elif rule.partition(": ")[0].partition(".")[0] in _fields_at(model, first["loc"]):
        text = f"{path}.{rule}"  # a rule between the fields of a part of the whole
    elif first["type"] == "value_error" and ("got " in rule or "unknown name" in rule):
        text = f"{path}: {rule}"
    elif first["type"] == "missing":
        text = f"{path}: must be given"
    else:
        text = f"{path}: {rule[0].lower()}{rule[1:]}, got {shown(first['input'])}"
    more = error.error_count() - 1
    return one_line(text) + (f" (and {more} more)" if more else "")


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
