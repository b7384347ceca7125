"""What is exported: one trial of a run, its model with the trained weights, and how images become its input."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from metaformer.checkpoints import load
from metaformer.errors import CheckpointError, UserError
from metaformer.network.model import MetaFormer
from metaformer.zoo import Preprocessing
from nas.data import open_dataset
from nas.data.registry import DataError
from nas.record.run_folder import Run
from nas.record.trials import TrialRecord
from nas.results.picks import kept_weights
from nas.study.lease import WEIGHTS
from nas.study.study import Study


@dataclass(frozen=True)
class Images:
    """How an image file becomes the model's input, and what its classes are called."""

    preprocessing: Preprocessing
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class Subject:
    """A trial, and what is known of it beside its record."""

    run: Run
    trial: TrialRecord
    command: str  # that exports it
    model: MetaFormer | None = None  # trained, in evaluation mode, on the CPU; None: only the architecture is asked for
    images: Images | None = None
    why_no_images: str = "they were not asked for"


def copy_weights(run: Run, trial: TrialRecord, target: Path) -> None:
    """Copy the file of a trial's trained weights.

    Raises:
        UserError: They were not kept, or are damaged.
    """
    with kept_weights(run, trial) as checkpoints:
        checkpoints.copy(WEIGHTS, target)


def trained_model(trial: TrialRecord, weights: Path) -> MetaFormer:
    """The model of a trial with the weights of a file, in evaluation mode.

    Raises:
        UserError: The file holds others.
    """
    try:
        return load(trial.architecture, weights).eval()
    except CheckpointError as error:
        raise _unreadable(trial, error) from None


@contextmanager
def loose_weights(run: Run, trial: TrialRecord) -> Iterator[Path]:
    """A copy of a trial's weights that is there inside `with`.

    Raises:
        UserError: As `copy_weights`.
    """
    with TemporaryDirectory() as folder:
        copy = Path(folder) / WEIGHTS
        copy_weights(run, trial, copy)
        yield copy


def find_images(study: Study) -> Images | str:
    """How the images of a study become a model's input, or why that cannot be told here."""
    try:
        dataset = open_dataset(
            study.data,
            resolution=study.settings.resolution,
            bad_images=study.bad_images,
            splitting=study.splitting,
        )
    except DataError as error:
        return str(error)
    if dataset.info.fingerprint != study.data_fingerprint:
        return (
            f"{study.data} has the fingerprint {dataset.info.fingerprint}, that of the run is {study.data_fingerprint}"
        )
    preprocessing = dataset.preprocessing(study.recipe)
    if preprocessing is None:
        return f"{study.data} does not say how its images are normalised"
    return Images(preprocessing, dataset.info.class_names)


def _unreadable(trial: TrialRecord, error: Exception) -> UserError:
    return UserError(f"weights: must be readable, got those of trial {trial.number} ({error})")
