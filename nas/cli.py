"""What all `python -m nas.NAME` programs share: how they run, names of runs, and where a team's defaults are.

It is loaded before the arguments are read, so it imports neither torch, ray nor optuna.
"""

from pathlib import Path
from typing import Annotated

import typer

from metaformer.cli import deaf_threads, one_line_errors, run
from metaformer.documents import check_path
from metaformer.errors import UserError

__all__ = [
    "RUNS",
    "TEAM_FILE",
    "ImagesPerClass",
    "SplitSeed",
    "TrackerName",
    "ValFraction",
    "deaf_threads",
    "one_line_errors",
    "run",
    "run_path",
]

RUNS = Path("runs")
TEAM_FILE = Path("nas.yaml")  # in the working folder: a team's defaults

# Options that several programs have
ValFraction = Annotated[
    float | None,
    typer.Option(help="Part of each class of train that is held out to choose by.", show_default="0.1"),
]
ImagesPerClass = Annotated[
    int | None, typer.Option(help="Most images of a class to train on, for a proxy.", show_default="all")
]
SplitSeed = Annotated[int | None, typer.Option(help="Seed by which these images are drawn.", show_default="0")]
TrackerName = Annotated[
    str | None,
    typer.Option(
        help="Where to show each epoch as it comes: tensorboard, wandb or mlflow, if installed.", show_default="none"
    ),
]


def run_path(run_name: str) -> Path:
    """The folder meant by a path, or by a name under `runs`; it need not exist.

    Raises:
        UserError: No folder can have this path.
    """
    check_path(run_name, "run", error=UserError)
    given = Path(run_name)
    if (given / "study.yaml").exists() or len(given.parts) != 1 or given.is_absolute():
        return given
    from nas.study.request import read_team

    return Path(read_team(TEAM_FILE).program.get("runs", RUNS)) / given
