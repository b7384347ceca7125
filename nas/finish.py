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
    set_: cli.Settings = None,
    epochs: cli.Epochs = None,
    batch_size: cli.BatchSize = None,
    images_per_class: cli.ImagesPerClass = None,
    name: Annotated[
        str | None, typer.Option(help="Folder in that of the search; an earlier one goes on.", show_default="finish")
    ] = None,
    deadline: cli.Deadline = None,
    plan: Annotated[bool, typer.Option("--plan", help="Say what would be trained and what it takes, and end.")] = False,
    workers: cli.Workers = None,
    cpus_per_trial: cli.CpusPerTrial = None,
    gpus_per_trial: cli.GpusPerTrial = None,
    cpus_per_model: cli.CpusPerModel = None,
    gpus_per_model: cli.GpusPerModel = None,
    loaders: cli.Loaders = None,
    storage: cli.StorageUrl = None,
    checkpoints: cli.Checkpoints = None,
    checkpoint_every: cli.CheckpointEvery = None,
    ray_address: cli.RayAddress = None,
    tracker: cli.TrackerName = None,
    as_json: cli.AsJson = False,
) -> None:
    """Train the front of a search and its hand-designed models from scratch, several times each, and test them.

    What comes out is a run of its own, in RUN/finish: its front is that of mean accuracies, with their spread, and it
    says how well the search had ranked the models. They train on all images, also where the search had a part of them,
    by the search's recipe unless another is named. The seeds are others than that of the search. The same command goes
    on where it was interrupted or killed; a larger --seeds or --extend adds to it. With --gpus-per-model each model
    is trained on several GPUs at once, which divide every batch of the recipe among themselves.

    \b
    Examples:
      python -m nas.finish smoke --budget 10cpu-minutes --epochs 64
      python -m nas.finish runs/imagenet --recipe poolformer --budget 8gpu-days --seeds 3
      python -m nas.finish runs/imagenet --models 92,131 --references none --budget 2gpu-days --plan
      python -m nas.finish runs/imagenet --recipe poolformer --budget 60gpu-days --gpus-per-model 8
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
