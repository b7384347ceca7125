"""A PostgreSQL server of its own for the tests, from Debian's package."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from tests.nas.programs import PATIENCE

USER, PASSWORD = "searcher", "not-to-be-shown"
_INSTALLED = Path("/usr/lib/postgresql")


@dataclass
class Server:
    """A server that can be stopped and started again, on the same port with what it holds."""

    programs: Path
    folder: Path
    port: int
    account: str | None  # that it runs under; None: the one of the tests
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Return when it answers."""
        where = ["-D", self.folder / "data", "-k", self.folder, "-h", "127.0.0.1", "-p", str(self.port)]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.programs / "postgres", *where], user=self.account, cwd=self.folder, stdout=log, stderr=log
            )
        deadline = time.monotonic() + PATIENCE
        while not self.is_ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"PostgreSQL does not start: {(self.folder / 'log').read_text(encoding='utf-8')}")
            time.sleep(0.1)

    def stop(self) -> None:
        """End it with clients connected, too."""
        if self.process:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(timeout=PATIENCE)
            self.process = None

    def new_database(self, *, like: str = "template1") -> str:
        """The name of a new database, a copy of another to which nobody is connected; an empty one by default."""
        name = f"studies_{uuid4().hex[:8]}"
        names = map(psycopg.sql.Identifier, (name, like))
        with psycopg.connect(self._conninfo("postgres"), autocommit=True) as connection:
            connection.execute(psycopg.sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*names))
        return name

    def url(self, database: str, *, password: str | None = PASSWORD) -> str:
        """The storage URL of a database."""
        return f"postgresql://{USER}{f':{password}' if password else ''}@127.0.0.1:{self.port}/{database}"

    def is_ready(self) -> bool:
        try:
            psycopg.connect(self._conninfo("postgres"), connect_timeout=PATIENCE).close()
        except psycopg.OperationalError:
            return False
        return True

    def _conninfo(self, database: str) -> str:
        return psycopg.conninfo.make_conninfo(
            host="127.0.0.1", port=self.port, user=USER, password=PASSWORD, dbname=database
        )


@contextmanager
def running_server() -> Iterator[Server]:
    """A server with one user and a password, on a port of its own; the test is skipped where there cannot be one."""
    programs = _programs() or _install()
    account = "postgres" if os.geteuid() == 0 else None  # the server refuses to run as root
    folder = Path(tempfile.mkdtemp(prefix="postgresql-", dir="/tmp"))
    try:
        (folder / "password").write_text(PASSWORD, encoding="utf-8")
        if account:
            for path in (folder, folder / "password"):
                shutil.chown(path, account)
        data = folder / "data"
        subprocess.run(
            [programs / "initdb", "-D", data, "-U", USER, "--auth=scram-sha-256", f"--pwfile={folder / 'password'}"],
            user=account,
            cwd=folder,
            check=True,
            capture_output=True,
        )
        server = Server(programs, folder, _free_port(), account)
        try:
            server.start()
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)


def _programs() -> Path | None:
    """The folder of the newest server that is installed."""
    folders = sorted(_INSTALLED.glob("*/bin"), key=lambda path: float(path.parent.name))
    on_path = shutil.which("initdb")
    newest = folders[-1] if folders else Path(on_path).resolve().parent if on_path else None
    return newest if newest and (newest / "initdb").exists() else None


def _install() -> Path:
    """Debian's package, where this user may install it."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        pytest.skip("no PostgreSQL here, and only root can install Debian's package (apt-get install postgresql)")
    outcome = subprocess.run(
        ["apt-get", "install", "-y", "-q", "-o", "DPkg::Lock::Timeout=600", "postgresql"],
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        capture_output=True,
        text=True,
        check=False,
    )
    programs = _programs()
    if outcome.returncode or programs is None:
        said = (outcome.stderr.strip().splitlines() or ["no message"])[-1]
        pytest.skip(f"no PostgreSQL here, and apt-get install postgresql failed: {said}")
    return programs


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port
