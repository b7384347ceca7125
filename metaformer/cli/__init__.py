"""What all command-line programs of the project share; it is loaded before the arguments are read, so it is light."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import typer

from metaformer.errors import LONGEST_LINE, UserError, one_line, shown, unknown_name

_PREFIX = "error: "
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]  # typer has click within itself and does not name it


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn what a person can put right into one line on stderr and exit code 2, without a traceback."""
    try:
        yield
    except UserError as error:
        raise _ended(str(error)) from None


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
        try:
            code = app(standalone_mode=False)
        except _UsageError as error:
            if type(error).__name__ == "NoArgsIsHelpError":
                typer.echo(str(error), err=True)
                raise SystemExit(2) from None
            raise _ended(_usage(error)) from None
        except typer.Abort:  # Ctrl-C
            typer.echo("Aborted!", err=True)
            raise SystemExit(1) from None
    raise SystemExit(code if isinstance(code, int) else 0)


def _ended(message: str) -> SystemExit:
    """Print an error as one line; what to raise then."""
    typer.echo(_PREFIX + one_line(message, LONGEST_LINE - len(_PREFIX)), err=True)
    return SystemExit(2)


def _usage(error: Exception) -> str:
    """What is wrong with the arguments, in the form of all messages: field, rule, value."""
    option = getattr(error, "option_name", None)
    if option is not None:
        possible = getattr(error, "possibilities", None) or ["--help"]
        if type(error).__name__ == "NoSuchOption":
            return unknown_name("option", str(option), possible)
        return f"{str(option).lstrip('-')}: {getattr(error, 'message', error)}"
    rule = str(getattr(error, "message", error))
    parameter = getattr(error, "param", None)
    if parameter is None:
        return f"arguments: {rule}"
    name = str(parameter.name).removeprefix("as_")
    if type(error).__name__ == "MissingParameter":
        return f"{name}: must be given"
    return f"{name}: {rule[:1].lower()}{rule[1:]}{_got(parameter.opts)}"


def _got(options: list[str]) -> str:
    """`, got VALUE` with what was typed after an option."""
    words = [word for argument in sys.argv[1:] for word in argument.split("=", 1)]
    after = [value for word, value in pairwise(words) if word in options]
    return f", got {shown(after[-1])}" if after else ""
