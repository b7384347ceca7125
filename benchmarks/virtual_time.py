"""What `python -m benchmarks.search --devices 1,8,64` does: searches by the real session on simulated devices.

Curves are those of `studies/curves/digits_hybrid_stages.csv`, or of another table that `python -m nas.table` has
written with its study beside it; those of architectures that it lacks are predicted by a random forest (`nas.replay`).
What is asked is how many device-seconds a search needs until it has the hypervolume with which this project's
multivariate TPE, every trial trained to the end, ends its budget.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.stats import wilcoxon

from benchmarks import hindsight, moasha
from benchmarks.halving import STUDY, TABLE, study_of_table
from nas.data import open_dataset
from nas.execution.curves import CurveTable
from nas.record.record import Record
from nas.record.storage import IN_MEMORY
from nas.replay.surrogate import PredictedCurves, Recorded
from nas.replay.virtual import search_in_virtual_time
from nas.study.study import Study

_NUM_IMAGES = {"train": 1079, "val": 359, "test": 359}
_NEVER = 2.0  # times the budget, for ranks: it was not reached within the budget


class Setting(NamedTuple):
    """A search that is measured by TPE's of the same seed and number of devices."""

    sampler: str
    stopper: str
    devices: int


class Reached(NamedTuple):
    """How soon a search came to the hypervolume of TPE's end."""

    share: float  # of the device-seconds that TPE spent; infinite where it did not
    hypervolume: float  # where it ended
    of_tpe: float
    trials: int
    trials_of_tpe: int


def settings(samplers: Sequence[str], *, stopper: str, devices: Sequence[int]) -> list[Setting]:
    """Each sampler without early stopping, and with it; but MOASHA stops by its own rule, and hindsight never."""
    both = ("none", stopper)
    rules = {moasha.NAME: ["its own"], hindsight.NAME: ["none"]}
    return [
        Setting(name, stop, number)
        for number in devices
        for name in samplers
        for stop in dict.fromkeys(rules.get(name, both))
    ]


def reach(seed: int, *, searches: Sequence[Setting], budget: str, table: Path | None = None) -> list[Reached]:
    """What each search came to with one seed."""
    study, curves = study_and_curves(table)
    tpe = study.model_copy(update={"sampler": "tpe", "seed": seed, "budget": budget, "max_trials": None})
    bases = {}
    for devices in dict.fromkeys(own.devices for own in searches):
        record = Record(IN_MEMORY, study.make_space(), study.goals, writes=True)
        bases[devices] = search_in_virtual_time("tpe", tpe, curves, num_devices=devices, record=record), record
    found = []
    for sampler, stopper, devices in searches:
        base, record = bases[devices]
        [*_, end] = base.progress
        if sampler == moasha.NAME:
            search = moasha.search_by_moasha(tpe, curves, num_devices=devices, enough=end.hypervolume)
        elif sampler == hindsight.NAME:
            search = hindsight.search_with_hindsight(tpe, curves, record.trials, enough=end.hypervolume)
        else:
            own = tpe.model_copy(update={"sampler": sampler, "stopper": stopper})
            search = search_in_virtual_time(sampler, own, curves, num_devices=devices, enough=end.hypervolume)
        [*_, last] = search.progress
        share = last.device_seconds / end.device_seconds if last.hypervolume >= end.hypervolume else np.inf
        found.append(Reached(share, last.hypervolume, end.hypervolume, search.num_trials, base.num_trials))
    return found


@cache
def study_and_curves(path: Path | None = None) -> tuple[Study, PredictedCurves]:
    """Those of a table; None: of the digits.

    Raises:
        StudyError: There is no such table, or no study beside it.
        DataError: Its images are not here, which are counted.
    """
    recorded = Study.from_file(STUDY if path is None else path.with_suffix(".yaml"))
    space = recorded.make_space()
    table = CurveTable(path or TABLE, space)
    study = study_of_table(table, recorded)
    curves = [(arch, table.curve(arch)) for arch in table.architectures]
    whole = [Recorded(arch, curve.val_accuracies, curve.epoch_seconds) for arch, curve in curves]
    num_images: Mapping[str, int] = _NUM_IMAGES
    if path is not None:
        resolution, splitting = study.settings.resolution, study.splitting
        num_images = {**open_dataset(study.data, resolution=resolution, splitting=splitting).info.num_images}
    return study, PredictedCurves(space, study.goals, whole=whole, epochs=study.recipe.epochs, num_images=num_images)


def predicted_text(table: Path | None) -> str:
    """How well the curves of architectures that a table lacks are predicted."""
    points, tau = study_and_curves(table)[1].errors
    return f"Predicted ends of architectures left out: off by {points:.2f} points in the mean, Kendall's tau {tau:.2f}."


def rows(searches: Sequence[Setting], found: Sequence[Sequence[Reached]]) -> list[list[str]]:
    """What a table says of each search, but for the p-value.

    Args:
        found: By seed, and by search.
    """
    lines = []
    for place, (sampler, stopper, devices) in enumerate(searches):
        own = [seed[place] for seed in found]
        low, middle, high = np.quantile([one.share for one in own], [0.25, 0.5, 0.75], method="inverted_cdf")
        never = sum(np.isinf(one.share) for one in own)
        lines.append(
            [
                *(str(devices), sampler, stopper),
                *(f"{middle:.2f}", f"{low:.2f} to {high:.2f}", f"{never} of {len(own)}"),
                f"{np.median([one.trials for one in own]):.0f}",
                f"{np.median([one.trials_of_tpe for one in own]):.0f}",
                f"{np.mean([one.of_tpe for one in own]):.4f}",
            ]
        )
    return lines


HEADS = ("devices", "sampler", "stopper", "share", "quartiles", "never", "trials", "of TPE", "TPE's hypervolume")


def p_values(found: Sequence[Sequence[Reached]]) -> list[float]:
    """Of Wilcoxon's signed ranks on the logarithms of the shares, for each search."""
    shares = np.minimum([[one.share for one in seed] for seed in found], _NEVER)
    return [1.0 if np.allclose(column, 1) else float(wilcoxon(np.log(column)).pvalue) for column in shares.T]
