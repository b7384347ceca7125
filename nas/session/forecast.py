"""What a budget buys: how long trials take on these devices, and how many of them there will be."""

import random
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from metaformer.architecture import Architecture
from metaformer.cost import count_cost
from nas.session.session import Session
from nas.session.stoppers import Stopper
from nas.study.lease import Speed
from nas.study.study import Study
from search_spaces.space import SearchSpace

_NUM_SAMPLES = 64  # architectures that stand for the space


@dataclass(frozen=True)
class Rung:
    """So many trials are expected to be trained for at least so many epochs."""

    epochs: int
    num_trials: int


@dataclass(frozen=True)
class Forecast:
    """What is left of a budget, in trials; times are device-seconds."""

    seconds_per_trial: float  # of a mean architecture of the space, those that are stopped early counted in
    seconds_to_the_end: float  # of a mean architecture that is trained to its last epoch
    cheapest_seconds: float  # of the cheapest architecture, to its last epoch
    confirm_seconds: float  # for new seeds of trials whose place on the front is in doubt
    reference_seconds: float  # of the trainings that the study names: hand-designed models, or finals
    rungs: tuple[Rung, ...]  # beside these models; the first holds all trials, the last those trained to the end
    most_params: int
    most_macs: int
    most_seconds: float  # of an architecture of so many MACs, to its last epoch
    images_per_second: tuple[float, float]  # in training, of the cheapest and of the most expensive architecture
    peak_bytes: int  # of a device's memory, of those that were measured
    median_macs: int
    times_as_many: float  # trials if the median were the limit

    @property
    def num_trials(self) -> int:
        """Trials beside the hand-designed models."""
        return self.rungs[0].num_trials


def forecast(session: Session, *, peak_bytes: int) -> Forecast:
    """What the session can do with what is left of its budget; a trial takes up to `peak_bytes` of memory."""
    epochs, speed = session.study.recipe.epochs, session.costs.speed
    sampled = draw(session.space)
    macs = np.array([count_cost(arch).macs for arch in sampled])
    seconds = np.array([session.expected_seconds(arch, epochs=epochs) for arch in sampled])
    shares = _shares(session.stopper)
    part = sum(share * (end - start) for start, end, share in _segments(shares)) / epochs
    planned = session.queue.planned
    waiting = sum(session.expected_seconds(each.architecture, epochs=epochs) for each in planned)
    confirming = min(session.confirmation.left, max(0.0, session.ledger.left))
    num_trials = max(0.0, session.ledger.left - waiting - confirming) / (seconds.mean() * part)
    most_macs = session.space.largest_cost("macs")
    least_macs = count_cost(session.space.smallest("macs")).macs
    median_macs = int(np.median(macs))
    return Forecast(
        seconds_per_trial=float(seconds.mean() * part),
        seconds_to_the_end=float(seconds.mean()),
        cheapest_seconds=session.expected_seconds(session.space.smallest("macs"), epochs=epochs),
        confirm_seconds=confirming,
        reference_seconds=waiting,
        rungs=tuple(Rung(epoch, int(num_trials * share)) for epoch, share in shares.items()),
        most_params=session.space.largest_cost("params"),
        most_macs=most_macs,
        most_seconds=session.costs.train_seconds(most_macs, epochs=epochs),
        images_per_second=(
            1 / speed.seconds_per_image(least_macs),
            1 / speed.seconds_per_image(most_macs),
        ),
        peak_bytes=peak_bytes,
        median_macs=median_macs,
        times_as_many=float(seconds.mean() / seconds[macs <= median_macs].mean()),
    )


def fit_speed(archs: list[Architecture], seconds_per_image: list[float], *, reading: float = 0.0) -> Speed:
    """A line through measured device-seconds per image against MACs, neither part below zero.

    Least squares of relative errors, so that the times of the smallest, which a search trains most, are as right as
    those of the largest, which may be a hundred times as long.

    Args:
        reading: Seconds of them that an image's reading takes, of whatever model.
    """
    macs = np.array([count_cost(arch).macs for arch in archs], dtype=float)
    terms = np.stack([np.ones_like(macs), macs / macs.max()])[: len(set(macs))]
    factors, _ = nnls((terms / seconds_per_image).T, np.ones_like(macs))
    base, of_largest = (*factors, 0.0)[:2]
    return Speed(base=float(base), per_gmac=float(of_largest / macs.max()) * 1e9, reading=min(reading, float(base)))


def draw(space: SearchSpace) -> list[Architecture]:
    """Random architectures that stand for the space, the same each time."""
    rng = random.Random(0)
    return [space.sample(rng) for _ in range(_NUM_SAMPLES)]


def representative(space: SearchSpace) -> list[Architecture]:
    """A few architectures that span the costs of a space, for measuring: the cheapest, and some random ones."""
    sampled = sorted(draw(space), key=lambda arch: count_cost(arch).macs)
    return [space.smallest("macs"), sampled[_NUM_SAMPLES // 4], sampled[_NUM_SAMPLES // 2], sampled[-1]]


def to_measure(study: Study) -> list[Architecture]:
    """The architectures whose training is measured before a study begins."""
    space = study.make_space()
    if study.finals is None:
        return representative(space)
    archs = sorted((space.decode(model.genes) for model in study.finals.models), key=lambda arch: count_cost(arch).macs)
    return [archs[place] for place in sorted({0, len(archs) // 2, len(archs) - 1})]


def _shares(stopper: Stopper) -> dict[int, float]:
    """Part of the trials that is trained for at least so many epochs, as the stopper expects."""
    return {epoch: stopper.going_on**step for step, epoch in enumerate((*stopper.rungs, stopper.epochs))}


def _segments(shares: dict[int, float]) -> list[tuple[int, int, float]]:
    """First and last epoch between two rungs, and the part of the trials trained from one to the other."""
    ends = list(shares)
    return [(start, end, shares[end]) for start, end in zip((0, *ends), ends, strict=False)]
