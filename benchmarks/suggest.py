"""How long the next suggestion takes, beside Optuna's own multivariate TPE on the same trials.

Command:   python -m benchmarks.suggest --trials 1000
Hardware:  one CPU core; nothing is trained; OMP_NUM_THREADS=1
Time:      a minute for 1,000 trials, five for 10,000
Expected:  at most 50 ms at 1,000 trials and 100 ms at 10,000

Every proposer is asked with the same history of random architectures and made-up accuracies, which is longer by a
trial in each round. What it suggests is new and within limits. Optuna's own suggestion need be neither; it and
`nas.ExactCostSampler`, that of a study of one's own, are asked in such a study, which a round makes longer by two
trials. Rounds take all in turn. Times are of the processor, so that what else runs on the machine counts little.
"""

import random
import time
import warnings
from collections.abc import Callable, Iterator
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
from nas.session.proposers.exact_cost_sampler import ExactCostSampler
from nas.study.lease import Report
from nas.study.objectives import DEFAULT, choose
from search_spaces.space import Limits, SearchSpace, SpaceSettings, get

LIMITS = Limits(max_macs=3_000_000_000)
GOALS = choose(DEFAULT)
_PEER = "Optuna's TPE alone"


def trials_made_up(record: Record, space: SearchSpace) -> Iterator[None]:
    """Add a completed trial at each step, no two alike."""
    rng = random.Random(0)
    epochs = default_recipe("digits").epochs
    digests: set[str] = set()
    while True:
        arch = space.sample(rng)
        if arch.digest in digests:
            continue
        digests.add(arch.digest)
        trial = record.start(arch)
        trial.add_epoch(Report(epoch=epochs, val_accuracy=rng.random(), train_loss=1.0, checkpoint="x"))
        record.end(trial, "complete")
        yield


def in_optuna(
    space: SearchSpace, record: Record, sampler_of: Callable[[int], optuna.samplers.BaseSampler]
) -> Callable[[int], object]:
    """A sampler in a study of Optuna's in memory, asked as its documentation says."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(directions=["maximize", "minimize", "minimize"])
    distributions = {choice.name: distribution(choice) for choice in space.choices}
    num_read = 0

    def ask(seed: int) -> object:
        nonlocal num_read
        for trial in record.trials[num_read:]:
            genes = space.encode(trial.architecture)
            values = GOALS.values(trial)
            study.add_trial(optuna.trial.create_trial(params=genes, distributions=distributions, values=values))
        num_read = len(record.trials)
        study.sampler = sampler_of(seed)
        suggested = study.ask(distributions)
        study.tell(suggested, state=optuna.trial.TrialState.FAIL)
        return count_cost(space.decode(suggested.params))

    return ask


def _tpe(seed: int) -> optuna.samplers.BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(multivariate=True, seed=seed)


def suggest(
    trials: Annotated[int, typer.Option(min=100, help="Trials in the history.")] = 1000,
    rounds: Annotated[int, typer.Option(min=3, help="Suggestions of each.")] = 15,
) -> None:
    """Print milliseconds a suggestion."""
    space = get("hybrid_stages", SpaceSettings())
    record = Record(IN_MEMORY, space, GOALS, writes=True)
    made_up = trials_made_up(record, space)
    for _ in track(range(trials), description="trials", console=Console(stderr=True)):
        next(made_up)
    own = ExactCostSampler.of(space, seed=0)
    asked = {_PEER: in_optuna(space, record, _tpe), "nas.ExactCostSampler": in_optuna(space, record, lambda _: own)}
    for name in names():
        proposer = make_proposer(name, space, GOALS)
        asked[name] = lambda seed, ours=proposer: ours.propose(record.trials, limits=LIMITS, seed=seed)  # type: ignore[misc]
    times: dict[str, list[float]] = {name: [] for name in asked}
    for seed in range(rounds + 1):
        for name, ask in asked.items():
            start = time.process_time()
            ask(seed)
            times[name].append(1e3 * (time.process_time() - start))
        next(made_up)
    peer = median(times[_PEER][1:])
    table = Table(title=f"The next suggestion after {trials:,} trials", title_justify="left")
    for column in ("", "median ms", "slowest ms", "first s", "of Optuna's TPE"):
        table.add_column(column, justify="right" if column else "left")
    for name, all_of_it in times.items():
        warm = all_of_it[1:]  # the first reads the history
        first = f"{all_of_it[0] / 1e3:.1f}"
        table.add_row(name, f"{median(warm):.0f}", f"{max(warm):.0f}", first, f"{median(warm) / peer:.2f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    typer.run(suggest)
