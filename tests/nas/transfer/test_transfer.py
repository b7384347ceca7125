"""The program: what it learns of shapes, what it leaves, and how it goes on."""

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from metaformer import build
from metaformer.errors import UserError
from nas.transfer import transfer
from nas.transfer.asked import find_data
from nas.transfer.loop import Job, train
from tests.nas.transfer.shapes import tiny_pyramid, write_ade, write_coco

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools 2.0.11
RECIPE = """\
task: {task}
steps: {steps}
evaluations: 3
batch_size: 4
lr: {lr}
schedule: poly
warmup_steps: 5
clip_grad: 5.0
size: {size}
max_size: 256
channels: {channels}
precision: float32
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("transfer")
    (root / "arch.yaml").write_text(tiny_pyramid().to_yaml(), encoding="utf-8")
    write_coco(root / "coco")
    write_ade(root / "ade")
    return root


def run(
    place: Path,
    task: str,
    out: Path,
    *,
    steps: int,
    size: int,
    channels: int = 32,
    lr: float = 1e-3,
    **options: Any,
) -> None:
    text = RECIPE.format(task=task, steps=steps, size=size, channels=channels, lr=lr)
    (place / f"{task}.yaml").write_text(text, encoding="utf-8")
    data = f"ade:{place / 'ade'}" if task == "semantic_fpn" else f"coco:{place / 'coco'}"
    recipe = str(place / f"{task}.yaml")
    transfer(str(place / "arch.yaml"), task, data, out, recipe=recipe, device="cpu", **options)


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("task", "metrics", "options"),
    [
        pytest.param("retinanet", ("box_AP",), {"steps": 60, "size": 128, "channels": 64}, marks=SLOW),
        pytest.param(
            "mask_rcnn", ("box_AP", "mask_AP"), {"steps": 36, "size": 96, "batch_size": 2, "lr": 2e-3}, marks=SLOW
        ),
        ("semantic_fpn", ("mIoU",), {"steps": 90, "size": 64, "channels": 64, "lr": 2e-3}),
    ],
)
def test_it_learns_what_shapes_are(
    task: str, metrics: tuple[str, ...], options: Any, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = options["steps"]
    run(place, task, place / task, **options)
    out, errors = capsys.readouterr()
    assert "PoolFormer-S12" in out
    assert f"step {steps}: loss " in errors
    curve = json.loads((place / task / "transfer.json").read_text(encoding="utf-8"))["curve"]
    losses = [point["train_loss"] for point in curve]
    assert losses[2] < losses[1] < losses[0]
    for metric in metrics:
        assert curve[-1]["metrics"][metric] > max(20, curve[0]["metrics"][metric] + 10)


def test_it_goes_on_to_the_same_weights(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Broken off within the second of three parts, after a checkpoint."""
    options: Any = {"steps": 9, "size": 32, "channels": 16}
    run(place, "semantic_fpn", tmp_path / "whole", **options, checkpoint_every="never")

    class Killed(BaseException):
        pass

    def cut(job: Job, **given: Any) -> object:
        times = itertools.count(step=1000)  # a checkpoint is due at each step

        def clock() -> float:
            if job.files.has("epoch-0001-step-0000002.pt"):
                raise Killed
            return next(times)

        return train(job, **given, clock=clock)

    with monkeypatch.context() as patch:
        patch.setattr("nas.transfer.loop.train", cut)
        with pytest.raises(Killed):
            run(place, "semantic_fpn", tmp_path / "cut", **options)
    capsys.readouterr()
    (tmp_path / "cut" / "epoch-0001-step-0000003.pt.1.part").write_bytes(b"of a killed writer")
    run(place, "semantic_fpn", tmp_path / "cut", **options, as_json=True)
    record = json.loads(capsys.readouterr().out)
    records = [json.loads((tmp_path / out / "transfer.json").read_text("utf-8")) for out in ("whole", "cut")]
    assert records[1] == record
    assert [point["step"] for point in record["curve"]] == [3, 6, 9]
    points = [[(point["train_loss"], point["metrics"]) for point in found["curve"]] for found in records]
    assert points[0] == points[1]
    states = [torch.load(tmp_path / out / "weights.pt", weights_only=True)["model"] for out in ("whole", "cut")]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0] | states[1])
    assert {path.name for path in (tmp_path / "cut").iterdir()} >= {"transfer.json", "curve.csv", "weights.pt"}
    assert not list((tmp_path / "cut").glob("epoch-*"))
    lines = (tmp_path / "cut" / "curve.csv").read_text("utf-8").splitlines()
    assert lines[0] == "step,train_loss,images_per_s,waiting,peak_mib,seconds,mIoU,pixel_accuracy"
    with pytest.raises(UserError, match=r"^out: must be a new folder or one .* with another seed$"):
        run(place, "semantic_fpn", tmp_path / "cut", **options, seed=1)


def test_it_begins_with_the_weights_of_a_backbone(place: Path, tmp_path: Path) -> None:
    model = build(tiny_pyramid())
    torch.save({"model": model.state_dict()}, tmp_path / "weights.pt")
    seen: list[dict[str, torch.Tensor]] = []
    begin = Job.begin

    def noting(job: Job) -> torch.nn.Module:
        made = begin(job)
        seen.append(
            {name: value.clone() for name, value in made.get_submodule("pyramid.trunk.stages").state_dict().items()}
        )
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Job, "begin", noting)
        start = str(tmp_path / "weights.pt")
        run(place, "semantic_fpn", tmp_path / "out", steps=1, size=32, channels=16, from_=start)
    expected = model.stages.state_dict()
    assert seen[0].keys() == expected.keys()
    assert all(torch.equal(seen[0][name], expected[name]) for name in expected)


def test_what_needs_pycocotools_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(
        UserError, match=r"^task: needs pycocotools, not installed here; pip install 'metaformer-nas\[transfer\]'$"
    ):
        find_data("retinanet", "coco:x")
    assert find_data("semantic_fpn", "ade:x") == Path("x")
