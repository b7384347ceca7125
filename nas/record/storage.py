"""Optuna storages by URL: opening them, and what to say where that fails."""

import os
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy import URL, Engine, create_engine, event, inspect, make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from metaformer.documents import check_path, exists, is_folder
from metaformer.errors import check_type, mask_passwords
from nas.record.tables.reading import are_newest
from nas.record.tables.writing import DriverStorage
from nas.study.database_url import can_be_parsed, is_kept
from nas.study.study import StudyError

IN_MEMORY = "memory:"  # storage URL of a record that ends with its process, as simulations need
_JOURNAL = "journal:"
MALFORMED = (
    AssertionError,
    AttributeError,
    LookupError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
)  # of rows that lie


def check_storage(url: str) -> None:
    """Check that a database answers at a storage URL, and is still there later; no table is made there.

    Raises:
        StudyError: None does, or it is in memory.
    """
    if not is_kept(url):
        raise StudyError(
            f"storage: must be a database that stays when the program ends, got {url!r}, which is in memory; "
            "without --storage it is a file in the run's folder"
        )
    if is_journal(url):
        check_path(_journal_path(url), "storage", error=StudyError)
    try:
        if is_journal(url):
            path = _journal_path(url)
            if not is_folder(path.absolute().parent):
                raise FileNotFoundError("no such folder")
            if exists(path):
                open_storage(url)
            return
        engine = create_engine(url)
        inspect(engine).get_table_names()
        engine.dispose()
    except (SQLAlchemyError, ImportError, OSError, *MALFORMED) as error:
        raise no_storage(url, error) from None


def is_journal(url: str) -> bool:
    """Whether a storage URL means a journal file rather than a database."""
    return url.startswith(_JOURNAL)


def sqlite_url(path: Path) -> str:
    """The storage URL of a SQLite file, whatever characters its path has."""
    return _rendered(URL.create("sqlite", database=str(path.resolve())))


def open_storage(url: str, *, writes: bool = False, begins: bool = True, once: bool = False) -> BaseStorage:
    """The Optuna storage at a URL, or in a journal file; ask Optuna for errors.

    Args:
        writes: Whether this is the one driver's; a SQLite file is then put into write-ahead mode. Without it nothing
            is written, and a SQLite file is opened read-only.
        begins: Whether a driver makes tables and files that are not there.
        once: Whether a reader reads now and never again, so that it may leave no trace beside a SQLite file.
    Raises:
        FileNotFoundError: There is no such file, and none is to be made.
    """
    check_type(url, str, "storage: must be the URL of a database", error=StudyError)
    makes = writes and begins
    if is_journal(url):
        path = _journal_path(url)
        if not (makes or exists(path)):
            raise FileNotFoundError("no such file")
        if exists(path):
            _check_journal(path)
        return JournalStorage((JournalFileBackend if writes else _ReadOnlyJournal)(str(path)))
    if url == IN_MEMORY:
        return InMemoryStorage()
    if not _is_sqlite(url):
        if writes:
            return DriverStorage(url, skip_table_creation=not makes)
        return RDBStorage(url, skip_table_creation=True, engine_kwargs=_reader_kwargs(url))
    path = _sqlite_path(url)
    if not (makes or path.exists()):
        raise FileNotFoundError("no such file")
    if not writes:
        return RDBStorage(_read_only(url, once=once), skip_table_creation=True)
    existing = _with_query(url, mode="rw")  # connections later make no new file where this one is deleted
    _write_ahead(url if begins else existing)
    storage = DriverStorage(existing, skip_table_creation=not begins)
    event.listen(storage.engine, "connect", _wait_less)
    storage.engine.dispose()  # the connection it has was made before
    return storage


def reading_engine(url: str) -> Engine:
    """Connections to a database that write nothing, for what lies there beside Optuna's study, or to read that once.

    Args:
        url: Of a database; a journal file has no tables.
    """
    if _is_sqlite(url):
        return create_engine(_read_only(url, once=True), poolclass=NullPool)
    return create_engine(url, poolclass=NullPool, **_reader_kwargs(url))


def newest_tables(url: str) -> Engine | None:
    """Connections that write nothing to Optuna's tables; None where only Optuna itself can tell whether it reads them.

    Raises:
        FileNotFoundError: There is no such file.
    """
    if url == IN_MEMORY or is_journal(url):
        return None
    if _is_sqlite(url) and not _sqlite_path(url).exists():
        raise FileNotFoundError("no such file")
    engine = reading_engine(url)
    return engine if are_newest(engine) else None


def last_written(url: str) -> datetime | None:
    """When a file of a storage was written last, UTC by the clock of its disk; None for a database server."""
    if is_journal(url):
        path = _journal_path(url)
    elif _is_sqlite(url):
        path = _sqlite_path(url)
    else:
        return None
    files = (path, path.with_name(f"{path.name}-wal"))
    times = [file.stat().st_mtime for file in files if file.exists()]
    return datetime.fromtimestamp(max(times), UTC) if times else None


class _ReadOnlyJournal(JournalFileBackend):
    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Raise, since a reader writes nothing."""
        raise PermissionError("a reader writes nothing")


def _reader_kwargs(url: str) -> dict[str, Any]:
    """Arguments of SQLAlchemy's engine by which a reader's connections can write nothing, where its server can that."""
    given = make_url(url)
    if given.get_backend_name() != "postgresql":
        return {}
    options = f"{given.query.get('options', '')} -c default_transaction_read_only=on".strip()
    return {"connect_args": {"options": options}}


def _journal_path(url: str) -> Path:
    return Path(url.removeprefix(_JOURNAL))


def _check_journal(path: Path) -> None:
    """Check that a file may be a journal; what is none is never appended to.

    Raises:
        OSError: It is no regular file.
        ValueError: It begins as no journal does.
    """
    if not path.is_file():
        raise OSError("is no regular file")
    with path.open("rb") as file:
        if file.read(1) not in (b"", b"{"):
            raise ValueError("holds no journal")


def close_storage(storage: BaseStorage) -> None:
    """Close the connections of a storage."""
    if isinstance(storage, RDBStorage):
        storage.remove_session()
        storage.engine.dispose()


def _is_sqlite(url: str) -> bool:
    return can_be_parsed(url) and make_url(url).get_backend_name() == "sqlite"


def _sqlite_path(url: str) -> Path:
    """The file of a SQLite URL."""
    given = make_url(url)
    database = given.database or ""
    return Path(unquote(database.removeprefix("file:").removeprefix("//")) if "uri" in given.query else database)


def _with_query(url: str, **query: str) -> str:
    """A SQLite URL with parameters of SQLite's own, such as mode=ro."""
    given = make_url(url)
    database = given.database if "uri" in given.query else f"file:{quote(str(_sqlite_path(url).absolute()))}"
    return _rendered(URL.create(given.drivername, database=database, query={**given.query, "uri": "true", **query}))


def _rendered(url: URL) -> str:
    return url.render_as_string(hide_password=False)


def _read_only(url: str, *, once: bool) -> str:
    """The URL by which a reader changes nothing.

    A reader of a file in write-ahead mode makes two more beside it, unless the file is declared never to change. That
    is true of a file that no driver has open, whose log is gone then, and it must be said where no file can be made.
    """
    path = _sqlite_path(url)
    has_log = any(path.with_name(path.name + end).exists() for end in ("-wal", "-journal"))
    if not has_log and (once or not os.access(path.absolute().parent, os.W_OK)):
        return _with_query(url, mode="ro", immutable="1")
    return _with_query(url, mode="ro")


def no_storage(url: str, error: BaseException, *, rule: str = "must be a database that can be opened") -> StudyError:
    """What to raise where a database cannot be opened or read; it shows no password."""
    reason = first_line(error)
    if not is_journal(url) and not can_be_parsed(url):  # what was made of it may show a part of the password
        reason = "no URL of a database; in a password, @ : / are written %40 %3A %2F"
    elif "no password supplied" in reason:
        reason += "; a password is never kept: give it again, or set PGPASSWORD"
    return StudyError(f"storage: {rule}, got {mask_passwords(url)!r} ({mask_passwords(reason)})")


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__


def _wait_less(connection: sqlite3.Connection, _: object) -> None:
    """In write-ahead mode a killed process loses nothing by this, and a machine without power the last moments only."""
    connection.execute("PRAGMA synchronous=NORMAL")


def _write_ahead(url: str) -> None:
    """Put a SQLite file into write-ahead mode, in which readers never block the writer."""
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA journal_mode=WAL")
