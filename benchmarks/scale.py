"""How a search scales: the real session and record in virtual time, over made-up learning curves.

Command:   python -m benchmarks.scale --devices 64 --trials 100000, and the same with 1024; on PostgreSQL with
           --storage postgresql://USER@HOST/EMPTY_DATABASE; --profile FILE writes a profile of the driver
Hardware:  one CPU core, 3 GiB of memory; nothing is trained
Time:      benchmarks/results/scale.md has what it took
Expected:  devices busy for at least 98 % of the time; at most 10 ms of the driver a trial, the last as the first

A device waits while the driver is at work: the real time that the session takes to decide and to write the study
passes in virtual time too. Trials come from the random sampler, are stopped early by the default rule, and
take about as long as on a GPU. `of a core` is the processor's time in the driver, in which a busy machine's other
work does not count; `first` and `last` are the same for the first and the last tenth of the trials. Devices are busy
from the first lease to the moment when no new trial is begun.
"""

import cProfile
import math
import random
import resource
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated
from uuid import uuid4

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from metaformer.architecture import Architecture
from metaformer.cost import count_cost
from nas.execution.curves import Curve
from nas.execution.simulator import Simulated, Simulator
from nas.record.record import Record
from nas.record.storage import sqlite_url
from nas.session.leases import Place
from nas.session.session import open_session
from nas.study.lease import Speed
from nas.study.recipe import Recipe
from nas.study.study import Study
from search_spaces.space import SpaceSettings

EPOCHS = 32
IMAGES = {"train": 1_153_051, "val": 128_116, "test": 50_000}  # ImageNet-1k


class GrowingWithCost:
    """Curves that rise to an accuracy that grows with cost; an epoch takes `minutes` for an architecture of 2 GMACs."""

    def __init__(self, minutes: float, *, epochs: int = EPOCHS) -> None:
        self._minutes, self._epochs = minutes, epochs

    def curve(self, architecture: Architecture) -> Curve:
        rng = random.Random(architecture.digest)
        cost = count_cost(architecture)
        last = min(
            0.5 + 0.06 * math.log10(cost.params / 1e6) + 0.1 * math.log10(cost.macs / 1e8) + rng.gauss(0, 0.02), 1
        )
        seconds = self._minutes * 60 * (0.2 + 0.8 * cost.macs / 2e9) * rng.uniform(0.9, 1.1)
        return Curve(seconds, tuple(max(0.0, last * (1 - 0.8**epoch)) for epoch in range(1, self._epochs + 1)))


def simulate(
    num_devices: int, num_trials: int, minutes: float, folder: Path, console: Console, *, storage: str | None
) -> list[str]:
    """One row of the table: a whole search.

    Args:
        storage: URL of a database for the study; None: a file in the folder.
    """
    study = Study(
        space="hybrid_stages",
        settings=SpaceSettings(),
        data="folder:/data/imagenet",
        data_fingerprint="0123456789abcdef",
        recipe=Recipe(epochs=EPOCHS, warmup_epochs=2),
        references=(),
        sampler="random",
        seed=0,
        budget="1000000gpu-days",
        max_trials=num_trials,
    )
    space = study.make_space()
    database = folder / f"{num_devices}.db"
    images_per_epoch = IMAGES["train"] + IMAGES["val"] / 3
    place = Place(
        speed=Speed(base=0.2 * minutes * 60 / images_per_epoch, per_gmac=0.4 * minutes * 60 / images_per_epoch),
        num_images=IMAGES,
        num_workers=num_devices,
        checkpoints=str(folder),
    )
    record = Record(storage or sqlite_url(database), space, study.goals, name=f"scale-{uuid4()}", writes=True)
    session = open_session(study, record, place)
    simulation = Simulator(
        GrowingWithCost(minutes), num_devices=num_devices, driver_takes_time=True, keeps_history=False
    ).begin(session)
    with Progress(console=console) as progress:
        task = progress.add_task(f"{num_devices} devices", total=num_trials)
        marks: list[Simulated] = []  # when a tenth, nine tenths and all of the trials had been begun
        while simulation.step():
            if len(marks) < 3 and session.queue.num_suggested >= num_trials * (0.1, 0.9, 1)[len(marks)]:
                marks.append(simulation.snapshot())
            if simulation.result.num_events % 1000 == 0:
                progress.update(task, completed=session.queue.num_suggested)
    result = simulation.result
    tenth, most, full = (*marks, result, result, result)[:3]
    size = sum(path.stat().st_size for path in folder.glob(f"{database.name}*"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return [
        f"{num_devices:,}",
        f"{len(session.record.trials):,}",
        f"{result.num_events:,}",
        f"{full.busy_seconds / (num_devices * full.seconds):.2%}",
        f"{result.driver_seconds / len(session.record.trials) * 1e3:.1f} ms",
        f"{result.processor_seconds / len(session.record.trials) * 1e3:.1f} ms",
        f"{tenth.processor_seconds / (0.1 * num_trials) * 1e3:.1f} ms",
        f"{(full.processor_seconds - most.processor_seconds) / (0.1 * num_trials) * 1e3:.1f} ms",
        f"{result.driver_seconds / result.num_events * 1e3:.1f} ms",
        f"{result.seconds / 86400:.1f} days",
        f"{peak / 2**30:.2f} GiB",
        "–" if storage else f"{size / 2**20:.0f} MiB",
    ]


def scale(
    devices: Annotated[list[int] | None, typer.Option(help="Simulated devices; may be given again.")] = None,
    trials: Annotated[int, typer.Option(help="Trials of each search.")] = 8000,
    minutes: Annotated[float, typer.Option(help="Minutes that a model of 2 GMACs takes for an epoch.")] = 10.0,
    storage: Annotated[str | None, typer.Option(help="URL of a database; by default a SQLite file.")] = None,
    profile: Annotated[Path | None, typer.Option(help="File for a profile of cProfile, which makes it slower.")] = None,
) -> None:
    """Simulate large searches and print how busy their devices are, and what the driver needs."""
    stopper = Study.model_fields["stopper"].default
    title = f"hybrid_stages, random sampler, stopped by {stopper}, {EPOCHS} epochs"
    table = Table(title=title, title_justify="left")
    columns = (
        "devices",
        "trials",
        "reports",
        "busy",
        "driver a trial",
        "of a core",
        "first",
        "last",
        "a report",
        "lasted",
    )
    for column in (*columns, "memory", "study"):
        table.add_column(column, justify="right")
    profiler = cProfile.Profile()
    with tempfile.TemporaryDirectory() as folder, profiler if profile else nullcontext():
        for number in devices or [64, 1024]:
            table.add_row(*simulate(number, trials, minutes, Path(folder), Console(stderr=True), storage=storage))
    if profile:
        profiler.dump_stats(profile)
    Console(width=140).print(table)


if __name__ == "__main__":
    typer.run(scale)
