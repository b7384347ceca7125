"""Closed-form cost beside fvcore: microseconds against seconds per architecture.

Command:   python benchmarks/cost.py
Hardware:  one CPU core; torch runs on one thread
Time:      about 5 minutes
Expected:  at most 100 µs per architecture, thousands of times faster than fvcore, and the same count. Where a model has
           attention, fvcore without a handler of one's own counts less: it gives the fused kernel nothing.

Each repeat goes through all models and measures the two one after the other on each; a figure is the median over the
repeats. fvcore's time does not include building the model, which has a column of its own (ours needs no model). Norms,
which fvcore counts as MACs, are left out of its count.
"""

import platform
import random
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from metaformer import Architecture, build, count_cost, zoo
from metaformer.specs import (
    AttentionSpec,
    DepthwiseConvSpec,
    IdentitySpec,
    MixerSpec,
    PoolSpec,
    RandomSpec,
    SpatialMlpSpec,
)

with warnings.catch_warnings():  # fvcore scripts a function when it is imported, which torch deprecates
    warnings.simplefilter("ignore", FutureWarning)
    from fvcore.nn import FlopCountAnalysis

NUM_REPEATS = 5
NUM_CALLS = 50  # of count_cost in one repeat; one call is too short for the clock
NUM_RANDOM = 1000  # architectures that only count_cost is timed on
NUM_RANDOM_BESIDE = 6  # random architectures that fvcore is timed on, too
TARGET_US = 100
NORMS = {"group_norm", "layer_norm", "batch_norm"}
MIXERS: tuple[MixerSpec, ...] = (
    PoolSpec(),
    AttentionSpec(),
    SpatialMlpSpec(),
    DepthwiseConvSpec(size=7),
    IdentitySpec(),
    RandomSpec(),
)


@dataclass
class Row:
    """Measurements of one architecture."""

    name: str
    arch: Architecture
    build_s: float = 0.0
    ours_us: list[float] = field(default_factory=list)
    fvcore_s: list[float] = field(default_factory=list)
    fvcore_macs: int = 0


def draw(rng: random.Random) -> Architecture:
    """A random architecture of four stages for 224 pixels."""
    return zoo.four_stages(
        depths=tuple(rng.randint(1, 12) for _ in range(4)),
        widths=tuple(32 * rng.randint(low, high) for low, high in ((1, 3), (2, 6), (4, 12), (8, 24))),
        mixers=(*rng.choices([mixer for mixer in MIXERS if mixer.kind != "attention"], k=2), *rng.choices(MIXERS, k=2)),
    )


def seconds(task: Callable[[], object]) -> float:
    start = time.perf_counter()
    task()
    return time.perf_counter() - start


def time_count_cost(arch: Architecture) -> float:
    """Microseconds of one call."""
    return seconds(lambda: [count_cost(arch) for _ in range(NUM_CALLS)]) / NUM_CALLS * 1e6


def count_by_fvcore(model: nn.Module, x_BCHW: Tensor) -> int:
    analysis = FlopCountAnalysis(model, x_BCHW)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    return sum(int(macs) for operator, macs in analysis.by_operator().items() if operator not in NORMS)


def measure(row: Row) -> None:
    """One repeat on one architecture: ours, then fvcore."""
    row.ours_us.append(time_count_cost(row.arch))
    start = time.perf_counter()
    model = build(row.arch).eval()
    x_BCHW = torch.zeros(1, 3, row.arch.resolution, row.arch.resolution)
    row.build_s = time.perf_counter() - start
    start = time.perf_counter()
    row.fvcore_macs = count_by_fvcore(model, x_BCHW)
    row.fvcore_s.append(time.perf_counter() - start)


def cpu_name() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


def make_table(rows: list[Row]) -> Table:
    table = Table(title="Cost of one architecture, 224 pixels, batch 1")
    table.add_column("architecture", no_wrap=True)
    for heading in ("count_cost µs", "fvcore s", "ratio", "build s", "MACs G", "fvcore G", "equal"):
        table.add_column(heading, justify="right")
    for row in rows:
        macs = count_cost(row.arch).macs
        fused = any(stage.mixer.kind == "attention" for stage in row.arch.stages)
        ours_us, fvcore_s = median(row.ours_us), median(row.fvcore_s)
        table.add_row(
            row.name,
            f"{ours_us:.1f}",
            f"{fvcore_s:.3f}",
            f"{fvcore_s / ours_us * 1e6:,.0f}",
            f"{row.build_s:.2f}",
            f"{macs / 1e9:.4f}",
            f"{row.fvcore_macs / 1e9:.4f}",
            "yes" if macs == row.fvcore_macs else "no: fused" if fused else "NO",
        )
    return table


def main() -> None:
    torch.set_num_threads(1)
    rng = random.Random(0)
    drawn = [draw(rng) for _ in range(NUM_RANDOM)]
    rows = [Row(name, zoo.get(name)) for name in zoo.names()]
    rows += [Row(f"random {index}", arch) for index, arch in enumerate(drawn[:NUM_RANDOM_BESIDE])]
    for _ in range(NUM_REPEATS):
        for row in rows:
            measure(row)
    passes = [[time_count_cost(arch) for arch in drawn] for _ in range(NUM_REPEATS)]
    random_us = [median(times) for times in zip(*passes, strict=True)]

    console = Console(width=120)
    console.print(
        f"{cpu_name()}, {torch.get_num_threads()} torch thread, torch {torch.__version__}, {platform.python_version()}"
    )
    console.print(make_table(rows))
    ours = [median(row.ours_us) for row in rows[: len(zoo.names())]]
    ratio = median(median(row.fvcore_s) / median(row.ours_us) * 1e6 for row in rows)
    worst_us = max(*ours, *random_us)
    console.print(
        f"zoo: median {median(ours):.1f} µs, worst {max(ours):.1f} µs; fvcore takes {ratio:,.0f} times as long (median)"
    )
    console.print(f"{NUM_RANDOM} random: median {median(random_us):.1f} µs, worst {max(random_us):.1f} µs")
    console.print(
        f"target of {TARGET_US} µs: {'met' if worst_us <= TARGET_US else 'MISSED'} by the worst, {worst_us:.1f} µs"
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(__doc__)
    main()
