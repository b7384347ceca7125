"""Writing an export: where it may lie, what goes into it, and its proof in a fresh process."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, NamedTuple, cast

from metaformer.documents import check_path, sha256_of
from metaformer.errors import UserError, unknown_name
from metaformer.network.model import MetaFormer
from nas.record.atomic import check_free, replacing, replacing_folder, unwritable
from nas.record.run_folder import Run
from nas.record.trials import TrialRecord, TrialState
from nas.results.exports.architecture_files import write_json, write_python, write_yaml
from nas.results.exports.card import card_text
from nas.results.exports.graphs import check_onnx, write_onnx, write_torch
from nas.results.exports.proof import (
    WEIGHTS,
    WHOLE,
    Format,
    ProofError,
    expect,
    seeded_model,
)
from nas.results.exports.reading import PROOF, proof_of
from nas.results.exports.subject import Subject, copy_weights, find_images, loose_weights, trained_model
from nas.results.exports.timm_folder import write_timm

_ROOT = Path(__file__).parents[3]  # where the packages lie


class Kind(NamedTuple):
    """What is particular to a format."""

    suffix: str  # of the default file; empty for a folder
    weights: Literal["beside", "inside", "none"]  # where they go; with them inside, the proof is kept

    @property
    def is_folder(self) -> bool:
        return not self.suffix


KINDS: dict[str, Kind] = {
    "yaml": Kind(".yaml", "beside"),
    "json": Kind(".json", "beside"),
    "python": Kind(".py", "beside"),
    "timm": Kind("", "inside"),
    "onnx": Kind(".onnx", "inside"),
    "torch": Kind(".pt2", "inside"),
    "card": Kind(".md", "none"),
}


def find_kind(name: str) -> Kind:
    """The format of that name.

    Raises:
        UserError: There is none.
    """
    if name not in KINDS:
        raise UserError(unknown_name("format", name, KINDS))
    return KINDS[name]


@dataclass(frozen=True)
class Order:
    """What is to be written."""

    format: str
    out: Path
    weights: Path | None  # a file for the weights beside it
    force: bool
    prove: bool
    command: str


def export_trial(run: Run, trial: TrialRecord, order: Order) -> float | None:
    """Write an export; the largest difference of a logit in its proof, None where there was no proof.

    Nothing is in its place before the proof has come out well.

    Raises:
        UserError: There is no such format, it cannot be written so, or the proof fails.
    """
    kind = find_kind(order.format)
    _check_order(trial, order, kind)
    with ExitStack() as stack:
        weights = None
        if order.weights:
            weights = stack.enter_context(_written("weights", order.weights))
            copy_weights(run, trial, weights)
        subject = _subject(run, trial, order, kind)
        if kind.weights == "inside":
            proof_file = stack.enter_context(_written("out", proof_of(order.out))) if kind.suffix else None
        else:
            proof_file = Path(stack.enter_context(TemporaryDirectory())) / PROOF
        part = stack.enter_context(_written("out", order.out, is_folder=kind.is_folder))
        _write(subject, part, order)
        if kind.weights == "none" or (kind.weights == "beside" and not order.prove):
            return None
        proof_file = proof_file or part / PROOF
        proof = expect(_reference(subject, weights), cast(Format, order.format), _digests(part, weights))
        proof_file.write_text(proof.model_dump_json() + "\n", encoding="utf-8")
        return _check_in_fresh_process(part, proof_file, weights) if order.prove else None


def _check_order(trial: TrialRecord, order: Order, kind: Kind) -> None:
    if trial.state is TrialState.FAILED:
        raise UserError(f"pick: must be a trial that has not failed, got {trial.number} ({trial.reason})")
    if order.format == "onnx":
        check_onnx()
    if kind.is_folder:
        _check_free_folder(order.out, force=order.force)
    else:
        check_free(order.out, "out", force=order.force)
    if kind.weights == "inside" and not kind.is_folder:
        check_free(proof_of(order.out), "out", force=order.force)
    if order.weights is None:
        return
    if kind.weights != "beside":
        rule = "holds them" if kind.weights == "inside" else "has none"
        raise UserError(
            f"weights: must not be given with format {order.format}, which {rule}, got {str(order.weights)!r}"
        )
    check_free(order.weights, "weights", force=order.force)
    if _place(order.weights) == _place(order.out):
        raise UserError(
            f"weights: must be another file than that of the architecture, got {str(order.weights)!r} twice"
        )


def _check_free_folder(path: Path, *, force: bool) -> None:
    """Check that a folder may be written; `force` replaces the files of an earlier export, and no other folder."""
    check_path(path, "out", error=UserError)
    if not path.parent.is_dir():
        raise UserError(f"out: must be a folder in one that exists, got {str(path)!r}")
    if not (path.exists() or path.is_symlink()):
        return
    if not force:
        raise UserError(f"out: must be a new folder, or take --force to replace it, got {str(path)!r}")
    if path.is_symlink() or not (path / PROOF).is_file():
        raise UserError(f"out: must be a new folder or an earlier export with a {PROOF}, got {str(path)!r}")


def _place(path: Path) -> Path:
    """Where a file will lie; a link in its place is replaced, those to its folder are followed."""
    return path.parent.resolve() / path.name


@contextmanager
def _written(option: str, path: Path, *, is_folder: bool = False) -> Iterator[Path]:
    """A file or folder to write, which takes the place of `path` when all has gone well.

    Raises:
        UserError: It cannot be written.
    """
    try:
        with replacing_folder(path) if is_folder else replacing(path) as part:
            yield part
    except OSError as error:
        raise unwritable(option, path, error) from None


def _subject(run: Run, trial: TrialRecord, order: Order, kind: Kind) -> Subject:
    """The trial with what the format needs of it."""
    if kind.weights == "beside":
        return Subject(run, trial, order.command)
    found = find_images(run.study)
    images, why_not = (None, found) if isinstance(found, str) else (found, "")
    model = None
    if kind.weights == "inside":
        with loose_weights(run, trial) as copy:
            model = trained_model(trial, copy)
    return Subject(run, trial, order.command, model, images, why_not)


def _write(subject: Subject, part: Path, order: Order) -> None:
    match order.format:
        case "yaml":
            write_yaml(subject, part, name=str(order.out))
        case "json":
            write_json(subject, part)
        case "python":
            write_python(subject, part, out=order.out, weights=order.weights)
        case "timm":
            write_timm(subject, part)
        case "onnx" if subject.model is not None:
            write_onnx(subject, part, model=subject.model)
        case "torch" if subject.model is not None:
            write_torch(subject, part, model=subject.model)
        case _:
            part.write_text(card_text(subject), encoding="utf-8")


def _reference(subject: Subject, weights: Path | None) -> MetaFormer:
    """The model that a proof compares with."""
    if subject.model is not None:
        return subject.model
    return trained_model(subject.trial, weights) if weights else seeded_model(subject.trial.architecture)


def _digests(part: Path, weights: Path | None) -> dict[str, str]:
    """SHA-256 of each file of an export, by the names that its proof has for them."""
    if part.is_dir():
        return {path.name: sha256_of(path) for path in sorted(part.iterdir())}
    return {WHOLE: sha256_of(part)} | ({WEIGHTS: sha256_of(weights)} if weights else {})


def _check_in_fresh_process(path: Path, proof: Path, weights: Path | None) -> float:
    """The largest difference of a logit that another process finds.

    Raises:
        ProofError: It finds another model, or none.
    """
    command = [sys.executable, "-P", "-m", "nas.results.exports.check", "--json", f"--proof={proof}"]
    command += [f"--weights={weights}"] if weights else []
    done = subprocess.run(  # noqa: S603  our own program
        [*command, "--", str(path)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(_ROOT), *filter(None, sys.path)])},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or ["no word"]
        raise ProofError(f"proof: must come out well in a fresh process, got {said[0].removeprefix('error: ')}")
    found: float = json.loads(done.stdout.splitlines()[-1])["difference"]
    return found
