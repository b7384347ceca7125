"""python -m nas.compare: what several runs have found, side by side."""

import json
from pathlib import Path
from typing import Annotated

import typer

from metaformer.errors import UserError, as_line
from nas import cli


def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN RUN …", help="Folders of runs, or names under runs/.")],
    out: Annotated[Path | None, typer.Option(help="HTML file to write, with charts.", show_default=False)] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False,
) -> None:
    """Compare runs of the same objectives and data: best accuracy, hypervolume, fronts, and settings that differ.

    A model is said to dominate another one from a probability of 0.9 on. Spaces and recipes may differ.

    \b
    Examples:
      python -m nas.compare tpe random
      python -m nas.compare runs/a runs/b runs/c --out compare.html
      python -m nas.compare a b --json
    """
    if len(runs) < 2:
        raise UserError(f"runs: must be two at least, got {len(runs)}")
    from contextlib import ExitStack, closing

    from nas.record.atomic import check_free, replace_text, unwritable
    from nas.record.run_folder import open_run
    from nas.results.comparison.comparison import Comparison
    from nas.results.comparison.page import render
    from nas.results.comparison.view import as_plain, show
    from nas.results.console import make_console

    if out is not None:
        check_free(out, "out", force=force)
    with ExitStack() as stack:
        opened = [open_run(cli.run_path(run)) for run in runs]
        for run in opened:
            stack.enter_context(closing(run.record))
    comparison = Comparison(opened)
    if out is not None:
        try:
            replace_text(out, render(comparison))
        except OSError as error:
            raise unwritable("out", out, error) from None
    if as_json:
        typer.echo(json.dumps(as_plain(comparison), indent=2))
        return
    show(comparison, make_console(as_json=False))
    if out is not None:
        typer.echo(as_line(out))


if __name__ == "__main__":
    cli.run(compare)
