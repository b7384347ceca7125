"""python -m nas.report: what a run has found, as a page, tables and architecture files in its folder."""

import json
import webbrowser
from typing import Annotated

import typer

from metaformer.errors import as_line
from nas import cli


def report(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Folder of a run, or its name under runs/.")],
    show: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Let an empty front replace one that has members.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a summary as JSON.")] = False,
) -> None:
    """Write the report of a run anew: report.html, trials.csv, curves.csv, front.csv and front/*.yaml.

    \b
    Examples:
      python -m nas.report smoke --open
      python -m nas.report runs/smoke --json
    """
    from nas.results.report_files import report_of, summarise

    opened, path = report_of(cli.run_path(run), empties_front=force)
    if as_json:
        typer.echo(json.dumps(summarise(opened), indent=2))
    else:
        folder = opened.folder
        num_files = len(list(folder.architectures.glob("*.yaml")))
        typer.echo("\n".join(as_line(file) for file in (path, folder.trials_csv, folder.curves_csv, folder.front_csv)))
        typer.echo(f"{as_line(folder.architectures)} ({num_files} architectures)")
    if show:
        webbrowser.open(path.resolve().as_uri())


if __name__ == "__main__":
    cli.run(report)
