"""Finals whose driver, workers and nodes are killed again and again, against some that nobody disturbed."""

import json
import random
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from ray.cluster_utils import Cluster

from nas.record.run_folder import Run, open_run
from nas.record.trials import TrialState
from nas.results.finish.finals import finals_of
from nas.results.results import Results
from tests.nas.finals.runs import make_search
from tests.nas.programs import Program, epochs_seen
from tests.thorough import strikes, with_all_strikes

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ray_3"), pytest.mark.timeout(3600)]

NUM_KILLS = strikes(10)  # of drivers, and of workers; of nodes in another run
SEEDS, EPOCHS = 1 + NUM_KILLS // 2, 8
BUDGET = ("--budget", "9cpu-hours", "--workers", "1", "--epochs", str(EPOCHS), "--seeds", str(SEEDS))
BUDGET += ("--set", "recipe.precision=float32")  # whatever measuring says here and there


class Ended(NamedTuple):
    """A run of finals after its end, and what its processes took."""

    run: Run
    seconds: float
    epochs_seen: list[int]  # at each kill


def start(search: Path, name: str, logs: Path, *more: str) -> Program:
    return Program(search, *BUDGET, *more, "--name", name, logs=logs, module="nas.finish")


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finals") / "search"
    make_search(folder, max_trials=6).record.close()
    return folder


@pytest.fixture(scope="module")
def undisturbed(search: Path) -> Ended:
    begin = time.monotonic()
    with start(search, "undisturbed", search / "logs") as program:
        outcome = program.wait()
    assert outcome.code == 0, outcome.err
    return Ended(open_run(search / "undisturbed"), time.monotonic() - begin, [])


@pytest.fixture(scope="module")
def killed(search: Path) -> Ended:
    """The driver is killed, then the worker of the next driver, and so on, at moments drawn from a seed."""
    rng, folder, seconds = random.Random(0), search / "killed", 0.0
    seen: list[int] = []
    for number in range(NUM_KILLS + 1):
        begin = time.monotonic()
        with start(search, "killed", search / f"logs-{number}") as program:
            if number < NUM_KILLS:
                seen.append(wait_for(program, folder, rng.randint(2, 3)))
                program.kill_worker()  # a trial of 8 epochs may lose two
                seen.append(wait_for(program, folder, rng.randint(3, 4)))
                program.kill()
            else:
                outcome = program.wait()
                assert outcome.code == 0, outcome.err
        seconds += time.monotonic() - begin
    return Ended(open_run(folder), seconds, seen)


@pytest.fixture(scope="module")
def without_nodes(search: Path) -> Ended:
    """The only node that trains is lost, and another joins, again and again."""
    rng, folder = random.Random(1), search / "nodes"
    seen: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")  # or the tests beside these take all the time there is
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        node = cluster.add_node(num_cpus=1)
        begin = time.monotonic()
        try:
            with start(search, "nodes", search / "logs-nodes", "--ray-address", cluster.address) as program:
                for _ in range(NUM_KILLS):
                    seen.append(wait_for(program, folder, rng.randint(2, 4)))
                    cluster.remove_node(node, allow_graceful=False)
                    node = cluster.add_node(num_cpus=1)
                outcome = program.wait()
        finally:
            cluster.shutdown()
    assert outcome.code == 0, outcome.err
    return Ended(open_run(folder), time.monotonic() - begin, seen)


def wait_for(program: Program, folder: Path, number: int) -> int:
    """Epochs seen when so many more have been."""
    wanted = epochs_seen(folder) + number
    program.wait_until(lambda: epochs_seen(folder) >= wanted)
    return epochs_seen(folder)


@pytest.fixture(params=["killed", pytest.param("without_nodes", marks=with_all_strikes)])
def disturbed(request: pytest.FixtureRequest) -> Ended:
    return request.getfixturevalue(request.param)


def test_it_was_killed_before_its_end_each_time(disturbed: Ended) -> None:
    assert len(disturbed.epochs_seen) >= NUM_KILLS
    assert disturbed.epochs_seen == sorted(set(disturbed.epochs_seen))
    assert disturbed.epochs_seen[-1] < epochs_seen(disturbed.run.folder.path)


def test_nothing_is_lost_and_nothing_is_there_twice(disturbed: Ended) -> None:
    trials = list(disturbed.run.record)
    finals = disturbed.run.study.finals
    assert finals is not None
    assert all(trial.state is TrialState.COMPLETE for trial in trials)
    keys = [(trial.architecture.digest, trial.seed) for trial in trials]
    assert len(keys) == len(set(keys)) == SEEDS * len(finals.models)


def test_it_ends_as_one_that_nobody_disturbed(disturbed: Ended, undisturbed: Ended) -> None:
    found, expected = (
        [
            (final.name, final.val, final.test, final.is_on_front, final.estimate)
            for final in finals_of(Results(ended.run))
        ]
        for ended in (disturbed, undisturbed)
    )
    assert found == expected
    curves, others = (
        [[(report.epoch, report.val_accuracy) for report in trial.progress.curve] for trial in ended.run.record]
        for ended in (disturbed, undisturbed)
    )
    assert curves == others


def test_it_is_charged_once(disturbed: Ended) -> None:
    record = disturbed.run.record
    leases = sum(lease.device_seconds for trial in record for lease in trial.progress.leases)
    overhead = record.notes.overhead_device_seconds
    assert record.spent_seconds == pytest.approx(overhead + record.lost_seconds + leases)
    assert 0 < record.spent_seconds < disturbed.seconds


def test_a_larger_number_of_seeds_goes_on_with_it(undisturbed: Ended, search: Path) -> None:
    before = {trial.number: trial.device_seconds for trial in undisturbed.run.record}
    arguments = ("--name", "undisturbed", "--seeds", SEEDS + 1, "--json")
    with Program(search, *arguments, logs=search / "more", module="nas.finish") as program:
        outcome = program.wait()
    assert outcome.code == 0, outcome.err
    summary = json.loads(outcome.out)
    assert {len(final["seeds"]) for final in summary["finals"]} == {SEEDS + 1}
    after = {trial.number: trial.device_seconds for trial in open_run(undisturbed.run.folder.path).record}
    assert before.items() <= after.items()
