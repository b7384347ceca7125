"""Does a search gain what its last half lets expect (`nas.session.certainty.outlook`)?

Command:   python -m benchmarks.outlook --table nas_bench_201_cifar10.csv --seeds 20
Hardware:  one CPU core, OMP_NUM_THREADS=1; nothing is trained; ten minutes
Expected:  expected and actual gains alike in the mean; actual ones below what is stated "at most" in nine of ten cases

Searches of a table of trained architectures, accuracy against MACs, each trial a device-second. Gains are parts of the
hypervolume of error and the logarithm of MACs, as in a session.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.progress import track

from benchmarks.search import history_of
from benchmarks.tables import TableSpace
from nas.session.certainty.outlook import outlook
from nas.session.pareto import HypervolumeScale
from nas.study.objectives import choose

WINDOWS = ((30, 3), (60, 6), (100, 10), (200, 20), (300, 30), (50, 50), (100, 100), (200, 200), (100, 300))


def measure(
    table: Annotated[Path, typer.Option(help="CSV file of all architectures of a space.")],
    samplers: Annotated[str, typer.Option(help="Names, separated by commas.")] = "exact_cost,random",
    seeds: Annotated[int, typer.Option(min=1, help="Searches of each sampler.")] = 20,
) -> None:
    """Search, and print what was expected beside what came."""
    space, goals = TableSpace(table), choose(("accuracy", "macs"))
    macs = space.macs[space.macs > 0]  # some cells only pass on nothing
    scale = HypervolumeScale(goals, (None, (float(macs.min()), float(macs.max()))))
    print("| sampler | trials | more | expected | came | at most | came below it |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for sampler in samplers.split(","):
        found: dict[tuple[int, int], list[tuple[float, float, float]]] = {window: [] for window in WINDOWS}
        for seed in track(range(seeds), description=sampler):
            trials = history_of(sampler, space, goals.names, trials=400, seed=seed)
            volumes = [0.0, *(scale.hypervolume([goals.values(t) for t in trials[:n]]) for n in range(1, 401))]
            for now, more in WINDOWS:
                ahead = outlook(trials[:now], scale, float(more))
                if ahead is not None:
                    gain = (volumes[now + more] - volumes[now]) / volumes[now]
                    found[now, more].append((ahead.expected, gain, ahead.most))
        for (now, more), of_window in found.items():
            expected, gain, most = np.array(of_window).T
            below = np.mean(gain <= most)
            print(
                f"| {sampler} | {now} | {more} | {expected.mean():.3%} | {gain.mean():.3%} | {most.mean():.3%} | "
                f"{below:.0%} of {len(gain)} |"
            )


if __name__ == "__main__":
    typer.run(measure)
