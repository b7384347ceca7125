"""python -m nas.replay: what other settings of a search would have found, in virtual time."""

import json
from typing import Annotated

import typer

from nas import cli

__all__ = ["replay"]


def replay(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Folder of a run, or its name under runs/.")],
    sampler: Annotated[str | None, typer.Option(help="Which sampler to try.", show_default="the run's")] = None,
    stopper: Annotated[str | None, typer.Option(help="Which early stopping to try.", show_default="the run's")] = None,
    devices: Annotated[int, typer.Option(min=1, max=10_000, help="Trials at a time.")] = 8,
    budget: Annotated[str | None, typer.Option(help="Device time, as in a search.", show_default="the run's")] = None,
    max_trials: Annotated[int | None, typer.Option(min=1, help="Most trials.", show_default="the run's")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the search.", show_default="the run's")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False,
) -> None:
    """Say what a search with other settings would have found, by the learning curves that a run has recorded.

    The real session decides; nothing is trained. An architecture that the run trained does again what it did. The
    curves of others are predicted by a random forest, whose error for architectures left out stands under the table.
    The run's own settings are replayed as well: where they differ from the run itself, so may the others.

    \b
    Examples:
      python -m nas.replay smoke --sampler exact_cost
      python -m nas.replay smoke --stopper none --devices 32 --budget 2cpu-hours
      python -m nas.replay runs/smoke --sampler random --seed 1 --json
    """
    from contextlib import closing

    from nas.record.run_folder import open_run
    from nas.replay.settings import Settings
    from nas.replay.view import as_plain, show
    from nas.replay.virtual import Replays
    from nas.results.console import make_console

    asked = Settings(sampler, stopper, devices, budget, max_trials, seed)
    asked.check()
    opened = open_run(cli.run_path(run))
    with closing(opened.record):
        replays = Replays(opened, asked)
    if as_json:
        typer.echo(json.dumps(as_plain(replays), indent=2))
        return
    show(replays, make_console(as_json=False))
