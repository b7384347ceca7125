"""What more device-seconds are expected to add to a front, from what the last half of them added.

The hypervolume H that a search has after s device-seconds is taken to miss its limit by c / s, so that m more add

    H(s + m) - H(s) = c m / (s (s + m)),    c = (H(s) - H(s / 2)) s                                        (1)

On NAS-Bench-201 this is what searches do in the mean (`benchmarks.outlook`). What came in k steps of exponential size
is uncertain, and so is what will: with r the part of the last half's gain that (1) expects, the variance is

    2 (r + r²) gain² / k                                                                                   (2)
"""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from nas.record.trials import TrialRecord, TrialState
from nas.session.pareto import HypervolumeScale, front
from nas.study.objectives import Point

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
    complete = [place for place, trial in enumerate(trials) if trial.state is TrialState.COMPLETE]
    if len(complete) < FEWEST or not spent[-1] or seconds <= 0:
        return None
    now, ends = spent[-1], [spent[place] for place in complete]
    points = [scale.objectives.values(trials[place]) for place in complete]
    members = front(points, scale.objectives)
    whole = scale.hypervolume([points[i] for i in members])
    if not whole:
        return None
    for halving in range(1, _HALVINGS + 1):
        since = now / 2**halving
        num_before = bisect_right(ends, since)
        gain = whole - _hypervolume(points[:num_before], scale)
        steps = sum(i >= num_before for i in members)
        if gain > 0 and steps:
            break
    else:
        return None
    limit = gain * since * now / (now - since)  # c of eq. 1, from any earlier time
    expected = limit * seconds / (now * (now + seconds))
    part = expected / gain
    most = expected + _DEVIATIONS * gain * (2 * (part + part**2) / steps) ** 0.5
    return Outlook(seconds, expected / whole, most / whole)


def _hypervolume(points: Sequence[Point], scale: HypervolumeScale) -> float:
    """That of the points' front, which is sooner found than each point's place in the cube."""
    return scale.hypervolume([points[i] for i in front(points, scale.objectives)])
