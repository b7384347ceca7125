"""A study as Optuna's dashboard shows it: a copy in memory, with notes, curves and limits that it reads."""

import warnings
from collections.abc import Callable, Mapping, Sequence

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial

from nas.record.record import Record
from nas.record.trials import TrialRecord

_CONSTRAINTS = "constraints"  # attribute that optuna-dashboard 0.21 reads: by how much each limit is exceeded
SaveNote = Callable[[optuna.Study | Trial, str], None]


def new_storage() -> BaseStorage:
    """A storage in memory, for any number of shown studies."""
    return InMemoryStorage()


class ShownStudy:
    """The copy of one study; the study itself is read and never written."""

    def __init__(self, storage: BaseStorage, name: str, record: Record, save_note: SaveNote) -> None:
        """Begin a copy without trials.

        Args:
            name: Of the copy.
            save_note: Writes the note of a study or a trial as the dashboard reads it.
        """
        better = {True: StudyDirection.MAXIMIZE, False: StudyDirection.MINIMIZE}
        directions = [better[is_maximised] for is_maximised in record.objectives.is_maximised]
        self._storage, self._save_note = storage, save_note
        self._study = optuna.create_study(
            storage=storage, study_name=name, directions=directions, sampler=optuna.samplers.RandomSampler()
        )
        self._study_id = storage.get_study_id_from_name(name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            self._study.set_metric_names([objective.metric for objective in record.objectives])
        self._ids: list[int] = []  # of the copy's trials, by number
        self._open: set[int] = set()  # numbers of trials that had not ended
        self._said: dict[int, str] = {}  # notes by trial

    def update(self, record: Record, limits: Mapping[str, float], notes: Mapping[int, str]) -> None:
        """Bring the copy to where a record stands that was opened just now.

        Args:
            limits: The most of an objective, by its name.
            notes: Markdown, by the trial's number.
        """
        known = {trial.number: trial for trial in record}
        original = record.open_study()
        for key, value in original.user_attrs.items():
            self._study.set_user_attr(key, value)
        for frozen in original.get_trials(deepcopy=False):
            trial = known.get(frozen.number)
            if frozen.number >= len(self._ids):
                self._add(frozen, trial, [_excess(record, trial, name, most) for name, most in limits.items()])
            elif frozen.number in self._open:
                self._go_on(frozen, trial)
        for number, note in notes.items():
            if self._said.get(number) != note:
                self._save_note(Trial(self._study, self._ids[number]), note)
                self._said[number] = note

    def _add(self, frozen: FrozenTrial, trial: TrialRecord | None, constraints: Sequence[float]) -> None:
        frozen.intermediate_values = _curve(trial)
        if trial is not None and constraints:
            frozen.system_attrs[_CONSTRAINTS] = list(constraints)
        self._ids.append(self._storage.create_new_trial(self._study_id, template_trial=frozen))
        if not frozen.state.is_finished():
            self._open.add(frozen.number)

    def _go_on(self, frozen: FrozenTrial, trial: TrialRecord | None) -> None:
        trial_id = self._ids[frozen.number]
        for key, value in frozen.user_attrs.items():
            self._storage.set_trial_user_attr(trial_id, key, value)
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
