"""What all command-line programs of the project share; it is loaded before the arguments are read, so it is light."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

from metaformer.errors import UserError


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn what a person can put right into one line on stderr and exit code 2, without a traceback."""
    try:
        yield
    except UserError as error:
        typer.echo(f"error: {' '.join(str(error).split())}", err=True)
        raise SystemExit(2) from None


def run(*commands: Callable[..., None]) -> None:
    """Run a program: a command's parameters are its arguments, its docstring the help.

    Several commands are called by their names. A paragraph of a docstring that begins with a line of `\\b` keeps its
    line breaks.
    """
    app = typer.Typer(
        add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, no_args_is_help=len(commands) > 1
    )
    for command in commands:
        name = command.__name__.removesuffix("_models") if len(commands) > 1 else None
        app.command(name, context_settings={"help_option_names": ["-h", "--help"]})(command)
    with one_line_errors():
        app()
