"""Training that begins with weights instead of random ones."""

from pathlib import Path

import pytest
import torch

from metaformer import Architecture, build, load
from metaformer.errors import CheckpointError
from metaformer.specs import AttentionSpec, Head, Stage, Stem
from nas.study.lease import Lease, Start
from nas.study.recipe import Recipe
from nas.training.checkpoints import CheckpointFolder
from nas.training.state import resume

CPU = torch.device("cpu")
RECIPE = Recipe(epochs=2, warmup_epochs=0, batch_size=8, ema_decay=0.9)


def architecture(*, resolution: int = 16, num_classes: int = 10) -> Architecture:
    stage = Stage(depth=1, width=32, mixer=AttentionSpec(head_size=16), position_embedding="learned", class_token=True)
    stem = Stem(kernel=4, stride=4, padding=0)
    return Architecture(resolution=resolution, stem=stem, stages=(stage,), head=Head(num_classes=num_classes))


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Those of a model of 10 classes at 16 pixels."""
    torch.manual_seed(7)
    path = tmp_path / "weights.pt"
    torch.save(build(architecture()).state_dict(), path)
    return path


def begun(tmp_path: Path, arch: Architecture, start: Start | None) -> dict[str, torch.Tensor]:
    """The weights with which a training begins."""
    lease = Lease(
        trial=0,
        attempt=1,
        architecture=arch,
        recipe=RECIPE,
        epochs=2,
        seed=0,
        folder=str(tmp_path / "out"),
        start=start,
    )
    state = resume(lease, CheckpointFolder(lease.folder), CPU)
    assert state.ema is not None
    averages = state.ema.module.state_dict()
    assert all(torch.equal(averages[name], tensor) for name, tensor in state.model.state_dict().items())
    return state.model.state_dict()


def test_it_begins_with_the_weights_of_the_file(weights: Path, tmp_path: Path) -> None:
    found = begun(tmp_path, architecture(), Start(file=str(weights), num_classes=10))
    expected = torch.load(weights, weights_only=True)
    assert all(torch.equal(found[name], expected[name]) for name in found | expected)


def test_at_another_resolution_positions_are_resampled_and_nothing_else_differs(weights: Path, tmp_path: Path) -> None:
    larger = architecture(resolution=24)
    found = begun(tmp_path, larger, Start(file=str(weights), num_classes=10))
    expected = load(larger, weights, resample_positions=True).state_dict()
    before = torch.load(weights, weights_only=True)
    assert all(torch.equal(found[name], expected[name]) for name in found | expected)
    assert len([name for name in found if found[name].shape != before[name].shape]) == 1


def test_of_other_classes_the_classifier_alone_begins_at_random(weights: Path, tmp_path: Path) -> None:
    arch = architecture(num_classes=3)
    found, scratch = begun(tmp_path, arch, Start(file=str(weights), num_classes=10)), begun(tmp_path, arch, None)
    before = torch.load(weights, weights_only=True)
    classifier = {name for name in found if found[name].shape != before[name].shape}
    assert {found[name].shape[0] for name in classifier} == {3}
    assert all(torch.equal(found[name], scratch[name]) for name in classifier)
    assert all(torch.equal(found[name], before[name]) for name in set(found) - classifier)


def test_weights_that_do_not_fit_are_refused(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"weights\.pt"):
        begun(tmp_path, architecture(num_classes=3), Start(file=str(weights), num_classes=3))
