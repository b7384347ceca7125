"""What samplers find in a table of trained architectures: accuracy against MACs, and parameters where asked.

Command:   python -m benchmarks.search --table nas_bench_201_cifar10.csv --seeds 20 --processes 2
           python -m benchmarks.search --devices 1,8,64 --samplers exact_cost --seeds 20 --processes 2
           the same with --curves cifar10.csv, a table that python -m nas.table has made
Hardware:  one CPU core for each process; nothing is trained
Expected:  exact_cost has more of the true front's hypervolume than multivariate TPE and NSGA-II at each checkpoint
           with 8 devices it needs a sixth of the device-seconds that TPE spends on digits, a third on CIFAR-10

A sampler sees the mean accuracy over the table's seeds. The hypervolume is that of error and costs, each divided by the
most in the table, as a share of that of all rows. A trial of an architecture that was tried before is a duplicate, and
counts as a trial. `optuna_*` are Optuna's own samplers, asked as its documentation says, `botorch_qnehvi` is that of
its integration, and the others are this project's proposers; --devices knows `syne_tune_moasha` and `hindsight` too.
Tests: Wilcoxon's signed ranks over the seeds, two-sided, Holm's correction over all of the table.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, NamedTuple, TypeVar

import moocore
import numpy as np
import optuna
import plotly.graph_objects as go
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from scipy.stats import wilcoxon

from benchmarks import virtual_time
from benchmarks.attainment import figure
from benchmarks.tables import TableSpace
from nas.record.trials import TrialRecord, TrialState
from nas.session.proposers import make_proposer
from nas.study.lease import Report
from nas.study.objectives import choose
from search_spaces.space import Limits
from tests.services.picture import take_figure

T = TypeVar("T")
CHECKPOINTS = (50, 100, 200, 400)
_ATTAINED_IN = 100  # trials; with many more all samplers lie on the true front


def _botorch(seed: int) -> optuna.samplers.BaseSampler:
    """BoTorch's noisy expected hypervolume improvement, as Optuna's integration asks it."""
    try:
        from optuna_integration.botorch import BoTorchSampler
        from optuna_integration.botorch.botorch import qnehvi_candidates_func
    except ImportError:
        raise typer.BadParameter(
            "botorch_qnehvi needs pip install optuna-integration botorch", param_hint="--samplers"
        ) from None
    sampler: optuna.samplers.BaseSampler = BoTorchSampler(candidates_func=qnehvi_candidates_func, seed=seed)
    return sampler


PEERS: dict[str, Callable[[int], optuna.samplers.BaseSampler]] = {
    "optuna_tpe_multivariate": lambda seed: optuna.samplers.TPESampler(multivariate=True, seed=seed),
    "optuna_tpe_independent": lambda seed: optuna.samplers.TPESampler(multivariate=False, seed=seed),
    "optuna_gp": lambda seed: optuna.samplers.GPSampler(seed=seed),
    "botorch_qnehvi": _botorch,
    "optuna_nsga2": lambda seed: optuna.samplers.NSGAIISampler(population_size=20, seed=seed),
    "optuna_random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
}
SAMPLERS = "exact_cost,optuna_tpe_multivariate,optuna_tpe_independent,optuna_nsga2,optuna_random"
Floats = NDArray[np.float64]


def ask_proposer(name: str, space: TableSpace, objectives: Sequence[str], *, trials: int, seed: int) -> list[int]:
    """The rows that a proposer of this project tries."""
    history = history_of(name, space, objectives, trials=trials, seed=seed)
    return [space.row(trial.architecture) for trial in history]


def history_of(name: str, space: TableSpace, objectives: Sequence[str], *, trials: int, seed: int) -> list[TrialRecord]:
    """The trials of a search by one of this project's proposers, each of a device-second."""
    proposer = make_proposer(name, space, choose(objectives), per_trial=True)
    history: list[TrialRecord] = []
    while len(history) < trials:
        genes = proposer.propose(history, limits=Limits(), seed=(seed * 1_000_003 + len(history)) % 2**32)
        if genes is None:
            break
        arch = space.decode(genes)
        cost = space.cost(arch)
        trial = TrialRecord(len(history), arch, cost.params, cost.macs, checkpoint_trial=len(history))
        trial.begin_lease()
        trial.charge(1.0)
        accuracy = float(space.accuracy[space.row(arch)])
        trial.add_epoch(Report(epoch=1, val_accuracy=accuracy, train_loss=1.0, checkpoint="x"))
        trial.state = TrialState.COMPLETE
        history.append(trial)
    return history


def ask_optuna(name: str, space: TableSpace, objectives: Sequence[str], *, trials: int, seed: int) -> list[int]:
    """The rows that one of Optuna's samplers tries."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the peers' own
        directions = ["maximize", *["minimize"] * (len(objectives) - 1)]
        study = optuna.create_study(directions=directions, sampler=PEERS[name](seed))
        for _ in range(trials):
            trial = study.ask()
            row = space.row(space.suggest(trial))
            costs = {"params": space.params[row], "macs": space.macs[row]}
            study.tell(trial, [float(space.accuracy[row]), *(float(costs[objective]) for objective in objectives[1:])])
            found.append(row)
    return found


def losses(space: TableSpace, objectives: Sequence[str]) -> Floats:
    """Error and costs of all rows, each divided by its most; shape (rows, objectives)."""
    columns = {"accuracy": 1 - space.accuracy, "params": space.params, "macs": space.macs}
    found = np.column_stack([columns[objective] for objective in objectives]).astype(float)
    return found / found.max(0)


class Searched(NamedTuple):
    """What one search found."""

    shares: list[float]  # of the whole hypervolume, at each checkpoint
    duplicates: float  # share of the trials
    rows: list[int]  # of the table, as they were tried


def search(
    seed: int, *, table: Path, samplers: Sequence[str], objectives: Sequence[str], checkpoints: Sequence[int]
) -> list[Searched]:
    """One search by each sampler."""
    space = TableSpace(table)
    scaled = losses(space, objectives)
    corner = [1.0] * len(objectives)
    whole = moocore.hypervolume(scaled, ref=corner)
    found = []
    for name in samplers:
        ask = ask_optuna if name in PEERS else ask_proposer
        rows = ask(name, space, objectives, trials=checkpoints[-1], seed=seed)
        shares = [moocore.hypervolume(scaled[rows[:number]], ref=corner) / whole for number in checkpoints]
        found.append(Searched(shares, 1 - len(set(rows)) / len(rows), rows))
    return found


def compare(
    table: Annotated[Path | None, typer.Option(help="CSV file of all architectures of a space.")] = None,
    samplers: Annotated[str, typer.Option(help="Names, separated by commas; the first is tested against.")] = SAMPLERS,
    trials: Annotated[int, typer.Option(min=20, help="Trials of each search.")] = 400,
    seeds: Annotated[int, typer.Option(min=1, help="Searches of each sampler.")] = 20,
    first_seed: Annotated[int, typer.Option(min=0, help="The seed of the first search.")] = 0,
    objectives: Annotated[int, typer.Option(min=2, max=3, help="3: parameters too.")] = 2,
    devices: Annotated[str | None, typer.Option(help="Instead of a table: simulated devices, such as 1,8,64.")] = None,
    curves: Annotated[
        Path | None, typer.Option(help="With --devices: a table of nas.table, its study beside it; by default digits.")
    ] = None,
    stopper: Annotated[str, typer.Option(help="With --devices: early stopping, beside none.")] = "chance",
    budget: Annotated[str, typer.Option(help="With --devices: device time of a search.")] = "20cpu-minutes",
    processes: Annotated[int, typer.Option(min=1, help="Seeds searched at the same time.")] = 1,
    out: Annotated[Path | None, typer.Option(help="Where the table is written, anew after each seed.")] = None,
    attainment: Annotated[
        Path | None, typer.Option(help=f"PNG: the error that half of the searches reach in {_ATTAINED_IN} trials.")
    ] = None,
) -> None:
    """Search with each sampler and print what it found."""
    if (table is None) == (devices is None):
        raise typer.BadParameter("must be given unless --devices is, and not both", param_hint="--table")
    if attainment and (table is None or objectives == 3):
        raise typer.BadParameter("needs --table and two objectives", param_hint="--attainment")
    names, numbers = samplers.split(","), range(first_seed, first_seed + seeds)
    if table is None:
        searches = virtual_time.settings(names, stopper=stopper, devices=[int(n) for n in (devices or "").split(",")])
        reach = partial(virtual_time.reach, searches=searches, budget=budget, table=curves)
        for found in _by_seed(reach, numbers, processes):
            text = in_virtual_time(searches, found)
            if out:
                out.write_text(text + "\n")
        print(text)
        print(virtual_time.predicted_text(curves))
        return
    goals = ("accuracy", "macs", "params")[:objectives]
    if objectives == 3 and not TableSpace(table).has_params:
        raise typer.BadParameter("must be 2, since the table has no parameters", param_hint="--objectives")
    checkpoints = [*(number for number in CHECKPOINTS if number < trials), trials]
    one_seed = partial(search, table=table, samplers=names, objectives=goals, checkpoints=checkpoints)
    for results in _by_seed(one_seed, numbers, processes):
        by_name = {name: [seed[place] for seed in results] for place, name in enumerate(names)}
        shares = {name: np.array([each.shares for each in found]) for name, found in by_name.items()}
        repeated = {name: [each.duplicates for each in found] for name, found in by_name.items()}
        text = markdown(shares, repeated, checkpoints)
        if out:
            out.write_text(text + "\n")
    print(text)
    if attainment:
        take_figure(attainment_of(table, by_name, trials=min(trials, _ATTAINED_IN)), attainment)


def attainment_of(table: Path, by_name: dict[str, list[Searched]], *, trials: int) -> go.Figure:
    """What half of each sampler's searches attain in so many trials."""
    space = TableSpace(table)
    whole = np.column_stack([space.macs, 1 - space.accuracy]).astype(float)
    return figure(
        {name: [whole[each.rows[:trials]] for each in found] for name, found in by_name.items()}, whole, trials=trials
    )


def _by_seed(run: Callable[[int], T], numbers: Sequence[int], processes: int) -> Iterator[list[T]]:
    """The results of all seeds so far, after each."""
    found: list[T] = []
    with ExitStack() as stack:
        results: Iterable[T] = map(run, numbers)
        if processes > 1:
            results = stack.enter_context(get_context("spawn").Pool(processes)).imap(run, numbers)
        for result in track(results, total=len(numbers), description="seeds", console=Console(stderr=True)):
            found.append(result)
            yield found


def in_virtual_time(searches: Sequence[virtual_time.Setting], found: Sequence[Sequence[virtual_time.Reached]]) -> str:
    """One row for each search, with p-values after Holm's correction."""
    p = holm(np.array(virtual_time.p_values(found)))
    heads = [*virtual_time.HEADS, "p"]
    lines = [heads, ["---"] * len(heads)]
    lines += [[*row, f"{own:.1g}"] for row, own in zip(virtual_time.rows(searches, found), p, strict=True)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def markdown(shares: dict[str, Floats], repeated: dict[str, list[float]], checkpoints: Sequence[int]) -> str:
    """One row for each sampler: mean share at each checkpoint, the lowest of all seeds at the last, and p-values."""
    first, *others = shares
    p = dict(zip(others, holm(np.array([_p_values(shares[first], shares[name]) for name in others])), strict=True))
    lines = [
        "| sampler | " + " | ".join(f"{number} trials" for number in checkpoints) + " | lowest | duplicates |",
        "| --- |" + " ---: |" * (len(checkpoints) + 2),
    ]
    for name, found in shares.items():
        cells = [f"{share:.4f}" for share in found.mean(0)]
        if name in p:
            better = shares[first].mean(0) > found.mean(0)
            cells = [
                f"{c} (p {q:.1g}{'' if b else ', not better'})" for c, q, b in zip(cells, p[name], better, strict=True)
            ]
        cells += [f"{found[:, -1].min():.4f}", f"{100 * np.mean(repeated[name]):.0f} %"]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _p_values(first: Floats, other: Floats) -> list[float]:
    return [
        1.0 if np.allclose(a, b, atol=0) else float(wilcoxon(a, b).pvalue)
        for a, b in zip(first.T, other.T, strict=True)
    ]


def holm(p: Floats) -> Floats:
    """The p-values after Holm's correction for their number (Scandinavian Journal of Statistics 6, 1979)."""
    flat = p.ravel()
    order = np.argsort(flat)
    corrected = np.empty_like(flat)
    corrected[order] = np.minimum(np.maximum.accumulate(flat[order] * np.arange(len(flat), 0, -1)), 1.0)
    return corrected.reshape(p.shape)


if __name__ == "__main__":
    typer.run(compare)
