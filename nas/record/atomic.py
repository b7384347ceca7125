"""Files that are replaced whole."""

import os
from pathlib import Path


def replace_text(path: Path, text: str) -> None:
    """Write a file so that at any moment either the old one is there or the new one, whole."""
    part = part_of(path)
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def part_of(path: Path) -> Path:
    """Where a file is written until it is whole; two programs that write the same file do not meet there."""
    return path.with_name(f".{path.name}.{os.getpid()}.part")
