"""What all `python -m nas.NAME` programs share: how they run, names of runs, and where a team's defaults are.

It is loaded before the arguments are read, so it imports neither torch, ray nor optuna.
"""

from pathlib import Path
from typing import Annotated

import typer

from metaformer.cli import deaf_threads, one_line_errors, run
from metaformer.documents import check_path
from metaformer.errors import UserError, shown

__all__ = [
    "RUNS",
    "TEAM_FILE",
    "ImagesPerClass",
    "SplitSeed",
    "TrackerName",
    "ValFraction",
    "check_free",
    "deaf_threads",
    "one_line_errors",
    "run",
    "run_path",
    "unwritable",
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


def check_free(path: Path, option: str, force: bool) -> None:
    """Check that a file may be written.

    Raises:
        UserError: It is there and must stay, or can be no file.
    """
    check_path(path, option, error=UserError)
    if path.is_dir() or not path.parent.is_dir():
        raise UserError(f"{option}: must be a file in a folder that exists, got {str(path)!r}")
    if (path.exists() or path.is_symlink()) and not force:
        raise UserError(f"{option}: must be a new file, or take --force to replace it, got {str(path)!r}")
    if path.exists() and not path.is_file():  # such as /dev/null, which a program as root could replace
        raise UserError(f"{option}: must be a regular file where there is one, got {str(path)!r}")


def unwritable(option: str, path: Path, error: OSError) -> UserError:
    """What to raise where a file that was asked for cannot be written."""
    reason = error.strerror or type(error).__name__
    return UserError(f"{option}: must be a file that can be written, got {shown(str(path))} ({reason})")
