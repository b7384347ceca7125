"""How fast a search goes, from what its record shows.

A record says when a trial began and ended, and what each of its leases was charged, but not when a lease began.
The first lease begins with its trial, and the last one ends with it. Where they are two, each took as much wall time as
trials of a single lease took for as many device-seconds.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from statistics import median
from typing import NamedTuple

from nas.record.trials import LeaseCharge, LeaseEnd, TrialRecord, TrialState
from nas.study.lease import lease_name

_ENDED_WELL = (TrialState.COMPLETE, TrialState.STOPPED)
_WITH_ITS_TRIAL = (LeaseEnd.COMPLETE, LeaseEnd.STOPPED, LeaseEnd.FAILED)
_LONGEST = 100 * 365 * 86400.0  # seconds; an end that is further off is as good as none


class Rate(NamedTuple):
    """Trials and device time for the wall time in which leases were out."""

    trials_per_hour: float  # that were trained to the end, or stopped early
    device_seconds_per_second: float
    seconds: float  # of wall time, over which both were taken


class Stretch(NamedTuple):
    """The wall time in which one lease was out, in seconds of the Unix epoch."""

    start: float
    end: float
    device_seconds: float

    def after(self, start: float) -> "Stretch":
        """The part of it that comes after a moment before its end."""
        begin = max(self.start, start)
        share = (self.end - begin) / (self.end - self.start)
        return Stretch(begin, self.end, self.device_seconds * share)


def measure_rate(
    trials: Sequence[TrialRecord], *, used: Mapping[str, float], since: datetime | None, now: datetime | None
) -> Rate | None:
    """The rate of a search, or None where the record does not show any.

    Args:
        trials: All of the record.
        used: Device-seconds of the open leases at the driver's last sign of life, by their names.
        since: What was before is left out; None: nothing is.
        now: The present, where a driver is at work; None: open leases are those of a driver that was killed.
    """
    ratio = _device_seconds_a_second(trials)
    start = since.timestamp() if since else float("-inf")
    found = [stretch for trial in trials for stretch in _stretches(trial, ratio, used, now)]
    found = [stretch.after(start) for stretch in found if stretch.end > max(stretch.start, start)]
    seconds = _covered(found)
    if seconds <= 0:
        return None
    ended = [trial.ended_at.timestamp() for trial in trials if trial.ended_at and trial.state in _ENDED_WELL]
    num_ended = sum(moment >= start for moment in ended)
    return Rate(3600 * num_ended / seconds, sum(stretch.device_seconds for stretch in found) / seconds, seconds)


def expected_end(now: datetime, rate: Rate | None, *, left: float, num_to_come: int | None) -> datetime | None:
    """When the budget will be spent or the last trial trained, at the present rate; None where that cannot be told.

    Args:
        left: Device-seconds of the budget.
        num_to_come: Trials until the study has all that it may have; None: as many as the budget pays for.
    """
    if rate is None:
        return None
    seconds = []
    if rate.device_seconds_per_second > 0:
        seconds.append(max(0.0, left) / rate.device_seconds_per_second)
    if num_to_come is not None and rate.trials_per_hour > 0:
        seconds.append(3600 * max(0, num_to_come) / rate.trials_per_hour)
    if not seconds or min(seconds) > _LONGEST:
        return None
    return now + timedelta(seconds=min(seconds))


def _device_seconds_a_second(trials: Iterable[TrialRecord]) -> float:
    """What a lease is charged for a second of wall time; 1, as on one device, where no trial tells."""
    ratios = [
        trial.device_seconds / (trial.ended_at - trial.begun_at).total_seconds()
        for trial in trials
        if len(trial.progress.leases) == 1
        and trial.progress.leases[0].end in _WITH_ITS_TRIAL
        and trial.begun_at
        and trial.ended_at
        and trial.ended_at > trial.begun_at
    ]
    return median(ratios) or 1.0 if ratios else 1.0


def _stretches(trial: TrialRecord, ratio: float, used: Mapping[str, float], now: datetime | None) -> Iterator[Stretch]:
    """When the first and the last lease of a trial were out, as far as it can be told."""
    if trial.begun_at is None or not trial.progress.leases:
        return
    first, last = trial.progress.leases[0], trial.progress.leases[-1]
    begin, seconds = trial.begun_at.timestamp(), _used(trial, last, used)
    ended_at = trial.ended_at if last.end in _WITH_ITS_TRIAL else now if last.end is None else None
    end = ended_at.timestamp() if ended_at else None
    if first is not last:
        yield Stretch(begin, begin + first.device_seconds / ratio, first.device_seconds)
        if end is not None:
            yield Stretch(end - seconds / ratio, end, seconds)
    elif seconds:
        yield Stretch(begin, begin + seconds / ratio if end is None else end, seconds)


def _used(trial: TrialRecord, lease: LeaseCharge, used: Mapping[str, float]) -> float:
    """Device-seconds of a lease, by its last report or the driver's last sign of life."""
    return max(lease.device_seconds, used.get(lease_name(trial.number, lease.attempt), 0.0))


def _covered(stretches: Iterable[Stretch]) -> float:
    """Seconds in which at least one lease was out."""
    total, reached = 0.0, float("-inf")
    for stretch in sorted(stretches):
        total += max(0.0, stretch.end - max(stretch.start, reached))
        reached = max(reached, stretch.end)
    return total
