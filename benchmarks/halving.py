"""Early stopping beside full training, replayed over recorded learning curves.

Command:   python benchmarks/halving.py
Hardware:  any; nothing is trained. One CPU core, about two minutes.
Expected:  the front's hypervolume of full training, within 1 %, in at most a third of the device-seconds

Every architecture of the table is tried once, in a random order, on simulated devices, by the real session: once
trained to the end, once with each stopper. Figures are medians over the orders.
"""

import random
import sys
from pathlib import Path
from statistics import median
from typing import Annotated, NamedTuple

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from nas.execution.curves import CurveTable
from nas.execution.simulator import Simulator
from nas.record.record import Record
from nas.record.storage import IN_MEMORY
from nas.record.trials import TrialState
from nas.session.leases import Place
from nas.session.pareto import HypervolumeScale
from nas.session.session import Session, open_session
from nas.session.stoppers import names
from nas.study.lease import Speed
from nas.study.study import Study
from search_spaces.space import SearchSpace

STUDIES = Path(__file__).parents[1] / "studies"
TABLE = STUDIES / "curves" / "digits_hybrid_stages.csv"
STUDY = STUDIES / "digits_hybrid_stages.yaml"  # by whose recipe the table was recorded


class Replayed(NamedTuple):
    """What one search came to."""

    device_seconds: float
    hypervolume: float
    found: float  # part of the full front's gain over the cheapest architecture alone
    on_front: float  # part of the full front's members that it holds
    num_complete: int


def study_of_table(table: CurveTable) -> Study:
    """The recorded study without early stopping and references, with a trial for each architecture of the table."""
    recorded = Study.from_file(STUDY)
    changes = {
        "recipe": recorded.recipe.model_copy(update={"epochs": table.num_epochs}),
        "references": (),
        "sampler": "random",
        "stopper": "none",
        "budget": "1000cpu-days",
        "max_trials": len(table.architectures),
    }
    return recorded.model_copy(update=changes)


def replay(table: CurveTable, space: SearchSpace, study: Study, order: list[int], *, num_devices: int) -> Session:
    """The session after it has tried every architecture of the table."""
    place = Place(
        speed=Speed(base=1e-6, per_gmac=1e-3),
        num_images={"train": 1079, "val": 359, "test": 359},
        num_workers=num_devices,
        checkpoints="nowhere",
    )
    first = [table.architectures[i] for i in order]
    session = open_session(study, Record(IN_MEMORY, space, study.goals, writes=True), place, first=first)
    Simulator(table, num_devices=num_devices).run(session)
    return session


def compare(
    table: Annotated[Path, typer.Argument(help="Recorded learning curves.")] = TABLE,
    orders: Annotated[int, typer.Option(help="Random orders of the table.")] = 20,
    devices: Annotated[int, typer.Option(help="Simulated devices.")] = 4,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Replay searches with and without early stopping and print what they cost and find."""
    space = Study.from_file(STUDY).make_space()
    curves = CurveTable(table, space)
    base = study_of_table(curves)
    results: dict[str, list[Replayed]] = {name: [] for name in names()}
    for seed in track(range(orders), console=Console(stderr=True), description="orders"):
        order = random.Random(seed).sample(range(len(curves.architectures)), len(curves.architectures))
        sessions = {
            name: replay(curves, space, base.model_copy(update={"stopper": name}), order, num_devices=devices)
            for name in names()
        }
        for name, session in sessions.items():
            results[name].append(_compare(session, sessions["none"], space))
    _print(results, curves, Console(width=120), as_json=json)


def _compare(session: Session, full: Session, space: SearchSpace) -> Replayed:
    cheapest = min(full.front, key=lambda trial: trial.params)
    alone = HypervolumeScale.of(space, full.objectives).hypervolume([full.objectives.values(cheapest)])
    members = {trial.architecture.digest for trial in full.front}
    kept = {trial.architecture.digest for trial in session.front}
    return Replayed(
        device_seconds=session.ledger.spent,
        hypervolume=session.hypervolume / full.hypervolume,
        found=(session.hypervolume - alone) / (full.hypervolume - alone),
        on_front=len(members & kept) / len(members),
        num_complete=sum(trial.state is TrialState.COMPLETE for trial in session.record),
    )


def _print(results: dict[str, list[Replayed]], curves: CurveTable, console: Console, *, as_json: bool) -> None:
    full = median(result.device_seconds for result in results["none"])
    rows = {}
    for name, found in results.items():
        seconds = median(result.device_seconds for result in found)
        rows[name] = {
            "device_seconds": round(seconds, 1),
            "share": round(seconds / full, 3),
            "hypervolume": round(median(result.hypervolume for result in found), 5),
            "lowest_hypervolume": round(min(result.hypervolume for result in found), 5),
            "gain_over_cheapest": round(median(result.found for result in found), 3),
            "on_front": round(median(result.on_front for result in found), 3),
            "complete": median(result.num_complete for result in found),
        }
    if as_json:
        import json

        sys.stdout.write(json.dumps(rows, indent=2) + "\n")
        return
    shown = Table(title=f"{len(curves.architectures)} architectures, {curves.num_epochs} epochs", title_justify="left")
    for column in ("stopper", *next(iter(rows.values()))):
        shown.add_column(column.replace("_", " "), justify="left" if column == "stopper" else "right")
    for name, row in rows.items():
        shown.add_row(name, *(str(value) for value in row.values()))
    console.print(shown)


if __name__ == "__main__":
    typer.run(compare)
