"""Finished trials an hour: this tool beside Ray Tune, OptunaSearch, and timm's models and loader put together by hand.

Command:   python -m benchmarks.search_rate --data folder:/data/cifar10
Hardware:  two CPU cores, one for each of two trials at a time; no GPU
Time:      about 10 minutes where nothing else runs
Expected:  the target is 3 times the peer's; it is missed, since training takes most of the time of both

Both train the same hand-designed models at the data's size, each to its end: the same JPEGs for training and
validation, epochs, batch size, optimizer, learning rates, augmentation, and evaluation after each epoch; two trials at
a time, a torch thread each. Ours is what the README says: `python -m nas.prepare`, then `python -m nas.search` with
`--stopper none` on a space of these models alone, with its checkpoints, its study on disk, its look at test and its
report. The peer (`peer.py`) reads the JPEGs by timm's loader and does none of that.

Each round runs both, each round the other first. A rate of the whole command counts from its start to its end; one
between trials from the moment at which as many trials have ended as run at a time to the end of the last.
"""

import json
import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from datetime import datetime
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated, NamedTuple

import torch
import typer
import yaml
from rich.console import Console
from rich.table import Table

from benchmarks.search_rate.data import Folders, make_folders
from benchmarks.search_rate.models import in_timm
from benchmarks.search_rate.peer import Plan
from benchmarks.search_rate.peer import Recipe as PeerRecipe
from benchmarks.search_rate.rates import Measured, Row, Trial, make_rows
from benchmarks.search_rate.space import DEFAULT, SPACE, make_listed
from benchmarks.train_step import machine
from metaformer.cli import run
from metaformer.errors import UserError
from nas.data import default_recipe, look, open_dataset
from nas.make_study import default_settings
from nas.record.run_folder import open_run
from nas.study.recipe import Recipe
from nas.study.recipe_files import find_recipe
from nas.study.request import shorten_warmup
from nas.training.optimisation import with_drop_path
from search_spaces.space import SearchSpace, get, register_space

TARGET = 3.0
_ROOT = Path(__file__).parents[2]


class Task(NamedTuple):
    """What both do."""

    folders: Folders
    names: tuple[str, ...]  # of models
    recipe: Recipe
    num_at_a_time: int
    num_loaders: int  # of a trial of the peer


def make_recipe(name: str | None, data: str, *, epochs: int, batch_size: int) -> Recipe:
    """The recipe of this name, or the data's, as `nas.search --epochs --batch-size` has it."""
    recipe = default_recipe(data) if name is None else find_recipe(name)
    fields = {**recipe.model_dump(), "epochs": epochs, "batch_size": batch_size}
    shorten_warmup(fields)
    return Recipe.model_validate(fields)


def run_apart(*command: str, folder: Path) -> tuple[float, str]:
    """Seconds that a program took, and what it printed.

    Raises:
        UserError: It failed.
    """
    environment = {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "RAY_worker_niceness": "0",  # as our workers run
        "PYTHONPATH": str(_ROOT),
    }
    start = time.monotonic()
    done = subprocess.run(  # noqa: S603  modules of this package and of nas, by a list of arguments
        [sys.executable, "-m", *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    seconds = time.monotonic() - start
    if done.returncode:
        raise UserError(f"{command[0]}: must end with code 0, got {done.returncode}: {done.stderr[-2000:]}")
    return seconds, done.stdout


# ---------------------------------------------------------------------- ours


def measure_ours(task: Task, folder: Path) -> Measured:
    """A search of ours, prepared for in the same folder."""
    prepared = folder / "prepared"
    prepare_seconds, _ = run_apart("nas.prepare", f"folder:{task.folders.ours}", "--out", str(prepared), folder=folder)
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(task.recipe.model_dump(mode="json")), encoding="utf-8")
    wall_seconds, _ = run_apart(
        *("benchmarks.search_rate.ours", ",".join(task.names), "--space", SPACE, "--references", "all"),
        *("--data", f"prepared:{prepared}", "--name", "run", "--runs", str(folder), "--recipe", str(recipe)),
        *("--stopper", "none", "--budget", "10cpu-days", "--workers", str(task.num_at_a_time)),
        folder=folder,
    )
    return Measured(read_trials(folder / "run", task), wall_seconds, prepare_seconds, task.num_at_a_time)


def read_trials(folder: Path, task: Task) -> list[Trial]:
    """The trials of a run of ours, with the times at which the study on disk has them complete."""
    run = open_run(folder)
    recipe = run.study.with_precision(task.recipe.precision).recipe  # which a search chooses by measurement
    assert recipe == task.recipe, recipe
    with closing(sqlite3.connect(run.folder.database)) as database:
        ended = dict(database.execute("SELECT number, datetime_complete FROM trials WHERE state = 'COMPLETE'"))
    trials = [
        Trial(
            model=str(trial.reference),
            params=trial.params,
            val_accuracy=trial.val_accuracy or 0.0,
            ended=datetime.fromisoformat(f"{ended[trial.number]}+00:00").timestamp(),
        )
        for trial in run.record.complete
    ]
    assert sorted(trial.model for trial in trials) == sorted(task.names), trials
    return trials


# ---------------------------------------------------------------------- the peer


def make_plan(task: Task, space: SearchSpace) -> Plan:
    """The same for the peer.

    Args:
        space: That of the models, fitted to the images.

    Raises:
        UserError: timm has no such model, or the recipe has what the peer does not follow.
    """
    recipe, augmentation = task.recipe, task.recipe.augmentation
    for name, value, only in (
        ("optimizer", recipe.optimizer, "adamw"),
        ("schedule", recipe.schedule, "cosine"),
        ("cooldown_epochs", recipe.cooldown_epochs, 0),
        ("ema_decay", recipe.ema_decay, None),
        ("augmentation.shift", augmentation.shift, 0),
        ("augmentation.repeats", augmentation.repeats, 1),
    ):
        if value != only:
            raise UserError(f"{name}: must be {only} for the peer to follow, got {value}")
    archs = space.references()
    return Plan(
        data=str(task.folders.peer),
        resolution=space.settings.resolution,
        num_classes=task.folders.num_classes,
        models={name: in_timm(with_drop_path(archs[name], recipe)) for name in task.names},
        recipe=PeerRecipe(
            epochs=recipe.epochs,
            batch_size=recipe.batch_size,
            peak_lr=recipe.peak_lr,
            weight_decay=recipe.weight_decay,
            warmup_epochs=recipe.warmup_epochs,
            warmup_lr=recipe.warmup_lr,
            final_lr=recipe.final_lr,
            label_smoothing=recipe.label_smoothing,
            clip_grad=recipe.clip_grad,
            crop_scale=list(augmentation.crop_scale),
            interpolation=augmentation.train_interpolation,
            flip=augmentation.flip,
            color_jitter=augmentation.color_jitter,
            auto_augment=augmentation.rand_augment,
            random_erasing=augmentation.random_erasing,
            mixup=augmentation.mixup,
            cutmix=augmentation.cutmix,
            eval_crop=augmentation.eval_crop,
        ),
        num_at_a_time=task.num_at_a_time,
        num_loaders=task.num_loaders,
        seed=0,
    )


def fitted_space(data: str) -> SearchSpace:
    """The space of the models, as a search on these data has it."""
    info = open_dataset(data, resolution=look(data).resolution).info
    return get(SPACE, default_settings(info, SPACE))


def measure_peer(task: Task, folder: Path) -> Measured:
    """A search of the peer's."""
    plan = make_plan(task, fitted_space(f"folder:{task.folders.ours}"))
    path = folder / "plan.json"
    path.write_text(json.dumps(plan), encoding="utf-8")
    wall_seconds, said = run_apart("benchmarks.search_rate.peer", str(path), folder=folder)
    trials = [Trial(**json.loads(line)) for line in said.splitlines() if line.startswith('{"model"')]
    assert sorted(trial.model for trial in trials) == sorted(task.names), said
    return Measured(trials, wall_seconds, 0.0, task.num_at_a_time)


# ---------------------------------------------------------------------- both

CONTENDERS = {"ours": measure_ours, "peer": measure_peer}


def measure_rounds(task: Task, num_rounds: int, scratch: Path) -> dict[str, list[Measured]]:
    """Searches of both, in turn."""
    found: dict[str, list[Measured]] = {name: [] for name in CONTENDERS}
    order = list(CONTENDERS)
    for number in range(num_rounds):
        for name in order:
            folder = scratch / f"{name}-{number}"
            folder.mkdir()
            found[name].append(CONTENDERS[name](task, folder))
            measured = found[name][-1]
            print(
                f"round {number + 1}, {name}: {measured.prepare_seconds:.1f} s before, {measured.wall_seconds:.1f} s; "
                f"{measured.rate:.1f} trials an hour, {measured.steady_rate:.1f} between trials",
                file=sys.stderr,
                flush=True,
            )
        order.reverse()
    return found


def print_tables(task: Task, found: dict[str, list[Measured]], rows: list[Row], console: Console) -> None:
    table = Table(title="Finished trials an hour, medians; ratios with their range over rounds", title_justify="left")
    for column in ("", "ours", "peer", "ours / peer"):
        table.add_column(column, justify="right" if column else "left")
    for row in rows:
        table.add_row(row.name, f"{row.ours:.1f}", f"{row.peer:.1f}", str(row.ratio))
    console.print(table)
    console.print(f"nas.prepare: {median(m.prepare_seconds for m in found['ours']):.1f} s, once for a dataset")
    table = Table(title="Models", title_justify="left")
    for column in ("", "params, ours", "params, peer", "val %, ours", "val %, peer"):
        table.add_column(column, justify="right" if column else "left")
    for name in task.names:
        of_both = [[trial for m in found[who] for trial in m.trials if trial.model == name] for who in CONTENDERS]
        params = (f"{trials[0].params:,}" for trials in of_both)
        accuracies = (f"{100 * median(trial.val_accuracy for trial in trials):.1f}" for trials in of_both)
        table.add_row(name, *params, *accuracies)
    console.print(table)
    ratio = rows[0].ratio.middle
    console.print(f"target of {TARGET} times: {'met' if ratio >= TARGET else 'MISSED'}, {ratio:.2f}")


def as_json(found: dict[str, list[Measured]], rows: list[Row]) -> str:
    searches = {
        who: [{**m._asdict(), "trials": [trial._asdict() for trial in m.trials]} for m in rounds]
        for who, rounds in found.items()
    }
    return json.dumps({"rows": [{**row._asdict(), "ratio": row.ratio._asdict()} for row in rows], **searches}, indent=2)


def compare(
    data: Annotated[str, typer.Option(help="folder:PATH with train/CLASS/IMAGES and val/CLASS/IMAGES.")],
    images_per_class: Annotated[int, typer.Option(min=10, help="Of train that are used.")] = 200,
    epochs: Annotated[int, typer.Option(min=1, help="Of each trial.")] = 3,
    batch_size: Annotated[int, typer.Option(min=2, help="Images a step.")] = 128,
    recipe: Annotated[str | None, typer.Option(help="A recipe's name.", show_default="the data's")] = None,
    names: Annotated[str, typer.Option("--models", help="References of hybrid_stages.")] = ",".join(DEFAULT),
    rounds: Annotated[int, typer.Option(min=1, help="Searches of each, in turn.")] = 3,
    at_a_time: Annotated[int, typer.Option(min=1, help="Trials at a time, of one thread each.")] = 2,
    peer_loaders: Annotated[int, typer.Option(min=0, help="Processes of each trial of the peer that read images.")] = 0,
    json_file: Annotated[Path | None, typer.Option("--json", help="File for all figures.")] = None,
) -> None:
    """Print finished trials an hour of both."""
    console = Console(width=120)
    with TemporaryDirectory() as scratch:
        task = Task(
            make_folders(path_of(data), Path(scratch) / "images", images_per_class=images_per_class),
            tuple(names.split(",")),
            make_recipe(recipe, data, epochs=epochs, batch_size=batch_size),
            at_a_time,
            peer_loaders,
        )
        register_space(SPACE)(make_listed(task.names))
        folders = task.folders
        console.print(
            f"{machine(torch.device('cpu'))}\n{folders.num_train:,} images of train, {folders.num_val:,} of val, "
            f"{folders.num_test:,} of test, which ours alone looks at; {epochs} epochs in batches of {batch_size}; "
            f"{len(task.names)} trials, {at_a_time} at a time, a thread each; "
            f"{peer_loaders} loaders of a trial of the peer; recipe {recipe or 'of the data'}",
            highlight=False,
        )
        found = measure_rounds(task, rounds, Path(scratch))
    rows = make_rows(found["ours"], found["peer"])
    print_tables(task, found, rows, console)
    if json_file is not None:
        json_file.write_text(as_json(found, rows), encoding="utf-8")


def path_of(data: str) -> Path:
    """The folder that `--data` names.

    Raises:
        UserError: It is no folder:PATH.
    """
    kind, _, path = data.partition(":")
    if kind != "folder" or not path:
        raise UserError(f"data: must be folder:PATH, which both can read, got {data!r}")
    return Path(path).expanduser().absolute()


if __name__ == "__main__":
    run(compare)
