"""Reports read back from the files that a run leaves."""

import base64
import csv
import json
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np


@dataclass
class Page(HTMLParser):
    """A page's text, its tags with attributes, and the cells of its tables by id."""

    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    tables: dict[str, list[list[str]]] = field(default_factory=dict)
    scripts: dict[str, str] = field(default_factory=dict)  # by id

    def __post_init__(self) -> None:
        super().__init__()
        self._inside: str | None = None
        self._script = ""
        self._rows: list[list[str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.tags.append((tag, named))
        if tag in {"script", "style"}:
            self._inside, self._script = tag, str(named.get("id"))
        elif tag == "table":
            self._rows = self.tables[str(named["id"])] = []
        elif tag == "tr":
            self._rows.append([])
        elif tag in {"td", "th"}:
            self._rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = None
        if tag == "table":
            self._rows = []

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[self._script] = self.scripts.get(self._script, "") + data
        elif self._inside is None:
            self.texts.append(data)
            if self._rows and self._rows[-1]:
                self._rows[-1][-1] += data

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    @property
    def charts(self) -> dict[str, Any]:
        """The figures of the page by name, with plotly's packed arrays as lists."""
        found = {name.removesuffix("-data"): text for name, text in self.scripts.items() if name.endswith("-data")}
        return {name: unpacked(json.loads(text)) for name, text in found.items() if name not in ("trials", "template")}

    @property
    def columns(self) -> dict[str, list[Any]]:
        """The columns of all trials, from which the page makes its table and what marks say."""
        return unpacked(json.loads(self.scripts["trials-data"]))["columns"]


def unpacked(value: Any) -> Any:
    """JSON with lists in place of packed arrays and texts."""
    if isinstance(value, list):
        return [unpacked(each) for each in value]
    if not isinstance(value, dict):
        return value
    if "bdata" in value:
        return np.frombuffer(base64.b64decode(value["bdata"]), value["dtype"]).tolist()
    if "codes" in value:
        return [value["texts"][code] for code in unpacked(value["codes"])]
    return {name: unpacked(each) for name, each in value.items()}


def read_page(path: Path) -> Page:
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
