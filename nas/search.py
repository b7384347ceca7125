"""python -m nas.search: look through a space for a budget of device time."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated

import typer

from nas import cli


def search(
    space: Annotated[
        str | None,
        typer.Option(
            help="Search space: hybrid_stages, hybrid_wide, hybrid_blocks, isotropic, t2t_vit, t2t_structures, "
            "convmixer, or several joined by +.",
            show_default="hybrid_stages",
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(help="Device time for the study in all: 64gpu-days, 36gpu-hours, 90cpu-minutes (of one core)."),
    ] = None,
    extend: Annotated[
        str | None, typer.Option(help="Device time on top of what the study in the run's folder has.")
    ] = None,
    deadline: cli.Deadline = None,
    plan: Annotated[bool, typer.Option("--plan", help="Say what the budget buys, and end.")] = False,
    data: Annotated[
        str | None,
        typer.Option(
            help="digits, folder:PATH with train/ and val/, prepared:PATH of nas.prepare, torch/cifar10, wds/SHARDS, "
            "hfds/PATH, tfds/NAME, or package.module.",
            show_default="digits",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the run; an earlier one goes on.", show_default="SPACE-DATA")
    ] = None,
    runs: Annotated[Path | None, typer.Option(help="Folder of all runs.", show_default="runs")] = None,
    study: Annotated[
        Path | None, typer.Option(help="YAML file of a study; options given beside it win over it.")
    ] = None,
    references: Annotated[
        str | None,
        typer.Option(
            help="Hand-designed models to train first: all, none, or names with commas.",
            show_default="as a third of the budget pays for",
        ),
    ] = None,
    max_params: Annotated[str | None, typer.Option(help="Most parameters of a model, such as 12M.")] = None,
    max_macs: Annotated[str | None, typer.Option(help="Most multiply-accumulates per image, such as 1.8G.")] = None,
    resolution: Annotated[
        int | None, typer.Option(help="Side of the images in pixels.", show_default="by the data")
    ] = None,
    width_scale: Annotated[
        float | None, typer.Option(help="Factor on all widths of the space.", show_default="by the data")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="How each trial is trained: a name, such as convformer, or a YAML file.", show_default="by the data"
        ),
    ] = None,
    set: cli.Settings = None,  # noqa: A002  its name from Python too
    epochs: cli.Epochs = None,
    batch_size: cli.BatchSize = None,
    objectives: Annotated[
        str | None,
        typer.Option(
            help="accuracy and any of params, macs, latency, batch_latency and peak_memory, with commas.",
            show_default="accuracy,params,macs",
        ),
    ] = None,
    max_latency: Annotated[
        str | None, typer.Option(help="Most time for one image, such as 3ms; slower models are not trained.")
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="The same for any measured objective: peak_memory=200MiB."),
    ] = None,
    sampler: Annotated[
        str | None,
        typer.Option(
            help="exact_cost, tpe, nsga2, random or regularized_evolution.",
            show_default="exact_cost, or tpe for objectives that are measured",
        ),
    ] = None,
    prior: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="An earlier search of the space, on whatever images, to start from as far as it agrees.",
            show_default="none",
        ),
    ] = None,
    stopper: Annotated[
        str | None,
        typer.Option(help="Early stopping: chance, hypervolume, rank or none.", show_default="chance"),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the search and of each training.", show_default="0")] = None,
    confirm: Annotated[
        str | None,
        typer.Option(
            help="Part of the budget for new seeds of trials whose place on the front is in doubt: 20%, off or auto.",
            show_default="off",
        ),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(
            help="budget: spend it all; converged, or a part such as 0.2%: begin no more trials when the rest of the "
            "budget is expected to add less than that part (converged: 0.5%) of the hypervolume, at 90 %.",
            show_default="budget; with the embedded digits converged, unless there is --max-trials",
        ),
    ] = None,
    max_trials: Annotated[int | None, typer.Option(help="Most trials beside the references and new seeds.")] = None,
    workers: cli.Workers = None,
    cpus_per_trial: cli.CpusPerTrial = None,
    gpus_per_trial: cli.GpusPerTrial = None,
    loaders: cli.Loaders = None,
    storage: cli.StorageUrl = None,
    checkpoints: cli.Checkpoints = None,
    checkpoint_every: cli.CheckpointEvery = None,
    bad_images: Annotated[
        str | None, typer.Option(help="At an image that cannot be read: stop, or skip it.", show_default="stop")
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(help="Folder that keeps decoded copies of datasets; images are decoded once, by nas.prepare."),
    ] = None,
    cache_limit: Annotated[
        str | None, typer.Option(help="Most that all copies there may take.", show_default="100GiB")
    ] = None,
    val_fraction: cli.ValFraction = None,
    images_per_class: cli.ImagesPerClass = None,
    split_seed: cli.SplitSeed = None,
    ray_address: cli.RayAddress = None,
    tracker: cli.TrackerName = None,
    json: cli.AsJson = False,
) -> Path:
    """Find architectures of a space that are best in accuracy, parameters and MACs together.

    Options that are not given come from nas.yaml in this folder, if there is one (data: prepared:/fast/imagenet-160).
    The same command again goes on with the budget that is left; --extend adds to it. Ctrl-C once lets running trials
    report, saves everything and ends.

    \b
    Examples:
      python -m nas.search --space hybrid_stages --budget 6cpu-minutes
      python -m nas.search --space hybrid_stages --budget 64gpu-days --data folder:/data/imagenet --max-macs 1.9G
      python -m nas.search --space hybrid_stages --budget 64gpu-days --data folder:/data/imagenet --plan
      python -m nas.search --space isotropic --budget 64gpu-days --data folder:/data/imagenet
      python -m nas.search --space hybrid_stages --budget 2gpu-days --data folder:/data/imagenet \\
          --objectives accuracy,latency --max-latency 3ms
      python -m nas.search --space hybrid_stages --budget 64gpu-days --data folder:/data/imagenet \\
          --recipe convformer --epochs 30 --set recipe.augmentation.mixup=0.2
      python -m nas.search --space hybrid_stages --budget 16gpu-days --data folder:/data/imagenet --prior runs/cifar10
      python -m nas.search --name hybrid_stages-imagenet --extend 8gpu-days --deadline 12h
      python -m nas.search --study runs/mine/study.yaml --name again --seed 1
    """
    options = {**locals(), "prior": None if prior is None else str(cli.run_path(prior, "prior"))}
    with cli.deaf_threads():
        from nas.launch import launch
    from nas.study.request import PROGRAM, Request, parse_changes, parse_limits, read_team

    asked = {field.name: options[field.name] for field in fields(Request) if field.name in options}
    limits, changes = parse_limits(max_latency, limit or []), parse_changes(set or [])
    request = Request(**asked, measured_limits=limits, changes=changes)
    team = read_team(cli.TEAM_FILE)
    if "prior" in team.request:
        known = str(cli.run_path(team.request["prior"], "prior"))
        team = replace(team, request={**team.request, "prior": known})
    program = {**dict.fromkeys(PROGRAM), "runs": str(cli.RUNS), **team.program}
    program |= {name: value for name in PROGRAM if (value := options[name]) is not None}
    return launch(
        request,
        name=name,
        runs=Path(program["runs"]),
        loaders=program["loaders"],
        ray_address=program["ray_address"],
        tracker=program["tracker"],
        cache=program["cache"] and Path(program["cache"]),
        cache_limit=program["cache_limit"],
        deadline=deadline,
        plan_only=plan,
        as_json=json,
        team=team,
    )


if __name__ == "__main__":
    cli.run(search)
