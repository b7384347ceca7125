"""What an earlier search is worth: device-seconds to a goal with `--prior` and without, in virtual time.

Command:   OMP_NUM_THREADS=1 python -m benchmarks.prior --seeds 20
Hardware:  one CPU core; nothing is trained
Time:      about a minute a seed
Expected:  the nearer the earlier trainings are to those of the search, the sooner; a useless one costs little

Curves are those of `benchmarks.virtual_time`: real ones of 16 epochs on the digits, and predicted ones of architectures
that were not trained; none has the noise of seeds, so that an earlier search of 16 epochs knows all. The goal is the
hypervolume with which multivariate TPE ends its budget. An earlier search is one of 100 trials by `exact_cost` with
another seed, whose trainings were shorter; `tau` is Kendall's between the accuracies after so many epochs and at the
end, over all recorded curves. `random` is no search, but 40 recorded architectures.
"""

import random
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.stats import kendalltau

from benchmarks.halving import TABLE
from benchmarks.virtual_time import study_and_curves
from nas.execution.curves import CurveTable
from nas.record.record import Record
from nas.record.storage import IN_MEMORY
from nas.replay.surrogate import PredictedCurves
from nas.replay.virtual import search_in_virtual_time
from nas.study.prior import Prior, PriorModel
from nas.study.study import Study

_BUDGET, _DEVICES = "20cpu-minutes", 8
_TRIALS, _RANDOM = 100, 40
_SHORTER = (4, 8, 12, 16)  # epochs of the earlier trainings
_USELESS = 4
_OTHER_SEEDS = 1000


def earlier_search(study: Study, curves: PredictedCurves, *, epochs: int) -> Prior:
    """What a search with trainings of so many epochs has found."""
    recipe = study.recipe.model_copy(update={"epochs": epochs})
    changes = {"recipe": recipe, "seed": study.seed + _OTHER_SEEDS, "budget": "1cpu-days", "max_trials": _TRIALS}
    study = study.model_copy(update=changes)
    record = Record(IN_MEMORY, study.make_space(), study.goals, writes=True)
    search_in_virtual_time("earlier", study, curves, num_devices=_DEVICES, record=record)
    models = [
        PriorModel(genes=record.space.encode(trial.architecture), val_accuracy=trial.val_accuracy)
        for trial in record.complete
        if trial.val_accuracy is not None
    ]
    return Prior(run=f"{epochs} epochs", models=tuple(models))


def earlier_draw(study: Study, curves: PredictedCurves, *, epochs: int) -> Prior:
    """Recorded architectures, with their accuracies after so many epochs."""
    space = study.make_space()
    drawn = random.Random(study.seed).sample(CurveTable(TABLE, space).architectures, _RANDOM)
    models = [
        PriorModel(genes=space.encode(arch), val_accuracy=curves.curve(arch).val_accuracies[epochs - 1])
        for arch in drawn
    ]
    return Prior(run="random", models=tuple(models))


def shares(seed: int) -> list[float]:
    """Device-seconds to the goal, in parts of TPE's, without an earlier search and with each of them."""
    study, curves = study_and_curves()
    changes = {"seed": seed, "budget": _BUDGET, "max_trials": None, "stopper": "none"}
    tpe, own = (study.model_copy(update={**changes, "sampler": name}) for name in ("tpe", "exact_cost"))
    [*_, goal] = search_in_virtual_time("tpe", tpe, curves, num_devices=_DEVICES).progress
    priors = [
        None,
        *(earlier_search(own, curves, epochs=epochs) for epochs in _SHORTER),
        earlier_draw(own, curves, epochs=_USELESS),
    ]
    found = []
    for prior in priors:
        with_prior = own.model_copy(update={"prior": prior})
        search = search_in_virtual_time("", with_prior, curves, num_devices=_DEVICES, enough=goal.hypervolume)
        [*_, last] = search.progress
        reached = last.hypervolume >= goal.hypervolume
        found.append(last.device_seconds / goal.device_seconds if reached else np.inf)
    return found


def taus() -> list[float]:
    """Kendall's tau of the accuracies after the earlier epochs with those at the end."""
    study, _ = study_and_curves()
    recorded = CurveTable(TABLE, study.make_space())
    accuracies = np.array([recorded.curve(arch).val_accuracies for arch in recorded.architectures])
    return [float(kendalltau(accuracies[:, epochs - 1], accuracies[:, -1]).statistic) for epochs in _SHORTER]


def main(seeds: Annotated[int, typer.Option(min=1, help="Searches of each kind.")] = 20) -> None:
    """Print the table."""
    console = Console()
    found = np.array([shares(seed) for seed in track(range(seeds), console=console)])
    known = taus()
    names = ["none", *(f"a search, {epochs} epochs" for epochs in _SHORTER), f"random, {_USELESS} epochs"]
    table = Table("earlier", "tau", "share of TPE's device-seconds", "quartiles", "never")
    for name, tau, column in zip(names, [None, *known, known[_SHORTER.index(_USELESS)]], found.T, strict=True):
        low, middle, high = np.quantile(column, [0.25, 0.5, 0.75], method="inverted_cdf")
        never = f"{np.isinf(column).sum()} of {seeds}"
        table.add_row(name, "" if tau is None else f"{tau:.2f}", f"{middle:.2f}", f"{low:.2f} to {high:.2f}", never)
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
