"""What all command-line programs of the project share; it is loaded before the arguments are read, so it is light."""

import errno
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TypeVar, cast

import typer

from metaformer.errors import LONGEST_LINE, UserError, mask_passwords, one_line, shown, unknown_name

DEFECT = 70  # exit code of an error that nobody foresaw: EX_SOFTWARE of BSD's sysexits.h
_PREFIX = "error: "
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_Returned = TypeVar("_Returned")
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]  # typer has click within itself and does not name it


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn what a person can put right into one line on stderr and exit code 2, without a traceback."""
    try:
        yield
    except UserError as error:
        raise _ended(str(error)) from None


@contextmanager
def deaf_threads() -> Iterator[None]:
    """Let threads that libraries start inside leave the signals that end a program to the main thread."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def run(*commands: Callable[..., object], bare: Mapping[str, str] | None = None) -> None:
    """Run a program: a command's parameters are its arguments, its docstring the help.

    Several commands are called by their names. A paragraph of a docstring that begins with a line of `\\b` keeps its
    line breaks.

    Args:
        bare: Options that take a number and may stand without it, with the number that is meant then.
    """
    app = typer.Typer(
        add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, no_args_is_help=len(commands) > 1
    )
    for command in commands:
        name = command.__name__.removesuffix("_models") if len(commands) > 1 else None
        app.command(name, context_settings={"help_option_names": ["-h", "--help"]})(command)
    with _logged_defects(), one_line_errors():
        try:
            code = app(_completed(sys.argv[1:], bare or {}), standalone_mode=False)
            sys.stdout.flush()  # else a disk that is full is met when nobody can be told any more
        except _UsageError as error:
            if type(error).__name__ == "NoArgsIsHelpError":
                typer.echo(str(error), err=True)
                raise SystemExit(2) from None
            raise _ended(_usage(error, sys.argv[1:])) from None
        except typer.Abort:  # Ctrl-C
            typer.echo("Aborted!", err=True)
            raise SystemExit(1) from None
    raise SystemExit(code if isinstance(code, int) else 0)


def call(command: Callable[..., _Returned], arguments: Sequence[str]) -> _Returned:
    """What a program's function returns for these arguments, which are read and checked as `run` does it.

    Raises:
        UserError: They are not as its parameters say.
    """
    app = typer.Typer(add_completion=False)
    app.command()(command)
    try:
        return cast(_Returned, app(list(arguments), standalone_mode=False))
    except _UsageError as error:
        raise UserError(_usage(error, arguments)) from None


def _completed(arguments: list[str], bare: Mapping[str, str]) -> list[str]:
    """The arguments with a number after each option of `bare` that has none."""
    completed = []
    for place, argument in enumerate(arguments):
        is_bare = argument in bare and not any(map(_is_number, arguments[place + 1 : place + 2]))
        completed.append(f"{argument}={bare[argument]}" if is_bare else argument)
    return completed


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@contextmanager
def _logged_defects() -> Iterator[None]:
    """Turn every other error into one line: of a file or a full disk with code 2, else with code 70 and a log."""
    try:
        yield
    except BrokenPipeError:  # who reads the output has gone, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor is the rest written at the end
        raise SystemExit(1) from None
    except Exception as error:  # noqa: BLE001  what nobody foresaw; the log has all of it
        if isinstance(error, OSError) and (error.filename is not None or error.errno in _FULL):
            place = "the output" if error.filename is None else shown(os.fsdecode(str(error.filename)))
            reason = one_line(error.strerror or type(error).__name__, 100)
            raise _ended(f"file: must be usable, got {place} ({reason})") from None
        said = one_line(f"{type(error).__name__}: {mask_passwords(str(error)[: 10 * LONGEST_LINE])}", 100)
        raise _ended(f"program: must not break, got {said}; {_write_log(error)}", code=DEFECT) from None


def _write_log(error: Exception) -> str:
    """Where the traceback of an error was written, as a clause; only who runs the program can read it."""
    text = mask_passwords("".join(traceback.format_exception(error)))
    try:
        number, path = tempfile.mkstemp(prefix="metaformer-", suffix=".log")
        with os.fdopen(number, "w", encoding="utf-8", errors="backslashreplace") as log:
            log.write(text)
    except OSError as failed:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"it broke at {Path(place.filename).name}:{place.lineno}, and no log can be written ({failed.strerror})"
    return f"its traceback is in {path}"


def _ended(message: str, *, code: int = 2) -> SystemExit:
    """Print an error as one line; what to raise then."""
    typer.echo(_PREFIX + one_line(message, LONGEST_LINE - len(_PREFIX)), err=True)
    return SystemExit(code)


def _usage(error: Exception, arguments: Sequence[str]) -> str:
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
    return f"{name}: {rule[:1].lower()}{rule[1:]}{_got(parameter.opts, arguments)}"


def _got(options: list[str], arguments: Sequence[str]) -> str:
    """`, got VALUE` with what was typed after an option."""
    words = [word for argument in arguments for word in argument.split("=", 1)]
    after = [value for word, value in pairwise(words) if word in options]
    return f", got {shown(after[-1])}" if after else ""
