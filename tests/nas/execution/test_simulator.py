"""The real session in virtual time: budgets that hold whatever happens, and decisions that can be repeated."""

import csv
import random
from pathlib import Path

import pytest

from benchmarks.halving import compare_with_full, read_curves, replay, study_of_table
from metaformer.architecture import Architecture
from metaformer.cost import count_cost
from nas.execution.curves import Curve, CurveTable
from nas.execution.simulator import Simulation, Simulator
from nas.record.record import Record
from nas.record.storage import IN_MEMORY, sqlite_url
from nas.record.trials import TrialState
from nas.session.leases import Place
from nas.session.session import Session, open_session
from nas.session.stoppers import names as stopper_names
from nas.study.budget import Budget
from nas.study.lease import Speed
from nas.study.recipe import Recipe
from nas.study.study import Study, StudyError
from tests.nas.runs import NUM_IMAGES, made_up_accuracy, make_study
from tests.thorough import thorough

ROOT = Path(__file__).parents[3]
CURVES = ROOT / "studies" / "curves" / "digits_hybrid_stages.csv"
SPEED = Speed(base=1e-4, per_gmac=0.05)


class MadeUp:
    """Curves that rise to an accuracy that grows with cost, in more or less time than the session was told."""

    def __init__(self, *, epochs: int, slowness: float, seed: int) -> None:
        self._epochs = epochs
        self._slowness = slowness
        self._seed = seed

    def curve(self, architecture: Architecture) -> Curve:
        rng = random.Random(f"{architecture.digest}-{self._seed}")
        last = made_up_accuracy(architecture, rng)
        num_images = NUM_IMAGES["train"] + NUM_IMAGES["val"] / 3
        seconds = SPEED.seconds_per_image(count_cost(architecture).macs) * num_images * self._slowness
        accuracies = tuple(last * (1 - 0.5**epoch) for epoch in range(1, self._epochs + 1))
        return Curve(seconds * rng.uniform(0.7, 1.4), accuracies)


def session_of(study: Study, url: str, *, num_devices: int) -> Session:
    record = Record(url, study.make_space(), study.goals, writes=True)
    place = Place(speed=SPEED, num_images=NUM_IMAGES, num_workers=num_devices, checkpoints="nowhere")
    return open_session(study, record, place)


def any_study(rng: random.Random) -> Study:
    epochs = rng.choice([1, 2, 4, 8])
    return make_study(
        stopper=rng.choice(stopper_names()),
        recipe=Recipe(epochs=epochs, warmup_epochs=0, batch_size=64),
        budget=f"{rng.uniform(0.5, 40) * epochs:.2f}cpu-seconds",
        max_trials=None,
        seed=rng.randrange(100),
    )


def one_epoch_of_each(simulation: Simulation) -> float:
    """Device-seconds of one epoch, or one test, of each lease that is out."""
    return sum(running.step_seconds for running in simulation.running)


@pytest.mark.parametrize("seed", [*range(4), *thorough(range(4, 40))])
def test_a_search_overshoots_by_at_most_an_epoch_of_each_running_trial(seed: int) -> None:
    rng = random.Random(seed)
    study = any_study(rng)
    num_devices = rng.choice([1, 2, 7])
    curves = MadeUp(epochs=study.recipe.epochs, slowness=rng.choice([0.3, 1.0, 3.0]), seed=seed)
    slowness = {device: rng.uniform(0.5, 2.0) for device in range(num_devices)}
    simulator = Simulator(curves, num_devices=num_devices, slowness=slowness)
    simulation = simulator.begin(session_of(study, IN_MEMORY, num_devices=num_devices))
    session = simulation.session
    allowed = session.ledger.total
    simulation.fill()
    while simulation.step():
        if session.ledger.left > 0:  # what is out now may take another epoch each
            allowed = session.ledger.total + one_epoch_of_each(simulation)
    assert session.ledger.spent <= allowed * (1 + 1e-9)
    assert session.ledger.reserved == 0
    assert session.ledger.spent == pytest.approx(simulation.result.busy_seconds)
    assert session.record.spent_seconds == pytest.approx(session.ledger.spent)
    assert TrialState.RUNNING not in {trial.state for trial in session.record}


@pytest.mark.slow
@pytest.mark.parametrize("seed", [*range(2), *thorough(range(2, 5))])
def test_nor_does_one_whose_driver_is_killed_again_and_again(tmp_path: Path, seed: int) -> None:
    """A killed driver's leases are charged up to their last report, and no trial is lost or tried twice."""
    rng = random.Random(seed)
    study = any_study(rng)
    num_devices = rng.choice([1, 3])
    curves = MadeUp(epochs=study.recipe.epochs, slowness=rng.choice([0.5, 2.0]), seed=seed)
    total = Budget.parse(study.budget).seconds
    allowed, goes_on = total, True
    while goes_on:
        session = session_of(study, sqlite_url(tmp_path / "study.db"), num_devices=num_devices)
        assert session.ledger.spent == pytest.approx(session.record.spent_seconds)
        simulation = Simulator(curves, num_devices=num_devices).begin(session)
        for _ in range(rng.randrange(1, 40)):
            goes_on = simulation.step()
            if not goes_on:
                break
            if session.ledger.left > 0:
                allowed = total + one_epoch_of_each(simulation)
    assert session.ledger.spent <= allowed * (1 + 1e-9)
    digests = [trial.architecture.digest for trial in session.record]
    assert len(digests) == len(set(digests))
    assert TrialState.RUNNING not in {trial.state for trial in session.record}


def test_a_faster_device_is_given_more_leases_and_all_are_busy_to_the_end() -> None:
    study = make_study(budget="2cpu-minutes", max_trials=None)
    session = session_of(study, IN_MEMORY, num_devices=4)
    curves = MadeUp(epochs=3, slowness=1.0, seed=0)
    result = Simulator(curves, num_devices=4, slowness={0: 0.25}).begin(session).run()
    assert result.busy_seconds / (4 * result.seconds) > 0.9


def test_the_recorded_table_holds_at_least_150_architectures_of_the_space_trained_to_full_length() -> None:
    study = Study.from_file(ROOT / "studies" / "digits_hybrid_stages.yaml")
    space = study.make_space()
    table = CurveTable(CURVES, space)
    assert len({arch.digest for arch in table.architectures}) == len(table.architectures) >= 150
    with CURVES.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row, arch in zip(rows, table.architectures, strict=True):
        cost = count_cost(arch)
        assert (arch.digest, int(row["params"]), int(row["macs"])) == (row["digest"], cost.params, cost.macs)
        assert space.contains(arch)
        curve = table.curve(arch)
        assert len(curve.val_accuracies) == table.num_epochs == 16
        assert all(0 <= accuracy <= 1 for accuracy in curve.val_accuracies)
        assert 0 < curve.epoch_seconds < 60


@pytest.mark.slow
@pytest.mark.parametrize("stopper", ["chance", "hypervolume", "rank"])
def test_halving_finds_the_front_of_full_training_in_a_third_of_the_time(stopper: str) -> None:
    """Over the recorded table, each architecture once in random order; `benchmarks/halving.py` prints it for many."""
    space = Study.from_file(ROOT / "studies" / "digits_hybrid_stages.yaml").make_space()
    table = CurveTable(CURVES, space)
    study = study_of_table(table)
    order = random.Random(0).sample(range(len(table.architectures)), len(table.architectures))
    full = replay(table, space, study, order, num_devices=4)
    early = replay(table, space, study.model_copy(update={"stopper": stopper}), order, num_devices=4)
    assert {trial.state for trial in full.record} == {TrialState.COMPLETE}
    assert early.hypervolume >= 0.99 * full.hypervolume
    assert early.ledger.spent <= full.ledger.spent / 3


@pytest.mark.slow
@pytest.mark.parametrize("record", ["isotropic_or_pyramid", "tokenisation", "convmixer_space"])
def test_chances_keep_nearly_the_whole_front_of_photographs_in_less_time(record: str) -> None:
    curves, space, study = read_curves(ROOT / "studies" / "records" / record)
    for seed in range(3):
        order = random.Random(seed).sample(range(len(curves.architectures)), len(curves.architectures))
        full = replay(curves, space, study, order, num_devices=4)
        early = replay(curves, space, study.model_copy(update={"stopper": "chance"}), order, num_devices=4)
        found = compare_with_full(early, full, space)
        assert found.near >= 0.9
        assert found.hypervolume >= 0.99
        assert found.device_seconds <= 0.9 * full.ledger.spent


def test_a_table_that_is_none_and_an_architecture_that_is_not_in_it_are_refused(tmp_path: Path) -> None:
    space = make_study().make_space()
    path = tmp_path / "curves.csv"
    with pytest.raises(StudyError, match="curves: must be .*curves.csv"):
        CurveTable(path, space)
    path.write_text("digest,genes\nx,{}\n", encoding="utf-8")
    with pytest.raises(StudyError, match="^curves: must be a table of genes, epoch_seconds, epoch_1, …, got .*"):
        CurveTable(path, space)
    path.write_text("digest,genes\n", encoding="utf-8")
    with pytest.raises(StudyError, match="^curves: must hold every architecture tried, got none of "):
        CurveTable(path, space).curve(space.smallest("macs"))
