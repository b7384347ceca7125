"""What all `python -m nas.NAME` programs share: how they run, and names of runs.

It is loaded before the arguments are read, so it imports neither torch, ray nor optuna.
"""

from pathlib import Path

from metaformer.cli import deaf_threads, one_line_errors, run
from metaformer.documents import check_path
from metaformer.errors import UserError

__all__ = ["RUNS", "deaf_threads", "one_line_errors", "run", "run_path"]

RUNS = Path("runs")


def run_path(run_name: str) -> Path:
    """The folder meant by a path, or by a name under `runs`; it need not exist.

    Raises:
        UserError: No folder can have this path.
    """
    check_path(run_name, "run", error=UserError)
    given = Path(run_name)
    if (given / "study.yaml").exists() or len(given.parts) != 1 or given.is_absolute():
        return given
    return RUNS / given
