"""The study on disk, and its mirror in memory; the driver alone writes it.

A trial's values are told to Optuna once, at its end. Until then its progress (leases, curve, last checkpoint) is one
user attribute, written whole at each report, so that a driver killed at any moment leaves a state that can go on.
"""

import sqlite3
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from pydantic import NonNegativeFloat, PositiveInt, ValidationError
from sqlalchemy import create_engine, event, inspect
from sqlalchemy.exc import SQLAlchemyError

from metaformer.architecture import Architecture
from metaformer.cost import count_cost
from metaformer.errors import explain
from metaformer.specs import Spec
from nas.lease import Report
from nas.pareto import Objectives, front
from nas.samplers import SpaceSampler, distribution
from nas.storage import can_be_parsed, mask_passwords
from nas.study import StudyError
from search_spaces.space import SearchSpace, SpaceError

STUDY_NAME = "search"
IN_MEMORY = "memory:"  # storage URL of a record that ends with its process, as simulations need
_SQLITE = "sqlite:///"
_JOURNAL = "journal:"
METRICS = ["val_accuracy", "params", "macs"]
DIRECTIONS: tuple[Literal["maximize", "minimize"], ...] = ("maximize", "minimize", "minimize")
_OVERHEAD = "overhead_device_seconds"
TrialEnd = Literal["complete", "stopped", "failed"]


class TrialState(StrEnum):
    """Where a trial stands; `stopped` ones were ended early on purpose, with a reason."""

    RUNNING = "running"
    COMPLETE = "complete"
    STOPPED = "stopped"
    FAILED = "failed"


_STATES = {
    optuna.trial.TrialState.RUNNING: TrialState.RUNNING,
    optuna.trial.TrialState.COMPLETE: TrialState.COMPLETE,
    optuna.trial.TrialState.PRUNED: TrialState.STOPPED,
    optuna.trial.TrialState.FAIL: TrialState.FAILED,
}


class LeaseCharge(Spec):
    """What one lease of a trial was charged, and how it ended (None: it has not)."""

    attempt: PositiveInt
    device_seconds: NonNegativeFloat = 0.0
    end: str | None = None


class Progress(Spec):
    """All that is known of a trial's training so far."""

    leases: tuple[LeaseCharge, ...] = ()
    curve: tuple[Report, ...] = ()


@dataclass
class TrialRecord:
    """One trial: what it trains, what it costs, where it stands."""

    number: int
    architecture: Architecture
    params: int
    macs: int
    home: int  # number of the trial whose folder holds its checkpoints: its own, or that of the trial it goes on with
    reference: str | None = None
    state: TrialState = TrialState.RUNNING
    reason: str | None = None  # why it was stopped or failed
    progress: Progress = field(default_factory=Progress)
    test_accuracy: float | None = None

    @property
    def val_accuracy(self) -> float | None:
        """Accuracy in [0, 1] after the last epoch reported."""
        return self.progress.curve[-1].val_accuracy if self.progress.curve else None

    @property
    def num_epochs(self) -> int:
        return self.progress.curve[-1].epoch if self.progress.curve else 0

    @property
    def device_seconds(self) -> float:
        return sum(lease.device_seconds for lease in self.progress.leases)

    @property
    def objectives(self) -> Objectives:
        """(accuracy, parameters, MACs) of a completed trial.

        Raises:
            ValueError: It has no accuracy yet.
        """
        if self.val_accuracy is None:
            raise ValueError(f"trial: must have reported an epoch, got number {self.number}, which has not")
        return (self.val_accuracy, self.params, self.macs)


def front_of(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The completed trials among these that no other dominates, by rising parameters."""
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    members = [complete[i] for i in front([trial.objectives for trial in complete])]
    return sorted(members, key=lambda trial: (trial.params, trial.macs, trial.number))


@contextmanager
def _writing() -> Iterator[None]:
    """Turn what a storage raises while it is written into one line; nothing is half written then."""
    try:
        yield
    except (StorageInternalError, SQLAlchemyError, OSError) as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        rule = "storage: must be writable and have room"
        raise StudyError(f"{rule}, got {_first_line(cause)!r}; the same command goes on when it has") from None


class Record:
    """The trials of one study in an Optuna storage.

    Whatever writes to it raises StudyError where that fails, such as on a full disk.
    """

    def __init__(self, url: str, space: SearchSpace, *, name: str = STUDY_NAME, writes: bool = False) -> None:
        """Open the study at a storage URL, or begin it there.

        Args:
            url: As Optuna takes it, or `journal:PATH` for a journal file.
            name: Of the study, where the storage holds several.
            writes: Whether this is the one driver's record; it ends trials that a killed driver was about to begin.
        Raises:
            StudyError: The storage cannot be reached, or holds trials that are not of this space.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.url = url
        self.name = name
        self._space = space
        try:
            if writes and url.startswith(_SQLITE):
                _write_ahead(url)
            self._storage = optuna.storages.get_storage(open_storage(url))  # which keeps ended trials in memory
            self._study = optuna.create_study(
                storage=self._storage,
                study_name=name,
                directions=DIRECTIONS,
                sampler=optuna.samplers.RandomSampler(),  # each trial is asked of a sampler of its own
                load_if_exists=True,
            )
        except StorageInternalError as error:
            raise no_storage(url, error.__cause__ or error) from None
        except (SQLAlchemyError, sqlite3.Error, ImportError, OSError, ValueError, RuntimeError) as error:
            raise no_storage(url, error) from None
        if self._study.metric_names is None:
            with _writing(), warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)  # the dashboard shows these names
                self._study.set_metric_names(METRICS)
        self._study_id = self._storage.get_study_id_from_name(name)
        self._trial_ids: dict[int, int] = {}  # of Optuna's own, by trial number
        self.trials: list[TrialRecord] = []
        self.discarded: list[int] = []  # trials that a killed driver had not finished writing down; they cost nothing
        notes = self._study.user_attrs
        for frozen in self._study.get_trials(deepcopy=False):
            if frozen.state is optuna.trial.TrialState.WAITING:
                continue  # somebody queued it; the next suggestion takes it up
            if len(frozen.params) == len(space.choices):
                self.trials.append(self._read(frozen, notes))
            elif frozen.state is optuna.trial.TrialState.RUNNING and writes:
                self._discard(frozen.number)
            elif frozen.state is optuna.trial.TrialState.FAIL:
                self.discarded.append(frozen.number)

    def __iter__(self) -> Iterator[TrialRecord]:
        return iter(self.trials)

    @property
    def complete(self) -> list[TrialRecord]:
        """The trials trained to the end, oldest first."""
        return [trial for trial in self.trials if trial.state is TrialState.COMPLETE]

    def start(self, architecture: Architecture, *, reference: str | None = None) -> TrialRecord:
        """A new trial of a given architecture, perhaps that of a hand-designed model; written in one transaction."""
        return self._create(architecture, {"reference": reference} if reference else {})

    def go_on(self, stopped: TrialRecord) -> TrialRecord:
        """A new trial that takes up an ended one where it stood: its curve and checkpoints, but no charges."""
        progress = Progress(curve=stopped.progress.curve)
        attrs: dict[str, Any] = {"home": stopped.home, "progress": progress.model_dump(mode="json")}
        if stopped.reference:
            attrs["reference"] = stopped.reference
        return self._create(stopped.architecture, attrs)

    @_writing()
    def _create(self, architecture: Architecture, attrs: dict[str, Any]) -> TrialRecord:
        frozen = optuna.trial.create_trial(
            state=optuna.trial.TrialState.RUNNING,
            params=self._space.encode(architecture),
            distributions={choice.name: distribution(choice) for choice in self._space.choices},
            user_attrs=attrs,
        )
        trial_id = self._storage.create_new_trial(self._study_id, template_trial=frozen)
        frozen.number = self._storage.get_trial_number_from_id(trial_id)  # all else is as it was handed over
        trial = self._read(frozen, {})
        self.trials.append(trial)
        return trial

    @_writing()
    def ask(self, sampler: SpaceSampler) -> TrialRecord:
        """A new trial of the architecture that a sampler suggests."""
        if not sampler.needs_trial:
            study = optuna.study.Study(self.name, self._storage)  # anew: a study remembers its trials from ask to ask
            return self.start(self._space.decode(sampler.suggest(study)))
        self._study.sampler = sampler
        trial = self._study.ask()
        architecture = self._space.suggest(trial)
        cost = count_cost(architecture)
        self.trials.append(TrialRecord(trial.number, architecture, cost.params, cost.macs, home=trial.number))
        return self.trials[-1]

    @_writing()
    def save(self, trial: TrialRecord) -> None:
        """Write a running trial's progress."""
        self._storage.set_trial_user_attr(self._trial_id(trial), "progress", trial.progress.model_dump(mode="json"))

    @_writing()
    def end(self, trial: TrialRecord, how: TrialEnd, *, reason: str | None = None) -> None:
        """Write a trial's last progress and tell its end; `reason` says why it was stopped or failed."""
        if reason:
            self._storage.set_trial_user_attr(self._trial_id(trial), "reason", reason)
        self.save(trial)
        trial.reason, trial.state = reason, TrialState(how)
        if trial.state is TrialState.COMPLETE:
            self._storage.set_trial_state_values(
                self._trial_id(trial), optuna.trial.TrialState.COMPLETE, trial.objectives
            )
        else:
            state = optuna.trial.TrialState.FAIL if how == "failed" else optuna.trial.TrialState.PRUNED
            self._storage.set_trial_state_values(self._trial_id(trial), state)

    @_writing()
    def set_test_accuracy(self, trial: TrialRecord, accuracy: float) -> None:
        """Write the accuracy on the test split; kept with the study, since an ended trial takes no more attributes."""
        self._study.set_user_attr(_test_key(trial.number), accuracy)
        trial.test_accuracy = accuracy

    @property
    def overhead_seconds(self) -> float:
        """Device-seconds spent outside training leases: on measuring before and testing after."""
        noted = self.noted(_OVERHEAD)
        return float(noted) if isinstance(noted, int | float) else 0.0

    @property
    def spent_seconds(self) -> float:
        """Device-seconds of the study in all."""
        return self.overhead_seconds + sum(trial.device_seconds for trial in self.trials)

    def add_overhead(self, seconds: float) -> None:
        """Write that device-seconds were spent outside training leases."""
        self.note(_OVERHEAD, self.overhead_seconds + seconds)

    @_writing()
    def note(self, key: str, value: object) -> None:
        """Write a plain value beside the trials."""
        self._study.set_user_attr(key, value)

    def noted(self, key: str) -> object:
        """The value noted under `key`, or None."""
        return self._study.user_attrs.get(key)

    def _trial_id(self, trial: TrialRecord) -> int:
        if trial.number not in self._trial_ids:
            number = self._storage.get_trial_id_from_study_id_trial_number(self._study_id, trial.number)
            self._trial_ids[trial.number] = number
        return self._trial_ids[trial.number]

    @_writing()
    def _discard(self, number: int) -> None:
        """End a trial that a killed driver had not finished writing down."""
        trial_id = self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)
        self._storage.set_trial_user_attr(trial_id, "reason", "the driver was killed while it began this trial")
        self._study.tell(number, state=optuna.trial.TrialState.FAIL)
        self.discarded.append(number)

    def _read(self, frozen: optuna.trial.FrozenTrial, notes: dict[str, object]) -> TrialRecord:
        try:
            architecture = self._space.decode(frozen.params)
        except (KeyError, SpaceError, ValueError) as error:
            raise StudyError(
                f"storage: must hold trials of {self._space.name}, got trial {frozen.number} ({_first_line(error)})"
            ) from None
        try:
            progress = Progress.model_validate(frozen.user_attrs.get("progress", {}))
        except ValidationError as error:
            raise StudyError(f"storage: trial {frozen.number}: {explain(error, Progress)}") from None
        cost = count_cost(architecture)
        accuracy = notes.get(_test_key(frozen.number))
        return TrialRecord(
            number=frozen.number,
            architecture=architecture,
            params=cost.params,
            macs=cost.macs,
            home=frozen.user_attrs.get("home", frozen.number),
            reference=frozen.user_attrs.get("reference"),
            state=_STATES[frozen.state],
            reason=frozen.user_attrs.get("reason"),
            progress=progress,
            test_accuracy=accuracy if isinstance(accuracy, float) else None,
        )


def check_storage(url: str) -> None:
    """Do nothing where a database answers at a storage URL; no table is made there.

    Raises:
        StudyError: None does.
    """
    if is_journal(url):
        if not Path(url.removeprefix(_JOURNAL)).absolute().parent.is_dir():
            raise no_storage(url, FileNotFoundError("no such folder"))
        return
    try:
        engine = create_engine(url)
        inspect(engine).get_table_names()
        engine.dispose()
    except (SQLAlchemyError, ImportError, ValueError) as error:
        raise no_storage(url, error) from None


def is_journal(url: str) -> bool:
    """Whether a storage URL means a journal file rather than a database."""
    return url.startswith(_JOURNAL)


def sqlite_url(path: Path) -> str:
    """The storage URL of a SQLite file."""
    return f"{_SQLITE}{path.resolve()}"


def open_storage(url: str) -> BaseStorage:
    """The Optuna storage at a URL, or in a journal file; ask Optuna for errors."""
    if is_journal(url):
        return JournalStorage(JournalFileBackend(url.removeprefix(_JOURNAL)))
    if url == IN_MEMORY:
        return InMemoryStorage()
    storage = RDBStorage(url)
    if url.startswith(_SQLITE):
        event.listen(storage.engine, "connect", _wait_less)
        storage.engine.dispose()  # the connection it has was made before
    return storage


def _wait_less(connection: sqlite3.Connection, _: object) -> None:
    """In write-ahead mode a killed process loses nothing by this, and a machine without power the last moments only."""
    connection.execute("PRAGMA synchronous=NORMAL")


def _write_ahead(url: str) -> None:
    """Put a SQLite file into write-ahead mode, in which readers never block the writer."""
    connection = sqlite3.connect(url.removeprefix(_SQLITE))
    try:
        connection.execute("PRAGMA journal_mode=WAL")
    finally:
        connection.close()


def _test_key(number: int) -> str:
    return f"test_accuracy:{number}"


def no_storage(url: str, error: BaseException) -> StudyError:
    """What to raise where a database cannot be opened; it shows no password."""
    reason = _first_line(error)
    if not is_journal(url) and not can_be_parsed(url):  # what was made of it may show a part of the password
        reason = "no URL of a database; in a password, @ : / are written %40 %3A %2F"
    elif "no password supplied" in reason:
        reason += "; a password is never kept: give it again, or set PGPASSWORD"
    return StudyError(
        f"storage: must be a database that can be opened, got {mask_passwords(url)!r} ({mask_passwords(reason)})"
    )


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
