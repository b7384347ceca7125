"""What trainings that have come to a rung will reach at their end, and how sure that is.

For a trial of log costs x_C, z_k is the logit of its error at rung k, and the last rung is the end. From rung to rung

    z_k+1 = z_k + b_0 + b_1 (z_k - mean z_k) + b_C (x_C - mean x_C) + noise                   (1)

with the conjugate prior of a normal regression (Gelman et al., Bayesian Data Analysis, 3rd edition, section 14.8), so
that few trials say little: what is foretold has Student's t distribution. Every trial that has come to rung k + 1
counts in step k, also where it was stopped there. So the steps are not led astray by survivors, as a regression of the
ends on an early rung would be. Steps are put together as if normal, with the fewest degrees of freedom of any.

n trials, K rungs, C costs.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit, stdtr

Floats = NDArray[np.float64]

LEAST_ERROR = 1e-3  # whose logit is taken
_NOISE, _FREEDOM = 0.2, 1.0  # prior of the noise: so much, with so many degrees of freedom
_INTERCEPT, _SLOPE, _OF_COSTS = 10.0, 0.5, 0.1  # prior deviations of b_0, b_1 and b_C


def logit_of(accuracies: Floats) -> Floats:
    """Logits of the errors, of the same shape."""
    found: Floats = logit(np.clip(1 - accuracies, LEAST_ERROR, 1 - LEAST_ERROR))
    return found


class Foretold(NamedTuple):
    """Logits of n errors at the end: Student's distribution."""

    mean: Floats
    scale: Floats
    freedom: float

    def chance_below(self, logits: Floats | float) -> Floats:
        """Probabilities that errors end below these, (n,)."""
        found: Floats = stdtr(self.freedom, (logits - self.mean) / self.scale)
        return found


class Step(NamedTuple):
    """From one rung to the next, as it is believed to be."""

    centre: Floats  # (1 + C,), of the logit before and the log costs
    mean: Floats  # (2 + C,), of the coefficients
    covariance: Floats  # (2 + C, 2 + C), of the coefficients, in units of the noise's variance
    noise: float
    freedom: float


def fit(before: Floats, after: Floats, log_costs: Floats) -> Step:
    """The regression (1) over n trials.

    Args:
        before: Logits of errors at the rung, (n,).
        after: At the next one, (n,).
        log_costs: Of shape (n, C).
    """
    terms = np.column_stack([before, log_costs])
    centre = terms.mean(0)
    x = np.column_stack([np.ones(len(before)), terms - centre])
    deviations = np.array([_INTERCEPT, _SLOPE, *[_OF_COSTS] * log_costs.shape[1]]) / _NOISE
    precision = x.T @ x + np.diag(deviations**-2.0)
    covariance = np.linalg.inv(precision)
    move = after - before
    mean = covariance @ x.T @ move
    freedom = _FREEDOM + len(move)
    noise = np.sqrt((_FREEDOM * _NOISE**2 + max(move @ move - mean @ precision @ mean, 0.0)) / freedom)
    return Step(centre, mean, covariance, float(noise), freedom)


def foretell(steps: Sequence[Step], now: Floats, log_costs: Floats) -> Foretold:
    """Where n trials are after some steps.

    Args:
        now: Logits of errors at the rung where the steps begin, (n,).
        log_costs: Of shape (n, C).
    """
    mean, variance = now, np.zeros(len(now))
    for step in steps:
        x = np.column_stack([np.ones(len(now)), np.column_stack([mean, log_costs]) - step.centre])
        spread = 1 + np.einsum("ni,ij,nj->n", x, step.covariance, x)
        variance = (1 + step.mean[1]) ** 2 * variance + step.noise**2 * spread
        mean = mean + x @ step.mean
    return Foretold(mean, np.sqrt(variance), min(step.freedom for step in steps))


def foretell_rest(logits: Floats, log_costs: Floats) -> Foretold:
    """The ends of those of n trials that have none, from all of them.

    Args:
        logits: Of errors at the rungs, (n, K); NaN from where a trial was stopped. At least one has an end.
        log_costs: Of shape (n, C).

    Returns:
        Of the trials whose last logit is NaN, in their order.
    """
    num_reached = np.isfinite(logits).sum(1)
    steps = []
    for rung in range(logits.shape[1] - 1):
        came = num_reached > rung + 1
        steps.append(fit(logits[came, rung], logits[came, rung + 1], log_costs[came]))
    rest = np.flatnonzero(num_reached < logits.shape[1])
    mean, scale = np.empty(len(rest)), np.empty(len(rest))
    for reached in np.unique(num_reached[rest]):
        is_so = num_reached[rest] == reached
        found = foretell(steps[reached - 1 :], logits[rest[is_so], reached - 1], log_costs[rest[is_so]])
        mean[is_so], scale[is_so] = found.mean, found.scale
    return Foretold(mean, scale, min((step.freedom for step in steps), default=_FREEDOM))
