"""How long a training is where nobody says so."""

import random

import pytest

from metaformer.cost import count_cost
from nas.session.cost_model import CostModel
from nas.session.sizing import FEWEST_TRAININGS, REFERENCE_SHARE, affordable_references, shorten
from nas.study.lease import Speed
from nas.study.recipe import Recipe
from nas.study.recipe_files import find_recipe
from nas.study.study import Study
from tests.nas.runs import make_study

IMAGES = {"train": 40_500, "val": 4_500, "test": 5_000}
SPEED = Speed(base=1e-3, per_gmac=0.3)
STUDY = make_study(budget="9cpu-minutes", recipe=Recipe())


def mean_seconds(study: Study, *, num_train: int) -> float:
    """Of training a random architecture within the study's limits."""
    space, rng = study.make_space(), random.Random(1)
    model = CostModel(SPEED, {**IMAGES, "train": num_train})
    macs = [count_cost(space.sample(rng)).macs for _ in range(64)]
    return sum(model.train_seconds(each, epochs=study.recipe.epochs) for each in macs) / len(macs)


def test_a_budget_that_pays_for_a_dozen_leaves_everything_as_it_is() -> None:
    enough = 1.2 * FEWEST_TRAININGS * mean_seconds(STUDY, num_train=IMAGES["train"]) / (1 - REFERENCE_SHARE)
    assert shorten(STUDY, SPEED, IMAGES, budget_seconds=enough) is None


@pytest.mark.parametrize("times_less", [2, 10, 50])
def test_a_smaller_budget_pays_for_a_dozen_shorter_trainings(times_less: float) -> None:
    budget = FEWEST_TRAININGS * mean_seconds(STUDY, num_train=IMAGES["train"]) / (1 - REFERENCE_SHARE) / times_less
    found = shorten(STUDY, SPEED, IMAGES, budget_seconds=budget)
    assert found is not None
    shorter, text = found
    num_train = 10 * (shorter.splitting.images_per_class or 4_050)
    assert mean_seconds(shorter, num_train=num_train) * FEWEST_TRAININGS <= 1.1 * budget
    assert shorter.recipe.peak_lr == pytest.approx(STUDY.recipe.peak_lr)
    assert shorter.recipe.warmup_epochs / shorter.recipe.epochs == pytest.approx(5 / 30, abs=0.1)
    assert shorter.recipe.epochs * num_train / shorter.recipe.batch_size >= 100
    assert f"{shorter.recipe.epochs} epochs of {num_train:,} images in batches of {shorter.recipe.batch_size}" in text


def test_there_is_a_floor_and_a_limit_of_macs_holds_for_architectures_that_can_be_built() -> None:
    found = shorten(STUDY, SPEED, IMAGES, budget_seconds=1e-3)
    assert found is not None
    shorter, _ = found
    assert shorter.recipe.epochs == 3
    assert 100 <= shorter.splitting.images_per_class < 200
    shorter.make_space().check_limits()
    assert shorter.settings.limits.max_macs < STUDY.make_space().largest_cost("macs")


@pytest.mark.parametrize("minutes", [2, 9, 60])
def test_the_hand_designed_models_that_a_third_of_the_budget_pays_for_stay_within_the_limit(minutes: int) -> None:
    found = shorten(STUDY, SPEED, IMAGES, budget_seconds=60 * minutes)
    assert found is not None
    shorter, _ = found
    num_train = 10 * (shorter.splitting.images_per_class or 4_050)
    model = CostModel(SPEED, {**IMAGES, "train": num_train})
    epochs = shorter.recipe.epochs
    kept = affordable_references(STUDY, model, budget_seconds=60 * minutes, epochs=epochs)
    assert max(count_cost(arch).macs for arch in kept.values()) <= shorter.settings.limits.max_macs
    without = shorten(STUDY.model_copy(update={"references": ()}), SPEED, IMAGES, budget_seconds=60 * minutes)
    assert without is not None
    assert (shorter.settings == without[0].settings) == (minutes == 60)  # where the part of the space has them anyway


def test_one_that_a_third_of_the_budget_does_not_pay_for_sets_no_limit() -> None:
    found = shorten(STUDY, SPEED, IMAGES, budget_seconds=1e-3)
    assert found is not None
    without = shorten(STUDY.model_copy(update={"references": ()}), SPEED, IMAGES, budget_seconds=1e-3)
    assert without is not None
    assert found[0].settings == without[0].settings


def test_short_trainings_can_have_a_recipe_of_their_own() -> None:
    measured = STUDY.with_precision("bfloat16")
    found = shorten(measured, SPEED, IMAGES, budget_seconds=540, recipe="cifar10_proxy")
    assert found is not None
    assert found[0].recipe.precision == "bfloat16"
    shorter, text = found
    proxy, own = find_recipe("cifar10_proxy"), shorten(STUDY, SPEED, IMAGES, budget_seconds=540)
    assert own is not None
    assert shorter.recipe.augmentation == proxy.augmentation != STUDY.recipe.augmentation
    assert shorter.recipe.peak_lr == pytest.approx(proxy.peak_lr)
    assert shorter.recipe.warmup_epochs == 1 < proxy.warmup_epochs
    assert (shorter.recipe.epochs, shorter.splitting) == (own[0].recipe.epochs, own[0].splitting)
    assert "by the recipe cifar10_proxy, of models up to" in text
    assert "by the recipe" not in own[1]


def test_where_splits_are_fixed_all_images_stay() -> None:
    found = shorten(STUDY, SPEED, IMAGES, budget_seconds=1e-3, splits=False)
    assert found is not None
    assert found[0].splitting == STUDY.splitting
