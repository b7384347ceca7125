"""What is foretold of a training's end, on curves whose law is known."""

import numpy as np
import pytest
from numpy.typing import NDArray

from nas.session.certainty.ends import Step, fit, foretell, foretell_rest, logit_of

Floats = NDArray[np.float64]
NOISES = (0.3, 0.15, 0.08)  # from rung to rung


def curves(rng: np.random.Generator, number: int) -> tuple[Floats, Floats]:
    """Logits of errors at four rungs, (n, 4), and log costs, (n, 2): errors fall, and dear models fall more."""
    log_costs = rng.normal([12, 16], 1.0, (number, 2))
    logits = np.empty((number, 4))
    logits[:, 0] = rng.normal(1.0, 0.4, number)
    for rung, noise in enumerate(NOISES):
        move = -0.4 - 0.2 * (logits[:, rung] - 1) - 0.1 * (log_costs[:, 1] - 16)
        logits[:, rung + 1] = logits[:, rung] + move + rng.normal(0, noise, number)
    return logits, log_costs


def steps_of(logits: Floats, log_costs: Floats) -> list[Step]:
    return [fit(logits[:, rung], logits[:, rung + 1], log_costs) for rung in range(3)]


@pytest.mark.parametrize("number", [4, 8, 40])
@pytest.mark.parametrize("level", [0.1, 0.5, 0.9])
def test_chances_come_true_as_often_as_they_say_from_few_trials_and_from_many(number: int, level: float) -> None:
    rng = np.random.default_rng(0)
    below = []
    for _ in range(400):
        logits, log_costs = curves(rng, number + 5)
        foretold = foretell(steps_of(logits[:number], log_costs[:number]), logits[number:, 0], log_costs[number:])
        below.extend((foretold.chance_below(logits[number:, -1]) < level).tolist())
    assert np.mean(below) == pytest.approx(level, abs=0.05)


def test_few_trials_say_less() -> None:
    logits, log_costs = curves(np.random.default_rng(0), 100)
    few, many = (foretell(steps_of(logits[:n], log_costs[:n]), logits[90:, 0], log_costs[90:]) for n in (4, 90))
    assert (few.scale > many.scale).all()
    assert few.freedom < many.freedom


def test_it_is_not_led_astray_by_survivors() -> None:
    """The better half goes on at each rung; of the others the ends are known here all the same."""
    logits, log_costs = curves(np.random.default_rng(0), 800)
    seen = logits.copy()
    for rung in range(3):
        seen[~(seen[:, rung] <= np.nanmedian(seen[:, rung])), rung + 1 :] = np.nan
    foretold = foretell_rest(seen, log_costs)
    missing = np.isnan(seen[:, -1])
    rest = logits[missing, -1] - foretold.mean
    straight = fit(seen[~missing, 0], seen[~missing, -1], log_costs[~missing])
    astray = logits[missing, -1] - foretell([straight], logits[missing, 0], log_costs[missing]).mean
    assert abs(rest.mean()) < 0.06 < abs(astray.mean()) / 2
    assert np.std(rest / foretold.scale) == pytest.approx(1, abs=0.1)


def test_each_is_foretold_from_the_rung_where_it_was_stopped() -> None:
    logits, log_costs = curves(np.random.default_rng(0), 20)
    seen = logits.copy()
    seen[3, 1:], seen[11, 3:] = np.nan, np.nan
    foretold = foretell_rest(seen, log_costs)
    whole = np.isfinite(seen)
    for place, trial, rung in ((0, 3, 0), (1, 11, 2)):
        steps = [
            fit(logits[whole[:, own + 1], own], logits[whole[:, own + 1], own + 1], log_costs[whole[:, own + 1]])
            for own in range(rung, 3)
        ]
        alone = foretell(steps, logits[[trial], rung], log_costs[[trial]])
        assert foretold.mean[place] == pytest.approx(alone.mean[0])
        assert foretold.scale[place] == pytest.approx(alone.scale[0])
    assert foretold.scale[0] > foretold.scale[1]


def test_a_regression_of_many_trials_is_that_of_least_squares() -> None:
    logits, log_costs = curves(np.random.default_rng(0), 5000)
    step = fit(logits[:, 0], logits[:, 1], log_costs)
    x = np.column_stack([np.ones(5000), np.column_stack([logits[:, 0], log_costs]) - step.centre])
    expected, *_ = np.linalg.lstsq(x, logits[:, 1] - logits[:, 0], rcond=None)
    assert step.mean == pytest.approx(expected, abs=2e-3)
    assert step.noise == pytest.approx(NOISES[0], rel=0.05)


def test_accuracies_of_none_and_all_have_finite_logits() -> None:
    assert np.isfinite(logit_of(np.array([0.0, 1.0]))).all()
