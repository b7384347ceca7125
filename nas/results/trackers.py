"""Where epochs are told as they come, if somebody asks: TensorBoard, Weights & Biases or MLflow, by their own packages.

The driver tells them, in a thread of its own: a service that is slow or gone delays no trial and ends no search.
"""

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

import yaml

from metaformer.errors import UserError, one_line, unknown_name
from nas.record.notes import EventKind
from nas.record.trials import TrialRecord, TrialState
from nas.results.tables.frames import curve_values
from nas.session.session import Session

Facts = Mapping[str, str | int | float | bool]  # hyperparameters by name
NO_TRACKER = "none"
_LAST_SECONDS = 30.0  # that a service has at the end for what it has not been told yet


class Tracker(ABC):
    """A service that is told of trainings, several at a time, each by its name.

    Attributes:
        errors: What its package raises where the service cannot be reached or the disk is full.
    """

    errors: tuple[type[Exception], ...] = (OSError, RuntimeError, ValueError)

    @abstractmethod
    def begin(self, name: str, facts: Facts) -> None:
        """Open a training, with its hyperparameters."""

    @abstractmethod
    def log(self, name: str, epoch: int, values: Mapping[str, float]) -> None:
        """Tell an epoch of an open training."""

    @abstractmethod
    def end(self, name: str) -> None:
        """Close a training."""


class TensorBoard(Tracker):
    """Event files in `tensorboard/NAME` of a folder."""

    def __init__(self, folder: Path, group: str) -> None:
        from torch.utils.tensorboard import SummaryWriter

        del group  # the folder is the group
        self._folder, self._writer_class = folder / "tensorboard", SummaryWriter
        self._writers: dict[str, Any] = {}

    def begin(self, name: str, facts: Facts) -> None:
        writer = self._writers[name] = self._writer_class(self._folder / name)
        table = yaml.safe_dump(dict(facts), sort_keys=False)
        writer.add_text("hyperparameters", "".join(f"    {line}\n" for line in table.splitlines()))

    def log(self, name: str, epoch: int, values: Mapping[str, float]) -> None:
        for key, value in values.items():
            self._writers[name].add_scalar(key, value, epoch)
        self._writers[name].flush()  # seen at once

    def end(self, name: str) -> None:
        self._writers.pop(name).close()


class WeightsAndBiases(Tracker):
    """A run for each training, in one group; project, entity, key and mode as `wandb` itself is set."""

    def __init__(self, folder: Path, group: str) -> None:
        import wandb

        self.errors = (*Tracker.errors, wandb.Error)
        self._folder, self._group, self._wandb = folder, group, wandb
        self._runs: dict[str, Any] = {}

    def begin(self, name: str, facts: Facts) -> None:
        self._runs[name] = self._wandb.init(
            name=name,
            group=self._group,
            config=dict(facts),
            dir=str(self._folder),
            reinit="create_new",  # beside those that are open
            settings=self._wandb.Settings(silent=True),
        )

    def log(self, name: str, epoch: int, values: Mapping[str, float]) -> None:
        self._runs[name].log(dict(values), step=epoch)

    def end(self, name: str) -> None:
        self._runs.pop(name).finish()


class MLflow(Tracker):
    """A run for each training, in one experiment; the server as `mlflow` itself is set."""

    def __init__(self, folder: Path, group: str) -> None:
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        del folder  # MLflow has a place of its own
        self.errors = (*Tracker.errors, MlflowException)
        self._group, self._client_class = group, MlflowClient
        self._client: Any = None
        self._experiment = ""
        self._ids: dict[str, str] = {}

    def begin(self, name: str, facts: Facts) -> None:
        if self._client is None:  # not before: it may ask a server
            client = self._client_class()
            known = client.get_experiment_by_name(self._group)
            self._experiment = known.experiment_id if known else client.create_experiment(self._group)
            self._client = client
        self._ids[name] = self._client.create_run(self._experiment, run_name=name).info.run_id
        for key, value in facts.items():
            self._client.log_param(self._ids[name], key, value)

    def log(self, name: str, epoch: int, values: Mapping[str, float]) -> None:
        for key, value in values.items():
            self._client.log_metric(self._ids[name], key, value, step=epoch)

    def end(self, name: str) -> None:
        self._client.set_terminated(self._ids.pop(name))


_TRACKERS: dict[str, Callable[[Path, str], Tracker]] = {  # by the name of the package, too
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "mlflow": MLflow,
}


def check_tracker(name: str | None) -> None:
    """Check that a tracker can be used; None and `none` always can.

    Raises:
        UserError: It is not known, or its package is not installed.
    """
    if name in (None, NO_TRACKER):
        return
    if name not in _TRACKERS:
        raise UserError(unknown_name("tracker", str(name), [NO_TRACKER, *_TRACKERS]))
    if importlib.util.find_spec(str(name)) is None:
        raise UserError(f"tracker: must have its package, got none for {name}; python -m pip install {name}")


def make_tracker(name: str | None, *, folder: Path, group: str) -> "Messenger | None":
    """The way to a tracker by name; None for no name and for `none`.

    Args:
        folder: For files that the tracker leaves.
        group: What the trainings have in common: the run's name.
    Raises:
        UserError: It is not known, or its package is not installed.
    """
    check_tracker(name)
    return None if name in (None, NO_TRACKER) else Messenger(_TRACKERS[str(name)](folder, group))


class Messenger:
    """Tells a tracker in a thread of its own what is handed over here; after an error it is told nothing more.

    Attributes:
        problem: The first line of that error; None as long as there was none.
    """

    def __init__(self, tracker: Tracker) -> None:
        self.problem: str | None = None
        self._tracker = tracker
        self._open: set[str] = set()
        self._messages: SimpleQueue[partial[None] | None] = SimpleQueue()
        self._thread = Thread(target=self._deliver, name="tracker", daemon=True)
        self._thread.start()

    def begin(self, name: str, facts: Facts) -> None:
        """Open a training, unless it is open."""
        if name not in self._open:
            self._open.add(name)
            self._messages.put(partial(self._tracker.begin, name, facts))

    def log(self, name: str, values: Mapping[str, float | None]) -> None:
        """Tell an epoch, which is one of the values; those that are None are left out."""
        known = {key: value for key, value in values.items() if value is not None}
        epoch = int(known.pop("epoch"))
        self._messages.put(partial(self._tracker.log, name, epoch, known))

    def end(self, name: str) -> None:
        """Close a training, where it is open."""
        if name in self._open:
            self._open.remove(name)
            self._messages.put(partial(self._tracker.end, name))

    def close(self) -> None:
        """Close what is open, and wait half a minute at most until the tracker has been told all."""
        for name in sorted(self._open):
            self.end(name)
        self._messages.put(None)
        self._thread.join(_LAST_SECONDS)
        if self._thread.is_alive():
            self.problem = self.problem or f"no answer for {_LAST_SECONDS:g} s"

    def _deliver(self) -> None:
        try:
            while (message := self._messages.get()) is not None:
                message()
        except self._tracker.errors as error:
            self.problem = one_line(f"{type(error).__name__}: {error}", 200)


class TrialFeed:
    """Hands each new epoch of a session's trials to a messenger.

    Of trials that were there before, only what comes now; one that goes on with a stopped trial tells all of its curve.
    """

    def __init__(self, session: Session, messenger: Messenger) -> None:
        self._session, self._messenger = session, messenger
        self._running = {trial.number: trial for trial in session.record if trial.state is TrialState.RUNNING}
        self._num_told = {number: trial.num_epochs for number, trial in self._running.items()}
        self._num_seen = len(session.record.trials)
        self._is_over = False

    def update(self) -> None:
        """Hand over what is new; to be called after each answer to the session."""
        if self._is_over:
            return
        trials = self._session.record.trials
        self._running |= {trial.number: trial for trial in trials[self._num_seen :]}
        self._num_seen = len(trials)
        for trial in list(self._running.values()):
            self._tell(trial)
        self._note_problem()

    def close(self) -> None:
        """Hand over the last, and note where the tracker was not told all."""
        self.update()
        self._messenger.close()
        self._note_problem()

    def _tell(self, trial: TrialRecord) -> None:
        name, told = f"trial_{trial.number:05d}", self._num_told.get(trial.number, 0)
        if trial.num_epochs > told:
            self._messenger.begin(name, self._facts(trial))
            for values in curve_values(trial)[told:]:
                self._messenger.log(name, values)
            self._num_told[trial.number] = trial.num_epochs
        if trial.state is not TrialState.RUNNING:
            self._messenger.end(name)
            del self._running[trial.number]

    def _facts(self, trial: TrialRecord) -> Facts:
        genes = {name: str(value) for name, value in self._session.space.encode(trial.architecture).items()}
        named = {"reference": trial.reference} if trial.reference else {}
        return {**named, "params": trial.params, "macs": trial.macs, **genes}

    def _note_problem(self) -> None:
        if self._messenger.problem is not None and not self._is_over:
            self._is_over = True
            text = f"the tracker was not told all: {self._messenger.problem}"
            self._session.events.append(self._session.record.add_event(EventKind.TRACKER, text))


@contextmanager
def tracked(session: Session, name: str | None, *, folder: Path, group: str) -> Iterator[Callable[[], None]]:
    """A function to call after each answer to the session, by which the tracker of that name is told.

    Raises:
        UserError: It is not known, or its package is not installed.
    """
    messenger = make_tracker(name, folder=folder, group=group)
    if messenger is None:
        yield lambda: None
        return
    feed = TrialFeed(session, messenger)
    try:
        yield feed.update
    finally:
        feed.close()
