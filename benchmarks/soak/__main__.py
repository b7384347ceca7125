"""A search under faults: workers and drivers killed, drivers ended, workers stuck, NaN, little memory, a slow disk.

Command:   python -m benchmarks.soak --minutes 30
Hardware:  two CPU cores; Linux
Time:      what is asked for, and a minute to end
Expected:  every fault struck, and no trial is lost, left running, tried twice or charged for more than its time

The real program searches on the digits with two workers, and every so many seconds one fault strikes, all kinds in
turn in a random order. A driver that was killed, or
told to end by SIGTERM, is started again at once, while what it left is still running. At the end comes
Ctrl-C, and the same command, which takes up what was interrupted but begins nothing new. The exit code is 1 where the
study is not what it must be.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.soak.check import END_DRIVER, FAULTS, KILL_DRIVER, KILL_WORKER, STOP_WORKER, find_losses
from nas.record.run_folder import Run, open_run

NUM_WORKERS = 2
ROOT = Path(__file__).parents[2]
DATA = "benchmarks.soak.data"
STOPPED_SECONDS = 5.0
_PATIENCE = 600.0  # seconds for anything to happen before the soak is given up


class SoakError(RuntimeError):
    """The search did not do what it should have done by now."""


class Search:
    """One run of the program after another on the same study, each in a session of processes of its own."""

    def __init__(self, folder: Path, *, epochs: int) -> None:
        self.run = folder / "runs" / "soak"
        self.faults = folder / "faults"
        self.faults.mkdir(parents=True)
        self._log = folder / "log"
        self._command = [sys.executable, "-m", "nas.search", "--data", f"{DATA}:{self.faults}"]
        self._command += ["--runs", str(self.run.parent), "--name", self.run.name, "--json", "--epochs", str(epochs)]
        self._command += ["--space", "hybrid_stages", "--references", "poolformer_s12", "--width-scale", "0.125"]
        self._command += ["--max-macs", "800k", "--resolution", "16", "--batch-size", "256", "--stopper", "none"]
        self._command += ["--workers", str(NUM_WORKERS), "--budget", "10cpu-days"]
        self._processes: list[subprocess.Popen[str]] = []

    def start(self, *more: str) -> None:
        """Start the program, again or for the first time."""
        with self._log.open("a", encoding="utf-8") as log:
            process = subprocess.Popen(  # noqa: S603
                [*self._command, *more],
                cwd=ROOT,
                env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        self._processes.append(process)

    @property
    def driver(self) -> subprocess.Popen[str]:
        return self._processes[-1]

    def wait_until(self, happened: Callable[[], bool], what: str) -> None:
        """Return when something has happened.

        Raises:
            SoakError: The program ended or took too long.
        """
        deadline = time.monotonic() + _PATIENCE
        while not happened():
            if self.driver.poll() is not None or time.monotonic() > deadline:
                raise SoakError(f"{what}: nothing came of it; {self.last_words}")
            time.sleep(0.05)

    def wait(self) -> dict[str, object]:
        """What the program says at its end.

        Raises:
            SoakError: It takes too long, or ends with an error.
        """
        try:
            out, _ = self.driver.communicate(timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            raise SoakError(f"end: did not come in {_PATIENCE:.0f} s; {self.last_words}") from None
        if self.driver.returncode:
            raise SoakError(f"end: with code {self.driver.returncode}; {self.last_words}")
        summary: dict[str, object] = json.loads(out[out.rindex("\n{\n") :] if "\n{\n" in out else out)
        return summary

    @property
    def last_words(self) -> str:
        return " | ".join(self._log.read_text(encoding="utf-8").splitlines()[-5:])

    def workers(self) -> list[int]:
        """Processes of the present driver that train."""
        return [pid for pid in pids_of({self.driver.pid}) if title(pid).startswith(("ray::Res", "ray::_Trial"))]

    def pick_worker(self, rng: random.Random) -> int:
        """One that trains, as soon as there is any."""
        there: list[int] = []

        def look() -> bool:
            there[:] = self.workers()  # kept, since they may be gone at the next look
            return bool(there)

        self.wait_until(look, "a worker")
        return rng.choice(there)

    def survivors(self) -> list[int]:
        """What any of the drivers has left running."""
        return pids_of({process.pid for process in self._processes})

    def end_all(self) -> None:
        for pid in self.survivors():
            kill(pid)
        for process in self._processes:
            process.wait()


def pids_of(sessions: set[int]) -> list[int]:
    """Processes of these sessions that have not ended."""
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                state, _parent, _group, session = (path / "stat").read_text().rpartition(")")[2].split()[:4]
            except OSError:  # it has ended
                continue
            if state != "Z" and int(session) in sessions:
                found.append(int(path.name))
    return found


def title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def strike(search: Search, fault: str, rng: random.Random) -> None:
    """Let a fault happen; it has struck when this returns."""
    if fault == KILL_WORKER:
        kill(search.pick_worker(rng))
    elif fault == STOP_WORKER:
        pid = search.pick_worker(rng)
        kill(pid, signal.SIGSTOP)
        time.sleep(STOPPED_SECONDS)
        kill(pid, signal.SIGCONT)
    elif fault == KILL_DRIVER:
        kill(search.driver.pid)
        search.driver.communicate()
        search.start()
    elif fault == END_DRIVER:
        search.pick_worker(rng)  # it has got so far that it understands
        kill(search.driver.pid, signal.SIGTERM)
        search.wait()
        search.start()
    else:
        flag = search.faults / fault
        flag.touch()
        search.wait_until(lambda: not flag.exists(), fault)


def carry_through(search: Search, *, seconds: float, every: float, seed: int) -> tuple[Counter[str], dict[str, object]]:
    """How often each fault struck, and what the program said at the end."""
    rng = random.Random(seed)
    struck: Counter[str] = Counter()
    search.start()
    search.wait_until(lambda: any(search.run.glob("checkpoints/*/epoch-*.pt")), "the first epoch")
    start = time.monotonic()
    order: list[str] = []
    while True:
        at = start + every * (struck.total() + 1)
        if at > start + seconds:
            break
        time.sleep(max(0.0, at - time.monotonic()))
        order = order or rng.sample(FAULTS, len(FAULTS))
        fault = order.pop()
        strike(search, fault, rng)
        struck[fault] += 1
    search.pick_worker(rng)  # the driver has got so far that it understands Ctrl-C
    os.killpg(search.driver.pid, signal.SIGINT)
    search.wait()
    trials = open_run(search.run).record
    search.start("--max-trials", str(sum(not t.references and t.checkpoint_trial == t.number for t in trials)))
    return struck, search.wait()


def show(run: Run, struck: Counter[str], console: Console) -> None:
    faults = Table(title="Faults", title_justify="left")
    faults.add_column("fault")
    faults.add_column("struck", justify="right")
    for fault in FAULTS:
        faults.add_row(fault, str(struck[fault]))
    trials = Table(title=f"{len(run.record.trials)} trials", title_justify="left")
    trials.add_column("state")
    trials.add_column("trials", justify="right")
    trials.add_column("reason")
    states = Counter((trial.state.value, trial.reason or "") for trial in run.record)
    for (state, reason), count in sorted(states.items()):
        trials.add_row(state, str(count), reason)
    leases = Table(title="Leases", title_justify="left")
    leases.add_column("end")
    leases.add_column("leases", justify="right")
    ends = Counter(str(lease.end) for trial in run.record for lease in trial.progress.leases)
    for end, count in sorted(ends.items()):
        leases.add_row(end, str(count))
    for table in (faults, trials, leases):
        console.print(table)


def soak(
    minutes: Annotated[float, typer.Option(help="How long faults strike.")] = 30.0,
    every: Annotated[float, typer.Option(help="Seconds from fault to fault.")] = 20.0,
    epochs: Annotated[int, typer.Option(help="Epochs of each trial, of about half a second.")] = 6,
    seed: Annotated[int, typer.Option(help="Of the order of the faults.")] = 0,
) -> None:
    """Search under faults and say what was lost."""
    console = Console(width=120)
    with TemporaryDirectory() as folder:
        search = Search(Path(folder), epochs=epochs)
        start = time.monotonic()
        try:
            struck, said = carry_through(search, seconds=60 * minutes, every=every, seed=seed)
            deadline = time.monotonic() + _PATIENCE
            while search.survivors() and time.monotonic() < deadline:
                time.sleep(0.1)
            left = [title(pid) for pid in search.survivors()]
        except SoakError as error:
            console.print(f"lost: {error}", markup=False)
            raise typer.Exit(1) from None
        finally:
            search.end_all()
        run = open_run(search.run)
        show(run, struck, console)
        wrong = find_losses(
            run, struck, spent=said["spent_device_seconds"], most_spent=NUM_WORKERS * (time.monotonic() - start)
        )
        wrong += [f"still running: {process}" for process in left]
    for line in wrong:
        console.print(line, markup=False)
    console.print(f"{struck.total()} faults, {len(wrong)} losses")
    raise typer.Exit(1 if wrong else 0)


if __name__ == "__main__":
    typer.run(soak)
