"""python -m nas.prepare: decode a dataset once, and say what a person should know of it before a long search."""

import json
import os
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from nas import cli

if TYPE_CHECKING:
    from nas.data.packing import Findings
    from nas.data.prepared import Description

BadImages = Literal["stop", "skip"]


def prepare(
    data: Annotated[str, typer.Argument(metavar="DATA", help="What to decode, such as folder:/data/imagenet.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write; it must not exist.")],
    resolution: Annotated[
        int | None, typer.Option("--resolution", help="Side in pixels that models will see (default: by the images).")
    ] = None,
    side: Annotated[
        int | None,
        typer.Option("--side", help="Side in pixels of the stored squares (default: the images' own, or 8/7 of that)."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", help="Processes that decode (default: one a core).")
    ] = None,
    bad_images: Annotated[
        BadImages, typer.Option("--bad-images", help="What an image that cannot be read does.")
    ] = "stop",
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
) -> None:
    """Decode every image once into arrays of bytes, from which training reads many times faster than from JPEGs.

    Interrupted or killed, the same command goes on. It also tells what is odd: unreadable images, sizes, modes, class
    sizes, and images of val and test that train has too.

    \b
    Examples:
      python -m nas.prepare folder:/data/flowers --out /fast/flowers
      python -m nas.prepare folder:/data/imagenet --resolution 160 --out /fast/imagenet-160
      python -m nas.search --space hybrid_stages --data prepared:/fast/imagenet-160
    """
    from metaformer.cli.console import make_console, progress_bar
    from metaformer.specs import LARGEST_SIDE
    from nas.data import SMALLEST_SIDE, wrong
    from nas.data.packing import SPLITS, choose_side, pack
    from nas.data.sources import open_source

    source = open_source(data)
    if resolution is None:
        resolution = source.look().resolution
    side = choose_side(source, resolution) if side is None else side
    workers = len(os.sched_getaffinity(0)) if workers is None else workers
    for name, number, least, most in (
        ("resolution", resolution, SMALLEST_SIDE, LARGEST_SIDE),
        ("side", side, resolution, LARGEST_SIDE),
        ("workers", workers, 1, 1024),
    ):
        if not least <= number <= most:
            raise wrong(name, f"must be from {least} to {most}", number)
    num_images = sum(len(source.labels[split]) for split in SPLITS)
    start = time.monotonic()
    with progress_bar() as bar:
        task = bar.add_task("decoding", total=num_images)
        description, findings = pack(
            source,
            out.absolute(),
            resolution=resolution,
            side=side,
            num_workers=workers,
            bad_images=bad_images,
            progress=lambda number: bar.advance(task, number),
        )
    rate = num_images / (time.monotonic() - start)
    if as_json:
        summary = description.model_dump() | findings.model_dump() | {"images_per_second": round(rate, 1)}
        typer.echo(json.dumps(summary, indent=2))
        return
    console = make_console()
    for line in _summary(description, findings, rate=rate, out=out):
        console.print(line)


def _summary(description: "Description", findings: "Findings", *, rate: float, out: Path) -> list[str]:
    sizes = findings.class_sizes
    smallest, largest = min(sizes, key=lambda name: sizes[name]), max(sizes, key=lambda name: sizes[name])
    counts = ", ".join(f"{split} {number:,}" for split, number in description.num_images.items())
    in_each = f"{sizes[smallest]:,} images ({smallest}) to {sizes[largest]:,} ({largest})"
    if sizes[smallest] == sizes[largest]:
        in_each = f"{sizes[smallest]:,} images each"
    low, middle, high = findings.shorter_side
    lines = [
        f"images   {counts}",
        f"classes  {len(sizes)}, of {in_each} in train",
        f"sides    shorter side {low} to {high} pixels, median {middle}; stored at {description.side} for models that "
        f"see {description.resolution}" + (f"; {findings.num_enlarged:,} enlarged" if findings.num_enlarged else ""),
        "modes    " + ", ".join(f"{mode} {number:,}" for mode, number in findings.modes.items()),
        f"bad      {findings.num_unreadable:,} unreadable"
        + (f", such as {description.unreadable[0]}" if description.unreadable else ""),
    ]
    for split, found in findings.num_duplicates.items():
        lines.append(
            f"leakage  {found['exact']:,} images of {split} are in train too, {found['near']:,} more nearly so"
        )
    if findings.duplicates:
        pair = findings.duplicates[0]
        lines.append(f"         such as {pair.image} and {pair.of}; more in {out / 'findings.json'}")
    lines.append(f"written  {out}, {findings.num_bytes / 2**20:,.1f} MiB, {rate:,.0f} images a second")
    lines.append(
        f"next     python -m nas.search --space hybrid_stages --budget 60cpu-minutes --plan --data "
        f"{shlex.quote(f'prepared:{out}')}"
    )
    return lines


if __name__ == "__main__":
    cli.run(prepare)
