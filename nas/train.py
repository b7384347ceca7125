"""python -m nas.train: train one architecture on one device, as a search trains each of its trials."""

import csv
import io
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from nas import cli

if TYPE_CHECKING:
    import torch

    from metaformer import Architecture
    from nas.data import DataInfo, Dataset
    from nas.results.trackers import Messenger
    from nas.study.lease import Lease, Metrics, Report, Start
    from nas.study.recipe import Recipe


def train(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A name of the zoo, or an architecture's YAML file.")],
    out: Annotated[
        Path, typer.Option(help="Folder for weights, train.json and curve.csv; the same command goes on there.")
    ],
    data: Annotated[
        str | None,
        typer.Option(help="Images to train on, such as prepared:/fast/cifar10.", show_default="that of nas.yaml"),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="A name, such as convformer, or a YAML file.", show_default="by the data")
    ] = None,
    set_: cli.Settings = None,
    from_: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="FILE|published",
            help="Weights to begin with, also of other classes or another resolution.",
            show_default="random ones",
        ),
    ] = None,
    resolution: Annotated[
        int | None, typer.Option(help="Side of the images in pixels.", show_default="the architecture's")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs.", show_default="by the recipe")] = None,
    batch_size: cli.BatchSize = None,
    val_fraction: cli.ValFraction = None,
    images_per_class: cli.ImagesPerClass = None,
    split_seed: cli.SplitSeed = None,
    seed: Annotated[int, typer.Option(help="Seed of weights, order and augmentation.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto: a GPU if there is one.")] = "auto",
    checkpoint_every: Annotated[
        str, typer.Option(metavar="TIME|never", help="Between checkpoints within a long epoch: 30s, 10m.")
    ] = "5m",
    loaders: Annotated[int, typer.Option(min=0, max=256, help="Processes that read images.")] = 0,
    tracker: cli.TrackerName = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train an architecture, from scratch or from weights: its accuracy on val after each epoch, on test at the end.

    Nothing is chosen by either: the last weights count. Those of the epoch that is best on val are kept beside them,
    in best.pt, and tested too. The model's head takes the number of classes that the data have. Interrupted or killed,
    the same command goes on from the last epoch. --from fine-tunes: position embeddings are resampled to the
    resolution, and a classifier of other classes begins at random. What is not said of data, recipe and split comes
    from nas.yaml in this folder, if there is one.

    \b
    Examples:
      python -m nas.train runs/smoke/front/trial_92.yaml --data digits --out runs/trial-92
      python -m nas.train convmixer_256_8_p2_k5 --data prepared:/fast/cifar10 --recipe convmixer_cifar10 --out runs/cm
      python -m nas.train caformer_s18 --from published --resolution 384 --data folder:/data/flowers --epochs 30 \\
          --out runs/flowers
    """
    from metaformer import zoo
    from metaformer.documents import check_path, sha256_of
    from metaformer.errors import UserError
    from metaformer.validation import find_device
    from nas.data import check_recipe, open_dataset
    from nas.record.lock import lock_folder
    from nas.study.budget import parse_interval
    from nas.study.lease import Lease
    from nas.study.request import Request, asked_splitting
    from nas.training.checkpoints import StorageError
    from nas.training.errors import TrainingError

    check_path(out / "train.json", "out", error=UserError)
    seconds_between = parse_interval("checkpoint_every", checkpoint_every)
    if tracker is not None:
        from nas.results.trackers import check_tracker  # with pandas and more, which nothing else here needs

        check_tracker(tracker)
    arch = _at_resolution(zoo.resolve(model), resolution)
    given = Request(
        data=data,
        recipe=recipe,
        val_fraction=val_fraction,
        images_per_class=images_per_class,
        split_seed=split_seed,
    )
    request = cli.fill_from_team(given, cli.OF_ALL_TRAININGS)
    data, splitting = request.named_data(), asked_splitting(request, {})
    asked = _recipe(data, request.recipe, epochs=epochs, batch_size=batch_size, settings=set_ or [])
    check_recipe(data, asked)
    place = find_device(None if device == "auto" else device)
    dataset = open_dataset(data, resolution=arch.resolution, num_workers=loaders, splitting=splitting)
    fitted = _with_classes(arch, dataset.info)
    start = None if from_ is None else _start(from_, model, (arch, fitted))
    arch = fitted
    _make_folder(out)
    with lock_folder(out):
        known = _read_record(out / "train.json")
        asked = _with_precision(asked, arch, dataset, place, known)
        settings = {
            "model": model,
            "architecture": arch.model_dump(mode="json"),
            "data": dataset.info.name,
            "splitting": splitting.model_dump(mode="json"),
            "data_fingerprint": dataset.info.fingerprint,
            "recipe": asked.model_dump(mode="json"),
            "seed": seed,
            **({} if start is None else {"from": start.file, "from_sha256": sha256_of(Path(start.file))}),
        }
        record = _go_on_with(known, settings, out / "train.json")
        lease = Lease(
            trial=0,
            attempt=1,
            architecture=arch,
            recipe=asked,
            epochs=asked.epochs,
            seed=seed,
            folder=str(out.absolute()),
            checkpoint_every=seconds_between,
            start=start,
            keep_best=True,
        )
        messenger = None if tracker is None else _make_messenger(tracker, out)
        try:
            _carry_out(lease, dataset, place, record, out / "train.json", messenger)
        except (TrainingError, StorageError) as error:
            raise UserError(str(error)) from None
        finally:
            if messenger is not None:
                messenger.close()
        if messenger is not None and messenger.problem:
            typer.echo(f"the tracker was not told all: {messenger.problem}", err=True)
    _print_result(record, out, as_json=as_json)


def _print_result(record: dict[str, Any], out: Path, *, as_json: bool) -> None:
    from metaformer.cli.console import make_console
    from nas.study.lease import BEST, WEIGHTS

    if as_json:
        typer.echo(json.dumps(record, indent=2))
        return
    curve = record["curve"]
    seconds = sum(point["seconds"] for point in curve)
    best = record.get("best")
    if best is not None and best["epoch"] < curve[-1]["epoch"]:
        make_console().print(
            f"best on val: {100 * best['val_accuracy']:.2f} %, test {100 * best['test_accuracy']:.2f} % after epoch "
            f"{best['epoch']}; {out / BEST}"
        )
    make_console().print(
        f"val {100 * curve[-1]['val_accuracy']:.2f} %, test {100 * record['test_accuracy']:.2f} % after epoch "
        f"{curve[-1]['epoch']}; {seconds:,.0f} s on {record['device']}; {out / WEIGHTS}, {out / 'train.json'}"
    )


def _carry_out(
    lease: "Lease",
    dataset: "Dataset",
    device: "torch.device",
    record: dict[str, Any],
    path: Path,
    messenger: "Messenger | None",
) -> None:
    """Train what is left, test, and note both in the record and its file.

    Raises:
        TrainingError, StorageError, DataError: As training does.
    """
    import torch

    from metaformer.cli.console import progress_bar
    from nas.record.atomic import replace_text
    from nas.study.lease import BEST, WEIGHTS, Sign
    from nas.training.checkpoints import CheckpointFolder, place_of
    from nas.training.loop import evaluate, train
    from nas.training.state import find_best

    curve: list[dict[str, Any]] = record["curve"]
    seen: list[Metrics] = []
    files = CheckpointFolder(lease.folder)
    is_trained = len(curve) == lease.epochs and files.has(WEIGHTS)
    # A checkpoint is written before its epoch is noted; one that was not noted is trained again, so none is missing.
    noted = [name for name in files.checkpoints() if place_of(name)[0] <= len(curve)]
    lease = lease.model_copy(update={"checkpoint": noted[-1] if noted else None})
    with progress_bar() as bar:
        task = bar.add_task("epochs", total=lease.epochs, completed=len(curve))
        start = time.monotonic()
        for report in () if is_trained else train(lease, dataset, device=device, on_metrics=seen.append):
            if isinstance(report, Sign):
                part = report.step / report.num_steps
                bar.update(task, completed=len(curve) + part)
                continue
            taken, start = time.monotonic() - start, time.monotonic()
            del curve[report.epoch - 1 :]
            curve.append(_point(report, seen.pop(), taken))
            replace_text(path, json.dumps(record, indent=1) + "\n")
            replace_text(path.with_name("curve.csv"), _table(curve))
            if messenger is not None:
                messenger.begin(path.absolute().parent.name, _facts(record))
                messenger.log(path.absolute().parent.name, {name: curve[-1].get(name) for name in _COLUMNS})
            bar.update(task, completed=report.epoch, description=f"val {100 * report.val_accuracy:.2f} %")
    test = lease.model_copy(update={"task": "test", "checkpoint": WEIGHTS})
    record["test_accuracy"] = evaluate(test, dataset, device=device)
    best = find_best(files)
    if best is not None:
        is_last = best.epoch == curve[-1]["epoch"]  # then both files hold the same weights
        test = test.model_copy(update={"checkpoint": BEST})
        accuracy = record["test_accuracy"] if is_last else evaluate(test, dataset, device=device)
        record["best"] = {**best._asdict(), "test_accuracy": accuracy}
    record["device"] = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    replace_text(path, json.dumps(record, indent=1) + "\n")


def _make_folder(out: Path) -> None:
    from metaformer.errors import UserError, shown

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"out: must be a folder that can be made, got {shown(str(out))} ({error.strerror})") from None


def _point(report: "Report", metrics: "Metrics", seconds: float) -> dict[str, Any]:
    return {
        "epoch": report.epoch,
        "val_accuracy": report.val_accuracy,
        "train_loss": report.train_loss,
        **metrics.model_dump(mode="json", exclude={"epoch", "device_seconds"}),
        "seconds": round(seconds, 3),
        **({"note": report.note} if report.note else {}),
    }


_COLUMNS = ("epoch", "val_accuracy", "train_loss", "val_top5", "images_per_s", "waiting", "peak_mib", "seconds")


def _make_messenger(tracker: str, out: Path) -> "Messenger | None":
    from nas.results.trackers import make_tracker

    return make_tracker(tracker, folder=out, group="nas.train")


def _facts(record: dict[str, Any]) -> dict[str, str]:
    """The hyperparameters for a tracker."""
    recipe = {f"recipe.{name}": str(value) for name, value in record["recipe"].items()}
    return {**{name: str(record[name]) for name in ("model", "data", "seed")}, **recipe}


def _table(curve: list[dict[str, Any]]) -> str:
    """The curve as CSV; empty is what was not measured, as by an earlier version."""
    text = io.StringIO()
    table = csv.DictWriter(text, _COLUMNS, extrasaction="ignore", lineterminator="\n")
    table.writeheader()
    table.writerows(curve)
    return text.getvalue()


def _at_resolution(arch: "Architecture", resolution: int | None) -> "Architecture":
    """The architecture for images of another side.

    Raises:
        ArchitectureError: It cannot have that side.
    """
    from pydantic import ValidationError

    from metaformer.errors import UserError, explain

    if resolution is None:
        return arch
    try:
        return type(arch).model_validate(arch.model_dump() | {"resolution": resolution})
    except ValidationError as error:
        raise UserError(explain(error, type(arch))) from None


def _start(file: str, model: str, archs: "tuple[Architecture, Architecture]") -> "Start":
    """The weights to begin with, once they have been seen to fit.

    Args:
        archs: As asked for, and with the classes of the data; weights may be of either.
    Raises:
        CheckpointError: There are none, or they fit neither.
    """
    from metaformer.checkpoints import load
    from metaformer.checkpoints.files import fetch_weights
    from metaformer.errors import CheckpointError
    from nas.study.lease import Start

    path = fetch_weights(model) if file == "published" else Path(file)
    arch, fitted = archs
    try:
        load(arch, path, resample_positions=True)
    except CheckpointError as error:
        try:
            load(fitted, path, resample_positions=True)
        except CheckpointError:
            raise error from None
        arch = fitted
    return Start(file=str(path.absolute()), num_classes=arch.head.num_classes)


def _with_classes(arch: "Architecture", info: "DataInfo") -> "Architecture":
    head = arch.head.model_copy(update={"num_classes": info.num_classes})
    return arch.model_copy(update={"head": head})


def _recipe(
    data: str, source: str | None, *, epochs: int | None, batch_size: int | None, settings: list[str]
) -> "Recipe":
    """The recipe by name or of the data, with what was asked for over it.

    Raises:
        UserError: It is not known, or a field is wrong.
    """
    from pydantic import ValidationError

    from metaformer.errors import explain
    from nas.data import default_recipe
    from nas.study.recipe import Recipe
    from nas.study.recipe_files import find_recipe
    from nas.study.request import Request, overlay, parse_changes, recipe_changes, shorten_warmup
    from nas.study.study import StudyError

    request = Request(changes=parse_changes(settings), epochs=epochs, batch_size=batch_size)
    fields = (find_recipe(source) if source is not None else default_recipe(data)).model_dump(mode="json")
    given = {name: value for name, value in (("epochs", epochs), ("batch_size", batch_size)) if value is not None}
    fields = overlay(fields, given)
    if epochs is not None:
        shorten_warmup(fields)
    try:
        return Recipe.model_validate(overlay(fields, recipe_changes(request)))
    except ValidationError as error:
        line = explain(error, Recipe)
        raise StudyError(f"recipe.{line}" if line.partition(":")[0] in request.changes else line) from None


def _with_precision(
    recipe: "Recipe", arch: "Architecture", dataset: "Dataset", device: "torch.device", known: dict[str, Any] | None
) -> "Recipe":
    """The recipe with the precision of an earlier run, or the faster one by measurement, where it leaves that open."""
    from metaformer.errors import UserError
    from nas.study.recipe import Precision
    from nas.training.errors import TrainingError
    from nas.training.loop import measure_trainings
    from nas.training.precision import open_precisions

    if recipe.precision != "auto":
        return recipe
    if known is not None:
        noted = known.get("recipe")
        precision = noted.get("precision") if isinstance(noted, dict) else None
        if precision not in get_args(Precision):
            return recipe
    elif open_precisions(device, recipe):
        try:
            precision = measure_trainings([arch], recipe, dataset, device=device)[0].precision
        except TrainingError as error:
            raise UserError(str(error)) from None
    else:
        return recipe
    return recipe.model_copy(update={"precision": precision})


def _read_record(path: Path) -> dict[str, Any] | None:
    """What earlier runs of the same command noted; None where there were none.

    Raises:
        UserError: It cannot be read.
    """
    from metaformer.documents import exists, read_text
    from metaformer.errors import UserError, shown

    if not exists(path):
        return None
    try:
        record = json.loads(read_text(path, "out", error=UserError))
    except ValueError:
        record = None
    if not isinstance(record, dict):
        raise UserError(f"out: must hold a whole train.json, got {shown(str(path))}")
    return record


def _go_on_with(record: dict[str, Any] | None, settings: dict[str, Any], path: Path) -> dict[str, Any]:
    """The record of earlier runs, or a new one.

    Raises:
        UserError: The folder is of another training.
    """
    from metaformer.errors import UserError, shown
    from nas.study.splitting import DEFAULT_SPLITTING

    if record is None:
        return {**settings, "curve": []}
    record.setdefault("splitting", DEFAULT_SPLITTING.model_dump(mode="json"))  # of before it was noted
    for name, value in settings.items():
        if record.get(name) != value:
            raise UserError(
                f"out: must be a new folder or one of the same training, got {shown(str(path))} with another {name}"
            )
    return record


if __name__ == "__main__":
    cli.run(train)
