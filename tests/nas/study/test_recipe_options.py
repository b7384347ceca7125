"""`--recipe`, `--set` and the options beside them: what wins over what, and how the plan says it."""

import dataclasses
from pathlib import Path

import pytest
import yaml

from nas.data import DataInfo, default_recipe, open_dataset
from nas.make_study import describe_recipe, make_study
from nas.study.recipe import Recipe
from nas.study.recipe_files import find_recipe
from nas.study.request import Request, parse_changes, recipe_changes
from nas.study.study import Study, StudyError

DIGITS = open_dataset("digits", resolution=16).info
PHOTOS = DataInfo("folder:/data", 10, (), 64, {"train": 900, "val": 100, "test": 100}, "0" * 16)


def recipe_of(*changes: str, fields: dict[str, object] | None = None, **asked: object) -> Recipe:
    """The recipe of a study of photographs."""
    request = dataclasses.replace(Request(budget="9cpu-hours", changes=parse_changes(changes)), **asked)
    return make_study(request, fields or {}, PHOTOS).recipe


def changed(recipe: Recipe, **fields: object) -> Recipe:
    return Recipe.model_validate(recipe.model_dump() | fields)


def test_a_recipe_takes_the_place_of_the_datas_and_of_the_study_files() -> None:
    assert recipe_of() == default_recipe("folder:/data")
    assert recipe_of(recipe="convformer") == find_recipe("convformer")
    fields: dict[str, object] = {"recipe": {"weight_decay": 0.3, "epochs": 7}}
    assert recipe_of(fields=fields, recipe="convformer") == find_recipe("convformer")


def test_options_win_over_the_recipe_and_shorten_warm_up_and_cool_down() -> None:
    caformer = find_recipe("caformer")
    assert recipe_of(recipe="caformer", epochs=100, batch_size=64) == changed(caformer, epochs=100, batch_size=64)
    t2t = find_recipe("t2t_vit")
    for epochs, warmup, cooldown in ((310, 10, 10), (20, 10, 9), (12, 10, 1), (11, 10, 0), (5, 4, 0), (1, 0, 0)):
        expected = changed(t2t, epochs=epochs, warmup_epochs=warmup, cooldown_epochs=cooldown)
        assert recipe_of(recipe="t2t_vit", epochs=epochs) == expected


def test_single_fields_win_over_recipe_study_file_and_defaults() -> None:
    fields: dict[str, object] = {"recipe": {"weight_decay": 0.3, "clip_grad": 2.0}}
    found = recipe_of(
        *("recipe.weight_decay=0.1", "recipe.augmentation.mixup=0.2", "recipe.augmentation.rand_augment=null"),
        *("recipe.eps=1e-3", "recipe.betas=[0.9, 0.95]", "recipe.no_decay=[]"),
        fields=fields,
    )
    augmentation = Recipe().augmentation.model_copy(update={"mixup": 0.2, "rand_augment": None})
    assert found == Recipe(
        weight_decay=0.1, clip_grad=2.0, eps=1e-3, betas=(0.9, 0.95), no_decay=(), augmentation=augmentation
    )


def test_a_mapping_sets_its_fields_alone() -> None:
    augmentation = Recipe().augmentation.model_copy(update={"mixup": 0.1, "flip": 0.0})
    found = recipe_of("recipe.augmentation={mixup: 0.1}", "recipe.augmentation.flip=0")
    assert found == Recipe(augmentation=augmentation)


def test_a_warm_up_that_is_asked_for_is_not_shortened() -> None:
    assert recipe_of("recipe.warmup_epochs=1", epochs=3).warmup_epochs == 1
    with pytest.raises(StudyError, match=r"^recipe.warmup_epochs: must be less than epochs 3, got 3$"):
        recipe_of("recipe.warmup_epochs=3", epochs=3)


def test_a_run_keeps_its_own_recipe(tmp_path: Path) -> None:
    """Its study file has every field; asking for another recipe is an error that names the first other field."""
    study = make_study(Request(budget="9cpu-hours", recipe="convformer", epochs=30), {}, PHOTOS)
    fields = yaml.safe_load(study.to_yaml())
    again = make_study(Request(budget="9cpu-hours"), fields, PHOTOS)
    assert again.recipe == study.recipe == changed(find_recipe("convformer"), epochs=30)
    again.check_continues(study, tmp_path)
    other = make_study(Request(budget="9cpu-hours", recipe="caformer", epochs=30), fields, PHOTOS)
    with pytest.raises(
        StudyError, match=r"^recipe.optimizer: must be 'adamw', as the study in .*, got 'lamb'; another"
    ):
        other.check_continues(study, tmp_path)


def test_a_study_that_was_written_before_recipes_had_these_fields_is_the_same() -> None:
    study = make_study(Request(budget="9cpu-minutes"), {}, DIGITS)
    fields = yaml.safe_load(study.to_yaml())
    new = ("optimizer", "betas", "eps", "momentum", "nesterov", "no_decay", "schedule", "cooldown_epochs")
    for name in (*new, "lr_points", "drop_path", "ema_decay"):
        del fields["recipe"][name]
    for name in ("train_interpolation", "color_jitter", "repeats"):
        del fields["recipe"]["augmentation"][name]
    assert Study.model_validate(fields) == study


@pytest.mark.parametrize(
    ("request_", "fields", "said"),
    [
        (Request(), {}, "the default of the data"),
        (Request(), {"recipe": {}}, "that of the run"),
        (Request(study=Path("a.yaml")), {"recipe": {}}, "that of a.yaml"),
        (Request(study=Path("a.yaml")), {}, "the default of the data"),
        (
            Request(recipe="deit", epochs=9, batch_size=64, changes={"augmentation.mixup": "0.2"}),
            {"recipe": {}},
            "deit (--recipe), and over it epochs 9 (--epochs), batch_size 64 (--batch-size), "
            "augmentation.mixup 0.2 (--set)",
        ),
    ],
)
def test_the_plan_says_where_the_recipe_comes_from(request_: Request, fields: dict[str, object], said: str) -> None:
    assert describe_recipe(request_, fields) == said


def test_values_that_contradict_each_other_are_refused() -> None:
    request = Request(changes=parse_changes(["recipe.augmentation.mixup=1", "recipe.augmentation={mixup: 2}"]))
    assert recipe_changes(request) == {"augmentation": {"mixup": 2}}
    request = Request(changes=parse_changes(["recipe.augmentation.mixup=1", "recipe.augmentation=2"]))
    with pytest.raises(StudyError, match=r"^set recipe.augmentation: must be a mapping of fields, got 2$"):
        recipe_changes(request)
