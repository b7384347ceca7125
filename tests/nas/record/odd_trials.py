"""Trials of every kind that a database of Optuna's can hold, and that both ways to read them agree."""

import optuna

from nas.record.storage import close_storage, open_storage
from nas.record.tables.reading import read_study


def check_read_as_optuna_reads(url: str, name: str = "search") -> None:
    """Compare a study's trials, read in bulk, with what Optuna gives, field by field."""
    storage = open_storage(url)
    try:
        assert isinstance(storage, optuna.storages.RDBStorage)
        expected = optuna.load_study(study_name=name, storage=storage).get_trials(deepcopy=False)
        found = read_study(storage.engine, name)
        assert found is not None
        assert [vars(trial) for trial in found.trials] == [vars(trial) for trial in expected]
    finally:
        close_storage(storage)


def fill_with_odd_trials(url: str) -> None:
    """Add a queued trial, and a study whose values, attributes and reports are at their extremes."""
    storage = optuna.storages.RDBStorage(url)
    optuna.load_study(study_name="search", storage=storage).enqueue_trial({"depth_1": 2})
    other = optuna.create_study(study_name="other", storage=storage)
    for value in (1.5, float("inf"), float("-inf")):
        trial = other.ask()
        trial.suggest_float("x", 1e-5, 1.0, log=True)
        trial.suggest_int("n", 2, 8, step=2)
        trial.suggest_categorical("kind", ["a", None, True, 2])
        for step, reported in enumerate((0.5, float("-inf"), float("inf"))):
            trial.report(reported, step)
        trial.set_user_attr("note", {"text": "<é>", "list": [1, None]})
        other.tell(trial, value)
    close_storage(storage)
