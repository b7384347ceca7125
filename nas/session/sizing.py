"""How long a training is where nobody says so: short enough for the budget to pay for a search."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from metaformer.architecture import Architecture
from metaformer.cost import count_cost
from nas.session.cost_model import CostModel
from nas.session.forecast import draw
from nas.study.lease import Speed
from nas.study.recipe import Recipe
from nas.study.recipe_files import find_recipe
from nas.study.study import Study

FEWEST_TRAININGS = 12  # of mean size, whole ones, that a budget should pay for
REFERENCE_SHARE = 1 / 3  # of a budget that hand-designed models take, unless they are asked for
_FEWEST_STEPS = 200  # of the optimiser in a shortened training; smaller batches give them
_SMALLEST_BATCH = 32
_LEAST_GAIN = 0.85  # a halving must leave no more of the time


@dataclass(frozen=True)
class Size:
    """What decides how long the trainings of a search are."""

    epochs: int
    images_per_class: int  # of train
    share: float  # of the space, the cheapest by MACs


# A training is shortened down to the first of these, field by field, then down to the next.
_FLOORS = (Size(10, 500, 1 / 8), Size(5, 250, 1 / 32), Size(3, 100, 1 / 64))


def shorten(
    study: Study,
    speed: Speed,
    num_images: Mapping[str, int],
    *,
    budget_seconds: float,
    splits: bool = True,
    recipe: str | None = None,
) -> tuple[Study, str] | None:
    """The study with a shorter training, as far as its budget needs it to pay for a dozen, and a line that says so.

    Epochs are halved first, then the images of a class, then the part of the space that is allowed, each down to a
    floor; then all of them once more. Below the last floor nothing is shortened. The part of the space is so large that
    the hand-designed models that the budget pays for stay in it. The fingerprint of the data stays that of all images.

    Args:
        num_images: By split: train, val, test.
        budget_seconds: Device-seconds of the search, with what the hand-designed models take.
        splits: Whether the number of images can be limited.
        recipe: The name of one for short trainings; None: the study's own.
    Returns:
        None where the budget pays for a dozen as they are.
    """
    space, num_classes = study.make_space(), study.settings.num_classes
    macs = np.sort([count_cost(arch).macs for arch in draw(space)])
    whole = Size(study.recipe.epochs, math.ceil(num_images["train"] / num_classes), 1.0)
    wanted = budget_seconds * (1 - REFERENCE_SHARE if study.references else 1) / FEWEST_TRAININGS

    def train(size: Size) -> int:
        return min(num_images["train"], size.images_per_class * num_classes)

    def allowed(size: Size) -> np.ndarray:
        return macs[: max(1, round(size.share * len(macs)))]

    def seconds(size: Size) -> float:
        model = CostModel(speed, {**num_images, "train": train(size)})
        return float(np.mean([model.train_seconds(int(each), epochs=size.epochs) for each in allowed(size)]))

    size = _shrunk(whole, seconds, wanted, ("epochs", "images_per_class", "share") if splits else ("epochs", "share"))
    if size == whole:
        return None
    base = (
        study.recipe if recipe is None else find_recipe(recipe).model_copy(update={"precision": study.recipe.precision})
    )
    shorter = _shorter(base, size.epochs, num_train=train(size), processes=study.processes)
    changes: dict[str, object] = {"recipe": shorter}
    if size.images_per_class < whole.images_per_class:
        changes["splitting"] = study.splitting.model_copy(update={"images_per_class": size.images_per_class})
    models = ""
    if size.share < 1:
        model = CostModel(speed, {**num_images, "train": train(size)})
        affordable = affordable_references(study, model, budget_seconds=budget_seconds, epochs=size.epochs)
        most = max(_rounded_up(int(allowed(size)[-1])), *(count_cost(arch).macs for arch in affordable.values()), 0)
        limits = study.settings.limits.model_copy(update={"max_macs": most})
        changes["settings"] = study.settings.model_copy(update={"limits": limits})
        models = f", of models up to {limits.max_macs:,} MACs"
    text = (
        f"a training is {size.epochs} epochs of {train(size):,} images in batches of {shorter.batch_size}"
        f"{'' if recipe is None else f' by the recipe {recipe}'}{models}, "
        f"since the budget pays for {budget_seconds / seconds(whole):.2g} of the usual size, "
        f"{whole.epochs} epochs of {train(whole):,} images; --epochs, --images-per-class or --max-macs says otherwise"
    )
    return study.model_copy(update=changes), text


def affordable_references(
    study: Study, model: CostModel, *, budget_seconds: float, epochs: int
) -> dict[tuple[str, ...], Architecture]:
    """The hand-designed models within the study's limits, in their order, as far as a third of the budget goes."""
    left, kept = budget_seconds * REFERENCE_SHARE, {}
    for names, arch in study.make_space().distinct_references(study.references).items():
        cost = count_cost(arch)
        seconds = model.train_seconds(cost.macs, epochs=epochs) + model.test_seconds(cost.macs)
        if study.settings.limits.allow(cost) and seconds <= left:
            kept[names] = arch
            left -= seconds
    return kept


def _shrunk(size: Size, seconds: Callable[[Size], float], wanted: float, fields: tuple[str, ...]) -> Size:
    """The size, with one field after the other halved until it takes no longer than wanted, or the last floor."""
    for floor in _FLOORS:
        for name in fields:
            least = getattr(floor, name)
            while seconds(size) > wanted and (now := getattr(size, name)) > least:
                half = replace(size, **{name: max(type(now)(now / 2), least)})
                if seconds(half) > _LEAST_GAIN * seconds(size):
                    break  # the smallest models are no faster, or val takes most
                size = half
    return size


def _shorter(recipe: Recipe, epochs: int, *, num_train: int, processes: int) -> Recipe:
    """The recipe with so many epochs, the same part of them warm-up, and batches that leave the optimiser enough steps.

    The peak learning rate stays.
    """
    batch_size = recipe.batch_size
    while epochs * num_train < _FEWEST_STEPS * batch_size and batch_size // 2 >= _SMALLEST_BATCH:
        if batch_size % (2 * processes):
            break
        batch_size //= 2
    part = epochs / recipe.epochs
    changes = {
        "epochs": epochs,
        "warmup_epochs": math.ceil(recipe.warmup_epochs * part),
        "cooldown_epochs": round(recipe.cooldown_epochs * part),
        "batch_size": batch_size,
        "lr_per_1024": recipe.peak_lr * 1024 / batch_size,
    }
    return Recipe.model_validate({**recipe.model_dump(), **changes})


def _rounded_up(count: int) -> int:
    """A count with two digits and zeros, no smaller."""
    unit = 10 ** max(0, len(str(count)) - 2)
    return -(-count // unit) * unit
