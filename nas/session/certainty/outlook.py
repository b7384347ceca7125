"""What more device-seconds are expected to add to a front, from what the last half of them added.

The hypervolume H that a search has after s device-seconds is taken to miss its limit by c / s, so that m more add

    H(s + m) - H(s) = c m / (s (s + m)),    c = (H(s) - H(s / 2)) s                                        (1)

On NAS-Bench-201 this is what searches do in the mean (`benchmarks.outlook`). What came in k steps of exponential size
is uncertain, and so is what will: with r the part of the last half's gain that (1) expects, the variance is

    2 (r + r²) gain² / k                                                                                   (2)
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from nas.record.trials import TrialRecord, TrialState
from nas.session.pareto import HypervolumeScale, front_of

MORE = 0.1  # of a budget: what a report says of more
FEWEST = 20  # complete trials before anything is said
_DEVIATIONS = 2.0  # above the mean: the tail is longer than a normal one, and a tenth should lie beyond
_HALVINGS = 6  # of the time that is looked back on, where the last half added nothing


class Outlook(NamedTuple):
    """What so many device-seconds are expected to add, as a part of the hypervolume that is there."""

    seconds: float
    expected: float
    most: float  # at 90 %


def outlook(trials: Sequence[TrialRecord], scale: HypervolumeScale, seconds: float) -> Outlook | None:
    """What so many more device-seconds are expected to add; None where too few trials are complete.

    Args:
        trials: All of a study, by number; each counts as complete when those up to it have used their device-seconds.
    """
    spent = list(accumulate(trial.device_seconds for trial in trials))
    complete = [(at, trial) for at, trial in zip(spent, trials, strict=True) if trial.state is TrialState.COMPLETE]
    if len(complete) < FEWEST or not spent[-1] or seconds <= 0:
        return None
    now = spent[-1]
    front = front_of([trial for _, trial in complete], scale.objectives)
    whole = _hypervolume(front, scale)
    if not whole:
        return None
    members = {trial.number for trial in front}
    for halving in range(1, _HALVINGS + 1):
        since = now / 2**halving
        gain = whole - _hypervolume([trial for at, trial in complete if at <= since], scale)
        steps = sum(trial.number in members for at, trial in complete if at > since)
        if gain > 0 and steps:
            break
    else:
        return None
    limit = gain * since * now / (now - since)  # c of eq. 1, from any earlier time
    expected = limit * seconds / (now * (now + seconds))
    part = expected / gain
    most = expected + _DEVIATIONS * gain * (2 * (part + part**2) / steps) ** 0.5
    return Outlook(seconds, expected / whole, most / whole)


def _hypervolume(trials: Sequence[TrialRecord], scale: HypervolumeScale) -> float:
    return scale.hypervolume([scale.objectives.values(trial) for trial in trials])
