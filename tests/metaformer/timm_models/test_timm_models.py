"""The models as timm's; timm's own models of the same names are the oracle wherever timm has them.

B batch, C channels, H height, W width.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import timm.data
import timm.optim
import torch
import torch.nn.functional as F
from timm.layers import DropPath
from timm.models import group_parameters
from torch import Tensor, nn

from metaformer import Architecture, ArchitectureError, build, timm_models, zoo
from metaformer.checkpoints import to_ours
from metaformer.errors import CheckpointError, UserError
from metaformer.specs import AttentionSpec, Dense, Head, PoolSpec, Stage, Stem
from metaformer.timm_models.network import TimmMetaFormer
from tests.metaformer.checkpoints.timm_weights import pair_with_timm
from tests.thorough import every_third

REGISTRY = """
import timm
before = {name: timm.model_entrypoint(name) for name in timm.list_models()}
import metaformer.timm_models
after = {name: timm.model_entrypoint(name) for name in timm.list_models()}
assert all(after[name] is entry for name, entry in before.items())
print(*(name for name in after if name not in before))
"""
PYRAMID = Architecture(
    resolution=32,
    stages=(
        Stage(depth=2, width=8, mixer=PoolSpec(), layer_scale=1.0),
        Stage.model_validate(
            {
                "depth": 1,
                "width": 16,
                "mixer": AttentionSpec(head_size=8),
                "downsample": {},
                "class_token": True,
                "position_embedding": "learned",
            }
        ),
    ),
    head=Head(pool="class_token", norm={"kind": "layer_norm"}, num_classes=5),  # type: ignore[arg-type]
    drop_path=0.5,
)
DENSE = Architecture(
    resolution=32,
    stem=Stem(kernel=8, stride=8, padding=0),
    stages=(Stage(depth=3, width=8, mixer=PoolSpec(), dense=Dense(growth=4, groups=(2, 1))),),
)
ISOTROPIC = Architecture(
    resolution=32,
    stem=Stem(kernel=8, stride=8, padding=0),
    stages=(Stage(depth=4, width=8, mixer=PoolSpec(), layer_scale=1.0),),
    head=Head(num_classes=5),
)


def create(arch: Architecture = PYRAMID, **arguments: Any) -> Any:
    torch.manual_seed(0)
    return timm.create_model("mf_from_file", architecture=arch, **arguments)


def image(side: int, *, batch: int = 2, channels: int = 3) -> Tensor:
    return torch.randn(batch, channels, side, side, generator=torch.Generator().manual_seed(1))


def twin(name: str) -> tuple[TimmMetaFormer, Any]:
    """Ours through timm's front door, and timm's model, on the same random weights."""
    ours, theirs = pair_with_timm(name, dtype=torch.float32)
    with torch.device("meta"):
        model = timm.create_model(f"mf_{name}")
    model.load_state_dict(ours.state_dict(), assign=True)
    return model.eval(), theirs


def test_every_zoo_name_is_listed_and_no_name_of_timms_own_changes_its_meaning() -> None:
    done = subprocess.run([sys.executable, "-c", REGISTRY], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == {f"mf_{name}" for name in zoo.names()} | {"mf_from_file", "mf_exported"}


def test_a_name_that_timm_has_is_not_taken_from_it() -> None:
    def resnet18() -> nn.Module:
        raise NotImplementedError

    before = timm.model_entrypoint("resnet18")
    with pytest.raises(UserError, match="^timm: must have no model of its own called resnet18"):
        timm_models._register(resnet18)
    assert timm.model_entrypoint("resnet18") is before


def test_the_names_that_timm_makes_public_are_there() -> None:
    assert {f"mf_{name}" for name in zoo.names()} <= set(timm_models.__all__)
    assert all(hasattr(timm_models, name) for name in timm_models.__all__)


@pytest.mark.parametrize("name", every_third(zoo.names()))
def test_a_zoo_model_has_the_parameters_that_build_gives_it(name: str) -> None:
    with torch.device("meta"):
        model, built = timm.create_model(f"mf_{name}"), build(name)
    shapes = [{path: tensor.shape for path, tensor in each.state_dict().items()} for each in (model, built)]
    assert shapes[0] == shapes[1]
    assert model.arch == built.arch
    config = model.pretrained_cfg
    assert f"{config['classifier']}.weight" in shapes[0]
    assert config["first_conv"] is None or model.get_submodule(config["first_conv"]).in_channels == 3


def smallest_of_each_kind() -> list[str]:
    """The first name of each stem with each row of mixers."""
    kinds: dict[object, str] = {}
    for name in zoo.names():
        arch = zoo.get(name)
        kinds.setdefault((arch.stem, *(stage.mixer.kind for stage in arch.stages)), name)
    return list(kinds.values())


@pytest.mark.parametrize("name", smallest_of_each_kind())
def test_features_have_the_widths_and_strides_that_feature_info_states(name: str) -> None:
    arch = zoo.get(name)
    with torch.device("meta"):
        model = timm.create_model(f"mf_{name}", features_only=True).eval()
        maps = model(torch.zeros(1, 3, arch.resolution, arch.resolution))
    info = model.feature_info
    sides = [arch.resolution // stride for stride in info.reduction()]
    expected = [(1, width, side, side) for width, side in zip(info.channels(), sides, strict=True)]
    assert [tuple(map_BCHW.shape) for map_BCHW in maps] == expected
    assert len(maps) == (3 if len(arch.stages) == 1 else 4)
    assert all(path.startswith("model.stages.") for path, _ in model.named_parameters())


@pytest.mark.parametrize(
    ("name", "side"), [("poolformerv2_s12", 64), ("caformer_s18", 64), ("deit_tiny_patch16_224", 224)]
)
@torch.no_grad()
def test_intermediates_are_those_of_timm(name: str, side: int) -> None:
    ours, theirs = twin(name)
    x_BCHW = image(side, batch=1)
    for options in ({"indices": 2}, {"indices": [0, -1]}, {"norm": "caformer" not in name and "pool" not in name}):
        expected = theirs.forward_intermediates(x_BCHW, intermediates_only=True, **options)
        found = ours.forward_intermediates(x_BCHW, intermediates_only=True, **options)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    assert [(info["num_chs"], info["reduction"]) for info in ours.feature_info] == [
        (info["num_chs"], info["reduction"]) for info in theirs.feature_info
    ]


@pytest.mark.parametrize(("name", "indices"), [("poolformerv2_s12", (1, 3)), ("resmlp_12_224", (2, -1))])
@torch.no_grad()
def test_features_only_gives_what_timm_gives(name: str, indices: tuple[int, ...]) -> None:
    whole, theirs = twin(name)
    ours = timm.create_model(f"mf_{name}", features_only=True, out_indices=indices).eval()
    ours.model.load_state_dict(
        {path: tensor for path, tensor in whole.state_dict().items() if path in ours.model.state_dict()}
    )
    extractor = timm.create_model(name, features_only=True, out_indices=indices).eval()
    assert ours.feature_info.channels() == extractor.feature_info.channels()
    assert ours.feature_info.reduction() == extractor.feature_info.reduction()
    expected = theirs.forward_intermediates(image(224, batch=1), list(indices), intermediates_only=True)
    torch.testing.assert_close(ours(image(224, batch=1)), expected, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_tokens_and_class_tokens_are_those_of_timm() -> None:
    ours, theirs = twin("deit_tiny_patch16_224")
    options = {"indices": 1, "output_fmt": "NLC", "return_prefix_tokens": True, "intermediates_only": True}
    [expected] = theirs.forward_intermediates(image(224, batch=1), **options)
    [found] = ours.forward_intermediates(image(224, batch=1), **options)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("arch", [PYRAMID, ISOTROPIC])
@torch.no_grad()
def test_stopping_early_computes_nothing_behind_the_last_map_asked_for(arch: Architecture) -> None:
    model, calls = create(arch).eval(), []
    for stage in model.stages:
        for block in stage.blocks:
            block.register_forward_hook(lambda *_: calls.append(None))
    last_BCHW, maps = model.forward_intermediates(image(32), [0], stop_early=True)
    assert len(calls) == (1 if arch is ISOTROPIC else 2)
    assert torch.equal(last_BCHW, maps[0])
    last_BCHW, _ = model.forward_intermediates(image(32), [0])
    torch.testing.assert_close(last_BCHW, model.forward_features(image(32)), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"indices": 3}, "indices: must be 1 to 2 of the last maps, got 3"),
        ({"indices": [0, 2]}, r"indices: must be some of -2 to 1, got \[0, 2\]"),
        ({"output_fmt": "NHWC"}, "output_fmt: must be NCHW or NLC, got 'NHWC'"),
    ],
)
def test_maps_that_are_not_there_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ArchitectureError, match=f"^{message}$"):
        create().forward_intermediates(image(32), **arguments)


@torch.no_grad()
def test_the_norm_is_applied_to_the_maps_it_fits() -> None:
    model = create(ISOTROPIC).eval()
    nn.init.normal_(model.head.norm.weight)
    plain = model.forward_intermediates(image(32), intermediates_only=True)
    normed = model.forward_intermediates(image(32), norm=True, intermediates_only=True)
    torch.testing.assert_close(normed, [model.head.norm(map_BCHW) for map_BCHW in plain])


def test_features_of_blocks_that_differ_in_width_are_counted_by_stage() -> None:
    model = create(DENSE).eval()
    [map_BCHW] = model.forward_intermediates(image(32), norm=True, intermediates_only=True)
    torch.testing.assert_close(map_BCHW, model.head.norm(model.forward_features(image(32))))
    assert map_BCHW.shape == (2, 12, 4, 4)
    assert model.num_features == model.head_hidden_size == 12
    assert create(DENSE, features_only=True).feature_info.channels() == [12]


def test_pruning_a_pyramid_leaves_the_features_of_its_last_map() -> None:
    model = create().eval()
    [expected_BCHW] = model.forward_intermediates(image(32), [0], intermediates_only=True)
    assert model.prune_intermediate_layers([-2]) == [0]
    torch.testing.assert_close(model(image(32)), expected_BCHW)
    assert model.num_features == model.head_hidden_size == 8
    assert {path.partition(".")[0] for path, _ in model.named_parameters()} == {"stages"}


@pytest.mark.parametrize("name", ["poolformerv2_s12", "caformer_s18", "deit_tiny_patch16_224"])
@torch.no_grad()
def test_without_a_classifier_come_the_features_that_timm_has_before_its_own(name: str) -> None:
    """Where the classifier has a hidden layer, that goes too, as in timm."""
    ours, theirs = twin(name)
    x_BCHW = image(224 if "deit" in name else 64)
    expected = theirs.forward_head(theirs.forward_features(x_BCHW), pre_logits=True)
    found = ours.forward_head(ours.forward_features(x_BCHW), pre_logits=True)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(ours(x_BCHW), theirs(x_BCHW), rtol=1e-3, atol=1e-3)
    for model in (ours, theirs):
        model.reset_classifier(0)
    torch.testing.assert_close(ours(x_BCHW), found, rtol=0, atol=0)
    torch.testing.assert_close(ours(x_BCHW), theirs(x_BCHW), rtol=1e-3, atol=1e-3)
    assert ours.head_hidden_size == theirs.head_hidden_size == ours(x_BCHW).shape[1]
    assert ours.num_features == theirs.num_features


def test_a_new_classifier_is_drawn_and_leaves_the_rest() -> None:
    model = create()
    before = {path: tensor.clone() for path, tensor in model.state_dict().items()}
    model.double().eval().reset_classifier(7)
    assert model(image(32).double()).shape == (2, 7)
    assert not model.training
    assert model.get_classifier() is model.head.fc
    assert model.num_classes == model.arch.head.num_classes == 7
    assert float(model.head.fc.weight.detach().std()) == pytest.approx(0.02, rel=0.2)
    for path, tensor in model.state_dict().items():
        assert path.startswith("head.fc.") or torch.equal(tensor.float(), before[path]), path
    model.reset_classifier(0, "")
    assert model(image(32).double()).shape == (2, 16, 17, 1)  # the class token and 4 x 4 tokens


@pytest.mark.parametrize("init", ["zero", "pytorch"])
def test_a_new_classifier_is_drawn_as_the_architecture_says(init: str) -> None:
    """PyTorch's way has biases, the projects' has none; a classifier that starts at zero starts there again."""
    raw = ISOTROPIC.model_dump()
    raw |= {"init": "pytorch"} if init == "pytorch" else {"head": raw["head"] | {"zero_init": True}}
    model = create(Architecture.model_validate(raw), num_classes=9)
    model.reset_classifier(11)
    assert bool(model.head.fc.bias.any()) == (init == "pytorch")
    assert bool(model.head.fc.weight.any()) == (init == "pytorch")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1,), "num_classes: must be 0 or more, got -1"),
        ((3, "max"), "global_pool: must be 'token', as the architecture pools, or '', got 'max'"),
        ((3, ""), "global_pool: must be 'token' with a classifier, got ''"),
    ],
)
def test_a_classifier_that_cannot_be_is_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ArchitectureError, match=f"^{message}$"):
        create().reset_classifier(*arguments)


def names_by_timms(name: str, theirs: nn.Module) -> dict[str, str]:
    """Our name of each of timm's parameters, found by sending numbered tensors through the translation."""
    paths = list(theirs.state_dict())
    numbered = {path: torch.full_like(theirs.state_dict()[path], i, device="cpu") for i, path in enumerate(paths)}
    return {paths[int(tensor.max())]: path for path, tensor in to_ours(numbered, zoo.get(name)).items()}


@pytest.mark.parametrize("name", ["deit_tiny_patch16_224", "mixer_s16_224", "resmlp_12_224", "convmixer_768_32"])
def test_parameters_are_grouped_as_timm_groups_its_own(name: str) -> None:
    with torch.device("meta"):
        ours, theirs = timm.create_model(f"mf_{name}"), timm.create_model(name)
    expected = group_parameters(theirs, theirs.group_matcher(), reverse=True)
    ours_of = names_by_timms(name, theirs)
    assert group_parameters(ours, ours.group_matcher(), reverse=True) == {
        ours_of[path]: group for path, group in expected.items()
    }


def test_a_pyramid_is_grouped_from_the_stem_through_the_blocks_to_the_classifier() -> None:
    groups = group_parameters(create(), create().group_matcher(), reverse=True)
    assert {path.partition(".mixer")[0].partition(".mlp")[0]: group for path, group in groups.items()} == {
        "stages.0.embed.weight": 0,
        "stages.0.embed.bias": 0,
        "stages.0.blocks.0": 1,
        "stages.0.blocks.1": 2,
        "stages.1.embed.weight": 3,
        "stages.1.embed.bias": 3,
        "stages.1.class_token.cls_token": 3,
        "stages.1.position.pos_embed": 3,
        "stages.1.blocks.0": 3,
        "head.norm.weight": 3,
        "head.norm.bias": 3,
        "head.fc.weight": 4,
        "head.fc.bias": 4,
    }
    coarse = group_parameters(create(), create().group_matcher(coarse=True), reverse=True)
    by_stage = {".".join(path.split(".")[:3]): group for path, group in coarse.items()}
    assert by_stage["stages.0.embed"] == 0
    assert by_stage["stages.0.blocks"] == 1
    assert by_stage["stages.1.embed"] == by_stage["stages.1.blocks"] == by_stage["head.norm.weight"] == 2
    assert by_stage["head.fc.weight"] == 3


@pytest.mark.parametrize("name", ["metaformer_ppaa_s12_224", "caformer_s18", "t2t_vit_7", "pvt_tiny"])
def test_layer_decay_covers_every_parameter_and_rises_towards_the_classifier(name: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(f"mf_{name}", num_classes=5)
    optimizer = timm.optim.create_optimizer_v2(model, opt="adamw", lr=1.0, weight_decay=0.05, layer_decay=0.75)
    scale_of = {id(param): group["lr_scale"] for group in optimizer.param_groups for param in group["params"]}
    assert set(scale_of) == {id(param) for param in model.parameters()}
    depth = model.arch.depth + 1
    assert scale_of[id(model.head.fc.weight)] == 1.0
    assert min(scale_of.values()) == pytest.approx(0.75**depth)
    first, *_ = model.stages[0].blocks.parameters()
    assert scale_of[id(first)] == pytest.approx(0.75 ** (depth - 1))


def test_what_weight_decay_leaves_alone_in_deit_is_what_timm_leaves_alone() -> None:
    with torch.device("meta"):
        ours, theirs = timm.create_model("mf_deit_tiny_patch16_224"), timm.create_model("deit_tiny_patch16_224")
    ours_of = names_by_timms("deit_tiny_patch16_224", theirs)
    assert ours.no_weight_decay() == {ours_of[path] for path in theirs.no_weight_decay() if path in ours_of}


@pytest.mark.parametrize(
    ("name", "exempt"),
    [
        ("t2t_vit_7", {"stages.0.class_token.cls_token"}),
        ("pvt_tiny", {"stages.3.class_token.cls_token"}),
        ("metaformer_ppaa_s12_224", set()),
    ],
)
def test_weight_decay_leaves_alone_what_the_official_code_does(name: str, exempt: set[str]) -> None:
    with torch.device("meta"):
        model = timm.create_model(f"mf_{name}")
    assert model.no_weight_decay() == exempt
    optimizer = timm.optim.create_optimizer_v2(model, opt="adamw", weight_decay=0.05)
    decayed = {id(param) for group in optimizer.param_groups if group["weight_decay"] for param in group["params"]}
    for path, param in model.named_parameters():
        assert (id(param) in decayed) == (param.ndim > 1 and path not in exempt), path


@pytest.mark.parametrize("arch", [PYRAMID, ISOTROPIC])
def test_gradient_checkpointing_computes_blocks_again_and_changes_no_gradient(arch: Architecture) -> None:
    """Drop path included, whose random numbers come again."""
    gradients, calls = [], []
    for enable in (False, True):
        model = create(arch).train()
        model.set_grad_checkpointing(enable)
        calls.append(0)

        def count(*_: object) -> None:
            calls[-1] += 1

        for stage in model.stages:
            for block in stage.blocks:
                block.mixer.register_forward_pre_hook(count)
        torch.manual_seed(2)
        model(image(32, batch=8)).square().sum().backward()
        gradients.append({path: param.grad for path, param in model.named_parameters()})
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=0)
    assert calls == [arch.depth, 2 * arch.depth]


SAME_AS_TIMM = ("pool", "conv", "ca", "mixer")  # families for which timm's figures are the official ones


@pytest.mark.parametrize("name", [n for n in zoo.names() if timm.is_model(n) and n.startswith(SAME_AS_TIMM)])
def test_images_are_prepared_as_timm_prepares_them(name: str) -> None:
    theirs, ours = timm.get_pretrained_cfg(name), timm.get_pretrained_cfg(f"mf_{name}")
    for field in ("input_size", "crop_pct", "interpolation", "mean", "std", "num_classes"):
        assert getattr(ours, field) == getattr(theirs, field), field


def test_timm_prepares_images_as_the_zoo_says() -> None:
    config = timm.data.resolve_model_data_config(create(ISOTROPIC))
    assert config == {
        **zoo.preprocessing(ISOTROPIC).model_dump(exclude={"resolution"}),
        "input_size": (3, 32, 32),
        "crop_mode": "center",
    }


def test_a_model_may_be_made_for_another_size() -> None:
    with torch.device("meta"):
        model = timm.create_model("mf_metaformer_ppaa_s12_224", img_size=256, in_chans=1)
    assert model.arch.resolution == 256
    assert model(torch.zeros(1, 1, 256, 256, device="meta")).shape == (1, 1000)


def test_the_arguments_of_create_model_change_what_they_name() -> None:
    model = create(num_classes=3, in_chans=1, drop_rate=0.25, drop_path_rate=0.2)
    rates = [module.drop_prob for module in model.modules() if isinstance(module, DropPath)]
    assert rates == pytest.approx([0.1, 0.1, 0.2, 0.2])
    assert model.head.dropout.p == model.drop_rate == 0.25
    assert model(image(32, channels=1)).shape == (2, 3)
    assert (model.in_chans, model.num_classes) == (1, 3)
    assert create(num_classes=0)(image(32)).shape == (2, 16)
    assert create(ISOTROPIC, num_classes=0, global_pool="")(image(32)).shape == (2, 8, 4, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"drop_pth_rate": 0.1}, "drop_pth_rate: unknown name 'drop_pth_rate'; known, nearest first: drop_path_rate"),
        ({"num_classes": -1}, "num_classes: .* got -1"),
        ({"drop_rate": 1.0}, "drop_rate: .* got 1.0"),
        ({"img_size": (224, 192)}, r"img_size: must be square, got \(224, 192\)"),
        ({"img_size": 2}, "resolution: stage 0 would have no token left at 2 pixels"),
        ({"cache_dir": "x"}, "cache_dir: .* got 'x'"),
        ({"features_only": True, "out_indices": (7,)}, r"indices: must be some of -4 to 3, got \[7\]"),
    ],
)
def test_an_argument_that_cannot_be_is_one_line(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ArchitectureError, match=f"^{message}") as caught:
        timm.create_model("mf_poolformer_s12", **arguments)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_build_is_loaded_by_timm(tmp_path: Path) -> None:
    built = build(PYRAMID)
    torch.save(built.state_dict(), tmp_path / "weights.pth")
    (tmp_path / "arch.yaml").write_text(PYRAMID.to_yaml(), encoding="utf-8")
    model = timm.create_model(
        "mf_from_file", architecture=tmp_path / "arch.yaml", checkpoint_path=str(tmp_path / "weights.pth")
    )
    torch.testing.assert_close(model.eval()(image(32)), built.eval()(image(32)), rtol=0, atol=0)
    assert model.pretrained_cfg["input_size"] == (3, 32, 32)
    assert model.pretrained_cfg["num_classes"] == 5


def saved(model: nn.Module, folder: Path) -> dict[str, Any]:
    """Arguments by which timm finds the weights of a model in a file."""
    torch.save(model.state_dict(), folder / "weights.pth")
    return {"pretrained": True, "pretrained_cfg_overlay": {"file": str(folder / "weights.pth")}}


def test_pretrained_takes_a_file_with_the_names_of_timm(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = timm.create_model("poolformerv2_s12").eval()
    ours = timm.create_model("mf_poolformerv2_s12", **saved(theirs, tmp_path)).eval()
    torch.testing.assert_close(ours(image(64)), theirs(image(64)), rtol=1e-3, atol=1e-3)
    assert "state_dict" not in ours.pretrained_cfg


@pytest.mark.parametrize("num_classes", [0, 3])
def test_pretrained_weights_serve_other_classes_and_channels(tmp_path: Path, num_classes: int) -> None:
    """timm adapts the first convolution: to one channel by the sum, so that grey images give what grey colours gave."""
    built = create(PYRAMID).eval()
    model = create(PYRAMID, num_classes=num_classes, in_chans=1, **saved(built, tmp_path)).eval()
    grey_BCHW = image(32, channels=1)
    expected_BCHW = built.forward_features(grey_BCHW.expand(-1, 3, -1, -1))
    torch.testing.assert_close(model.forward_features(grey_BCHW), expected_BCHW)
    assert model(grey_BCHW).shape == (2, num_classes or 16)
    features = create(PYRAMID, features_only=True, **saved(built, tmp_path)).eval()
    torch.testing.assert_close(
        features(image(32)), built.forward_intermediates(image(32), intermediates_only=True), rtol=0, atol=0
    )


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("deit_tiny_patch16_224", {"img_size": 384}, "img_size: must be 224, .* with pretrained, got 384"),
        ("t2t_vit_7", {"in_chans": 1}, "in_chans: must be 3 with pretrained, since this stem begins with no conv"),
    ],
)
def test_weights_that_cannot_be_adapted_are_refused(name: str, arguments: dict[str, Any], message: str) -> None:
    with torch.device("meta"), pytest.raises(ArchitectureError, match=f"^{message}"):
        timm.create_model(f"mf_{name}", pretrained=True, **arguments)


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"weights.pth: checkpoint: must have just the tensors"):
        create(ISOTROPIC, **saved(create(PYRAMID), tmp_path))


def test_an_architecture_of_your_own_has_no_published_weights() -> None:
    with pytest.raises(CheckpointError, match="^checkpoint: must be given for an architecture that is not one of"):
        create(pretrained=True)


@pytest.mark.parametrize("place", ["url", "hf_hub_id"])
def test_weights_from_elsewhere_are_refused_and_not_replaced_by_the_published(place: str) -> None:
    with pytest.raises(ArchitectureError, match=f"^pretrained_cfg: must name a file .* got {place}$"):
        create(pretrained=True, pretrained_cfg={place: "there"})


def test_a_model_from_a_file_needs_the_file() -> None:
    with pytest.raises(
        ArchitectureError, match="^architecture: must be given, as a file, a value or a name, got none$"
    ):
        timm.create_model("mf_from_file")


def test_features_pass_fresh_norms_of_their_own_as_in_poolformers_code_for_dense_prediction() -> None:
    """`fork_feat`: GroupNorm of one group behind network[0, 2, 4, 6], in the place of nothing."""
    torch.manual_seed(0)
    plain = timm.create_model("mf_poolformer_s12", features_only=True).eval()
    normed = timm.create_model("mf_poolformer_s12", features_only=True, feature_norms=True).eval()
    state = plain.state_dict()
    added = normed.state_dict().keys() - state.keys()
    assert sorted(added) == [f"model.feature_norms.{i}.{part}" for i in range(4) for part in ("bias", "weight")]
    normed.load_state_dict({**normed.state_dict(), **state})
    x_BCHW = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        for bare_BCHW, got_BCHW in zip(plain(x_BCHW), normed(x_BCHW), strict=True):
            torch.testing.assert_close(got_BCHW, F.group_norm(bare_BCHW, 1, eps=1e-5))
            assert not torch.allclose(got_BCHW, bare_BCHW)


def test_norms_of_features_that_are_not_taken_are_left_out() -> None:
    model = timm.create_model("mf_poolformer_s12", features_only=True, feature_norms=True, out_indices=(1, 2))
    assert {name.split(".")[2] for name in model.state_dict() if name.startswith("model.feature_norms.")} == {"1", "2"}
    assert [tuple(y_BCHW.shape[1:]) for y_BCHW in model(torch.zeros(1, 3, 64, 64))] == [(128, 8, 8), (320, 4, 4)]


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("mf_deit_tiny_patch16_224", {"features_only": True}, "must be for a model of several stages, got one of 1"),
        ("mf_poolformer_s12", {}, "must be given with features_only, got it alone"),
    ],
)
def test_norms_of_features_are_for_features_of_stages(name: str, arguments: dict[str, bool], said: str) -> None:
    with pytest.raises(ArchitectureError, match=f"^feature_norms: {said}$"):
        timm.create_model(name, feature_norms=True, **arguments)


def test_what_an_export_must_say_of_its_architecture_is_checked() -> None:
    fields = PYRAMID.model_dump(mode="json")
    model = timm.create_model("mf_exported", architecture=fields, digest=PYRAMID.digest, num_classes=2)
    assert model(image(PYRAMID.resolution)).shape == (2, 2)
    for architecture, said in (
        (None, "^architecture: must be a mapping of fields, got None"),
        ("poolformer_s12", "^architecture: must be a mapping of fields, got 'poolformer_s12'"),
        (fields | {"widths": 3}, "^widths: unknown name"),
        (fields | {"drop_path": 0.25}, "^architecture: must have the digest .* that was written with it, got "),
    ):
        with pytest.raises(ArchitectureError, match=said):
            timm.create_model("mf_exported", architecture=architecture, digest=PYRAMID.digest)
