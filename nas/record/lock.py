"""One driver at a time: a study's writer, and what a second one is told of it.

A run's folder is held by a file lock, which the system frees however the driver ends. File locks do not reach over
every shared file system, and a database may be reached from several folders, so a study in a database of its own
URL has a row there as well, which its driver keeps fresh.
"""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple, Self
from uuid import uuid4

from filelock import FileLock, Timeout
from pydantic import ValidationError
from sqlalchemy import (
    Column,
    ColumnElement,
    DateTime,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    delete,
    func,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError, SQLAlchemyError

from metaformer.specs import Spec
from nas.record.atomic import is_alive, replace_text
from nas.record.storage import MALFORMED, no_storage, reading_engine
from nas.study.study import StudyError

BEAT_EVERY = 20.0  # seconds between signs of life
_LOCK, _NOTE = ".lock", ".driver"  # files in a run's folder
_LOCKS = Path("/proc/locks")  # of all processes, on Linux
STALE_AFTER = timedelta(minutes=3)  # a driver of another machine without one is taken for dead
_DRIVERS = Table(
    "metaformer_nas_drivers",
    MetaData(),
    Column("study", String(255), primary_key=True),
    Column("token", String(32), nullable=False),
    Column("host", String(255), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("since", String(40), nullable=False),
    Column("beat", DateTime(timezone=True), nullable=False),  # by the database's clock, as all ages are
)


class Driver(Spec):
    """A process that writes a study."""

    host: str
    pid: int
    since: str

    @classmethod
    def here(cls) -> Self:
        """This process."""
        return cls(host=socket.gethostname(), pid=os.getpid(), since=f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC")

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"

    @property
    def is_gone(self) -> bool:
        """Whether it was a process of this machine that has ended; of others nothing can be told."""
        if self.host != socket.gethostname():
            return False
        return self.pid == os.getpid() or not is_alive(self.pid)  # a new container may have the old one's numbers


@contextmanager
def lock_folder(path: Path) -> Iterator[None]:
    """Be the one driver that writes in a run's folder.

    Raises:
        StudyError: Another one is; the message says which.
    """
    lock, note = FileLock(path / _LOCK), path / _NOTE
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise StudyError(f"run: must not be in use by another program, got {path}, held by {_noted(note)}") from None
    try:
        replace_text(note, Driver.here().model_dump_json())
        yield
        note.unlink(missing_ok=True)
    finally:
        lock.release()


@contextmanager
def lock_study(url: str, name: str) -> Iterator["StudyLock"]:
    """Be the one driver that writes a study of a shared database; that of a dead driver is taken over.

    Raises:
        StudyError: Another driver is; the message says which.
    """
    lock = StudyLock(create_engine(url), name)
    try:
        lock.claim()
    except SQLAlchemyError as error:
        raise no_storage(url, error) from None
    beating = threading.Thread(target=lock.beat, daemon=True)
    beating.start()
    try:
        yield lock
    finally:
        lock.release()
        beating.join()


class StudyLock:
    """This driver's row of a study."""

    on_lost: Callable[[], None] | None = None  # told, from another thread, that another driver has taken over

    def __init__(self, engine: Engine, study: str) -> None:
        self._engine = engine
        self._study = study
        self._token = uuid4().hex
        self._ended = threading.Event()

    def claim(self) -> None:
        """Take the row, unless a live driver has it.

        Raises:
            StudyError: One has.
        """
        try:
            _DRIVERS.create(self._engine, checkfirst=True)
        except (IntegrityError, OperationalError, ProgrammingError):
            _DRIVERS.create(self._engine, checkfirst=True)  # another driver has made the table at the same moment
        holder = self._try_claim()
        if holder is not None:
            raise StudyError(f"storage: study {self._study} must not be in use by another program, held by {holder}")

    def beat(self) -> None:
        """Keep the row fresh until it is released or lost."""
        while not self._ended.wait(BEAT_EVERY):
            try:
                with self._engine.begin() as connection:
                    beat = update(_DRIVERS).where(self._is_mine).values(beat=func.now())
                    is_mine = connection.execute(beat).rowcount == 1
            except SQLAlchemyError:
                continue  # the record's own writes say what is wrong with the database
            if not is_mine:
                if self.on_lost is not None:
                    self.on_lost()
                return

    def release(self) -> None:
        """Give the row back."""
        self._ended.set()
        with suppress(SQLAlchemyError), self._engine.begin() as connection:  # else it goes stale
            connection.execute(delete(_DRIVERS).where(self._is_mine))
        self._engine.dispose()

    @property
    def _is_mine(self) -> ColumnElement[bool]:
        return (_DRIVERS.c.study == self._study) & (_DRIVERS.c.token == self._token)

    def _try_claim(self) -> Driver | None:
        """The live driver that has the row; None where it is now this one's."""
        mine = {"token": self._token, **Driver.here().model_dump(), "beat": func.now()}
        try:
            with self._engine.begin() as connection:
                now = func.now().label("now")
                row = connection.execute(select(_DRIVERS, now).where(_DRIVERS.c.study == self._study)).first()
                if row is None:
                    connection.execute(insert(_DRIVERS).values(study=self._study, **mine))
                    return None
                holder = Driver(host=row.host, pid=row.pid, since=row.since)
                if not holder.is_gone and row.now - row.beat < STALE_AFTER:
                    return holder
                same = (_DRIVERS.c.study == self._study) & (_DRIVERS.c.token == row.token)
                taken = connection.execute(update(_DRIVERS).where(same).values(**mine)).rowcount == 1
                return None if taken else holder
        except IntegrityError:  # another driver was faster; now its row can be read
            return self._try_claim()


class SeenDriver(NamedTuple):
    """A driver that has not said that it ended, as a reader finds it."""

    driver: Driver
    is_alive: bool  # as far as can be told; one of another machine is taken for dead after `STALE_AFTER` without a sign
    sign_at: datetime | None  # UTC, of its last sign of life


def see_driver_of_folder(path: Path, *, sign_at: datetime | None) -> SeenDriver | None:
    """The driver of a run's folder, or one that was killed there; None where the last one ended by itself.

    The lock is not touched: a reader that tried it might turn a driver away that begins at that moment.

    Args:
        sign_at: When the study was written last, UTC.
    """
    try:
        driver = Driver.model_validate_json((path / _NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none, or one that nobody of ours wrote
        return None
    is_fresh = sign_at is not None and datetime.now(UTC) - sign_at < STALE_AFTER
    is_alive = _is_locked_by(driver, path / _LOCK) or (is_fresh and not driver.is_gone)
    return SeenDriver(driver, is_alive, sign_at)


def see_driver_of_study(url: str, name: str) -> SeenDriver | None:
    """The driver that has the row of a study in a shared database, likewise.

    Raises:
        StudyError: The database cannot be read.
    """
    engine = reading_engine(url)
    try:
        if not inspect(engine).has_table(_DRIVERS.name):
            return None
        with engine.connect() as connection:
            row = connection.execute(select(_DRIVERS, func.now().label("now")).where(_DRIVERS.c.study == name)).first()
        if row is None:
            return None
        driver, age = Driver(host=row.host, pid=row.pid, since=row.since), row.now - row.beat
        return SeenDriver(driver, not driver.is_gone and age < STALE_AFTER, datetime.now(UTC) - age)
    except (SQLAlchemyError, *MALFORMED) as error:
        raise no_storage(url, error) from None
    finally:
        engine.dispose()


def _is_locked_by(driver: Driver, lock: Path) -> bool:
    """Whether the system lists a lock as held by a driver of this machine."""
    if driver.host != socket.gethostname():
        return False
    try:
        held = [line.split() for line in _LOCKS.read_text(encoding="utf-8").splitlines()]
        inode = str(lock.stat().st_ino)
    except OSError:
        return False
    # 1: FLOCK  ADVISORY  WRITE 27106 fe:00:3629722 0 EOF
    return any(
        words[1:2] == ["FLOCK"] and words[4] == str(driver.pid) and words[5].rpartition(":")[2] == inode
        for words in held
    )


def _noted(note: Path) -> str:
    try:
        return str(Driver.model_validate_json(note.read_text(encoding="utf-8")))
    except (OSError, ValidationError):  # it is just beginning
        return "a process that has not said which"
