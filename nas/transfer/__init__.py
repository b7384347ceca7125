"""python -m nas.transfer: an architecture as the backbone of a detector or a segmenter."""

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from metaformer import Architecture
    from nas.transfer.ade import AdeData
    from nas.transfer.coco import CocoData
    from nas.transfer.loop import Job
    from nas.transfer.narrator import Narrator
    from nas.transfer.recipe import TransferRecipe

__all__ = ["transfer"]


def transfer(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A name of the zoo, or an architecture's YAML file.")],
    task: Annotated[str, typer.Option(metavar="TASK", help="retinanet, mask_rcnn or semantic_fpn.")],
    data: Annotated[str, typer.Option(help="coco:PATH for the detectors, ade:PATH for semantic_fpn.")],
    out: Annotated[
        Path, typer.Option(help="Folder for weights, transfer.json and curve.csv; the same command goes on there.")
    ],
    recipe: Annotated[
        str | None, typer.Option(help="A name, or a YAML file.", show_default="the published one of the task")
    ] = None,
    from_: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="FILE|published",
            help="Weights of the backbone, with its classifier, to begin with.",
            show_default="random ones",
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs.", show_default="by the recipe")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps, instead of epochs.", show_default="by the recipe")] = None,
    evaluations: Annotated[
        int | None, typer.Option(help="Evaluations on val, evenly spread.", show_default="by the recipe")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Images a step; the rate changes in proportion.", show_default="by the recipe")
    ] = None,
    size: Annotated[
        int | None, typer.Option(help="Shorter side of the images in pixels.", show_default="by the recipe")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of weights, order and augmentation.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto: a GPU if there is one.")] = "auto",
    checkpoint_every: Annotated[str, typer.Option(metavar="TIME|never", help="Between checkpoints: 30s, 10m.")] = "5m",
    loaders: Annotated[int, typer.Option(min=0, max=256, help="Processes that read images.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train a detector or a segmenter on an architecture of four stages, and say what it is worth on val.

    Average precision as COCO defines it, or mIoU, beside what the papers report. Interrupted or killed, the same
    command goes on from the last checkpoint. One device; a batch must fit into its memory.

    \b
    Examples:
      python -m nas.transfer poolformer_s12 --task retinanet --from published --data coco:/data/coco --out runs/coco-s12
      python -m nas.transfer front/trial_9.yaml --task mask_rcnn --from best.pt --data coco:/data/coco --out runs/mask
      python -m nas.transfer poolformer_s12 --task semantic_fpn --from published --data ade:/data/ade20k \\
          --out runs/ade-s12
      python -m nas.transfer arch.yaml --task retinanet --data coco:/data/small --size 256 --epochs 50 --out runs/small
    """
    from metaformer import zoo
    from metaformer.documents import check_path, sha256_of
    from metaformer.errors import UserError
    from nas.results.console import make_console
    from nas.study.budget import parse_interval
    from nas.transfer.asked import check_pyramid, find_data, read_data
    from nas.transfer.narrator import Narrator
    from nas.transfer.recipe import find_recipe
    from nas.transfer.results import show

    check_path(out / "transfer.json", "out", error=UserError)
    seconds_between = parse_interval("checkpoint_every", checkpoint_every)
    if epochs is not None and steps is not None:
        raise UserError(f"steps: must not be given beside epochs, got {steps}")
    given = {"epochs": epochs, "steps": steps, "evaluations": evaluations, "batch_size": batch_size, "size": size}
    asked = find_recipe(recipe, task, {name: value for name, value in given.items() if value is not None})
    root = find_data(asked.task, data)
    arch = zoo.resolve(model)
    check_pyramid(arch)
    with Narrator() as narrator:
        found = read_data(asked.task, root, narrator)
        start = _start(from_, model, arch)
        settings = {
            "model": model,
            "architecture": arch.model_dump(mode="json"),
            "task": task,
            "data": data,
            "data_facts": found.facts,
            "from": None if start is None else {"file": str(start.absolute()), "sha256": sha256_of(start)},
            "recipe": asked.model_dump(mode="json"),
            "seed": seed,
        }
        job = _make_job(
            arch, asked, found, start, seed=seed, device=device, out=out, every=seconds_between, loaders=loaders
        )
        record = _carry_out(job, out, settings, narrator)
    if as_json:
        typer.echo(json.dumps(record, indent=2))
    else:
        show(record, make_console(as_json=False))


def _start(from_: str | None, model: str, arch: "Architecture") -> Path | None:
    """The file of the weights to begin with, once they have been seen to fit.

    Raises:
        CheckpointError: There are none, or they do not fit.
    """
    if from_ is None:
        return None
    from metaformer.checkpoints import load
    from metaformer.checkpoints.files import fetch_weights

    path = fetch_weights(model) if from_ == "published" else Path(from_)
    load(arch, path)
    return path


def _make_job(
    arch: "Architecture",
    recipe: "TransferRecipe",
    data: "AdeData | CocoData",
    start: Path | None,
    *,
    seed: int,
    device: str,
    out: Path,
    every: float | None,
    loaders: int,
) -> "Job":
    from metaformer.validation import find_device
    from nas.training.checkpoints import CheckpointFolder
    from nas.transfer.evaluation import make_evaluation
    from nas.transfer.examples import make_examples
    from nas.transfer.loop import Job

    return Job(
        arch=arch,
        recipe=recipe,
        examples=make_examples(data, recipe),
        make_evaluation=partial(make_evaluation, data, recipe),
        num_classes=data.facts["classes"],
        start=start,
        seed=seed,
        device=find_device(None if device == "auto" else device),
        files=CheckpointFolder(str(out.absolute())),
        checkpoint_every=every,
        num_workers=loaders,
    )


def _carry_out(job: "Job", out: Path, settings: dict[str, Any], narrator: "Narrator") -> dict[str, Any]:
    """The record of the training, which goes on where the folder has a part of it.

    Raises:
        UserError: The folder is of another training, or training cannot go on.
    """
    from metaformer.errors import UserError, shown
    from nas.record.lock import lock_folder
    from nas.training.checkpoints import StorageError
    from nas.training.errors import TrainingError
    from nas.transfer.loop import count_params, device_name, train
    from nas.transfer.results import TransferRecord, metrics_text

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"out: must be a folder that can be made, got {shown(str(out))} ({error.strerror})") from None
    with lock_folder(out):
        record = TransferRecord.open(out, settings)
        for part in out.glob("*.pt.*.part"):  # of a killed writer
            part.unlink()
        record.note(params=count_params(job), device=device_name(job.device))
        if record.num_evaluated == len(job.recipe.rounds(job.examples.num_train)):
            return record.content
        try:
            for found in train(job, num_evaluated=record.num_evaluated, tell=narrator.tell):
                record.add(found)
                narrator.say(f"step {found.step:,}: loss {found.train_loss:.4g}, {metrics_text(found.metrics)}")
        except (TrainingError, StorageError) as error:
            raise UserError(str(error)) from None
    return record.content
