"""A study in a few queries of Optuna's tables, where Optuna itself asks for each five hundred trials anew.

A trial has many rows: one for each parameter, attribute and value. SQLAlchemy's objects of these rows take most of the
time in which Optuna reads a large study, so that plain tuples are read here. The distribution of a parameter is longer
than the rest of its row, and the same in all trials: it is read once, unless trials differ in it.
"""

import json
from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.storages._rdb import models  # the tables have no public name
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, Engine, Select, Table, select, text
from sqlalchemy.exc import SQLAlchemyError

NEWEST = "v3.2.0.a"  # the last change of Optuna's tables, by its own name


class Rows(NamedTuple):
    """A study as Optuna reads it, at one moment."""

    study_id: int
    attributes: dict[str, Any]
    trials: list[FrozenTrial]  # by rising number


def are_newest(engine: Engine) -> bool:
    """Whether the tables are there, and are those that this version of Optuna makes.

    It is what Optuna checks when it opens a storage; for that it loads what brings older tables up to date, a third of
    a second.
    """
    with engine.connect() as connection:
        try:
            change = connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all()
            schema = connection.execute(select(models.VersionInfoModel.schema_version)).scalars().all()
        except SQLAlchemyError:
            return False
    return change == [NEWEST] and schema == [models.SCHEMA_VERSION]


def read_study(engine: Engine, name: str, *, as_text: Collection[str] = ()) -> Rows | None:
    """A study with its trials as `Study.get_trials` gives them; None where there is none of that name.

    Nothing is written.

    Args:
        as_text: Attributes of trials that are left as the JSON that they are.
    """
    of_study = models.StudyUserAttributeModel
    with engine.connect() as connection, connection.begin():
        found = connection.execute(select(models.StudyModel.study_id).where(models.StudyModel.study_name == name))
        study_id = found.scalar()
        if study_id is None:
            return None
        of_direction = models.StudyDirectionModel
        directions = select(of_direction.direction).where(of_direction.study_id == study_id)
        connection.execute(directions).all()  # raises where one is none, as in Optuna
        attributes = connection.execute(select(of_study.key, of_study.value_json).where(of_study.study_id == study_id))
        loaded = {str(key): json.loads(value) for key, value in attributes}
        return Rows(study_id, loaded, _read_trials(connection, study_id, as_text))


def _read_trials(connection: Connection, study_id: int, as_text: Collection[str]) -> list[FrozenTrial]:
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
    kinds = list(connection.execute(of_study(models.TrialParamModel, "param_name", "distribution_json").distinct()))
    known = {kind: json_to_distribution(kind) for _, kind in kinds}
    of_name: dict[str, str] = {str(name): str(kind) for name, kind in kinds}
    of_params = ("param_name", "param_value", *(["distribution_json"] if len(of_name) < len(kinds) else []))
    read: dict[tuple[Any, ...], tuple[str, Any, BaseDistribution]] = {}  # by what stands in a row
    result = connection.execute(of_study(models.TrialParamModel, "trial_id", *of_params))
    plain = [] if result.cursor is None else result.cursor.fetchall()  # SQLAlchemy's rows take as long again
    result.close()
    for trial_id, *row in plain:
        own = params.get(trial_id)
        if own is None:
            continue
        key = tuple(row)
        if key not in read:
            name, value, *kind = row
            parsed = known[kind[0] if kind else of_name[name]]
            read[key] = name, parsed.to_external_repr(value), parsed
        name, own[name], distributions[trial_id][name] = read[key]
    attributes: list[dict[int, dict[str, Any]]] = []
    for model in (models.TrialUserAttributeModel, models.TrialSystemAttributeModel):
        found: dict[int, dict[str, Any]] = defaultdict(dict)
        for trial_id, key, value in rows(model, "key", "value_json"):
            found[trial_id][key] = value if key in as_text else json.loads(value)
        attributes.append(found)
    values: dict[int, dict[int, float]] = defaultdict(dict)
    to_value = models.TrialValueModel.stored_repr_to_value
    for trial_id, objective, value, how in rows(models.TrialValueModel, "objective", "value", "value_type"):
        values[trial_id][objective] = to_value(value, how)
    steps: dict[int, dict[int, float]] = defaultdict(dict)
    to_step = models.TrialIntermediateValueModel.stored_repr_to_intermediate_value
    of_steps = ("step", "intermediate_value", "intermediate_value_type")
    for trial_id, step, value, how in rows(models.TrialIntermediateValueModel, *of_steps):
        steps[trial_id][step] = to_step(value, how)
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
