"""Median attainment surfaces: the error that half of a sampler's searches reach at each cost.

`python -m benchmarks.search --table … --attainment FILE.png` draws them. A surface is that of the empirical attainment
function (Grunert da Fonseca, Fonseca, Hall: Inferential performance assessment of stochastic optimisers, EMO 2001), by
moocore.
"""

from collections.abc import Mapping, Sequence

import moocore
import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from benchmarks.by_gene import COLOURS, HEIGHT, WIDTH

Floats = NDArray[np.float64]


def surface(points: Sequence[Floats], *, share: float = 0.5) -> Floats:
    """The corners of what at least this share of the searches attain, by ascending cost.

    Args:
        points: Of each search, cost and error of what it tried, shape (trials, 2).
        share: In (0, 1].
    Returns:
        Costs and errors of the corners, shape (corners, 2).
    """
    sets = np.repeat(np.arange(len(points)), [len(each) for each in points])
    found = moocore.eaf(np.concatenate(points), sets, percentiles=[100 * share])[:, :2]
    return np.asarray(found[np.argsort(found[:, 0])], dtype=np.float64)


def figure(points: Mapping[str, Sequence[Floats]], whole: Floats, *, trials: int) -> go.Figure:
    """The median surface of each sampler above the true front.

    Args:
        points: Of each sampler and search, MACs and error of what it tried.
        whole: MACs and error of all architectures.
        trials: That each search had.
    """
    drawn = go.Figure()
    lines = {**{name: surface(each) for name, each in points.items()}, "true front": surface([whole])}
    for place, (name, corners) in enumerate(lines.items()):
        is_front = name == "true front"
        line = {"shape": "hv", "color": "#777777" if is_front else COLOURS[place % len(COLOURS)], "width": 2}
        line["dash"] = "dot" if is_front else "solid"
        drawn.add_scatter(x=corners[:, 0], y=100 * corners[:, 1], mode="lines", name=name, line=line)
    drawn.update_xaxes(type="log", title="MACs per image")
    drawn.update_yaxes(type="log", title=f"error (%) that half of the searches reach in {trials} trials")
    drawn.update_layout(template="plotly_white", width=WIDTH, height=HEIGHT, margin={"t": 20, "r": 20})
    return drawn
