"""Searches in virtual time over the curves of a run, beside the run itself."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

from metaformer.cli.console import progress_bar
from metaformer.errors import UserError
from nas.execution.simulator import Simulator
from nas.record.record import Record
from nas.record.run_folder import Run
from nas.record.storage import IN_MEMORY
from nas.record.trials import TrialRecord, TrialState
from nas.replay.settings import Settings
from nas.replay.surrogate import PredictedCurves, RunCurves
from nas.session.finalists import Finalists
from nas.session.leases import Place
from nas.session.pareto import HypervolumeScale
from nas.session.session import Session, open_session
from nas.study.budget import Budget
from nas.study.study import Study

MOST_TRIALS = 20_000
NUM_MOMENTS = 5
_PAST_THE_END = 1.05
_SHARE_OF_STOPPED = 1 / 8  # of a whole training, that a trial which is stopped early may take at least


class Found(NamedTuple):
    """What had been found when so many device-seconds were spent."""

    device_seconds: float
    hypervolume: float
    best_accuracy: float | None  # in [0, 1], on val; None: nothing was complete


class Searched(NamedTuple):
    """One search: the run itself, or a replay."""

    name: str
    sampler: str
    stopper: str
    budget: str
    devices: int | None  # of a replay
    seconds: float | None  # of a replay, from its start to its end, virtual
    num_trials: int
    num_complete: int
    num_duplicates: int  # trials of an architecture that another trial had
    num_recorded: int  # trials whose architecture the run trained; others were predicted
    progress: tuple[Found, ...]

    def at(self, device_seconds: float) -> Found | None:
        """What it had found by then; None after its end, which may differ a little from its budget."""
        if device_seconds > _PAST_THE_END * self.progress[-1].device_seconds:
            return None
        place = bisect_right([found.device_seconds for found in self.progress], device_seconds)
        return self.progress[place - 1] if place else None


class Replays:
    """The run itself, its own settings in virtual time, and those that were asked for.

    Attributes:
        searches: The run, its own settings replayed, the asked ones replayed; where these are alike, once.
        moments: Device-seconds at which they are compared.
    """

    def __init__(self, run: Run, asked: Settings) -> None:
        """Carry out the replays.

        Raises:
            UserError: The run or the settings cannot be replayed.
        """
        self.run = run
        own = Settings(devices=asked.devices)
        studies = {"own settings": own.applied(run.study), "replay": asked.applied(run.study)}
        if studies["own settings"] == studies["replay"]:
            del studies["own settings"]
        self.curves = RunCurves(run)
        for study in studies.values():
            self._check_length(study)
        self.searches = [self._recorded(run)]
        with progress_bar() as bar:
            task = bar.add_task("cross-validation", total=len(studies) + 1)
            self.error_points, self.tau = self.curves.errors
            for name, study in studies.items():
                bar.update(task, description=f"{name}: {study.sampler}, {study.stopper}", advance=1)
                self.searches.append(search_in_virtual_time(name, study, self.curves, num_devices=asked.devices))
        longest = max(search.progress[-1].device_seconds for search in self.searches)
        self.moments = [longest * step / NUM_MOMENTS for step in range(1, NUM_MOMENTS + 1)]

    def _check_length(self, study: Study) -> None:
        """Check that a replay ends soon."""
        most = Budget.parse(study.budget).seconds / (self.curves.trial_seconds * _SHARE_OF_STOPPED)
        if min(most, study.max_trials or most) > MOST_TRIALS:
            raise UserError(
                f"budget: must pay for {MOST_TRIALS:,} trials at most in a replay, got {study.budget!r} for up to "
                f"{most:,.0f}; --max-trials limits them too"
            )

    def _recorded(self, run: Run) -> Searched:
        """The run itself, trial by trial as they ended; what was spent beside trials has no place in time."""
        study, trials = run.study, list(run.record)
        finalists = Finalists(HypervolumeScale.of(run.space, study.goals))
        progress = [Found(0.0, 0.0, None)]
        for trial in _ended(trials):
            seconds = progress[-1].device_seconds + trial.device_seconds + trial.lost_seconds
            if trial.state is TrialState.COMPLETE:
                finalists.add([trial])
            best = max((member.val_accuracy or 0.0 for member in finalists.front), default=None)
            progress.append(Found(seconds, finalists.hypervolume, best))
        return Searched(
            "the run",
            study.sampler,
            study.stopper,
            study.budget,
            None,
            None,
            num_recorded=len(trials),
            progress=tuple(progress),
            **_counts(trials),
        )


def search_in_virtual_time(
    name: str,
    study: Study,
    curves: PredictedCurves,
    *,
    num_devices: int,
    enough: float = math.inf,
    record: Record | None = None,
) -> Searched:
    """A search by the real session on simulated devices.

    Args:
        enough: The hypervolume at which it ends; its budget may end it before.
        record: Where its trials go; None: nowhere that lasts.
    """
    place = Place(speed=curves.speed, num_images=curves.num_images, num_workers=num_devices, checkpoints="nowhere")
    if record is None:
        record = Record(IN_MEMORY, study.make_space(), study.goals, writes=True)
    session = open_session(study, record, place)
    simulation = Simulator(curves, num_devices=num_devices, keeps_history=False).begin(session)
    progress = [Found(0.0, 0.0, None)]
    while session.hypervolume < enough and simulation.step():
        _note(session, progress)
    progress.append(progress[-1]._replace(device_seconds=session.ledger.spent))
    trials = record.trials
    return Searched(
        name,
        study.sampler,
        study.stopper,
        study.budget,
        num_devices,
        simulation.result.seconds,
        num_recorded=sum(curves.is_recorded(trial.architecture) for trial in trials),
        progress=tuple(progress),
        **_counts(trials),
    )


def _note(session: Session, progress: list[Found]) -> None:
    """Add what the front has come to, where that has changed."""
    best = max((trial.val_accuracy or 0.0 for trial in session.front), default=None)
    if (session.hypervolume, best) != progress[-1][1:]:
        progress.append(Found(session.ledger.spent, session.hypervolume, best))


def _ended(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Those that ended, in that order as far as it is known."""
    return sorted(
        (trial for trial in trials if trial.state is not TrialState.RUNNING),
        key=lambda trial: (trial.ended_at is None, trial.ended_at and trial.ended_at.timestamp(), trial.number),
    )


def _counts(trials: Sequence[TrialRecord]) -> dict[str, int]:
    own = [trial for trial in trials if trial.checkpoint_trial == trial.number]  # others go on with one of these
    searched = [trial for trial in own if trial.seed is None]  # others are further seeds
    return {
        "num_trials": len(own),
        "num_complete": sum(trial.state is TrialState.COMPLETE for trial in trials),
        "num_duplicates": len(searched) - len({trial.architecture.digest for trial in searched}),
    }
