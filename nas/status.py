"""python -m nas.status: where a search stands, from any machine that sees its storage."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from metaformer.errors import UserError
from nas import cli

if TYPE_CHECKING:
    from nas.results.status.status import Status

STOPPED = 3  # exit code: nothing is running although budget is left
_EVERY = "10"  # seconds between looks, where none are said
_LONGEST = 86400.0
_MOST_LINES = 1000


def status(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Folder of a run, or its name under runs/.")],
    watch: Annotated[
        float | None,
        typer.Option(
            metavar="[SECONDS]",
            help=f"Look again every so many seconds (without a number {_EVERY}) until the driver has ended, or Ctrl-C.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    lines: Annotated[int, typer.Option(help="Lines of run.log to show.")] = 5,
) -> None:
    """Say where a search stands, also while it runs; nothing is written.

    The first word printed, and `state` of the JSON, is `running`, `ended` (the budget is spent, or nothing more can be
    begun) or `stopped` (nothing is running although budget is left). Exit code 0: it is running or has ended; 3: it is
    stopped; 2: the run cannot be read; 0 after Ctrl-C.

    The JSON has the keys version, run, folder, at, state, study, budget, rate, expected_end, driver, trials, running,
    testing, hypervolume, front and log. Times are device-seconds where a key says so, else seconds; moments are UTC;
    what is not known is null.

    \b
    Examples:
      python -m nas.status smoke
      python -m nas.status smoke --watch 30
      python -m nas.status runs/smoke --json
      python -m nas.status smoke > status.txt || test $? -ne 3 || mail -s "smoke has stopped" me < status.txt
    """
    _check(watch, as_json, lines)
    from contextlib import closing

    from nas.record.run_folder import open_run
    from nas.results.console import make_console
    from nas.results.status.status import RunState, as_plain, read_status
    from nas.results.status.view import show
    from nas.results.status.view import watch as watch_run

    def read() -> "Status":
        opened = open_run(cli.run_path(run))
        with closing(opened.record):
            return read_status(opened, num_lines=lines)

    console = make_console(as_json=False)
    try:
        seen = read() if watch is None else watch_run(read, console, seconds=watch)
    except KeyboardInterrupt:
        if watch is None:
            raise
        return
    if as_json:
        typer.echo(json.dumps(as_plain(seen), indent=2))
    elif watch is None:
        console.print(show(seen))
    if seen.state is RunState.STOPPED:
        raise typer.Exit(STOPPED)


def _check(watch: float | None, as_json: bool, lines: int) -> None:
    """Check the options before anything is loaded.

    Raises:
        UserError: One is out of its bounds.
    """
    if watch is not None and not 0 < watch <= _LONGEST:
        raise UserError(f"watch: must be a number of seconds above 0 and at most {_LONGEST:.0f}, got {watch:g}")
    if watch is not None and as_json:
        raise UserError("json: must be given without --watch, since it is one document, got both")
    if not 0 <= lines <= _MOST_LINES:
        raise UserError(f"lines: must be a whole number from 0 to {_MOST_LINES}, got {lines}")


if __name__ == "__main__":
    cli.run(status, bare={"--watch": _EVERY})
