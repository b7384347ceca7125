"""What every backend keeps: all leases of a session are carried out, measured, charged and closed."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from metaformer.architecture import Architecture
from metaformer.cost import count_cost
from nas.data import open_dataset
from nas.execution.backend import Backend
from nas.execution.curves import Curve
from nas.execution.devices import Wanted
from nas.execution.simulator import Simulator
from nas.record.run_folder import RunFolder, open_record
from nas.record.trials import LeaseEnd, StopReason, TrialState
from nas.session.forecast import fit_speed
from nas.session.leases import Place
from nas.session.session import Session, open_session
from nas.study.lease import Speed
from nas.study.recipe import Recipe
from nas.study.study import Study
from tests.nas.runs import BOUNDS, make_study

RECIPE = Recipe(epochs=2, warmup_epochs=1, batch_size=256)


class MadeUp:
    """Curves, and a latency that grows with MACs."""

    def curve(self, architecture: Architecture) -> Curve:
        rng = random.Random(architecture.digest)
        macs = count_cost(architecture).macs
        return Curve(0.5 + macs / 1e6, (rng.uniform(0.1, 0.5), rng.uniform(0.5, 0.9)), {"latency": macs / 1e6})


@contextmanager
def simulator(folder: Path) -> Iterator[Backend]:
    yield Simulator(MadeUp(), num_devices=2, images_per_epoch=1000.0)


@contextmanager
def ray_cluster(folder: Path) -> Iterator[Backend]:
    from nas.execution.ray_backend import RayBackend

    info = open_dataset("digits", resolution=16).info
    wanted = Wanted(kind="cpu", cpus=1, workers=2)
    with RayBackend(info, wanted=wanted, address=None, scratch=folder / "scratch") as backend:
        yield backend


ON_RAY = pytest.param("ray_cluster", marks=[pytest.mark.xdist_group("ray_2"), pytest.mark.slow])


@pytest.fixture(scope="module", params=["simulator", ON_RAY])
def backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    """Entered once for all tests; a real cluster of this machine where it is Ray's."""
    make = {"simulator": simulator, "ray_cluster": ray_cluster}[request.param]
    with make(tmp_path_factory.mktemp("backend")) as entered:
        yield entered


def study_of(**changes: object) -> Study:
    digits = open_dataset("digits", resolution=16).info
    settings = make_study().settings.model_copy(update={"resolution": 16})
    return make_study(
        settings=settings.model_dump(),
        data_fingerprint=digits.fingerprint,
        recipe=make_recipe().model_dump(),
        references=("poolformer_s12",),
        budget="900cpu-seconds",
        max_trials=3,
        **changes,
    )


def make_recipe() -> Recipe:
    from nas.data import default_recipe

    plain = default_recipe("digits").augmentation
    return RECIPE.model_copy(update={"augmentation": plain})


def session_on(backend: Backend, folder: Path, study: Study) -> Session:
    """A session that expects some speed."""
    space = study.make_space()
    record = open_record(study, RunFolder(folder), space, writes=True)
    record.note(bounds={objective.name: BOUNDS for objective in study.goals.measured})
    backend.pack(10**8)
    place = Place(
        speed=Speed(base=1e-4, per_gmac=0.05),
        num_images={"train": 1079, "val": 359, "test": 359},
        num_workers=backend.num_workers,
        checkpoints=str(folder / "checkpoints"),
        lease_seconds=backend.lease_seconds * backend.devices_per_trial,
    )
    return open_session(study, record, place, on_drop=RunFolder(folder).drop_checkpoints)


@pytest.mark.parametrize("objectives", [(), ("latency",)])
def test_what_training_takes_is_measured(backend: Backend, objectives: tuple[str, ...]) -> None:
    space = study_of().make_space()
    archs = [space.smallest("macs"), space.references()["poolformer_s12"]]
    steps, seconds, start_seconds = backend.measure(archs, make_recipe(), objectives=objectives)
    assert len(steps) == 2
    assert seconds >= start_seconds >= 0
    for step in steps:
        assert step.seconds_per_image > 0
        assert (step.measurement is not None) == bool(objectives)
    speed = fit_speed(archs, [step.seconds_per_image for step in steps])
    assert speed.seconds_per_image(10**6) > 0


def test_a_session_is_carried_out_to_its_end(backend: Backend, tmp_path: Path) -> None:
    session = session_on(backend, tmp_path, study_of())
    events = []
    backend.run(session, on_event=lambda: events.append(session.ledger.spent))
    assert session.finished
    assert session.problem is None
    assert session.ledger.reserved == 0
    assert events == sorted(events)
    assert [trial.state for trial in session.record] == [TrialState.COMPLETE] * 4
    for trial in session.record:
        assert [report.epoch for report in trial.progress.curve] == [1, 2]
        assert [lease.end for lease in trial.progress.leases] == [LeaseEnd.COMPLETE]
        assert trial.device_seconds > 0
    assert session.ledger.spent == pytest.approx(session.record.spent_seconds)
    assert all(trial.test_accuracy is not None for trial in session.front)


def test_measured_objectives_come_before_the_first_epoch_and_limits_spare_the_training(
    backend: Backend, tmp_path: Path
) -> None:
    study = study_of(objectives=("accuracy", "latency"), measured_limits={"latency": 1e-6})
    session = session_on(backend, tmp_path, study)
    backend.run(session)
    assert session.finished
    for trial in session.record:
        assert trial.measured["latency"] > 0
        assert trial.progress.device is not None
        assert (trial.state, trial.stop_reason, trial.num_epochs) == (TrialState.STOPPED, StopReason.LIMIT, 0)


def test_a_session_that_is_asked_to_stop_ends_at_the_next_reports_and_can_go_on(
    backend: Backend, tmp_path: Path
) -> None:
    study = study_of()
    session = session_on(backend, tmp_path, study)

    def stop_after_an_epoch() -> None:
        if any(trial.num_epochs for trial in session.running):
            session.stop()

    backend.run(session, on_event=stop_after_an_epoch)
    assert session.finished
    assert session.running == []
    assert TrialState.RUNNING in {trial.state for trial in session.record}
    again = session_on(backend, tmp_path, study)
    backend.run(again)
    assert [trial.state for trial in again.record] == [TrialState.COMPLETE] * 4
