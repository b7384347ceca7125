"""What the published recipes say, and what is changed over them."""

import pytest

from nas.study.recipe_files import RecipeError
from nas.transfer.recipe import find_recipe, names

COCO, ADE = 117_266, 20_210  # training images, of COCO those with objects


def test_the_rates_of_the_published_recipes() -> None:
    """MMDetection's 1x schedule, and MMSegmentation's poly schedule of 40,000 steps."""
    recipe = find_recipe(None, "mask_rcnn", {})
    total = recipe.num_steps(COCO)
    assert total == round(12 * COCO / 16)
    epoch = total / 12
    rates = [recipe.rate(round(step), total) for step in (0, 250, 500, 8 * epoch - 1, 8 * epoch + 1, 11 * epoch + 1)]
    assert rates == pytest.approx([2e-7, 2e-4 * 0.5005, 2e-4, 2e-4, 2e-5, 2e-6])
    assert recipe.rounds(COCO) == [round(epoch * number) for number in range(1, 13)]
    recipe = find_recipe(None, "semantic_fpn", {})
    assert recipe.rounds(ADE) == list(range(4000, 40_001, 4000))
    assert [recipe.rate(step, 40_000) for step in (0, 20_000)] == pytest.approx([2e-4, 2e-4 * 0.5**0.9])


def test_changes_keep_what_belongs_together() -> None:
    recipe = find_recipe("retinanet_published", "retinanet", {"batch_size": 4, "size": 400, "steps": 100})
    assert (recipe.lr, recipe.max_size, recipe.epochs) == (2.5e-5, 666, None)
    assert recipe.rate(10, 100) == recipe.lr  # a short training warms up for a tenth


def test_what_is_no_recipe_of_the_task_is_refused() -> None:
    assert names() == ["mask_rcnn_published", "retinanet_published", "semantic_fpn_published"]
    with pytest.raises(RecipeError, match=r"^task: unknown name 'retinanett'; known, nearest first: retinanet"):
        find_recipe(None, "retinanett", {})
    with pytest.raises(RecipeError, match=r"^recipe: must be one of task retinanet, got mask_rcnn_published"):
        find_recipe("mask_rcnn_published", "retinanet", {})
    with pytest.raises(RecipeError, match=r"^recipe\.max_size: must be at least the size"):
        find_recipe(None, "retinanet", {"max_size": 100})
    with pytest.raises(RecipeError, match=r"^recipe\.batch_size: .* greater than 0"):
        find_recipe(None, "retinanet", {"batch_size": 0})
