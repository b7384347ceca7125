"""What all `python -m nas.NAME` programs share: how they run, names of runs, and where a team's defaults are.

It is loaded before the arguments are read, so it imports neither torch, ray nor optuna.
"""

from pathlib import Path

from metaformer.cli import deaf_threads, one_line_errors, run
from metaformer.documents import check_path
from metaformer.errors import UserError

__all__ = ["RUNS", "TEAM_FILE", "deaf_threads", "one_line_errors", "run", "run_path"]

RUNS = Path("runs")
TEAM_FILE = Path("nas.yaml")  # in the working folder: a team's defaults


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
