"""Syne Tune's MOASHA on simulated devices, as a peer in `python -m benchmarks.search --devices 1,8,64`.

Multi-objective asynchronous successive halving (Salinas et al., 2021; Schmucker et al., 2021) draws architectures at
random, and stops a trial at an epoch where it ranks behind a third of those that came there before. Here it has Syne
Tune's defaults and is told of every epoch, as Syne Tune's tuner would. Curves, device-seconds and hypervolume are those
of the searches beside it: what it found counts once it is trained to the end. Draws beyond the study's limits are drawn
again, and take no time.
"""

import heapq
import math
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
import typer

from nas.execution.curves import Curve
from nas.record.trials import TrialRecord
from nas.replay.surrogate import PredictedCurves
from nas.replay.virtual import Found, Searched
from nas.session.pareto import HypervolumeScale, front
from nas.study.budget import Budget
from nas.study.objectives import ACCURACY, Point
from nas.study.study import Study
from search_spaces.space import SearchSpace

NAME = "syne_tune_moasha"
_EPOCH = "epoch"


class _Trial(NamedTuple):
    scheduled: Any  # Syne Tune's
    record: TrialRecord  # its architecture and costs
    curve: Curve


def search_by_moasha(study: Study, curves: PredictedCurves, *, num_devices: int, enough: float = math.inf) -> Searched:
    """A search by MOASHA until the study's budget is spent.

    Args:
        enough: The hypervolume at which it ends before.
    Raises:
        BadParameter: Syne Tune is not installed.
    """
    space, goals, epochs = study.make_space(), study.goals, study.recipe.epochs
    scale, budget = HypervolumeScale.of(space, goals), Budget.parse(study.budget).seconds
    scheduler = _scheduler(study, space)
    np.random.seed(study.seed)  # of what Syne Tune draws from
    trials: list[_Trial] = []
    events: list[tuple[float, int, int]] = []  # end of an epoch, trial, epoch
    points: list[Point] = []  # of the front
    num_complete, spent, hypervolume = 0, 0.0, 0.0
    progress = [Found(0.0, 0.0, None)]
    accuracy_at, signs = goals.names.index(ACCURACY), [-1.0 if up else 1.0 for up in goals.is_maximised]

    def begin(at: float) -> None:
        trials.append(_suggested(scheduler, space, curves, number=len(trials)))
        heapq.heappush(events, (at + trials[-1].curve.epoch_seconds, len(trials) - 1, 1))

    for _ in range(num_devices):
        begin(0.0)
    while spent < budget and hypervolume < enough:
        now, number, epoch = heapq.heappop(events)
        scheduled, record, curve = trials[number]
        spent += curve.epoch_seconds
        point = goals.values(record, accuracy=curve.val_accuracies[epoch - 1])
        losses = {name: sign * value for name, sign, value in zip(goals.names, signs, point, strict=True)}
        decision = scheduler.on_trial_result(scheduled, {_EPOCH: epoch, **losses})
        if decision == "CONTINUE":
            heapq.heappush(events, (now + curve.epoch_seconds, number, epoch + 1))
            continue
        scheduler.on_trial_remove(scheduled)
        if epoch == epochs:
            num_complete += 1
            points = [[*points, point][i] for i in front([*points, point], goals)]
            hypervolume = scale.hypervolume(points)
            progress.append(Found(spent, hypervolume, max(point[accuracy_at] for point in points)))
        begin(now)
    return Searched(
        *(NAME, NAME, "its own", study.budget, num_devices),
        seconds=now,
        num_trials=len(trials),
        num_complete=num_complete,
        num_duplicates=len(trials) - len({trial.record.digest for trial in trials}),
        num_recorded=sum(curves.is_recorded(trial.record.architecture) for trial in trials),
        progress=(*progress, progress[-1]._replace(device_seconds=spent)),
    )


def _scheduler(study: Study, space: SearchSpace) -> Any:
    try:
        from syne_tune.config_space import choice
        from syne_tune.optimizer.schedulers.multiobjective.moasha import MOASHA
    except ImportError:
        raise typer.BadParameter(f"{NAME} needs pip install syne-tune", param_hint="--samplers") from None
    genes = {own.name: choice(list(own.values)) for own in space.choices}
    return MOASHA(genes, list(study.goals.names), time_attr=_EPOCH, max_t=study.recipe.epochs, random_seed=study.seed)


def _suggested(scheduler: Any, space: SearchSpace, curves: PredictedCurves, *, number: int) -> _Trial:
    """The next architecture within the limits, as a trial that has begun."""
    from syne_tune.backend.trial_status import Trial

    while True:
        genes = scheduler.suggest().config
        arch = space.decode(genes)
        cost = space.cost(arch)
        if space.settings.limits.allow(cost):
            break
    scheduled = Trial(number, genes, datetime.now())
    scheduler.on_trial_add(scheduled)
    return _Trial(scheduled, TrialRecord(number, arch, cost.params, cost.macs, number), curves.curve(arch))
