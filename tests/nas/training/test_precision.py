"""In which precision a CPU trains."""

from collections.abc import Sequence

import pytest
import torch

from nas.data import open_dataset
from nas.study.lease import Step
from nas.study.recipe import Precision, Recipe
from nas.training.loop import measure_trainings
from nas.training.precision import faster, open_precisions
from tests.nas.training.test_loop import CPU, RECIPE, small_model

OPEN = Recipe(precision="auto")


def steps(seconds: Sequence[float]) -> list[Step]:
    return [Step(seconds_per_image=each, peak_bytes=0) for each in seconds]


@pytest.mark.parametrize("kind", ["amx_bf16", "avx512_bf16"])
def test_measuring_chooses_on_a_cpu_that_multiplies_bfloat16(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, kind: True})
    assert open_precisions(CPU, OPEN) == ("float32", "bfloat16")
    assert open_precisions(torch.device("cuda"), OPEN) == ()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_what_a_recipe_says_is_not_measured(precision: Precision) -> None:
    assert open_precisions(CPU, OPEN.model_copy(update={"precision": precision})) == ()


def test_nothing_is_open_on_another_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "amx_bf16": False})
    assert open_precisions(CPU, OPEN) == ()


@pytest.mark.parametrize(
    ("float32", "bfloat16", "chosen"),
    [
        ([1.0, 1.0], [0.8, 0.8], "bfloat16"),
        ([1.0, 1.0], [0.95, 0.95], "float32"),  # less than a tenth
        ([1.0, 1.0], [1.5, 1.5], "float32"),
        ([1.0, 4.0], [1.6, 1.0], "bfloat16"),  # 0.625 and 4: the geometric mean is 1.58
    ],
)
def test_bfloat16_must_win_by_a_tenth_in_geometric_mean(
    float32: list[float], bfloat16: list[float], chosen: Precision
) -> None:
    assert faster({"float32": steps(float32), "bfloat16": steps(bfloat16)}) == chosen


def test_steps_name_the_precision_that_they_were_measured_in(monkeypatch: pytest.MonkeyPatch) -> None:
    digits, models = open_dataset("digits", resolution=16), [small_model(resolution=16)]
    recipe = RECIPE.model_copy(update={"precision": "auto"})
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    [step] = measure_trainings(models, recipe, digits, device=CPU)
    assert step.precision in ("float32", "bfloat16")
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    [step] = measure_trainings(models, recipe, digits, device=CPU)
    assert step.precision is None
