"""python -m nas.export: one architecture of a run as a YAML file that `metaformer.build` reads."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metaformer.errors import UserError, as_line
from nas import cli

if TYPE_CHECKING:
    from nas.record.run_folder import Run
    from nas.record.trials import TrialRecord


def export(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Folder of a run, or its name under runs/.")],
    pick: Annotated[str, typer.Option(help="best, knee, or the number of a trial.")] = "knee",
    out: Annotated[
        Path | None, typer.Option(help="YAML file to write.", show_default="trial-NUMBER.yaml in this folder")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="Also copy the trained weights to this file.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Write the architecture of one trial to a YAML file.

    The pick `best` has the highest validation accuracy, `knee` is the balanced member of the front.

    \b
    Examples:
      python -m nas.export smoke --pick knee
      python -m nas.export runs/smoke --pick 31 --out arch.yaml --weights arch.pt
    """
    from nas.record.atomic import replace_text
    from nas.record.run_folder import open_run
    from nas.results.picks import architecture_text, pick_trial
    from nas.results.results import percent
    from nas.study.objectives.units import short_count

    opened = open_run(cli.run_path(run))
    trial = pick_trial(opened, pick)
    target = out or Path(f"trial-{trial.number:05d}.yaml")
    cli.check_free(target, "out", force)
    if weights:
        cli.check_free(weights, "weights", force)
        if _place(weights) == _place(target):
            raise UserError(f"weights: must be another file than that of the architecture, got {str(weights)!r} twice")
        _copy_weights(opened, trial, weights)
    try:
        replace_text(target, architecture_text(opened.name, trial, file=str(target)))
    except OSError as error:
        raise cli.unwritable("out", target, error) from None
    if trial.state != "complete":
        typer.echo(f"trial {trial.number} is not complete but {trial.state}", err=True)
    if as_json:
        typer.echo(json.dumps(_as_plain(trial, target, weights), indent=2))
        return
    typer.echo(
        f"{as_line(target)}: trial {trial.number}, val {percent(trial.val_accuracy)}, "
        f"{short_count(trial.params)} parameters, {short_count(trial.macs)} MACs"
    )
    typer.echo(f'next: python -c "import metaformer; print(metaformer.build({str(target)!r}))"')


def _place(path: Path) -> Path:
    """Where a file will lie; a link in its place is replaced, those to its folder are followed."""
    return path.parent.resolve() / path.name


def _copy_weights(run: "Run", trial: "TrialRecord", target: Path) -> None:
    from nas.record.atomic import replacing
    from nas.results.picks import kept_weights
    from nas.study.lease import WEIGHTS

    try:
        with kept_weights(run, trial) as checkpoints, replacing(target) as part:
            checkpoints.copy(WEIGHTS, part)
    except OSError as error:
        raise cli.unwritable("weights", target, error) from None


def _as_plain(trial: "TrialRecord", target: Path, weights: Path | None) -> dict[str, object]:
    return {
        "trial": trial.number,
        "state": trial.state.value,
        "reference": trial.reference,
        "val_accuracy": trial.val_accuracy,
        "test_accuracy": trial.test_accuracy,
        "params": trial.params,
        "macs": trial.macs,
        "architecture": str(target),
        "weights": str(weights) if weights else None,
    }


if __name__ == "__main__":
    cli.run(export)
