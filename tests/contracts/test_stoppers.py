"""What every stopper keeps: it judges at rungs alone, never a hand-designed model, and alike when made anew."""

import random
from functools import cache

import pytest

from nas.record.trials import Progress, TrialRecord, TrialState
from nas.session.pareto import HypervolumeScale, front_of
from nas.session.stoppers import Stopper, make_stopper, names
from nas.study.lease import Report
from nas.study.objectives import Objectives
from nas.study.recipe import Recipe
from search_spaces.space import SearchSpace
from tests.nas.runs import make_study

EPOCHS = 8


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return make_study().make_space()


@pytest.fixture(scope="module", params=[("accuracy", "params", "macs"), ("accuracy", "latency")])
def objectives(request: pytest.FixtureRequest) -> tuple[str, ...]:
    found: tuple[str, ...] = request.param
    return found


def stopper_of(name: str, space: SearchSpace, objectives: tuple[str, ...]) -> Stopper:
    study = make_study(stopper=name, objectives=objectives, recipe=Recipe(epochs=EPOCHS, warmup_epochs=1))
    return make_stopper(study, scale_of(space, study.goals))


@cache
def scale_of(space: SearchSpace, goals: Objectives) -> HypervolumeScale:
    return HypervolumeScale.of(space, goals, {"latency": (0.01, 100.0)})


def search(
    name: str, space: SearchSpace, objectives: tuple[str, ...], *, anew: bool, num_trials: int = 60
) -> list[tuple[int, str | None]]:
    """Epochs and reason of each trial; `anew`: a new stopper for each decision, from the curves alone."""
    rng = random.Random(0)
    goals = make_study(objectives=objectives).goals
    trials: list[TrialRecord] = []
    stopper = stopper_of(name, space, objectives)
    found = []
    for number in range(num_trials):
        arch = space.sample(rng)
        references = ("poolformer_s12",) if number % 10 == 9 else ()
        params, macs = rng.randrange(20_000, 10**6), rng.randrange(300_000, 4_000_000)
        trial = TrialRecord(number, arch, params, macs, checkpoint_trial=number, references=references)
        trial.progress = Progress(measured={"latency": rng.uniform(0.1, 10)})
        trials.append(trial)
        last, reason = rng.uniform(0.3, 0.95), None
        for epoch in range(1, EPOCHS + 1):
            accuracy = 1 - (1 - last) * 2 ** ((EPOCHS - epoch) / 4)
            trial.add_epoch(Report(epoch=epoch, val_accuracy=max(accuracy, 0), train_loss=1.0, checkpoint="x"))
            if anew:
                stopper = stopper_of(name, space, objectives)
                for earlier in trials:
                    stopper.observe(earlier)
            stopper.observe(trial)
            front = front_of(trials, goals)
            reason = stopper.reason_to_stop(trial, front)
            if reason:
                break
        trial.state = TrialState.STOPPED if reason else TrialState.COMPLETE
        found.append((trial.num_epochs, reason))
    return found


@pytest.mark.parametrize("name", names())
def test_trials_stop_at_rungs_with_a_reason_in_one_line_and_hand_designed_models_never(
    name: str, space: SearchSpace, objectives: tuple[str, ...]
) -> None:
    rungs = stopper_of(name, space, objectives).rungs
    for number, (epochs, reason) in enumerate(search(name, space, objectives, anew=False)):
        if reason is None:
            assert epochs == EPOCHS
        else:
            assert epochs in rungs
            assert len(reason.splitlines()) == 1
            assert number % 10 != 9


@pytest.mark.parametrize("name", names())
def test_a_stopper_made_anew_from_the_curves_decides_alike(
    name: str, space: SearchSpace, objectives: tuple[str, ...]
) -> None:
    known, forgotten = (search(name, space, objectives, anew=anew, num_trials=25) for anew in (False, True))
    assert forgotten == known


@pytest.mark.parametrize("name", [name for name in names() if name != "none"])
def test_it_stops_some_and_leaves_some(name: str, space: SearchSpace, objectives: tuple[str, ...]) -> None:
    stopped = sum(reason is not None for _, reason in search(name, space, objectives, anew=False))
    assert 10 <= stopped <= 54
