"""Weights that a training left, evaluated by the program."""

import json
import shutil
from pathlib import Path

import pytest

from metaformer import Architecture
from metaformer.errors import UserError
from metaformer.specs import PoolSpec, Stage, Stem
from nas.evaluate import evaluate
from nas.train import train


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with arch.yaml, weights.pt and train.json."""
    out = tmp_path_factory.mktemp("trained")
    stage = Stage(depth=1, width=16, mixer=PoolSpec())
    arch = Architecture(resolution=16, stem=Stem(kernel=3, stride=2, padding=1), stages=(stage,))
    (out / "arch.yaml").write_text(arch.to_yaml(), encoding="utf-8")
    train(str(out / "arch.yaml"), out, "digits", epochs=2, set_=["recipe.precision=float32"])
    return out


def test_it_finds_the_accuracies_that_the_training_noted(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = json.loads((trained / "train.json").read_text(encoding="utf-8"))
    expected = {"test": record["test_accuracy"], "val": record["curve"][-1]["val_accuracy"]}
    for split, accuracy in expected.items():
        evaluate(trained / "weights.pt", str(trained / "arch.yaml"), "digits", split=split, as_json=True)
        found = json.loads(capsys.readouterr().out)
        assert found["top1"] == accuracy
        assert found["top1_low"] < accuracy < found["top1_high"]
        assert found["top1"] <= found["top5"] <= 1
        assert found["num_images"] == 359
    evaluate(trained / "weights.pt", str(trained / "arch.yaml"), "digits")
    assert f"top-1 {100 * expected['test']:.2f} %" in capsys.readouterr().out


def test_a_copy_of_another_name_is_the_same(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = shutil.copy(trained / "weights.pt", tmp_path / "best of all.pt")
    evaluate(copy, str(trained / "arch.yaml"), "digits", as_json=True)
    record = json.loads((trained / "train.json").read_text(encoding="utf-8"))
    assert json.loads(capsys.readouterr().out)["top1"] == record["test_accuracy"]


def test_weights_of_another_architecture_or_no_weights_are_refused(trained: Path, tmp_path: Path) -> None:
    text = (trained / "arch.yaml").read_text(encoding="utf-8")
    other = tmp_path / "other.yaml"
    other.write_text(text.replace("width: 16", "width: 32"), encoding="utf-8")
    with pytest.raises(UserError, match=r"^checkpoint: must be of architecture "):
        evaluate(trained / "weights.pt", str(other), "digits")
    (tmp_path / "cut.pt").write_bytes((trained / "weights.pt").read_bytes()[:5000])
    with pytest.raises(UserError, match=r"^checkpoint: must be readable"):
        evaluate(tmp_path / "cut.pt", str(trained / "arch.yaml"), "digits")
    with pytest.raises(UserError, match=r"^checkpoint: must be a file that exists"):
        evaluate(tmp_path / "none.pt", str(trained / "arch.yaml"), "digits")
