"""What to try next: Optuna's samplers, kept to architectures that are allowed, affordable and new."""

import random
from collections.abc import Callable, Container
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from metaformer.cost import count_cost
from search_spaces.space import Choice, Genes, Limits, SearchSpace

_MAKERS: dict[str, Callable[[int], BaseSampler]] = {
    "tpe": lambda seed: TPESampler(multivariate=True, seed=seed),  # the independent one repeats itself
    "nsga2": lambda seed: NSGAIISampler(seed=seed),
    "random": lambda seed: RandomSampler(seed=seed),
}
_DRAWS = 20  # asked of the sampler before uniform ones are taken
_UNIFORM_DRAWS = 200


def names() -> list[str]:
    """Names of all samplers."""
    return list(_MAKERS)


class SpaceSampler(BaseSampler):
    """One suggestion of a named sampler, in canonical genes, within limits and not seen before.

    A new one is made for each trial with a seed of its own, so that what is suggested depends on the study's seed and
    the trials before it alone, and a study that goes on continues like one that never stopped. Where the sampler itself
    gives nothing acceptable, a uniform draw is taken; where many of those are known too, `exhausted` turns true.
    """

    def __init__(self, name: str, *, space: SearchSpace, limits: Limits, seen: Container[str], seed: int) -> None:
        settings = space.settings.model_copy(update={"limits": limits})
        self._space = type(space)(settings)
        self._seen = seen
        self._inner = _MAKERS[name](seed)
        self._rng = random.Random(seed)
        self.exhausted = False

    @property
    def needs_trial(self) -> bool:
        """Whether the inner sampler keeps notes with the trial that it suggests for."""
        return not isinstance(self._inner, RandomSampler)

    def suggest(self, study: optuna.Study) -> Genes:
        """Genes for a trial that is not there yet."""
        trial = optuna.trial.create_trial(state=TrialState.RUNNING)
        return self.sample_relative(study, trial, self.infer_relative_search_space(study, trial))

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {choice.name: distribution(choice) for choice in self._space.choices}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        for _ in range(_DRAWS):
            genes = self._draw(study, trial, search_space)
            if genes is None:
                break
            arch = self._space.decode(genes)
            if arch.digest not in self._seen and self._space.settings.limits.allow(count_cost(arch)):
                return self._space.encode(arch)
        for _ in range(_UNIFORM_DRAWS):
            arch = self._space.sample(self._rng)
            if arch.digest not in self._seen:
                return self._space.encode(arch)
        self.exhausted = True
        return self._space.encode(arch)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._inner.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self._inner.before_trial(study, trial)

    def reseed_rng(self) -> None:
        self._inner.reseed_rng()

    def _draw(self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> Genes | None:
        """Genes that the inner sampler proposes; None while it has none of its own (it is still starting up)."""
        genes = self._inner.sample_relative(study, trial, search_space)
        if not genes:
            return None
        for name, choice_distribution in search_space.items():
            if name not in genes:
                genes[name] = self._inner.sample_independent(study, trial, name, choice_distribution)
        return genes


def distribution(choice: Choice) -> BaseDistribution:
    """The Optuna distribution that `SearchSpace.suggest` uses for a choice."""
    if choice.numbers:
        return IntDistribution(choice.numbers[0], choice.numbers[-1], step=choice.numbers.step)
    return CategoricalDistribution(choice.values)
