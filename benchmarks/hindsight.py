"""What a search could have spent that knew every curve beforehand, in `python -m benchmarks.search --devices 1`.

It trains to the end, one after the other, the architecture that adds most hypervolume for its device time. It chooses
among those of the table, those that TPE tried, and all that differ in one gene from the front that TPE ended with. No
sampler can do that; it says how much of a search's time goes into finding out.
"""

import heapq
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from metaformer.architecture import Architecture
from nas.record.trials import TrialRecord
from nas.replay.surrogate import PredictedCurves
from nas.replay.virtual import Found, Searched
from nas.session.pareto import Gains, HypervolumeScale, front_of
from nas.session.proposers.catalogue import Catalogue
from nas.session.proposers.exact_cost import exact_costs
from nas.study.objectives import Objectives, Point
from nas.study.study import Study
from search_spaces.space import SearchSpace

NAME = "hindsight"


class _Candidate(NamedTuple):
    place: Point  # in the cube
    seconds: float  # of its training
    accuracy: float


def search_with_hindsight(
    study: Study, curves: PredictedCurves, tried: Sequence[TrialRecord], *, enough: float
) -> Searched:
    """The trainings that it takes to reach a hypervolume, chosen by what they add for their time.

    Args:
        tried: By a search that reached it.
        enough: The hypervolume.
    """
    space, goals = study.make_space(), study.goals
    scale = HypervolumeScale.of(space, goals)
    archs = {arch.digest: arch for arch in (*_candidates(space, goals, tried), *curves.architectures)}
    known = [_known(arch, space, curves, scale) for arch in archs.values()]
    queue = [(-float("inf"), i) for i in range(len(known))]  # less what each adds for its time, or did before
    chosen: list[Point] = []
    progress = [Found(0.0, 0.0, None)]
    while queue and progress[-1].hypervolume < enough:
        gains = Gains(chosen, num_objectives=len(goals))
        while True:  # what is added only falls, so that the first to keep its place adds most
            _, i = heapq.heappop(queue)
            gain = gains.of(known[i].place)
            if not queue or -gain / known[i].seconds <= queue[0][0]:
                break
            heapq.heappush(queue, (-gain / known[i].seconds, i))
        chosen.append(known[i].place)
        seconds, hypervolume, best = progress[-1]
        accuracy = max(best or 0.0, known[i].accuracy)
        progress.append(Found(seconds + known[i].seconds, hypervolume + gain, accuracy))
    return Searched(
        *(NAME, NAME, "none", study.budget, None, None),
        num_trials=len(chosen),
        num_complete=len(chosen),
        num_duplicates=0,
        num_recorded=0,
        progress=tuple(progress),
    )


def _candidates(space: SearchSpace, goals: Objectives, tried: Sequence[TrialRecord]) -> Iterator[Architecture]:
    """What was tried, and within the limits what differs in one gene from its front."""
    yield from (trial.architecture for trial in tried)
    known = Catalogue(space, exact_costs(goals))
    rows = [row for trial in front_of(tried, goals) for row in known.neighbours(known.row_of(trial.architecture))]
    yield from (space.decode(known.genes(int(row))) for row in known.new_within(rows, space.settings.limits))


def _known(arch: Architecture, space: SearchSpace, curves: PredictedCurves, scale: HypervolumeScale) -> _Candidate:
    curve, cost = curves.curve(arch), space.cost(arch)
    trial = TrialRecord(0, arch, cost.params, cost.macs, checkpoint_trial=0)
    accuracy = curve.val_accuracies[-1]
    place = scale.in_cube(scale.objectives.values(trial, accuracy=accuracy))
    return _Candidate(place, curve.epoch_seconds * len(curve.val_accuracies), accuracy)
