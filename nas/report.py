"""python -m nas.report: what a run has found, as a page, tables and architecture files in its folder."""

import json
import webbrowser
from typing import TYPE_CHECKING, Annotated

import typer

from nas import cli

if TYPE_CHECKING:
    from pathlib import Path

    from nas.run import Run
    from nas.tables import Results


def write_report(run: "Run") -> "Path":
    """Path of the page, after writing it and, beside it, `trials.csv`, `front.csv` and `front/*.yaml`.

    Each file is replaced whole. It may be called at any time, also while the search goes on.
    """
    from nas.export import replace_text
    from nas.page import render
    from nas.tables import Results, trial_frame

    results = Results(run)
    _write_architectures(results)
    replace_text(run.folder.trials_csv, trial_frame(results.trials, front=results.front).to_csv(index=False))
    front = trial_frame(results.front, front=results.front)
    front["architecture"] = [results.architecture_file(trial) for trial in results.front]
    replace_text(run.folder.front_csv, front.to_csv(index=False))
    replace_text(run.folder.report_html, render(results))
    return run.folder.report_html


def summarise(run: "Run") -> dict[str, object]:
    """What `write_report` says, as plain values for a program: accuracies in [0, 1], device-seconds."""
    from nas.tables import Results

    results = Results(run)
    return {
        "run": run.name,
        "folder": str(run.folder.path),
        "report": str(run.folder.report_html),
        "trials": results.counts,
        "budget": run.study.budget,
        "spent_device_seconds": results.spent_seconds,
        "hypervolume": results.hypervolume,
        "front": [
            {
                "trial": trial.number,
                "reference": trial.reference,
                "val_accuracy": trial.val_accuracy,
                "test_accuracy": trial.test_accuracy,
                "params": trial.params,
                "macs": trial.macs,
                "device_seconds": trial.device_seconds,
                "architecture": results.architecture_file(trial),
            }
            for trial in results.front
        ],
        "references": [
            {
                "names": reference.names,
                "trial": reference.trial.number if reference.trial else None,
                "standing": reference.standing,
                "dominated_by": [trial.number for trial in reference.dominated_by],
            }
            for reference in results.references
        ],
    }


def report(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Folder of a run, or its name under runs/.")],
    show: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a summary as JSON.")] = False,
) -> None:
    """Write the report of a run anew: report.html, trials.csv, front.csv and front/*.yaml in its folder.

    \b
    Examples:
      python -m nas.report smoke --open
      python -m nas.report runs/smoke --json
    """
    from nas.run import open_run

    opened = open_run(cli.run_path(run))
    with opened.folder.report_lock():
        opened = open_run(opened.folder.path)  # read under the lock, so never older than what was written
        path = write_report(opened)
    if as_json:
        typer.echo(json.dumps(summarise(opened), indent=2))
    else:
        folder = opened.folder
        num_files = len(list(folder.architectures.glob("*.yaml")))
        typer.echo("\n".join(str(file) for file in (path, folder.trials_csv, folder.front_csv)))
        typer.echo(f"{folder.architectures} ({num_files} architectures)")
    if show:
        webbrowser.open(path.resolve().as_uri())


def _write_architectures(results: "Results") -> None:
    """One YAML file for each member of the front; those of former members go."""
    from nas.export import architecture_text, replace_text

    folder = results.run.folder.architectures
    folder.mkdir(exist_ok=True)
    for trial in results.front:
        path = folder.parent / results.architecture_file(trial)
        replace_text(path, architecture_text(results.run.name, trial, file=path.name))
    kept = {folder.parent / results.architecture_file(trial) for trial in results.front}
    for path in set(folder.glob("trial-*.yaml")) - kept:
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    cli.run(report)
