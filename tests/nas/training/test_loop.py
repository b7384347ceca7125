"""The training loop on the digits themselves."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import torch

from metaformer import Architecture, build, load
from metaformer.architecture import Architecture as ArchitectureType
from metaformer.specs import AttentionSpec, Norm, PoolSpec, Stage, Stem
from nas.data import Batch, Dataset, default_recipe, open_dataset
from nas.make_study import make_study as make_default_study
from nas.results.baselines import simple_classifiers
from nas.study.lease import BEST, WEIGHTS, Lease, Metrics, Report
from nas.study.recipe import Augmentation, Recipe
from nas.study.request import Request
from nas.training.checkpoints import CheckpointFolder, StorageError
from nas.training.errors import TrainingError
from nas.training.loop import evaluate, measure_accuracy, measure_training, train
from nas.training.state import find_best, seed_everything
from nas.training.steps import Chunks, Stepper
from tests.nas.programs import ROOT
from tests.nas.runs import make_study

CPU = torch.device("cpu")
RECIPE = default_recipe("digits").model_copy(
    update={"epochs": 3, "batch_size": 64, "warmup_epochs": 1, "lr_per_1024": 0.1}
)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    torch.set_num_threads(1)
    return open_dataset("digits", resolution=16)


@pytest.fixture(scope="module")
def tiny(digits: Dataset) -> Dataset:
    """The same digits at their own size, of which a core trains an epoch in a moment."""
    return open_dataset("digits", resolution=8)


def small_model(*, drop_path: float = 0.1, resolution: int = 16) -> ArchitectureType:
    """A pooling stage below an attention stage, with what makes training random: drop path."""
    stages = (
        Stage(depth=1, width=32, mixer=PoolSpec(), norm=Norm(kind="batch_norm")),
        Stage(depth=2, width=32, mixer=AttentionSpec(head_size=8), position_embedding=True),
    )
    return Architecture.model_validate(
        {
            "resolution": resolution,
            "stem": Stem(kernel=4, stride=4, padding=0),
            "stages": stages,
            "head": {"num_classes": 10},
            "drop_path": drop_path,
        }
    )


def poolformer() -> ArchitectureType:
    """The pattern of PoolFormer-S12, slim enough for a core."""
    study = make_study()
    settings = study.settings.model_copy(update={"resolution": 16})
    return study.model_copy(update={"settings": settings}).make_space().references()["poolformer_s12"]


def lease_in(folder: Path | str, **changes: Any) -> Lease:
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


def tiny_lease(folder: Path | str, **changes: Any) -> Lease:
    return lease_in(folder, **{"architecture": small_model(resolution=8), **changes})


@pytest.mark.slow
def test_a_few_epochs_learn_far_more_than_chance(digits: Dataset, tmp_path: Path) -> None:
    reports = list(train(lease_in(tmp_path, architecture=poolformer()), digits, device=CPU))
    assert [report.epoch for report in reports] == [1, 2, 3]
    assert reports[-1].train_loss < reports[0].train_loss
    assert reports[-1].val_accuracy > 0.6  # chance is 0.1


@pytest.mark.slow
def test_the_digits_own_recipe_brings_a_small_network_near_the_nearest_neighbour(tmp_path: Path) -> None:
    """A hand-designed pattern of the default space, against the classifier that the report prints beside it."""
    digits = open_dataset("digits", resolution=16)
    study = make_default_study(Request(budget="6cpu-minutes"), {}, digits.info)
    arch = study.make_space().references()["metaformer_dwconv_s12"]
    lease = lease_in(tmp_path, architecture=arch, recipe=study.recipe, epochs=study.recipe.epochs)
    *_, last = train(lease, digits, device=CPU)
    neighbour, _test = simple_classifiers(digits, study.recipe)["1-nearest neighbour"]
    assert last.val_accuracy > neighbour - 0.015


def test_the_same_lease_gives_the_same_reports_and_another_seed_gives_others(digits: Dataset, tmp_path: Path) -> None:
    first = list(train(lease_in(tmp_path / "1"), digits, device=CPU))
    torch.rand(17)
    again = list(train(lease_in(tmp_path / "2"), digits, device=CPU))
    other = list(train(lease_in(tmp_path / "3", seed=1), digits, device=CPU))
    assert first == again
    assert [r.train_loss for r in first] != [r.train_loss for r in other]


@pytest.mark.slow
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


def test_the_weights_of_the_best_epoch_are_kept_where_that_is_asked_for(tiny: Dataset, tmp_path: Path) -> None:
    lease = tiny_lease(tmp_path, keep_best=True)
    reports = list(train(lease, tiny, device=CPU))
    accuracy, epoch = max((report.val_accuracy, report.epoch) for report in reports)
    assert find_best(CheckpointFolder(lease.folder)) == (epoch, accuracy)
    kept = lease.model_copy(update={"checkpoint": BEST})
    assert measure_accuracy(kept, tiny, split="val", device=CPU).top1 == accuracy


@pytest.mark.parametrize(("noted", "is_kept"), [(1.0, True), (0.0, False)])
def test_a_lease_that_goes_on_keeps_a_best_epoch_from_before_it(
    tiny: Dataset, tmp_path: Path, noted: float, is_kept: bool
) -> None:
    broken = train(tiny_lease(tmp_path, keep_best=True), tiny, device=CPU)
    first = next(broken)
    broken.close()
    torch.save(_state(tmp_path / BEST) | {"val_accuracy": noted}, tmp_path / BEST)
    list(train(tiny_lease(tmp_path, keep_best=True, attempt=2, checkpoint=first.checkpoint), tiny, device=CPU))
    best = find_best(CheckpointFolder(str(tmp_path)))
    assert best is not None
    assert (best == (1, noted)) == is_kept


def test_metrics_are_told_before_each_report_and_are_sane(tiny: Dataset, tmp_path: Path) -> None:
    told: list[Metrics] = []
    for report in train(tiny_lease(tmp_path), tiny, device=CPU, on_metrics=told.append):
        assert told[-1].epoch == report.epoch == len(told)
        assert report.val_accuracy <= float(told[-1].val_top5 or 0) <= 1
        assert 0 <= told[-1].waiting <= 1
        assert told[-1].images_per_s > 0
        assert told[-1].peak_mib is None


def test_top_5_is_the_share_of_images_whose_class_fewer_than_five_beat(tiny: Dataset, tmp_path: Path) -> None:
    """It is counted again by hand, from the weights on disk."""
    told: list[Metrics] = []
    lease = tiny_lease(tmp_path)
    list(train(lease, tiny, device=CPU, on_metrics=told.append))
    model = load(lease.architecture, tmp_path / WEIGHTS).eval()
    hits = []
    with torch.inference_mode():
        for x_BCHW, y in tiny.eval_batches("val", RECIPE, device=CPU):
            for logits_K, label in zip(model(x_BCHW), y, strict=True):
                hits.append(int((logits_K > logits_K[label]).sum()) < 5)
    assert told[-1].val_top5 == pytest.approx(sum(hits) / len(hits))
    assert 0.5 < sum(hits) / len(hits) < 1


def test_a_loss_that_is_not_finite_ends_training_with_a_reason(digits: Dataset, tmp_path: Path) -> None:
    wild = RECIPE.model_copy(update={"lr_per_1024": 1e30, "warmup_epochs": 0})
    with pytest.raises(TrainingError, match="loss: must stay finite, got (nan|inf)"):
        list(train(lease_in(tmp_path, recipe=wild), digits, device=CPU))


def test_outputs_that_are_not_finite_after_the_last_step_end_training_with_a_reason(
    digits: Dataset, tmp_path: Path
) -> None:
    """One step: its loss is that of the first weights, and fine."""
    wild = RECIPE.model_copy(update={"lr_per_1024": 1e30, "warmup_epochs": 0, "epochs": 1, "batch_size": 2000})
    with pytest.raises(TrainingError, match="outputs: must stay finite"):
        list(train(lease_in(tmp_path, recipe=wild, epochs=1), digits, device=CPU))


class _Touches:
    """An object that creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def lace(path: Path) -> None:
    """The file is replaced by one that carries code."""
    torch.save(_state(path) | {"model": _Touches(path.with_name("was_run"))}, path)


def swap(path: Path) -> None:
    """The file is replaced by that of another architecture with the same shapes."""
    torch.save(_state(path) | {"digest": poolformer().digest}, path)


def shift(path: Path) -> None:
    """The file is replaced by that of another epoch."""
    torch.save(_state(path) | {"epoch": 1}, path)


def strip(path: Path) -> None:
    """The file is replaced by one without weights."""
    state = _state(path)
    del state["model"]
    torch.save(state, path)


def reshape(path: Path) -> None:
    """The file is replaced by one with a tensor of another shape."""
    state = _state(path)
    weights = state["model"]
    assert isinstance(weights, dict)
    name = next(iter(weights))
    torch.save(state | {"model": {**weights, name: torch.zeros(3)}}, path)


def _state(path: Path) -> dict[str, object]:
    state: dict[str, object] = torch.load(path, weights_only=True)
    return state


@pytest.fixture(scope="module")
def whole(tiny: Dataset, tmp_path_factory: pytest.TempPathFactory) -> list[Report]:
    """What a lease gives that nobody disturbs."""
    return list(train(tiny_lease(tmp_path_factory.mktemp("whole")), tiny, device=CPU))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (truncate, "not a zip file"),
        (lace, "it holds more than weights, such as code, none of which was run"),
        (Path.unlink, "No such file"),
    ],
)
def test_training_goes_on_from_the_checkpoint_before_one_that_cannot_be_read(
    tiny: Dataset, whole: list[Report], tmp_path: Path, damage: Callable[[Path], None], reason: str
) -> None:
    before = list(train(tiny_lease(tmp_path, epochs=2), tiny, device=CPU))
    damage(tmp_path / before[-1].checkpoint)
    resumed = tiny_lease(tmp_path, attempt=2, checkpoint=before[-1].checkpoint)
    first, *rest = train(resumed, tiny, device=CPU)
    assert first.note is not None
    assert first.note.startswith("checkpoint epoch-0002.pt could not be read (")
    assert reason in first.note
    assert first.note.endswith("); went on from epoch-0001.pt")
    assert [first.model_copy(update={"note": None}), *rest] == whole[1:]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch-0002.pt", WEIGHTS]  # and no code was run


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (swap, r"^checkpoint: must be of architecture \w+, got .*epoch-0002.pt of \w+$"),
        (shift, r"^checkpoint: must be of the epoch in its name, got .*epoch-0002.pt of epoch 1$"),
        (strip, r"^checkpoint: must hold digest, epoch, model, optimizer, version, got .*epoch-0002.pt without them$"),
        (reshape, r"^checkpoint: must fit the model, got .*epoch-0002.pt \(.*size mismatch.*\)$"),
    ],
)
def test_a_whole_checkpoint_of_something_else_is_an_error_and_nothing_is_trained_again(
    tiny: Dataset, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    before = list(train(tiny_lease(tmp_path, epochs=2), tiny, device=CPU))
    damage(tmp_path / before[-1].checkpoint)
    resumed = tiny_lease(tmp_path, attempt=2, checkpoint=before[-1].checkpoint)
    with pytest.raises(TrainingError, match=message):
        next(train(resumed, tiny, device=CPU))


def test_training_begins_again_where_no_checkpoint_can_be_read(
    tiny: Dataset, whole: list[Report], tmp_path: Path
) -> None:
    list(train(tiny_lease(tmp_path, epochs=2), tiny, device=CPU))
    for path in tmp_path.iterdir():
        truncate(path)
    resumed = tiny_lease(tmp_path, attempt=2, checkpoint="epoch-0002.pt")
    first, *rest = train(resumed, tiny, device=CPU)
    assert re.fullmatch(
        r"checkpoint epoch-0002.pt could not be read \(.*\); "
        r"checkpoint epoch-0001.pt could not be read \(.*\); began again",
        first.note or "",
    )
    assert [first.model_copy(update={"note": None}), *rest] == whole


def test_checkpoints_at_a_uri_are_as_good_as_those_in_a_folder(tiny: Dataset, whole: list[Report]) -> None:
    place = f"memory://{uuid4().hex}/00000"
    before = list(train(tiny_lease(place, epochs=2), tiny, device=CPU))
    resumed = tiny_lease(place, attempt=2, checkpoint=before[-1].checkpoint)
    assert [*before, *train(resumed, tiny, device=CPU)] == whole
    tested = tiny_lease(place, task="test", checkpoint=WEIGHTS)
    assert 0 < evaluate(tested, tiny, device=CPU) < 1


def test_weights_that_cannot_be_read_cannot_be_tested(tiny: Dataset, tmp_path: Path) -> None:
    (tmp_path / WEIGHTS).write_bytes(b"no weights")
    with pytest.raises(TrainingError, match="checkpoint: must be readable, got .*weights.pt (.*zip file)"):
        evaluate(tiny_lease(tmp_path, task="test", checkpoint=WEIGHTS), tiny, device=CPU)


def test_a_full_disk_ends_training_and_it_goes_on_where_there_is_room(
    tiny: Dataset, whole: list[Report], small_disk: Path
) -> None:
    ballast = small_disk / "ballast"
    training = train(tiny_lease(small_disk / "00000"), tiny, device=CPU)
    reports = [next(training)]
    with pytest.raises(OSError, match="No space left"):
        ballast.write_bytes(bytes(2**21))
    with pytest.raises(StorageError, match="checkpoints: must be writable and have room, got .*No space left"):
        next(training)
    assert [path.name for path in (small_disk / "00000").iterdir()] == ["epoch-0001.pt"]
    ballast.unlink()
    resumed = tiny_lease(small_disk / "00000", attempt=2, checkpoint=reports[0].checkpoint)
    assert [*reports, *train(resumed, tiny, device=CPU)] == whole


_LITTLE_MEMORY = """
import resource, sys
from pathlib import Path
import torch
from nas.data import open_dataset
from nas.training.loop import train
from nas.training.errors import TrainingError
from tests.nas.training.test_loop import CPU, RECIPE, lease_in, small_model, tiny_lease

torch.set_num_threads(1)
tiny, digits = (open_dataset("digits", resolution=side) for side in (8, 32))
list(train(tiny_lease(Path(sys.argv[1]), epochs=1), tiny, device=CPU))
large = RECIPE.model_copy(update={"batch_size": 1077})
lease = lease_in(Path(sys.argv[1]), architecture=small_model(resolution=32), recipe=large, epochs=1)
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
for megabytes in (0, 400):
    resource.setrlimit(resource.RLIMIT_AS, (used + megabytes * 2**20, resource.RLIM_INFINITY))
    try:
        print(next(train(lease, digits, device=CPU)).epoch)
    except TrainingError as error:
        print(error)
"""


@pytest.mark.slow
def test_without_memory_of_the_machine_a_trial_fails_with_a_reason_and_with_little_its_batches_are_cut(
    tmp_path: Path,
) -> None:
    """In 400 MB more than small images take, a large one does not fit, but parts of it do."""
    command = [sys.executable, "-c", _LITTLE_MEMORY, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith("memory: must hold the model and one image of a training step, got too little for it")
    assert second == "1"


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
        loss = Stepper(model, optimizer, RECIPE, Chunks(number))(batch)
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


@pytest.mark.slow
def test_training_is_measured_in_positive_seconds_per_image_and_bytes() -> None:
    digits = open_dataset("digits", resolution=32)
    large = RECIPE.model_copy(update={"batch_size": 1024})  # whose activations no earlier test has left room for
    measured = measure_training(small_model(resolution=32), large, digits, device=CPU)
    assert 0 < measured.seconds_per_image < 1
    assert measured.peak_bytes > 1024 * 3 * 32 * 32 * 4  # the images alone


@pytest.mark.slow
def test_a_model_whose_whole_step_no_machine_would_hold_is_measured_with_a_few_images() -> None:
    digits = open_dataset("digits", resolution=32)
    stage = Stage(depth=12, width=128, mixer=PoolSpec())
    large = small_model(resolution=32).model_copy(
        update={"stem": Stem(kernel=1, stride=1, padding=0), "stages": (stage,)}
    )
    measured = measure_training(large, RECIPE.model_copy(update={"batch_size": 1024}), digits, device=CPU)
    assert measured.peak_bytes > os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


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


# CUDA graphs


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is visible")
@pytest.mark.parametrize("mixup", [0.0, 0.8])
def test_a_step_in_a_cuda_graph_does_what_it_does_without(mixup: float) -> None:
    """Also with a learning rate that changes, clipping, and drop path, whose draws are the same."""
    gpu = torch.device("cuda")
    recipe = RECIPE.model_copy(update={"clip_grad": 1.0, "precision": "float32"})
    losses: dict[bool, list[float]] = {}
    for captures in (False, True):
        seed_everything(0, epoch=0)
        model = build(small_model(resolution=32)).to(gpu)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True, capturable=True)
        step = Stepper(model, optimizer, recipe, Chunks())
        step._may_capture = captures
        draw = torch.Generator(gpu).manual_seed(1)
        losses[captures] = []
        for number in range(8):
            x_BCHW = torch.randn(16, 3, 32, 32, generator=draw, device=gpu).to(memory_format=torch.channels_last)
            y = torch.randint(10, (16,), generator=draw, device=gpu)
            y = torch.nn.functional.one_hot(y, 10) * (1 - mixup) + mixup / 10 if mixup else y
            optimizer.param_groups[0]["lr"] = 1e-3 * (number + 1)
            losses[captures].append(float(step(Batch(x_BCHW, y))))
        assert (step._graph is not None) == captures
        assert step.note is None
    assert losses[True] == pytest.approx(losses[False], rel=1e-4)
