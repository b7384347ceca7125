"""Models of every mixer and of every kind in the zoo, in small sizes, through the formats that hold weights."""

import copy
from pathlib import Path

import pytest
import torch

from metaformer import Architecture, build, count_cost, zoo
from metaformer.documents import sha256_of
from metaformer.specs import MixerSpec
from metaformer.zoo import Preprocessing
from nas.record.run_folder import Run
from nas.record.trials import TrialRecord
from nas.results.exports.check import check
from nas.results.exports.graphs import write_onnx, write_torch
from nas.results.exports.proof import WHOLE, Format, expect
from nas.results.exports.subject import Images, Subject
from nas.results.exports.timm_folder import write_timm
from tests.nas.runs import make_study, open_folder

MIXERS = {
    "pool": {},
    "attention": {"head_size": 4},
    "reduced_attention": {"head_size": 4, "reduction": 2},
    "spatial_mlp": {},
    "token_mlp": {"hidden": 3},
    "dwconv": {},
    "sep_conv": {},
    "identity": {},
    "random": {},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return open_folder(tmp_path_factory.mktemp("runs") / "run", make_study())[0]


def of_mixer(kind: str) -> Architecture:
    """A stage of this mixer, and one of pooling after it; norms with statistics, so that evaluation mode tells."""
    norm = {"kind": "batch_norm"}
    first = {"depth": 1, "width": 8, "mixer": {"kind": kind, **MIXERS[kind]}, "norm": norm}
    second = {"depth": 1, "width": 12, "mixer": {"kind": "pool"}, "downsample": {}}
    return Architecture.model_validate(
        {"resolution": 32, "stages": [first, second], "head": {"num_classes": 5}, "drop_path": 0.5}
    )


def shrunk(name: str) -> Architecture:
    """A model of the zoo at an eighth of its widths, with one block a stage and few pixels."""
    raw = zoo.get(name).model_dump()
    raw["head"]["num_classes"] = 7
    raw["resolution"] = 64
    for stage, full in zip(raw["stages"], zoo.get(name).stages, strict=True):
        multiple = full.mixer.width_multiple
        stage["depth"] = 1
        stage["width"] = multiple * max(1, round(full.width / 8 / multiple))
    return Architecture.model_validate(raw)


def kinds_of_zoo() -> list[str]:
    """The first name of each stem with each row of mixers, norms and heads."""
    kinds: dict[object, str] = {}
    for name in zoo.names():
        arch = zoo.get(name)
        rows = tuple((type(stage.mixer), stage.norm.kind, stage.class_token) for stage in arch.stages)
        kinds.setdefault((type(arch.stem), rows, arch.head.pool, arch.head.hidden_ratio is None), name)
    return list(kinds.values())


def check_round_trip(run: Run, arch: Architecture, kind: Format, folder: Path) -> None:
    """Write and check; every weight and statistic is drawn, so that none is what a fresh model has."""
    torch.manual_seed(0)
    model = build(arch).eval()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                tensor.mul_(0.5).add_(torch.rand_like(tensor), alpha=0.1 if name.endswith("weight") else 0.3)
    cost = count_cost(arch)
    trial = TrialRecord(0, arch, cost.params, cost.macs, checkpoint_trial=0)
    images = Images(Preprocessing(resolution=arch.resolution), tuple("abcdefg"[: arch.head.num_classes]))
    subject = Subject(run, trial, "python -m nas.export", model, images)
    before = copy.deepcopy(model.state_dict())
    out = folder / "export"
    match kind:
        case "timm":
            out.mkdir()
            write_timm(subject, out)
            digests = {path.name: sha256_of(path) for path in out.iterdir()}
        case "onnx":
            write_onnx(subject, out, model=model)
            digests = {WHOLE: sha256_of(out)}
        case _:
            write_torch(subject, out, model=model)
            digests = {WHOLE: sha256_of(out)}
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    proof = folder / "proof.json"
    proof.write_text(expect(model, kind, digests).model_dump_json(), encoding="utf-8")
    check(out, proof=proof)


def test_every_mixer_is_among_those_that_are_tried() -> None:
    ours = [spec for spec in MixerSpec.__subclasses__() if spec.__module__ == MixerSpec.__module__]
    assert set(MIXERS) == {spec.model_fields["kind"].default for spec in ours}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["timm", "torch", "onnx"])
@pytest.mark.parametrize("mixer", MIXERS)
def test_a_model_of_every_mixer_comes_back(run: Run, tmp_path: Path, mixer: str, kind: Format) -> None:
    if kind == "onnx":
        pytest.importorskip("onnxscript")
    check_round_trip(run, of_mixer(mixer), kind, tmp_path)


def with_structures() -> Architecture:
    """Excitation, Ghost operations and dense connections together, behind a class token."""
    raw = of_mixer("attention").model_dump()
    structures = {"se_reduction": 4, "class_token": True, "dense": {"growth": 4, "groups": [1, 2]}}
    ghost = {"mixer": raw["stages"][0]["mixer"] | {"ghost": True}, "mlp": {"ratio": 2, "ghost": True}}
    return Architecture.model_validate(raw | {"stages": [raw["stages"][0] | structures | ghost | {"depth": 3}]})


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["timm", "torch", "onnx"])
def test_a_model_with_structures_of_cnns_comes_back(run: Run, tmp_path: Path, kind: Format) -> None:
    if kind == "onnx":
        pytest.importorskip("onnxscript")
    check_round_trip(run, with_structures(), kind, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["timm", "torch"])
@pytest.mark.parametrize("name", kinds_of_zoo())
def test_a_small_model_of_every_kind_in_the_zoo_comes_back(run: Run, tmp_path: Path, name: str, kind: Format) -> None:
    check_round_trip(run, shrunk(name), kind, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["poolformerv2_s12", "caformer_s18", "deit_tiny_patch16_224", "pvt_tiny", "t2t_vit_7"])
def test_a_small_model_of_every_family_comes_back_from_onnx(run: Run, tmp_path: Path, name: str) -> None:
    """The class tokens of the last three are of any size of batch too."""
    pytest.importorskip("onnxscript")
    check_round_trip(run, shrunk(name), "onnx", tmp_path)
