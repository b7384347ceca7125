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
from typing import Literal, NamedTuple

from metaformer.documents import check_path
from metaformer.errors import UserError, shown, unknown_name
from metaformer.network.model import MetaFormer
from nas.record.atomic import replacing
from nas.record.run_folder import Run
from nas.record.trials import TrialRecord, TrialState
from nas.results.exports.architecture_files import write_json, write_python, write_yaml
from nas.results.exports.card import card_text
from nas.results.exports.proof import (
    WEIGHTS,
    WHOLE,
    Format,
    Proof,
    ProofError,
    digest_of,
    expect,
    seeded_model,
)
from nas.results.exports.subject import Subject, copy_weights, find_images, trained_model

_ROOT = Path(__file__).parents[3]  # where the packages lie


class Kind(NamedTuple):
    """What is particular to a format."""

    suffix: str  # of the default file; empty for a folder
    weights: Literal["beside", "inside", "none"]


KINDS: dict[str, Kind] = {
    "yaml": Kind(".yaml", "beside"),
    "json": Kind(".json", "beside"),
    "python": Kind(".py", "beside"),
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
        part = stack.enter_context(_written("out", order.out))
        subject = _subject(run, trial, order)
        _write(subject, part, order)
        if not order.prove or kind.weights == "none":
            return None
        return _prove(_reference(subject, weights), part, weights, order)


def _check_order(trial: TrialRecord, order: Order, kind: Kind) -> None:
    if trial.state is TrialState.FAILED:
        raise UserError(f"pick: must be a trial that has not failed, got {trial.number} ({trial.reason})")
    check_free(order.out, "out", force=order.force)
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


def check_free(path: Path, option: str, *, force: bool) -> None:
    """Check that a file may be written.

    Raises:
        UserError: Its folder is not there, something lies there that is not to be replaced, or is no regular file.
    """
    check_path(path, option, error=UserError)
    if path.is_dir() or not path.parent.is_dir():
        raise UserError(f"{option}: must be a file in a folder that exists, got {str(path)!r}")
    if (path.exists() or path.is_symlink()) and not force:
        raise UserError(f"{option}: must be a new file, or take --force to replace it, got {str(path)!r}")
    if path.exists() and not path.is_file():  # such as /dev/null, which a program as root could replace
        raise UserError(f"{option}: must be a regular file where there is one, got {str(path)!r}")


def _place(path: Path) -> Path:
    """Where a file will lie; a link in its place is replaced, those to its folder are followed."""
    return path.parent.resolve() / path.name


@contextmanager
def _written(option: str, path: Path) -> Iterator[Path]:
    """A file to write, which takes the place of `path` when all has gone well.

    Raises:
        UserError: It cannot be written.
    """
    try:
        with replacing(path) as part:
            yield part
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError(f"{option}: must be a file that can be written, got {shown(str(path))} ({reason})") from None


def _subject(run: Run, trial: TrialRecord, order: Order) -> Subject:
    if order.format != "card":
        return Subject(run, trial, order.command)
    images = find_images(run.study)
    if isinstance(images, str):
        return Subject(run, trial, order.command, why_no_images=images)
    return Subject(run, trial, order.command, images=images)


def _write(subject: Subject, part: Path, order: Order) -> None:
    match order.format:
        case "yaml":
            write_yaml(subject, part, name=str(order.out))
        case "json":
            write_json(subject, part)
        case "python":
            write_python(subject, part, out=order.out, weights=order.weights)
        case _:
            part.write_text(card_text(subject), encoding="utf-8")


def _reference(subject: Subject, weights: Path | None) -> MetaFormer:
    """The model that a proof compares with."""
    if subject.model is not None:
        return subject.model
    return trained_model(subject.trial, weights) if weights else seeded_model(subject.trial.architecture)


def _prove(model: MetaFormer, part: Path, weights: Path | None, order: Order) -> float:
    kind: Format = order.format  # type: ignore[assignment]
    sha256 = {WHOLE: digest_of(part)} | ({WEIGHTS: digest_of(weights)} if weights else {})
    return check_in_fresh_process(part, expect(model, kind, sha256), weights)


def check_in_fresh_process(path: Path, proof: Proof, weights: Path | None) -> float:
    """The largest difference of a logit that another process finds.

    Raises:
        ProofError: It finds another model, or none.
    """
    with TemporaryDirectory() as folder:
        expected = Path(folder) / "proof.json"
        expected.write_text(proof.model_dump_json(), encoding="utf-8")
        command = [sys.executable, "-P", "-m", "nas.results.exports.check", "--json", f"--proof={expected}"]
        command += [f"--weights={weights}"] if weights else []
        path_list = os.pathsep.join([str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        done = subprocess.run(  # noqa: S603  our own program
            [*command, "--", str(path)],
            env=os.environ | {"PYTHONPATH": path_list},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or ["no word"]
        raise ProofError(f"proof: must come out well in a fresh process, got {said[0].removeprefix('error: ')}")
    found: float = json.loads(done.stdout)["difference"]
    return found
