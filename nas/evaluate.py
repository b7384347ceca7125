"""python -m nas.evaluate: the accuracy of weights that a training left, on one split of a dataset."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from nas import cli

_LEVEL = 0.9  # of the interval


def evaluate(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="File that a training or an export wrote.")],
    model: Annotated[str, typer.Option(help="A name of the zoo, or the architecture's YAML file.")],
    data: Annotated[
        str | None,
        typer.Option(help="Images to evaluate on, such as prepared:/fast/cifar10.", show_default="that of nas.yaml"),
    ] = None,
    split: Annotated[Literal["train", "val", "test"], typer.Option(help="Which images of it.")] = "test",
    recipe: Annotated[
        str | None,
        typer.Option(help="Whose resizing and cropping to use: a name or a YAML file.", show_default="by the data"),
    ] = None,
    val_fraction: cli.ValFraction = None,
    split_seed: cli.SplitSeed = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto: a GPU if there is one.")] = "auto",
    loaders: Annotated[int, typer.Option(min=0, max=256, help="Processes that read images.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Evaluate weights in float32: top-1 with its binomial error, and top-5 where there are more than five classes.

    The interval is Wilson's, of this split alone; seeds add to it. What is not said of data, recipe and split comes
    from nas.yaml in this folder, if there is one.

    \b
    Examples:
      python -m nas.evaluate runs/one/weights.pt --model arch.yaml --data prepared:/fast/cifar10
      python -m nas.evaluate arch.pt --model arch.yaml --data folder:/data/imagenet --split val --json
    """
    from metaformer import zoo
    from metaformer.documents import check_path
    from metaformer.errors import UserError, as_line
    from metaformer.validation import find_device
    from nas.data import check_recipe, default_recipe, open_dataset
    from nas.results.words import wilson_interval
    from nas.study.lease import Lease
    from nas.study.recipe_files import find_recipe
    from nas.study.request import Request, asked_splitting
    from nas.training.checkpoints import StorageError
    from nas.training.errors import TrainingError
    from nas.training.loop import measure_accuracy

    check_path(checkpoint, "checkpoint", error=UserError)
    if not checkpoint.is_file():
        raise UserError(f"checkpoint: must be a file that exists, got {str(checkpoint)!r}")
    arch = zoo.resolve(model)
    given = Request(data=data, recipe=recipe, val_fraction=val_fraction, split_seed=split_seed)
    request = cli.fill_from_team(given, cli.OF_ALL_TRAININGS)
    data = request.named_data()
    asked = (find_recipe(request.recipe) if request.recipe is not None else default_recipe(data)).model_copy(
        update={"precision": "float32"}
    )
    check_recipe(data, asked)
    place = find_device(None if device == "auto" else device)
    splitting = asked_splitting(request, {})
    dataset = open_dataset(data, resolution=arch.resolution, num_workers=loaders, splitting=splitting)
    head = arch.head.model_copy(update={"num_classes": dataset.info.num_classes})
    lease = Lease(
        task="test",
        trial=0,
        attempt=1,
        architecture=arch.model_copy(update={"head": head}),
        recipe=asked,
        epochs=asked.epochs,
        seed=0,
        folder=str(checkpoint.absolute().parent),
        checkpoint=checkpoint.name,
    )
    try:
        found = measure_accuracy(lease, dataset, split=split, device=place)
    except (TrainingError, StorageError) as error:
        raise UserError(str(error)) from None
    number = dataset.info.num_images[split]
    low, high = wilson_interval(found.top1, number, level=_LEVEL)
    if as_json:
        result = {
            "checkpoint": str(checkpoint),
            "data": dataset.info.name,
            "split": split,
            "num_images": number,
            "top1": found.top1,
            "top1_low": low,
            "top1_high": high,
            "top5": found.top5,
        }
        typer.echo(json.dumps(result, indent=2))
        return
    top5 = "" if found.top5 is None else f", top-5 {100 * found.top5:.2f} %"
    typer.echo(
        f"{as_line(checkpoint)} on {number:,} images ({split}): top-1 {100 * found.top1:.2f} % "
        f"({100 * _LEVEL:.0f} % interval {100 * low:.2f} to {100 * high:.2f} %){top5}"
    )


if __name__ == "__main__":
    cli.run(evaluate)
