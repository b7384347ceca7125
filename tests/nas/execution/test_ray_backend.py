"""That a cluster, or data, that is not there is named."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import ray

from nas.data import DataError, DataInfo, open_dataset
from nas.execution.devices import Devices, Wanted
from nas.execution.ray_adapter import Adapter
from nas.execution.ray_backend import RayBackend
from nas.execution.slots import Slots
from nas.execution.worker import Data, Worker
from nas.record.trials import TrialState
from nas.session.session import Decision
from nas.study.lease import WEIGHTS, EpochDone, Evaluated, Failed, Halted, Lease, LossCause, Lost, Outcome
from nas.study.recipe import Augmentation, Recipe
from nas.study.study import StudyError
from tests.nas.images import write_folder
from tests.nas.runs import make_study, open_folder


@pytest.fixture(scope="module")
def info() -> DataInfo:
    return open_dataset("digits", resolution=32).info


@pytest.mark.parametrize(
    ("address", "reason"),
    [("127.0.0.1:9", "refused")],
)
def test_a_cluster_that_cannot_be_used_is_refused_in_one_line(info: DataInfo, address: str, reason: str) -> None:
    backend = RayBackend(info, wanted=Wanted(kind="cpu"), address=address, scratch=Path("nowhere"))
    with pytest.raises(StudyError, match=f"ray_address: must be a running cluster, got '{address}' .*{reason}"):
        backend.__enter__()


@pytest.fixture(scope="module")
def niceness(info: DataInfo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Of a worker in a cluster that stands as long as the fixture."""
    scratch = tmp_path_factory.mktemp("scratch")
    with RayBackend(info, wanted=Wanted(kind="cpu", workers=1), address=None, scratch=scratch):
        yield ray.get(ray.remote(num_cpus=0)(lambda: os.nice(0)).remote())


@pytest.mark.slow
@pytest.mark.xdist_group("ray_2")
def test_a_worker_yields_to_other_programs_no_more_than_the_driver(niceness: int) -> None:
    assert niceness == os.nice(0)


def _listening(pids: set[int]) -> set[str]:
    """Addresses, as Linux writes them, on which processes listen."""
    places = [place for pid in pids for place in Path(f"/proc/{pid}/fd").iterdir()]
    open_files = set()
    for place in places:
        with suppress(FileNotFoundError):  # closed meanwhile
            open_files.add(str(place.readlink()))
    tables = (Path(f"/proc/net/{name}").read_text().splitlines()[1:] for name in ("tcp", "tcp6"))
    lines = [line.split() for table in tables for line in table]
    return {line[1].partition(":")[0] for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in open_files}


def _descendants(pid: int) -> set[int]:
    """A process and all that it started."""
    found = {pid}
    with suppress(FileNotFoundError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            found |= _descendants(int(child))
    return found


@pytest.mark.xdist_group("ray_2")
@pytest.mark.usefixtures("niceness")
@pytest.mark.skipif(sys.platform != "linux", reason="sockets are looked up in /proc")
def test_a_cluster_that_the_program_starts_is_reached_from_this_machine_alone() -> None:
    listening = _listening(_descendants(os.getpid()))
    assert listening
    assert listening <= {"0100007F", "0000000000000000FFFF00000100007F"}  # 127.0.0.1, and the same in IPv6


@pytest.mark.xdist_group("ray_2")
@pytest.mark.usefixtures("niceness")
@pytest.mark.skipif(sys.platform != "linux", reason="what is blocked is looked up in /proc")
def test_what_ray_starts_hears_sigterm_by_which_it_is_ended() -> None:
    pids = _descendants(os.getpid()) - {os.getpid()}
    lines = [line for pid in pids for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
    blocked = [int(line.split()[1], 16) for line in lines if line.startswith("SigBlk:")]
    assert blocked
    assert not [mask for mask in blocked if mask >> (signal.SIGTERM - 1) & 1]


@pytest.mark.xdist_group("ray_2")
@pytest.mark.usefixtures("niceness")
@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")
def test_ray_starts_no_process_that_only_looks_on() -> None:
    commands = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in _descendants(os.getpid())]
    assert [command for command in commands if b"raylet" in command]
    scripts = (b"/dashboard.py", b"/monitor.py", b"/log_monitor.py")
    assert not [command for command in commands if any(script in command for script in scripts)]


def test_a_node_with_other_data_is_refused(info: DataInfo) -> None:
    Data(name="digits", resolution=32, fingerprint=info.fingerprint, num_loaders=0).open()
    with pytest.raises(DataError, match="data: must be the same on every node"):
        Data(name="digits", resolution=32, fingerprint="0" * 16, num_loaders=0).open()


@pytest.mark.parametrize(
    ("outcome", "state", "problem"),
    [
        (Failed(reason="loss: must stay finite, got nan"), TrialState.FAILED, None),
        (
            Lost(reason="checkpoints: must be reachable, got s3://a", cause=LossCause.STORAGE),
            TrialState.RUNNING,
            None,
        ),
        (
            Halted(reason="image: must be readable, got 'a.jpg'"),
            TrialState.RUNNING,
            "image: must be readable, got 'a.jpg'",
        ),
    ],
)
def test_what_ended_a_lease_ends_the_trial_or_the_search_or_neither(
    tmp_path: Path, outcome: Outcome, state: TrialState, problem: str | None
) -> None:
    session = open_folder(tmp_path, make_study())[1]
    slots = Slots(lambda: 1, head="nowhere", number=1)
    adapter = Adapter(session, num_devices=1, slots=slots, on_event=lambda: None)
    assert adapter.begin("of tune") is not None
    assert adapter.result("of tune", {"outcome": outcome.model_dump_json(), "left_out": ["b.jpg"]}) is Decision.STOP
    assert session.record.trials[0].state is state
    assert session.problem == problem
    assert session.record.notes.images_left_out == ("b.jpg",)
    goes_on = session.next()
    assert (goes_on is None) == (problem is not None)
    if state is TrialState.RUNNING and goes_on is not None:
        assert (goes_on.trial, goes_on.attempt) == (0, 2)


def test_a_worker_tells_what_ended_a_lease_and_stays(tmp_path: Path, small_disk: Path) -> None:
    """Steps of the worker itself, without the actor around it."""
    root = write_folder(tmp_path / "data", train={"a": 9, "b": 9}, val={"a": 2, "b": 2})
    dataset = open_dataset(f"folder:{root}", resolution=32)
    (root / "val/a/0.jpg").write_bytes(b"not an image")
    (root / "train/a/3.jpg").write_bytes(b"not an image")
    plain = Augmentation(crop_scale=(1, 1), rand_augment=None, random_erasing=0, mixup=0, cutmix=0)
    recipe = Recipe(epochs=2, warmup_epochs=1, batch_size=4, augmentation=plain)
    arch = make_study().make_space().references()["poolformer_s12"]
    said = []
    for bad_images, folder in (("stop", tmp_path), ("skip", small_disk), ("skip", tmp_path)):
        data = Data(
            name=dataset.info.name,
            resolution=32,
            fingerprint=dataset.info.fingerprint,
            num_loaders=0,
            bad_images=bad_images,
        )
        lease = Lease(trial=0, attempt=1, architecture=arch, recipe=recipe, epochs=2, seed=0, folder=str(folder))
        worker = Worker(data, Devices(kind="cpu", cpus=1))
        worker.begin(lease)
        said.append((worker.step(), worker.newly_left_out()))
    (stopped, _), (full, left_out), (skipped, again) = said
    assert isinstance(stopped, Halted)
    assert stopped.reason.startswith("image: must be readable, got ")
    assert isinstance(full, Halted)
    assert full.reason.startswith("checkpoints: must be writable and have room")
    assert isinstance(skipped, EpochDone)
    assert skipped.report.epoch == 1
    assert left_out == again == ["train/a/3.jpg"]  # nobody has looked at the test split
    worker.step()
    assert worker.newly_left_out() == []  # told once
    tested = lease.model_copy(update={"task": "test", "checkpoint": WEIGHTS})
    worker.begin(tested)
    result = worker.step()
    assert isinstance(result, Evaluated)
    assert worker.newly_left_out() == ["val/a/0.jpg"]
    assert result.accuracy * 3 == pytest.approx(round(result.accuracy * 3))  # of the other three
