"""Programs run as a person runs them, in processes of their own, and looks into the study that a search writes."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import optuna
import pytest
from optuna.trial import FrozenTrial
from sqlalchemy.pool import NullPool

from nas import cli
from nas.search import search

ROOT = Path(__file__).parents[2]
# Trials of one or two seconds, one after another, on the digits; no limit yet, and a budget for the slowest machine.
QUICK = ("--space", "hybrid_stages", "--references", "poolformer_s12", "--resolution", "16", "--batch-size", "256")
QUICK += ("--width-scale", "0.125", "--epochs", "6", "--max-macs", "800k", "--workers", "1", "--stopper", "none")
QUICK += ("--max-params", "4M", "--budget", "9cpu-hours")  # a limit of its own, since defaults hang on the data
QUICK += ("--set", "recipe.precision=float32")  # whatever measuring says here and there
PATIENCE = 900  # seconds until a program that should have come further is given up; no machine is that slow
_TITLES_OF_WORKERS = ("ray::ResourceTrainable", "ray::TrialWorker", "ray::_Member")
_POLL = 0.02  # seconds between looks at a study


@contextmanager
def listening_to_ctrl_c() -> Iterator[None]:
    """Processes that begin inside end at Ctrl-C, and when their terminal closes, also where the tests ignore both.

    A shell starts what runs in the background so, as nohup does; children inherit it.
    """
    ctrl_c = signal.signal(signal.SIGINT, signal.default_int_handler)
    closes = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, ctrl_c)
        signal.signal(signal.SIGHUP, closes)


class Outcome(NamedTuple):
    """How a program ended and what it said."""

    code: int
    out: str
    err: str


class Program:
    """A search in a session of its own, so that what a terminal sends to all its processes reaches these alone."""

    def __init__(self, *arguments: object, logs: Path, module: str = "nas.search") -> None:
        logs.mkdir(parents=True, exist_ok=True)
        self._logs = (logs / "out", logs / "err")  # files: a pipe would stay open as long as an orphan holds it
        with self._logs[0].open("w") as out, self._logs[1].open("w") as err, listening_to_ctrl_c():
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *map(str, arguments)],
                cwd=ROOT,
                env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End what the program has left running."""
        kill_session(self._process.pid)
        self._process.wait()

    @property
    def pid(self) -> int:
        """The driver's process."""
        return self._process.pid

    def wait(self) -> Outcome:
        """The end of the program by itself."""
        code = self._process.wait(timeout=PATIENCE)
        out, err = (log.read_text(encoding="utf-8") for log in self._logs)
        return Outcome(code, out, err)

    def wait_until(self, happened: Callable[[], bool]) -> None:
        """Return as soon as something has happened while the program runs."""
        deadline = time.monotonic() + PATIENCE
        while not happened():
            if self._process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"the program ended or waited too long: {self._logs[1].read_text(encoding='utf-8')}")
            time.sleep(_POLL)

    def press_ctrl_c(self) -> None:
        """Interrupt all processes of the program, as a terminal does."""
        os.killpg(self._process.pid, signal.SIGINT)

    def send(self, number: signal.Signals) -> None:
        """Send the driver a signal, and it alone, as Kubernetes does."""
        os.kill(self._process.pid, number)

    def close_terminal(self) -> None:
        """Send all processes of the program what a terminal sends when it closes."""
        os.killpg(self._process.pid, signal.SIGHUP)

    def says(self, text: str) -> bool:
        """Whether it has printed something yet."""
        return text in self._logs[0].read_text(encoding="utf-8")

    def kill(self) -> None:
        """End the driver, and it alone, without giving it a chance to do anything."""
        self._process.kill()
        self._process.wait()

    def kill_worker(self) -> None:
        """End the process that trains, in the same way, as soon as there is one."""
        self.wait_until(lambda: bool(self._workers()))
        for pid in self._workers():
            _kill(pid)

    def kill_member(self) -> None:
        """End one of the processes that train a model together, as soon as there is one."""

        def members() -> list[int]:
            return [pid for pid in self.survivors() if _title(pid).startswith("ray::_Member")]

        self.wait_until(lambda: bool(members()))
        _kill(members()[-1])

    def _workers(self) -> list[int]:
        return [pid for pid in self.survivors() if _title(pid).startswith(_TITLES_OF_WORKERS)]

    def survivors(self) -> list[int]:
        """Processes of the program's session that still run."""
        return _pids_of(self._process.pid)

    def wait_for_survivors(self) -> None:
        """Return when no process of the ended program runs any more."""
        deadline = time.monotonic() + PATIENCE
        while self.survivors():
            if time.monotonic() > deadline:
                pytest.fail(f"still running: {[_title(pid) for pid in self.survivors()]}")
            time.sleep(_POLL)


def run_program(*arguments: object, logs: Path) -> Outcome:
    """A search that is left to end by itself."""
    with Program(*arguments, logs=logs) as program:
        return program.wait()


def run_here(*arguments: object, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Outcome:
    """The same program in this process: the path from the arguments to the exit code is that of `python -m`."""
    monkeypatch.setattr(sys, "argv", ["python -m nas.search", *map(str, arguments)])
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.run(search)
    code = ended.value.code
    return Outcome(code if isinstance(code, int) else 0, *capsys.readouterr())


@dataclass(frozen=True)
class Recorded:
    """A study as Optuna reads it."""

    trials: list[FrozenTrial]
    notes: dict[str, object]

    @property
    def overhead(self) -> float:
        """Device-seconds outside the leases of trials: of measuring and testing."""
        seconds = self.notes["overhead_device_seconds"]
        assert isinstance(seconds, float)
        return seconds

    @property
    def spent(self) -> float:
        """Device-seconds in all: of the leases, and outside them."""
        return self.overhead + self.lost + sum(seconds for trial in self.trials for seconds in lease_seconds(trial))

    @property
    def lost(self) -> float:
        """Device-seconds of leases whose driver was killed, after their last report."""
        leases = [trial.user_attrs.get("progress", {}).get("leases", ()) for trial in self.trials]
        return sum(lease.get("lost", 0.0) for of_trial in leases for lease in of_trial)

    @property
    def results(self) -> list[tuple[object, ...]]:
        """What must come out alike for the same seed: genes, state, values, and the curve without its times."""
        return [result(trial) for trial in self.trials]


def read_study(run: Path) -> Recorded:
    """The study in a run's folder."""
    storage = optuna.storages.RDBStorage(f"sqlite:///{run / 'study.db'}", engine_kwargs={"poolclass": NullPool})
    [name] = optuna.get_all_study_names(storage)
    study = optuna.load_study(study_name=name, storage=storage)
    return Recorded(study.get_trials(), study.user_attrs)


def result(trial: FrozenTrial) -> tuple[object, ...]:
    return trial.number, trial.state.name, trial.params, trial.values, trial.user_attrs["progress"]["curve"]


def lease_seconds(trial: FrozenTrial) -> list[float]:
    """What each lease of a trial was charged."""
    return [lease["device_seconds"] for lease in trial.user_attrs.get("progress", {}).get("leases", ())]


def epochs_seen(run: Path) -> int:
    """Epochs that all trials have reported."""
    return sum(len(progress["curve"]) for progress in progress_seen(run))


def progress_seen(run: Path) -> list[dict[str, Any]]:
    """The progress of each trial that has begun, also while the study is being made."""
    database = run / "study.db"
    if not database.exists():
        return []
    query = "SELECT value_json FROM trial_user_attributes WHERE key = 'progress'"
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            rows = connection.execute(query).fetchall()
    except sqlite3.OperationalError:  # it is being made
        return []
    return [json.loads(progress) for (progress,) in rows]


def kill_session(session: int) -> None:
    """End what runs in a session of processes."""
    for pid in _pids_of(session):
        _kill(pid)


def _pids_of(session: int) -> list[int]:
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [pid for pid in pids if _session_of(pid) == session]


def _session_of(pid: int) -> int | None:
    """The session of a process; None where it has ended, also where nobody has asked yet how."""
    try:
        state, _parent, _group, session = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:4]
    except OSError:
        return None
    return None if state == "Z" else int(session)


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8", errors="replace")
    except OSError:  # it has ended meanwhile
        return ""


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
