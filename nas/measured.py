"""What training takes on these devices, and what that decides of a study."""

import statistics
from typing import NamedTuple

from rich.console import Console

from metaformer.cost import count_cost
from nas.data import DataInfo, default_recipe, open_dataset, takes_splitting
from nas.execution.backend import Backend
from nas.execution.ray_backend import RayBackend
from nas.record.notes import Notes
from nas.record.record import Record
from nas.session.cost_model import CostModel
from nas.session.forecast import fit_speed, to_measure
from nas.session.sizing import affordable_references, shorten
from nas.study.budget import Budget
from nas.study.lease import Speed, Step
from nas.study.recipe import Precision, Recipe
from nas.study.study import Study
from search_spaces.space import SMALL_IMAGES

_BELOW, _ABOVE = 2.0, 4.0  # how far a measured objective's bounds lie beyond what a few architectures had


class Costs(NamedTuple):
    """What training takes of a device, as measured."""

    speed: Speed
    peak_bytes: int  # of the architecture that takes the most memory
    bounds: dict[str, tuple[float, float]]  # of the objectives that are measured
    device: str | None  # that measured them
    hardware: str | None  # the devices, as the report names them
    precision: Precision | None  # that was faster, where the recipe leaves it open
    spent: float  # device-seconds that measuring took
    start_seconds: float = 0.0  # of them the start of a worker; a search that goes on does not know it


def known_costs(notes: Notes) -> Costs | None:
    """What was measured before, and has been charged."""
    if notes.speed is None or notes.peak_bytes is None:
        return None
    return Costs(notes.speed, notes.peak_bytes, notes.bounds, notes.device, notes.hardware, precision=None, spent=0.0)


def note_costs(record: Record, costs: Costs) -> None:
    """Note what was measured, once a study, and charge what that took."""
    record.note(
        speed=costs.speed.model_dump(),
        peak_bytes=costs.peak_bytes,
        bounds=costs.bounds,
        device=costs.device,
        hardware=costs.hardware,
    )
    record.add_overhead(costs.spent)


def measure(study: Study, backend: Backend, console: Console) -> Costs:
    """What training takes of these devices, and between which bounds the measured objectives lie."""
    console.print("measuring the speed of a few architectures …", style="dim")
    archs = to_measure(study)
    measured = [objective.name for objective in study.goals.measured]
    steps, spent, start_seconds = backend.measure(archs, study.recipe, objectives=measured)
    reading = statistics.median(step.reading for step in steps)
    speed = fit_speed(archs, [step.seconds_per_image for step in steps], reading=reading)
    values = [step.measurement.values for step in steps if step.measurement]
    bounds = {
        name: (min(value[name] for value in values) / _BELOW, max(value[name] for value in values) * _ABOVE)
        for name in measured
    }
    peak_bytes = max(step.peak_bytes for step in steps)
    hardware = steps[0].device and f"{backend.num_workers * backend.devices_per_trial:g} × {steps[0].device}"
    return Costs(speed, peak_bytes, bounds, _device(steps), hardware, steps[0].precision, spent, start_seconds)


def _device(steps: list[Step]) -> str | None:
    return next((step.measurement.device for step in steps if step.measurement), None)


class Shortened(NamedTuple):
    """What the budget made of the training."""

    text: str  # for people
    whole_recipe: Recipe  # before
    recipe: str | None  # the name of that of short trainings; None: it is the same but for its length


class Fitted(NamedTuple):
    """A study with what measuring decides."""

    study: Study
    info: DataInfo
    shortened: Shortened | None = None


def fit_to_budget(
    study: Study,
    costs: Costs,
    backend: RayBackend,
    *,
    info: DataInfo,
    budget: Budget,
    console: Console,
    references: bool,
    training: bool,
) -> Fitted:
    """The study with what measuring decides: precision, length of a training, models that the budget pays for.

    Args:
        references: Whether the budget decides which hand-designed models take part.
        training: Whether it decides how long a training is.
    """
    if costs.precision is not None:
        study = study.with_precision(costs.precision)
        console.print(f"training in {costs.precision}, the faster precision as measured", style="dim")
    fitted = Fitted(study, info)
    if training:
        fitted = _shortened(study, costs, backend, info, budget, console)
    if references:
        fitted = fitted._replace(study=_with_affordable_references(fitted, costs, backend, budget, console))
    return fitted


def _shortened(
    study: Study, costs: Costs, backend: RayBackend, info: DataInfo, budget: Budget, console: Console
) -> Fitted:
    """The study with trainings so short that its budget pays for a dozen, where it does not as they are."""
    short = _short_recipe(study)
    found = shorten(
        study,
        costs.speed,
        _by_split(info),
        budget_seconds=budget.seconds - (costs.spent if budget.device == "cpu" else 0.0),
        splits=takes_splitting(study.data),
        recipe=short,
    )
    if found is None:
        return Fitted(study, info)
    shorter, text = found
    console.print(f"shorter  {text}", style="yellow", markup=False)
    if shorter.splitting != study.splitting:
        info = open_dataset(study.data, resolution=study.settings.resolution, splitting=shorter.splitting).info
        backend.use(info)
    shortened = Shortened(text, study.recipe, short)
    return Fitted(shorter.model_copy(update={"data_fingerprint": info.fingerprint}), info, shortened)


def _short_recipe(study: Study) -> str | None:
    """The name of a recipe for short trainings on photographs; None where the data have a default of their own.

    The default of photographs is PoolFormer's, whose augmentation needs many epochs.
    """
    if default_recipe(study.data) != Recipe():
        return None
    return "cifar10_proxy" if study.settings.resolution <= SMALL_IMAGES else "imagenet_proxy"


def _by_split(info: DataInfo) -> dict[str, int]:
    return {str(split): number for split, number in info.num_images.items()}


def _with_affordable_references(
    fitted: Fitted, costs: Costs, backend: Backend, budget: Budget, console: Console
) -> Study:
    """The study with as many of its hand-designed models, in their order, as a third of the budget pays for."""
    study = fitted.study
    model = CostModel(costs.speed, _by_split(fitted.info), backend.lease_seconds * backend.devices_per_trial)
    kept = affordable_references(study, model, budget_seconds=budget.seconds, epochs=study.recipe.epochs)
    known = study.make_space().references()
    left_out = [
        name
        for name in study.references
        if study.settings.limits.allow(count_cost(known[name]))  # the plan names those that are beyond the limits
        and not any(name in names for names in kept)
    ]
    if left_out:
        console.print(
            f"hand-designed models beyond a third of the budget are left out: {', '.join(left_out)}; "
            "--references all trains them",
            style="yellow",
        )
    return study.model_copy(update={"references": tuple(name for name in study.references if name not in left_out)})
