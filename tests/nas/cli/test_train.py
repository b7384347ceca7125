"""One architecture, trained by `nas.train`."""

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from metaformer import Architecture
from metaformer.errors import UserError
from metaformer.specs import PoolSpec, Stage, Stem
from nas.evaluate import evaluate
from nas.train import train
from tests.nas.programs import ROOT


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    arch = Architecture(
        resolution=16,
        stem=Stem(kernel=3, stride=2, padding=1),
        stages=(Stage(depth=2, width=16, mixer=PoolSpec()),),
        drop_path=0.1,
    )
    path = tmp_path_factory.mktemp("models") / "small.yaml"
    path.write_text(arch.to_yaml(), encoding="utf-8")
    return path


def test_it_notes_each_epoch_and_the_test_and_has_nothing_to_do_a_second_time(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "run"
    train(str(small), out, "digits", epochs=2, seed=3)
    printed = capsys.readouterr().out
    record = json.loads((out / "train.json").read_text(encoding="utf-8"))
    assert [point["epoch"] for point in record["curve"]] == [1, 2]
    for point in record["curve"]:
        assert point["val_accuracy"] <= point["val_top5"] <= 1
        assert 0 <= point["waiting"] <= 1
        assert point["images_per_s"] > 0
    with (out / "curve.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(int(row["epoch"]), float(row["val_top5"])) for row in rows] == [
        (point["epoch"], point["val_top5"]) for point in record["curve"]
    ]
    assert record["seed"] == 3
    assert 0.1 < record["test_accuracy"] < 1
    assert f"test {100 * record['test_accuracy']:.2f} %" in printed
    best = max(record["curve"], key=lambda point: (point["val_accuracy"], point["epoch"]))
    assert (record["best"]["epoch"], record["best"]["val_accuracy"]) == (best["epoch"], best["val_accuracy"])
    assert 0.1 < record["best"]["test_accuracy"] < 1
    before = (out / "weights.pt").stat().st_mtime_ns
    train(str(small), out, "digits", epochs=2, seed=3, as_json=True)
    assert json.loads(capsys.readouterr().out) == record
    assert (out / "weights.pt").stat().st_mtime_ns == before


def test_it_and_evaluate_take_data_recipe_and_split_from_a_team_but_no_proxy(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    team = "data: digits\nrecipe: digits\nsplit_seed: 4\nimages_per_class: 20\nepochs: 7\n"
    Path("nas.yaml").write_text(team, encoding="utf-8")
    train(str(small), Path("out"), epochs=1, as_json=True, set_=["recipe.precision=float32"])  # as evaluate has it
    said = capsys.readouterr()
    record = json.loads(said.out)
    assert said.err.startswith("nas.yaml: data digits, recipe digits, split_seed 4\n")
    assert (record["data"], record["splitting"]) == ("digits", {"val": 0.1, "images_per_class": None, "seed": 4})
    evaluate(Path("out/weights.pt"), str(small), split="val", as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["top1"] == pytest.approx(record["curve"][-1]["val_accuracy"], abs=1e-3)
    Path("nas.yaml").unlink()
    with pytest.raises(UserError, match=r"data: must be named, by --data or in nas\.yaml"):
        evaluate(Path("out/weights.pt"), str(small))


def test_a_tracker_is_told_each_epoch(small: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = tmp_path / "run"
    train(str(small), out, "digits", epochs=2, tracker="tensorboard")
    events = EventAccumulator(str(out / "tensorboard" / "run")).Reload()
    curve = json.loads((out / "train.json").read_text(encoding="utf-8"))["curve"]
    for name in ("val_accuracy", "train_loss", "val_top5", "images_per_s", "waiting", "seconds"):
        read = [(event.step, event.value) for event in events.Scalars(name)]
        assert read == [(point["epoch"], pytest.approx(point[name])) for point in curve]
    assert "peak_mib" not in events.Tags()["scalars"]  # of a GPU alone


@pytest.mark.slow
def test_killed_it_goes_on_to_the_same_weights(small: Path, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    fixed = "recipe.precision=float32"  # what is left open is measured, and two runs may measure differently
    train(str(small), whole, "digits", epochs=5, set_=[fixed])
    command = [sys.executable, "-m", "nas.train", str(small), "--data", "digits", "--epochs", "5", "--set", fixed]
    command += ["--out", str(cut)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as program:
        while not (cut / "train.json").exists() and program.poll() is None:
            time.sleep(0.01)
        program.send_signal(signal.SIGKILL)
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    states = [torch.load(out / "weights.pt", weights_only=True)["model"] for out in (whole, cut)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0] | states[1])
    curves = [json.loads((out / "train.json").read_text(encoding="utf-8"))["curve"] for out in (whole, cut)]
    assert [
        [(point["epoch"], point["val_accuracy"], point["train_loss"]) for point in curve] for curve in curves[:1]
    ] == [[(point["epoch"], point["val_accuracy"], point["train_loss"]) for point in curve] for curve in curves[1:]]


def test_it_trains_on_a_few_images_of_each_class(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(str(small), tmp_path, "digits", epochs=1, images_per_class=7, split_seed=2, as_json=True)
    record = json.loads(capsys.readouterr().out)
    assert record["splitting"] == {"val": 0.1, "images_per_class": 7, "seed": 2}
    with pytest.raises(UserError, match=r"^out: must be a new folder or one .* with another splitting$"):
        train(str(small), tmp_path, "digits", epochs=1, images_per_class=8, split_seed=2)


def test_a_folder_of_before_splits_were_noted_goes_on(small: Path, tmp_path: Path) -> None:
    train(str(small), tmp_path, "digits", epochs=1)
    record = json.loads((tmp_path / "train.json").read_text(encoding="utf-8"))
    del record["splitting"]
    (tmp_path / "train.json").write_text(json.dumps(record), encoding="utf-8")
    train(str(small), tmp_path, "digits", epochs=1)
    with pytest.raises(UserError, match="with another splitting$"):
        train(str(small), tmp_path, "digits", epochs=1, split_seed=1)


@pytest.mark.parametrize("changed", [{"seed": 1}, {"epochs": 3}, {"data": "digits-changed"}])
def test_a_folder_of_another_training_is_refused(small: Path, tmp_path: Path, changed: dict[str, Any]) -> None:
    train(str(small), tmp_path, "digits", epochs=1)
    if "data" in changed:
        record = json.loads((tmp_path / "train.json").read_text(encoding="utf-8"))
        (tmp_path / "train.json").write_text(json.dumps(record | {"data_fingerprint": "0"}), encoding="utf-8")
        changed = {}
    with pytest.raises(
        UserError, match=r"^out: must be a new folder or one of the same training, got .* with another "
    ):
        train(str(small), tmp_path, "digits", **{"epochs": 1, **changed})


@pytest.mark.slow
def test_it_fine_tunes_from_weights_at_another_resolution(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fixed = ["recipe.precision=float32"]
    train(str(small), tmp_path / "first", "digits", epochs=24, set_=fixed)
    first = json.loads((tmp_path / "first" / "train.json").read_text(encoding="utf-8"))
    options = {"epochs": 1, "resolution": 24, "set_": [*fixed, "recipe.lr_per_1024=0.00001"]}
    weights = tmp_path / "first" / "weights.pt"
    train(str(small), tmp_path / "tuned", "digits", from_=str(weights), **options)
    train(str(small), tmp_path / "scratch", "digits", **options)
    tuned, scratch = (
        json.loads((tmp_path / name / "train.json").read_text(encoding="utf-8")) for name in ("tuned", "scratch")
    )
    assert tuned["architecture"]["resolution"] == 24
    assert tuned["from"] == str(weights)
    assert "from" not in first
    gain = tuned["curve"][0]["val_accuracy"] - scratch["curve"][0]["val_accuracy"]
    assert gain > 0.1  # at this learning rate nothing is learned in an epoch
    capsys.readouterr()
    train(str(small), tmp_path / "tuned", "digits", from_=str(weights), as_json=True, **options)
    assert json.loads(capsys.readouterr().out) == tuned
    with weights.open("ab") as file:
        file.write(b"0")
    with pytest.raises(UserError, match=r"^(out|.*weights\.pt)"):
        train(str(small), tmp_path / "tuned", "digits", from_=str(weights), **options)


def test_weights_that_do_not_fit_are_refused_before_anything_is_written(small: Path, tmp_path: Path) -> None:
    train(str(small), tmp_path / "first", "digits", epochs=1, set_=["recipe.precision=float32"])
    other = tmp_path / "other.yaml"
    other.write_text(small.read_text(encoding="utf-8").replace("width: 16", "width: 24"), encoding="utf-8")
    with pytest.raises(UserError, match=r"weights\.pt"):
        train(str(other), tmp_path / "out", "digits", from_=str(tmp_path / "first" / "weights.pt"))
    assert not (tmp_path / "out").exists()
