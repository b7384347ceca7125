"""Stoppers on trials that are made up, and in the real session."""

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaformer import zoo
from nas.record.trials import Progress, StopReason, TrialRecord, TrialState
from nas.session.pareto import HypervolumeScale, dominates
from nas.session.session import Decision
from nas.session.stoppers import ChanceStopper, HypervolumeStopper, NeverStop, RankStopper, Stopper, rungs
from nas.study.lease import Report
from nas.study.objectives import DEFAULT, Point, choose
from tests.nas.runs import fill, make_study, open_folder

GOALS = choose(DEFAULT)
SCALE = HypervolumeScale(GOALS, (None, (1_000, 1_000_000), (1_000, 1_000_000)))
ARCH = zoo.get("poolformer_s12")
EPOCHS = 8


def trial_at(
    number: int, accuracies: list[float], *, cost: tuple[int, int] = (10_000, 10_000), references: tuple[str, ...] = ()
) -> TrialRecord:
    """A trial with this accuracy after each epoch."""
    curve = tuple(
        Report(epoch=epoch, val_accuracy=accuracy, train_loss=1.0, checkpoint="x")
        for epoch, accuracy in enumerate(accuracies, start=1)
    )
    progress = Progress(curve=curve)
    trial = TrialRecord(number, ARCH, *cost, checkpoint_trial=number, references=references, progress=progress)
    trial.state = TrialState.COMPLETE if len(curve) == EPOCHS else TrialState.RUNNING
    return trial


def stopper_that_has_seen(kind: type[Stopper], trials: list[TrialRecord]) -> Stopper:
    stopper = kind(epochs=EPOCHS, first_rung=1, objectives=GOALS, scale=SCALE)
    for trial in trials:
        stopper.observe(trial)
    return stopper


def rising(last: float) -> list[float]:
    """Eight epochs, the errors halved each time three epochs have passed."""
    return [1 - (1 - last) * 2 ** ((EPOCHS - epoch) / 3) for epoch in range(1, EPOCHS + 1)]


@pytest.mark.parametrize(
    ("epochs", "first", "expected"),
    [
        (16, 1, (1, 2, 4, 8)),
        (16, 3, (4, 8)),
        (30, 5, (7, 15)),
        (300, 5, (9, 18, 37, 75, 150)),
        (3, 1, (1,)),
        (1, 0, ()),
    ],
)
def test_rungs_halve_the_epochs_down_to_the_first(epochs: int, first: int, expected: tuple[int, ...]) -> None:
    assert rungs(epochs, first=first) == expected


@pytest.mark.parametrize("kind", [RankStopper, HypervolumeStopper, ChanceStopper])
def test_the_first_trials_and_references_are_never_stopped(kind: type[Stopper]) -> None:
    few = [trial_at(0, rising(0.9)), trial_at(1, rising(0.9))]
    stopper = stopper_that_has_seen(kind, [*few, bad := trial_at(2, [0.01])])
    assert stopper.reason_to_stop(bad, few) is None
    many = [trial_at(number, rising(0.9)) for number in range(8)]
    stopper = stopper_that_has_seen(kind, [*many, bad := trial_at(9, [0.01], references=("poolformer_s12",))])
    assert stopper.reason_to_stop(bad, many) is None


@pytest.mark.parametrize("kind", [RankStopper, HypervolumeStopper, ChanceStopper])
def test_a_trial_that_is_worse_in_everything_is_stopped_at_its_first_rung(kind: type[Stopper]) -> None:
    good = [trial_at(number, rising(0.9)) for number in range(8)]
    bad = trial_at(9, [0.01], cost=(20_000, 20_000))
    reason = stopper_that_has_seen(kind, [*good, bad]).reason_to_stop(bad, good)
    assert reason is not None
    assert reason.startswith("at epoch 1 ")


@pytest.mark.parametrize("kind", [RankStopper, HypervolumeStopper, ChanceStopper])
def test_the_cheapest_trial_goes_on_however_bad_and_one_that_is_better_in_everything_too(kind: type[Stopper]) -> None:
    others = [trial_at(number, rising(0.9 - number / 100)) for number in range(8)]
    cheap = trial_at(9, [0.3, 0.31], cost=(2_000, 2_000))
    best = trial_at(10, [0.8, 0.85], cost=(9_000, 9_000))
    stopper = stopper_that_has_seen(kind, [*others, cheap, best])
    assert stopper.reason_to_stop(cheap, others) is None
    assert stopper.reason_to_stop(best, others) is None


@pytest.mark.parametrize("kind", [NeverStop, RankStopper, HypervolumeStopper, ChanceStopper])
def test_nothing_is_stopped_between_rungs(kind: type[Stopper]) -> None:
    good = [trial_at(number, rising(0.9)) for number in range(8)]
    stopper = stopper_that_has_seen(kind, [*good, bad := trial_at(9, [0.01] * 3, cost=(20_000, 20_000))])
    assert stopper.reason_to_stop(bad, good) is None


def test_an_accuracy_that_may_still_rise_above_the_front_is_given_the_time() -> None:
    """All trials so far left a quarter of their error of epoch 2: 81 % may become 95.25 %, above the front's 95 %."""
    done = [trial_at(number, rising(0.95)) for number in range(8)]
    late = trial_at(9, [0.7, 0.81])
    stopper = stopper_that_has_seen(HypervolumeStopper, [*done, late])
    assert stopper.reason_to_stop(late, done) is None
    later = trial_at(10, [0.4, 0.5])  # at best 87.5 %
    stopper.observe(later)
    reason = stopper.reason_to_stop(later, done)
    assert reason == "at epoch 2 even an accuracy of 87.50% would add nothing to the front"


def test_a_rung_that_does_not_tell_the_end_stops_nobody() -> None:
    """The same poor first epoch, where the first epochs of others told their ends, and where they did not."""
    rng = random.Random(0)
    ends = sorted(0.85 + 0.05 * rng.random() for _ in range(24))
    telling = [trial_at(number, rising(end)) for number, end in enumerate(ends)]
    luck = [trial_at(number, [rng.random() / 2, *rising(end)[1:]]) for number, end in enumerate(ends)]
    late = trial_at(30, [0.05])
    for done, is_stopped in ((telling, True), (luck, False)):
        stopper = stopper_that_has_seen(ChanceStopper, [*done, late])
        assert (stopper.reason_to_stop(late, [done[12]]) is not None) == is_stopped


def test_an_eighth_of_the_trials_is_trained_to_the_end_whatever_their_chances() -> None:
    done = [trial_at(number, rising(0.9)) for number in range(4)]
    begun = [trial_at(number, [0.01], cost=(20_000, 20_000)) for number in range(4, 40)]
    stopper = stopper_that_has_seen(ChanceStopper, [*done, *begun[:28]])
    assert stopper.reason_to_stop(begun[0], done) is not None
    stopper.observe(begun[28])
    assert stopper.reason_to_stop(begun[0], done) is None
    stopper.observe(trial_at(40, rising(0.9)))
    assert stopper.reason_to_stop(begun[0], done) is not None


POINTS = st.lists(
    st.tuples(st.integers(0, 20), st.integers(1, 20), st.integers(1, 20)).map(
        lambda p: (p[0] / 20, p[1] * 1000, p[2] * 1000)
    ),
    min_size=1,
    max_size=12,
)


@given(POINTS)
def test_a_stopper_made_anew_from_the_curves_decides_alike(points: list[Point]) -> None:
    trials = [trial_at(n, [accuracy], cost=(params, macs)) for n, (accuracy, params, macs) in enumerate(points)]
    one = stopper_that_has_seen(RankStopper, trials)
    other = stopper_that_has_seen(RankStopper, [*reversed(trials), *trials])
    for trial in trials:
        assert one.reason_to_stop(trial, []) == other.reason_to_stop(trial, [])


@given(POINTS)
def test_rank_keeps_what_nothing_dominates_and_at_least_half(points: list[Point]) -> None:
    trials = [trial_at(n, [accuracy], cost=(params, macs)) for n, (accuracy, params, macs) in enumerate(points)]
    stopper = stopper_that_has_seen(RankStopper, trials)
    kept = [trial for trial in trials if stopper.reason_to_stop(trial, []) is None]
    assert len(kept) >= len(trials) / 2
    for trial, point in zip(trials, points, strict=True):
        assert trial in kept or any(dominates(other, point, GOALS) for other in points)


@pytest.mark.parametrize("stopper", ["rank", "hypervolume", "chance"])
def test_a_search_stops_some_trials_with_a_reason_but_no_reference_and_frees_their_time(
    tmp_path: Path, stopper: str
) -> None:
    run, session = open_folder(tmp_path, make_study(stopper=stopper, max_trials=60))
    fill(session, fail_every=1000)
    stopped = [trial for trial in run.record if trial.state is TrialState.STOPPED]
    assert 10 <= len(stopped) <= 50
    assert all(not trial.references and trial.num_epochs == 1 and trial.reason for trial in stopped)
    assert {trial.stop_reason for trial in stopped} == {StopReason.STOPPER}
    whole = session.expected_seconds(ARCH, epochs=3) / session.expected_seconds(ARCH, epochs=1)
    for trial in stopped:
        seconds = session.expected_seconds(trial.architecture, epochs=3)
        assert trial.device_seconds == pytest.approx(seconds / whole)
    assert not {trial.number for trial in stopped} & {trial.number for trial in session.front}


def test_a_driver_that_dies_between_a_rung_and_the_stop_stops_the_trial_when_it_is_back(tmp_path: Path) -> None:
    study = make_study(stopper="rank", max_trials=60)
    _, session = open_folder(tmp_path, study)
    while lease := session.next():
        decision = Decision.CONTINUE
        for epoch in range(1, 4):
            accuracy = 1 / (2 + lease.trial)  # each worse than the one before
            report = Report(epoch=epoch, val_accuracy=accuracy, train_loss=1.0, checkpoint="x")
            decision = session.report(lease.name, report, device_seconds=epoch)
            if decision is Decision.STOP:
                break
        if decision is Decision.STOP and epoch == 1:
            break  # and the driver is killed
        session.finish(lease.name, device_seconds=3)
    _, again = open_folder(tmp_path, study)
    trial = again.record.trials[lease.trial]
    assert trial.state is TrialState.STOPPED
    assert (trial.reason or "").startswith("at epoch 1 ")
