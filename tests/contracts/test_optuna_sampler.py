"""Optuna's own contract of a sampler (`optuna.testing.pytest_samplers`), kept by `ExactCostSampler`.

Its studies have one objective, which for this sampler is the uncertain one without costs.
`SingleOnlySamplerTestCase` is left out: it is for samplers that refuse several objectives.
"""

from collections.abc import Callable

import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import BasicSamplerTestCase, MultiObjectiveSamplerTestCase, RelativeSamplerTestCase

from nas import ExactCostSampler

# What the tests suggest. Those that are not here suggest one parameter in many ways, so that it cannot be declared.
DECLARED: dict[str, dict[str, BaseDistribution]] = {
    "test_nan_objective_value": {"x": FloatDistribution(0.1, 0.2)},
    "test_partial_fixed_sampling": {
        "x": FloatDistribution(-1, 1),
        "y": IntDistribution(-1, 1),
        "z": FloatDistribution(-1, 1),
    },
    "test_conditional_parameter_objective": {"x": CategoricalDistribution([True, False])},
    "test_dynamic_range_objective": {"x": FloatDistribution(0, 10), "y": IntDistribution(0, 10)},
    "test_trial_relative_params": {"x": FloatDistribution(-10, 10), "y": FloatDistribution(-10, 10)},
    "test_sample_relative_categorical": {
        "x": CategoricalDistribution([1, 10, 100]),
        "y": CategoricalDistribution([-1, -10, -100]),
    },
    "test_sample_relative_mixed": {"y": CategoricalDistribution([-1, -10, -100])},
}
UNUSED: dict[str, BaseDistribution] = {"unused": IntDistribution(0, 3)}


@pytest.mark.slow
class TestExactCostSampler(BasicSamplerTestCase, RelativeSamplerTestCase, MultiObjectiveSamplerTestCase):
    @pytest.fixture
    def sampler(self, request: pytest.FixtureRequest) -> Callable[[], BaseSampler]:
        declared = dict(DECLARED.get(request.node.originalname, {}))
        params = request.node.callspec.params if hasattr(request.node, "callspec") else {}
        declared |= {name: params[f"{name}_distribution"] for name in ("x", "y") if f"{name}_distribution" in params}
        return lambda: ExactCostSampler(declared or UNUSED, lambda params: (), n_startup_trials=1, seed=0)
