"""What do new seeds chosen by `--confirm` give, beside equal replicates for all, and beside searching on?

Command:   python -m benchmarks.confidence.confirm --out confirm.md
Hardware:  any; nothing is trained. One CPU core.
Time:      about four minutes for each scenario
Expected:  the certainty of equal replicates for at most half of their device-seconds

A front's certainty is the expected number of wrong members: the sum over all architectures of min(p, 1 - p), where p is
the probability of membership, and a member is what has more than 1/2. The simulated truth tells the number that really
is wrong as well.

1. Equal replicates: one more training for every candidate, which is every architecture on the front of val or with p of
   at least 0.05; or for the front of val alone. `choose`, which the session asks, spends as many device-seconds one
   training after another, up to 0.6 of them. The ratio is the part of the device-seconds of equal replicates after
   which the mean over all searches is as certain (1 where 0.6 is not enough), with an interval of 90 % by a bootstrap
   over searches.
2. With a part of the budget: a search of 120 trials beside one that ends when that part is left, and spends it on new
   seeds. How many members of the front are truly none; and how accurate truly is what is picked as most accurate on val
   below limits on MACs.
3. How often probabilities come true after these new seeds.
"""

from collections import defaultdict
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import typer
from numpy.typing import NDArray
from rich.progress import track
from scipy.special import expit

from benchmarks.confidence.__main__ import Tally, reliability, tally_claims
from benchmarks.confidence.simulate import SCENARIOS, Scenario, Search, front_of_val, simulate
from metaformer.cli import run
from nas.session.certainty.front import Drawn, choose, draw_fronts
from nas.session.certainty.noise import fit

Floats = NDArray[np.float64]

_CANDIDATE = 0.05  # probability of membership
_NUM_DEVICES = 8
_PARTS = np.linspace(0, 0.6, 25)  # of the device-seconds of equal replicates, up to which new seeds are chosen
_LIMITS = np.geomspace(2e5, 5e6, 12)  # on MACs
_RESAMPLES = 2000
_NEVER = 1.0  # stands for a part beyond the last


class Certainty(NamedTuple):
    """How sure a front is."""

    expected: float  # number of wrong members
    actual: float


def look(search: Search) -> tuple[Drawn, Floats]:
    """What the project believes of a search: fronts, and the probability of membership of each architecture."""
    posterior = fit(search.accuracy_N, search.costs_NC, search.group_N, num_images=search.scenario.num_val)
    drawn = draw_fronts(posterior, search.costs)
    return drawn, drawn.membership()


def certainty(search: Search, p_G: Floats) -> Certainty:
    """The expected and the true number of wrong members."""
    return Certainty(float(np.minimum(p_G, 1 - p_G).sum()), float(((p_G > 0.5) != search.is_member).sum()))


def train_equally(search: Search, groups: NDArray[np.int64]) -> float:
    """Train each of some architectures once more; the device-seconds that this took."""
    for group in groups:
        search.train_again(int(group))
    return float(search.seconds[groups].sum())


def train_chosen(search: Search, seconds: float) -> list[tuple[float, Certainty]]:
    """Train what the project chooses for so many device-seconds: what was used by then, and how sure the front was.

    There are eight devices, and all of them end at a time.
    """
    used, steps = 0.0, []
    while True:
        drawn, p_G = look(search)
        steps.append((used, certainty(search, p_G)))
        num_pending_G = np.zeros(len(p_G), dtype=np.int64)
        for _ in range(_NUM_DEVICES):
            is_allowed_G = search.seconds <= seconds - used
            chosen = choose(drawn, num_pending_G=num_pending_G, seconds_G=search.seconds, is_allowed_G=is_allowed_G)
            if chosen is None:
                break
            num_pending_G[chosen] += 1
            used += float(search.seconds[chosen])
        if not num_pending_G.any():
            return steps
        for group in np.repeat(np.arange(len(p_G)), num_pending_G):
            search.train_again(int(group))


class Paths(NamedTuple):
    """Certainty after each part of the device-seconds, of L searches and `_PARTS`; and with equal replicates."""

    chosen_LP: Floats
    equal_L: Floats

    def ratio(self) -> tuple[float, float, float]:
        """The part of the device-seconds that is as good as equal replicates, and its 90 % interval."""
        rng = np.random.default_rng(0)
        drawn = rng.integers(len(self.equal_L), size=(_RESAMPLES, len(self.equal_L)))
        found = [_crossing(self.chosen_LP[rows].mean(axis=0), self.equal_L[rows].mean()) for rows in drawn]
        low, high = np.percentile(found, (5, 95))
        return _crossing(self.chosen_LP.mean(axis=0), self.equal_L.mean()), float(low), float(high)


def _crossing(path_P: Floats, level: float) -> float:
    """The first part at which a path is down to a level, between two parts by a line; 1 where it never is."""
    path_P = np.minimum.accumulate(path_P)
    return float(np.interp(-level, -path_P, _PARTS, right=_NEVER))


def picked(search: Search) -> float:
    """Mean true accuracy of the architectures that are most accurate on val below each limit on MACs."""
    macs_G, mean_G = search.costs[:, 1], search.means
    allowed = [np.flatnonzero(macs_G <= limit) for limit in _LIMITS]
    best = [int(rows[mean_G[rows].argmax()]) for rows in allowed if len(rows)]
    return float(expit(search.true_logit_G[best]).mean())


def wrong_on_front(search: Search) -> tuple[int, int]:
    """Members of the front of mean accuracies on val that truly are none, and all of its members."""
    members = front_of_val(search)
    return int((~search.is_member[members]).sum()), len(members)


class Beside(NamedTuple):
    """One search with equal replicates, and after each part of their device-seconds with chosen ones."""

    whom: str  # is trained again
    times: int
    equal: Certainty
    chosen: list[Certainty]  # by `_PARTS`


def beside_equal(scenario: Scenario, seed: tuple[int, ...]) -> list[Beside]:
    """What equal replicates and chosen ones make of one search."""
    search = simulate(scenario, np.random.default_rng(seed))
    _, p_G = look(search)
    is_on_front_G = np.isin(np.arange(len(p_G)), front_of_val(search))
    rivals = []
    for whom, is_trained_G, times in (
        ("candidates", is_on_front_G | (p_G >= _CANDIDATE), 1),
        ("front of val", is_on_front_G, 1),
        ("front of val", is_on_front_G, 2),
    ):
        rival = simulate(scenario, np.random.default_rng(seed))
        seconds = sum(train_equally(rival, np.flatnonzero(is_trained_G)) for _ in range(times))
        rivals.append((whom, times, seconds, certainty(rival, look(rival)[1])))
    steps = train_chosen(search, _PARTS[-1] * max(seconds for _, _, seconds, _ in rivals))
    used = np.array([step[0] for step in steps])
    places = {seconds: np.searchsorted(used / seconds, _PARTS, side="right") - 1 for _, _, seconds, _ in rivals}
    return [
        Beside(whom, times, equal, [steps[place][1] for place in places[seconds]])
        for whom, times, seconds, equal in rivals
    ]


def equal_rows(scenario: Scenario, searches: list[list[Beside]]) -> list[str]:
    """Rows of the table of ratios."""
    rows = []
    for each in zip(*searches, strict=True):
        cells = [scenario.name, each[0].whom, str(each[0].times)]
        for kind in range(2):
            chosen_LP = np.array([[step[kind] for step in one.chosen] for one in each], dtype=np.float64)
            paths = Paths(chosen_LP, np.array([one.equal[kind] for one in each], dtype=np.float64))
            ratio, low, high = paths.ratio()
            before, after = paths.chosen_LP.mean(axis=0)[[0, -1]]
            cells.append(f"{before:.2f} → {paths.equal_L.mean():.2f} ({after:.2f})")
            cells.append(f"{ratio:.2f} ({low:.2f} to {high:.2f})")
        rows.append(f"| {' | '.join(cells)} |")
    return rows


class Instead(NamedTuple):
    """A search that ends with new seeds, beside one that goes on."""

    points: float  # that picks gain by new seeds
    wrong: tuple[int, int, int, int]  # of the front of val and all of it: without, and with new seeds


def instead_of_searching(scenario: Scenario, seed: tuple[int, ...], part: float, tallies: dict[str, Tally]) -> Instead:
    """What new seeds for a part of the budget make of one search; its claims go to the tallies."""
    whole = simulate(scenario, np.random.default_rng(seed))
    seconds_N = whole.seconds.cumsum()
    shorter = whole.first(max(1, int((seconds_N <= (1 - part) * seconds_N[-1]).sum())))
    before = wrong_on_front(whole)
    train_chosen(shorter, part * float(seconds_N[-1]))
    tally_claims(shorter, tallies)
    return Instead(100 * (picked(shorter) - picked(whole)), (*before, *wrong_on_front(shorter)))


def instead_row(scenario: Scenario, part: float, searches: list[Instead], tallies: dict[str, Tally]) -> str:
    """A row of the table of searches with and without new seeds, of the same device-seconds."""
    points = np.array([each.points for each in searches])
    half = 1.645 * points.std() / len(points) ** 0.5
    wrong = np.mean([each.wrong for each in searches], axis=0)
    cells = [scenario.name, f"{100 * part:.0f} %", f"{wrong[0]:.1f} of {wrong[1]:.1f}"]
    cells += [f"{wrong[2]:.1f} of {wrong[3]:.1f}", f"{points.mean():+.2f} ± {half:.2f}"]
    for kind in ("member", "dominates"):
        number, said, true = tallies[kind].share(0.85, 0.95)
        cells.append(f"{true:.3f} of {said:.3f} ({number:,})")
    return f"| {' | '.join(cells)} |"


RATIOS = (
    "| scenario | equal replicates for | each | expected wrong: before → equal (chosen, for 0.6 of that) | "
    "device-seconds of chosen / equal | really wrong | ratio |",
    "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
)
PARTS = (
    "| scenario | new seeds | wrong on the front of val, without | with | points that picks gain | "
    "member: true of said 0.85 to 0.95 | dominates: the same |",
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
)


def claims(title: str, tallies: dict[str, Tally]) -> list[str]:
    """Tables of what was said and what was true."""
    member, dominates = tallies["member"], tallies["dominates"]
    return ["", *reliability(f"on the front, {title}", member), "", *reliability(f"dominates, {title}", dominates)]


def confirm(
    searches: Annotated[int, typer.Option(min=1, help="Searches of each scenario.")] = 200,
    seed: Annotated[int, typer.Option(help="Of all draws.")] = 0,
    only: Annotated[str, typer.Option(help="Scenarios whose name has this in it.")] = "as assumed",
    part: Annotated[list[float] | None, typer.Option(help="Of the budget, for new seeds.", show_default="0.2")] = None,
    equal: Annotated[bool, typer.Option(help="Compare with equal replicates.")] = True,
    out: Annotated[Path | None, typer.Option(help="File for the tables, as Markdown.")] = None,
) -> None:
    """Compare new seeds that the project chooses with equal replicates, and with searching on."""
    ratios, with_parts = [*RATIOS], [*PARTS]
    tables: list[str] = []  # of the first scenario
    for number, scenario in enumerate(SCENARIOS):
        if only not in scenario.name or scenario.num_replicated:
            continue
        seeds = [(seed, number, place) for place in range(searches)]
        if equal:
            found = [beside_equal(scenario, each) for each in track(seeds, description=f"{scenario.name}, equal")]
            ratios += equal_rows(scenario, found)
        for share in part or [0.2]:
            tallies: dict[str, Tally] = defaultdict(Tally)
            bar = track(seeds, description=f"{scenario.name}, {share:.0%}")
            compared = [instead_of_searching(scenario, each, share, tallies) for each in bar]
            with_parts.append(instead_row(scenario, share, compared, tallies))
            tables = tables or claims(f"{share:.0%} for new seeds, {scenario.name}", tallies)
    text = "\n".join([*ratios, "", *with_parts, *tables]) + "\n"
    print(text)
    if out:
        out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    run(confirm)
