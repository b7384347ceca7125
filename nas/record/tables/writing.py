"""Optuna's tables as the one driver of a study writes them: a trial's beginning, reports and end in few statements.

`RDBStorage` reads a gene's earlier rows before it writes the next, and an attribute's trial before the attribute. Here
each of them is one transaction of a few statements, on the same tables and with the same rows, so that Optuna and its
dashboard read them as their own. What is rare goes the way of `RDBStorage`.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from threading import RLock
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    check_distribution_compatibility,
    distribution_to_json,
    json_to_distribution,
)
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import (
    Connection,
    CursorResult,
    Dialect,
    Insert,
    Integer,
    MetaData,
    Select,
    Table,
    Update,
    bindparam,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.exc import SQLAlchemyError

_NAMES = ("studies", "trials", "trial_params", "trial_user_attributes", "trial_values")
_NOT_PICKLED = {"_kept", "_keeping", "_statements"}


class DriverStorage(RDBStorage):
    """Optuna's storage in a relational database, with fewer statements where a driver writes often.

    What other programs write at the same time, such as a trial that somebody queues, is seen as `RDBStorage` sees it.
    """

    def __init__(self, url: str, **options: Any) -> None:
        """As RDBStorage."""
        super().__init__(url, **options)
        self._written: dict[tuple[int, str], BaseDistribution] = {}  # by study and gene; earlier rows agree with it
        self._last: dict[int, tuple[int, int]] = {}  # by study: id and number of the last trial begun here
        self._texts: dict[tuple[int, str], tuple[BaseDistribution, str]] = {}  # by study and gene: as JSON
        self._kept: Connection | None = None  # for attributes, each written in a transaction of its own
        self._keeping = RLock()  # held by the thread that uses that connection

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name not in _NOT_PICKLED}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._kept, self._keeping = None, RLock()

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """A new trial; one that has begun, and has no more than genes and attributes, in one transaction."""
        if template_trial is None or not _is_beginning(template_trial):
            return super().create_new_trial(study_id, template_trial)
        genes = [
            {
                "param_name": name,
                "param_value": distribution.to_internal_repr(template_trial.params[name]),
                "distribution_json": self._json_of(study_id, name, distribution),
            }
            for name, distribution in template_trial.distributions.items()
        ]
        statements = self._statements
        with self.engine.begin() as connection:
            if statements.lock_study.execute(connection, {"of": study_id}).first() is None:  # two drivers take turns
                raise KeyError(f"no study {study_id}")
            begun_at = template_trial.datetime_start
            last, number = self._last.get(study_id, (-1, -1))
            row = {
                "of": study_id,
                "how": template_trial.state.name,
                "at": None if begun_at is None else statements.time(begun_at),
                "last": last,
                "next": number + 1,
            }
            trial_id, number = map(int, statements.begin_trial.execute(connection, row).one())
            self._check_genes(connection, study_id, template_trial.distributions)
            statements.insert_genes.execute_all(connection, [{"trial_id": trial_id, **gene} for gene in genes])
            attributes = {key: json.dumps(value) for key, value in template_trial.user_attrs.items()}
            self._insert_attributes(connection, trial_id, attributes)
        self._written.update({(study_id, name): each for name, each in template_trial.distributions.items()})
        self._last[study_id] = trial_id, number
        return trial_id

    def get_trial_number_from_id(self, trial_id: int) -> int:
        """As RDBStorage, which reads all of the trial for it; that of a trial just begun is known."""
        known = dict(self._last.values())
        return known[trial_id] if trial_id in known else super().get_trial_number_from_id(trial_id)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Write an attribute, as `set_json`."""
        self.set_json(trial_id, key, json.dumps(value))

    def set_json(self, trial_id: int, key: str, text: str) -> None:
        """Write an attribute that is JSON already; one that is there, of a trial that is running, in one statement."""
        with self._keeping:
            if self._kept is None:
                self._kept = self.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            try:
                is_written = self._update_attribute(self._kept, trial_id, key, text)
            except SQLAlchemyError:  # the next one is written on a new connection
                self._close_kept()
                raise
        if not is_written:
            super().set_trial_user_attr(trial_id, key, json.loads(text))

    def remove_session(self) -> None:
        """As RDBStorage; no connection is left in use."""
        super().remove_session()
        self._close_kept()

    def _close_kept(self) -> None:
        with self._keeping:
            kept, self._kept = self._kept, None
            if kept is not None:
                kept.close()

    def delete_study(self, study_id: int) -> None:
        """Delete a study; its number may be given again."""
        super().delete_study(study_id)
        self._written = {key: each for key, each in self._written.items() if key[0] != study_id}
        self._last.pop(study_id, None)

    def end_trial(
        self, trial_id: int, state: TrialState, *, values: Sequence[float] | None, attributes: Mapping[str, str]
    ) -> bool:
        """Write a running trial's last attributes, values and end in one transaction; whether it was running.

        Args:
            values: One finite number for each objective.
            attributes: By name, as JSON.
        """
        ended = {"of": trial_id, "how": state.name, "at": self._statements.time(datetime.now(UTC))}
        with self.engine.begin() as connection:
            new = {
                key: text
                for key, text in attributes.items()
                if not self._update_attribute(connection, trial_id, key, text)
            }
            if self._statements.end_trial.execute(connection, ended).rowcount == 0:
                return False
            self._insert_attributes(connection, trial_id, new)
            rows = [
                {"trial_id": trial_id, "objective": objective, "value": value, "value_type": "FINITE"}
                for objective, value in enumerate(values or ())
            ]
            self._statements.insert_values.execute_all(connection, rows)
        return True

    @cached_property
    def _statements(self) -> "_Statements":
        """What is written often; to build a statement takes longer than to carry it out."""
        metadata = MetaData()
        metadata.reflect(self.engine, only=_NAMES)
        return _Statements(metadata.tables, self.engine.dialect)

    def _update_attribute(self, connection: Connection, trial_id: int, key: str, text: str) -> bool:
        """Whether a trial that has not ended had the attribute, which is the new one then."""
        row = {"of": trial_id, "named": key, "value_json": text}
        return self._statements.update_attribute.execute(connection, row).rowcount > 0

    def _insert_attributes(self, connection: Connection, trial_id: int, attributes: Mapping[str, str]) -> None:
        rows = [{"trial_id": trial_id, "key": key, "value_json": text} for key, text in attributes.items()]
        self._statements.insert_attributes.execute_all(connection, rows)

    def _json_of(self, study_id: int, name: str, distribution: BaseDistribution) -> str:
        """A gene's distribution as Optuna writes it."""
        known = self._texts.get((study_id, name))
        if known is None or known[0] is not distribution:
            known = self._texts[study_id, name] = distribution, distribution_to_json(distribution)
        return known[1]

    def _check_genes(
        self, connection: Connection, study_id: int, distributions: Mapping[str, BaseDistribution]
    ) -> None:
        """Check that genes have the distributions of earlier trials.

        Raises:
            ValueError: One has another.
        """
        for name, distribution in distributions.items():
            before = self._written.get((study_id, name))
            if before is distribution:
                continue
            if before is None:
                row = connection.execute(self._statements.find_gene, {"of": study_id, "named": name}).first()
                before = distribution if row is None else json_to_distribution(row[0])
            check_distribution_compatibility(before, distribution)


class _Prepared:
    """A statement as text, without what SQLAlchemy does each time that it carries one out."""

    def __init__(
        self, statement: Insert | Update | Select[Any], dialect: Dialect, *, columns: Sequence[str] = ()
    ) -> None:
        """Translate it; `columns` are those that it sets, unless it names them itself."""
        compiled = statement.compile(dialect=dialect, column_keys=columns)
        self._text, self._fixed = str(compiled), compiled.params
        self._order: Sequence[str] | None = getattr(compiled, "positiontup", None)  # None: by name

    def execute(self, connection: Connection, row: Mapping[str, Any]) -> CursorResult[Any]:
        """Carry it out."""
        return connection.exec_driver_sql(self._text, self._given(row))

    def execute_all(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Carry it out for each row."""
        if rows:
            connection.exec_driver_sql(self._text, [self._given(row) for row in rows])

    def _given(self, row: Mapping[str, Any]) -> Any:
        values = {**self._fixed, **row}
        return values if self._order is None else tuple(values[name] for name in self._order)


class _Statements:
    """Statements on Optuna's tables, as they are in a database."""

    def __init__(self, tables: Mapping[str, Table], dialect: Dialect) -> None:
        """Build them.

        Args:
            tables: By name.
        """
        trials, genes, attributes = (tables[name] for name in ("trials", "trial_params", "trial_user_attributes"))
        study_id, trial_id = tables["studies"].c.study_id, trials.c.trial_id
        self._write_time = trials.c.datetime_start.type.dialect_impl(dialect).bind_processor(dialect)
        lock_study = select(study_id).where(study_id == bindparam("of")).with_for_update()
        self.lock_study = _Prepared(lock_study, dialect)
        since = (trials.c.study_id == bindparam("of")) & (trial_id > bindparam("last"))
        number = select(func.count() + bindparam("next", type_=Integer)).select_from(trials).where(since)
        begun: dict[str, Any] = {
            "study_id": bindparam("of"),
            "state": bindparam("how"),
            "datetime_start": bindparam("at"),
        }
        new = insert(trials).values(number=number.scalar_subquery(), **begun)  # how many were before it
        self.begin_trial = _Prepared(new.returning(trial_id, trials.c.number), dialect)
        new_gene, new_attribute = insert(genes).inline(), insert(attributes).inline()
        columns = ["trial_id", "param_name", "param_value", "distribution_json"]
        self.insert_genes = _Prepared(new_gene, dialect, columns=columns)
        self.insert_attributes = _Prepared(new_attribute, dialect, columns=["trial_id", "key", "value_json"])
        columns = ["trial_id", "objective", "value", "value_type"]
        self.insert_values = _Prepared(insert(tables["trial_values"]).inline(), dialect, columns=columns)
        of_study = select(genes.c.distribution_json).join(trials, trial_id == genes.c.trial_id).limit(1)
        self.find_gene = of_study.where(trials.c.study_id == bindparam("of"), genes.c.param_name == bindparam("named"))
        states = (trials.c.state == TrialState.RUNNING.name) | (trials.c.state == TrialState.WAITING.name)
        is_open = select(trial_id).where((trial_id == bindparam("of")) & states)
        update_attribute = update(attributes).where(
            (attributes.c.trial_id == bindparam("of")) & (attributes.c.key == bindparam("named")) & is_open.exists()
        )
        self.update_attribute = _Prepared(update_attribute, dialect, columns=["value_json"])
        is_running = (trial_id == bindparam("of")) & (trials.c.state == TrialState.RUNNING.name)
        end: dict[str, Any] = {"state": bindparam("how"), "datetime_complete": bindparam("at")}
        self.end_trial = _Prepared(update(trials).where(is_running).values(end), dialect)

    def time(self, moment: datetime) -> object:
        """A time as the database is given it: UTC that says no zone."""
        moment = moment.astimezone(UTC).replace(tzinfo=None)
        return moment if self._write_time is None else self._write_time(moment)


def set_json(storage: BaseStorage, trial_id: int, key: str, text: str) -> None:
    """Write a trial's attribute that is JSON already."""
    if isinstance(storage, DriverStorage):
        storage.set_json(trial_id, key, text)
    else:
        storage.set_trial_user_attr(trial_id, key, json.loads(text))


def end_trial(
    storage: BaseStorage,
    trial_id: int,
    state: TrialState,
    *,
    values: Sequence[float] | None,
    attributes: Mapping[str, str],
) -> None:
    """Write a running trial's last attributes, values and end, in one transaction where the storage has any.

    Args:
        attributes: By name, as JSON.
    """
    if isinstance(storage, DriverStorage) and storage.end_trial(trial_id, state, values=values, attributes=attributes):
        return
    for key, text in attributes.items():
        storage.set_trial_user_attr(trial_id, key, json.loads(text))
    storage.set_trial_state_values(trial_id, state, values)


def _is_beginning(trial: FrozenTrial) -> bool:
    """Whether a trial is one that has begun, and nothing more."""
    return trial.state is TrialState.RUNNING and not (
        trial.values or trial.system_attrs or trial.intermediate_values or trial.datetime_complete
    )
