"""How far a proxy ranks as longer training does, with size taken away."""

import random

import numpy as np
import pytest

from benchmarks.proxy import at_equal_cost, both

MACS = [10**6 * (place + 1) for place in range(12)]


def test_what_lies_on_a_line_over_log_macs_is_taken_away() -> None:
    line = [0.2 + 0.05 * float(np.log(macs)) for macs in MACS]
    assert at_equal_cost(line, MACS) == pytest.approx(np.zeros(12), abs=1e-12)
    bumps = np.array([0.01, -0.01] * 6)
    above = at_equal_cost((np.array(line) + bumps).tolist(), MACS)
    assert (np.sign(above) == np.sign(bumps)).all()


def test_two_trainings_that_agree_by_size_alone_do_not_at_equal_cost() -> None:
    rng = random.Random(0)
    first, second = ([0.3 * float(np.log(macs)) + rng.gauss(0, 0.02) for macs in MACS] for _ in range(2))
    of_all, at_cost = both(first, second, MACS)
    assert of_all.tau > 0.9
    assert at_cost.tau < 0.5
