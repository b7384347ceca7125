"""python -m nas.results.exports.check: open an export in this process, and compare it with what it must give."""

import json
from pathlib import Path
from typing import Annotated

import typer

from metaformer.errors import as_line
from nas import cli


def check(
    path: Annotated[Path, typer.Argument(metavar="EXPORT", help="File or folder that nas.export has written.")],
    proof: Annotated[
        Path | None, typer.Option(help="What it must give.", show_default="the proof.json that was written with it")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="Weights that belong to a YAML, JSON or Python file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Compare digests, parameters, MACs and logits of an export with those of the trial.

    \b
    Examples:
      python -m nas.results.exports.check exported/
      python -m nas.results.exports.check arch.onnx
    """
    from nas.results.exports.proof import check_digests, compare, read_proof
    from nas.results.exports.reading import open_export, proof_of

    expected = read_proof(proof or proof_of(path))
    check_digests(_files(path, weights, list(expected.sha256)), expected.sha256)
    difference = compare(open_export(path, expected, weights), expected)
    if as_json:
        typer.echo(json.dumps({"difference": difference, "tolerance": expected.tolerance}))
        return
    typer.echo(
        f"{as_line(path)}: {expected.params:,} parameters and {expected.macs:,} MACs as the trial's, "
        f"logits within {difference:.1e}"
    )


def _files(path: Path, weights: Path | None, names: list[str]) -> dict[str, Path]:
    """Where the files of an export lie, by their names among the digests."""
    from nas.results.exports.proof import WEIGHTS, WHOLE

    return {
        name: path if name == WHOLE else (weights or path) if name == WEIGHTS else path / Path(name).name
        for name in names
    }


if __name__ == "__main__":
    cli.run(check)
