"""Colours are told apart by colour-blind eyes as well."""

from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from nas.results.charts.colours import (
    FRONT_COLOUR,
    MIXER_COLOURS,
    OTHER_COLOUR,
    REFERENCE_COLOUR,
    SELECTED_COLOUR,
)

# Linear RGB as eyes without one kind of cones see it (Machado, Oliveira and Fernandes, 2009, severity 1).
SIGHT = {
    "usual": [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
XYZ = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
WHITE = [0.95047, 1.0, 1.08883]


def lab(colours: list[str], sight: str) -> NDArray[np.float64]:
    """CIELAB of sRGB colours, shape (n, 3)."""
    rgb = np.array([[int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] for colour in colours])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = (linear @ np.array(SIGHT[sight]).T).clip(0, 1)
    xyz = seen @ np.array(XYZ).T / np.array(WHITE)
    x, y, z = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116).T
    return np.column_stack([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize(
    "colours",
    [list(MIXER_COLOURS.values()), [FRONT_COLOUR, OTHER_COLOUR, REFERENCE_COLOUR, SELECTED_COLOUR]],
    ids=["mixers", "marks"],
)
def test_colours_differ_for_every_eye(colours: list[str], sight: str) -> None:
    """A difference of 2.3 in CIELAB is just noticeable."""
    points = lab(colours, sight)
    assert min(float(np.linalg.norm(first - second)) for first, second in combinations(points, 2)) > 10
