"""python -m nas.dashboard: Optuna's dashboard on the studies of runs, to look at and not to change.

It is served from a copy in memory, which follows the runs while their searches go on; their databases are only read.
"""

import ipaddress
import json
import socket
import threading
import time
import webbrowser
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Annotated
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import typer

from metaformer.errors import UserError, one_line, shown
from nas import cli

if TYPE_CHECKING:
    from datetime import datetime
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from _typeshed import OptExcInfo
    from optuna.storages import BaseStorage

    from nas.record.run_folder import Run
    from nas.record.view.shown_files import ShownFiles


_MOST_NOTES = 1000  # the dashboard looks through all of them for each trial, at every poll
_SECONDS = 5.0  # between two looks at a run, or ten times what a look takes
_LOCAL = ("127.0.0.1", "localhost")
_EVERY = ("", "0.0.0.0")  # noqa: S104  # addresses that mean all of a machine's
_FILES = ("report.html", "front.csv", "trials.csv", "curves.csv", "finals.csv")  # of a run, to open or to download
# Optuna's page has styles in itself, and draws with a library that compiles its shaders
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
# A report has scripts in itself; it gets an origin of its own, from which it reaches nothing
_POLICY_OF_FILES = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:; worker-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = [
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
]


class _Server(ThreadingMixIn, WSGIServer):
    """Answers each request in a thread of its own, since browsers keep connections open that they do not use yet."""

    daemon_threads = True


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class calls it so
        """Nothing: a line for each request would bury the address."""


def read_only(app: "WSGIApplication") -> "WSGIApplication":
    """The application without requests that change something: the driver alone writes a study."""

    def answer(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] in {"GET", "HEAD"}:
            return app(environ, start_response)
        return _forbid(start_response, "this dashboard is for looking at a study, not for changing it")

    return answer


def guarded(app: "WSGIApplication", is_ours: Callable[[str], bool]) -> "WSGIApplication":
    """The application with security headers, and for requests to a host of ours alone.

    A page elsewhere whose name is made to lead here (DNS rebinding) asks under its own name, and gets nothing.

    Args:
        is_ours: Whether a `Host`, with its port, is one that the server answers for.
    """

    def answer(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        policy = _POLICY_OF_FILES if environ["PATH_INFO"].startswith("/artifacts/") else _POLICY

        def start(status: str, headers: list[tuple[str, str]], *rest: "OptExcInfo | None") -> Callable[[bytes], object]:
            kept = [header for header in headers if header[0] != "Access-Control-Allow-Origin"]  # of files: every page
            return start_response(status, [*kept, ("Content-Security-Policy", policy), *_HEADERS], *rest)

        if not is_ours(environ.get("HTTP_HOST", "")):
            return _forbid(start, "this dashboard answers for the address that it listens on and for localhost")
        return app(environ, start)

    return answer


def hosts_of(host: str, port: int) -> Callable[[str], bool]:
    """Whether a `Host` is the address that a server listens on, or localhost, with its port.

    A server that listens on all addresses answers for any address in numbers, which no name can be made to lead to.
    """
    names = {*_LOCAL, host.lower()} - set(_EVERY)
    known = {f"{name}:{port}" for name in names} | (names if port == 80 else set())

    def is_ours(given: str) -> bool:
        name, _, given_port = given.rpartition(":")
        return given.lower() in known or (host in _EVERY and given_port == str(port) and _is_address(name))

    return is_ours


def check_host(host: str, *, allow_remote: bool) -> None:
    """Check that a host is one, and that only this machine can look, or that others were asked for.

    Raises:
        UserError: It is none, or others could look and were not asked for.
    """
    if allow_remote:
        _find_host(host)
        return
    if host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback):
        return
    raise UserError(
        f"host: must be 127.0.0.1 or localhost, or take --allow-remote, which lets every machine that reaches the "
        f"address read the study, got {shown(host)}"
    )


def _find_host(host: str) -> None:
    """Check that a host has an address; on every address of this machine where none is named.

    Raises:
        UserError: It has none.
    """
    try:
        socket.getaddrinfo(host or None, 0)
    except (TypeError, ValueError, OSError):  # TypeError and ValueError: it can be no name, such as é..b
        raise _no_host(host) from None


def _no_host(host: str) -> UserError:
    return UserError(f"host: must be an address of this machine, got {shown(host)}")


def _is_address(host: str) -> bool:
    """Whether a host is written in numbers."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _forbid(start_response: "StartResponse", reason: str) -> Iterable[bytes]:
    start_response("403 Forbidden", [("Content-Type", "application/json")])
    return [json.dumps({"reason": reason}).encode()]


def find_runs(path: Path) -> list[Path]:
    """The folder of a run itself, or those of the runs in a folder, by name.

    Raises:
        UserError: There is none.
    """
    from nas.record.run_folder import RunFolder

    if not path.is_dir() or RunFolder(path).study_file.exists():
        return [path]
    runs = sorted(file.parent for file in path.glob(f"*/{RunFolder(path).study_file.name}"))
    if not runs:
        raise UserError(
            f"run: must be the folder of a run, or hold folders of runs, got {shown(str(path))} without any"
        )
    return runs


class _ShownRun:
    """The copy of one run's study, which is brought up to date where the run's database has changed."""

    def __init__(self, storage: "BaseStorage", files: "ShownFiles", path: Path) -> None:
        from optuna_dashboard import save_note, save_plotly_graph_object
        from optuna_dashboard.artifact import get_artifact_path

        from nas.record.run_folder import open_run
        from nas.record.view.shown_study import ShownStudy, Writers

        run = open_run(path)
        self._path, self._url, self._files = path, run.record.url, files
        self._paths = [path / name for name in _FILES]
        self._seen: tuple[datetime | None, list[bool]] = (None, [])  # so that the first update reads again
        writers = Writers(save_note, save_plotly_graph_object, get_artifact_path)
        self._study = ShownStudy(storage, run.name, run.record, writers)
        self._show(run)

    def update(self) -> None:
        """Read the run again, unless its files are as they were.

        Raises:
            UserError: It cannot be read now.
        """
        from nas.record.run_folder import open_run

        state = self._state()
        if state[0] is None or state != self._seen:
            self._show(open_run(self._path))
            self._seen = state

    def _state(self) -> "tuple[datetime | None, list[bool]]":
        """When its database was written last, as far as that is known, and which files it has to show."""
        from nas.record.storage import last_written

        return last_written(self._url), [path.is_file() for path in self._paths]

    def _show(self, run: "Run") -> None:
        from nas.record.view.shown_study import Shown
        from nas.results.dashboard_parts import front_figures, study_note, trial_attributes, trial_note
        from nas.results.page import facts_of
        from nas.results.results import Results

        results = Results(run)
        first = [*results.front, *(trial for trial in run.record if trial.references), *reversed(run.record.trials)]
        chosen = list({trial.number: trial for trial in first}.values())[:_MOST_NOTES]
        limits = {
            name: most
            for name, most in (
                ("params", run.study.settings.limits.max_params),
                ("macs", run.study.settings.limits.max_macs),
                *run.study.measured_limits.items(),
            )
            if most is not None and name in run.study.objectives
        }
        addresses = self._study.offer(self._files, self._paths)
        shown = Shown(
            limits,
            attributes={trial.number: trial_attributes(trial) for trial in run.record},
            notes={trial.number: trial_note(run, trial) for trial in chosen},
            note=study_note(results, files=addresses),
            facts=dict(facts_of(results)),
            figures=front_figures(results),
        )
        self._study.update(run.record, shown)
        run.record.close()


def show_runs(storage: "BaseStorage", files: "ShownFiles", paths: Sequence[Path]) -> list[_ShownRun]:
    """The runs, copied into a storage, and their files; of several, those that can be read.

    For others there is a line on standard error.

    Raises:
        UserError: None can be read.
    """
    found: list[_ShownRun] = []
    for path in paths:
        try:
            found.append(_ShownRun(storage, files, path))
        except UserError as error:
            if len(paths) == 1 or (path is paths[-1] and not found):
                raise
            typer.echo(f"left out {path.name}: {error}", err=True)
    return found


def following(app: "WSGIApplication", updates: Iterable[Callable[[], None]]) -> "WSGIApplication":
    """The application, whose copies are brought up to date before an answer, at most every few seconds.

    A run that cannot be read for a moment is shown as it was.
    """
    lock = threading.Lock()
    due = time.monotonic() + _SECONDS

    def answer(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        nonlocal due
        with lock:
            begun = time.monotonic()
            if environ["PATH_INFO"].startswith("/api/") and begun >= due:
                for update in updates:
                    with suppress(UserError):
                        update()
                ended = time.monotonic()
                due = ended + max(_SECONDS, 10 * (ended - begun))
        return app(environ, start_response)

    return answer


def make_dashboard(app: "WSGIApplication", host: str, port: int) -> WSGIServer:
    """A server that listens already; `serve_forever` answers.

    Raises:
        UserError: The address cannot be had.
    """
    try:
        return make_server(host, port, app, server_class=_Server, handler_class=_Handler)
    except (TypeError, UnicodeError, socket.gaierror):
        raise _no_host(host) from None
    except (OSError, OverflowError) as error:
        place = one_line(host, 100)
        raise UserError(f"port: must be free on {place}, got {port} ({error}){_free_port(host)}") from None


def dashboard(
    run: Annotated[
        str, typer.Argument(metavar="RUN|FOLDER", help="Folder of a run, or its name under runs/; or a folder of runs.")
    ],
    port: Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65535)] = 8080,
    host: Annotated[str, typer.Option(help="Address to listen on; others need --allow-remote.")] = "127.0.0.1",
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Let other machines look: all that reach the address, no password.")
    ] = False,
    show: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
) -> None:
    """Show the study of a run, or of all runs in a folder, in a browser, also while searches go on; Ctrl-C ends it.

    It needs the package optuna-dashboard: pip install "metaformer-nas[dashboard]".

    \b
    Examples:
      python -m nas.dashboard smoke
      python -m nas.dashboard runs --port 8081 --open
    """
    check_host(host, allow_remote=allow_remote)
    if find_spec("optuna_dashboard") is None:
        raise UserError('dashboard: needs a package that is not here: pip install "metaformer-nas[dashboard]"')
    from optuna_dashboard import wsgi

    from nas.record.view.shown_files import ShownFiles
    from nas.record.view.shown_study import new_storage

    storage, files = new_storage(), ShownFiles()
    runs = show_runs(storage, files, find_runs(cli.run_path(run)))
    app = following(read_only(wsgi(storage, artifact_store=files)), [each.update for each in runs])
    with make_dashboard(app, host, port) as server:
        server.set_app(guarded(app, hosts_of(host, server.server_port)))
        if allow_remote:
            typer.echo(
                "every machine that reaches this address can read the study, without a password and without "
                "encryption; a tunnel (ssh -L) lets yourself alone"
            )
        address = f"http://{host}:{server.server_port}/"
        typer.echo(f"{address} (Ctrl-C ends it)")
        if show:
            webbrowser.open(address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            typer.echo("ended")


def _free_port(host: str) -> str:
    """`; free: PORT` where the host has a free port."""
    try:
        with socket.create_server((host, 0)) as free:
            return f"; free: {free.getsockname()[1]}"
    except OSError:
        return ""


if __name__ == "__main__":
    cli.run(dashboard)
