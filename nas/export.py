"""python -m nas.export: one trial of a run as a file or folder that builds its model, proved in a fresh process."""

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metaformer.errors import as_line
from nas import cli

if TYPE_CHECKING:
    from nas.record.trials import TrialRecord
    from nas.results.exports.writing import Order


def export(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Folder of a run, or its name under runs/.")],
    pick: Annotated[
        str, typer.Option(help="best, knee, the number of a trial, max_macs=1G or max_params=5M.")
    ] = "knee",
    out: Annotated[
        Path | None, typer.Option(help="File or folder to write.", show_default="trial-NUMBER in this folder")
    ] = None,
    file_format: Annotated[
        str,
        typer.Option(
            "--format", help="yaml, json, python, timm (a folder), onnx, torch (a program), card (of a model)."
        ),
    ] = "yaml",
    weights: Annotated[Path | None, typer.Option(help="Also copy the trained weights to this file.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
    prove: Annotated[
        bool, typer.Option(help="Read it again in a fresh process, and compare parameters, MACs and logits.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Write one trial as a file or folder that builds its model.

    The pick `best` has the highest validation accuracy, `knee` is the balanced member of the front, `max_macs=1G` the
    most accurate member of at most so many MACs.

    \b
    Examples:
      python -m nas.export smoke --pick knee
      python -m nas.export runs/smoke --pick 31 --out arch.yaml --weights arch.pt
    """
    from nas.record.run_folder import open_run
    from nas.results.exports.writing import Order, export_trial, find_kind
    from nas.results.picks import pick_trial

    kind = find_kind(file_format)
    opened = open_run(cli.run_path(run))
    trial = pick_trial(opened, pick)
    order = Order(
        format=file_format,
        out=out or Path(f"trial-{trial.number:05d}{kind.suffix}"),
        weights=weights,
        force=force,
        prove=prove,
        command=shlex.join(["python", "-m", "nas.export", *sys.argv[1:]]),
    )
    difference = export_trial(opened, trial, order)
    if trial.state != "complete":
        typer.echo(f"trial {trial.number} is not complete but {trial.state}", err=True)
    if as_json:
        typer.echo(json.dumps(_as_plain(trial, order, difference), indent=2))
        return
    for line in _lines(trial, order, difference):
        typer.echo(line)


def _lines(trial: "TrialRecord", order: "Order", difference: float | None) -> list[str]:
    """What was written, its proof, and what to do with it."""
    from nas.results.results import percent
    from nas.study.objectives.units import short_count

    lines = [
        f"{as_line(order.out)}: trial {trial.number}, val {percent(trial.val_accuracy)}, "
        f"{short_count(trial.params)} parameters, {short_count(trial.macs)} MACs"
    ]
    if difference is not None:
        lines.append(f"proved in a fresh process: parameters and MACs are equal, logits within {difference:.1e}")
    next_step = _NEXT.get(order.format)
    return lines + ([f"next: {next_step.format(out=repr(str(order.out)))}"] if next_step else [])


_NEXT = {  # by format
    "yaml": 'python -c "import metaformer; print(metaformer.build({out}))"',
    "json": 'python -c "import metaformer; print(metaformer.build({out}))"',
    "python": "python {out}",
    "timm": (
        'python -c "import timm, metaformer.timm_models; '
        "print(timm.create_model('local-dir:' + {out}, pretrained=True))\""
    ),
}


def _as_plain(trial: "TrialRecord", order: "Order", difference: float | None) -> dict[str, object]:
    return {
        "trial": trial.number,
        "state": trial.state.value,
        "reference": trial.reference,
        "val_accuracy": trial.val_accuracy,
        "test_accuracy": trial.test_accuracy,
        "params": trial.params,
        "macs": trial.macs,
        "format": order.format,
        "architecture": str(order.out),
        "weights": str(order.weights) if order.weights else None,
        "largest_difference": difference,
    }


if __name__ == "__main__":
    cli.run(export)
