"""What all `python -m nas.NAME` programs share: the command line, errors as one line, names of runs.

It is loaded before the arguments are read, so it imports neither torch, ray nor optuna.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from metaformer.errors import UserError

RUNS = Path("runs")


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn what a person can put right into one line on stderr and exit code 2, without a traceback."""
    try:
        yield
    except UserError as error:
        typer.echo(f"error: {' '.join(str(error).split())}", err=True)
        raise SystemExit(2) from None


def run(command: Callable[..., None]) -> None:
    """Run a program's one command: its parameters are the arguments, its docstring the help.

    A paragraph of the docstring that begins with a line of `\\b` keeps its line breaks.
    """
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(context_settings={"help_option_names": ["-h", "--help"]})(command)
    with one_line_errors():
        app()


def run_path(run_name: str) -> Path:
    """The folder meant by a path, or by a name under `runs`; it need not exist."""
    given = Path(run_name)
    if (given / "study.yaml").exists() or len(given.parts) != 1 or given.is_absolute():
        return given
    return RUNS / given
