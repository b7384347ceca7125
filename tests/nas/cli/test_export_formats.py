"""Every format of an export: it is read again in a fresh process, gives the trial's model, and says so."""

import json
import re
import runpy
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import timm
import timm.data
import torch
from PIL import Image
from torchvision.ops import FeaturePyramidNetwork

import metaformer
from metaformer import timm_models
from metaformer.errors import ArchitectureError, CheckpointError, UserError
from nas.data import open_dataset
from nas.export import export
from nas.record.run_folder import Run
from nas.record.trials import TrialRecord
from nas.results.exports.check import check
from nas.results.exports.proof import ProofError
from nas.results.exports.reading import proof_of
from nas.results.exports.writing import KINDS
from nas.results.picks import pick_trial
from nas.study.lease import WEIGHTS
from nas.study.recipe_files import find_recipe
from tests.nas.images import write_folder
from tests.nas.runs import make_run

SIDE, CPU = 32, torch.device("cpu")
PROVED = re.compile(r"^proved in a fresh process: parameters and MACs are equal, logits within \d\.\de[-+]\d\d$", re.M)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on the digits; its best trial has weights in the form that training leaves."""
    found = open_dataset("digits", resolution=SIDE).info.fingerprint
    made = make_run(tmp_path_factory.mktemp("runs") / "exported", max_trials=8, data_fingerprint=found)
    save_weights(made, pick_trial(made, "best"))
    return made


def save_weights(run: Run, trial: TrialRecord) -> None:
    torch.manual_seed(trial.number + 1)
    model = metaformer.build(trial.architecture)
    document = {"version": 1, "digest": trial.architecture.digest, "epoch": 3, "model": model.state_dict()}
    run.folder.checkpoints_of(trial).save(WEIGHTS, partial(torch.save, document), attempt=1)


def trained(run: Run) -> metaformer.MetaFormer:
    trial = pick_trial(run, "best")
    checkpoints = run.folder.checkpoints_of(trial)
    model = metaformer.build(trial.architecture).eval()
    model.load_state_dict(torch.load(checkpoints.read(WEIGHTS), weights_only=True)["model"])
    return model


def logits(model: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["yaml", "json", "python"])
def test_a_text_with_weights_beside_it_is_proved_and_builds_the_model(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    out, weights = tmp_path / f"a{KINDS[name].suffix}", tmp_path / "below" / "w.pt"
    weights.parent.mkdir()
    export(str(run.folder.path), pick="best", out=out, file_format=name, weights=weights)
    assert PROVED.search(capsys.readouterr().out)
    model = runpy.run_path(str(out))["build"]() if name == "python" else metaformer.load(out, weights).eval()
    torch.testing.assert_close(logits(model), logits(trained(run)), rtol=0, atol=0)


def test_a_python_file_without_weights_builds_the_architecture(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "a.py"
    export(str(run.folder.path), pick="0", out=out, file_format="python", prove=False)
    assert runpy.run_path(str(out))["build"]().arch == run.record.trials[0].architecture


def test_weights_of_another_model_are_refused_and_nothing_is_written(run: Run, tmp_path: Path) -> None:
    trial = run.record.trials[0]
    other = metaformer.build("convmixer_256_8_p2_k5").state_dict()
    run.folder.checkpoints_of(trial).save(WEIGHTS, partial(torch.save, other), attempt=1)
    with pytest.raises(UserError, match=r"^weights: must be readable, got those of trial 0 \("):
        export(str(run.folder.path), pick="0", out=tmp_path / "a.yaml", weights=tmp_path / "w.pt")
    run.folder.checkpoints_of(trial).drop()
    assert not list(tmp_path.iterdir())


def test_the_card_says_what_it_costs_how_accurate_it_is_and_how_it_came_to_be(run: Run, tmp_path: Path) -> None:
    out, trial = tmp_path / "card.md", pick_trial(run, "best")
    export(str(run.folder.path), pick="best", out=out, file_format="card")
    text = out.read_text(encoding="utf-8")
    assert text.startswith("---\nlibrary_name: timm\n")
    for said in (
        f"| Stages | {trial.architecture.stages[0].depth} × ",
        f"| Parameters | {trial.params:,} |",
        f"| On val, by which it was chosen | {100 * (trial.val_accuracy or 0):.2f} % of 360 images (",
        f"| On test | {100 * (trial.test_accuracy or 0):.2f} % of 360 images (",
        "| Seed | 0 |",
        "| Recipe | 3 epochs of AdamW, batch 64,",
        "| Program | MIT, metaformer-nas |",
        "## Command",
        "python -m nas.export",
    ):
        assert said in text


@pytest.fixture(scope="module")
def timm_folder(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export that was not proved yet."""
    out = tmp_path_factory.mktemp("timm") / "exported"
    export(str(run.folder.path), pick="best", out=out, file_format="timm", prove=False)
    return out


def test_timm_opens_the_folder_with_weights_normalisation_and_class_names(run: Run, timm_folder: Path) -> None:
    model = timm.create_model(f"local-dir:{timm_folder}", pretrained=True).eval()
    torch.testing.assert_close(logits(model), logits(trained(run)), rtol=0, atol=0)
    config = timm.data.resolve_data_config(model=model)
    dataset = open_dataset("digits", resolution=SIDE)
    train = torch.cat([batch.x_BCHW for batch in dataset.eval_batches("train", find_recipe("digits"), device=CPU)])
    scans = train[:, 0] * config["std"][0] + config["mean"][0]  # back to values from 0 to 1
    assert scans.min() == pytest.approx(0, abs=1e-6)
    assert 0.9 < scans.max() < 1 + 1e-6  # enlarging mixes pixels
    assert tuple(config["input_size"]) == (3, SIDE, SIDE)
    assert (config["interpolation"], config["crop_pct"]) == ("bilinear", 1.0)
    assert model.pretrained_cfg["label_names"] == list("0123456789")
    assert timm.create_model(f"local-dir:{timm_folder}", pretrained=True, num_classes=3)(train[:2]).shape == (2, 3)
    assert {path.name for path in timm_folder.iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
        "proof.json",
    }


def test_a_timm_folder_is_proved_by_a_program_that_anybody_may_call(
    timm_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check(timm_folder)
    assert re.search(r"parameters and [\d,]+ MACs as the trial's, logits within \d\.\de", capsys.readouterr().out)


def test_an_exported_folder_is_a_backbone_with_the_trained_weights(run: Run, timm_folder: Path) -> None:
    backbone = timm.create_model(f"local-dir:{timm_folder}", pretrained=True, features_only=True).eval()
    x_BCHW = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        maps, expected = backbone(x_BCHW), trained(run).features(x_BCHW)
        pyramid = FeaturePyramidNetwork(backbone.feature_info.channels(), out_channels=8)
        merged = pyramid({str(index): x for index, x in enumerate(maps)})
    torch.testing.assert_close(maps, expected, rtol=0, atol=0)
    sides = [SIDE // stride for stride in backbone.feature_info.reduction()]
    assert [tuple(x.shape) for x in merged.values()] == [(2, 8, side, side) for side in sides]


def test_whoever_may_read_the_folder_may_read_each_file(timm_folder: Path) -> None:
    assert len({path.stat().st_mode for path in timm_folder.iterdir()}) == 1


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    match how:
        case "truncated":
            path.write_bytes(content[:-1])
        case "tampered":
            path.write_bytes(content[:-5] + bytes([content[-5] ^ 1]) + content[-4:])
        case _:
            path.unlink()


@pytest.mark.parametrize("how", ["truncated", "tampered", "missing"])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "README.md"])
def test_a_damaged_timm_folder_is_refused_in_one_line(timm_folder: Path, tmp_path: Path, name: str, how: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(timm_folder, copy)
    damage(copy / name, how)
    with pytest.raises(ProofError, match=rf"^export: must be .*{name}") as caught:
        check(copy)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("how", ["truncated", "tampered", "missing"])
def test_timm_itself_does_not_open_damaged_weights(timm_folder: Path, tmp_path: Path, how: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(timm_folder, copy)
    damage(copy / "model.safetensors", how)
    with pytest.raises(CheckpointError, match=r"^checkpoint: must be (as it was written|a file), got .*safetensors"):
        timm.create_model(f"local-dir:{copy}", pretrained=True)


def test_timm_itself_does_not_open_another_architecture(timm_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(timm_folder, copy)
    config = json.loads((copy / "config.json").read_text())
    config["model_args"]["architecture"]["stages"][0]["norm"]["eps"] *= 2  # the weights would fit all the same
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(ArchitectureError, match=r"^architecture: must have the digest '\w+' that was written with it"):
        timm.create_model(f"local-dir:{copy}")


def test_a_proof_that_another_model_wrote_is_refused(timm_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(timm_folder, copy)
    proof = json.loads((copy / "proof.json").read_text())
    changes = [
        ("params", 1, "params"),
        ("macs", 1, "macs"),
        ("logits", [[0.5] * 10] * 3, "logits"),
        ("nothing", 1, str(copy)),
    ]
    for field, value, said in changes:
        (copy / "proof.json").write_text(json.dumps(proof | {field: value}))
        with pytest.raises(ProofError, match=f"^{re.escape(said)}"):
            check(copy)


def test_force_replaces_an_earlier_export_and_no_other_folder(run: Run, tmp_path: Path) -> None:
    write = partial(export, str(run.folder.path), pick="best", file_format="timm", prove=False)
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("mine")
    with pytest.raises(UserError, match=r"^out: must be a new folder, or take --force"):
        write(out=out)
    with pytest.raises(UserError, match=r"^out: must be a new folder or an earlier export with a proof\.json"):
        write(out=out, force=True)
    assert [path.name for path in out.iterdir()] == ["mine"]
    write(out=tmp_path / "new")
    write(out=tmp_path / "new", force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "out"]


def test_without_the_data_or_the_weights_nothing_is_written(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", max_trials=2)  # of digits with another fingerprint
    save_weights(run, run.record.trials[0])
    for pick, said in (("0", "^data: must be there, .*fingerprint"), ("1", "^weights: must have been kept")):
        with pytest.raises(UserError, match=said):
            export(str(run.folder.path), pick=pick, out=tmp_path / "out", file_format="timm")
    with pytest.raises(UserError, match="^weights: must not be given with format timm, which holds them"):
        export(str(run.folder.path), pick="0", out=tmp_path / "out", file_format="timm", weights=tmp_path / "w.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("side", [16, 24])
def test_a_dataset_tells_timm_how_it_makes_its_input(tmp_path: Path, side: int) -> None:
    """timm's own transform, made of what an export would say, gives the batches that a trial is evaluated on."""
    root = write_folder(tmp_path / "f", train={"a": 6, "b": 6}, val={"a": 2, "b": 2}, suffix=".png")
    dataset, recipe = open_dataset(f"folder:{root}", resolution=side), find_recipe("poolformer")
    how = dataset.preprocessing(recipe)
    assert how is not None
    config = timm_models.timm_configuration(metaformer.zoo.get("poolformer_s12"), how)
    transform = timm.data.create_transform(**timm.data.resolve_data_config(pretrained_cfg=config))
    files = [root / "val" / name / f"{number}.png" for name in "ab" for number in range(2)]
    expected = torch.stack([transform(Image.open(file)) for file in files])
    [batch] = dataset.eval_batches("test", recipe, device=CPU)
    torch.testing.assert_close(batch.x_BCHW.contiguous(), expected, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["onnx", "torch"])
def test_a_graph_is_proved_and_takes_batches_of_any_size(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    if name == "onnx":
        pytest.importorskip("onnxscript")
    out = tmp_path / f"a{KINDS[name].suffix}"
    export(str(run.folder.path), pick="best", out=out, file_format=name)
    said = capsys.readouterr()
    assert PROVED.search(said.out)
    assert not said.err
    model = trained(run)
    for size in (1, 5):
        x_BCHW = torch.randn(size, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(size))
        with torch.no_grad():
            expected_BK, found_BK = model(x_BCHW), run_graph(out, x_BCHW)
        torch.testing.assert_close(found_BK, expected_BK, rtol=0, atol=1e-4)
    assert tell_metadata(out) == (list("0123456789"), pick_trial(run, "best").architecture.digest)
    for how in ("truncated", "tampered"):
        copy = tmp_path / how / out.name
        copy.parent.mkdir()
        for file in (out, proof_of(out)):
            shutil.copy(file, copy.parent)
        damage(copy, how)
        with pytest.raises(ProofError, match=r"^export: must be as it was written, got .* changed or truncated"):
            check(copy)


def run_graph(path: Path, x_BCHW: torch.Tensor) -> torch.Tensor:
    if path.suffix == ".pt2":
        return torch.export.load(path).module()(x_BCHW)
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"images": x_BCHW.numpy()})[0])


def tell_metadata(path: Path) -> tuple[list[str], str]:
    """The class names and the architecture's digest, as the file itself has them."""
    if path.suffix == ".pt2":
        files = {"export.json": ""}
        torch.export.load(path, extra_files=files)
        found = json.loads(files["export.json"])
    else:
        import onnx

        graph = onnx.load(path)
        assert [(opset.domain, opset.version) for opset in graph.opset_import] == [("", 20)]
        found = {entry.key: entry.value for entry in graph.metadata_props}
    digest = metaformer.Architecture.model_validate_json(found["architecture"]).digest
    return json.loads(found["class_names"]), digest


def test_onnx_without_its_packages_says_what_to_install(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.results.exports.graphs._NEEDED", ("onnx", "no_such_package"))
    with pytest.raises(UserError, match=r"^format: onnx needs .*no_such_package.*; pip install "):
        export(str(run.folder.path), pick="best", out=tmp_path / "a.onnx", file_format="onnx")
    assert not list(tmp_path.iterdir())
