"""Simple classifiers on the pixels of a dataset: the same split and the same pixels as the models see."""

import dataclasses

import pytest
import torch

from nas.data import default_recipe, open_dataset
from nas.results.baselines import is_small, simple_classifiers


def test_the_nearest_neighbour_is_that_of_the_datasets_own_tensors() -> None:
    """Labels of a plain search for the nearest training image, written out."""
    dataset, recipe = open_dataset("digits", resolution=16), default_recipe("digits")
    splits = {}
    for split in ("train", "val", "test"):
        batches = list(dataset.eval_batches(split, recipe, device=torch.device("cpu")))
        x_NF = torch.cat([batch.x_BCHW for batch in batches]).flatten(1)
        splits[split] = (x_NF, torch.cat([batch.y for batch in batches]))
    x_NF, y_N = splits["train"]
    expected = []
    for split in ("val", "test"):
        nearest_N = torch.cdist(splits[split][0], x_NF).argmin(1)
        expected.append(float((y_N[nearest_N] == splits[split][1]).float().mean()))
    found = simple_classifiers(dataset, recipe)["1-nearest neighbour"]
    assert found == pytest.approx(expected, abs=1 / 359)  # a tie may fall either way
    assert min(expected) > 0.97


def test_only_small_sets_have_them() -> None:
    info = open_dataset("digits", resolution=16).info
    assert is_small(info)
    many = dict.fromkeys(info.num_images, 10000)
    assert not is_small(dataclasses.replace(info, num_images=many))
