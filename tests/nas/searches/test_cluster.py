"""Searches on clusters of several nodes, all of this machine: nodes are lost and join, and so is the head."""

import random
import re
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import pytest
from ray.cluster_utils import Cluster

from nas.data import DataInfo, default_recipe, open_dataset
from nas.execution.devices import Wanted
from nas.execution.ray_backend import RayBackend
from nas.record.trials import LeaseCharge, TrialRecord, TrialState
from nas.session.session import Session
from tests.nas.gate import Gate
from tests.nas.programs import PATIENCE, QUICK, Program, kill_session, read_study
from tests.nas.runs import make_study, open_folder
from tests.thorough import strikes

pytestmark = pytest.mark.xdist_group("ray_2")

_POLL = 0.02  # seconds between looks at a session
_EPOCHS = 8


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A head that trains nothing, and one node of one core."""
    monkeypatch.setenv("RAY_worker_niceness", "0")  # or the tests beside these take all the time there is
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()


@dataclass
class Event:
    """Something that happens to a cluster as soon as a search has come so far."""

    is_due: Callable[[], bool]
    action: Callable[[], object]


def info_of(data: str) -> DataInfo:
    """That of the digits, under another name, which this process does not come to know."""
    return replace(open_dataset("digits", resolution=32).info, name=data)


def open_session(path: Path, *, num_trials: int, data: str = "digits") -> Session:
    """A session of small trials on the digits."""
    info = info_of(data)
    changes = {"data": data, "data_fingerprint": info.fingerprint, "budget": "9cpu-hours", "max_trials": num_trials}
    small = make_study(references=(), **changes)
    recipe = default_recipe("digits").model_copy(update={"epochs": _EPOCHS, "warmup_epochs": 1, "batch_size": 256})
    limits = small.settings.limits.model_copy(update={"max_macs": 800_000})
    settings = small.settings.model_copy(update={"limits": limits})
    return open_folder(path, small.model_copy(update={"recipe": recipe, "settings": settings}))[1]


def carry_out(session: Session, cluster: Cluster, scratch: Path, *events: Event) -> None:
    """The whole of a search on a cluster, while events happen, one after another."""
    info = info_of(session.study.data)
    backend = RayBackend(info, wanted=Wanted(kind="cpu"), address=cluster.address, scratch=scratch)
    coming = list(events)

    def look() -> None:
        if coming and coming[0].is_due():
            coming.pop(0).action()

    with backend:
        backend.run(session, on_event=look)
    assert not coming, [(trial.state, trial.reason) for trial in session.record]


def leases_of(session: Session) -> list[LeaseCharge]:
    return [lease for trial in session.record for lease in trial.progress.leases]


def epochs_of(trial: TrialRecord) -> list[int]:
    return [report.epoch for report in trial.progress.curve]


def check_whole(session: Session, *, num_trials: int) -> None:
    """No trial is lost, none was trained twice, and what was charged is what the leases took."""
    trials = list(session.record)
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * num_trials
    assert [epochs_of(trial) for trial in trials] == [list(range(1, _EPOCHS + 1))] * num_trials
    assert len({trial.architecture.digest for trial in trials}) == num_trials
    charged = sum(lease.device_seconds for lease in leases_of(session))
    assert session.ledger.spent == pytest.approx(charged + session.record.notes.overhead_device_seconds)
    assert session.ledger.reserved == 0


@pytest.mark.slow
def test_a_trial_whose_node_is_lost_goes_on_from_its_checkpoint_on_another(cluster: Cluster, tmp_path: Path) -> None:
    session = open_session(tmp_path / "run", num_trials=2)
    [node] = cluster.worker_nodes

    def replace_node() -> None:
        cluster.add_node(num_cpus=1)
        cluster.remove_node(node, allow_graceful=False)

    loss = Event(lambda: any(trial.num_epochs >= 2 for trial in session.running), replace_node)
    carry_out(session, cluster, tmp_path / "ray", loss)
    check_whole(session, num_trials=2)
    assert sorted(lease.end or "" for lease in leases_of(session)) == ["complete", "complete", "node lost"]
    [lost] = [trial for trial in session.record if len(trial.progress.leases) == 2]
    assert lost.progress.leases[0].device_seconds > 0


@pytest.mark.slow
def test_a_node_that_joins_is_used_and_a_cluster_that_shrinks_loses_no_trial(cluster: Cluster, tmp_path: Path) -> None:
    """The first trial waits for the second, on the node that has joined, to report an epoch too."""
    gate = Gate(tmp_path / "gate")
    session = open_session(tmp_path / "run", num_trials=6, data=gate.data)
    most_at_once = 0

    def is_shared() -> bool:
        nonlocal most_at_once
        running = session.running
        most_at_once = max(most_at_once, len(running))
        return len(running) == 2 and all(trial.num_epochs >= 1 for trial in running)

    [first] = cluster.worker_nodes
    joins = Event(lambda: any(trial.num_epochs >= 1 for trial in session.running), lambda: cluster.add_node(num_cpus=1))

    def leave() -> None:
        cluster.remove_node(first, allow_graceful=False)
        gate.open_for_all()

    leaves = Event(is_shared, leave)
    carry_out(session, cluster, tmp_path / "ray", joins, leaves)
    assert most_at_once == 2
    check_whole(session, num_trials=6)
    assert {lease.end for lease in leases_of(session)} <= {"complete", "node lost"}


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_nodes_lost_at_random_moments_change_nothing_in_the_end(cluster: Cluster, tmp_path: Path) -> None:
    """Each lost node is replaced; the twin is a search on the same cluster that loses none."""
    num_losses = strikes(20)
    num_trials = 2 + num_losses
    rng = random.Random(0)
    twin = open_session(tmp_path / "twin", num_trials=num_trials)
    carry_out(twin, cluster, tmp_path / "ray-twin")
    session = open_session(tmp_path / "run", num_trials=num_trials)

    def replace_node() -> None:
        time.sleep(rng.uniform(0, 0.3))
        [node] = cluster.worker_nodes
        cluster.add_node(num_cpus=1)
        cluster.remove_node(node, allow_graceful=False)

    def after(num_epochs: int) -> Callable[[], bool]:
        return lambda: sum(trial.num_epochs for trial in session.record) >= num_epochs

    moments = sorted(rng.sample(range(1, num_trials * _EPOCHS - 1), num_losses))
    carry_out(session, cluster, tmp_path / "ray", *(Event(after(moment), replace_node) for moment in moments))
    check_whole(session, num_trials=num_trials)
    ends = [lease.end for lease in leases_of(session)]
    assert set(ends) == {"complete", "node lost"}
    assert ends.count("node lost") >= num_losses / 2  # some go while nothing trains on them
    assert [trial.architecture for trial in session.record] == [trial.architecture for trial in twin.record]
    curves = [[[r.val_accuracy for r in trial.progress.curve] for trial in s.record] for s in (session, twin)]
    assert curves[0] == curves[1]
    assert [trial.number for trial in session.front] == [trial.number for trial in twin.front]


class Head:
    """A cluster of one node, started as a person starts it, in processes of its own."""

    def __init__(self, port: int, folder: Path) -> None:
        self.address = f"127.0.0.1:{port}"
        self._port = port
        ray = Path(sys.executable).with_name("ray")
        settings = ["--num-cpus=1", "--include-dashboard=false", "--object-store-memory=200000000", "--block"]
        command = [ray, "start", "--head", "--node-ip-address=127.0.0.1", f"--port={port}", *settings]
        with (folder / f"head-{port}").open("w") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def wait(self) -> None:
        """Return when it answers."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._port), timeout=5).close()
            except OSError:
                if time.monotonic() > deadline:
                    pytest.fail("the head does not start")
                time.sleep(_POLL)
            else:
                return

    def kill(self) -> None:
        """All its processes, as when the machine loses its power."""
        kill_session(self._process.pid)
        self._process.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


@pytest.mark.slow
def test_a_lost_head_ends_the_program_in_one_line_and_the_same_command_goes_on_on_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")  # a head that is given by its address is asked with a token only then
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    monkeypatch.setenv("RAY_worker_niceness", "0")
    runs = tmp_path / "runs"
    command = (*QUICK, "--epochs", 12, "--references", "none", "--max-trials", 2)
    gate = Gate(tmp_path / "gate")
    gate.open(0)  # trial 0 comes there first
    command = (*command, "--data", gate.data, "--runs", runs, "--name", "lost")
    with Head(free_port(), tmp_path) as head:
        head.wait()
        with Program(*command, "--ray-address", head.address, logs=tmp_path / "logs-1") as program:
            program.wait_until(gate.reached(1))
            head.kill()
            gate.open_for_all()
            outcome = program.wait()
    said = "the record is whole, and the same command on a running cluster goes on"
    port = head.address.rpartition(":")[2]
    line = f"error: ray_address: head .*:{port} must keep answering, .*; {said}\n"
    assert re.fullmatch(line, outcome.err), outcome.err
    assert outcome.code == 2
    before = read_study(runs / "lost")
    assert [trial.state.name for trial in before.trials] == ["COMPLETE", "RUNNING"]
    with Head(free_port(), tmp_path) as other:
        other.wait()
        with Program(*command, "--ray-address", other.address, logs=tmp_path / "logs-2") as program:
            outcome = program.wait()
    assert outcome.code == 0, outcome.err
    after = read_study(runs / "lost")
    assert after.results[0] == before.results[0]
    assert [trial.state.name for trial in after.trials] == ["COMPLETE", "COMPLETE"]
    assert [report["epoch"] for report in after.trials[1].user_attrs["progress"]["curve"]] == list(range(1, 13))
    assert after.spent > before.spent
