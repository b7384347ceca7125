"""Seconds that a trial takes beyond its training: ours beside Ray Tune with OptunaSearch.

Command:   python -m benchmarks.overhead
Hardware:  two CPU cores, one for the trials; no GPU
Time:      about 15 minutes
Expected:  at most 0.1 s of ours for a warm trial; Ray Tune as it comes takes seconds, since each trial starts a worker

All train models of one space on the digits with `nas.training.loop.train`, one trial at a time, and ask a multi-
objective TPE for each. The worker takes the time of every epoch; what passes between the last epoch of a trial and
that of the next, less the epochs, is the overhead of a warm trial. That of the first trial counts from the moment at
which the search is started on a cluster that is up: the start of the worker and its imports are in it.

`ours` is the real backend, session and SQLite record. `tune` is a function and OptunaSearch with nothing else set;
`tune-reuse` is the fastest that Ray Tune offers, a class that keeps its worker and its data (`reuse_actors`). Each
round runs all three, each in a process of its own; figures are medians over rounds and trials.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated, Any, NamedTuple

import ray
import torch
import typer
from ray import tune
from ray.tune.search.optuna import OptunaSearch
from rich.console import Console
from rich.table import Table

from metaformer.cost import count_cost
from nas.data import Dataset, default_recipe, open_dataset
from nas.execution import ray_backend
from nas.execution.devices import Wanted
from nas.execution.ray_backend import RayBackend
from nas.make_study import default_settings
from nas.record.record import Record
from nas.record.storage import sqlite_url
from nas.session.leases import Place
from nas.session.session import open_session
from nas.study.lease import OUTCOME, EpochDone, Lease, Report, Speed
from nas.study.objectives import DEFAULT, choose
from nas.study.study import Study
from nas.training.loop import train
from search_spaces.space import SearchSpace, get

TARGET_SECONDS = 0.1
RESOLUTION = 16
RECIPE = default_recipe("digits").model_copy(update={"epochs": 2, "warmup_epochs": 1, "batch_size": 256})
_EPOCHS_FILE = "OVERHEAD_EPOCHS_FILE"  # environment of the workers: where they write down their epochs
_GOALS = choose(DEFAULT)


class Epoch(NamedTuple):
    """An epoch as its worker saw it; the clock is the machine's."""

    folder: str  # of the trial
    start: float
    end: float


class Measured(NamedTuple):
    """Seconds beyond training in one search."""

    cold: float  # the first trial
    warm: list[float]  # each of the others
    training: float  # seconds of training of a trial, on average


def make_space() -> SearchSpace:
    return get("hybrid_stages", default_settings(open_dataset("digits", resolution=RESOLUTION).info))


def timed(lease: Lease, dataset: Dataset, *, device: torch.device) -> Iterator[Report]:
    """The reports of `train`, with the time of each epoch written down."""
    reports = train(lease, dataset, device=device)
    while True:
        start = time.monotonic()
        report = next(reports, None)
        if report is None:
            return
        write_epoch(Epoch(lease.folder, start, time.monotonic()))
        yield report


def write_epoch(epoch: "Epoch") -> None:
    with Path(os.environ[_EPOCHS_FILE]).open("a", encoding="utf-8") as file:
        file.write(json.dumps(epoch) + "\n")


# ---------------------------------------------------------------------- ours


class TimedWorker(ray_backend.TrialWorker):
    """The backend's worker, with the time of each epoch written down."""

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._folder = Lease.model_validate_json(new_config["lease"]).folder
        return super().reset_config(new_config)

    def step(self) -> dict[str, Any]:
        start = time.monotonic()
        result = super().step()
        if isinstance(OUTCOME.validate_json(result["outcome"]), EpochDone):
            write_epoch(Epoch(self._folder, start, time.monotonic()))
        return result


def run_ours(folder: Path, num_trials: int) -> float:
    """When the search was started; the cluster was up."""
    info = open_dataset("digits", resolution=RESOLUTION).info
    space = make_space()
    study = Study(
        space=space.name,
        settings=space.settings,
        data="digits",
        data_fingerprint=info.fingerprint,
        recipe=RECIPE,
        references=(),
        sampler="tpe",
        seed=0,
        stopper="none",
        budget="1cpu-days",
        max_trials=num_trials,
    )
    place = Place(
        speed=Speed(base=1e-6, per_gmac=1e-3),
        num_images={"train": info.num_images["train"], "val": info.num_images["val"], "test": 0},
        num_workers=1,
        checkpoints=str(folder / "checkpoints"),
    )
    session = open_session(study, Record(sqlite_url(folder / "study.db"), space, study.goals, writes=True), place)
    ray_backend.TrialWorker = TimedWorker  # type: ignore[misc]
    wanted = Wanted(kind="cpu", cpus=1, workers=1)
    with RayBackend(info, wanted=wanted, address=None, scratch=folder / "scratch") as backend:
        start = time.monotonic()
        backend.run(session, on_event=lambda: None)
    return start


# ---------------------------------------------------------------------- Ray Tune


def epochs_of(config: dict[str, Any], dataset: Dataset) -> Iterator[dict[str, float]]:
    """What a trial of theirs reports after each epoch."""
    torch.set_num_threads(1)
    space = make_space()
    arch = space.decode({choice.name: config[choice.name] for choice in space.choices})
    cost = count_cost(arch)
    folder = str(Path(config["folder"]) / arch.digest)
    lease = Lease(trial=0, attempt=1, architecture=arch, recipe=RECIPE, epochs=RECIPE.epochs, seed=0, folder=folder)
    for report in timed(lease, dataset, device=torch.device("cpu")):
        yield {"val_accuracy": report.val_accuracy, "params": cost.params, "macs": cost.macs}


def train_function(config: dict[str, Any]) -> None:
    for results in epochs_of(config, open_dataset("digits", resolution=RESOLUTION)):
        tune.report(results)


class TrainClass(tune.Trainable):
    """The same as a class whose worker and data stay."""

    def setup(self, config: dict[str, Any]) -> None:
        self._dataset = open_dataset("digits", resolution=RESOLUTION)
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._epochs = epochs_of(new_config, self._dataset)
        return True

    def step(self) -> dict[str, Any]:
        return {**next(self._epochs), "done": self.iteration + 1 == RECIPE.epochs}


def run_theirs(folder: Path, num_trials: int, *, reuse: bool) -> float:
    """When the search was started; the cluster was up."""
    ray.init("local", include_dashboard=False, log_to_driver=False)  # not one that happens to run here
    space = {choice.name: tune.choice(list(choice.values)) for choice in make_space().choices}
    tuner = tune.Tuner(
        tune.with_resources(TrainClass if reuse else train_function, {"cpu": 1}),
        param_space={**space, "folder": str(folder / "checkpoints")},
        tune_config=tune.TuneConfig(
            search_alg=OptunaSearch(
                metric=[objective.metric for objective in _GOALS],
                mode=["max" if objective.is_maximised else "min" for objective in _GOALS],
            ),
            num_samples=num_trials,
            max_concurrent_trials=1,
            reuse_actors=reuse,
        ),
        run_config=tune.RunConfig(
            storage_path=str(folder / "results"),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # training keeps its own
        ),
    )
    start = time.monotonic()
    tuner.fit()
    ray.shutdown()
    return start


# ---------------------------------------------------------------------- both

CONTENDERS = {
    "ours": run_ours,
    "tune": lambda folder, num_trials: run_theirs(folder, num_trials, reuse=False),
    "tune-reuse": lambda folder, num_trials: run_theirs(folder, num_trials, reuse=True),
}


def measure(name: str, num_trials: int) -> Measured:
    """One search, with this process as its driver."""
    with TemporaryDirectory() as folder, _silent():
        epochs_file = Path(folder) / "epochs.jsonl"
        os.environ[_EPOCHS_FILE] = str(epochs_file)  # before Ray starts, whose workers inherit it
        start = CONTENDERS[name](Path(folder), num_trials)
        epochs = [Epoch(*json.loads(line)) for line in epochs_file.read_text(encoding="utf-8").splitlines()]
    trials: dict[str, list[Epoch]] = {}
    for epoch in epochs:
        trials.setdefault(epoch.folder, []).append(epoch)
    assert [len(trial) for trial in trials.values()] == [RECIPE.epochs] * num_trials, trials
    ends = [start, *(trial[-1].end for trial in trials.values())]
    training = [sum(epoch.end - epoch.start for epoch in trial) for trial in trials.values()]
    beyond = [after - before - busy for before, after, busy in zip(ends, ends[1:], training, strict=False)]
    return Measured(beyond[0], beyond[1:], sum(training) / num_trials)


@contextmanager
def _silent() -> Iterator[None]:
    """What Tune prints goes nowhere; that it prints is part of its time."""
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
        yield


def measure_apart(name: str, num_trials: int) -> Measured:
    """One search in a process of its own, which no setting of another reaches."""
    command = [sys.executable, "-m", "benchmarks.overhead", "--only", name, "--trials", str(num_trials)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)  # noqa: S603
    return Measured(*json.loads(done.stdout.splitlines()[-1]))


def make_rows(found: dict[str, list[Measured]]) -> dict[str, dict[str, float]]:
    rows = {}
    for name, rounds in found.items():
        warm = [seconds for measured in rounds for seconds in measured.warm]
        rows[name] = {
            "warm_s": median(warm),
            "slowest_warm_s": max(warm),
            "cold_s": median(measured.cold for measured in rounds),
            "training_s": median(measured.training for measured in rounds),
        }
    for row in rows.values():
        row["times_ours_warm"] = row["warm_s"] / rows["ours"]["warm_s"]
        row["times_ours_cold"] = row["cold_s"] / rows["ours"]["cold_s"]
    return rows


def make_table(rows: dict[str, dict[str, float]], *, title: str) -> Table:
    table = Table(title=title, title_justify="left")
    for column in ("", *next(iter(rows.values()))):
        table.add_column(column.replace("_", " "), justify="right" if column else "left")
    for name, row in rows.items():
        table.add_row(name, *(f"{value:.1f}" if "times" in key else f"{value:.3f}" for key, value in row.items()))
    return table


def compare(
    trials: Annotated[int, typer.Option(min=2, help="Trials of each search.")] = 12,
    rounds: Annotated[int, typer.Option(min=1, help="Searches of each kind, in turn.")] = 3,
    only: Annotated[str | None, typer.Option(help="Measure one in this process: " + ", ".join(CONTENDERS))] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the seconds that trials take beyond their training."""
    if only is not None:
        sys.stdout.write(json.dumps(measure(only, trials)) + "\n")
        return
    found: dict[str, list[Measured]] = {name: [] for name in CONTENDERS}
    for _ in range(rounds):
        for name in CONTENDERS:
            found[name].append(measure_apart(name, trials))
    rows = make_rows(found)
    if as_json:
        sys.stdout.write(json.dumps(rows, indent=2) + "\n")
        return
    console = Console(width=120)
    console.print(make_table(rows, title=f"Seconds beyond training, {rounds} rounds of {trials} trials"))
    warm = rows["ours"]["warm_s"]
    console.print(f"target of {TARGET_SECONDS} s warm: {'met' if warm <= TARGET_SECONDS else 'MISSED'}, {warm:.3f} s")


if __name__ == "__main__":
    typer.run(compare)
