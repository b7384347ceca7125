"""python -m metaformer: the models, what they are made of, what they cost and how accurate they are."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from metaformer import zoo
from metaformer.architecture import Architecture
from metaformer.cli import run
from metaformer.cli.console import make_console, progress_bar
from metaformer.cost import Cost, count_cost
from metaformer.errors import as_line

if TYPE_CHECKING:
    from metaformer.validation import Accuracy

_WIDTH = 160  # characters of a line where there is no terminal
_Model = Annotated[str, typer.Argument(metavar="MODEL", help="A name that `list` shows, or a YAML file.")]
_Resolution = Annotated[
    int | None, typer.Option(help="Side of the image in pixels.", show_default="the architecture's own")
]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def list_models(as_json: _Json = False) -> None:
    """List the models of the papers with their cost and published accuracy.

    \b
    Example:
      python -m metaformer list --json
    """
    published = zoo.published()
    rows = [
        {
            "name": name,
            "family": family,
            **_totals(count_cost(arch)),
            "published_top1": published[name].top1 if name in published else None,
        }
        for family, models in zoo.FAMILIES.items()
        for name, arch in models.items()
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    table = _table("model", "family", "parameters", "frozen", "MACs", "published top-1")
    for row in rows:
        top1 = row["published_top1"]
        table.add_row(
            str(row["name"]),
            str(row["family"]),
            f"{row['params']:,}",
            f"{row['frozen_params']:,}" if row["frozen_params"] else "",
            f"{row['macs']:,}",
            "" if top1 is None else f"{top1} %",
        )
    make_console(width=_WIDTH).print(table)


def show(model: _Model, as_json: _Json = False) -> None:
    """Show the stages of a model, their cost, and the architecture as YAML.

    \b
    Examples:
      python -m metaformer show metaformer_ppaa_s12_224
      python -m metaformer show arch.yaml
    """
    arch = zoo.resolve(model)
    if as_json:
        typer.echo(json.dumps(arch.model_dump(mode="json"), indent=2))
        return
    console = make_console(width=_WIDTH)
    console.print(_cost_table(arch))
    console.print(f"digest {arch.digest}, {arch.resolution} pixels{', fixed' if arch.fixes_resolution else ''}\n")
    console.print(arch.to_yaml(), markup=False, highlight=False)


def cost(model: _Model, resolution: _Resolution = None, as_json: _Json = False) -> None:
    """Count parameters and multiply-accumulates of a model, by stage and part, in closed form.

    \b
    Examples:
      python -m metaformer cost poolformer_s12 --resolution 384
      python -m metaformer cost arch.yaml --json
    """
    arch = zoo.resolve(model)
    if not as_json:
        make_console(width=_WIDTH).print(_cost_table(arch, resolution))
        return
    counted = count_cost(arch, resolution=resolution)
    stages = [
        {part: _counts(getattr(stage, part)) for part in ("embedding", "mixer", "mlp")} for stage in counted.stages
    ]
    typer.echo(json.dumps({**_totals(counted), "stages": stages, "head": _counts(counted.head)}, indent=2))


def compare(first: _Model, second: _Model, as_json: _Json = False) -> None:
    """Say in which fields two models differ, and by how much in cost.

    \b
    Example:
      python -m metaformer compare poolformer_s12 metaformer_ppaa_s12_224
    """
    archs = [zoo.resolve(name) for name in (first, second)]
    fields = [_flat(arch.model_dump(mode="json")) for arch in archs]
    costs = [_totals(count_cost(arch)) for arch in archs]
    paths = dict.fromkeys((*fields[0], *fields[1]))
    sides = {path: [each.get(path) for each in fields] for path in paths}
    sides |= {name: [each[name] for each in costs] for name in costs[0]}
    differing = {path: values for path, values in sides.items() if values[0] != values[1]}
    if as_json:
        typer.echo(json.dumps(differing, indent=2))
        return
    table = _table("field", first, second)
    for path, (one, other) in differing.items():
        table.add_row(path, _text(one), _text(other))
    make_console(width=_WIDTH).print(table if differing else "They are the same.")


def validate(
    model: _Model,
    *,
    data: Annotated[Path, typer.Option(metavar="FOLDER", help="Images, a folder per class, here or in FOLDER/val.")],
    checkpoint: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Weights.", show_default="the published ones, downloaded")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Which folder in FOLDER.", show_default="val, or FOLDER itself")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, max=65_536)] = 64,
    workers: Annotated[
        int | None,
        typer.Option(min=0, max=256, help="Processes that read images.", show_default="one per CPU, at most 8"),
    ] = None,
    resolution: Annotated[int | None, typer.Option(help="In pixels.", show_default="the published one")] = None,
    crop_pct: Annotated[
        float | None, typer.Option(help="Part of the side that is seen.", show_default="the published one")
    ] = None,
    device: Annotated[str | None, typer.Option(show_default="a GPU where there is one")] = None,
    precision: Literal["float32", "bfloat16"] = "float32",
    as_json: _Json = False,
) -> None:
    """Measure the accuracy of a model on a folder of images, as its paper does, beside what the paper says.

    \b
    Examples:
      python -m metaformer validate poolformer_s12 --data /data/imagenet
      python -m metaformer validate arch.yaml --checkpoint weights.pth --data photos --split test
    """
    arch = zoo.resolve(model)

    from metaformer import validation
    from metaformer.checkpoints import load

    preprocessing = validation.adapt(zoo.preprocessing(model), resolution=resolution, crop_pct=crop_pct)
    validation.check_fit(arch, preprocessing)
    on = validation.find_device(device)
    images = validation.open_folder(data, split, preprocessing, num_classes=arch.head.num_classes)
    weights = load(model, checkpoint)
    with progress_bar() as bar:
        task = bar.add_task("images", total=len(images))
        accuracy = validation.measure_accuracy(
            weights,
            images,
            batch_size=batch_size,
            num_workers=min(8, os.cpu_count() or 1) if workers is None else workers,
            device=on,
            precision=precision,
            on_batch=lambda num_images: bar.advance(task, num_images),
        )
    if not as_json:
        where = as_line(f"{model} on {images.root}")
        typer.echo(f"{where}, {preprocessing.resolution} pixels, crop {preprocessing.crop_pct}")
        typer.echo(_accuracy_text(model, accuracy, device=f"{on}, {precision}"))
        return
    published = zoo.published().get(model)
    result = {
        "model": model,
        "data": str(images.root),
        **asdict(accuracy),
        "images_per_second": accuracy.images_per_second,
        "published_top1": published.top1 if published else None,
        "published_source": published.source if published else None,
        "preprocessing": preprocessing.model_dump(),
        "device": str(on),
        "precision": precision,
    }
    typer.echo(json.dumps(result, indent=2))


def _accuracy_text(model: str, accuracy: "Accuracy", *, device: str) -> str:
    published = zoo.published().get(model)
    lines = [
        f"images  {accuracy.num_images:,} of {accuracy.num_classes:,} classes, "
        f"{accuracy.images_per_second:.1f} a second on {device}",
        f"top-1   {accuracy.top1:.2f} %",
        f"top-5   {accuracy.top5:.2f} %",
    ]
    if published and published.top1 is not None:
        lines[1] += f", published {published.top1} % ({published.source})"
    return "\n".join(lines)


def _counts(part: object) -> dict[str, int]:
    """Counts of a part by name."""
    return {name: getattr(part, name) for name in ("params", "frozen_params", "macs")}


def _totals(counted: Cost) -> dict[str, int]:
    return _counts(counted.total)


def _cost_table(arch: Architecture, resolution: int | None = None) -> Table:
    counted = count_cost(arch, resolution=resolution)
    table = _table("part", "blocks", "width", "tokens", "parameters", "frozen", "MACs")
    stages = zip(arch.stages, counted.stages, arch.token_maps(resolution), strict=True)
    for i, (stage, parts, tokens) in enumerate(stages, start=1):
        shape = (str(stage.depth), stage.width_text, f"{tokens.num_tokens:,}")
        table.add_row(f"stage {i} embedding", "", "", "", *_amounts(parts.embedding))
        table.add_row(f"stage {i} {' + '.join(mixer.kind for mixer in stage.mixers)}", *shape, *_amounts(parts.mixer))
        table.add_row(f"stage {i} channel MLP", "", "", "", *_amounts(parts.mlp))
    table.add_row("head", "", "", "", *_amounts(counted.head))
    table.add_row("all", str(arch.depth), "", "", *_amounts(counted.total), style="bold")
    return table


def _amounts(part: object) -> tuple[str, str, str]:
    params, frozen, macs = _counts(part).values()
    return f"{params:,}", f"{frozen:,}" if frozen else "", f"{macs:,}"


def _table(*columns: str) -> Table:
    table = Table()
    for column in columns:
        is_number = column in {"blocks", "width", "tokens", "parameters", "frozen", "MACs", "published top-1"}
        table.add_column(column, justify="right" if is_number else "left", no_wrap=True)
    return table


def _flat(value: object, path: str = "") -> dict[str, object]:
    """The leaves of nested mappings and lists, by their dotted paths."""
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = dict(enumerate(value)).items()
    else:
        return {path: value}
    return {
        leaf: found
        for key, inner in items
        for leaf, found in _flat(inner, f"{path}.{key}" if path else str(key)).items()
    }


def _text(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


if __name__ == "__main__":
    run(list_models, show, cost, compare, validate)
