"""Signs of life and checkpoints within an epoch, and training that goes on from there."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from metaformer.architecture import Architecture
from metaformer.specs import AttentionSpec, Norm, PoolSpec, Stage, Stem
from nas.data import Dataset, default_recipe, open_dataset
from nas.study.lease import WEIGHTS, Lease, Report, Sign
from nas.study.recipe import Recipe
from nas.training.checkpoints import checkpoint_name
from nas.training.loop import SIGN_EVERY, train
from tests.nas.conftest import PreparedFolder
from tests.nas.photographs import recipe_of
from tests.thorough import thorough

CPU = torch.device("cpu")
STEP = 10.0  # seconds that pass at each look at the clock
EVERY = 2.5 * STEP


class Clock:
    """A clock that goes on by the same time whenever somebody looks at it."""

    def __init__(self) -> None:
        self._now = 0.0

    def __call__(self) -> float:
        self._now += STEP
        return self._now


def small_model(resolution: int, num_classes: int) -> Architecture:
    """With what draws from a generator in training, drop path, and what remembers its images, batch norm."""
    stages = (
        Stage(depth=1, width=16, mixer=PoolSpec(), norm=Norm(kind="batch_norm")),
        Stage(depth=2, width=16, mixer=AttentionSpec(head_size=8)),
    )
    return Architecture.model_validate(
        {
            "resolution": resolution,
            "stem": Stem(kernel=4, stride=4, padding=0),
            "stages": stages,
            "head": {"num_classes": num_classes},
            "drop_path": 0.3,
        }
    )


def short(recipe: Recipe, **changes: object) -> Recipe:
    return Recipe.model_validate(recipe.model_dump() | {"epochs": 2, "warmup_epochs": 1} | changes)


@pytest.fixture(params=["digits", *thorough(["prepared", "folder", "folder, 2 workers"])])
def data(request: pytest.FixtureRequest, prepared_folder: PreparedFolder) -> tuple[Dataset, Recipe]:
    """A dataset, and a recipe that uses all that is random in it; some steps an epoch."""
    augmentation = {"flip": 0.5, "crop_scale": (0.3, 1), "rand_augment": "rand-m9-mstd0.5-inc1", "random_erasing": 0.5}
    photographs = short(recipe_of(batch_size=8, mixup=0.8, cutmix=1.0, **augmentation), ema_decay=0.9)
    match request.param:
        case "digits":
            return open_dataset("digits", resolution=8), short(
                default_recipe("digits"), batch_size=128, optimizer="sgd"
            )
        case "prepared":
            return open_dataset(f"prepared:{prepared_folder.prepared}", resolution=32), photographs
        case kind:
            workers = 2 if "workers" in kind else 0
            return open_dataset(f"folder:{prepared_folder.folder}", resolution=32, num_workers=workers), photographs


def lease_of(folder: Path, data: tuple[Dataset, Recipe], **changes: Any) -> Lease:
    dataset, recipe = data
    fields = {
        "trial": 0,
        "attempt": 1,
        "architecture": small_model(dataset.info.resolution, dataset.info.num_classes),
        "recipe": recipe,
        "epochs": recipe.epochs,
        "seed": 0,
        "folder": str(folder),
        "checkpoint_every": EVERY,
    }
    return Lease.model_validate(fields | changes)


def run(lease: Lease, dataset: Dataset) -> Iterator[Report | Sign]:
    return train(lease, dataset, device=CPU, clock=Clock())


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = torch.load(folder / WEIGHTS, weights_only=True)["model"]
    return found


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def reports(given: list[Report | Sign]) -> list[Report]:
    return [item for item in given if isinstance(item, Report)]


def test_training_that_goes_on_from_within_an_epoch_ends_with_the_same_weights_to_the_bit(
    data: tuple[Dataset, Recipe], tmp_path: Path
) -> None:
    """From the first checkpoint within, and the last, in a process whose generators stand elsewhere."""
    dataset = data[0]
    whole = list(run(lease_of(tmp_path / "whole", data, checkpoint_every=None), dataset))
    num_signs = sum(isinstance(item, Sign) for item in run(lease_of(tmp_path / "counted", data), dataset))
    assert num_signs >= 3
    for number in (0, num_signs - 1):
        folder = tmp_path / str(number)
        broken, seen, signs = run(lease_of(folder, data), dataset), [], 0
        while signs <= number:
            seen.append(next(broken))
            signs += isinstance(seen[-1], Sign)
        broken.close()
        torch.rand(number + 5)
        again = lease_of(folder, data, attempt=2, checkpoint=seen[-1].checkpoint)
        assert reports(seen) + reports(list(run(again, dataset))) == reports(whole)
        assert_same_weights(folder, tmp_path / "whole")


@pytest.fixture
def digits() -> tuple[Dataset, Recipe]:
    return open_dataset("digits", resolution=8), short(default_recipe("digits"), batch_size=64)


def test_signs_of_life_come_every_half_minute_and_leave_nothing_unless_asked(
    digits: tuple[Dataset, Recipe], tmp_path: Path
) -> None:
    num_steps = digits[0].num_steps(digits[1])
    given = list(run(lease_of(tmp_path, digits, checkpoint_every=None), digits[0]))
    signs = [item for item in given if isinstance(item, Sign)]
    assert {sign.checkpoint for sign in signs} == {None}
    assert {sign.num_steps for sign in signs} == {num_steps}
    apart = SIGN_EVERY / STEP
    assert len(signs) == pytest.approx(2 * num_steps / (apart + 1), abs=2)  # to note the sign is a look at the clock
    assert sorted(path.name for path in tmp_path.iterdir()) == [checkpoint_name(1), WEIGHTS]


def test_an_epoch_that_is_short_leaves_no_sign(digits: tuple[Dataset, Recipe], tmp_path: Path) -> None:
    given = train(lease_of(tmp_path, digits, checkpoint_every=300.0), digits[0], device=CPU)
    assert [type(item) for item in given] == [Report, Report]


def test_the_newest_two_within_an_epoch_are_kept_until_the_epoch_has_its_own(
    digits: tuple[Dataset, Recipe], tmp_path: Path
) -> None:
    within: list[str] = []
    epochs: list[str] = []
    for item in run(lease_of(tmp_path, digits), digits[0]):
        there = {path.name for path in tmp_path.iterdir()}
        if isinstance(item, Report):
            epochs, within = [*epochs, item.checkpoint][-2:], []
        elif item.checkpoint is not None:
            within = [*within, item.checkpoint][-2:]
        assert there == {*epochs, *within}


def test_damaged_checkpoints_within_an_epoch_give_way_to_those_before(
    digits: tuple[Dataset, Recipe], tmp_path: Path
) -> None:
    whole = list(run(lease_of(tmp_path / "whole", digits), digits[0]))
    broken = run(lease_of(tmp_path / "broken", digits), digits[0])
    signs: list[Sign] = []
    while len(signs) < 3:
        item = next(broken)
        signs += [item] if isinstance(item, Sign) else []
    broken.close()
    newest = tmp_path / "broken" / str(signs[-1].checkpoint)
    newest.write_bytes(newest.read_bytes()[:1000])
    again = lease_of(tmp_path / "broken", digits, attempt=2, checkpoint=signs[-1].checkpoint)
    found = reports(list(run(again, digits[0])))
    assert f"went on from {signs[-2].checkpoint}" in str(found[0].note)
    assert [report.model_copy(update={"note": None}) for report in found] == reports(whole)
    assert_same_weights(tmp_path / "broken", tmp_path / "whole")


def test_a_loss_that_is_not_finite_leaves_no_checkpoint_within(digits: tuple[Dataset, Recipe], tmp_path: Path) -> None:
    wild = short(digits[1], lr_per_1024=1e30, warmup_epochs=0)
    with pytest.raises(RuntimeError, match="loss: must stay finite"):
        list(run(lease_of(tmp_path, (digits[0], wild)), digits[0]))
    assert [path for path in tmp_path.iterdir() if "step" in path.name] == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is visible")
def test_on_a_gpu_it_goes_on_with_the_same_images_and_drops(digits: tuple[Dataset, Recipe], tmp_path: Path) -> None:
    gpu = torch.device("cuda")
    whole = reports(list(train(lease_of(tmp_path / "whole", digits), digits[0], device=gpu, clock=Clock())))
    broken = train(lease_of(tmp_path / "broken", digits), digits[0], device=gpu, clock=Clock())
    sign = next(broken)
    broken.close()
    again = lease_of(tmp_path / "broken", digits, attempt=2, checkpoint=sign.checkpoint)
    found = reports(list(train(again, digits[0], device=gpu, clock=Clock())))
    assert [report.train_loss for report in found] == pytest.approx([r.train_loss for r in whole], rel=0.02)
