"""Reading what people write: YAML mappings, safely, with one clear line for whatever is wrong."""

from collections.abc import Hashable
from pathlib import Path

import yaml

from metaformer.errors import UserError


class _Loader(yaml.SafeLoader):
    """YAML's plain values only; a key given twice is an error rather than its last value."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def parse_mapping(text: str, what: str, *, error: type[UserError]) -> dict[str, object]:
    """The mapping of fields that YAML text describes.

    Raises:
        UserError: Of the class `error`: the text is no YAML, or no mapping.
    """
    try:
        raw = yaml.load(text, _Loader)  # noqa: S506  a SafeLoader
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError) as caught:
        # PyYAML lets the last five through: a date 2020-99-99, !!bool x, !!timestamp x, a list as key, many brackets
        raise error(f"{what}: must be YAML: {' '.join(str(caught).split())}") from None
    if not isinstance(raw, dict):
        raise error(f"{what}: must be a mapping of fields, got {type(raw).__name__}")
    return raw


def read_text(path: Path, what: str, *, error: type[UserError]) -> str:
    """The text of a file that a person named.

    Raises:
        UserError: Of the class `error`: there is no such file, or it is not text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as caught:
        raise error(f"{what}: must be a readable YAML file, got {str(path)!r} ({caught})") from None
