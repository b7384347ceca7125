"""One trial of a run: the one that a pick names, its architecture as the text of a file, and its weights."""

from collections.abc import Iterator
from contextlib import contextmanager

from metaformer.errors import UserError, printable, shown
from nas.record.run_folder import Run
from nas.record.trials import TrialRecord
from nas.results.results import best_of, percent
from nas.session.pareto import knee
from nas.study.lease import WEIGHTS
from nas.study.objectives import find
from nas.training.checkpoints import CheckpointFolder, DamagedCheckpointError, StorageError

PICKS = ("knee", "best")
_MOST_DIGITS = 12  # of a trial's number


def architecture_text(run_name: str, trial: TrialRecord, *, file: str) -> str:
    """The architecture of a trial as YAML, below comments that say where it comes from and how to build it."""
    origin = f"hand-designed: {trial.reference}" if trial.reference else "found by the search"
    test = "not measured" if trial.test_accuracy is None else percent(trial.test_accuracy)
    measured = [f"{find(name).noun} {find(name).text(value)}" for name, value in trial.measured.items()]
    lines = [
        f"run {run_name}, trial {trial.number} ({trial.state}, {trial.num_epochs} epochs), {origin}",
        f"validation accuracy {percent(trial.val_accuracy)}, test accuracy {test}",
        f"{trial.params:,} parameters, {trial.macs:,} MACs per image of {trial.architecture.resolution} pixels",
        *([f"{', '.join(measured)} on {trial.progress.device}"] if measured else []),
        f"build it: import metaformer; model = metaformer.build({file!r})",
    ]
    comments = "".join(f"# {printable(' '.join(line.split()))}\n" for line in lines)
    return comments + trial.architecture.to_yaml()


def pick_trial(run: Run, pick: str) -> TrialRecord:
    """The trial meant by `best`, `knee` or a number.

    `best` has the highest validation accuracy (of equals the lowest other objectives, in the study's order). `knee`
    lies nearest to the ideal corner of the front. Both are complete; a number may be that of any trial.

    Raises:
        UserError: There is no such trial.
    """
    if pick not in PICKS:
        return _numbered(run, pick)
    complete, goals = run.record.complete, run.study.goals
    best = best_of(complete, goals)
    if best is None:
        raise UserError(f"pick: must be the number of a trial while none is complete, got {pick!r}")
    return best if pick == "best" else complete[knee([goals.values(trial) for trial in complete], goals)]


@contextmanager
def kept_weights(run: Run, trial: TrialRecord) -> Iterator[CheckpointFolder]:
    """The folder with the weights of a trial, to read them inside.

    Raises:
        UserError: They were not kept, or cannot be read inside.
    """
    try:
        checkpoints = run.folder.checkpoints_of(trial)
        if not checkpoints.has(WEIGHTS):
            raise UserError(
                f"weights: must have been kept, as those of the front and of hand-designed models are; trial "
                f"{trial.number} ({trial.state}) has no {checkpoints.where(WEIGHTS)}"
            )
        yield checkpoints
    except (DamagedCheckpointError, StorageError) as error:
        raise UserError(f"weights: must be readable, got those of trial {trial.number} ({error})") from None


def _numbered(run: Run, pick: str) -> TrialRecord:
    numbers = {trial.number: trial for trial in run.record}
    number = int(pick) if pick.isascii() and pick.isdigit() and len(pick) <= _MOST_DIGITS else -1
    if number in numbers:
        return numbers[number]
    there = f"trials are {min(numbers)} to {max(numbers)}" if numbers else "there are no trials yet"
    raise UserError(f"pick: must be knee, best or the number of a trial, got {shown(pick)}; {there}")
