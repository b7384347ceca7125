"""What came out: the record in `transfer.json`, the table, and `published.csv` with what the papers report."""

import csv
import io
import json
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from rich.console import Console
from rich.table import Table

from metaformer.documents import exists, read_text
from metaformer.errors import UserError, shown
from nas.record.atomic import replace_text

if TYPE_CHECKING:
    from nas.transfer.loop import Evaluated

_METHODS = {"retinanet": "RetinaNet", "mask_rcnn": "Mask R-CNN", "semantic_fpn": "Semantic FPN"}
_FIRST = ("box_AP", "mask_AP", "mIoU")
_SCORES = ("AP", "AP50", "AP75", "APs", "APm", "APl")


class Published(NamedTuple):
    """One backbone under one method; figures in percent, as printed."""

    dataset: str
    method: str
    backbone: str
    params_M: float
    metrics: dict[str, float]  # by the names that an evaluation gives them
    source: str


@cache
def published(task: str) -> list[Published]:
    """The backbones that papers report for a task, in the order of their parameters."""
    text = files("nas.transfer").joinpath("published.csv").read_text(encoding="utf-8")
    found: dict[str, Published] = {}
    for row in csv.DictReader(text.splitlines()):
        if not row["method"].startswith(_METHODS[task]):
            continue
        entry = Published(row["dataset"], row["method"], row["backbone"], float(row["params_M"]), {}, row["source"])
        known = found.setdefault(row["backbone"], entry)
        if row["mIoU"]:
            known.metrics["mIoU"] = float(row["mIoU"])
        known.metrics.update({f"{row['metric']}_{name}": float(row[name]) for name in _SCORES if row[name]})
    return sorted(found.values(), key=lambda entry: entry.params_M)


class TransferRecord:
    """What a training has come to, in memory and in its folder: `transfer.json`, and the curve again in `curve.csv`."""

    def __init__(self, folder: Path, content: dict[str, Any]) -> None:
        self._folder, self.content = folder, content

    @classmethod
    def open(cls, folder: Path, settings: dict[str, Any]) -> Self:
        """The record in a folder, or a new one.

        Raises:
            UserError: What is there cannot be read, or is of another training.
        """
        path = folder / "transfer.json"
        if not exists(path):
            return cls(folder, {**settings, "curve": []})
        try:
            content = json.loads(read_text(path, "out", error=UserError))
        except ValueError as error:
            if isinstance(error, UserError):
                raise
            content = None
        if not isinstance(content, dict) or not isinstance(content.get("curve"), list):
            raise UserError(f"out: must hold a whole transfer.json, got {shown(str(path))}")
        for name, value in settings.items():
            if content.get(name) != value:
                raise UserError(
                    f"out: must be a new folder or one of the same training, got {shown(str(path))} with another {name}"
                )
        return cls(folder, content)

    @property
    def num_evaluated(self) -> int:
        """Evaluations that are noted."""
        return len(self.content["curve"])

    def note(self, **facts: object) -> None:
        """Add facts that are known once the model is there."""
        self.content.update(facts)

    def add(self, found: "Evaluated") -> None:
        """Add an evaluation, and write both files."""
        self.content["curve"].append(
            {
                "step": found.step,
                "train_loss": found.train_loss,
                "metrics": found.metrics,
                **found.speed.model_dump(mode="json", include={"images_per_s", "waiting", "peak_mib"}),
                "seconds": round(found.seconds, 3),
                **({"note": found.note} if found.note else {}),
            }
        )
        rows = [{**point, **point["metrics"]} for point in self.content["curve"]]
        columns = [name for name in rows[0] if name not in ("metrics", "note")]
        text = io.StringIO()
        table = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
        replace_text(self._folder / "transfer.json", json.dumps(self.content, indent=1) + "\n")
        replace_text(self._folder / "curve.csv", text.getvalue())


def show(record: dict[str, Any], console: Console) -> None:
    """Print the last metrics beside those that papers report of the same method, in percent."""
    own, entries = record["curve"][-1]["metrics"], published(record["task"])
    names = [name for name in own if any(name in entry.metrics for entry in entries)]
    table = Table(title=f"{entries[0].method}: own, and as published on {entries[0].dataset}, percent")
    table.title_justify = "left"
    table.add_column("backbone")
    for name in ("params (M)", *names):
        table.add_column(name.replace("_", " "), justify="right")
    table.add_row(record["model"], f"{record['params'] / 1e6:.1f}", *(_cell(own[name]) for name in names), style="bold")
    table.add_section()
    for entry in entries:
        table.add_row(entry.backbone, f"{entry.params_M:.1f}", *(_cell(entry.metrics.get(name)) for name in names))
    console.print(table)
    facts = record["data_facts"]
    console.print(
        f"The first row is of the {facts['val_images']:,} images and {facts['classes']} classes of {record['data']}; "
        "the others compare with it only on their own data, from the same pretraining and by the same recipe."
    )


def metrics_text(metrics: dict[str, float | None]) -> str:
    """The metrics that count, in a clause: the first of each kind."""
    return ", ".join(f"{name.replace('_', ' ')} {_cell(metrics[name])}" for name in _FIRST if name in metrics)


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
