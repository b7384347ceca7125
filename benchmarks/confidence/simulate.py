"""Searches whose truth is known: architectures with true accuracies by cost, and what a seed and a split make of them.

n trials, m images of the validation split, C = 2 costs.
"""

from copy import copy
from dataclasses import dataclass, replace
from typing import Self

import moocore
import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, ndtri

from nas.session.certainty.noise import SEED_FACTOR, SEED_SD

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
    seed_factor: float = 1.0  # one standard deviation by which that differs from search to search
    alike: float = 0.6  # correlation of the latent scores by which two models get an image right
    centre: float = 1.8  # logit of the true accuracy at middle cost: 86 %
    spread: float = 0.25  # of true logits at one cost
    is_skewed: bool = False  # whether most architectures are about as good, and some much worse
    num_replicated: int = 0  # architectures that are trained three times instead of once


SCENARIOS = (
    replace(usual := Scenario("as the prior's median"), name="as assumed", seed_factor=SEED_FACTOR),
    usual,
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


class Search:
    """What a search has seen, and the truth.

    Attributes:
        accuracy_N: On val.
        costs_NC: Parameters and MACs, as it were.
        group_N: Architectures, in the order in which they were first trained.
        own_accuracy_N: Of each trial's weights on all images.
        true_logit_G: Of architectures, the mean over seeds.
    """

    def __init__(self, scenario: Scenario, rng: np.random.Generator) -> None:
        """Nothing has been trained yet."""
        self.scenario = scenario
        self.accuracy_N, self.own_accuracy_N = np.empty(0), np.empty(0)
        self.costs_NC, self.group_N = np.empty((0, 2)), np.empty(0, dtype=np.int64)
        self.true_logit_G = np.empty(0)
        self._rng = rng
        self._seed_sd = scenario.seed_sd * scenario.seed_factor ** rng.standard_normal()
        self._shared_M = rng.standard_normal(scenario.num_val)  # how easy an image is
        self._own_GM: list[Floats] = []  # what an architecture has of its own on each image, whatever the seed

    def try_new(self, cost_C: Floats, theta: float) -> None:
        """Train an architecture of these costs and this true logit."""
        self.true_logit_G = np.append(self.true_logit_G, theta)
        self._own_GM.append(self._rng.standard_normal(self.scenario.num_val))
        self._train(len(self._own_GM) - 1, cost_C)

    def train_again(self, group: int) -> None:
        """Train an architecture with another seed."""
        self._train(group, self.costs[group])

    def first(self, num_architectures: int) -> Self:
        """The same search, as it was when it had trained so many architectures once."""
        earlier = copy(self)
        for name in ("accuracy_N", "own_accuracy_N", "costs_NC", "group_N", "true_logit_G", "_own_GM"):
            setattr(earlier, name, getattr(self, name)[:num_architectures])
        return earlier

    @property
    def costs(self) -> Floats:
        """Costs of the G architectures, of shape (G, 2)."""
        return self.costs_NC[np.unique(self.group_N, return_index=True)[1]]

    @property
    def seconds(self) -> Floats:
        """Device-seconds of a training of each of G architectures: half of one, and one for a million MACs."""
        seconds_G: Floats = 0.5 + self.costs[:, 1] / 1e6
        return seconds_G

    @property
    def is_member(self) -> NDArray[np.bool_]:
        """Which of the G architectures are truly on the front."""
        members_G = np.zeros(len(self.true_logit_G), dtype=bool)
        members_G[_front(self.true_logit_G, self.costs)] = True
        return members_G

    @property
    def means(self) -> Floats:
        """Mean accuracies on val of the G architectures."""
        mean_G: Floats = np.bincount(self.group_N, self.accuracy_N) / np.bincount(self.group_N)
        return mean_G

    def _train(self, group: int, cost_C: Floats) -> None:
        """Add a training of an architecture.

        An image is right if its latent score is high enough. Scores of two models correlate by `alike`; half of what
        is left is the architecture's, half the seed's.
        """
        alike, rng = self.scenario.alike, self._rng
        own = float(expit(self.true_logit_G[group] + rng.normal(0, self._seed_sd)))
        seed_M = rng.standard_normal(self.scenario.num_val)
        score_M = np.sqrt(alike) * self._shared_M + np.sqrt((1 - alike) / 2) * (self._own_GM[group] + seed_M)
        self.accuracy_N = np.append(self.accuracy_N, float((score_M > -ndtri(own)).mean()))
        self.own_accuracy_N = np.append(self.own_accuracy_N, own)
        self.costs_NC = np.vstack([self.costs_NC, cost_C])
        self.group_N = np.append(self.group_N, group)


def simulate(scenario: Scenario, rng: np.random.Generator) -> Search:
    """A search that begins at random and then changes members of its front a little, by what val says."""
    search = Search(scenario, rng)
    while (num_done := len(search.accuracy_N)) < scenario.num_trials:
        num_new = min(_BATCH if num_done else _FIRST, scenario.num_trials - num_done)
        parents = _front(search.accuracy_N, search.costs_NC) if num_done else np.empty(0, dtype=np.int64)
        for _ in range(num_new):
            cost_C, theta = _architecture(scenario, rng)
            if len(parents) and rng.random() < 0.5:
                parent = int(rng.choice(parents))
                cost_C = search.costs_NC[parent] * np.exp(rng.normal(0, 0.15, 2))
                inherited = search.true_logit_G[parent] - _trend(scenario, search.costs_NC[parent])
                theta = _trend(scenario, cost_C) + 0.7 * inherited + rng.normal(0, 0.7 * scenario.spread)
            search.try_new(cost_C, theta)
    for group in rng.permutation(scenario.num_trials)[: scenario.num_replicated]:
        for _ in range(2):
            search.train_again(int(group))
    return search


def front_of_val(search: Search) -> Ints:
    """The architectures on the front of mean accuracies on val."""
    return _front(search.means, search.costs)


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


def _front(accuracy_N: Floats, costs_NC: Floats) -> Ints:
    """Indices of the trials on the front."""
    return np.flatnonzero(moocore.is_nondominated(np.column_stack([-accuracy_N, costs_NC]), keep_weakly=True))
