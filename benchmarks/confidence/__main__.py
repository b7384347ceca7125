"""Are the report's probabilities and intervals true? Simulated searches, in which the truth is known.

Command:   python -m benchmarks.confidence --out confidence.md
Hardware:  any; nothing is trained. One CPU core.
Time:      about two minutes
Expected:  what is called 90 % is true in 85 to 95 %

Each scenario is 100 searches of 120 trials: a random start, then changes to members of the front, chosen by what val
says. True accuracies rise with two costs; images are right or wrong one by one, so that models err on the same ones.
The error bars see what a report sees: accuracies on val, costs and the number of val images. The table of scenarios
says what is true where 0.85 to 0.95 is said, and how often a model really is better that is said to dominate (p from
0.9 on).
"""

from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.progress import track
from scipy.special import expit

from benchmarks.confidence.simulate import SCENARIOS, Scenario, Search, front_of_val, simulate
from metaformer.cli import run
from nas.results.uncertainty import CLEAR
from nas.session.certainty.front import membership
from nas.session.certainty.noise import Posterior, expected_on_test, fit, mean_accuracy

Floats = NDArray[np.float64]

_EDGES = (0.0, 0.05, 0.15, 0.3, 0.5, 0.7, 0.85, 0.95, 1.0)
_NUM_REFERENCES = 5  # trials of a search that stand for hand-designed models


class Tally:
    """Claims of one kind and whether they were true."""

    def __init__(self) -> None:
        self._said: list[Floats] = []
        self._true: list[NDArray[np.bool_]] = []

    def add(self, said: Floats, true: NDArray[np.bool_]) -> None:
        """Add probabilities and whether each came true."""
        self._said.append(np.asarray(said))
        self._true.append(np.asarray(true))

    def share(self, low: float, high: float) -> tuple[int, float, float]:
        """Of the probabilities from `low` to below `high`: their number, their mean, and the share that came true."""
        said, true = np.concatenate(self._said), np.concatenate(self._true)
        chosen = (said >= low) & (said < high)
        return int(chosen.sum()), *((said[chosen].mean(), true[chosen].mean()) if chosen.any() else (np.nan, np.nan))


def tally_claims(search: Search, tallies: dict[str, Tally]) -> Posterior:
    """Ask for probabilities of membership and dominance, and compare with the truth; what is believed of the search."""
    posterior = fit(search.accuracy_N, search.costs_NC, search.group_N, num_images=search.scenario.num_val)
    true_G, costs_GC = search.true_logit_G, search.costs
    tallies["member"].add(membership(posterior, costs_GC, np.arange(len(true_G))), search.is_member)
    for reference in range(min(_NUM_REFERENCES, len(true_G))):
        cheaper = np.flatnonzero((costs_GC <= costs_GC[reference]).all(axis=1))
        cheaper = cheaper[cheaper != reference]
        p = posterior.p_greater(cheaper, reference)
        tallies["dominates"].add(p, true_G[cheaper] > true_G[reference])
    return posterior


def judge(search: Search, tallies: dict[str, Tally], drops: dict[str, list[float]]) -> None:
    """Ask the error bars about a search, and compare with the truth."""
    posterior = tally_claims(search, tallies)
    low_G, high_G = posterior.interval()
    low_N, high_N = low_G[search.group_N], high_G[search.group_N]
    accuracy_N = expit(search.true_logit_G)[search.group_N]
    holds_N = (low_N <= accuracy_N) & (accuracy_N <= high_N)
    is_front_N = np.isin(search.group_N, front_of_val(search))
    tallies["interval"].add(np.full(len(holds_N), 0.9), holds_N)
    tallies["interval of the front"].add(np.full(is_front_N.sum(), 0.9), holds_N[is_front_N])
    _judge_drops(search, posterior, is_front_N, drops)


def _judge_drops(
    search: Search,
    posterior: Posterior,
    is_front_N: NDArray[np.bool_],
    drops: dict[str, list[float]],
) -> None:
    """Compare what the front is expected to lose with what it loses."""
    seen = search.accuracy_N[is_front_N].mean()
    test_N = expected_on_test(posterior, search.group_N)
    expected_G = mean_accuracy(posterior.mean, posterior.sd**2)
    truth_N = expit(search.true_logit_G)[search.group_N]
    drops["expected"].append(seen - test_N[is_front_N].mean())
    drops["true"].append(seen - search.own_accuracy_N[is_front_N].mean())
    drops["expected, other seeds"].append(seen - expected_G[search.group_N][is_front_N].mean())
    drops["true, other seeds"].append(seen - truth_N[is_front_N].mean())


def reliability(name: str, tally: Tally) -> list[str]:
    """A table of what was said and what was true."""
    lines = [f"| {name} | said | true | claims |", "| --- | ---: | ---: | ---: |"]
    for low, high in pairwise(_EDGES):
        number, said, true = tally.share(low, high if high < 1 else 1.01)
        lines.append(f"| {low:.2f} to {high:.2f} | {said:.3f} | {true:.3f} | {number:,} |")
    return lines


def row(scenario: Scenario, tallies: dict[str, Tally], drops: dict[str, list[float]]) -> str:
    """One line of the table of scenarios."""
    cells = [scenario.name]
    for kind in ("member", "dominates"):
        number, said, true = tallies[kind].share(0.85, 0.95)
        cells.append(f"{true:.3f} of {said:.3f} ({number:,})")
    number, said, true = tallies["dominates"].share(CLEAR, 1.01)
    cells.append(f"{true:.3f} of {said:.3f} ({number:,})")
    cells += [f"{tallies[kind].share(0, 1)[2]:.3f}" for kind in ("interval", "interval of the front")]
    mean = {kind: 100 * float(np.mean(values)) for kind, values in drops.items()}
    cells.append(f"{mean['expected']:.2f} / {mean['true']:.2f}")
    cells.append(f"{mean['expected, other seeds']:.2f} / {mean['true, other seeds']:.2f}")
    return f"| {' | '.join(cells)} |"


HEAD = (
    "scenario",
    "member: true of said 0.85 to 0.95",
    "dominates: the same",
    "dominates, said from 0.9 on",
    "intervals of 0.9 that hold, all",
    "front",
    "points lost on test, expected / true",
    "with other seeds",
)


def confidence(
    searches: Annotated[int, typer.Option(min=1, help="Searches of each scenario.")] = 100,
    seed: Annotated[int, typer.Option(help="Of all draws.")] = 0,
    only: Annotated[str, typer.Option(help="Scenarios whose name has this in it.")] = "",
    out: Annotated[Path | None, typer.Option(help="File for the tables, as Markdown.")] = None,
) -> None:
    """Compare what the report's error bars say with the truth of simulated searches."""
    rows, tables = [], []
    for number, scenario in enumerate(track(SCENARIOS, description="scenarios")):
        if only not in scenario.name:
            continue
        rng = np.random.default_rng((seed, number))
        tallies: dict[str, Tally] = defaultdict(Tally)
        drops: dict[str, list[float]] = defaultdict(list)
        for _ in range(searches):
            judge(simulate(scenario, rng), tallies, drops)
        rows.append(row(scenario, tallies, drops))
        if not tables:
            tables = [
                *reliability("on the front", tallies["member"]),
                "",
                *reliability("dominates", tallies["dominates"]),
            ]
    rule = ["---", *["---:"] * (len(HEAD) - 1)]
    text = "\n".join([f"| {' | '.join(HEAD)} |", f"| {' | '.join(rule)} |", *rows, "", *tables]) + "\n"
    print(text)
    if out:
        out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    run(confidence)
