"""Where a search stands, as values: of a run that a driver may be writing at this moment, and nothing is written."""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from metaformer.cost import count_cost
from nas.record.lock import SeenDriver, see_driver_of_folder, see_driver_of_study
from nas.record.run_folder import Run
from nas.record.run_log import last_lines
from nas.record.storage import is_journal, last_written
from nas.record.trials import TrialRecord, TrialState
from nas.results.results import Results, front_as_plain
from nas.results.status.rate import Rate, expected_end, measure_rate
from nas.results.words import recipe_text
from nas.session.cost_model import CostModel
from nas.study.budget import Budget
from nas.study.lease import lease_name


class RunState(StrEnum):
    """Whether a search goes on, and if not, whether it could."""

    RUNNING = "running"
    ENDED = "ended"  # its budget is spent, or nothing more can be begun
    STOPPED = "stopped"  # nothing is running although budget is left


@dataclass(frozen=True)
class Status:
    """Where a search stands at one moment; times are device-seconds."""

    run: Run
    results: Results
    at: datetime  # UTC
    state: RunState
    driver: SeenDriver | None  # None: the last one ended by itself
    budget: Budget
    reserved: float  # what the open leases are expected to use yet
    unreported: float  # used by open leases after their last report, by the driver's last sign of life
    rate: Rate | None
    expected_end: datetime | None  # UTC
    running: tuple[TrialRecord, ...]  # whose leases are out
    testing: tuple[TrialRecord, ...]  # that are being evaluated on the test split
    num_waiting: int  # interrupted trials, and hand-designed models that have not begun
    log: tuple[str, ...]  # the last lines of run.log, where it can be seen

    @property
    def left(self) -> float:
        """What is not spent; 0 where the last reports came after the end."""
        return max(0.0, self.budget.seconds - self.results.spent_seconds)

    @property
    def counts(self) -> dict[str, int]:
        """Trials in each state; those that a driver has yet to take up wait."""
        return self.results.counts | {"running": len(self.running), "waiting": self.num_waiting}


def read_status(run: Run, *, num_lines: int = 5) -> Status:
    """Where the search of a run stands; `run` was opened just now.

    Args:
        num_lines: Most lines of run.log.
    Raises:
        StudyError: The storage cannot be read.
    """
    results, now = Results(run), datetime.now(UTC)
    record, budget = run.record, Budget.parse(run.study.budget)
    driver = _see_driver(run)
    is_driven = driver is not None and driver.is_alive
    unfinished = [trial for trial in record if trial.state is TrialState.RUNNING]
    running = tuple(trial for trial in unfinished if is_driven and _has_open_lease(trial))
    testing = tuple(trial for trial in record if is_driven and lease_name(trial.number, None) in record.notes.alive)
    num_waiting = len(unfinished) - len(running) + _num_planned(results)
    since, present = (_since(driver), now) if is_driven else (None, None)
    rate = measure_rate(results.trials, used=record.notes.alive, since=since, now=present)
    state = RunState.RUNNING if is_driven else _state_at_rest(run, budget, bool(unfinished))
    num_to_come = len(running) if run.study.finals else None
    if run.study.max_trials is not None and run.study.confirm == "off":
        num_to_come = run.study.max_trials - sum(trial.is_suggested for trial in record) + len(running)
    return Status(
        run=run,
        results=results,
        at=now,
        state=state,
        driver=driver,
        budget=budget,
        reserved=_reserved(run, running, testing),
        unreported=_unreported(run, unfinished),
        rate=rate,
        expected_end=expected_end(
            now,
            rate if is_driven else None,
            left=budget.seconds - record.spent_seconds,
            num_to_come=None if num_to_come is None else num_to_come + num_waiting,
        ),
        running=running,
        testing=testing,
        num_waiting=num_waiting,
        log=tuple(last_lines(run.folder.log, num_lines)),
    )


def as_plain(status: Status) -> dict[str, object]:
    """A status as plain values for a program; a later version may add keys, and changes none.

    Accuracies lie in [0, 1], times are device-seconds where a key says so and else seconds, moments are UTC in ISO
    8601, and what is not known is None.
    """
    run, rate, driver = status.run, status.rate, status.driver
    return {
        "version": 1,
        "run": run.name,
        "folder": str(run.folder.path),
        "at": _iso(status.at),
        "state": status.state.value,
        "study": {
            "space": run.study.space,
            "data": run.study.data,
            "recipe": recipe_text(run.study.recipe),
            "epochs": run.study.recipe.epochs,
            "objectives": list(run.study.objectives),
            "sampler": run.study.sampler,
            "stopper": run.study.stopper,
            "confirm": run.study.confirm,
            "until": run.study.until,
            "seed": run.study.seed,
        },
        "budget": {
            "text": run.study.budget,
            "device": status.budget.device,
            "device_seconds": status.budget.seconds,
            "spent_device_seconds": status.results.spent_seconds,
            "lost_device_seconds": run.record.lost_seconds,
            "confirm_device_seconds": 0.0 if run.study.finals else run.record.confirm_seconds,
            "reserved_device_seconds": status.reserved,
            "unreported_device_seconds": status.unreported,
            "left_device_seconds": status.left,
        },
        "rate": {
            "trials_per_hour": rate and rate.trials_per_hour,
            "device_seconds_per_second": rate and rate.device_seconds_per_second,
            "over_seconds": rate and rate.seconds,
        },
        "expected_end": _iso(status.expected_end),
        "driver": driver
        and {
            "alive": driver.is_alive,
            "host": driver.driver.host,
            "pid": driver.driver.pid,
            "since": _iso(_since(driver)),
            "last_sign_of_life": _iso(driver.sign_at),
        },
        "trials": status.counts,
        "running": [_running_as_plain(trial) for trial in status.running],
        "testing": [trial.number for trial in status.testing],
        "hypervolume": status.results.hypervolume,
        "outlook": status.results.outlook and status.results.outlook._asdict(),
        "front": front_as_plain(status.results),
        "log": list(status.log),
    }


def _running_as_plain(trial: TrialRecord) -> dict[str, object]:
    return {
        "trial": trial.number,
        "reference": trial.reference,
        "attempt": len(trial.progress.leases),
        "epoch": trial.num_epochs,
        "epoch_fraction": trial.within,
        "val_accuracy": trial.val_accuracy,
        "params": trial.params,
        "macs": trial.macs,
        "device": trial.progress.device,
        "device_seconds": trial.device_seconds,
    }


def _see_driver(run: Run) -> SeenDriver | None:
    """The driver by its row in a shared database, else by the run's folder."""
    url, name = run.study.storage, run.study.storage_name
    if url is not None and name is not None and not is_journal(url):
        return see_driver_of_study(url, name)
    return see_driver_of_folder(run.folder.path, sign_at=last_written(run.record.url))


def _since(driver: SeenDriver | None) -> datetime | None:
    """When a driver began; None where that is not written as we write it."""
    try:
        return driver and datetime.strptime(driver.driver.since, "%Y-%m-%d %H:%M:%S UTC").replace(tzinfo=UTC)
    except ValueError:
        return None


def _has_open_lease(trial: TrialRecord) -> bool:
    return bool(trial.progress.leases) and trial.progress.leases[-1].end is None


def _num_planned(results: Results) -> int:
    study = results.run.study
    if study.finals is not None:
        begun = {(trial.architecture.digest, trial.seed) for trial in results.trials}
        return max(0, len(study.finals.models) * len(study.finals.seeds) - len(begun))
    limits = study.settings.limits
    return sum(reference.trial is None and limits.allow(reference.cost) for reference in results.references)


def _costs(run: Run) -> CostModel | None:
    """What training takes, by what the search has measured; None before it has."""
    notes = run.record.notes
    if notes.speed is None or not {"train", "val", "test"} <= set(notes.num_images or {}):
        return None
    return CostModel(notes.speed, notes.num_images or {}, correction=notes.correction)


def _reserved(run: Run, running: tuple[TrialRecord, ...], testing: tuple[TrialRecord, ...]) -> float:
    costs, epochs = _costs(run), run.study.recipe.epochs
    if costs is None:
        return 0.0
    to_train = sum(
        costs.train_seconds(trial.macs, epochs=1) * max(0.0, epochs - trial.num_epochs - trial.within)
        for trial in running
    )
    return to_train + sum(costs.test_seconds(trial.macs) for trial in testing)


def _unreported(run: Run, unfinished: list[TrialRecord]) -> float:
    """What would be charged as lost if the driver were killed now, or will be where it was."""
    alive = run.record.notes.alive
    return sum(
        max(0.0, alive.get(lease_name(trial.number, len(trial.progress.leases)), 0.0) - _last_charge(trial))
        for trial in unfinished
        if _has_open_lease(trial)
    )


def _last_charge(trial: TrialRecord) -> float:
    return trial.progress.leases[-1].device_seconds


def _state_at_rest(run: Run, budget: Budget, is_unfinished: bool) -> RunState:
    """Whether a search without a driver has come to its end."""
    left = budget.seconds - run.record.spent_seconds
    if run.record.notes.finished or left <= 0:
        return RunState.ENDED
    costs = _costs(run)
    if costs is None or is_unfinished or not run.record.trials:
        return RunState.STOPPED
    macs = count_cost(run.space.smallest("macs")).macs  # a study of before `finished` was noted
    cheapest = costs.train_seconds(macs, epochs=run.study.recipe.epochs) + costs.test_seconds(macs)
    return RunState.ENDED if cheapest > left else RunState.STOPPED


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="seconds")
