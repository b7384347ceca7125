"""The record: what it reads of earlier versions, and what it does not take for anything else."""

import logging
import sqlite3
from contextlib import closing
from pathlib import Path

import optuna
import pytest

from metaformer.cost import count_cost
from nas.record.notes import EventKind
from nas.record.record import Record
from nas.record.run_folder import open_run
from nas.record.run_log import log_to
from nas.record.storage import sqlite_url
from nas.record.trials import StopReason, TrialState
from nas.study.lease import Report
from nas.study.study import StudyError
from tests.nas.runs import make_run, make_study

STUDY = make_study()


def open_record(path: Path) -> Record:
    return Record(sqlite_url(path / "study.db"), STUDY.make_space(), STUDY.goals, writes=True)


def optuna_study(path: Path) -> optuna.Study:
    """The study as Optuna itself sees it."""
    return optuna.load_study(study_name="search", storage=f"sqlite:///{path / 'study.db'}")


def test_names_that_version_0_1_joined_are_read_one_by_one(tmp_path: Path) -> None:
    record = open_record(tmp_path)
    trial = record.start(record.space.references()["poolformer_s12"])
    storage, [frozen] = optuna_study(tmp_path)._storage, optuna_study(tmp_path).trials
    storage.set_trial_user_attr(frozen._trial_id, "reference", "poolformer_s12_pool7 = poolformer_s12_pool9")
    [again] = open_record(tmp_path).trials
    assert again.references == ("poolformer_s12_pool7", "poolformer_s12_pool9")
    assert again.reference == "poolformer_s12_pool7 = poolformer_s12_pool9"
    assert trial.references == ()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("speed", "fast", r"^storage: notes of the study: speed: .*, got 'fast'$"),
        ("peak_bytes", "much", r"^storage: notes of the study: peak_bytes: .*, got 'much'$"),
        ("overhead_device_seconds", -1, r"^storage: notes of the study: overhead_device_seconds: .*, got -1$"),
        ("events", [{"kind": "rain"}], r"^storage: notes of the study: events.0.kind: "),
    ],
)
def test_a_note_of_another_type_is_an_error_and_is_not_measured_again(
    tmp_path: Path, key: str, value: object, message: str
) -> None:
    open_record(tmp_path)
    optuna_study(tmp_path).set_user_attr(key, value)
    with pytest.raises(StudyError, match=message):
        open_record(tmp_path)


def test_a_stop_reason_that_is_not_known_is_an_error(tmp_path: Path) -> None:
    record = open_record(tmp_path)
    trial = record.start(record.space.smallest("macs"))
    record.end(trial, "stopped", stop_reason=StopReason.STOPPER, reason="for a while")
    [frozen] = optuna_study(tmp_path).trials
    assert frozen.user_attrs["stop_reason"] == "stopper"
    record = open_record(tmp_path)
    assert [(trial.state, trial.stop_reason) for trial in record] == [(TrialState.STOPPED, StopReason.STOPPER)]
    other = record.start(record.space.smallest("params"))
    storage = optuna_study(tmp_path)._storage
    storage.set_trial_user_attr(optuna_study(tmp_path).trials[1]._trial_id, "stop_reason", "whim")
    record.end(other, "stopped")
    with pytest.raises(StudyError, match=r"^storage: trial 1: stop_reason: .*'budget', .*, got 'whim'$"):
        open_record(tmp_path)


def test_the_sentence_beside_a_reason_decides_nothing(tmp_path: Path) -> None:
    record = open_record(tmp_path)
    trial = record.start(record.space.smallest("macs"))
    trial.add_epoch(Report(epoch=1, val_accuracy=0.5, train_loss=1.0, checkpoint="x"))
    sentence = "the budget was spent before its last epoch"
    record.end(trial, "stopped", stop_reason=StopReason.STOPPER, reason=sentence)
    [again] = open_record(tmp_path).trials
    assert (again.stop_reason, again.reason) == (StopReason.STOPPER, sentence)


def test_what_a_run_did_by_itself_is_kept_and_logged_at_once(tmp_path: Path) -> None:
    record = open_record(tmp_path)
    with log_to(tmp_path / "run.log"):
        trial = record.start(record.space.smallest("macs"))
        record.add_event(EventKind.CHECKPOINT, "began again", trial=trial.number)
        assert "WARNING trial 0: began again" in (tmp_path / "run.log").read_text(encoding="utf-8")
    [event] = open_record(tmp_path).notes.events
    assert (event.kind, str(event)) == (EventKind.CHECKPOINT, "trial 0: began again")
    logging.getLogger("nas.record.record").warning("after the block")
    assert "after the block" not in (tmp_path / "run.log").read_text(encoding="utf-8")


def test_a_trial_costs_what_its_architecture_costs(tmp_path: Path) -> None:
    record = open_record(tmp_path)
    trial = record.start(record.space.smallest("params"))
    assert (trial.params, trial.macs) == (count_cost(trial.architecture).params, count_cost(trial.architecture).macs)


@pytest.mark.parametrize("value", ["null", -1.0, 0.5, 2.0**64, 1e400], ids=str)
def test_a_written_cost_that_cannot_be_one_is_an_error(tmp_path: Path, value: object) -> None:
    make_run(tmp_path, max_trials=1).record.close()
    with closing(sqlite3.connect(tmp_path / "study.db")) as connection, connection:
        [row] = connection.execute("SELECT MIN(trial_id) FROM trials WHERE state = 'COMPLETE'").fetchone()
        connection.execute("UPDATE trial_values SET value = ? WHERE trial_id = ? AND objective = 2", (value, row))
    with pytest.raises(StudyError, match=r"^storage: trial \d+: macs: must be a whole number from 0 to "):
        open_run(tmp_path)
