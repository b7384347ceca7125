"""Weights from files, from a cache and from nowhere."""

import argparse
import os
import pickle
import tarfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import metaformer
from metaformer import Architecture, ArchitectureError, CheckpointError, build, load, zoo
from metaformer.checkpoints import from_ours
from metaformer.checkpoints.files import RELEASES, read_checkpoint
from metaformer.checkpoints.names import Convention
from metaformer.zoo.poolformer import four_stages

SMALL = four_stages(depths=(1, 1, 1, 1), widths=(8, 16, 24, 32))


def drawn(*, seed: int) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return from_ours(build(SMALL).state_dict(), SMALL, "official")


STATE, AVERAGED = drawn(seed=0), drawn(seed=1)


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def assert_loads(path: Path, expected: dict[str, Tensor] = STATE, *, use_ema: bool = True) -> None:
    """The model on disk has these weights, and computes a number for each class."""
    model = load(SMALL, path, use_ema=use_ema)
    torch.testing.assert_close(from_ours(model.state_dict(), SMALL, "official"), expected, rtol=0, atol=0)
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 1000)


@pytest.mark.parametrize("convention", ["ours", "official", "timm"])
def test_safetensors_in_any_names_are_loaded(convention: Convention, tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_file(from_ours(build(SMALL).state_dict(), SMALL, convention), tmp_path / "weights.safetensors")
    assert_loads(tmp_path / "weights.safetensors")


def test_torch_files_of_both_formats_are_loaded(tmp_path: Path) -> None:
    assert_loads(saved(tmp_path / "new.pth", STATE))
    torch.save(STATE, tmp_path / "old.pth.tar", _use_new_zipfile_serialization=False)
    assert_loads(tmp_path / "old.pth.tar")


@pytest.mark.parametrize("key", ["state_dict_ema", "model_ema", "state_dict", "model"])
def test_weights_below_a_usual_key_are_loaded(key: str, tmp_path: Path) -> None:
    assert_loads(saved(tmp_path / "nested.pth", {"epoch": 3, key: OrderedDict(STATE), "optimizer": {"state": {}}}))


def test_a_checkpoint_of_a_training_program_with_its_arguments_is_loaded(tmp_path: Path) -> None:
    wrapped = {f"module.{name}": tensor for name, tensor in STATE.items()}
    arguments = argparse.Namespace(lr=5e-4, model="small")
    assert_loads(saved(tmp_path / "nested.pth", {"state_dict": wrapped, "args": arguments, "metric": 71.7}))


@pytest.mark.parametrize("kind", ["float64", "float32", "float16", "int64", "int32", "uint8", "bool"])
@pytest.mark.parametrize("is_old", [False, True])
def test_a_number_of_numpy_beside_the_weights_is_no_code(kind: str, is_old: bool, tmp_path: Path) -> None:
    content = {"state_dict": STATE, "best_top1": np.dtype(kind).type(1), "epoch": 3}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=not is_old)
    assert_loads(tmp_path / "a.pth")
    written = (tmp_path / "a.pth").read_bytes()
    if is_old:  # numpy 1 called its module otherwise
        (tmp_path / "b.pth").write_bytes(written.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))
        assert_loads(tmp_path / "b.pth")


@pytest.mark.parametrize(
    "value",
    [
        np.array([1.0]),
        np.array([STATE], dtype=object),
        np.dtype("O"),
        np.dtype([("a", "f8")]),
        np.datetime64("2020-01-01"),
        np.str_("x"),
        np.bytes_(b"x"),
        np.float64,
    ],
    ids=lambda value: f"{type(value).__name__} {value!r}"[:40],
)
def test_of_numpy_only_numbers_are_read(value: object, tmp_path: Path) -> None:
    text = refused(saved(tmp_path / "a.pth", {"state_dict": STATE, "best": value}))
    assert text.startswith("checkpoint: must ")


def test_weights_of_another_type_are_named(tmp_path: Path) -> None:
    [first, second, *_] = [name for name, tensor in STATE.items() if tensor.ndim == 4]
    text = refused(saved(tmp_path / "a.pth", {**STATE, first: STATE[first].long(), second: STATE[second].bool()}))
    assert text.endswith(f"got 2 of another type: {first} is int64, {second} is bool")
    assert refused(saved(tmp_path / "b.pth", {**STATE, first: STATE[first].to_sparse()})).endswith(", not dense")
    assert_loads(saved(tmp_path / "c.pth", {name: tensor.double() for name, tensor in STATE.items()}))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers_are_named(value: float, tmp_path: Path) -> None:
    name = list(STATE)[-2]
    broken = STATE[name].clone()
    broken.view(-1)[1] = value
    text = refused(saved(tmp_path / "a.pth", {**STATE, name: broken}))
    assert text.endswith(f"checkpoint: must have finite weights, got NaN or infinity in 1: {name}")


def test_averaged_weights_come_first_and_the_plain_ones_on_request(tmp_path: Path) -> None:
    wrapped = {f"module.{name}": tensor for name, tensor in AVERAGED.items()}
    path = saved(tmp_path / "both.pth", {"state_dict": STATE, "state_dict_ema": wrapped})
    assert_loads(path, AVERAGED)
    assert_loads(path, STATE, use_ema=False)


def test_a_model_of_a_yaml_file_gets_its_weights_by_the_public_name(tmp_path: Path) -> None:
    (tmp_path / "arch.yaml").write_text(SMALL.to_yaml(), encoding="utf-8")
    path = saved(tmp_path / "weights.pth", STATE)
    assert metaformer.load(tmp_path / "arch.yaml", path).arch == SMALL


def refused(path: Path, source: Architecture | str = SMALL, *, use_ema: bool = True) -> str:
    with pytest.raises(CheckpointError) as caught:
        load(source, path, use_ema=use_ema)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    return text


def test_a_checkpoint_that_does_not_fit_is_named(tmp_path: Path) -> None:
    path = saved(tmp_path / "weights.pth", STATE)
    assert refused(path, "poolformer_s12").startswith(f"{path}: checkpoint: must have just the tensors of this")


def test_a_file_must_exist(tmp_path: Path) -> None:
    assert refused(tmp_path / "none.pth") == f"checkpoint: must be a file, got '{tmp_path / 'none.pth'}'"
    assert refused(tmp_path) == f"checkpoint: must be a file, got '{tmp_path}'"


def test_an_unknown_model_is_named() -> None:
    with pytest.raises(ArchitectureError, match=r"^model: unknown name 'poolfromer_s12'; known, nearest first: poolf"):
        load("poolfromer_s12", "weights.pth")


def write_safetensors(path: Path) -> None:
    save_file(STATE, path)


def write_new(path: Path) -> None:
    torch.save(STATE, path)


def write_old(path: Path) -> None:
    torch.save(STATE, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.01, 0.5, 0.99])
@pytest.mark.parametrize(
    ("file", "write"),
    [("weights.safetensors", write_safetensors), ("new.pth", write_new), ("old.pth", write_old)],
)
def test_a_truncated_file_is_refused(file: str, write: Callable[[Path], None], share: float, tmp_path: Path) -> None:
    path = tmp_path / file
    write(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    kind = "safetensors" if path.suffix == ".safetensors" else "torch"
    assert refused(path).startswith(
        f"checkpoint: must be a whole {kind} file, got '{path}', which is truncated or of another kind ("
    )


@pytest.mark.parametrize("text", [b"hello, this is no checkpoint\n", b"<!DOCTYPE html><html></html>\n", b"\x80\x04."])
def test_a_file_of_another_kind_is_refused(text: bytes, tmp_path: Path) -> None:
    for name in ("weights.pth", "weights.safetensors"):
        (tmp_path / name).write_bytes(text)
        assert "which is truncated or of another kind (" in refused(tmp_path / name)


def test_a_tar_archive_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "weights.pth", STATE)
    with tarfile.open(tmp_path / "weights.tar", "w") as archive:
        archive.add(tmp_path / "weights.pth", arcname="weights.pth")
    assert "which is truncated or of another kind (" in refused(tmp_path / "weights.tar")


class Touches:
    """Pickled code that leaves a folder where it runs."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (str(self.path),))


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    touched = tmp_path / "was_run"
    harmful = {"model": Touches(touched)}
    saved(tmp_path / "new.pth", harmful)
    torch.save(harmful, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for name in ("new.pth", "old.pth"):
        assert refused(tmp_path / name) == (
            f"checkpoint: must hold tensors and plain values, got code (posix.mkdir) in '{tmp_path / name}', "
            f"which was not run"
        )
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(harmful))
    assert "must " in refused(tmp_path / "plain.pth")
    assert not touched.exists()
    pickle.loads((tmp_path / "plain.pth").read_bytes())  # noqa: S301  so would it run
    assert touched.exists()


@pytest.mark.parametrize(
    ("content", "held"),
    [
        ({"epoch": 3, "optimizer": {}}, "the keys epoch, optimizer"),
        ({"model": {"epoch": 3}}, "the keys model"),
        ({}, "the keys "),
        ([1, 2], "list"),
        (torch.ones(3), "Tensor"),
        ({1: torch.ones(3)}, "the keys 1"),
    ],
)
def test_a_file_without_weights_is_refused(content: object, held: str, tmp_path: Path) -> None:
    assert refused(saved(tmp_path / "file.pth", content)) == (
        "checkpoint: must hold tensors by name, flat or under state_dict_ema, model_ema, state_dict, model, got " + held
    )


def test_averaged_weights_alone_are_not_taken_for_plain_ones(tmp_path: Path) -> None:
    path = saved(tmp_path / "ema.pth", {"state_dict_ema": AVERAGED})
    assert refused(path, use_ema=False).endswith("flat or under state_dict, model, got the keys state_dict_ema")


@pytest.fixture
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Real attempts to connect, to a port of this machine where nobody listens, with empty caches."""
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    monkeypatch.setattr("urllib.request._opener", None)  # it keeps the proxies it was made with
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


@pytest.mark.usefixtures("_offline")
@pytest.mark.parametrize("name", ["poolformer_s12", "pvt_tiny", "randformer_s12"])
def test_without_a_network_the_weights_of_a_name_cannot_be_had(name: str) -> None:
    with pytest.raises(
        CheckpointError,
        match=rf"^checkpoint: the weights of {name} cannot be downloaded \(.+\); go online, or give a file with check",
    ):
        load(name)


@pytest.mark.usefixtures("_offline")
def test_weights_that_were_downloaded_before_are_loaded_without_a_network(tmp_path: Path) -> None:
    state = from_ours(build("pvt_tiny").state_dict(), zoo.get("pvt_tiny"), "official")
    released = tmp_path / "torch" / "hub" / "checkpoints" / "pvt_tiny.pth"
    released.parent.mkdir(parents=True)
    saved(released, state)
    ours = load("pvt_tiny").state_dict()
    torch.testing.assert_close(from_ours(ours, zoo.get("pvt_tiny"), "official"), state, rtol=0, atol=0)


@pytest.mark.usefixtures("_offline")
def test_weights_in_the_cache_of_the_hub_are_loaded_without_a_network(tmp_path: Path) -> None:
    state = from_ours(build("deit_tiny_patch16_224").state_dict(), zoo.get("deit_tiny_patch16_224"), "timm")
    repository = tmp_path / "hub" / "models--timm--deit_tiny_patch16_224.fb_in1k"
    commit = "0" * 40
    for folder in ("refs", f"snapshots/{commit}"):
        (repository / folder).mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit, encoding="utf-8")
    save_file(state, repository / "snapshots" / commit / "model.safetensors")
    ours = load(zoo.get("deit_tiny_patch16_224")).state_dict()
    torch.testing.assert_close(from_ours(ours, zoo.get("deit_tiny_patch16_224"), "timm"), state, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["mixer_s16_224", "metaformer_dwconv_s12", "resmlp_b24_224"])
def test_weights_that_nobody_published_must_be_given(name: str) -> None:
    with pytest.raises(CheckpointError, match=rf"no place is known that has weights of {name}; give a file with"):
        load(name)


def test_weights_of_an_architecture_outside_the_zoo_must_be_given() -> None:
    with pytest.raises(
        CheckpointError, match=r"^checkpoint: must be given for an architecture that is not one of the zoo, got none$"
    ):
        load(SMALL)


def test_releases_are_of_models_in_the_zoo_by_https() -> None:
    assert set(RELEASES) <= set(zoo.names())
    assert all(url.startswith("https://") and url.count("{") == 0 for url in RELEASES.values())


def test_reading_alone_gives_the_tensors_as_they_lie(tmp_path: Path) -> None:
    save_file({"module.a": torch.ones(2), "module.b": torch.zeros(1)}, tmp_path / "two.safetensors")
    read = read_checkpoint(tmp_path / "two.safetensors")
    assert {name: tensor.tolist() for name, tensor in read.items()} == {"a": [1.0, 1.0], "b": [0.0]}
