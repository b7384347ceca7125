"""The faults of a soak, and what a study must be after them."""

import math
from collections import Counter

from nas.record.run_folder import Run
from nas.record.trials import TrialRecord, TrialState

KILL_WORKER, KILL_DRIVER, STOP_WORKER = "kill-worker", "kill-driver", "stop-worker"
END_DRIVER = "end-driver"  # SIGTERM, as Kubernetes and Slurm send it
NAN, MEMORY_OF_STEP, MEMORY, SLOW_DISK = "nan", "memory-of-a-step", "memory", "slow-disk"
FAULTS = (KILL_WORKER, KILL_DRIVER, END_DRIVER, STOP_WORKER, NAN, MEMORY_OF_STEP, MEMORY, SLOW_DISK)
_REASONS = {"loss: must stay finite": NAN, "memory: must hold": MEMORY}  # what a failed trial says, up to a colon


def find_losses(run: Run, struck: Counter[str], *, spent: object, most_spent: float) -> list[str]:
    """What is wrong with a study after so many faults of each kind, a line each.

    Args:
        spent: Device-seconds that the program says were spent.
        most_spent: Device-seconds that there were.
    """
    record = run.record
    wrong = [line for trial in record for line in _of_trial(trial, run.study.recipe.epochs)]
    digests = Counter(trial.architecture.digest for trial in record if trial.checkpoint_trial == trial.number)
    wrong += [f"{digest} was tried {count} times" for digest, count in digests.items() if count > 1]
    numbers = {*record.discarded, *(trial.number for trial in record)}
    missing = sorted(set(range(max(numbers, default=-1) + 1)) - numbers)
    if missing:
        wrong.append(f"trials are missing: {missing}")
    if len(record.discarded) > struck[KILL_DRIVER]:
        wrong.append(f"{len(record.discarded)} trials were half written, {struck[KILL_DRIVER]} drivers were killed")
    for reason, count in Counter(_cause(trial) for trial in record if trial.state is TrialState.FAILED).items():
        if count > struck[reason]:
            wrong.append(f"{count} trials failed by {reason}, which struck {struck[reason]} times")
    lost = sum(lease.end == "lost" for trial in record for lease in trial.progress.leases)
    if lost > struck[KILL_WORKER]:
        wrong.append(f"{lost} leases lost their worker, {struck[KILL_WORKER]} were killed")
    charged = record.notes.overhead_device_seconds + sum(
        lease.device_seconds + lease.lost for trial in record for lease in trial.progress.leases
    )
    if not (isinstance(spent, float) and math.isclose(spent, charged)):
        wrong.append(f"{charged} device-seconds are charged, {spent} are said to be spent")
    if charged > most_spent:
        wrong.append(f"{charged:.0f} device-seconds are charged where there were {most_spent:.0f}")
    return wrong


def _of_trial(trial: TrialRecord, epochs: int) -> list[str]:
    wrong = []
    if trial.state is TrialState.RUNNING:
        wrong.append("is left running")
    if trial.state is TrialState.STOPPED:
        wrong.append(f"was stopped: {trial.reason}")
    seen = [report.epoch for report in trial.progress.curve]
    if trial.state is TrialState.COMPLETE and seen != list(range(1, epochs + 1)):
        wrong.append(f"is complete with epochs {seen}")
    leases = [(lease.attempt, lease.end is not None) for lease in trial.progress.leases]
    if leases != [(attempt, True) for attempt in range(1, len(leases) + 1)]:
        wrong.append(f"has leases {trial.progress.leases}")
    return [f"trial {trial.number} {line}" for line in wrong]


def _cause(trial: TrialRecord) -> str:
    """The fault that a failed trial names, or its reason where it is none."""
    reason = str(trial.reason)
    return next((fault for start, fault in _REASONS.items() if reason.startswith(start)), reason)
