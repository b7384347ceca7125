"""Searches whose truth is known: architectures with true accuracies by cost, and what a seed and a split make of them.

n trials, m images of the validation split, C = 2 costs.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import moocore
import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, ndtri

from nas.results.uncertainty import SEED_SD

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_BATCH = 10  # trials between two looks at the front
_FIRST = 30  # random trials before the first look


@dataclass(frozen=True)
class Scenario:
    """How accuracies come about, and in what the truth differs from what the error bars assume."""

    name: str
    num_trials: int = 120
    num_val: int = 1000
    seed_sd: float = SEED_SD  # on the logit scale
    alike: float = 0.6  # correlation of the latent scores by which two models get an image right
    centre: float = 1.8  # logit of the true accuracy at middle cost: 86 %
    spread: float = 0.25  # of true logits at one cost
    is_skewed: bool = False  # whether most architectures are about as good, and some much worse
    num_replicated: int = 0  # architectures that are trained three times instead of once


SCENARIOS = (
    (usual := Scenario("as assumed")),
    replace(usual, name="360 val images", num_val=360),
    replace(usual, name="5,000 val images", num_val=5000),
    replace(usual, name="seeds vary half as much", seed_sd=SEED_SD / 2),
    replace(usual, name="seeds vary twice as much", seed_sd=2 * SEED_SD),
    replace(usual, name="seeds vary 4 times as much", seed_sd=4 * SEED_SD),
    replace(usual, name="the same, 10 architectures trained 3 times", seed_sd=4 * SEED_SD, num_replicated=10),
    replace(usual, name="models err independently", alike=0.0),
    replace(usual, name="models err more alike", alike=0.8),
    replace(usual, name="a few much worse architectures", is_skewed=True),
    replace(usual, name="architectures nearly equal", spread=0.05),
    replace(usual, name="12 trials", num_trials=12),
    replace(usual, name="near the ceiling, 360 val images", centre=4.5, num_val=360),
)


class Search(NamedTuple):
    """What a search saw, and the truth."""

    accuracy_N: Floats  # on val
    costs_NC: Floats
    group_N: Ints  # architectures
    true_logit_G: Floats  # of architectures, the mean over seeds
    own_accuracy_N: Floats  # of each trial's weights on all images


def simulate(scenario: Scenario, rng: np.random.Generator) -> Search:
    """A search that begins at random and then changes members of its front a little, by what val says."""
    shared_M = rng.standard_normal(scenario.num_val)  # how easy an image is
    own_of: dict[int, Floats] = {}
    costs, thetas, groups = np.empty((0, 2)), np.empty(0), np.empty(0, dtype=np.int64)
    seen, own = np.empty(0), np.empty(0)
    while len(seen) < scenario.num_trials:
        num_new = min(_FIRST if not len(seen) else _BATCH, scenario.num_trials - len(seen))
        parents = _front(seen, costs) if len(seen) else np.empty(0, dtype=np.int64)
        for _ in range(num_new):
            cost, theta = _architecture(scenario, rng)
            if len(parents) and rng.random() < 0.5:
                parent = int(rng.choice(parents))
                cost = costs[parent] * np.exp(rng.normal(0, 0.15, 2))
                inherited = thetas[parent] - _trend(scenario, costs[parent])
                theta = _trend(scenario, cost) + 0.7 * inherited + rng.normal(0, 0.7 * scenario.spread)
            val, true = _train(scenario, theta, shared_M, own_of.setdefault(len(seen), _noise(scenario, rng)), rng)
            costs, thetas = np.vstack([costs, cost]), np.append(thetas, theta)
            groups, seen, own = np.append(groups, len(seen)), np.append(seen, val), np.append(own, true)
    for group in rng.permutation(len(thetas))[: scenario.num_replicated]:
        for _ in range(2):
            val, true = _train(scenario, thetas[group], shared_M, own_of[int(group)], rng)
            costs = np.vstack([costs, costs[group]])
            groups, seen, own = np.append(groups, group), np.append(seen, val), np.append(own, true)
    return Search(seen, costs, groups, thetas, own)


def _trend(scenario: Scenario, cost: Floats) -> float:
    """True logit that is usual at these costs: it rises, and rises less at high ones."""
    u = float(np.log10(cost / 1e6).mean())  # from -1 to 1
    return scenario.centre + 0.5 * u - 0.15 * u**2


def _architecture(scenario: Scenario, rng: np.random.Generator) -> tuple[Floats, float]:
    """Costs and true logit of a random architecture."""
    size = rng.uniform(-1, 1)
    cost = 1e6 * 10 ** (size + rng.normal(0, 0.2, 2))
    residual = rng.normal(0, scenario.spread)
    if scenario.is_skewed:
        residual = rng.normal(0, 0.4 * scenario.spread) - rng.exponential(2 * scenario.spread)
    return cost, _trend(scenario, cost) + residual


def _noise(scenario: Scenario, rng: np.random.Generator) -> Floats:
    """What an architecture has of its own on each image, whatever the seed."""
    return rng.standard_normal(scenario.num_val)


def _train(
    scenario: Scenario, theta: float, shared_M: Floats, own_M: Floats, rng: np.random.Generator
) -> tuple[float, float]:
    """Accuracies of one training, on val and on all images.

    An image is right if its latent score is high enough. Scores of two models correlate by `alike`; half of what is
    left is the architecture's, half the seed's.
    """
    accuracy = float(expit(theta + rng.normal(0, scenario.seed_sd)))
    seed_M = rng.standard_normal(scenario.num_val)
    rest = np.sqrt((1 - scenario.alike) / 2)
    score_M = np.sqrt(scenario.alike) * shared_M + rest * (own_M + seed_M)
    return float((score_M > -ndtri(accuracy)).mean()), accuracy


def _front(accuracy_N: Floats, costs_NC: Floats) -> Ints:
    """Indices of the trials on the front."""
    return np.flatnonzero(moocore.is_nondominated(np.column_stack([-accuracy_N, costs_NC]), keep_weakly=True))
