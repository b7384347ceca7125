"""Searches whose record is a PostgreSQL server: killed and gone on with, beside each other, and turned away."""

import gc
import re
import shutil
import socket
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import optuna
import psycopg
import pytest
import yaml
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.testing.pytest_storages import StorageTestCase
from sqlalchemy.pool import NullPool

from nas.record.lock import lock_study
from nas.record.run_folder import open_run
from nas.record.storage import close_storage, open_storage
from nas.results.status.status import RunState, Status, read_status
from tests.nas.gate import Gate
from tests.nas.programs import QUICK, ROOT, Outcome, Program, Recorded, run_here, run_program
from tests.nas.record.odd_trials import check_read_as_optuna_reads, fill_with_odd_trials
from tests.nas.record.rows import check_rows_as_optuna_writes
from tests.nas.runs import make_run
from tests.services.postgresql import PASSWORD, Server, running_server

pytestmark = [pytest.mark.services, pytest.mark.xdist_group("postgresql")]

COMMAND = (*QUICK, "--references", "none")


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with running_server() as server:
        yield server


@pytest.fixture(scope="module")
def database(server: Server) -> str:
    return server.new_database()


class Killed(NamedTuple):
    """What a driver that was killed in its second trial left, and what a second driver beside it was told."""

    runs: Path
    command: tuple[object, ...]
    pid: int
    study: Recorded
    second: Outcome


@contextmanager
def closing_storage(storage: BaseStorage) -> Iterator[BaseStorage]:
    """A storage whose connections are closed at the end."""
    try:
        yield storage
    finally:
        close_storage(storage)


def study_in(url: str, name: str) -> Recorded:
    """A study as Optuna reads it."""
    storage = optuna.storages.RDBStorage(url, engine_kwargs={"poolclass": NullPool})
    study = optuna.load_study(study_name=name, storage=storage)
    return Recorded(study.get_trials(), study.user_attrs)


def name_of(run: Path) -> str:
    """Under which the study of a run lies in its database."""
    name = yaml.safe_load((run / "study.yaml").read_text(encoding="utf-8"))["storage_name"]
    assert isinstance(name, str)
    return name


@pytest.fixture(scope="module")
def killed(server: Server, database: str, tmp_path_factory: pytest.TempPathFactory) -> Killed:
    runs = tmp_path_factory.mktemp("runs")
    url = server.url(database)
    gate = Gate(runs / "gate")
    gate.open(0)  # trial 0 comes there first
    command = (*COMMAND, "--data", gate.data, "--max-trials", 3, "--name", "killed")
    with Program(*command, "--storage", url, "--runs", runs, logs=runs / "logs-1") as program:
        program.wait_until(gate.reached(1))
        copied = runs / "copied" / "killed"
        copied.mkdir(parents=True)
        shutil.copy(runs / "killed" / "study.yaml", copied)
        second = run_program(*command, "--storage", url, "--runs", copied.parent, logs=runs / "logs-2")
        program.kill()
        pid = program.pid
    gate.open_for_all()
    return Killed(runs, command, pid, study_in(url, name_of(runs / "killed")), second)


class GoneOn(NamedTuple):
    """The study of the killed driver, taken up by another that has the password from its environment."""

    outcome: Outcome
    study: Recorded


@pytest.fixture(scope="module")
def gone_on(server: Server, database: str, killed: Killed) -> GoneOn:
    url = server.url(database, password=None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGPASSWORD", PASSWORD)
        outcome = run_program(*killed.command, "--storage", url, "--runs", killed.runs, logs=killed.runs / "logs-3")
        return GoneOn(outcome, study_in(url, name_of(killed.runs / "killed")))


def test_kill_leaves_what_was_reported_in_the_database(killed: Killed) -> None:
    assert [trial.state.name for trial in killed.study.trials] == ["COMPLETE", "RUNNING"]
    assert len(killed.study.trials[1].user_attrs["progress"]["curve"]) == 2


def test_a_second_driver_is_told_who_holds_the_study(killed: Killed) -> None:
    held = f"held by process {killed.pid} on {re.escape(socket.gethostname())}, since .* UTC"
    name = name_of(killed.runs / "killed")
    said = f"error: storage: study {name} must not be in use by another program, {held}\n"
    assert re.fullmatch(said, killed.second.err), killed.second.err
    assert killed.second.code == 2


def test_after_kill_another_driver_loses_no_trial_and_makes_none_twice(killed: Killed, gone_on: GoneOn) -> None:
    assert gone_on.outcome.code == 0, gone_on.outcome.err
    assert gone_on.study.results[0] == killed.study.results[0]
    assert [trial.state.name for trial in gone_on.study.trials] == ["COMPLETE"] * 3
    taken_up = gone_on.study.trials[1].user_attrs["progress"]
    assert [lease["end"] for lease in taken_up["leases"]] == ["interrupted", "complete"]
    assert [report["epoch"] for report in taken_up["curve"]] == [1, 2, 3, 4, 5, 6]
    assert gone_on.study.spent > killed.study.spent


def test_no_file_of_a_run_and_no_message_holds_the_password(killed: Killed, gone_on: GoneOn) -> None:
    assert gone_on.outcome.code == 0
    written = [path for path in killed.runs.rglob("*") if path.is_file()]
    assert {"study.yaml", "report.html", "err"} <= {path.name for path in written}
    for path in written:
        assert PASSWORD.encode() not in path.read_bytes(), path


def test_two_studies_in_one_database_do_not_see_each_other(
    server: Server, database: str, gone_on: GoneOn, tmp_path: Path
) -> None:
    url = server.url(database)
    command = (*COMMAND, "--seed", 1, "--max-trials", 1, "--storage", url, "--name", "beside")
    outcome = run_program(*command, "--runs", tmp_path, logs=tmp_path / "logs")
    assert outcome.code == 0, outcome.err
    assert len(study_in(url, name_of(tmp_path / "beside")).trials) == 1
    storage = optuna.storages.RDBStorage(url, engine_kwargs={"poolclass": NullPool})
    assert len(optuna.get_all_study_names(storage)) == 2


def test_a_run_is_read_with_the_password_of_the_environment(
    killed: Killed, gone_on: GoneOn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    command = [sys.executable, "-m", "nas.report", killed.runs / "killed"]
    outcome = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stderr
    assert len((killed.runs / "killed" / "trials.csv").read_text().splitlines()) == 1 + len(gone_on.study.trials)


def test_trials_are_read_in_bulk_as_optuna_reads_them(server: Server, tmp_path: Path) -> None:
    url = server.url(server.new_database())
    make_run(tmp_path / "run", max_trials=8, storage=url, storage_name="search").record.close()
    fill_with_odd_trials(url)
    check_read_as_optuna_reads(url)
    check_read_as_optuna_reads(url, "other")


@pytest.fixture(scope="module")
def no_study(server: Server) -> str:
    """The name of a database with Optuna's tables and nothing in them."""
    name = server.new_database()
    with closing_storage(open_storage(server.url(name), writes=True)):
        return name


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of the same sessions
class TestDriverStorage(StorageTestCase):
    """What Optuna asks of every storage."""

    @pytest.fixture
    def storage(self, server: Server, no_study: str) -> Iterator[BaseStorage]:
        with closing_storage(open_storage(server.url(server.new_database(like=no_study)), writes=True)) as storage:
            yield storage
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()  # Optuna leaves the sessions of threads that have ended


def test_trials_are_those_that_optuna_writes(server: Server, no_study: str) -> None:
    check_rows_as_optuna_writes(lambda: server.url(server.new_database(like=no_study)))


def test_a_reader_can_write_nothing(server: Server) -> None:
    url = server.url(server.new_database())
    with closing_storage(open_storage(url, writes=True)) as writer:
        number = writer.create_new_study([StudyDirection.MAXIMIZE], "search")
        with closing_storage(open_storage(url)) as reader:
            assert reader.get_study_id_from_name("search") == number
            with pytest.raises(StorageInternalError) as caught:
                reader.set_study_user_attr(number, "key", 1)
        assert "read-only transaction" in str(caught.value.__cause__)
        assert writer.get_study_user_attrs(number) == {}


def test_where_a_search_stands_is_told_from_its_study_file_and_the_server(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while its driver is in the middle of a write; the driver is known by its row alone."""
    url = server.url(server.new_database())
    make_run(tmp_path / "run", storage=url, storage_name="run-1", max_trials=3).record.close()
    monkeypatch.setenv("PGPASSWORD", PASSWORD)

    def read() -> Status:
        run = open_run(tmp_path / "run")
        with closing(run.record):
            return read_status(run)

    assert read().state is RunState.ENDED
    with lock_study(url, "run-1"), psycopg.connect(url) as writer:
        writer.execute("DELETE FROM trial_user_attributes")
        assert read().counts["complete"] >= 3  # what is not committed is not seen, and waits for nobody
        writer.rollback()
        writer.execute("UPDATE metaformer_nas_drivers SET host = 'elsewhere', pid = 1")
        writer.commit()
        status = read()
        assert status.state is RunState.RUNNING
        assert status.driver is not None
        assert (status.driver.driver.host, status.driver.is_alive) == ("elsewhere", True)
        writer.execute("UPDATE metaformer_nas_drivers SET beat = beat - interval '1 hour'")
        writer.commit()
        assert read().state is RunState.ENDED
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["study.yaml"]


@pytest.mark.parametrize("password", ["wrong-but-secret", "wrong@but:secret", None])
def test_a_password_that_is_wrong_or_missing_is_refused_in_one_line_that_does_not_show_it(
    server: Server,
    database: str,
    password: str | None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    storage = ("--storage", server.url(database, password=password))
    outcome = run_here(*COMMAND, *storage, "--runs", tmp_path / "runs", capsys=capsys, monkeypatch=monkeypatch)
    assert outcome.code == 2
    assert re.fullmatch(r"error: storage: must be a database that can be opened, got '.*' \(.*\)\n", outcome.err)
    assert "secret" not in outcome.err + outcome.out
    assert not (tmp_path / "runs").exists()


def test_a_database_that_goes_away_ends_the_program_in_one_line_and_the_same_command_goes_on(
    server: Server, tmp_path: Path
) -> None:
    url = server.url(server.new_database())
    gate = Gate(tmp_path / "gate")
    gate.open(0)  # trial 0 comes there first
    command = (*COMMAND, "--data", gate.data, "--max-trials", 3, "--storage", url, "--name", "lost", "--runs", tmp_path)
    with Program(*command, logs=tmp_path / "logs-1") as program:
        program.wait_until(gate.reached(1))
        server.stop()
        gate.open_for_all()
        try:
            outcome = program.wait()
        finally:
            server.start()
    said = "storage: must be writable and have room, got '.*'; the same command goes on when it has"
    assert re.fullmatch(f"error: {said}\n", outcome.err), outcome.err
    assert outcome.code == 2
    before = study_in(url, name_of(tmp_path / "lost"))
    outcome = run_program(*command, logs=tmp_path / "logs-2")
    assert outcome.code == 0, outcome.err
    after = study_in(url, name_of(tmp_path / "lost"))
    assert [trial.state.name for trial in after.trials] == ["COMPLETE"] * 3
    assert [trial.state.name for trial in before.trials] == ["COMPLETE", "RUNNING"]
    assert after.results[0] == before.results[0]
