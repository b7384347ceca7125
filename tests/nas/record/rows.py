"""Rows that the driver's storage writes, beside those that Optuna writes."""

import json
from collections.abc import Callable

import optuna
import pytest
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import TrialState, create_trial
from sqlalchemy.pool import NullPool

from nas.record.storage import close_storage, open_storage
from nas.record.tables.writing import end_trial


def check_rows_as_optuna_writes(new_url: Callable[[], str]) -> None:
    """Check that the driver's storage leaves what Optuna's own leaves.

    Somebody queues a trial between two of the driver's; numbers go on, and a gene keeps its distribution.

    Args:
        new_url: Makes a database with Optuna's tables and nothing in them.
    """
    genes: dict[str, BaseDistribution] = {"a": IntDistribution(1, 9), "b": IntDistribution(0, 4, step=2)}
    seen = []
    for kind in ("ours", "optuna"):
        url = new_url()
        storage = open_storage(url, writes=True) if kind == "ours" else RDBStorage(url)
        study = optuna.create_study(storage=storage, directions=["maximize", "minimize"])
        for number, state in enumerate((TrialState.COMPLETE, TrialState.PRUNED)):
            trial = create_trial(
                state=TrialState.RUNNING, params={"a": 3, "b": 2}, distributions=genes, user_attrs={"home": 2, "x": [1]}
            )
            trial_id = storage.create_new_trial(study._study_id, template_trial=trial)
            assert storage.get_trial_number_from_id(trial_id) == 2 * number
            other = RDBStorage(url, engine_kwargs={"poolclass": NullPool})
            optuna.load_study(study_name=study.study_name, storage=other).enqueue_trial({"a": 1})
            storage.set_trial_user_attr(trial_id, "x", {"epoch": 1})
            values = [0.5, 7.0] if state is TrialState.COMPLETE else None
            end_trial(storage, trial_id, state, values=values, attributes={"x": "2", "reason": json.dumps("é")})
            with pytest.raises(UpdateFinishedTrialError):
                end_trial(storage, trial_id, state, values=values, attributes={"x": "3"})
        unlike = create_trial(state=TrialState.RUNNING, params={"a": 1}, distributions={"a": FloatDistribution(0, 1)})
        with pytest.raises(ValueError, match="distribution"):
            storage.create_new_trial(study._study_id, template_trial=unlike)
        seen.append([(t.number, t.state, t.values, t.params, t.distributions, t.user_attrs) for t in study.trials])
        assert all(t.duration is not None for t in study.trials if t.state.is_finished())
        close_storage(storage)
    assert seen[0] == seen[1]
    assert len(seen[0]) == 4
