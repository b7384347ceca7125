"""python -m nas.table: train a sample of a space to the end, and keep whole learning curves."""

import math
import random
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas import cli

if TYPE_CHECKING:
    from collections.abc import Iterator

    from metaformer import Architecture
    from nas.execution.curves import Training
    from search_spaces.space import SearchSpace

_NO_BUDGET = "1cpu-days"  # a study has one; a table is trained until it is full
_RANDOM = 100  # architectures among which the largest is looked for where there is no limit
_GOLDEN = (5**0.5 - 1) / 2
_DRAWS = 3  # of which the one nearest to the wanted cost is taken
_ABOVE = 0.3  # how far above the wanted logarithm of the MACs is drawn
_MOST_IN_VAIN = 200  # draws of what was drawn before, after which a space counts as exhausted


def table(
    out: Annotated[Path, typer.Argument(metavar="OUT.csv", help="Table to write; one that is there is gone on with.")],
    space: Annotated[str | None, typer.Option(help="Search space by name.", show_default="hybrid_stages")] = None,
    data: Annotated[str | None, typer.Option(help="Images, as in nas.search.", show_default="digits")] = None,
    study: Annotated[Path | None, typer.Option(help="YAML file of a study to take all of this from.")] = None,
    recipe: Annotated[str | None, typer.Option(help="A recipe by name, or a file.", show_default="by the data")] = None,
    set_: cli.Settings = None,
    epochs: cli.Epochs = None,
    batch_size: cli.BatchSize = None,
    resolution: Annotated[int | None, typer.Option(help="Side of the images.", show_default="by the data")] = None,
    width_scale: Annotated[float | None, typer.Option(help="Factor on all widths.", show_default="by the data")] = None,
    max_params: Annotated[str | None, typer.Option(help="Most parameters of a model, such as 12M.")] = None,
    max_macs: Annotated[str | None, typer.Option(help="Most multiply-accumulates per image, such as 4M.")] = None,
    val_fraction: cli.ValFraction = None,
    images_per_class: cli.ImagesPerClass = None,
    split_seed: cli.SplitSeed = None,
    number: Annotated[int, typer.Option(min=1, max=10_000, help="Architectures in all.")] = 300,
    replicas: Annotated[
        int, typer.Option(min=0, max=10_000, help="Of them, how many are trained with a second seed too.")
    ] = 60,
    seed: Annotated[
        int, typer.Option(min=0, max=2**31, help="Of the sample and of the trainings; a second one is the next.")
    ] = 0,
    train_seed: Annotated[
        int | None, typer.Option(min=0, max=2**31, help="Of the trainings.", show_default="that of the sample")
    ] = None,
    processes: Annotated[int, typer.Option(min=1, max=1024, help="Trainings at a time, one torch thread each.")] = 1,
) -> None:
    """Train architectures that fill the costs of a space evenly, hand-designed ones first, and keep their curves.

    Options that are not given come from nas.yaml in this folder, if there is one.
    A row has the genes, the costs, device-seconds an epoch, accuracy on val after each epoch and on test at the end.
    Beside OUT.csv stands OUT.yaml, the study of all trainings. Interrupted or killed, the same command goes on.

    \b
    Examples:
      python -m nas.table digits.csv --number 40 --replicas 10
      python -m nas.table longer.csv --study digits.yaml --epochs 60 --number 40 --replicas 0 --train-seed 2
      python -m nas.table cifar10.csv --data prepared:/fast/cifar10 --images-per-class 500 --max-macs 4M \\
          --recipe cifar10_proxy --epochs 12 --processes 2
    """
    options = dict(locals())
    from metaformer.cli.console import make_console, progress_bar
    from metaformer.documents import check_path
    from metaformer.errors import UserError, shown
    from nas.data import open_dataset
    from nas.execution.curves import CurveFile, record
    from nas.make_study import find_images, make_study
    from nas.record.atomic import replace_text
    from nas.study.request import Request, parse_changes
    from nas.study.study import Study, read_mapping

    check_path(out, "out", error=UserError)
    if out.suffix != ".csv":
        raise UserError(f"out: must end in .csv, got {shown(str(out))}")
    asked = {field.name: options[field.name] for field in fields(Request) if field.name in options}
    request = Request(**{**asked, "seed": None}, budget=_NO_BUDGET, changes=parse_changes(set_ or []))
    written = out.with_suffix(".yaml")
    source = written if study is None and written.exists() else study
    known = {} if source is None else read_mapping(source)
    if not known:
        request = cli.fill_from_team(request, asked.keys() - {"seed"})
    images = find_images(request, known)
    info = open_dataset(images.data, resolution=images.resolution, splitting=images.splitting).info
    made = make_study(request, known, info)
    if written.exists():
        made.check_continues(Study.from_file(written), written)
    fitted = made.make_space()
    with CurveFile(out, fitted) as file, progress_bar() as bar:
        replace_text(written, made.to_yaml())
        first_seed = seed if train_seed is None else train_seed
        drawn = _trainings(_architectures(fitted, number, seed), number, replicas=replicas, seed=first_seed)
        wanted = list(bar.track(drawn, total=number + min(replicas, number), description="sample"))
        missing = [each for each in wanted if (each.architecture.digest, each.seed) not in file.recorded]
        task = bar.add_task("trainings", total=len(wanted), completed=len(wanted) - len(missing))
        record(made, missing, file, num_processes=processes, on_row=lambda: bar.advance(task))
    make_console().print(f"{len(file.recorded)} trainings in {out}, of the study {written}", markup=False)


def _trainings(
    architectures: "Iterator[Architecture]", number: int, *, replicas: int, seed: int
) -> "Iterator[Training]":
    """One of each architecture; of so many, replicas are spread over them."""
    from nas.execution.curves import Training

    for place, architecture in enumerate(architectures):
        yield Training(architecture, seed)
        if (place + 1) * replicas // number > place * replicas // number:
            yield Training(architecture, seed + 1)


def _architectures(space: "SearchSpace", number: int, seed: int) -> "Iterator[Architecture]":
    """Different ones: the cheapest, the hand-designed ones within the limits, and random ones.

    A random one is that of three whose MACs lie nearest to the next of positions that fill the logarithm of the MACs.
    """
    limits, rng = space.settings.limits, random.Random(seed)
    first = [space.smallest("params"), space.smallest("macs"), *space.references().values()]
    queue = [arch for arch in first if limits.allow(space.cost(arch))]
    least, most = (math.log(end) for end in _range_of_macs(space))
    seen: set[str] = set()
    num_drawn = num_in_vain = 0
    while len(seen) < number and num_in_vain < _MOST_IN_VAIN:
        if queue:
            arch = queue.pop(0)
        else:
            num_drawn += 1
            wanted = least + (most - least) * (num_drawn * _GOLDEN % 1)
            bounded = space.within(
                limits.model_copy(update={"max_macs": math.ceil(math.exp(min(wanted + _ABOVE, most)))})
            )
            drawn = [bounded.sample(rng) for _ in range(_DRAWS)]
            arch = min(drawn, key=lambda found: abs(math.log(space.cost(found).macs) - wanted))
        if arch.digest in seen:
            num_in_vain += 1
            continue
        num_in_vain = 0
        seen.add(arch.digest)
        yield arch


def _range_of_macs(space: "SearchSpace") -> tuple[int, int]:
    """Of the cheapest architecture, and the limit, or else what the largest of many random ones has."""
    limits = space.settings.limits
    least = space.cost(space.smallest("macs")).macs
    if limits.max_macs is not None:
        return least, limits.max_macs
    rng = random.Random(0)
    return least, max(space.cost(space.sample(rng)).macs for _ in range(_RANDOM))


if __name__ == "__main__":
    cli.run(table)
