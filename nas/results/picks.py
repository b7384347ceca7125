"""One trial of a run: the one that a pick names, its architecture as the text of a file, and its weights."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from metaformer.errors import UserError, printable, shown, unknown_name
from nas.record.run_folder import Run
from nas.record.trials import TrialRecord
from nas.results.results import Results, best_of, percent
from nas.session.pareto import front_of, knee
from nas.study.lease import WEIGHTS
from nas.study.objectives import find
from nas.study.request import parse_count
from nas.training.checkpoints import CheckpointFolder, DamagedCheckpointError, StorageError

PICKS = ("knee", "best")
_LIMITED = ("macs", "params")  # costs that a pick may limit
_LIMIT = re.compile(r"max_([a-z_]+)=(.*)", re.DOTALL)
_MOST_DIGITS = 12  # of a trial's number


def architecture_text(run_name: str, trial: TrialRecord, *, file: str) -> str:
    """The architecture of a trial as YAML, below comments that say where it comes from and how to build it."""
    lines = [*origin_lines(run_name, trial), f"build it: import metaformer; model = metaformer.build({file!r})"]
    comments = "".join(f"# {printable(' '.join(line.split()))}\n" for line in lines)
    return comments + trial.architecture.to_yaml()


def origin_lines(run_name: str, trial: TrialRecord) -> list[str]:
    """Where an architecture comes from, how accurate it is and what it costs, a line each."""
    origin = f"hand-designed: {trial.reference}" if trial.reference else "found by the search"
    test = "not measured" if trial.test_accuracy is None else percent(trial.test_accuracy)
    measured = [f"{find(name).noun} {find(name).text(value)}" for name, value in trial.measured.items()]
    return [
        f"run {run_name}, trial {trial.number} ({trial.state}, {trial.num_epochs} epochs), {origin}",
        f"validation accuracy {percent(trial.val_accuracy)}, test accuracy {test}",
        f"{trial.params:,} parameters, {trial.macs:,} MACs per image of {trial.architecture.resolution} pixels",
        *([f"{', '.join(measured)} on {trial.progress.device}"] if measured else []),
    ]


def pick_trial(run: Run, pick: str) -> TrialRecord:
    """The trial meant by `best`, `knee`, a limit such as `max_macs=1G`, or a number.

    `best` has the highest validation accuracy (of equals the lowest other objectives, in the study's order). `knee`
    lies nearest to the ideal corner of the front. A limit means the most accurate member of the front within it. All
    of these are complete; a number may be that of any trial. Of an architecture that was trained with several seeds
    the mean accuracy counts, and the first of its trials is meant, since the luckiest would flatter it.

    Raises:
        UserError: There is no such trial.
    """
    limit = _LIMIT.fullmatch(pick)
    if limit:
        return _within(run, limit[1], limit[2], pick)
    if pick not in PICKS:
        return _numbered(run, pick)
    complete, goals = Results(run).complete, run.study.goals
    best = best_of(complete, goals)
    if best is None:
        raise UserError(f"pick: must be the number of a trial while none is complete, got {pick!r}")
    if pick == "knee":
        best = complete[knee([goals.values(trial) for trial in complete], goals)]
    return _itself(run, best)


def _within(run: Run, name: str, text: str, pick: str) -> TrialRecord:
    """The most accurate member of the front whose cost is within a limit."""
    if name not in _LIMITED:
        raise UserError(unknown_name("pick", f"max_{name}", [f"max_{known}" for known in _LIMITED]))
    most, objective, goals = parse_count("pick", text), find(name), run.study.goals
    members = front_of(Results(run).complete, goals)
    costs = {member.number: objective.value(member) or 0.0 for member in members}
    best = best_of([member for member in members if costs[member.number] <= most], goals)
    if best is None:
        least = f"the least is {objective.text(min(costs.values()))}" if costs else "it is empty"
        raise UserError(f"pick: must be a limit that a member of the front meets, got {shown(pick)}; {least}")
    return _itself(run, best)


def _itself(run: Run, mean: TrialRecord) -> TrialRecord:
    """The trial whose number a mean has, with its own accuracy and weights."""
    return next(trial for trial in run.record if trial.number == mean.number)


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
