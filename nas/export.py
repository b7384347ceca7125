"""python -m nas.export: one architecture of a run as a YAML file that `metaformer.build` reads."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metaformer.errors import UserError
from nas import cli

if TYPE_CHECKING:
    from nas.record import TrialRecord
    from nas.run import Run

PICKS = ("knee", "best")


def architecture_text(run_name: str, trial: "TrialRecord", *, file: str) -> str:
    """The architecture of a trial as YAML, below comments that say where it comes from and how to build it."""
    from nas.tables import percent

    origin = f"hand-designed: {trial.reference}" if trial.reference else "found by the search"
    test = "not measured" if trial.test_accuracy is None else percent(trial.test_accuracy)
    lines = [
        f"run {run_name}, trial {trial.number} ({trial.state}, {trial.num_epochs} epochs), {origin}",
        f"validation accuracy {percent(trial.val_accuracy)}, test accuracy {test}",
        f"{trial.params:,} parameters, {trial.macs:,} MACs per image of {trial.architecture.resolution} pixels",
        f"build it: import metaformer; model = metaformer.build({file!r})",
    ]
    comments = "".join(f"# {' '.join(line.split())}\n" for line in lines)
    return comments + trial.architecture.to_yaml()


def replace_text(path: Path, text: str) -> None:
    """Write a file so that at any moment either the old one is there or the new one, whole."""
    part = _part(path)
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def pick_trial(run: "Run", pick: str) -> "TrialRecord":
    """The trial meant by `best`, `knee` or a number.

    `best` has the highest validation accuracy (of equals the fewest MACs, then parameters), `knee` lies nearest to the
    ideal corner of the front. Both are of complete trials; a number may be that of any trial.

    Raises:
        UserError: There is no such trial.
    """
    from nas.pareto import knee

    if pick not in PICKS:
        return _numbered(run, pick)
    complete = run.record.complete
    if not complete:
        raise UserError(f"pick: must be the number of a trial while none is complete, got {pick!r}")
    if pick == "best":
        return max(complete, key=lambda trial: (trial.objectives[0], -trial.macs, -trial.params))
    return complete[knee([trial.objectives for trial in complete])]


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
    from nas.run import open_run
    from nas.tables import percent, short_count

    opened = open_run(cli.run_path(run))
    trial = pick_trial(opened, pick)
    target = out or Path(f"trial-{trial.number:05d}.yaml")
    _check_free(target, "out", force)
    if weights:
        _check_free(weights, "weights", force)
        _copy_weights(opened, trial, weights)
    replace_text(target, architecture_text(opened.name, trial, file=str(target)))
    if trial.state != "complete":
        typer.echo(f"trial {trial.number} is not complete but {trial.state}", err=True)
    if as_json:
        typer.echo(json.dumps(_as_plain(trial, target, weights), indent=2))
        return
    typer.echo(
        f"{target}: trial {trial.number}, val {percent(trial.val_accuracy)}, "
        f"{short_count(trial.params)} parameters, {short_count(trial.macs)} MACs"
    )
    typer.echo(f'next: python -c "import metaformer; print(metaformer.build({str(target)!r}))"')


def _part(path: Path) -> Path:
    """Where a file is written until it is whole; two programs that write the same file do not meet there."""
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def _numbered(run: "Run", pick: str) -> "TrialRecord":
    numbers = {trial.number: trial for trial in run.record}
    if pick.isascii() and pick.isdigit() and int(pick) in numbers:
        return numbers[int(pick)]
    there = f"trials are {min(numbers)} to {max(numbers)}" if numbers else "there are no trials yet"
    raise UserError(f"pick: must be knee, best or the number of a trial, got {pick!r}; {there}")


def _check_free(path: Path, option: str, force: bool) -> None:
    if path.is_dir() or not path.parent.is_dir():
        raise UserError(f"{option}: must be a file in a folder that exists, got {str(path)!r}")
    if path.exists() and not force:
        raise UserError(f"{option}: must be a new file, or take --force to replace it, got {str(path)!r}")


def _copy_weights(run: "Run", trial: "TrialRecord", target: Path) -> None:
    from nas.checkpoint_files import CheckpointError, StorageError
    from nas.lease import WEIGHTS

    try:
        checkpoints = run.folder.checkpoints_of(trial)
        if not checkpoints.has(WEIGHTS):
            raise UserError(
                f"weights: must have been kept, as those of the front and of hand-designed models are; trial "
                f"{trial.number} ({trial.state}) has no {checkpoints.where(WEIGHTS)}"
            )
        checkpoints.copy(WEIGHTS, _part(target))
        _part(target).replace(target)
    except (CheckpointError, StorageError) as error:
        raise UserError(f"weights: must be readable, got those of trial {trial.number} ({error})") from None
    except OSError as error:
        _part(target).unlink(missing_ok=True)
        raise UserError(f"weights: must be a file that can be written, got {str(target)!r} ({error})") from None


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
