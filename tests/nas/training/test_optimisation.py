"""Optimizers, learning rates, drop path and averages of the weights, against formulas written out here.

The tests of the recipes that papers have are in `tests/nas/study/test_recipes.py`.
"""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.optim import create_optimizer_v2

from metaformer import Architecture, build, zoo
from metaformer.specs import AttentionSpec, Norm, PoolSpec, Stage, Stem
from nas.data import Dataset, default_recipe, open_dataset
from nas.study.lease import WEIGHTS, Lease
from nas.study.recipe import Recipe
from nas.training.errors import TrainingError
from nas.training.loop import evaluate, train
from nas.training.optimisation import make_ema, make_optimizer, make_schedule, with_drop_path

CPU = torch.device("cpu")
POINTS = [[0, 0], [0.4, 1], [0.8, 0.05], [1, 0]]
STEPS = [[0, 1], [0.5, 0.1], [0.75, 0.01]]


def recipe_of(**fields: Any) -> Recipe:
    """Ten epochs with a peak learning rate of 1."""
    return Recipe.model_validate({"epochs": 10, "batch_size": 1024, "lr_per_1024": 1.0, "warmup_epochs": 0, **fields})


def rates(recipe: Recipe, num_steps: int, steps: list[int]) -> list[float]:
    """The learning rates of some steps, asked for in the order given."""
    optimizer = torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), lr=123.0)
    schedule = make_schedule(optimizer, recipe, num_steps)
    found = []
    for step in steps:
        schedule.step_update(step)
        found.append(optimizer.param_groups[0]["lr"])
    return found


def tiny_model() -> Architecture:
    """A small network that has class token, positions, batch norm and drop path."""
    stage = Stage(depth=2, width=16, mixer=AttentionSpec(head_size=8), position_embedding=True, class_token=True)
    return Architecture.model_validate(
        {
            "resolution": 8,
            "stem": Stem(kernel=2, stride=2, padding=0),
            "stages": (stage,),
            "head": {"num_classes": 10, "pool": "class_token"},
            "drop_path": 0.1,
        }
    )


def batch_norm_model() -> Architecture:
    stage = Stage(depth=2, width=16, mixer=PoolSpec(), norm=Norm(kind="batch_norm"))
    return Architecture.model_validate(
        {
            "resolution": 8,
            "stem": Stem(kernel=2, stride=2, padding=0),
            "stages": (stage,),
            "head": {"num_classes": 10},
            "drop_path": 0.1,
        }
    )


@pytest.fixture(scope="module")
def digits() -> Dataset:
    torch.set_num_threads(1)
    return open_dataset("digits", resolution=8)


def test_the_cosine_falls_from_the_peak_to_the_final_rate_and_stays_there_for_the_cool_down() -> None:
    recipe = recipe_of(final_lr=0.1, cooldown_epochs=2)
    expected = [1.0, 0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2, 0.55, 0.1, 0.1]
    assert rates(recipe, 10, [0, 20, 40, 80, 99]) == pytest.approx(expected, rel=1e-12)


def test_the_cosine_begins_with_the_first_step_and_comes_out_after_the_warm_up() -> None:
    recipe = recipe_of(warmup_epochs=2, warmup_lr=0.2, final_lr=0.0)
    expected = [0.2, 0.2 + 0.8 / 2, (1 + math.cos(math.pi * 0.2)) / 2, 0.5]
    assert rates(recipe, 10, [0, 10, 20, 50]) == pytest.approx(expected, rel=1e-12)


def test_piecewise_is_linear_between_its_points_and_a_step_has_the_rate_of_its_end() -> None:
    recipe = recipe_of(schedule="piecewise", lr_points=POINTS)
    found = rates(recipe, 10, [0, 19, 39, 59, 79, 89, 99])
    assert found == pytest.approx([0.025, 0.5, 1.0, 0.525, 0.05, 0.025, 0.0], abs=1e-12)


def test_steps_keep_each_factor_until_the_next_place_is_reached() -> None:
    recipe = recipe_of(schedule="step", lr_points=STEPS, warmup_epochs=1, warmup_lr=0.5)
    found = rates(recipe, 10, [0, 5, 10, 49, 50, 74, 75, 99])
    assert found == pytest.approx([0.5, 0.75, 1.0, 1.0, 0.1, 0.1, 0.01, 0.01], rel=1e-12)


def test_one_cycle_is_torchs_with_the_same_rise_and_ends() -> None:
    recipe = recipe_of(schedule="onecycle", warmup_epochs=3, warmup_lr=0.04, final_lr=0.001)
    optimizer = torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), lr=1.0)
    total = 100 + 1  # torch's last step is at the final rate, ours one step before it
    rise = 31 / total  # so that torch's rise ends with step 30
    torchs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1.0, total_steps=total, pct_start=rise, div_factor=25, final_div_factor=40
    )
    expected = []
    for _ in range(100):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        torchs.step()
    assert rates(recipe, 10, list(range(100))) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    "fields",
    [
        {"warmup_epochs": 3, "cooldown_epochs": 1},
        {"schedule": "onecycle", "warmup_epochs": 3, "cooldown_epochs": 1},
        {"schedule": "piecewise", "lr_points": POINTS},
        {"schedule": "step", "lr_points": STEPS, "warmup_epochs": 3},
    ],
    ids=lambda fields: fields.get("schedule", "cosine"),
)
@given(order=st.permutations(range(20)))
def test_a_rate_depends_on_the_step_alone(fields: dict[str, Any], order: list[int]) -> None:
    """Whatever was asked before, and whatever rate a checkpoint has left in the optimizer."""
    recipe = recipe_of(**fields)
    in_order = rates(recipe, 2, list(range(20)))
    assert rates(recipe, 2, order) == [in_order[step] for step in order]
    assert all(0 <= rate <= recipe.peak_lr for rate in in_order)


@pytest.mark.parametrize(
    "no_decay",
    [(), ("vectors",), ("vectors", "class_token"), ("vectors", "position_embedding", "class_token")],
    ids=str,
)
@pytest.mark.parametrize("optimizer", ["adamw", "lamb", "sgd"])
def test_the_parameters_that_the_recipe_names_do_not_decay(no_decay: tuple[str, ...], optimizer: str) -> None:
    model = build(tiny_model())
    made = make_optimizer(model, recipe_of(optimizer=optimizer, weight_decay=0.3, no_decay=no_decay))
    decays = {id(p): group["weight_decay"] for group in made.param_groups for p in group["params"]}
    kinds = set()
    for name, parameter in model.named_parameters():
        kind = {"pos_embed": "position_embedding", "cls_token": "class_token"}.get(
            name.rpartition(".")[2], "vectors" if parameter.ndim == 1 else "matrix"
        )
        kinds.add(kind)
        assert decays[id(parameter)] == (0.0 if kind in no_decay else 0.3), name
    assert kinds == {"vectors", "matrix", "position_embedding", "class_token"}


@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
@pytest.mark.parametrize("name", ["poolformer_s12", "convformer_s18", "deit_tiny_patch16_224", "t2t_vit_7"])
def test_groups_are_timms_where_vectors_alone_do_not_decay(name: str, weight_decay: float) -> None:
    with torch.device("meta"):
        model = build(zoo.get(name))
    timms = create_optimizer_v2(model, "adamw", lr=1.0, weight_decay=weight_decay).param_groups
    ours = make_optimizer(model, recipe_of(weight_decay=weight_decay)).param_groups
    for one, other in zip(ours, timms, strict=True):
        assert [id(p) for p in one["params"]] == [id(p) for p in other["params"]]
        assert one["weight_decay"] == other["weight_decay"]


def test_optimizers_have_the_figures_of_the_recipe_or_their_own() -> None:
    model = build(tiny_model())

    def made(**fields: Any) -> tuple[str, dict[str, Any]]:
        optimizer = make_optimizer(model, recipe_of(**fields))
        return type(optimizer).__name__, optimizer.param_groups[0]

    name, group = made()
    assert (name, group["lr"], group["betas"], group["eps"]) == ("AdamW", 1.0, (0.9, 0.999), 1e-8)
    name, group = made(optimizer="lamb")
    assert (name, group["betas"], group["eps"], group["max_grad_norm"]) == ("Lamb", (0.9, 0.999), 1e-6, 1.0)
    name, group = made(optimizer="sgd", momentum=0.8, nesterov=False)
    assert (name, group["momentum"], group["nesterov"]) == ("SGD", 0.8, False)
    for optimizer in ("adamw", "lamb"):
        _, group = made(optimizer=optimizer, betas=[0.8, 0.95], eps=1e-3)
        assert (group["betas"], group["eps"]) == ((0.8, 0.95), 1e-3)


def drop_path_rates(arch: Architecture) -> list[float]:
    """The rate of each block's mixer branch, in order."""
    model = build(arch)
    branches = [module for name, module in model.named_modules() if name.endswith("mixer.drop_path")]
    return [float(getattr(module, "drop_prob", 0.0)) for module in branches]


def test_drop_path_is_linear_by_depth_over_all_stages() -> None:
    arch = zoo.get("poolformer_s12")
    assert with_drop_path(arch, recipe_of()) is arch
    changed = with_drop_path(arch, recipe_of(drop_path=0.22))
    assert drop_path_rates(changed) == pytest.approx([0.22 * block / 11 for block in range(12)])
    assert drop_path_rates(with_drop_path(arch, recipe_of(drop_path=0.0))) == [0.0] * 12


def test_averages_follow_their_formula_and_begin_with_the_first_weights() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(1.0)
    ema = make_ema(model, recipe_of(ema_decay=0.75))
    assert ema is not None
    for weight in (2.0, 4.0):
        model.weight.data.fill_(weight)
        ema.update(model)
    assert ema.module.weight.item() == 0.75 * (0.75 * 1 + 0.25 * 2) + 0.25 * 4
    assert make_ema(model, recipe_of()) is None


def lease_in(folder: Path, **changes: Any) -> Lease:
    fields = {"trial": 0, "attempt": 1, "architecture": tiny_model(), "epochs": 4, "seed": 0, "folder": str(folder)}
    return Lease.model_validate(fields | changes)


def small_recipe(**fields: Any) -> Recipe:
    plain = default_recipe("digits").model_dump() | {"epochs": 4, "batch_size": 128, "warmup_epochs": 0}
    return Recipe.model_validate(plain | fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"warmup_epochs": 1, "cooldown_epochs": 1, "ema_decay": 0.9},
        {"schedule": "piecewise", "lr_points": POINTS, "eps": 1e-3, "clip_grad": 1.0},
        {"optimizer": "lamb", "ema_decay": 0.5, "drop_path": 0.3},
        {"optimizer": "sgd", "schedule": "onecycle", "warmup_epochs": 1},
        {"optimizer": "sgd", "nesterov": False, "schedule": "step", "lr_points": STEPS, "ema_decay": 0.9},
    ],
    ids=lambda fields: "-".join(str(fields[name]) for name in ("optimizer", "schedule", "ema_decay") if name in fields),
)
@pytest.mark.parametrize("arch", [tiny_model(), batch_norm_model()], ids=["attention", "batch_norm"])
def test_training_that_goes_on_ends_with_the_same_weights_to_the_bit(
    digits: Dataset, tmp_path: Path, fields: dict[str, Any], arch: Architecture
) -> None:
    recipe = small_recipe(**fields)
    whole = list(train(lease_in(tmp_path / "whole", recipe=recipe, architecture=arch), digits, device=CPU))
    broken = train(lease_in(tmp_path / "broken", recipe=recipe, architecture=arch), digits, device=CPU)
    before = [next(broken), next(broken)]
    broken.close()
    again = lease_in(tmp_path / "broken", recipe=recipe, architecture=arch, attempt=2, checkpoint=before[-1].checkpoint)
    assert before + list(train(again, digits, device=CPU)) == whole
    first, second = (torch.load(tmp_path / name / WEIGHTS, weights_only=True)["model"] for name in ("whole", "broken"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_evaluated_and_kept_are_the_averages(digits: Dataset, tmp_path: Path) -> None:
    """A decay of almost 1 keeps the first weights, whatever training does."""
    recipe = small_recipe(ema_decay=1 - 1e-9)
    reports = list(train(lease_in(tmp_path, recipe=recipe), digits, device=CPU))
    assert len({report.val_accuracy for report in reports}) == 1
    assert reports[-1].train_loss < reports[0].train_loss
    kept = torch.load(tmp_path / WEIGHTS, weights_only=True)["model"]
    trained = torch.load(tmp_path / "epoch-0003.pt", weights_only=True)
    for name, average in kept.items():
        torch.testing.assert_close(average, trained["ema"][name], rtol=1e-6, atol=1e-8)
    assert not torch.equal(kept["head.fc.weight"], trained["model"]["head.fc.weight"])
    at_the_end, before_it = (
        evaluate(lease_in(tmp_path, recipe=recipe, checkpoint=name), digits, device=CPU)
        for name in (WEIGHTS, "epoch-0003.pt")
    )
    assert at_the_end == before_it


def test_a_checkpoint_without_the_averages_that_the_recipe_has_is_refused(digits: Dataset, tmp_path: Path) -> None:
    first = next(train(lease_in(tmp_path, recipe=small_recipe()), digits, device=CPU))
    lease = lease_in(tmp_path, recipe=small_recipe(ema_decay=0.9), attempt=2, checkpoint=first.checkpoint)
    with pytest.raises(TrainingError, match=r"^checkpoint: must hold digest, ema, epoch, model, optimizer, version"):
        next(train(lease, digits, device=CPU))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"optimizer": "sgd", "eps": 1e-3}, "eps: must be null unless optimizer is adamw or lamb, got 0.001 with sgd"),
        ({"momentum": 0.8}, "momentum: must be 0.9 unless optimizer is sgd, got 0.8 with adamw"),
        ({"nesterov": False}, "nesterov: must be true unless optimizer is sgd, got False with adamw"),
        ({"lr_points": POINTS}, "lr_points: must be null unless schedule is piecewise or step, got .* with cosine"),
        ({"schedule": "step"}, "lr_points: must be given with schedule step, got None"),
        ({"schedule": "step", "lr_points": [[0.1, 1]]}, r"lr_points: must begin at 0 and rise, got \[0.1\]"),
        ({"schedule": "step", "lr_points": [[0, 1], [0, 2]]}, "lr_points: must begin at 0 and rise"),
        ({"schedule": "piecewise", "lr_points": STEPS}, "lr_points: must end at 1 with schedule piecewise"),
        (
            {"schedule": "piecewise", "lr_points": POINTS, "warmup_epochs": 1},
            "warmup_epochs: must be 0 with schedule piecewise, whose lr_points hold the warm-up, got 1",
        ),
        ({"warmup_epochs": 10}, "warmup_epochs: must be less than epochs 10, got 10"),
        (
            {"warmup_epochs": 4, "cooldown_epochs": 6},
            "cooldown_epochs: must be less than the 6 epochs after the warm-up, got 6",
        ),
    ],
)
def test_fields_that_do_not_fit_each_other_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipe_of(**fields)
