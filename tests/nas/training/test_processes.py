"""Several processes that train one model, beside one process: gloo on CPUs."""

from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from metaformer import Architecture
from metaformer.architecture import Architecture as ArchitectureType
from metaformer.network.model import build
from metaformer.network.part import ALONE, Part
from metaformer.specs import AttentionSpec, DepthwiseConvSpec, Norm, PoolSpec, Stage, Stem
from nas.data import Batch, default_recipe, open_dataset
from nas.data.augment import make_mix
from nas.data.generators import PrivateGenerators
from nas.study.lease import WEIGHTS, Lease, Report
from nas.study.recipe import Recipe
from nas.training.loop import evaluate, train
from nas.training.optimisation import make_optimizer
from nas.training.processes import joined, share_out
from nas.training.state import seed_everything
from nas.training.steps import Chunks, Stepper

CPU = torch.device("cpu")
RECIPE = default_recipe("digits").model_copy(
    update={"epochs": 2, "batch_size": 64, "warmup_epochs": 0, "cooldown_epochs": 0, "precision": "float32"}
)
MIXERS = {"pool": PoolSpec(), "attention": AttentionSpec(head_size=8), "convolution": DepthwiseConvSpec(size=3)}
# Not AdamW, which divides a gradient by its size, be it of rounding alone
PLAIN = RECIPE.model_copy(
    update={"optimizer": "sgd", "momentum": 0.9, "nesterov": False, "clip_grad": 1.0, "betas": None, "eps": None}
)
NUM_STEPS = 2
Result = dict[str, Tensor]


def model_of(name: str, *, drop_path: float = 0.2, norm: str = "batch_norm") -> ArchitectureType:
    stages = (
        Stage(depth=1, width=16, mixer=MIXERS[name], norm=Norm.model_validate({"kind": norm})),
        Stage(depth=1, width=16, mixer=MIXERS[name], norm=Norm(kind="mln")),
    )
    return Architecture.model_validate(
        {
            "resolution": 8,
            "stem": Stem(kernel=2, stride=2, padding=0),
            "stages": stages,
            "head": {"num_classes": 10},
            "drop_path": drop_path,
        }
    )


def take_steps(part: Part, arch: ArchitectureType, recipe: Recipe, dtype: torch.dtype, *, mixes: bool) -> Result:
    """The loss of each step, and the state after some."""
    torch.set_num_threads(1)
    seed_everything(0, epoch=0)
    model = build(arch).to(dtype)
    share_out(model, part)
    optimizer = make_optimizer(model, recipe)
    step = Stepper(model, optimizer, recipe, Chunks(), part=part)
    digits = open_dataset("digits", resolution=8)
    mixing = recipe.model_copy(
        update={"augmentation": recipe.augmentation.model_copy(update={"mixup": 0.8, "cutmix": 1.0})}
    )
    mix, generators = make_mix(mixing, 10) if mixes else None, PrivateGenerators(0, 0, 0)
    losses = []
    for batch in islice(digits.train_part(recipe, part, epoch=0, seed=3, device=CPU), NUM_STEPS):
        with generators:
            x_BCHW, y = mix(*batch) if mix else batch
        losses.append(step(Batch(x_BCHW.to(dtype), y)))
    return {"losses": torch.stack(losses), **{name: value.clone() for name, value in model.state_dict().items()}}


def process(rank: int, number: int, folder: Path, work: Callable[[Part], Any]) -> None:
    with joined(Part(rank, number), folder / "meeting", CPU):
        torch.save(work(Part(rank, number)), folder / f"{rank}.pt")


def together(number: int, folder: Path, work: Callable[[Part], Any]) -> list[Any]:
    """What each of several processes gives."""
    spawn(process, args=(number, folder, work), nprocs=number)  # type: ignore[no-untyped-call]  # torch gives it no types
    return [torch.load(folder / f"{rank}.pt") for rank in range(number)]


def several(part: Part, works: list[Callable[[Part], Any]]) -> list[Any]:
    return [work(part) for work in works]


@pytest.mark.slow
def test_a_step_of_two_processes_is_that_of_one(tmp_path: Path) -> None:
    """Losses, weights and the running values of batch norms, with drop path and with mixing."""
    works: list[Callable[[Part], Any]] = []
    tolerances = []
    for name in MIXERS:
        for drop_path, mixes, dtype in (
            (0.0, False, torch.float32),
            (0.3, True, torch.float32),
            (0.3, True, torch.float64),
        ):
            arch = model_of(name, drop_path=drop_path)
            works.append(partial(take_steps, arch=arch, recipe=PLAIN, dtype=dtype, mixes=mixes))
            tolerances.append(2e-5 if dtype == torch.float32 else 1e-6)  # the loss is float32 always
    of_two = together(2, tmp_path, partial(several, works=works))
    for alone, tolerance, *found in zip(several(ALONE, works), tolerances, *of_two, strict=True):
        for other in found:
            torch.testing.assert_close(other, alone, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("size", [12, 16, 32])
@pytest.mark.parametrize("number", [2, 4])
def test_parts_hold_each_image_once(size: int, number: int) -> None:
    rows = torch.cat([Part(rank, number).rows(size) for rank in range(number)])
    assert sorted(rows.tolist()) == list(range(size))
    if size // number % 2 == 0:
        for rank in range(number):
            own = Part(rank, number).rows(size)
            assert torch.equal(own + own.flip(0), torch.full_like(own, size - 1))


def train_digits(part: Part, folder: Path) -> tuple[list[float], list[str], float]:
    torch.set_num_threads(1)
    digits = open_dataset("digits", resolution=8)
    lease = Lease(
        trial=0, attempt=1, architecture=model_of("convolution"), recipe=RECIPE, epochs=2, seed=0, folder=str(folder)
    )
    clock = iter(range(0, 10**6, 40))  # a sign of life at each step, of the first alone
    reports = list(
        train(lease.model_copy(update={"epochs": 1}), digits, device=CPU, clock=lambda: next(clock), part=part)
    )
    [last] = [given for given in reports if isinstance(given, Report)]
    assert (len(reports) > 1) == (part.rank == 0)
    again = lease.model_copy(update={"checkpoint": last.checkpoint, "attempt": 2})
    [second] = train(again, digits, device=CPU, part=part)
    assert isinstance(second, Report)
    test = lease.model_copy(update={"task": "test", "checkpoint": WEIGHTS})
    accuracy = evaluate(test, digits, device=CPU, part=part)
    return [last.val_accuracy, second.val_accuracy], [last.checkpoint, second.checkpoint], accuracy


@pytest.mark.slow
def test_training_goes_on_from_a_checkpoint_and_ends_as_with_one_process(tmp_path: Path) -> None:
    """Whole epochs amplify rounding, so accuracies agree within that of other seeds, a few images of some hundred."""
    found, other = together(2, tmp_path, partial(train_digits, folder=tmp_path / "together"))
    assert found == other
    (accuracies, names, test), (alone, names_alone, test_alone) = found, train_digits(ALONE, tmp_path / "alone")
    assert names == names_alone
    assert [*accuracies, test] == pytest.approx([*alone, test_alone], abs=0.03)
