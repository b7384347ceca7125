"""A picture of a run in which each value of a gene has its own colour: accuracy on val over MACs.

Command:   python -m benchmarks.by_gene studies/records/tokenisation stem studies/tokenisation.png
Hardware:  Debian's chromium, by Playwright
"""

import sys
from contextlib import closing
from pathlib import Path

import plotly.graph_objects as go

from nas.record.run_folder import open_run
from nas.results.results import Results
from tests.services.picture import take_figure

WIDTH, HEIGHT = 720, 440
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito
_SYMBOLS = ("circle", "diamond", "square", "cross", "x", "triangle-up")


def figure(folder: Path, gene: str) -> go.Figure:
    """One mark for each complete trial, with the interval of its true accuracy."""
    opened = open_run(folder)
    with closing(opened.record):
        results = Results(opened)
        found: dict[str, list[tuple[int, float, float, float]]] = {}
        for trial in results.complete:
            known = results.estimate(trial)
            low, high = (known.low, known.high) if known else (trial.val_accuracy, trial.val_accuracy)
            value = str(opened.record.genes(trial)[gene])
            found.setdefault(value, []).append((trial.macs, trial.val_accuracy, low, high))
    drawn = go.Figure()
    for place, (value, points) in enumerate(sorted(found.items())):
        macs, accuracy, low, high = zip(*points, strict=True)
        drawn.add_scatter(
            x=macs,
            y=[100 * a for a in accuracy],
            error_y={
                "array": [100 * (h - a) for h, a in zip(high, accuracy, strict=True)],
                "arrayminus": [100 * (a - x) for x, a in zip(low, accuracy, strict=True)],
                "thickness": 1,
                "width": 0,
            },
            mode="markers",
            name=f"{gene}: {value}",
            marker={"color": COLOURS[place % len(COLOURS)], "symbol": _SYMBOLS[place % len(_SYMBOLS)], "size": 9},
        )
    drawn.update_xaxes(type="log", title="MACs per image")
    drawn.update_yaxes(title="accuracy on val (%)")
    drawn.update_layout(template="plotly_white", width=WIDTH, height=HEIGHT, margin={"t": 20, "r": 20})
    return drawn


if __name__ == "__main__":
    take_figure(figure(Path(sys.argv[1]), sys.argv[2]), Path(sys.argv[3]))
