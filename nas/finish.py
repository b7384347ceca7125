"""python -m nas.finish: train the best models of a search to the end, with several seeds."""

from dataclasses import fields
from typing import Annotated

import typer

from nas import cli


def finish(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Folder of a search, or its name under runs/.")],
    budget: Annotated[
        str | None, typer.Option(help="Device time for all trainings: 8gpu-days, 36gpu-hours, 90cpu-minutes.")
    ] = None,
    extend: Annotated[str | None, typer.Option(help="Device time on top of what an earlier command gave.")] = None,
    seeds: Annotated[
        int | None, typer.Option(help="Trainings of each model, with seeds of their own.", show_default="3")
    ] = None,
    models: Annotated[
        str | None, typer.Option(help="front, or numbers of complete trials with commas.", show_default="front")
    ] = None,
    references: Annotated[
        str | None,
        typer.Option(
            help="Hand-designed models beside them: all, none, or names with commas.",
            show_default="those that the search trained",
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="A name, such as poolformer, or a YAML file.", show_default="that of the search"),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="recipe.FIELD=VALUE", help="A field of the recipe: recipe.augmentation.mixup=0.2."
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of each training.", show_default="by the recipe")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a step.", show_default="by the recipe")] = None,
    name: Annotated[
        str | None, typer.Option(help="Folder in that of the search; an earlier one goes on.", show_default="finish")
    ] = None,
    deadline: Annotated[
        str | None, typer.Option(help="Wall time, such as 12h, after which trainings end at their next report.")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Say what would be trained and what it takes, and end.")] = False,
    workers: Annotated[int | None, typer.Option(help="Trainings at a time.", show_default="as devices allow")] = None,
    cpus_per_trial: Annotated[
        int | None, typer.Option(help="CPU cores of each training.", show_default="1; on GPUs an equal share")
    ] = None,
    gpus_per_trial: Annotated[
        str | None, typer.Option(help="Part of one GPU for each training: 0.25, or auto, by memory.", show_default="1")
    ] = None,
    loaders: Annotated[
        int | None,
        typer.Option(
            min=0, max=256, help="Processes of each training that read images.", show_default="0; on GPUs by the cores"
        ),
    ] = None,
    storage: Annotated[
        str | None, typer.Option(help="Database URL of the study.", show_default="SQLite in its folder")
    ] = None,
    checkpoints: Annotated[
        str | None, typer.Option(help="Where weights go: a folder or an fsspec URI.", show_default="its folder")
    ] = None,
    checkpoint_every: Annotated[
        str | None,
        typer.Option(
            metavar="TIME|never", help="Between checkpoints within a long epoch: 30s, 10m.", show_default="5m"
        ),
    ] = None,
    ray_address: Annotated[
        str | None, typer.Option(help="Ray cluster to use: auto, or host:port.", show_default="this machine")
    ] = None,
    tracker: cli.TrackerName = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON; messages go to stderr.")] = False,
) -> None:
    """Train the front of a search and its hand-designed models from scratch, several times each, and test them.

    What comes out is a run of its own, in RUN/finish: its front is that of mean accuracies, with their spread, and it
    says how well the search had ranked the models. The seeds are others than that of the search. The same command goes
    on where it was interrupted or killed; a larger --seeds or --extend adds to it.

    \b
    Examples:
      python -m nas.finish smoke --budget 10cpu-minutes --epochs 64
      python -m nas.finish runs/imagenet --recipe poolformer --budget 8gpu-days --seeds 3
      python -m nas.finish runs/imagenet --models 92,131 --references none --budget 2gpu-days --plan
    """
    options = dict(locals())
    with cli.deaf_threads():
        from nas.launch import Means, carry_out
    from nas.make_finals import Asked, order_finals
    from nas.record.run_folder import open_run
    from nas.study.request import Request, parse_changes

    means = Means(loaders, ray_address, tracker, deadline, plan, as_json)
    means.check()
    given = {field.name: options[field.name] for field in fields(Request) if field.name in options}
    request = Request(**{**given, "references": None}, changes=parse_changes(set_ or []))
    search = open_run(cli.run_path(run))
    carry_out(order_finals(search, Asked(models, references, seeds, name), request), means)


if __name__ == "__main__":
    cli.run(finish)
