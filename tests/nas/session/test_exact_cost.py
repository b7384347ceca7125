"""The sampler that knows the costs: its closed form against hypervolumes, its model, and what it does in a search."""

import math
import random

import moocore
import numpy as np
import pytest
from scipy.optimize import approx_fprime

from metaformer.errors import UserError
from nas.record.record import Record
from nas.record.storage import IN_MEMORY
from nas.record.trials import TrialRecord, TrialState
from nas.session.proposers import make_proposer
from nas.session.proposers.gaussian_process import GaussianProcess, Hyperparameters, _negative_log_likelihood, fit
from nas.session.proposers.improvement import expected_shortfall, undominated
from nas.study.lease import Report
from nas.study.objectives import DEFAULT, choose
from search_spaces.space import Limits, SearchSpace, SpaceSettings, get
from tests.search_spaces.tiny import FewModels

CORNER = [1.0, 1.0, 1.0]


def random_front(rng: np.random.Generator, num_costs: int, *, nondominated: bool) -> np.ndarray:
    """Points on a coarse grid, so that ties occur: two costs, of which the second may be 0, and an error."""
    points = np.round(rng.random((int(rng.integers(0, 15)), 3)), 1)
    points[:, num_costs:2] = 0.0
    return points[moocore.is_nondominated(points)] if nondominated and len(points) else points


def hypervolume(points: np.ndarray) -> float:
    return float(moocore.hypervolume(points, ref=CORNER)) if len(points) else 0.0


@pytest.mark.parametrize("num_costs", [1, 2])
@pytest.mark.parametrize("nondominated", [True, False])
def test_boxes_hold_what_no_member_of_the_front_dominates(num_costs: int, nondominated: bool) -> None:
    rng = np.random.default_rng(num_costs)
    for _ in range(200):
        points = random_front(rng, num_costs, nondominated=nondominated)
        boxes = undominated(points[:, :2], points[:, 2])
        volume = ((boxes.right - boxes.left) * boxes.top * (boxes.high - boxes.low)).sum()
        assert volume == pytest.approx(1 - hypervolume(points), abs=1e-12)


@pytest.mark.parametrize("num_costs", [1, 2])
@pytest.mark.parametrize("nondominated", [True, False])
def test_the_expected_gain_is_the_mean_gain_of_draws(num_costs: int, nondominated: bool) -> None:
    """Draws are quantiles of the normal distribution, so that a thousand of them are enough."""
    rng = np.random.default_rng(7)
    quantiles = expected_normal_quantiles(1000)
    for _ in range(6):
        points = random_front(rng, num_costs, nondominated=nondominated)
        costs = np.round(rng.random((1, 2)), 1) * 0.9
        costs[:, num_costs:] = 0.0
        mean, std = -2 * rng.random(1), 0.05 + rng.random(1)
        gain = undominated(points[:, :2], points[:, 2]).expected_gain(costs, mean, std)
        before = hypervolume(points)
        errors = np.exp(mean + std * quantiles)
        gains = [hypervolume(np.vstack([points, [*costs[0], error]])) - before for error in errors]
        assert gain[0] == pytest.approx(np.mean(gains), abs=2e-4)


def expected_normal_quantiles(number: int) -> np.ndarray:
    from scipy.special import ndtri

    found: np.ndarray = ndtri((np.arange(number) + 0.5) / number)
    return found


def test_a_candidate_that_surely_is_dominated_gains_nothing() -> None:
    boxes = undominated(np.array([[0.2, 0.0]]), np.array([0.1]))
    gain = boxes.expected_gain(np.array([[0.5, 0.0], [0.1, 0.0]]), np.log([0.3, 0.3]), np.full(2, 1e-6))
    assert gain == pytest.approx([0, 0.1 * 0.7], abs=1e-6)


def test_the_expected_shortfall_of_a_sure_error_is_the_difference() -> None:
    levels = np.array([0.0, 0.2, 0.7])
    assert expected_shortfall(levels, np.log([0.3]), np.array([1e-9])) == pytest.approx([0, 0, 0.4])


def test_the_gradient_of_the_likelihood_is_that_of_finite_differences() -> None:
    rng = np.random.default_rng(0)
    x, theta = rng.random((20, 3)), 0.3 * rng.normal(size=5)
    squares = (x.T[:, :, None] - x.T[:, None, :]) ** 2
    y = rng.normal(size=20)
    _, gradient = _negative_log_likelihood(theta, squares, y)
    numeric = approx_fprime(theta, lambda at: _negative_log_likelihood(at, squares, y)[0], 1e-6)
    np.testing.assert_allclose(gradient, numeric, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("extra", [0.0, np.linspace(0, 2, 30)], ids=["alike", "of each"])
def test_the_posterior_is_that_of_scikit_learn(extra: np.ndarray | float) -> None:
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern

    rng = np.random.default_rng(1)
    x, y, other = rng.random((30, 3)), rng.normal(size=30), rng.random((10, 3))
    lengths = np.array([0.5, 2.0])
    ours = GaussianProcess(Hyperparameters(lengths, 1.5, 0.1), np.array([0, 0, 1]), x, y, extra)
    kernel = ConstantKernel(1.5) * Matern(length_scale=[0.5, 0.5, 2.0], nu=2.5)
    peer = GaussianProcessRegressor(kernel, alpha=0.1 + 1e-8 + extra, optimizer=None).fit(x, y - ours._constant)
    mean, std = ours.predict(other)
    expected_mean, expected_std = peer.predict(other, return_std=True)
    np.testing.assert_allclose(mean, expected_mean + ours._constant, rtol=1e-6)
    np.testing.assert_allclose(std, expected_std, rtol=1e-5)


def test_a_running_trial_leaves_the_mean_as_it_is_and_makes_it_surer() -> None:
    rng = np.random.default_rng(2)
    x, y, other = rng.random((20, 2)), rng.normal(size=20), rng.random((5, 2))
    before = GaussianProcess(Hyperparameters(np.ones(2), 1.0, 0.1), np.array([0, 1]), x, y)
    after = before.with_running(other)
    np.testing.assert_allclose(after.predict(other)[0], before.predict(other)[0], atol=1e-6)
    assert (after.predict(other)[1] < before.predict(other)[1]).all()


def test_a_trial_that_was_stopped_draws_the_search_to_where_it_would_have_ended_well(space: SearchSpace) -> None:
    """Of the same trials, those that were stopped while they promised much teach more than those that failed."""
    rng = random.Random(0)
    archs = list({arch.digest: arch for arch in (space.sample(rng) for _ in range(60))}.values())
    taught = {}
    for how in ("stopped", "failed"):
        record = Record(IN_MEMORY, space, choose(DEFAULT), writes=True)
        for arch in archs:
            trial, has_attention = record.start(arch), arch.stages[3].mixer.kind == "attention"
            first = 0.5 + 0.1 * rng.random() + (0.3 if has_attention else 0)
            trial.add_epoch(Report(epoch=1, val_accuracy=first, train_loss=1, checkpoint="x"))
            if has_attention:
                record.end(trial, how)
            else:
                trial.add_epoch(Report(epoch=2, val_accuracy=first + 0.05, train_loss=1, checkpoint="x"))
                record.end(trial, "complete")
        proposer = make_proposer("exact_cost", space, choose(DEFAULT))
        found = [proposer.propose(record.trials, limits=Limits(), seed=seed) for seed in range(8)]
        taught[how] = sum(genes is not None and genes["mixer_4"] == "attention" for genes in found)
    assert taught["stopped"] > taught["failed"]


def test_the_fit_finds_the_feature_that_matters() -> None:
    x = np.random.default_rng(3).random((60, 3))
    y = np.sin(6 * x[:, 1])
    found = fit(x, (y - y.mean()) / y.std(), np.arange(3))
    assert found.lengths.argmin() == 1
    assert found.noise < 0.01


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return get("hybrid_stages", SpaceSettings())


@pytest.fixture(scope="module")
def few() -> SearchSpace:
    return get(FewModels.name, SpaceSettings())


def first_positions(space: SearchSpace, *, number: int, per_trial: bool) -> list[float]:
    """Where the first trials lie between the least MACs and the most, on a logarithmic scale from 0 to 1."""
    proposer = make_proposer("exact_cost", space, choose(("accuracy", "macs")), per_trial=per_trial)
    history: list[TrialRecord] = []
    for place in range(number):
        genes = proposer.propose(history, limits=Limits(), seed=place)
        assert genes is not None
        arch = space.decode(genes)
        cost = space.cost(arch)
        history.append(TrialRecord(place, arch, cost.params, cost.macs, place))
    low, high = np.log([space.cost(space.smallest("macs")).macs, space.largest_cost("macs")])
    return sorted((math.log(trial.macs) - low) / (high - low) for trial in history)


def test_the_first_trials_are_spread_over_the_logarithm_of_the_cost(few: SearchSpace) -> None:
    assert max(np.diff([0, *first_positions(few, number=8, per_trial=True), 1])) < 0.4


def test_where_device_time_is_paid_for_most_of_the_first_trials_are_cheap(space: SearchSpace) -> None:
    cheap, even = (first_positions(space, number=20, per_trial=per_trial) for per_trial in (False, True))
    assert np.median(cheap) < np.median(even) - 0.1
    assert cheap[-1] > 0.7


def test_where_device_time_is_paid_for_later_trials_are_cheaper_too(space: SearchSpace) -> None:
    """After the same first trials, where dear architectures are better."""
    mean_log_macs = []
    for per_trial in (False, True):
        first, proposer = random.Random(0), make_proposer("exact_cost", space, choose(DEFAULT), per_trial=per_trial)
        history: list[TrialRecord] = []
        for number in range(60):
            genes = space.encode(space.sample(first))
            if number >= 20:
                found = proposer.propose(history, limits=Limits(), seed=number)
                assert found is not None
                genes = found
            arch = space.decode(genes)
            cost = space.cost(arch)
            trial = TrialRecord(number, arch, cost.params, cost.macs, number)
            accuracy = math.log(cost.macs) / 30 + (0.1 if arch.stages[3].mixer.kind == "attention" else 0)
            trial.add_epoch(Report(epoch=1, val_accuracy=accuracy, train_loss=1.0, checkpoint="x"))
            trial.state = TrialState.COMPLETE
            history.append(trial)
        mean_log_macs.append(np.mean([math.log(trial.macs) for trial in history[20:]]))
    assert mean_log_macs[0] < mean_log_macs[1]


def test_running_trials_change_what_is_proposed_next(few: SearchSpace) -> None:
    """With others running, what is proposed is not what would be proposed without them."""
    history = []
    for number, arch in enumerate(all_architectures(few)[::2]):
        cost = few.cost(arch)
        trial = TrialRecord(number, arch, cost.params, cost.macs, number)
        trial.add_epoch(Report(epoch=1, val_accuracy=0.5 + 0.01 * (number % 7), train_loss=1.0, checkpoint="x"))
        trial.state = TrialState.COMPLETE
        history.append(trial)
    seen = set()
    for number in range(10):
        genes = make_proposer("exact_cost", few, choose(DEFAULT)).propose(history, limits=Limits(), seed=0)
        assert genes is not None
        arch = few.decode(genes)
        seen.add(arch.digest)
        cost = few.cost(arch)
        history.append(TrialRecord(len(history), arch, cost.params, cost.macs, number))
    assert len(seen) == 10


def all_architectures(space: SearchSpace) -> list:  # type: ignore[type-arg]
    from search_spaces.enumeration import architectures_within

    return list(architectures_within(space, Limits()))


@pytest.mark.parametrize("names", [("accuracy", "latency"), ("accuracy", "macs", "latency")])
def test_objectives_that_are_measured_are_refused(few: SearchSpace, names: tuple[str, ...]) -> None:
    message = (
        f"sampler: must be another than exact_cost unless objectives .* one or two exact costs, got {','.join(names)}"
    )
    with pytest.raises(UserError, match=message):
        make_proposer("exact_cost", few, choose(names))
