"""What all `python -m nas.NAME` programs share: how they run, names of runs, and where a team's defaults are.

It is loaded before the arguments are read, so it imports neither torch, ray nor optuna.
"""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metaformer.cli import deaf_threads, one_line_errors, run
from metaformer.documents import check_path
from metaformer.errors import UserError

if TYPE_CHECKING:
    from nas.study.request import Request

__all__ = [
    "OF_ALL_TRAININGS",
    "RUNS",
    "TEAM_FILE",
    "AsJson",
    "BatchSize",
    "CheckpointEvery",
    "Checkpoints",
    "CpusPerModel",
    "CpusPerTrial",
    "Deadline",
    "Epochs",
    "GpusPerModel",
    "GpusPerTrial",
    "ImagesPerClass",
    "Loaders",
    "RayAddress",
    "Settings",
    "SplitSeed",
    "StorageUrl",
    "TrackerName",
    "ValFraction",
    "Workers",
    "deaf_threads",
    "fill_from_team",
    "one_line_errors",
    "run",
    "run_path",
]

RUNS = Path("runs")
TEAM_FILE = Path("nas.yaml")  # in the working folder: a team's defaults
OF_ALL_TRAININGS = ("data", "recipe", "val_fraction", "split_seed")  # of these defaults; the others are for proxies

# Options that several programs have
ValFraction = Annotated[
    float | None,
    typer.Option(help="Part of each class of train that is held out to choose by.", show_default="0.1"),
]
ImagesPerClass = Annotated[
    int | None, typer.Option(help="Most images of a class to train on, for a proxy.", show_default="all")
]
SplitSeed = Annotated[int | None, typer.Option(help="Seed by which these images are drawn.", show_default="0")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="recipe.FIELD=VALUE", help="A field of the recipe: recipe.augmentation.mixup=0.2."),
]
Epochs = Annotated[int | None, typer.Option(help="Epochs of each trial.", show_default="by the recipe")]
BatchSize = Annotated[int | None, typer.Option(help="Images a step.", show_default="by the recipe")]
Deadline = Annotated[
    str | None, typer.Option(help="Wall time, such as 12h, after which running trials end at their next report.")
]
Workers = Annotated[int | None, typer.Option(help="Trials at a time.", show_default="as devices allow")]
CpusPerTrial = Annotated[
    int | None, typer.Option(help="CPU cores of each trial.", show_default="1; on GPUs an equal share")
]
GpusPerTrial = Annotated[
    str | None, typer.Option(help="Part of one GPU for each trial: 0.25, or auto, by memory.", show_default="1")
]
CpusPerModel = Annotated[
    int | None,
    typer.Option(help="Processes that train a model together on CPUs; --cpus-per-trial is of each.", show_default="1"),
]
GpusPerModel = Annotated[
    int | None, typer.Option(help="GPUs of one machine that train a model together.", show_default="1")
]
Loaders = Annotated[
    int | None,
    typer.Option(
        min=0, max=256, help="Processes of each trial that read images.", show_default="0; on GPUs by the cores"
    ),
]
StorageUrl = Annotated[
    str | None, typer.Option(help="Database URL of the study.", show_default="SQLite in the run's folder")
]
Checkpoints = Annotated[
    str | None, typer.Option(help="Where weights go: a folder or an fsspec URI.", show_default="the run's folder")
]
CheckpointEvery = Annotated[
    str | None,
    typer.Option(metavar="TIME|never", help="Between checkpoints within a long epoch: 30s, 10m.", show_default="5m"),
]
RayAddress = Annotated[
    str | None, typer.Option(help="Ray cluster to use: auto, or host:port.", show_default="this machine")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON; messages go to stderr.")]
TrackerName = Annotated[
    str | None,
    typer.Option(
        help="Where to show each epoch as it comes: tensorboard, wandb or mlflow, if installed.", show_default="none"
    ),
]


def fill_from_team(request: "Request", names: Collection[str]) -> "Request":
    """The request with what nas.yaml says of these options, which is said on stderr, where nothing was asked for.

    Raises:
        UserError: The file cannot be read.
    """
    from nas.study.request import read_team

    team = read_team(TEAM_FILE).part(names)
    filled = team.fill(request)
    if filled != request:
        typer.echo(f"{TEAM_FILE}: {team}", err=True)
    return filled


def run_path(run_name: str, field: str = "run") -> Path:
    """The folder meant by a path, or by a name under `runs`; it need not exist.

    Args:
        field: Of the message.
    Raises:
        UserError: No folder can have this path.
    """
    check_path(run_name, field, error=UserError)
    given = Path(run_name)
    if (given / "study.yaml").exists() or len(given.parts) != 1 or given.is_absolute():
        return given
    from nas.study.request import read_team

    return Path(read_team(TEAM_FILE).program.get("runs", RUNS)) / given
