"""A study as Optuna's dashboard shows it: a copy in memory, with notes, curves, limits, charts and files."""

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.artifacts import upload_artifact
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial

from nas.record.record import Record
from nas.record.trials import TrialRecord
from nas.record.view.shown_files import ShownFiles

_CONSTRAINTS = "constraints"  # attribute that optuna-dashboard 0.21 reads: by how much each limit is exceeded


@dataclass(frozen=True)
class Writers:
    """By what the installed optuna-dashboard writes what it shows."""

    save_note: Callable[[optuna.Study | Trial, str], None]  # of a study or a trial, as Markdown
    save_figure: Callable[..., object]  # a study, a plotly figure, and the figure's name as graph_object_id
    address_of_file: Callable[[optuna.Study, str], str]  # of an artifact by its id


@dataclass(frozen=True)
class Shown:
    """What is shown of a study beside the rows of Optuna's tables."""

    limits: Mapping[str, float]  # the most of an objective, by its name
    attributes: Mapping[int, Mapping[str, object]]  # in place of those that the driver writes, by the trial's number
    notes: Mapping[int, str]  # Markdown, by the trial's number
    note: str  # of the study
    facts: Mapping[str, str]  # of the study, each under a heading
    figures: Mapping[str, Any] = field(default_factory=dict)  # of plotly, by name


def new_storage() -> BaseStorage:
    """A storage in memory, for any number of shown studies."""
    return InMemoryStorage()


class ShownStudy:
    """The copy of one study; the study itself is read and never written."""

    def __init__(self, storage: BaseStorage, name: str, record: Record, writers: Writers) -> None:
        """Begin a copy without trials.

        Args:
            name: Of the copy.
        """
        better = {True: StudyDirection.MAXIMIZE, False: StudyDirection.MINIMIZE}
        directions = [better[is_maximised] for is_maximised in record.objectives.is_maximised]
        self._storage, self._writers = storage, writers
        self._study = optuna.create_study(
            storage=storage, study_name=name, directions=directions, sampler=optuna.samplers.RandomSampler()
        )
        self._study_id = storage.get_study_id_from_name(name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            self._study.set_metric_names([objective.metric for objective in record.objectives])
        self._ids: list[int] = []  # of the copy's trials, by number
        self._open: set[int] = set()  # numbers of trials that had not ended
        self._said: dict[int | None, str] = {}  # notes by trial; None: that of the study
        self._addresses: dict[str, str] = {}  # of files, by name

    def offer(self, files: ShownFiles, paths: Iterable[Path]) -> Mapping[str, str]:
        """Addresses in the dashboard, by name, of those files that exist by now; each is read when it is asked for."""
        for path in paths:
            if path.name not in self._addresses and path.is_file():
                number = upload_artifact(artifact_store=files, file_path=str(path), study_or_trial=self._study)
                self._addresses[path.name] = self._writers.address_of_file(self._study, number)
        return self._addresses

    def update(self, record: Record, shown: Shown) -> None:
        """Bring the copy to where a record stands that was opened just now."""
        known = {trial.number: trial for trial in record}
        for frozen in record.open_study().get_trials(deepcopy=False):
            trial = known.get(frozen.number)
            frozen.user_attrs = dict(shown.attributes.get(frozen.number, {}))
            excess = [_excess(record, trial, name, most) for name, most in shown.limits.items()]
            if frozen.number >= len(self._ids):
                self._add(frozen, trial, excess)
            elif frozen.number in self._open:
                self._go_on(frozen, trial, excess)
        for title, fact in shown.facts.items():
            self._study.set_user_attr(title, fact)
        for name, figure in shown.figures.items():
            self._writers.save_figure(self._study, figure, graph_object_id=name)
        self._say(None, shown.note)
        for number, note in shown.notes.items():
            self._say(number, note)

    def _say(self, number: int | None, note: str) -> None:
        if self._said.get(number) != note:
            subject = self._study if number is None else Trial(self._study, self._ids[number])
            self._writers.save_note(subject, note)
            self._said[number] = note

    def _add(self, frozen: FrozenTrial, trial: TrialRecord | None, excess: list[float]) -> None:
        frozen.intermediate_values = _curve(trial)
        if trial is not None and excess:
            frozen.system_attrs[_CONSTRAINTS] = excess
        self._ids.append(self._storage.create_new_trial(self._study_id, template_trial=frozen))
        if not frozen.state.is_finished():
            self._open.add(frozen.number)

    def _go_on(self, frozen: FrozenTrial, trial: TrialRecord | None, excess: list[float]) -> None:
        trial_id = self._ids[frozen.number]
        for key, value in frozen.user_attrs.items():
            self._storage.set_trial_user_attr(trial_id, key, value)
        if trial is not None and excess:  # what a device measures is known after the beginning
            self._storage.set_trial_system_attr(trial_id, _CONSTRAINTS, excess)
        for epoch, accuracy in _curve(trial).items():
            self._storage.set_trial_intermediate_value(trial_id, epoch, accuracy)
        if frozen.state.is_finished():
            self._storage.set_trial_state_values(trial_id, frozen.state, frozen.values)
            self._open.remove(frozen.number)


def _curve(trial: TrialRecord | None) -> dict[int, float]:
    """Validation accuracy by epoch."""
    return {} if trial is None else {report.epoch: report.val_accuracy for report in trial.progress.curve}


def _excess(record: Record, trial: TrialRecord | None, name: str, most: float) -> float:
    """By how much a trial exceeds a limit; at most 0 where it keeps it, and 0 where that is not measured."""
    [objective] = [each for each in record.objectives if each.name == name]
    value = None if trial is None else objective.value(trial)
    return 0.0 if value is None else value - most
