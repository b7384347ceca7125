"""Early stopping beside full training, replayed over recorded learning curves.

Command:   python benchmarks/halving.py; the same with studies/curves/cifar10_hybrid_stages.csv, or with
           studies/records/isotropic_or_pyramid
Hardware:  any; nothing is trained. One CPU core, about three minutes.
Expected:  the front's hypervolume of full training, within 1 %: on the digits in a third of the device-seconds, on
           CIFAR-10 in half of them where there are hundreds of architectures, in two thirds where there are few

Every architecture of the table is tried once, in a random order, on simulated devices, by the real session: once
trained to the end, once with each stopper. Figures are medians over the orders. While all are trained to the end it is
noted what chance to add to the front `chance` gave them at each rung, and whether they did.
"""

import random
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median
from typing import Annotated, NamedTuple, Protocol

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from metaformer.architecture import Architecture
from nas.execution.curves import Curve, CurveTable
from nas.execution.simulator import Simulator
from nas.record.record import Record
from nas.record.run_folder import Run, open_run
from nas.record.storage import IN_MEMORY
from nas.record.trials import TrialRecord, TrialState
from nas.replay.surrogate import RunCurves
from nas.session.leases import Place
from nas.session.pareto import HypervolumeScale
from nas.session.session import Session, open_session
from nas.session.stoppers import FEWEST, ChanceStopper, names
from nas.study.lease import Speed
from nas.study.study import Study
from search_spaces.space import SearchSpace

STUDIES = Path(__file__).parents[1] / "studies"
TABLE = STUDIES / "curves" / "digits_hybrid_stages.csv"
STUDY = STUDIES / "digits_hybrid_stages.yaml"  # by whose recipe the table was recorded
_BINS = (0, 0.05, 0.2, 0.5, 0.8, 1.01)
_SEEDS_SPREAD = 0.006  # of accuracy: about the standard deviation between two trainings on CIFAR-10


class Curves(Protocol):
    """Architectures with their learning curves."""

    @property
    def architectures(self) -> Sequence[Architecture]: ...
    @property
    def num_epochs(self) -> int: ...
    def curve(self, architecture: Architecture) -> Curve: ...


class OfRun:
    """The curves of a run that trained every trial to its end."""

    def __init__(self, run: Run) -> None:
        self.architectures = list(
            {trial.architecture.digest: trial.architecture for trial in run.record.complete}.values()
        )
        self.num_epochs = run.study.recipe.epochs
        self._curves = RunCurves(run)

    def curve(self, architecture: Architecture) -> Curve:
        return self._curves.curve(architecture)


class Watch(ChanceStopper):
    """Stops nothing, and notes each chance with the best accuracy at the same costs then."""

    def __init__(self, session: Session, scale: HypervolumeScale) -> None:
        super().__init__(epochs=session.study.recipe.epochs, first_rung=1, objectives=session.objectives, scale=scale)
        self.noted: list[tuple[TrialRecord, float, float]] = []

    def reason_to_stop(self, trial: TrialRecord, front: Sequence[TrialRecord]) -> str | None:
        rung = trial.num_epochs
        if rung in self.rungs and len(self._at[self.epochs]) >= FEWEST:
            best = self.best_at(trial, rung, front)
            if best is not None:
                self.noted.append((trial, self.chance(trial, rung, front), best))
        return None

    @property
    def came_true(self) -> list[tuple[float, bool]]:
        """Chances, and whether the trial ended better than what was there."""
        return [(chance, (trial.val_accuracy or 0) > best) for trial, chance, best in self.noted]


class Replayed(NamedTuple):
    """What one search came to."""

    device_seconds: float
    hypervolume: float
    found: float  # part of the full front's gain over the cheapest architecture alone
    on_front: float  # part of the full front's members that it holds
    near: float  # the same, or others as cheap that are no worse but for the spread between seeds
    num_complete: int


def study_of_table(table: Curves, recorded: Study | None = None) -> Study:
    """The recorded study without early stopping and references, with a trial for each architecture of the table."""
    recorded = recorded or Study.from_file(STUDY)
    changes = {
        "recipe": recorded.recipe.model_copy(update={"epochs": table.num_epochs}),
        "references": (),
        "sampler": "random",
        "stopper": "none",
        "confirm": "off",
        "budget": "1000cpu-days",
        "max_trials": len(table.architectures),
    }
    return recorded.model_copy(update=changes)


def replay(
    table: Curves, space: SearchSpace, study: Study, order: list[int], *, num_devices: int, is_watched: bool = False
) -> Session:
    """The session after it has tried every architecture of the table; a watched one stops none and notes chances."""
    place = Place(
        speed=Speed(base=1e-6, per_gmac=1e-3),
        num_images={"train": 1079, "val": 359, "test": 359},
        num_workers=num_devices,
        checkpoints="nowhere",
    )
    first = [table.architectures[i] for i in order]
    session = open_session(study, Record(IN_MEMORY, space, study.goals, writes=True), place, first=first)
    if is_watched:
        session.stopper = Watch(session, HypervolumeScale.of(space, session.objectives))
    Simulator(table, num_devices=num_devices).run(session)
    return session


def compare(
    table: Annotated[
        Path, typer.Argument(help="Of nas.table, its study beside it, or a run without early stopping.")
    ] = TABLE,
    orders: Annotated[int, typer.Option(help="Random orders of the table.")] = 20,
    devices: Annotated[int, typer.Option(help="Simulated devices.")] = 4,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Replay searches with and without early stopping and print what they cost and find."""
    curves, space, base = read_curves(table)
    results: dict[str, list[Replayed]] = {name: [] for name in names()}
    chances: list[tuple[float, bool]] = []
    for seed in track(range(orders), console=Console(stderr=True), description="orders"):
        order = random.Random(seed).sample(range(len(curves.architectures)), len(curves.architectures))
        studies = {name: base.model_copy(update={"stopper": name}) for name in names()}
        sessions = {
            name: replay(curves, space, study, order, num_devices=devices, is_watched=name == "none")
            for name, study in studies.items()
        }
        watch = sessions["none"].stopper
        assert isinstance(watch, Watch)
        chances += watch.came_true
        for name, session in sessions.items():
            results[name].append(compare_with_full(session, sessions["none"], space))
    _print(results, chances, curves, Console(width=120), as_json=json)


def read_curves(table: Path) -> tuple[Curves, SearchSpace, Study]:
    """The curves of a table, or of a run; and the study that is replayed."""
    if table.is_dir():
        run = open_run(table)
        of_run = OfRun(run)
        return of_run, run.space, study_of_table(of_run, run.study)
    beside = table.with_suffix(".yaml")
    recorded = Study.from_file(beside if beside.exists() else STUDY)
    space = recorded.make_space()
    curves = CurveTable(table, space)
    return curves, space, study_of_table(curves, recorded)


def compare_with_full(session: Session, full: Session, space: SearchSpace) -> Replayed:
    """What a search came to beside the one that trained everything to its end."""
    cheapest = min(full.front, key=lambda trial: trial.params)
    alone = HypervolumeScale.of(space, full.objectives).hypervolume([full.objectives.values(cheapest)])
    members = {trial.architecture.digest for trial in full.front}
    kept = {trial.architecture.digest for trial in session.front}
    return Replayed(
        device_seconds=session.ledger.spent,
        hypervolume=session.hypervolume / full.hypervolume,
        found=(session.hypervolume - alone) / (full.hypervolume - alone),
        on_front=len(members & kept) / len(members),
        near=fmean(any(_is_near(other, member) for other in session.front) for member in full.front),
        num_complete=sum(trial.state is TrialState.COMPLETE for trial in session.record),
    )


def _is_near(trial: TrialRecord, member: TrialRecord) -> bool:
    worse = (member.val_accuracy or 0) - (trial.val_accuracy or 0)
    return trial.params <= member.params and trial.macs <= member.macs and worse <= _SEEDS_SPREAD


def _reliability(chances: list[tuple[float, bool]]) -> list[dict[str, float]]:
    """Chances by how large they were: their mean, and the part that came true."""
    lines = []
    for low, high in pairwise(_BINS):
        own = [each for each in chances if low <= each[0] < high]
        if own:
            said, true = (fmean(column) for column in zip(*own, strict=True))
            lines.append({"from": low, "to": high, "said": round(said, 3), "came_true": round(true, 3), "of": len(own)})
    return lines


def _print(
    results: dict[str, list[Replayed]],
    chances: list[tuple[float, bool]],
    curves: Curves,
    console: Console,
    *,
    as_json: bool,
) -> None:
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
            "near": round(median(result.near for result in found), 3),
            "complete": median(result.num_complete for result in found),
        }
    said = _reliability(chances)
    if as_json:
        import json

        sys.stdout.write(json.dumps({"stoppers": rows, "chances": said}, indent=2) + "\n")
        return
    shown = Table(title=f"{len(curves.architectures)} architectures, {curves.num_epochs} epochs", title_justify="left")
    for column in ("stopper", *next(iter(rows.values()))):
        shown.add_column(column.replace("_", " "), justify="left" if column == "stopper" else "right")
    for name, row in rows.items():
        shown.add_row(name, *(str(value) for value in row.values()))
    console.print(shown)
    reliability = Table(title="chances that `chance` gave, and how often they came true", title_justify="left")
    for column in said[0] if said else ():
        reliability.add_column(column.replace("_", " "), justify="right")
    for line in said:
        reliability.add_row(*(str(value) for value in line.values()))
    console.print(reliability)


if __name__ == "__main__":
    typer.run(compare)
