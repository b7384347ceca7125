"""Reading what people write: YAML mappings, safely, with one clear line for whatever is wrong."""

import errno
import hashlib
import os
import re
import stat
from collections.abc import Hashable
from pathlib import Path

import yaml

from metaformer.errors import UserError, check_type, one_line, shown

_MOST_CHARACTERS = 2**18  # of a document; the largest of ours have a twentieth
_MOST_BYTES = 2**24  # of a file, such as a table of curves
_MOST_NODES = 20_000  # of a document, what an alias stands for counted each time
_MOST_LEVELS = 50  # of mappings and lists within each other


class _Loader(yaml.SafeLoader):
    """YAML's plain values only; a key given twice is an error rather than its last value.

    A document is refused before it is made where it is deeper, or with its aliases written out larger, than any that a
    person writes: a few lines of aliases of aliases stand for billions of values.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._num_nodes = self._level = 0
        self._sizes: dict[yaml.Node, int] = {}  # nodes below each that is whole

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        before = self._num_nodes
        self._level += 1
        if self._level > _MOST_LEVELS:
            raise _refused(f"must have at most {_MOST_LEVELS} levels", event)
        node = super().compose_node(parent, index)
        self._level -= 1
        if node is None:
            return None
        if isinstance(event, yaml.AliasEvent):
            if node not in self._sizes:
                raise _refused("an alias must not stand within what it names", event)
            self._num_nodes += self._sizes[node]
        else:
            self._num_nodes += 1
            self._sizes[node] = self._num_nodes - before
        if self._num_nodes > _MOST_NODES:
            raise _refused(f"must have at most {_MOST_NODES:,} values, aliases written out", event)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise _refused(f"the key {shown(key)} is given twice", key_node)
            seen.add(key)
        return super().construct_mapping(node, deep)


# YAML 1.2's numbers: PyYAML reads 1e-5, which has no point, as text.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+\Z"), list("-+0123456789")
)


def _refused(rule: str, where: yaml.Event | yaml.Node) -> yaml.constructor.ConstructorError:
    mark = where.start_mark if isinstance(where.start_mark, yaml.Mark) else None
    return yaml.constructor.ConstructorError(None, None, rule, mark)


def parse_mapping(text: str, what: str, *, error: type[UserError]) -> dict[str, object]:
    """The mapping of fields that YAML text describes.

    Raises:
        UserError: Of the class `error`: the text is no YAML, no mapping, or larger than any document of ours.
    """
    check_type(text, str, f"{what}: must be text", error=error)
    if len(text) > _MOST_CHARACTERS:
        raise error(f"{what}: must have at most {_MOST_CHARACTERS:,} characters, got {len(text):,}")
    try:
        raw = yaml.load(text, _Loader)  # noqa: S506  a SafeLoader
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError) as caught:
        # PyYAML lets the last five through: a date 2020-99-99, !!bool x, !!timestamp x, a list as key, many brackets
        raise error(f"{what}: must be YAML: {_why(caught)}") from None
    if not isinstance(raw, dict):
        raise error(f"{what}: must be a mapping of fields, got {type(raw).__name__}")
    return raw


def _why(error: Exception) -> str:
    """What is wrong with a document and where, without the piece of it that PyYAML shows."""
    if not isinstance(error, yaml.MarkedYAMLError):
        return one_line(str(error), 150)
    said = ", ".join(part for part in (error.context, error.problem) if part)
    mark = error.problem_mark or error.context_mark
    return one_line(said, 150) + (f", line {mark.line + 1}, column {mark.column + 1}" if mark else "")


def exists(path: str | Path) -> bool:
    """Whether something is there; a path that no file can have, such as one of 5,000 characters, leads nowhere."""
    return os.path.exists(path)  # noqa: PTH110  pathlib raises for such a path


def is_folder(path: str | Path) -> bool:
    """Whether a folder is there, or a link to one; False for a path that no file can have."""
    return os.path.isdir(path)  # noqa: PTH112  pathlib raises for such a path


def check_path(path: str | Path, field: str, *, error: type[UserError]) -> None:
    """Check that a file can have this path, whether there is one or not.

    Raises:
        UserError: Of the class `error`: it is too long, leads round in a loop of links, or holds a NUL.
    """
    try:
        os.stat(path)  # noqa: PTH116  of a text as well
    except ValueError as caught:  # a NUL, or half a character
        reason = str(caught)
    except OSError as caught:
        if caught.errno not in (errno.ENAMETOOLONG, errno.ELOOP):
            return
        reason = str(caught.strerror)
    else:
        return
    raise error(f"{field}: must be a path that a file can have, got {shown(str(path))} ({one_line(reason, 100)})")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_text(path: Path, what: str, *, error: type[UserError]) -> str:
    """The text of a regular file that a person named, which has at most 16 MiB.

    A pipe or a device is never waited for.

    Raises:
        UserError: Of the class `error`: there is no such file, or it is not text.
    """
    try:
        return _read_bytes(path).decode("utf-8")
    except (OSError, ValueError) as caught:  # ValueError: no UTF-8, or a NUL in the path
        reason = caught.strerror if isinstance(caught, OSError) and caught.strerror else str(caught)
        raise error(f"{what}: must be a readable YAML file, got {shown(str(path))} ({one_line(reason, 100)})") from None


def _read_bytes(path: Path) -> bytes:
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:  # noqa: PTH123  of a number
        kind = os.fstat(file.fileno()).st_mode
        if not stat.S_ISREG(kind):
            raise OSError("is no regular file")
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise OSError(f"has more than {_MOST_BYTES // 2**20} MiB")
    return data
