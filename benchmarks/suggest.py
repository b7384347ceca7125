"""How long the next suggestion takes, beside Optuna's own multivariate TPE on the same trials.

Command:   python -m benchmarks.suggest --trials 1000
Hardware:  one CPU core; nothing is trained
Time:      a minute for 1,000 trials, ten for 10,000
Expected:  at most 50 ms at 1,000 trials and 100 ms at 10,000

Every proposer is asked with the same history of random architectures and made-up accuracies. What it suggests is new
and within limits; Optuna's own suggestion need be neither. Rounds take the proposers in turn; figures are medians.
"""

import random
import time
import warnings
from collections.abc import Callable
from statistics import median
from typing import Annotated

import optuna
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from metaformer.cost import count_cost
from nas.data import default_recipe
from nas.record.record import Record, distribution
from nas.record.storage import IN_MEMORY
from nas.session.proposers import make_proposer, names
from nas.study.lease import Report
from nas.study.objectives import DEFAULT, choose
from search_spaces.space import Limits, SearchSpace, SpaceSettings, get

LIMITS = Limits(max_macs=3_000_000_000)
GOALS = choose(DEFAULT)


def made_up_history(space: SearchSpace, number: int) -> Record:
    """A record of so many completed trials, no two alike."""
    record = Record(IN_MEMORY, space, GOALS, writes=True)
    rng = random.Random(0)
    epochs = default_recipe("digits").epochs
    digests: set[str] = set()
    for _ in track(range(number), description="trials", console=Console(stderr=True)):
        arch = space.sample(rng)
        if arch.digest in digests:
            continue
        digests.add(arch.digest)
        trial = record.start(arch)
        report = Report(epoch=epochs, val_accuracy=rng.random(), train_loss=1.0, checkpoint="x")
        trial.add_epoch(report)
        record.end(trial, "complete")
    return record


def plain_tpe(space: SearchSpace, record: Record) -> Callable[[int], object]:
    """Optuna's own multivariate TPE, asked as its documentation says."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(directions=["maximize", "minimize", "minimize"])
    distributions = {choice.name: distribution(choice) for choice in space.choices}
    for trial in record:
        genes = space.encode(trial.architecture)
        values = GOALS.values(trial)
        study.add_trial(optuna.trial.create_trial(params=genes, distributions=distributions, values=values))

    def ask(seed: int) -> object:
        study.sampler = optuna.samplers.TPESampler(multivariate=True, seed=seed)
        trial = study.ask(distributions)
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
        return count_cost(space.decode(trial.params))

    return ask


def suggest(
    trials: Annotated[int, typer.Option(min=100, help="Trials in the history.")] = 1000,
    rounds: Annotated[int, typer.Option(min=3, help="Suggestions of each.")] = 15,
) -> None:
    """Print milliseconds a suggestion."""
    space = get("hybrid_stages", SpaceSettings())
    record = made_up_history(space, trials)
    asked: dict[str, Callable[[int], object]] = {"Optuna's TPE alone": plain_tpe(space, record)}
    for name in names():
        proposer = make_proposer(name, space, GOALS)
        asked[name] = lambda seed, ours=proposer: ours.propose(record.trials, limits=LIMITS, seed=seed)  # type: ignore[misc]
    times: dict[str, list[float]] = {name: [] for name in asked}
    for seed in range(rounds + 1):
        for name, ask in asked.items():
            start = time.perf_counter()
            ask(seed)
            times[name].append(1e3 * (time.perf_counter() - start))
    peer = median(times["Optuna's TPE alone"][1:])
    table = Table(title=f"The next suggestion after {len(record.trials):,} trials", title_justify="left")
    for column in ("", "median ms", "slowest ms", "of Optuna's TPE"):
        table.add_column(column, justify="right" if column else "left")
    for name, all_of_it in times.items():
        warm = all_of_it[1:]  # the first reads the history
        table.add_row(name, f"{median(warm):.1f}", f"{max(warm):.1f}", f"{median(warm) / peer:.2f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    typer.run(suggest)
