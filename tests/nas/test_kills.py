"""A search whose driver is killed again and again, at random moments, against one that nobody disturbed."""

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from optuna.trial import FrozenTrial

from nas.study import Study
from tests.nas.programs import QUICK, Program, Recorded, epochs_seen, lease_seconds, read_study, run_program

pytestmark = [pytest.mark.xdist_group("ray"), pytest.mark.timeout(2000)]

NUM_KILLS = 20
# Early stopping is on: what has been stopped must be stopped after a restart too.
COMMAND = (*QUICK, "--stopper", "hypervolume", "--budget", "2cpu-hours")
HALF_BEGUN = "the driver was killed while it began this trial"


class Killed(NamedTuple):
    """A search that was killed `num_kills` times and then left to end, and its undisturbed twin."""

    study: Recorded
    twin: Recorded
    folder: Path
    seconds: float  # that its processes ran for in all
    num_kills: int
    epochs_at_kills: list[int]


def search_and_kill(runs: Path, *, num_kills: int, num_trials: int, kill: Callable[[Program], None]) -> Killed:
    """Kill while the program starts, measures, trains or writes; the moments are drawn from a seed."""
    rng = random.Random(0)
    arguments = (*COMMAND, "--max-trials", num_trials, "--runs", runs)
    twin = run_program(*arguments, "--name", "twin", logs=runs / "twin-logs")
    assert twin.code == 0, twin.err
    folder, seconds, epochs_at_kills = runs / "killed", 0.0, []
    for number in range(num_kills + 1):
        start = time.monotonic()
        with Program(*arguments, "--name", "killed", logs=runs / f"logs-{number}") as program:
            if number == num_kills:
                outcome = program.wait()
                assert outcome.code == 0, outcome.err
            elif rng.random() < 0.2:
                time.sleep(rng.uniform(0, 12))  # also before anything is written
                kill(program)
            else:
                goal = epochs_seen(folder) + rng.randint(1, 12)
                program.wait_until(lambda goal=goal: epochs_seen(folder) >= goal)
                time.sleep(rng.uniform(0, 0.4))
                kill(program)
            epochs_at_kills.append(epochs_seen(folder))
        seconds += time.monotonic() - start
    return Killed(read_study(folder), read_study(runs / "twin"), folder, seconds, num_kills, epochs_at_kills)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Killed:
    runs = tmp_path_factory.mktemp("kills")
    return search_and_kill(runs, num_kills=NUM_KILLS, num_trials=50, kill=Program.kill)


def whole(study: Recorded) -> list[FrozenTrial]:
    """The trials but for those that a killed driver had not finished writing down."""
    return [trial for trial in study.trials if trial.user_attrs.get("reason") != HALF_BEGUN]


def front(study: Recorded) -> set[tuple[float, ...]]:
    values = [tuple(trial.values) for trial in study.trials if trial.state.name == "COMPLETE"]

    def dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
        return one != other and one[0] >= other[0] and one[1] <= other[1] and one[2] <= other[2]

    return {point for point in values if not any(dominates(other, point) for other in values)}


@pytest.mark.slow
def test_it_was_killed_before_its_end_each_time_and_got_on_in_between(killed: Killed) -> None:
    assert killed.num_kills >= 20
    *at_kills, at_end = killed.epochs_at_kills
    assert at_kills == sorted(at_kills)
    assert at_kills[-1] < at_end
    assert len(set(at_kills)) > 10


@pytest.mark.slow
def test_every_trial_has_an_end_and_none_is_there_twice(killed: Killed) -> None:
    assert {trial.state.name for trial in killed.study.trials} <= {"COMPLETE", "PRUNED", "FAIL"}
    space = Study.from_file(killed.folder / "study.yaml").make_space()
    digests = [space.decode(trial.params).digest for trial in whole(killed.study)]
    assert len(set(digests)) == len(digests)


@pytest.mark.slow
def test_the_front_and_all_trials_are_those_of_the_search_that_nobody_disturbed(killed: Killed) -> None:
    assert front(killed.study) == front(killed.twin)
    found, expected = (
        [(t.state.name, t.params, t.values, t.user_attrs["progress"]["curve"]) for t in whole(study)]
        for study in (killed.study, killed.twin)
    )
    assert found == expected
    assert "PRUNED" in {state for state, *_ in found}


@pytest.mark.slow
def test_what_was_spent_is_the_sum_of_the_leases_and_no_more_than_has_passed(killed: Killed) -> None:
    leases = [lease_seconds(trial) for trial in killed.study.trials]
    assert killed.study.spent == pytest.approx(killed.study.notes["overhead_device_seconds"] + sum(map(sum, leases)))
    assert 0 < killed.study.spent < killed.seconds
    for trial in whole(killed.study):
        ends = [lease["end"] for lease in trial.user_attrs["progress"]["leases"]]
        assert set(ends[:-1]) <= {"interrupted"}
        assert ends[-1] in ("complete", "stopped")
