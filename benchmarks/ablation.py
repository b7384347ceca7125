"""Does each row of a paper's ablation hold on these images? The rows' models are trained alike, with several seeds.

Command:   python -m benchmarks.ablation studies/ablations/NAME.yaml --data prepared:/fast/cifar10 --processes 2
Hardware:  CPU cores, one for each process; the header of each study says which and how long
Expected:  interrupted or killed, the same command goes on; without --data the tables are made from the curves there are

Each training is `python -m nas.train`; its curve is a row of studies/curves/NAME.csv. All seeds of the first round come
before the second, so that a table can be read early. Accuracy is that of the last epoch over val and test images
together: nothing is chosen by either.

A row is compared with the first one. The interval of their difference is Student's, 90 %, from the deviation between
seeds pooled over all rows, which does not count the images that another draw of test images would have. A verdict is
`holds` where the interval lies on the published side of 0, `does not hold` where it lies on the other, and else
`cannot be told`. Where the published difference is below 0.3 points, it holds if the interval lies within 1 point.
"""

import csv
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
import typer
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt
from rich.console import Console
from rich.progress import track
from scipy.stats import kendalltau, t

from metaformer import zoo
from metaformer.architecture import Architecture
from metaformer.cost import count_cost
from nas.data import open_dataset
from nas.study.splitting import Splitting
from tests.services.picture import take_figure

CURVES = Path(__file__).parent.parent / "studies" / "curves"
_LEVEL = 0.9
_SMALL = 0.3  # published points below which there is no difference
_WITHIN = 1.0  # points
_DRAWS = 4000
_FAR = 5.0  # points; what differs by more is drawn at the edge


class Row(BaseModel):
    """One line of the ablation: a change, and what the paper found."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    model: str  # in the zoo
    change: dict[str, Any] = {}  # of fields of `mixer` and `stage`, which is every stage, and of `stem`
    published: float | None  # per cent


class Ablation(BaseModel):
    """A study: rows, and how all of them are trained."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    question: str
    recipe: str
    settings: tuple[str, ...] = ()
    epochs: PositiveInt
    batch_size: PositiveInt
    images_per_class: PositiveInt | None = None
    seeds: PositiveInt
    resolution: PositiveInt
    width_scale: PositiveFloat
    depth_scale: PositiveFloat = 1.0
    stem: dict[str, Any] = {}
    rows: tuple[Row, ...]

    def architecture(self, row: Row, num_classes: int) -> Architecture:
        """The row's model, narrower and for small images."""
        fields = zoo.get(row.model).model_dump(mode="json")
        fields["resolution"] = self.resolution
        fields["head"]["num_classes"] = num_classes
        fields["stem"] |= self.stem | row.change.get("stem", {})
        for stage in fields["stages"]:
            stage["width"] = round(stage["width"] * self.width_scale)
            stage["depth"] = max(1, round(stage["depth"] * self.depth_scale))
            if "head_size" in stage["mixer"]:
                stage["mixer"]["head_size"] = round(stage["mixer"]["head_size"] * self.width_scale)
            stage["mixer"] |= row.change.get("mixer", {})
            stage.update(row.change.get("stage", {}))
        return Architecture.model_validate(fields)


class Trained(NamedTuple):
    """A training that has ended."""

    row: str
    seed: int
    params: int
    macs: int
    seconds: float
    accuracy: float  # over val and test images


def run(
    study: Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="The rows, and how they are trained.")],
    data: Annotated[
        str | None, typer.Option(help="Images, as in nas.train.", show_default="nothing is trained")
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="Trainings at a time, one thread each.")] = 1,
    work: Annotated[Path, typer.Option(help="Folder of trainings that have not ended.")] = Path("runs/ablation"),
    picture: Annotated[Path | None, typer.Option(help="PNG of the differences, by Debian's chromium.")] = None,
) -> None:
    """Train what is missing of a study's rows, and print its table with a verdict for each."""
    ablation = Ablation.model_validate(yaml.safe_load(study.read_text(encoding="utf-8")))
    file = CURVES / f"{study.stem}.csv"
    if data is not None:
        _train_all(ablation, data, file, work / study.stem, processes)
    if not file.exists():
        raise typer.BadParameter(f"must be given, since there are no curves in {file} yet", param_hint="--data")
    trained = read(file)
    Console().print("\n".join(table(ablation, trained)), markup=False, soft_wrap=True)
    if picture is not None:
        take_figure(figure(ablation, trained), picture)


def _train_all(ablation: Ablation, data: str, file: Path, work: Path, processes: int) -> None:
    splitting = Splitting(images_per_class=ablation.images_per_class)
    info = open_dataset(data, resolution=ablation.resolution, splitting=splitting).info
    work.mkdir(parents=True, exist_ok=True)
    done = {(each.row, each.seed) for each in read(file)} if file.exists() else set()
    rounds = [(row, seed) for seed in range(ablation.seeds) for row in ablation.rows]
    missing = [(row, seed) for row, seed in rounds if (row.name, seed) not in done]

    def place_of(row: Row, seed: int) -> Path:
        return work / f"{row.name.replace(' ', '_').replace('/', '_')}-{seed}"

    def carry_out(row: Row, seed: int) -> dict[str, Any]:
        place = place_of(row, seed)
        arch = ablation.architecture(row, info.num_classes)
        model = place.with_suffix(".yaml")
        model.write_text(arch.to_yaml(), encoding="utf-8")
        options = [
            *("--data", data, "--out", str(place), "--recipe", ablation.recipe, "--seed", str(seed), "--device", "cpu"),
            *("--epochs", str(ablation.epochs), "--batch-size", str(ablation.batch_size)),
            *(() if splitting.images_per_class is None else ("--images-per-class", str(splitting.images_per_class))),
            *(word for setting in ablation.settings for word in ("--set", setting)),
        ]
        command = [sys.executable, "-m", "nas.train", str(model), *options]
        one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(  # noqa: S603  this project's own program, by a list of arguments
            command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=one_thread
        )
        record = json.loads((place / "train.json").read_text(encoding="utf-8"))
        cost, curve = count_cost(arch), record["curve"]
        return {
            "row": row.name,
            "seed": seed,
            "params": cost.params,
            "macs": cost.macs,
            "seconds": round(sum(point["seconds"] for point in curve), 1),
            "num_val": info.num_images["val"],
            "num_test": info.num_images["test"],
            "test": round(record["test_accuracy"], 4),
            **{f"epoch_{point['epoch']}": round(point["val_accuracy"], 4) for point in curve},
        }

    with ThreadPoolExecutor(processes) as pool:
        futures = {pool.submit(carry_out, row, seed): (row, seed) for row, seed in missing}
        try:
            for future in track(as_completed(futures), total=len(futures), description="trainings"):
                _add(file, future.result())
                shutil.rmtree(place_of(*futures[future]))  # only now, so that no training is lost
        except subprocess.CalledProcessError as error:
            pool.shutdown(cancel_futures=True)
            raise SystemExit(error.stderr or str(error)) from None


def _add(file: Path, fields: dict[str, Any]) -> None:
    is_new = not file.exists()
    with file.open("a", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, list(fields), lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerow(fields)


def read(file: Path) -> list[Trained]:
    """The trainings of a file of curves."""
    found = []
    for row in csv.DictReader(file.read_text(encoding="utf-8").splitlines()):
        val = [row[name] for name in row if name.startswith("epoch_")][-1]
        images = int(row["num_val"]), int(row["num_test"])
        accuracy = float(np.average([float(val), float(row["test"])], weights=images))
        found.append(
            Trained(row["row"], int(row["seed"]), int(row["params"]), int(row["macs"]), float(row["seconds"]), accuracy)
        )
    return found


class Standing(NamedTuple):
    """What is known of a row; accuracies and differences in per cent and points."""

    row: Row
    cost: Trained
    num_seeds: int
    mean: float
    difference: float  # from the first row
    half: float  # of the interval of the difference
    published: float | None  # difference from the first row
    verdict: str


def standings(ablation: Ablation, trained: list[Trained]) -> list[Standing]:
    """Those of the rows that have been trained, the first row among them."""
    by_row = {row.name: [each for each in trained if each.row == row.name] for row in ablation.rows}
    values = {name: 100 * np.array([each.accuracy for each in of_row]) for name, of_row in by_row.items() if of_row}
    deviation, freedom = _pooled(list(values.values()))
    base, *_ = ablation.rows
    found = []
    for row in ablation.rows:
        if row.name not in values:
            continue
        of_row = values[row.name]
        difference = float(of_row.mean() - values[base.name].mean())
        error = deviation * np.sqrt(1 / len(of_row) + 1 / len(values[base.name]))
        half = float(t.ppf((1 + _LEVEL) / 2, freedom) * error) if freedom else float("inf")
        published = None
        if row.published is not None and base.published is not None:
            published = round(row.published - base.published, 2)  # tenths have no exact floats
        verdict = "" if row is base or published is None else _verdict(published, difference, half)
        found.append(
            Standing(row, by_row[row.name][0], len(of_row), float(of_row.mean()), difference, half, published, verdict)
        )
    return found


def _pooled(values: list[NDArray[np.float64]]) -> tuple[float, int]:
    """The deviation between seeds of one row, and its degrees of freedom."""
    freedom = sum(len(of_row) - 1 for of_row in values)
    squares = sum(float(((of_row - of_row.mean()) ** 2).sum()) for of_row in values)
    return (float(np.sqrt(squares / freedom)), freedom) if freedom else (float("nan"), 0)


def _verdict(published: float, difference: float, half: float) -> str:
    low, high = difference - half, difference + half
    if abs(published) < _SMALL:
        if low >= -_WITHIN and high <= _WITHIN:
            return "holds"
        return "does not hold" if low > 0 or high < 0 else "cannot be told"
    if low > 0 or high < 0:
        return "holds" if (difference > 0) == (published > 0) else "does not hold"
    return "cannot be told"


def rank_correlation(found: list[Standing], deviation: float) -> tuple[float, float, float]:
    """Kendall's tau between the published accuracies and ours, and its interval over the noise of our means."""
    rows = [each for each in found if each.row.published is not None]
    published = [each.row.published for each in rows]
    means = np.array([each.mean for each in rows])
    errors = deviation / np.sqrt([each.num_seeds for each in rows])
    rng = np.random.default_rng(0)
    drawn = [kendalltau(published, means + errors * rng.standard_normal(len(means))).statistic for _ in range(_DRAWS)]
    low, high = np.quantile(drawn, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return float(kendalltau(published, means).statistic), float(low), float(high)


def table(ablation: Ablation, trained: list[Trained]) -> list[str]:
    """The table of a study in Markdown, and the rank correlation below it."""
    found = standings(ablation, trained)
    deviation, freedom = _pooled(
        [np.array([100 * each.accuracy for each in trained if each.row == one.row.name]) for one in found]
    )
    base = ablation.rows[0]
    lines = [
        "| row | parameters | MACs | seeds | accuracy | difference | published | difference | verdict |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for each in found:
        is_base = each.row is base
        lines.append(
            f"| {each.row.name} | {each.cost.params:,} | {each.cost.macs:,} | {each.num_seeds} | {each.mean:.1f} % | "
            + ("" if is_base else f"{each.difference:+.1f} ± {each.half:.1f}")
            + f" | {'' if each.row.published is None else f'{each.row.published:.1f} %'} | "
            + ("" if is_base or each.published is None else f"{each.published:+.1f}")
            + f" | {each.verdict} |"
        )
    tau, low, high = rank_correlation(found, deviation)
    hours = sum(each.seconds for each in trained) / 3600
    lines += [
        "",
        f"Deviation between seeds {deviation:.2f} points ({freedom} degrees of freedom). Kendall's tau between "
        f"published accuracies and these {tau:.2f} (90 %: {low:.2f} to {high:.2f}). {hours:.1f} core-hours.",
    ]
    return lines


def figure(ablation: Ablation, trained: list[Trained]) -> go.Figure:
    """Differences from the first row beside the published ones; what is far off stands at the edge, with a number."""
    found = [each for each in standings(ablation, trained) if each.row is not ablation.rows[0]][::-1]
    names = [each.row.name for each in found]
    ours = _points([each.difference for each in found], names, name="here, with 90 % intervals", side="right")
    halves = [each.half if abs(each.difference) <= _FAR else 0.0 for each in found]
    ours.update(error_x={"array": halves}, marker={"size": 8, "color": "#0072b2"})
    published = [float("nan") if each.published is None else each.published for each in found]
    paper = _points(published, names, name="published", side="left")
    paper.update(marker={"symbol": "diamond-open", "size": 10, "color": "#d55e00"})
    layout: dict[str, Any] = {
        "xaxis": {"title": f"points beside {ablation.rows[0].name}", "range": [-1.25 * _FAR, 1.1 * _FAR]},
        "template": "plotly_white",
        "height": 80 + 26 * len(found),
        "width": 820,
        "margin": {"t": 40, "r": 10},
        "legend": {"orientation": "h", "y": 1.0, "yanchor": "bottom"},
    }
    return go.Figure([ours, paper], layout)


def _points(values: list[float], rows: list[str], *, name: str, side: str) -> go.Scatter:
    """Marks of one kind; a number stands on this side of those that are far off."""
    return go.Scatter(
        x=np.clip(values, -_FAR, _FAR),
        y=rows,
        text=[f"{value:+.1f}" if abs(value) > _FAR else "" for value in values],
        textposition=f"middle {side}",
        mode="markers+text",
        name=name,
    )


if __name__ == "__main__":
    typer.run(run)
