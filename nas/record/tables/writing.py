"""Optuna's tables as the one driver of a study writes them: a trial's beginning, reports and end in few statements.

`RDBStorage` reads a gene's earlier rows before it writes the next, and an attribute's trial before the attribute. Here
each of them is one transaction of a few statements, on the same tables and with the same rows, so that Optuna and its
dashboard read them as their own. What is rare goes the way of `RDBStorage`.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    check_distribution_compatibility,
    distribution_to_json,
    json_to_distribution,
)
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, MetaData, Table, Update, bindparam, func, insert, select, update

_NAMES = ("studies", "trials", "trial_params", "trial_user_attributes", "trial_values")


class DriverStorage(RDBStorage):
    """Optuna's storage in a relational database, with fewer statements where a driver writes often.

    What other programs write at the same time, such as a trial that somebody queues, is seen as `RDBStorage` sees it.
    """

    def __init__(self, url: str, **options: Any) -> None:
        """As RDBStorage."""
        super().__init__(url, **options)
        self._written: dict[tuple[int, str], BaseDistribution] = {}  # by study and gene; earlier rows agree with it
        self._last: dict[int, tuple[int, int]] = {}  # by study: id and number of the last trial begun here

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """A new trial; one that has begun, and has no more than genes and attributes, in one transaction."""
        if template_trial is None or not _is_beginning(template_trial):
            return super().create_new_trial(study_id, template_trial)
        genes = [
            {
                "param_name": name,
                "param_value": distribution.to_internal_repr(template_trial.params[name]),
                "distribution_json": distribution_to_json(distribution),
            }
            for name, distribution in template_trial.distributions.items()
        ]
        tables = self._tables
        with self.engine.begin() as connection:
            study = select(tables["studies"].c.study_id).where(tables["studies"].c.study_id == study_id)
            if connection.execute(study.with_for_update()).first() is None:  # two that begin a trial take turns
                raise KeyError(f"no study {study_id}")
            begun_at = template_trial.datetime_start
            row = {
                "study_id": study_id,
                "state": template_trial.state.name,
                "datetime_start": None if begun_at is None else begun_at.astimezone(UTC).replace(tzinfo=None),
            }
            trial_id, number = self._insert_trial(connection, row)
            self._check_genes(connection, study_id, template_trial.distributions)
            if genes:
                connection.execute(insert(tables["trial_params"]), [{"trial_id": trial_id, **gene} for gene in genes])
            self._insert_attributes(connection, trial_id, template_trial.user_attrs)
        self._written.update({(study_id, name): each for name, each in template_trial.distributions.items()})
        self._last[study_id] = trial_id, number
        return trial_id

    def get_trial_number_from_id(self, trial_id: int) -> int:
        """As RDBStorage, which reads all of the trial for it; that of a trial just begun is known."""
        known = dict(self._last.values())
        return known[trial_id] if trial_id in known else super().get_trial_number_from_id(trial_id)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Write an attribute; one that is there already, of a trial that is running, in one statement."""
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            is_written = self._update_attribute(connection, trial_id, key, value)
        if not is_written:
            super().set_trial_user_attr(trial_id, key, value)

    def delete_study(self, study_id: int) -> None:
        """Delete a study; its number may be given again."""
        super().delete_study(study_id)
        self._written = {key: each for key, each in self._written.items() if key[0] != study_id}
        self._last.pop(study_id, None)

    def end_trial(
        self, trial_id: int, state: TrialState, *, values: Sequence[float] | None, attributes: Mapping[str, Any]
    ) -> bool:
        """Write a running trial's last attributes, values and end in one transaction; whether it was running.

        Args:
            values: One finite number for each objective.
        """
        trials = self._tables["trials"]
        ended_at = datetime.now(UTC).replace(tzinfo=None)
        with self.engine.begin() as connection:
            new = {
                key: value
                for key, value in attributes.items()
                if not self._update_attribute(connection, trial_id, key, value)
            }
            is_running = (trials.c.trial_id == trial_id) & (trials.c.state == TrialState.RUNNING.name)
            ended = update(trials).where(is_running).values(state=state.name, datetime_complete=ended_at)
            if connection.execute(ended).rowcount == 0:
                return False
            self._insert_attributes(connection, trial_id, new)
            rows = [
                {"trial_id": trial_id, "objective": objective, "value": value, "value_type": "FINITE"}
                for objective, value in enumerate(values or ())
            ]
            if rows:
                connection.execute(insert(self._tables["trial_values"]), rows)
        return True

    @cached_property
    def _tables(self) -> Mapping[str, Table]:
        """Optuna's tables, as they are in the database."""
        metadata = MetaData()
        metadata.reflect(self.engine, only=_NAMES)
        return metadata.tables

    @cached_property
    def _attribute_update(self) -> Update:
        """The statement that replaces an attribute of a trial that has not ended; to build it takes longer than it."""
        trials, attributes = self._tables["trials"], self._tables["trial_user_attributes"]
        is_open = select(trials.c.trial_id).where(
            (trials.c.trial_id == bindparam("of")) & trials.c.state.in_(("RUNNING", "WAITING"))
        )
        return update(attributes).where(
            (attributes.c.trial_id == bindparam("of")) & (attributes.c.key == bindparam("named")) & is_open.exists()
        )

    def _update_attribute(self, connection: Connection, trial_id: int, key: str, value: Any) -> bool:
        """Whether a trial that has not ended had the attribute, which is the new one then."""
        row = {"of": trial_id, "named": key, "value_json": json.dumps(value)}
        return connection.execute(self._attribute_update, row).rowcount > 0

    def _insert_attributes(self, connection: Connection, trial_id: int, attributes: Mapping[str, Any]) -> None:
        rows = [
            {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)} for key, value in attributes.items()
        ]
        if rows:
            connection.execute(insert(self._tables["trial_user_attributes"]), rows)

    def _insert_trial(self, connection: Connection, row: Mapping[str, Any]) -> tuple[int, int]:
        """The id and the number of a new trial, which says how many were before it; none is counted twice."""
        trials = self._tables["trials"]
        last, number = self._last.get(row["study_id"], (-1, -1))
        since = (trials.c.study_id == row["study_id"]) & (trials.c.trial_id > last)
        count = select(func.count() + number + 1).select_from(trials).where(since).scalar_subquery()
        begun = insert(trials).values(number=count, **row).returning(trials.c.trial_id, trials.c.number)
        trial_id, number = connection.execute(begun).one()
        return trial_id, number

    def _check_genes(
        self, connection: Connection, study_id: int, distributions: Mapping[str, BaseDistribution]
    ) -> None:
        """Check that genes have the distributions of earlier trials.

        Raises:
            ValueError: One has another.
        """
        trials, genes = self._tables["trials"], self._tables["trial_params"]
        for name, distribution in distributions.items():
            before = self._written.get((study_id, name))
            if before is distribution:
                continue
            if before is None:
                one = select(genes.c.distribution_json).join(trials, trials.c.trial_id == genes.c.trial_id).limit(1)
                row = connection.execute(one.where(trials.c.study_id == study_id, genes.c.param_name == name)).first()
                before = distribution if row is None else json_to_distribution(row[0])
            check_distribution_compatibility(before, distribution)


def end_trial(
    storage: BaseStorage,
    trial_id: int,
    state: TrialState,
    *,
    values: Sequence[float] | None,
    attributes: Mapping[str, Any],
) -> None:
    """Write a running trial's last attributes, values and end, in one transaction where the storage has any."""
    if isinstance(storage, DriverStorage) and storage.end_trial(trial_id, state, values=values, attributes=attributes):
        return
    for key, value in attributes.items():
        storage.set_trial_user_attr(trial_id, key, value)
    storage.set_trial_state_values(trial_id, state, values)


def _is_beginning(trial: FrozenTrial) -> bool:
    """Whether a trial is one that has begun, and nothing more."""
    return trial.state is TrialState.RUNNING and not (
        trial.values or trial.system_attrs or trial.intermediate_values or trial.datetime_complete
    )
