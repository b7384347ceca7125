"""python -m nas.dashboard: Optuna's dashboard on the study of a run, to look at and not to change."""

import socket
import webbrowser
from collections.abc import Iterable
from importlib.util import find_spec
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Annotated
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import typer

from metaformer.errors import UserError
from nas import cli

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment


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
        start_response("403 Forbidden", [("Content-Type", "application/json")])
        return [b'{"reason": "this dashboard is for looking at a study, not for changing it"}']

    return answer


def make_dashboard(app: "WSGIApplication", host: str, port: int) -> WSGIServer:
    """A server that listens already; `serve_forever` answers.

    Raises:
        UserError: The address cannot be had.
    """
    try:
        return make_server(host, port, app, server_class=_Server, handler_class=_Handler)
    except (OSError, OverflowError) as error:
        raise UserError(f"port: must be free on {host}, got {port} ({error}){_free_port(host)}") from None


def dashboard(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Folder of a run, or its name under runs/.")],
    port: Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65535)] = 8080,
    host: Annotated[
        str, typer.Option(help="Address to listen on; others than this one let other machines look.")
    ] = "127.0.0.1",
    show: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
) -> None:
    """Show the study of a run in a browser, also while the search goes on; Ctrl-C ends it.

    It needs the package optuna-dashboard: pip install "metaformer-nas[dashboard]".

    \b
    Examples:
      python -m nas.dashboard smoke
      python -m nas.dashboard runs/smoke --port 8081 --open
    """
    if find_spec("optuna_dashboard") is None:
        raise UserError('dashboard: needs a package that is not here: pip install "metaformer-nas[dashboard]"')
    from optuna_dashboard import wsgi

    from nas.record.run_folder import open_run
    from nas.record.storage import open_storage

    storage = open_storage(open_run(cli.run_path(run)).record.url)
    with make_dashboard(read_only(wsgi(storage)), host, port) as server:
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
