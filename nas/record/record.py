"""The study on disk, and its mirror in memory; the driver alone writes it.

A trial's values are told to Optuna once, at its end. Until then its progress (leases, curve, last checkpoint) is one
user attribute, written whole at each report, so that a driver killed at any moment leaves a state that can go on.
"""

import json
import logging
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import BaseStorage, RDBStorage
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from metaformer.architecture import Architecture
from metaformer.cost import count_cost
from metaformer.errors import explain
from nas.record.notes import Event, EventKind, Notes
from nas.record.storage import MALFORMED, close_storage, first_line, newest_tables, no_storage, open_storage
from nas.record.tables.collector import without_collection
from nas.record.tables.reading import read_study
from nas.record.tables.writing import end_trial, set_json
from nas.record.trials import Attributes, Progress, StopReason, TrialRecord, TrialState
from nas.study.objectives import Objectives
from nas.study.study import StudyError
from search_spaces.space import Choice, Genes, SearchSpace, SpaceError

STUDY_NAME = "search"
TrialEnd = Literal["complete", "stopped", "failed"]
_LOG = logging.getLogger(__name__)
_STATES = {
    optuna.trial.TrialState.RUNNING: TrialState.RUNNING,
    optuna.trial.TrialState.COMPLETE: TrialState.COMPLETE,
    optuna.trial.TrialState.PRUNED: TrialState.STOPPED,
    optuna.trial.TrialState.FAIL: TrialState.FAILED,
}
_ENDS: dict[TrialEnd, optuna.trial.TrialState] = {
    "complete": optuna.trial.TrialState.COMPLETE,
    "stopped": optuna.trial.TrialState.PRUNED,
    "failed": optuna.trial.TrialState.FAIL,
}
_BEGINNING = Progress().model_dump(mode="json")
# What version 0.1 wrote in place of a stop reason; such studies go on.
_EARLIER_REASONS = {"the budget was spent before its last epoch": StopReason.BUDGET}
_ATTRIBUTES = frozenset(Attributes.model_fields)
_MOST_COUNTED = 2**53  # Optuna keeps values as floats, which hold whole numbers up to here


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
        raise StudyError(f"{rule}, got {first_line(cause)!r}; the same command goes on when it has") from None


@contextmanager
def _reading(url: str) -> Iterator[None]:
    """Turn what Optuna raises for rows that it did not write so into one line."""
    try:
        yield
    except (StorageInternalError, SQLAlchemyError, sqlite3.Error, OSError, RuntimeError, *MALFORMED) as error:
        raise no_storage(url, error, rule="must hold a study as Optuna writes it") from None


class Record:
    """The trials and notes of one study in an Optuna storage.

    Whatever writes to it raises StudyError where that fails, such as on a full disk.
    """

    def __init__(
        self,
        url: str,
        space: SearchSpace,
        objectives: Objectives,
        *,
        name: str = STUDY_NAME,
        writes: bool = False,
        begins: bool = True,
    ) -> None:
        """Open the study at a storage URL.

        Args:
            url: As Optuna takes it, or `journal:PATH` for a journal file.
            name: Of the study, where the storage holds several.
            writes: Whether this is the one driver's record; it ends trials that a killed driver was about to begin.
                Any other only reads, and writes nothing.
            begins: Whether a driver begins a study that is not there.
        Raises:
            StudyError: The storage cannot be reached, has no such study, or holds trials that are not of this space.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.url = url
        self.name = name
        self.objectives = objectives
        self.space = space
        self._distributions = {choice.name: distribution(choice) for choice in space.choices}
        self._writes, self._begins = writes, begins
        try:
            self._engine = None if writes else newest_tables(url)
            if self._engine is None:
                _ = self._study
        except KeyError:
            raise self._no_study() from None
        except StorageInternalError as error:
            raise no_storage(url, error.__cause__ or error) from None
        except (SQLAlchemyError, sqlite3.Error, ImportError, OSError, RuntimeError, *MALFORMED) as error:
            raise no_storage(url, error) from None
        if writes:
            self._name_metrics()
        self._trial_ids: dict[int, int] = {}  # of Optuna's own, by trial number
        self._genes: dict[int, Genes] = {}  # by trial number
        self.trials: list[TrialRecord] = []
        self.discarded: list[int] = []  # trials that a killed driver had not finished writing down; they cost nothing
        with without_collection():
            self._read_all(writes=writes)

    def _read_all(self, *, writes: bool) -> None:
        """Read the notes and all trials; a driver ends those that were not written whole."""
        attrs, trials = self._read_rows()
        self.notes = _read_notes(attrs)
        for frozen in trials:
            if frozen.state is optuna.trial.TrialState.WAITING:
                continue  # somebody queued it; no trial of ours
            if len(frozen.params) == len(self.space.choices) or frozen.state is optuna.trial.TrialState.COMPLETE:
                self.trials.append(self._read(frozen, attrs))
            elif frozen.state is optuna.trial.TrialState.RUNNING and writes:
                self._discard(frozen.number)
            elif frozen.state is optuna.trial.TrialState.FAIL:
                self.discarded.append(frozen.number)

    @cached_property
    def _storage(self) -> BaseStorage:
        """Optuna's; a reader of tables that are as Optuna makes them now needs none."""
        return open_storage(self.url, writes=self._writes, begins=self._begins, once=not self._writes)

    @cached_property
    def _study(self) -> optuna.Study:
        """The study, which is new where a driver may begin one and there was none; else KeyError."""
        if not (self._writes and self._begins):
            return optuna.load_study(
                study_name=self.name, storage=self._storage, sampler=optuna.samplers.RandomSampler()
            )
        return optuna.create_study(
            storage=self._storage,
            study_name=self.name,
            directions=["maximize" if is_maximised else "minimize" for is_maximised in self.objectives.is_maximised],
            sampler=optuna.samplers.RandomSampler(),  # proposers have their own; nothing is asked of this one
            load_if_exists=True,
        )

    def _name_metrics(self) -> None:
        """Name the values of trials, as Optuna's dashboard shows them, unless they have names."""
        with _reading(self.url):
            is_named = self._study.metric_names is not None
        if not is_named:
            with _writing(), warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                self._study.set_metric_names([objective.metric for objective in self.objectives])

    def _read_rows(self) -> tuple[dict[str, Any], list[optuna.trial.FrozenTrial]]:
        """The attributes of the study, and its trials, as Optuna reads them.

        Raises:
            StudyError: It cannot.
        """
        with _reading(self.url):
            engine = self._engine or (self._storage.engine if isinstance(self._storage, RDBStorage) else None)
            if engine is None:
                self._study_id = self._storage.get_study_id_from_name(self.name)
                return self._study.user_attrs, self._study.get_trials(deepcopy=False)
            found = read_study(engine, self.name, as_text=("progress",))
        if found is None:
            raise self._no_study()
        self._study_id = found.study_id
        return found.attributes, found.trials

    def _no_study(self) -> StudyError:
        return no_storage(self.url, LookupError(f"it holds no study of the name {self.name}"))

    def __iter__(self) -> Iterator[TrialRecord]:
        return iter(self.trials)

    def close(self) -> None:
        """Leave the storage; a SQLite file then holds all by itself, without a log of changes beside it."""
        if self._engine is None:
            close_storage(self._storage)

    def open_study(self) -> optuna.Study:
        """The study as Optuna opens it, on connections of its own, by which nothing can be written.

        It shows what a driver writes later, which this record does not.

        Raises:
            StudyError: It cannot be opened.
        """
        with _reading(self.url):
            storage = open_storage(self.url)
            return optuna.load_study(study_name=self.name, storage=storage, sampler=optuna.samplers.RandomSampler())

    @property
    def complete(self) -> list[TrialRecord]:
        """The trials trained to the end, oldest first."""
        return [trial for trial in self.trials if trial.state is TrialState.COMPLETE]

    def genes(self, trial: TrialRecord) -> Genes:
        """The genes written for the trial of this number; encoded where this record has none."""
        return self._genes.get(trial.number) or self.space.encode(trial.architecture)

    @property
    def spent_seconds(self) -> float:
        """Device-seconds of the study in all."""
        return self.notes.overhead_device_seconds + self.lost_seconds + sum(t.device_seconds for t in self.trials)

    @property
    def confirm_seconds(self) -> float:
        """Device-seconds of trainings with further seeds, in a search."""
        return sum(trial.device_seconds + trial.lost_seconds for trial in self.trials if trial.seed is not None)

    @property
    def lost_seconds(self) -> float:
        """Device-seconds of leases whose driver was killed, after their last report."""
        return sum(trial.lost_seconds for trial in self.trials)

    # ------------------------------------------------------------------ trials

    def start(
        self,
        architecture: Architecture,
        *,
        genes: Genes | None = None,
        references: tuple[str, ...] = (),
        seed: int | None = None,
    ) -> TrialRecord:
        """A new trial of an architecture, perhaps that of hand-designed models; written in one transaction.

        Args:
            genes: Canonical ones, of which it was decoded; None: it was not.
            seed: Of its training; None: that of the study.
        """
        attrs = {"references": list(references) or None, "seed": seed, "progress": _BEGINNING}
        attrs = {name: value for name, value in attrs.items() if value is not None}
        if genes is None:
            genes = self.space.encode(architecture)
            architecture = self.space.decode(genes)
        return self._create(architecture, genes, attrs)

    def go_on(self, stopped: TrialRecord) -> TrialRecord:
        """A new trial that takes up an ended one where it stood: its curve and checkpoints, but no charges."""
        progress = stopped.progress.model_copy(update={"leases": ()})
        attrs: dict[str, Any] = {"home": stopped.checkpoint_trial, "progress": progress.model_dump(mode="json")}
        if stopped.references:
            attrs["references"] = list(stopped.references)
        if stopped.seed is not None:
            attrs["seed"] = stopped.seed
        return self._create(stopped.architecture, self.space.encode(stopped.architecture), attrs)

    @_writing()
    def save(self, trial: TrialRecord) -> None:
        """Write a running trial's progress."""
        set_json(self._storage, self._trial_id(trial), "progress", trial.progress.model_dump_json())

    @_writing()
    def end(
        self, trial: TrialRecord, how: TrialEnd, *, stop_reason: StopReason | None = None, reason: str | None = None
    ) -> None:
        """Write a trial's last progress and tell its end.

        Args:
            stop_reason: Of a trial that was stopped.
            reason: The sentence that says why it was stopped or failed.
        """
        said = {"stop_reason": stop_reason and stop_reason.value, "reason": reason}
        attributes = {name: json.dumps(text) for name, text in said.items() if text}
        attributes["progress"] = trial.progress.model_dump_json()
        values = self.objectives.values(trial) if how == "complete" else None
        end_trial(self._storage, self._trial_id(trial), _ENDS[how], values=values, attributes=attributes)
        trial.stop_reason, trial.reason, trial.state = stop_reason, reason, TrialState(how)
        accuracy = "" if trial.val_accuracy is None else f" at {trial.val_accuracy:.2%}"
        because = f": {reason}" if reason else ""
        _LOG.info("trial %d %s after epoch %d%s%s", trial.number, how, trial.num_epochs, accuracy, because)

    @_writing()
    def set_test_accuracy(self, trial: TrialRecord, accuracy: float) -> None:
        """Write the accuracy on the test split; kept with the study, since an ended trial takes no more attributes."""
        self._study.set_user_attr(_test_key(trial.number), accuracy)
        trial.test_accuracy = accuracy

    # ------------------------------------------------------------------ notes

    @_writing()
    def note(self, **changes: Any) -> None:
        """Write notes beside the trials, by the names of `Notes`; ask pydantic for errors."""
        checked = Notes.model_validate(changes)
        self.notes = self.notes.model_copy(update={name: getattr(checked, name) for name in changes})
        for key, value in checked.model_dump(mode="json", include=set(changes)).items():
            self._study.set_user_attr(key, value)

    def add_overhead(self, seconds: float) -> None:
        """Write that device-seconds were spent outside training leases."""
        self.note(overhead_device_seconds=self.notes.overhead_device_seconds + seconds)

    def add_event(self, kind: EventKind, text: str, *, trial: int | None = None) -> Event:
        """Write, and log, what the run did without being asked."""
        event = Event(kind=kind, text=text, at=datetime.now(UTC).isoformat(timespec="seconds"), trial=trial)
        _LOG.warning("%s", event)
        self.note(events=(*self.notes.events, event))
        return event

    # ------------------------------------------------------------------ Optuna

    @_writing()
    def _create(self, architecture: Architecture, genes: Genes, attrs: dict[str, Any]) -> TrialRecord:
        frozen = optuna.trial.create_trial(
            state=optuna.trial.TrialState.RUNNING,
            params=genes,
            distributions=self._distributions,
            user_attrs=attrs,
        )
        trial_id = self._storage.create_new_trial(self._study_id, template_trial=frozen)
        frozen.number = self._storage.get_trial_number_from_id(trial_id)  # all else is as it was handed over
        self._trial_ids[frozen.number] = trial_id
        trial = self._trial(frozen, architecture, {})
        self.trials.append(trial)
        return trial

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
            architecture = self.space.decode(frozen.params)
        except (SpaceError, *MALFORMED) as error:
            raise StudyError(
                f"storage: must hold trials of {self.space.name}, got trial {frozen.number} ({first_line(error)})"
            ) from None
        return self._trial(frozen, architecture, notes)

    def _trial(
        self, frozen: optuna.trial.FrozenTrial, architecture: Architecture, notes: dict[str, object]
    ) -> TrialRecord:
        where = f"storage: trial {frozen.number}"
        known = {name: value for name, value in frozen.user_attrs.items() if name in _ATTRIBUTES}
        if isinstance(known.get("progress"), str):
            known["progress"] = _parse_progress(where, known["progress"])
        try:
            attrs = Attributes.model_validate(
                {"home": frozen.number, **known, "test_accuracy": notes.get(_test_key(frozen.number))}
            )
        except ValidationError as error:
            raise StudyError(f"{where}: {explain(error, Attributes)}") from None
        params, macs = self._costs_of(frozen, architecture)
        self._genes[frozen.number] = frozen.params
        trial = TrialRecord(
            number=frozen.number,
            architecture=architecture,
            params=params,
            macs=macs,
            checkpoint_trial=attrs.home,
            references=attrs.names_of_references,
            seed=attrs.seed,
            state=_STATES[frozen.state],
            stop_reason=_stop_reason(attrs) if frozen.state is optuna.trial.TrialState.PRUNED else None,
            reason=attrs.reason,
            progress=attrs.progress,
            test_accuracy=attrs.test_accuracy,
            begun_at=_utc(frozen.datetime_start),
            ended_at=_utc(frozen.datetime_complete),
        )
        if trial.state is TrialState.COMPLETE:
            try:
                self.objectives.values(trial)
            except ValueError as error:
                raise StudyError(f"{where}: {error}") from None
        return trial

    def _costs_of(self, frozen: optuna.trial.FrozenTrial, architecture: Architecture) -> tuple[int, int]:
        """Parameters and MACs: those written with its values, if any; to count them again takes longer."""
        # Not strict: only a complete trial has values, and a damaged study may hold too few
        written = dict(zip(self.objectives.names, frozen.values, strict=False)) if frozen.values else {}
        if {"params", "macs"} <= written.keys():
            for name in ("params", "macs"):
                _check_count(f"storage: trial {frozen.number}: {name}", written[name])
            return int(written["params"]), int(written["macs"])
        cost = count_cost(architecture)
        return cost.params, cost.macs


def _parse_progress(where: str, text: str) -> Progress:
    try:
        return Progress.model_validate_json(text)
    except ValidationError as error:
        raise StudyError(f"{where}: progress: {explain(error, Progress)}") from None


def _check_count(where: str, value: object) -> None:
    # Numbers, as Optuna keeps them; SQLite holds whatever was written into a column, text too
    if not (isinstance(value, float | int) and 0 <= value < _MOST_COUNTED and value == int(value)):
        raise StudyError(f"{where}: must be a whole number from 0 to 2**53, got {value!r}")


def distribution(choice: Choice) -> BaseDistribution:
    """The Optuna distribution that `SearchSpace.suggest` uses for a choice."""
    if choice.numbers:
        return IntDistribution(choice.numbers[0], choice.numbers[-1], step=choice.numbers.step)
    return CategoricalDistribution(choice.values)


def _read_notes(attrs: dict[str, Any]) -> Notes:
    """The notes among a study's attributes.

    Raises:
        StudyError: One is of another type.
    """
    try:
        return Notes.model_validate({name: attrs[name] for name in Notes.model_fields if name in attrs})
    except ValidationError as error:
        raise StudyError(f"storage: notes of the study: {explain(error, Notes)}") from None


def _stop_reason(attrs: Attributes) -> StopReason:
    """Why a trial was stopped; version 0.1 wrote the sentence alone."""
    return attrs.stop_reason or _EARLIER_REASONS.get(attrs.reason or "", StopReason.STOPPER)


def _utc(local: datetime | None) -> datetime | None:
    """A time as Optuna gives it, which is local and says no zone."""
    return None if local is None else local.astimezone(UTC)


def _test_key(number: int) -> str:
    return f"test_accuracy:{number}"
