"""All trials of a study in a few queries of Optuna's tables, where Optuna itself asks for each five hundred anew.

A trial has many rows: one for each parameter, attribute and value. SQLAlchemy's objects of these rows take most of the
time in which Optuna reads a large study, so that plain tuples are read here. The distribution of a parameter is longer
than the rest of its row, and the same in all trials: it is read once, unless trials differ in it.
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.storages import RDBStorage
from optuna.storages._rdb import models  # the tables have no public name
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, Select, Table, select


def read_trials(storage: RDBStorage, study_id: int) -> list[FrozenTrial]:
    """The trials of a study by rising number, as `Study.get_trials` gives them; nothing is written."""
    with storage.engine.connect() as connection, connection.begin():
        return _read(connection, study_id)


def _read(connection: Connection, study_id: int) -> list[FrozenTrial]:
    trials: Table = models.TrialModel.__table__

    def of_study(model: Any, *columns: str) -> Select[Any]:
        """Some columns of a table that belongs to trials."""
        table: Table = model.__table__
        chosen = select(*(table.c[name] for name in columns))
        return chosen.join(trials, trials.c.trial_id == table.c.trial_id).where(trials.c.study_id == study_id)

    def rows(model: Any, *columns: str) -> Sequence[Any]:
        """The same of all trials, with the trial of each row first."""
        return connection.execute(of_study(model, "trial_id", *columns)).all()

    columns = ("trial_id", "number", "state", "datetime_start", "datetime_complete")
    query = select(*(trials.c[name] for name in columns)).where(trials.c.study_id == study_id)
    heads = list(connection.execute(query.order_by(trials.c.number)))  # first: what a driver adds later is left out
    params: dict[int, dict[str, Any]] = {head.trial_id: {} for head in heads}
    distributions: dict[int, dict[str, BaseDistribution]] = {head.trial_id: {} for head in heads}
    texts = list(connection.execute(of_study(models.TrialParamModel, "param_name", "distribution_json").distinct()))
    known = {text: json_to_distribution(text) for _, text in texts}
    of_name: dict[str, str] = {str(name): str(text) for name, text in texts}
    of_params = ("param_name", "param_value", *(["distribution_json"] if len(of_name) < len(texts) else []))
    values_of: dict[tuple[Any, ...], Any] = {}
    for trial_id, name, value, *text in rows(models.TrialParamModel, *of_params):
        if trial_id not in params:
            continue
        parsed = known[text[0] if text else of_name[name]]
        key = (name, value, *text)
        if key not in values_of:
            values_of[key] = parsed.to_external_repr(value)
        distributions[trial_id][name] = parsed
        params[trial_id][name] = values_of[key]
    attributes: list[dict[int, dict[str, Any]]] = []
    for model in (models.TrialUserAttributeModel, models.TrialSystemAttributeModel):
        found: dict[int, dict[str, Any]] = defaultdict(dict)
        for trial_id, key, text in rows(model, "key", "value_json"):
            found[trial_id][key] = json.loads(text)
        attributes.append(found)
    values: dict[int, dict[int, float]] = defaultdict(dict)
    to_value = models.TrialValueModel.stored_repr_to_value
    for trial_id, objective, value, kind in rows(models.TrialValueModel, "objective", "value", "value_type"):
        values[trial_id][objective] = to_value(value, kind)
    steps: dict[int, dict[int, float]] = defaultdict(dict)
    to_step = models.TrialIntermediateValueModel.stored_repr_to_intermediate_value
    of_steps = ("step", "intermediate_value", "intermediate_value_type")
    for trial_id, step, value, kind in rows(models.TrialIntermediateValueModel, *of_steps):
        steps[trial_id][step] = to_step(value, kind)
    return [
        FrozenTrial(
            number=number,
            state=TrialState(state),
            value=None,
            values=[of_trial[i] for i in range(len(of_trial))] if (of_trial := values.get(trial_id)) else None,
            datetime_start=start,
            datetime_complete=end,
            params=params[trial_id],
            distributions=distributions[trial_id],
            user_attrs=attributes[0][trial_id],
            system_attrs=attributes[1][trial_id],
            intermediate_values=steps[trial_id],
            trial_id=trial_id,
        )
        for trial_id, number, state, start, end in heads
    ]
