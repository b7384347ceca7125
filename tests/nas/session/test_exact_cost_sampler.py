"""`ExactCostSampler` in Optuna's own studies: what it suggests, in which order, and what it refuses."""

import math
import pickle
import random
from collections.abc import Callable, Iterator

import moocore
import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import Trial, TrialState
from scipy.special import ndtri

from metaformer import Architecture
from metaformer.errors import UserError
from nas import ExactCostSampler
from nas.record.trials import TrialRecord
from nas.record.trials import TrialState as RecordState
from nas.session.pareto import HypervolumeScale
from nas.session.proposers import make_proposer
from nas.session.proposers.improvement import normal_shortfall
from nas.session.proposers.parameters import Parameters
from nas.study.lease import Report
from nas.study.objectives import DEFAULT, choose
from search_spaces.space import Limits, SearchSpace, SpaceSettings, get
from tests.search_spaces.tiny import FewModels

LARGE: dict[str, BaseDistribution] = {
    "width": IntDistribution(8, 512, log=True),
    "depth": IntDistribution(1, 12),
    "rate": FloatDistribution(1e-4, 1, log=True),
    "act": CategoricalDistribution(["relu", "gelu", "tanh"]),
}
FEW, HYBRID = (get(name, SpaceSettings()) for name in (FewModels.name, "hybrid_stages"))
UP_DOWN_DOWN = ["maximize", "minimize", "minimize"]
SMALL: dict[str, BaseDistribution] = {"width": IntDistribution(1, 4), "act": CategoricalDistribution(["relu", "gelu"])}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(before)


def weights(params: dict[str, object]) -> list[float]:
    return [float(str(params["width"])) ** 2 * float(str(params.get("depth", 1)))]


def suggest(trial: Trial, space: dict[str, BaseDistribution]) -> dict[str, object]:
    return {name: trial._suggest(name, found) for name, found in space.items()}  # the distribution as it is


def large(trial: Trial) -> tuple[float, float]:
    params = suggest(trial, LARGE)
    width, depth, rate = (float(str(params[name])) for name in ("width", "depth", "rate"))
    error = 0.05 + 0.5 * (width / 8) ** -0.4 + 0.3 / depth + 0.05 * (math.log10(rate) + 2) ** 2
    return error + 0.05 * (params["act"] != "gelu"), width**2 * depth


def study_of(sampler: BaseSampler) -> optuna.Study:
    return optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)


def sampler_of(space: dict[str, BaseDistribution], *, first: int = 5, seed: int = 0) -> ExactCostSampler:
    return ExactCostSampler(space, weights, n_startup_trials=first, seed=seed)


def hypervolume(study: optuna.Study) -> float:
    points = np.array([[trial.values[0], math.log(trial.values[1])] for trial in study.trials])
    return float(moocore.hypervolume(points, ref=[1.5, 15.0]))


def test_the_expected_shortfall_is_the_mean_of_draws() -> None:
    """Draws are quantiles of the normal distribution, so that a thousand of them are enough."""
    quantiles = ndtri((np.arange(1000) + 0.5) / 1000)
    for level, mean, std in ((0.0, 0.3, 0.2), (0.5, 0.3, 0.2), (1.0, -2.0, 0.1)):
        [found] = normal_shortfall(np.array([level]), np.array([mean]), np.array([std]))
        assert found == pytest.approx(np.maximum(level - mean - std * quantiles, 0).mean(), abs=1e-4)


def test_it_finds_more_than_random_draws() -> None:
    found = {}
    for name, sampler in (("exact", sampler_of(LARGE, first=10)), ("random", RandomSampler(seed=0))):
        study = study_of(sampler)
        study.optimize(large, n_trials=40)
        found[name] = hypervolume(study)
    assert found["exact"] > found["random"] + 0.3


def test_the_same_seed_gives_the_same_trials_also_to_a_sampler_made_anew_or_kept_in_a_file() -> None:
    def params(seed: int, again: Callable[[BaseSampler], BaseSampler] = lambda sampler: sampler) -> list[object]:
        study = study_of(sampler_of(LARGE, seed=seed))
        study.optimize(large, n_trials=9)
        study.sampler = again(study.sampler)
        study.optimize(large, n_trials=4)
        return [trial.params for trial in study.trials]

    whole = params(3)
    assert params(3, again=lambda _: sampler_of(LARGE, seed=3)) == whole
    assert params(3, again=lambda sampler: pickle.loads(pickle.dumps(sampler))) == whole  # noqa: S301  our own
    assert params(4) != whole


def test_a_study_is_not_taken_for_an_earlier_one_of_the_same_name() -> None:
    def ended(sampler: BaseSampler, seed: int) -> optuna.Study:
        study = optuna.create_study(study_name="x", directions=["minimize", "minimize"], sampler=RandomSampler(seed))
        study.optimize(large, n_trials=9)
        study.sampler = sampler
        return study

    used = sampler_of(LARGE)
    ended(used, seed=0).ask(LARGE)
    found = [ended(sampler, seed=1).ask(LARGE).params for sampler in (used, sampler_of(LARGE))]
    assert found[0] == found[1]


def test_another_seed_is_drawn_when_asked() -> None:
    sampler = sampler_of(LARGE)
    sampler.reseed_rng()
    found = [study_of(each).ask(LARGE).params for each in (sampler, sampler_of(LARGE))]
    assert found[0] != found[1]


def test_every_point_of_a_small_space_comes_once_whatever_became_of_its_trial() -> None:
    study = study_of(sampler_of(SMALL, first=3))
    study.enqueue_trial({"width": 2, "act": "gelu"})
    for number in range(8):
        trial = study.ask(SMALL)
        if number == 5:
            continue  # it runs on
        if number % 3 == 1:
            study.tell(trial, state=TrialState.FAIL if number == 1 else TrialState.PRUNED)
        else:
            study.tell(trial, [1 / int(trial.params["width"]), *weights(trial.params)])
    assert study.trials[0].params == {"width": 2, "act": "gelu"}
    assert len({tuple(trial.params.values()) for trial in study.trials}) == 8
    assert study.ask(SMALL).params["width"] in range(1, 5)  # nothing new is left


def test_running_trials_get_points_of_their_own_before_they_have_suggested_anything() -> None:
    study = study_of(sampler_of(LARGE))
    study.optimize(large, n_trials=8)
    trials = [study.ask() for _ in range(6)]
    assert all(trial.relative_params for trial in trials)
    assert len({tuple(trial.relative_params.values()) for trial in trials}) == 6


def test_threads_share_a_sampler() -> None:
    study = study_of(sampler_of(SMALL, first=3))
    study.optimize(
        lambda trial: (1.0 / int(str(suggest(trial, SMALL)["width"])), weights(trial.params)[0]), n_trials=8, n_jobs=3
    )
    assert len({tuple(trial.params.values()) for trial in study.trials}) == 8


def test_any_objective_may_be_the_uncertain_one_and_costs_may_be_maximised() -> None:
    """The best values lie where the cost, here images a second, is least: the front is all widths with gelu."""
    sampler = ExactCostSampler(
        SMALL, lambda params: [-int(str(params["width"]))], uncertain=1, best_possible=1.0, n_startup_trials=3, seed=1
    )
    study = optuna.create_study(directions=["maximize", "maximize"], sampler=sampler)
    for _ in range(7):
        trial = study.ask(SMALL)
        width = int(trial.params["width"])
        study.tell(trial, [-width, 0.2 * width - 0.1 * (trial.params["act"] == "relu")])
    assert [trial.params["act"] for trial in study.best_trials] == ["gelu"] * 4


def test_values_without_a_number_teach_nothing() -> None:
    study = study_of(sampler_of(LARGE, first=3))
    for value in (0.5, math.inf, 0.4, -math.inf, 0.3, 0.6):
        trial = study.ask(LARGE)
        study.tell(trial, [value, *weights(trial.params)])
    assert study.ask(LARGE).params


def ask_for(space: SearchSpace, study: optuna.Study) -> tuple[Trial, Architecture]:
    trial = study.ask()
    return trial, space.suggest(trial)


def test_it_tries_in_a_study_of_ones_own_what_a_search_would_try() -> None:
    proposer = make_proposer("exact_cost", HYBRID, choose(DEFAULT), per_trial=True)
    study = optuna.create_study(directions=UP_DOWN_DOWN, sampler=ExactCostSampler.of(HYBRID, seed=0))
    history: list[TrialRecord] = []
    for number in range(30):
        seed = random.Random(f"0 {number}").getrandbits(32)
        expected = proposer.propose(history, limits=Limits(), seed=seed)
        trial, arch = ask_for(HYBRID, study)
        assert trial.params == expected
        cost = HYBRID.cost(arch)
        accuracy = 1 - 1 / math.log(cost.macs)
        history.append(TrialRecord(number, arch, cost.params, cost.macs, checkpoint_trial=number))
        if number % 5 == 4:
            study.tell(trial, state=TrialState.FAIL)
            history[-1].state = RecordState.FAILED
        elif number % 7 < 6:  # the others run on
            study.tell(trial, [accuracy, cost.params, cost.macs])
            history[-1].add_epoch(Report(epoch=1, val_accuracy=accuracy, train_loss=0.0, checkpoint="x"))
            history[-1].state = RecordState.COMPLETE


def test_trials_that_others_have_queued_count_with_what_they_came_to() -> None:
    study = optuna.create_study(directions=UP_DOWN_DOWN, sampler=ExactCostSampler.of(FEW, seed=0))
    queued = FEW.encode(FEW.sample(random.Random(5)))
    study.enqueue_trial(queued)
    digests = set()
    for _ in range(FEW.size):
        trial, arch = ask_for(FEW, study)
        cost = FEW.cost(arch)
        digests.add(arch.digest)
        study.tell(trial, [0.5, cost.params, cost.macs])
    assert study.trials[0].params == queued
    assert len(digests) == FEW.size
    study.add_trial(optuna.trial.create_trial(values=[0.9, 1, 1]))  # of no architecture
    assert ask_for(FEW, study)[1].digest in digests  # nothing new is left


def test_another_study_is_not_taken_for_the_one_before() -> None:
    def ended(sampler: BaseSampler, seed: int) -> optuna.Study:
        study = optuna.create_study(study_name="x", directions=UP_DOWN_DOWN, sampler=RandomSampler(seed))
        for number in range(12):
            trial, arch = ask_for(FEW, study)
            study.tell(trial, [number / 20, FEW.cost(arch).params, FEW.cost(arch).macs])
        study.sampler = sampler
        return study

    used = ExactCostSampler.of(FEW, seed=0)
    ask_for(FEW, ended(used, seed=0))
    kept = pickle.loads(pickle.dumps(used))  # noqa: S301  our own
    samplers = (used, kept, ExactCostSampler.of(FEW, seed=0))
    found = [ask_for(FEW, ended(sampler, seed=1))[0].params for sampler in samplers]
    assert found[0] == found[1] == found[2]


def test_a_study_of_ones_own_has_the_directions_of_the_objectives_and_no_accuracy_above_one() -> None:
    study = optuna.create_study(directions=["minimize"] * 3, sampler=ExactCostSampler.of(FEW, seed=0))
    wanted = r"maximize, minimize, minimize \(accuracy, params, macs\), got minimize, minimize, minimize"
    with pytest.raises(UserError, match=f"directions: must be {wanted}"):
        ask_for(FEW, study)
    study = optuna.create_study(directions=UP_DOWN_DOWN, sampler=ExactCostSampler.of(FEW, seed=0))
    study.tell(ask_for(FEW, study)[0], [50.0, 1.0, 1.0])
    with pytest.raises(UserError, match=r"accuracy: must be at most 1, got 50\.0 of trial 0"):
        ask_for(FEW, study)


def test_a_project_space_is_searched_by_its_architectures() -> None:
    """Every architecture comes once: genes that do nothing make no other point."""
    few = get(FewModels.name, SpaceSettings())
    goals = choose(DEFAULT)
    directions = ["maximize" if maximised else "minimize" for maximised in goals.is_maximised]
    study = optuna.create_study(directions=directions, sampler=ExactCostSampler.of(few, seed=0))
    digests = []

    def objective(trial: Trial) -> tuple[float, float, float]:
        arch = few.suggest(trial)
        digests.append(arch.digest)
        cost = few.cost(arch)
        return 1 - 100 / cost.params, cost.params, cost.macs

    study.optimize(objective, n_trials=few.size)
    assert len(set(digests)) == few.size
    assert HypervolumeScale.of(few, goals).hypervolume([tuple(trial.values) for trial in study.best_trials]) > 0


@pytest.mark.parametrize(
    "found",
    [
        FloatDistribution(-10.2, 10.2, step=0.1),
        FloatDistribution(1e-7, 1.0, log=True),
        FloatDistribution(2.0, 2.0),
        IntDistribution(1, 100, log=True),
        IntDistribution(3, 9, step=2),
        CategoricalDistribution((1, "a", None)),
    ],
)
def test_points_and_their_neighbours_lie_in_the_space(found: BaseDistribution) -> None:
    space, rng = Parameters({"x": found, "y": IntDistribution(0, 1)}), random.Random(0)
    points = space.draw(rng, 20)
    points += [other for point in points for other in (*space.neighbours(point, rng), *space.children(point, rng))]
    for point in points:
        params = space.params(point)
        assert space.point(params) == point
        assert found._contains(found.to_internal_repr(params["x"]))
    features = space.features(points)
    assert features.shape == (len(points), len(space.groups))
    assert features.min() >= 0
    assert features.max() <= 1
    if space.size < 50:
        assert set(points) <= set(space.every())


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UserError, match=r"search_space: must have one parameter at least, got none"):
        ExactCostSampler({}, weights)
    with pytest.raises(UserError, match=r"search_space: x must be a distribution of Optuna, got \[0, 1\]"):
        ExactCostSampler({"x": [0, 1]}, weights)  # type: ignore[dict-item]
    with pytest.raises(UserError, match=r"costs: must be a function of the parameters, got 3"):
        ExactCostSampler(SMALL, 3)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"uncertain: must be a whole number of 0 or more, got -1"):
        ExactCostSampler(SMALL, weights, uncertain=-1)
    with pytest.raises(UserError, match=r"n_startup_trials: must be a whole number of 1 or more, got 0"):
        ExactCostSampler(SMALL, weights, n_startup_trials=0)
    limited = get(FewModels.name, SpaceSettings(limits=Limits(max_params=10**6)))
    with pytest.raises(UserError, match=r"settings\.limits: must be none for a sampler of your own study"):
        ExactCostSampler.of(limited)
    with pytest.raises(UserError, match=r"sampler: must be another than exact_cost unless objectives are"):
        ExactCostSampler.of(get(FewModels.name, SpaceSettings()), ("accuracy", "params", "latency"))


@pytest.mark.parametrize(
    ("num", "arguments", "message"),
    [
        (2, {"uncertain": 2}, r"uncertain: must be below the study's number of objectives, 2, got 2"),
        (3, {}, r"costs: must return 2 finite numbers in this study, got \(.*\)"),
        (4, {}, r"directions: must be 3 at most for this sampler, got 4"),
    ],
)
def test_a_study_of_other_objectives_is_refused(num: int, arguments: dict[str, int], message: str) -> None:
    study = optuna.create_study(
        directions=["minimize"] * num, sampler=ExactCostSampler(SMALL, weights, seed=0, **arguments)
    )
    with pytest.raises(UserError, match=message):
        study.ask(SMALL)


def test_a_value_better_than_the_best_possible_one_is_refused() -> None:
    study = study_of(ExactCostSampler(SMALL, weights, best_possible=0.0, seed=0))
    study.tell(study.ask(SMALL), [-1.0, 1.0])
    with pytest.raises(UserError, match=r"best_possible: must be the best value that a trial can have, got -1\.0"):
        study.ask(SMALL)
