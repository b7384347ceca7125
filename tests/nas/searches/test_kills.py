"""Searches whose driver, or workers, are killed again and again at random moments, against one nobody disturbed."""

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from optuna.trial import FrozenTrial

from nas.study.study import Study
from tests.nas.programs import QUICK, Program, Recorded, epochs_seen, lease_seconds, read_study
from tests.thorough import strikes, with_all_strikes

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ray_3"), pytest.mark.timeout(7200)]

NUM_KILLS, NUM_WORKERS = strikes(20), strikes(20)  # of drivers in each way, and of workers
NUM_TRIALS = 8 + 2 * NUM_KILLS
# Early stopping is on: what has been stopped must be stopped after a restart too.
COMMAND = (*QUICK, "--stopper", "hypervolume")
HALF_BEGUN = "the driver was killed while it began this trial"


class Twin(NamedTuple):
    """The search that nobody disturbed, and how fast it was."""

    study: Recorded
    start_seconds: float  # to its first epoch
    epoch_seconds: float  # of each further one


class Killed(NamedTuple):
    """A search that was left to end after it had been disturbed."""

    folder: Path
    study: Recorded
    seconds: float  # that its processes ran for in all
    epochs_seen: list[int]  # after each kill and at the end


def start(runs: Path, name: str, logs: Path) -> Program:
    return Program(*COMMAND, "--max-trials", NUM_TRIALS, "--runs", runs, "--name", name, logs=logs)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kills")


@pytest.fixture(scope="module")
def twin(runs: Path) -> Twin:
    begin = time.monotonic()
    with start(runs, "twin", runs / "twin-logs") as program:
        wait_for_epochs(program, runs / "twin", 1)
        first = time.monotonic()
        outcome = program.wait()
    assert outcome.code == 0, outcome.err
    seconds = (time.monotonic() - first) / epochs_seen(runs / "twin")
    return Twin(read_study(runs / "twin"), first - begin, seconds)


def kill(program: Program) -> None:
    program.kill()


def terminate(program: Program) -> None:
    """SIGTERM: it lets its trials report, saves everything and ends without a trace of its own or of Ray's."""
    program.send(signal.SIGTERM)
    outcome = program.wait()
    assert outcome.err == ""
    assert outcome.code in (0, 130, -signal.SIGTERM)  # the last before it has read what it is asked for
    program.wait_for_survivors()


@pytest.fixture(scope="module")
def driver_killed(runs: Path, twin: Twin) -> Killed:
    """Killed while it starts, measures, trains or writes; the moments are drawn from a seed."""
    return disturbed(runs / "driver", twin, kill, random.Random(0))


@pytest.fixture(scope="module")
def driver_terminated(runs: Path, twin: Twin) -> Killed:
    """Told to end at such moments."""
    return disturbed(runs / "terminated", twin, terminate, random.Random(2))


def disturbed(folder: Path, twin: Twin, end: Callable[[Program], None], rng: random.Random) -> Killed:
    """A search whose driver is ended at random moments, and then no more."""
    runs, seconds, epochs_at_kills = folder.parent, 0.0, []
    for number in range(NUM_KILLS + 1):
        begin = time.monotonic()
        with start(runs, folder.name, runs / f"{folder.name}-logs-{number}") as program:
            if number == NUM_KILLS:
                outcome = program.wait()
                assert outcome.code == 0, outcome.err
            elif rng.random() < 0.2:
                time.sleep(rng.uniform(0, 1.2) * twin.start_seconds)  # also before anything is written
                end(program)
            else:
                wait_for_epochs(program, folder, epochs_seen(folder) + rng.randint(1, 8))
                time.sleep(rng.uniform(0, 2) * twin.epoch_seconds)
                end(program)
            epochs_at_kills.append(epochs_seen(folder))
        seconds += time.monotonic() - begin
    return Killed(folder, read_study(folder), seconds, epochs_at_kills)


@pytest.fixture(scope="module")
def workers_killed(runs: Path, twin: Twin) -> Killed:
    """One driver, whose worker is killed while it trains, evaluates or writes a checkpoint."""
    rng = random.Random(1)
    folder, epochs_at_kills = runs / "workers", []
    begin = time.monotonic()
    with start(runs, folder.name, runs / "workers-logs") as program:
        for _ in range(NUM_WORKERS):
            # A trial has 6 epochs and may lose two workers.
            wait_for_epochs(program, folder, epochs_seen(folder) + rng.randint(4, 7))
            time.sleep(rng.uniform(0, 2) * twin.epoch_seconds)
            program.kill_worker()
            epochs_at_kills.append(epochs_seen(folder))
        outcome = program.wait()
        assert outcome.code == 0, outcome.err
        epochs_at_kills.append(epochs_seen(folder))
    return Killed(folder, read_study(folder), time.monotonic() - begin, epochs_at_kills)


def wait_for_epochs(program: Program, folder: Path, number: int) -> None:
    program.wait_until(lambda: epochs_seen(folder) >= number)


@pytest.fixture(
    params=[
        "driver_killed",
        pytest.param("driver_terminated", marks=with_all_strikes),
        "workers_killed",
    ]
)
def killed(request: pytest.FixtureRequest) -> Killed:
    found: Killed = request.getfixturevalue(request.param)
    return found


def whole(study: Recorded) -> list[FrozenTrial]:
    """The trials but for those that a killed driver had not finished writing down."""
    return [trial for trial in study.trials if trial.user_attrs.get("reason") != HALF_BEGUN]


def front(study: Recorded) -> set[tuple[float, ...]]:
    values = [tuple(trial.values) for trial in study.trials if trial.state.name == "COMPLETE"]

    def dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
        return one != other and one[0] >= other[0] and one[1] <= other[1] and one[2] <= other[2]

    return {point for point in values if not any(dominates(other, point) for other in values)}


def test_it_was_killed_before_its_end_each_time_and_got_on_in_between(killed: Killed) -> None:
    *at_kills, at_end = killed.epochs_seen
    assert len(at_kills) == NUM_KILLS == NUM_WORKERS
    assert at_kills == sorted(at_kills)
    assert at_kills[-1] < at_end
    assert len(set(at_kills)) > len(at_kills) / 2


def test_every_trial_has_an_end_and_none_is_there_twice(killed: Killed) -> None:
    assert {trial.state.name for trial in killed.study.trials} <= {"COMPLETE", "PRUNED", "FAIL"}
    space = Study.from_file(killed.folder / "study.yaml").make_space()
    digests = [space.decode(trial.params).digest for trial in whole(killed.study)]
    assert len(set(digests)) == len(digests)


def test_the_front_and_all_trials_are_those_of_the_search_that_nobody_disturbed(killed: Killed, twin: Twin) -> None:
    assert front(killed.study) == front(twin.study)
    found, expected = (
        [(t.state.name, t.params, t.values, t.user_attrs["progress"]["curve"]) for t in whole(study)]
        for study in (killed.study, twin.study)
    )
    assert found == expected
    assert "PRUNED" in {state for state, *_ in found}


def test_what_was_spent_is_the_sum_of_the_leases_and_no_more_than_has_passed(killed: Killed) -> None:
    leases = [lease_seconds(trial) for trial in killed.study.trials]
    outside = killed.study.notes["overhead_device_seconds"]
    assert killed.study.spent == pytest.approx(outside + killed.study.lost + sum(map(sum, leases)))
    assert 0 < killed.study.spent < killed.seconds
    for trial in whole(killed.study):
        ends = [lease["end"] for lease in trial.user_attrs["progress"]["leases"]]
        assert set(ends[:-1]) <= {"interrupted", "lost"}
        assert ends[-1] in ("complete", "stopped")
