"""Optuna storages by URL: opening them, and what to say where that fails."""

import sqlite3
from pathlib import Path

from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy import create_engine, event, inspect
from sqlalchemy.exc import SQLAlchemyError

from nas.study.database_url import can_be_parsed, mask_passwords
from nas.study.study import StudyError

IN_MEMORY = "memory:"  # storage URL of a record that ends with its process, as simulations need
_SQLITE = "sqlite:///"
_JOURNAL = "journal:"


def check_storage(url: str) -> None:
    """Check that a database answers at a storage URL; no table is made there.

    Raises:
        StudyError: None does.
    """
    if is_journal(url):
        if not Path(url.removeprefix(_JOURNAL)).absolute().parent.is_dir():
            raise no_storage(url, FileNotFoundError("no such folder"))
        return
    try:
        engine = create_engine(url)
        inspect(engine).get_table_names()
        engine.dispose()
    except (SQLAlchemyError, ImportError, ValueError) as error:
        raise no_storage(url, error) from None


def is_journal(url: str) -> bool:
    """Whether a storage URL means a journal file rather than a database."""
    return url.startswith(_JOURNAL)


def sqlite_url(path: Path) -> str:
    """The storage URL of a SQLite file."""
    return f"{_SQLITE}{path.resolve()}"


def open_storage(url: str, *, writes: bool = False) -> BaseStorage:
    """The Optuna storage at a URL, or in a journal file; ask Optuna for errors.

    Args:
        writes: Whether this is the one driver's; a SQLite file is then put into write-ahead mode.
    """
    if is_journal(url):
        return JournalStorage(JournalFileBackend(url.removeprefix(_JOURNAL)))
    if url == IN_MEMORY:
        return InMemoryStorage()
    if writes and url.startswith(_SQLITE):
        _write_ahead(url)
    storage = RDBStorage(url)
    if url.startswith(_SQLITE):
        event.listen(storage.engine, "connect", _wait_less)
        storage.engine.dispose()  # the connection it has was made before
    return storage


def no_storage(url: str, error: BaseException) -> StudyError:
    """What to raise where a database cannot be opened; it shows no password."""
    reason = first_line(error)
    if not is_journal(url) and not can_be_parsed(url):  # what was made of it may show a part of the password
        reason = "no URL of a database; in a password, @ : / are written %40 %3A %2F"
    elif "no password supplied" in reason:
        reason += "; a password is never kept: give it again, or set PGPASSWORD"
    return StudyError(
        f"storage: must be a database that can be opened, got {mask_passwords(url)!r} ({mask_passwords(reason)})"
    )


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__


def _wait_less(connection: sqlite3.Connection, _: object) -> None:
    """In write-ahead mode a killed process loses nothing by this, and a machine without power the last moments only."""
    connection.execute("PRAGMA synchronous=NORMAL")


def _write_ahead(url: str) -> None:
    """Put a SQLite file into write-ahead mode, in which readers never block the writer."""
    connection = sqlite3.connect(url.removeprefix(_SQLITE))
    try:
        connection.execute("PRAGMA journal_mode=WAL")
    finally:
        connection.close()
