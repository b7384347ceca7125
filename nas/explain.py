"""python -m nas.explain: what a search has learned of its genes."""

import json
from typing import Annotated

import typer

from nas import cli


def explain(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Folder of a run, or its name under runs/.")],
    compare: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GENE=VALUE,… : GENE=VALUE,…",
            help="Also say what several genes add together, instead of other values; may be given again.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the effects as JSON.")] = False,
) -> None:
    """Say which gene moves accuracy at equal cost, stage by stage, and how sure that is.

    From all architectures that the run has trained to the end; costs are known exactly, so what they explain is taken
    out first. Beside it stand pairs of architectures that differ in one gene alone.

    \b
    Examples:
      python -m nas.explain smoke
      python -m nas.explain runs/smoke --json
      python -m nas.explain runs/smoke --compare "mixer_3=attention,mixer_4=attention : mixer_3=pool,mixer_4=pool"
    """
    from contextlib import closing

    from nas.record.run_folder import open_run
    from nas.results.console import make_console
    from nas.results.explain.effects import Explanation
    from nas.results.explain.view import as_plain, parse_comparison, show
    from nas.results.results import Results

    opened = open_run(cli.run_path(run))
    with closing(opened.record):
        results = Results(opened)
        asked = [parse_comparison(text, opened.space.choices) for text in compare or []]
        explanation = Explanation(results)
    comparisons = [explanation.compare(first, second) for first, second in asked]
    if as_json:
        typer.echo(json.dumps(as_plain(results, explanation, comparisons=comparisons), indent=2))
        return
    show(results, explanation, make_console(as_json=False), comparisons=comparisons)


if __name__ == "__main__":
    cli.run(explain)
