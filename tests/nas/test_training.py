"""The training loop on the digits themselves."""

from pathlib import Path
from typing import Any

import pytest
import torch

from metaformer import Architecture, build, load
from metaformer.architecture import Architecture as ArchitectureType
from metaformer.specs import AttentionSpec, Norm, PoolSpec, Stage, Stem
from nas.data import Dataset, default_recipe, open_dataset
from nas.lease import WEIGHTS, Lease
from nas.recipe import Augmentation, Recipe
from nas.training import (
    Chunks,
    TrainingError,
    _train_step,
    evaluate,
    measure_seconds_per_image,
    seed_everything,
    train,
)
from tests.nas.runs import make_study

CPU = torch.device("cpu")
RECIPE = default_recipe("digits").model_copy(update={"epochs": 3, "batch_size": 64})


@pytest.fixture(scope="module")
def digits() -> Dataset:
    torch.set_num_threads(1)
    return open_dataset("digits", resolution=32)


def small_model(*, drop_path: float = 0.1) -> ArchitectureType:
    """A pooling stage below an attention stage, with what makes training random: drop path."""
    stages = (
        Stage(depth=1, width=32, mixer=PoolSpec(), norm=Norm(kind="batch_norm")),
        Stage(depth=2, width=32, mixer=AttentionSpec(head_size=8), position_embedding=True),
    )
    return Architecture.model_validate(
        {
            "resolution": 32,
            "stem": Stem(kernel=4, stride=4, padding=0),
            "stages": stages,
            "head": {"num_classes": 10},
            "drop_path": drop_path,
        }
    )


def poolformer() -> ArchitectureType:
    """The pattern of PoolFormer-S12, slim enough for a core."""
    return make_study().make_space().references()["poolformer_s12"]


def lease_in(folder: Path, **changes: Any) -> Lease:
    fields = {
        "trial": 0,
        "attempt": 1,
        "architecture": small_model(),
        "recipe": RECIPE,
        "epochs": 3,
        "seed": 0,
        "folder": str(folder),
    }
    return Lease.model_validate(fields | changes)


def test_a_few_epochs_learn_far_more_than_chance(digits: Dataset, tmp_path: Path) -> None:
    reports = list(train(lease_in(tmp_path, architecture=poolformer()), digits, device=CPU))
    assert [report.epoch for report in reports] == [1, 2, 3]
    assert reports[-1].train_loss < reports[0].train_loss
    assert reports[-1].val_accuracy > 0.6  # chance is 0.1


def test_the_same_lease_gives_the_same_reports_and_another_seed_gives_others(digits: Dataset, tmp_path: Path) -> None:
    first = list(train(lease_in(tmp_path / "1"), digits, device=CPU))
    torch.rand(17)
    again = list(train(lease_in(tmp_path / "2"), digits, device=CPU))
    other = list(train(lease_in(tmp_path / "3", seed=1), digits, device=CPU))
    assert first == again
    assert [r.train_loss for r in first] != [r.train_loss for r in other]


@pytest.mark.parametrize("num_before", [1, 2])
def test_going_on_from_a_checkpoint_gives_what_an_uninterrupted_run_gives(
    digits: Dataset, tmp_path: Path, num_before: int
) -> None:
    whole = list(train(lease_in(tmp_path / "whole"), digits, device=CPU))
    broken = train(lease_in(tmp_path / "broken"), digits, device=CPU)
    before = [next(broken) for _ in range(num_before)]
    broken.close()
    resumed = lease_in(tmp_path / "broken", attempt=2, checkpoint=before[-1].checkpoint)
    assert before + list(train(resumed, digits, device=CPU)) == whole
    states = [torch.load(tmp_path / name / WEIGHTS, weights_only=True)["model"] for name in ("whole", "broken")]
    for key, tensor in states[0].items():
        torch.testing.assert_close(states[1][key], tensor, rtol=0, atol=0)


def test_a_lease_of_fewer_epochs_follows_the_schedule_of_the_whole_recipe(digits: Dataset, tmp_path: Path) -> None:
    whole = list(train(lease_in(tmp_path / "whole"), digits, device=CPU))
    rung = list(train(lease_in(tmp_path / "rung", epochs=2), digits, device=CPU))
    assert rung == whole[:2]


def test_the_newest_two_checkpoints_are_kept_and_the_weights_at_the_end(digits: Dataset, tmp_path: Path) -> None:
    kept = []
    for report in train(lease_in(tmp_path), digits, device=CPU):
        assert (tmp_path / report.checkpoint).exists()
        kept.append(sorted(path.name for path in tmp_path.iterdir()))
    assert kept == [["epoch-0001.pt"], ["epoch-0001.pt", "epoch-0002.pt"], ["epoch-0002.pt", WEIGHTS]]


def test_the_weights_give_the_last_reported_accuracy_and_a_test_accuracy(digits: Dataset, tmp_path: Path) -> None:
    """The accuracy is counted again by hand, from the weights on disk."""
    lease = lease_in(tmp_path)
    last = list(train(lease, digits, device=CPU))[-1]
    model = load(lease.architecture, tmp_path / WEIGHTS).eval()
    expected = {}
    for split in ("val", "test"):
        with torch.inference_mode():
            right = [model(x).argmax(1) == y for x, y in digits.eval_batches(split, RECIPE, device=CPU)]
        expected[split] = float(torch.cat(right).double().mean())
    assert last.val_accuracy == pytest.approx(expected["val"])
    tested = evaluate(lease_in(tmp_path, task="test", checkpoint=WEIGHTS), digits, device=CPU)
    assert tested == pytest.approx(expected["test"])


def test_a_loss_that_is_not_finite_ends_training_with_a_reason(digits: Dataset, tmp_path: Path) -> None:
    wild = RECIPE.model_copy(update={"lr_per_1024": 1e30, "warmup_epochs": 0})
    with pytest.raises(TrainingError, match="loss: must stay finite, got (nan|inf)"):
        list(train(lease_in(tmp_path, recipe=wild), digits, device=CPU))


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 truncated"])
def test_a_checkpoint_that_cannot_be_read_is_named(digits: Dataset, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "epoch-0001.pt").write_bytes(content)
    with pytest.raises(TrainingError, match="checkpoint: must be readable, got .*epoch-0001.pt"):
        next(train(lease_in(tmp_path, checkpoint="epoch-0001.pt"), digits, device=CPU))


class _Touches:
    """An object that creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def test_code_in_a_checkpoint_is_not_run(digits: Dataset, tmp_path: Path) -> None:
    torch.save({"epoch": 1, "model": _Touches(tmp_path / "was_run")}, tmp_path / "epoch-0001.pt")
    with pytest.raises(TrainingError, match="checkpoint: must be readable"):
        next(train(lease_in(tmp_path, checkpoint="epoch-0001.pt"), digits, device=CPU))
    assert not (tmp_path / "was_run").exists()


def test_a_checkpoint_of_another_architecture_is_refused(digits: Dataset, tmp_path: Path) -> None:
    first = next(train(lease_in(tmp_path), digits, device=CPU))
    deeper = small_model().model_copy(update={"stages": small_model().stages[:1]})
    with pytest.raises(TrainingError, match="checkpoint: must be readable"):
        next(train(lease_in(tmp_path, architecture=deeper, checkpoint=first.checkpoint), digits, device=CPU))


def test_the_peak_learning_rate_grows_with_the_batch() -> None:
    recipe = Recipe(batch_size=1024, lr_per_1024=1e-3)
    assert recipe.peak_lr == 1e-3
    assert recipe.model_copy(update={"batch_size": 256}).peak_lr == 2.5e-4


def test_a_warm_up_as_long_as_training_is_refused() -> None:
    with pytest.raises(ValueError, match="warmup_epochs: must be less than epochs 2, got 2"):
        Recipe(epochs=2, warmup_epochs=2)


def test_bfloat16_trains_where_it_is_asked_for(digits: Dataset, tmp_path: Path) -> None:
    recipe = RECIPE.model_copy(update={"precision": "bfloat16"})
    full = next(train(lease_in(tmp_path / "32"), digits, device=CPU))
    half = next(train(lease_in(tmp_path / "16", recipe=recipe), digits, device=CPU))
    assert half.train_loss != full.train_loss
    assert half.train_loss == pytest.approx(full.train_loss, rel=0.02)


def test_gradients_are_clipped_where_the_recipe_says_so(digits: Dataset, tmp_path: Path) -> None:
    clipped = RECIPE.model_copy(update={"clip_grad": 1e-3})
    free = next(train(lease_in(tmp_path / "free"), digits, device=CPU))
    held = next(train(lease_in(tmp_path / "held", recipe=clipped), digits, device=CPU))
    assert free.train_loss != held.train_loss


@pytest.mark.parametrize("num_chunks", [2, 4, 64])
def test_a_batch_in_parts_has_the_loss_and_gradients_of_the_whole(digits: Dataset, num_chunks: int) -> None:
    """Without batch norm and drop path, the parts add up to the closed form of the whole."""
    arch = poolformer().model_copy(update={"drop_path": 0.0})
    seed_everything(0, epoch=0)
    model = build(arch)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    batch = next(digits.train_batches(RECIPE, epoch=0, seed=0, device=CPU))
    found = []
    for number in (1, num_chunks):
        loss = _train_step(model, batch, optimizer, RECIPE, Chunks(number))
        found.append([loss, *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
    expected = torch.nn.functional.cross_entropy(model(batch.x_BCHW), batch.y, label_smoothing=RECIPE.label_smoothing)
    torch.testing.assert_close(found[0][0], expected.detach())
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is visible")
def test_a_batch_that_does_not_fit_into_a_gpu_is_cut_into_parts(digits: Dataset, tmp_path: Path) -> None:
    device = torch.device("cuda")
    torch.cuda.set_per_process_memory_fraction(256 * 2**20 / torch.cuda.get_device_properties(device).total_memory)
    try:
        wide = poolformer().model_copy(update={"drop_path": 0.0})
        lease = lease_in(tmp_path, architecture=wide, recipe=RECIPE.model_copy(update={"batch_size": 1024}))
        assert len(list(train(lease, digits, device=device))) == 3
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_speed_is_measured_in_positive_seconds_per_image(digits: Dataset) -> None:
    assert 0 < measure_seconds_per_image(small_model(), RECIPE, digits, device=CPU) < 1


def test_seeding_depends_on_the_seed_and_the_epoch() -> None:
    draws = set()
    for seed, epoch in [(0, 1), (0, 2), (1, 1), (-1, 1)]:
        seed_everything(seed, epoch=epoch)
        draws.add(float(torch.rand(())))
    assert len(draws) == 4


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is visible")
def test_training_on_a_gpu_learns_too(digits: Dataset, tmp_path: Path) -> None:
    reports = list(train(lease_in(tmp_path, architecture=poolformer()), digits, device=torch.device("cuda")))
    assert reports[-1].val_accuracy > 0.6


def test_an_augmentation_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="less than or equal to 1"):
        Augmentation(flip=1.5)
