"""Built models: timm is the oracle of the backbone, closed forms are those of the block and the head.

B batch, C channels, H height, W width.
"""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from timm.layers import DropPath
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from metaformer import Architecture, ArchitectureError, build, count_cost, zoo
from metaformer.network.layers import ChannelMlp
from metaformer.network.model import Branch
from metaformer.specs import Head, IdentitySpec, Mlp, Norm, PoolSpec, Stage, Stem
from tests.metaformer.checkpoints.timm_weights import pair_with_timm
from tests.strategies import architectures
from tests.thorough import thorough

POOLFORMERS = ["poolformer_s12", "poolformer_s24", "poolformer_s36", "poolformer_m36", "poolformer_m48"]


def image(side: int, *, batch: int = 2, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(1), dtype=dtype)


@pytest.mark.parametrize("name", [POOLFORMERS[0], *thorough(POOLFORMERS[1:])])
@torch.no_grad()
def test_poolformer_features_are_those_of_timm_on_the_same_weights(name: str) -> None:
    """In float64, so that an eps or an approximate GELU, which float32 would hide, shows."""
    ours, theirs = pair_with_timm(name, dtype=torch.float64)
    x_BCHW = image(64, dtype=torch.float64)
    expected = theirs.forward_intermediates(x_BCHW, intermediates_only=True)
    torch.testing.assert_close(ours.features(x_BCHW), expected, rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_poolformer_features_are_those_of_timm_at_224_pixels_in_float32() -> None:
    ours, theirs = pair_with_timm("poolformer_s12", dtype=torch.float32)
    x_BCHW = image(224)
    for map_BCHW, expected_BCHW in zip(
        ours.features(x_BCHW), theirs.forward_intermediates(x_BCHW, intermediates_only=True), strict=True
    ):
        torch.testing.assert_close(map_BCHW, expected_BCHW, rtol=1e-5, atol=1e-5 * float(expected_BCHW.abs().max()))


@torch.no_grad()
def test_poolformer_logits_are_features_of_timm_under_the_official_head() -> None:
    """timm's own head pools before the norm, which the official network does not."""
    ours, theirs = pair_with_timm("poolformer_s12", dtype=torch.float64)
    x_BCHW = image(96, dtype=torch.float64)
    norm, classifier = theirs.head.norm, theirs.head.fc
    map_BCHW = F.group_norm(theirs.forward_features(x_BCHW), 1, norm.weight, norm.bias, eps=1e-5)
    logits = classifier(map_BCHW.mean((2, 3)))
    torch.testing.assert_close(ours(x_BCHW), logits, rtol=1e-10, atol=1e-10)
    assert not torch.allclose(theirs(x_BCHW), logits, rtol=1e-3, atol=1e-3)


def small(name: str) -> Architecture:
    """A zoo model of the same pattern: one block of each stage, an eighth of the widths, 64 pixels."""
    raw = zoo.get(name).model_dump()
    raw["resolution"] = min(64, raw["resolution"])
    raw["head"] |= {"num_classes": 5, "zero_init": False, "dropout": 0.0}
    raw["drop_path"] = 0.0
    if raw["stem"]["kind"] == "tokens_to_token":
        raw["stem"]["token_width"] = 8
    for stage in raw["stages"]:
        stage["depth"] = 1
        stage["width"] //= 8
        if "head_size" in stage["mixer"]:
            stage["mixer"]["head_size"] //= 8
        if stage["layer_scale"] is not None:
            stage["layer_scale"] = 0.5
    return Architecture.model_validate(raw)


def walk(arch: Architecture) -> None:
    """Build, train a step at two batch sizes, write the weights down and read them, the architecture too, and count."""
    torch.manual_seed(0)
    model = build(arch)
    # A zero classifier lets nothing through at first, and small scales without a skip almost nothing.
    fades = arch.head.zero_init or any(not stage.residual and (stage.layer_scale or 1) < 0.1 for stage in arch.stages)
    for labels in ([0, 1, 4], [2, 3]):
        model.zero_grad()
        logits = model(image(arch.resolution, batch=len(labels)))
        assert logits.shape == (len(labels), arch.head.num_classes)
        F.cross_entropy(logits, torch.tensor(labels)).backward()
        for path, parameter in model.named_parameters():
            assert parameter.grad is not None, path
            assert torch.isfinite(parameter.grad).all(), path
            assert fades or parameter.ndim < 2 or parameter.grad.abs().max() > 0, path
    again = build(Architecture.from_yaml(arch.to_yaml()))
    again.load_state_dict(model.state_dict())
    x_BCHW = image(arch.resolution)
    with torch.no_grad():
        torch.testing.assert_close(again.eval()(x_BCHW), model.eval()(x_BCHW), rtol=0, atol=0)
    assert again.arch == arch
    cost = count_cost(arch)
    assert cost.params == sum(parameter.numel() for parameter in model.parameters())
    assert cost.macs > cost.params / 2  # but for norms and biases every parameter is multiplied at least once


@pytest.mark.parametrize("name", zoo.names())
def test_the_whole_zoo_trains_is_written_down_and_read_again_in_small(name: str) -> None:
    walk(small(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in zoo.names()[::3] if count_cost(zoo.get(name)).macs < 10e9])
def test_the_zoo_trains_is_written_down_and_read_again_in_full_size(name: str) -> None:
    """Without drop path, which in a small batch may leave out a block altogether; larger models would take minutes."""
    walk(zoo.get(name).model_copy(update={"drop_path": 0.0}))


@settings(max_examples=40)
@given(architectures())
def test_any_architecture_runs_forward_and_backward(arch: Architecture) -> None:
    torch.manual_seed(0)
    model = build(arch)
    x_BCHW = torch.randn(2, arch.stem.in_channels, arch.resolution, arch.resolution)
    logits = model(x_BCHW)
    assert logits.shape == (2, arch.head.num_classes)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@settings(max_examples=40)
@given(architectures())
def test_features_have_the_widths_and_sides_that_the_architecture_states(arch: Architecture) -> None:
    with torch.device("meta"):
        maps = build(arch).eval().features(torch.zeros(1, arch.stem.in_channels, arch.resolution, arch.resolution))
    widths = [stage.out_width for stage in arch.stages]
    expected = [(1, width, *tokens.shape) for width, tokens in zip(widths, arch.token_maps(), strict=True)]
    assert [tuple(map_BCHW.shape) for map_BCHW in maps] == expected


@pytest.mark.parametrize("name", zoo.names())
@torch.no_grad()
def test_the_memory_format_of_the_image_does_not_change_the_logits(name: str) -> None:
    torch.manual_seed(0)
    model = build(small(name)).eval()
    x_BCHW = image(model.arch.resolution)
    channels_last = x_BCHW.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(model(x_BCHW), model(channels_last), rtol=0, atol=0)


@torch.no_grad()
def test_maps_stay_in_channels_last_memory() -> None:
    model = build(small("metaformer_ppaa_s12_224")).eval()
    for map_BCHW in model.features(image(64)):
        assert map_BCHW.is_contiguous(memory_format=torch.channels_last)


def one_stage(**fields: object) -> Stage:
    return Stage.model_validate({"depth": 1, "width": 8, "mixer": IdentitySpec(), **fields})


def map_and_norm() -> tuple[Tensor, Tensor]:
    """A map, and the map under a norm over channels and positions with weight 1 and bias 0."""
    x_BCHW = torch.randn(2, 8, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mean = x_BCHW.mean((1, 2, 3), keepdim=True)
    variance = ((x_BCHW - mean) ** 2).mean((1, 2, 3), keepdim=True)
    return x_BCHW, (x_BCHW - mean) / (variance + 1e-5).sqrt()


def half_block(stage: Stage, *, drop_path: float = 0.0) -> Branch:
    return Branch(nn.Identity(), stage, drop_path=drop_path).double()


def test_an_identity_half_block_adds_the_scaled_normalised_input() -> None:
    x_BCHW, normalised_BCHW = map_and_norm()
    branch = half_block(one_stage(layer_scale=0.25))
    torch.testing.assert_close(branch(x_BCHW), x_BCHW + 0.25 * normalised_BCHW)


def test_a_half_block_without_layer_scale_adds_the_whole_branch() -> None:
    x_BCHW, normalised_BCHW = map_and_norm()
    branch = half_block(one_stage(layer_scale=None))
    torch.testing.assert_close(branch(x_BCHW), x_BCHW + normalised_BCHW)
    assert {name for name, _ in branch.named_parameters()} == {"norm.weight", "norm.bias"}


def test_a_half_block_without_residual_is_the_branch_alone() -> None:
    x_BCHW, normalised_BCHW = map_and_norm()
    branch = half_block(one_stage(layer_scale=0.25, residual=False), drop_path=0.5)
    torch.testing.assert_close(branch(x_BCHW), 0.25 * normalised_BCHW)


def test_a_block_without_channel_mlp_is_its_mixer_half() -> None:
    arch = Architecture(resolution=16, stages=(one_stage(mlp=None, norm=Norm(kind="none"), layer_scale=0.5),))
    stage = build(arch).stages[0]
    x_BCHW = image(16)
    torch.testing.assert_close(stage(x_BCHW), 1.5 * stage.embed(x_BCHW))


def test_a_residual_scale_stands_on_the_skip_and_not_on_the_branch() -> None:
    x_BCHW, normalised_BCHW = map_and_norm()
    branch = half_block(one_stage(layer_scale=None, res_scale=0.5))
    torch.testing.assert_close(branch(x_BCHW), 0.5 * x_BCHW + normalised_BCHW)
    assert branch.res_scale.scale.shape == (8,)


@pytest.mark.parametrize("residual", [True, False])
def test_a_convmixer_block_activates_and_normalises_behind_each_part(residual: bool) -> None:
    """x + norm(act(mixer(x))), then norm(act(linear(x))) without a skip; the norm here is a layer norm."""
    fields = {"mlp": None, "layer_scale": None, "post_activation": "relu", "norm": {"kind": "layer_norm"}}
    arch = Architecture(resolution=16, stages=(one_stage(**fields, residual=residual),))
    stage = build(arch).stages[0]
    x_BHWC = stage.embed(image(16)).permute(0, 2, 3, 1)
    half_BHWC = F.layer_norm(x_BHWC.relu(), (8,)) + (x_BHWC if residual else 0)
    linear = stage.blocks[0].mlp.part.fc
    expected = F.layer_norm((half_BHWC @ linear.weight.T + linear.bias).relu(), (8,))
    torch.testing.assert_close(stage(image(16)), expected.permute(0, 3, 1, 2))


def test_the_head_may_have_a_hidden_layer_of_squared_relu_and_layer_norm() -> None:
    head = Head(order="pool_then_norm", norm=Norm(kind="none"), hidden_ratio=3, dropout=0.5, num_classes=4)
    model = build(Architecture(resolution=16, head=head, stages=(one_stage(),))).eval()
    pooled = model.features(image(16))[-1].mean((2, 3))
    hidden = (pooled @ model.head.hidden.fc.weight.T + model.head.hidden.fc.bias).relu() ** 2
    expected = F.layer_norm(hidden, (24,), eps=1e-5) @ model.head.fc.weight.T + model.head.fc.bias
    torch.testing.assert_close(model(image(16)), expected)
    assert not torch.equal(model.train()(image(16)), model(image(16)))  # dropout


@pytest.mark.parametrize("pool", ["mean", "class_token"])
def test_the_head_pools_all_tokens_or_takes_the_class_token(pool: str) -> None:
    head = Head.model_validate({"pool": pool, "norm": {"kind": "none"}, "num_classes": 3})
    model = build(Architecture(resolution=16, head=head, stages=(one_stage(class_token=True),)))
    map_BCN1 = model.features(image(16))[-1]
    assert map_BCN1.shape == (2, 8, 17, 1)
    pooled = map_BCN1[:, :, 0, 0] if pool == "class_token" else map_BCN1.mean((2, 3))
    torch.testing.assert_close(model(image(16)), pooled @ model.head.fc.weight.T + model.head.fc.bias)


@pytest.mark.parametrize("order", ["norm_then_pool", "pool_then_norm"])
def test_the_head_norms_and_pools_in_the_order_stated(order: str) -> None:
    head = Head.model_validate({"order": order, "norm": {"kind": "layer_norm"}, "num_classes": 3})
    model = build(Architecture(resolution=16, head=head, stages=(one_stage(),)))
    map_BCHW = model.features(image(16))[-1]
    if order == "norm_then_pool":
        pooled = F.layer_norm(map_BCHW.permute(0, 2, 3, 1), (8,)).mean((1, 2))
    else:
        pooled = F.layer_norm(map_BCHW.mean((2, 3)), (8,))
    torch.testing.assert_close(model(image(16)), pooled @ model.head.fc.weight.T + model.head.fc.bias)


def rates_of(arch: Architecture) -> list[float]:
    """Drop-path rate of each half-block, in order; 0 where there is none."""
    with torch.device("meta"):
        branches = [module for module in build(arch).modules() if isinstance(module, Branch)]
    return [branch.drop_path.drop_prob if isinstance(branch.drop_path, DropPath) else 0.0 for branch in branches]


@pytest.mark.parametrize("name", POOLFORMERS)
def test_drop_path_rises_linearly_from_nothing_to_the_full_rate(name: str) -> None:
    """The official rule: rate * i / (L - 1) for block i of L, the same for both halves."""
    arch = zoo.get(name)
    expected = torch.linspace(0, arch.drop_path, arch.depth, dtype=torch.float64).repeat_interleave(2)
    torch.testing.assert_close(torch.tensor(rates_of(arch), dtype=torch.float64), expected)


def test_a_single_block_is_never_dropped() -> None:
    assert rates_of(Architecture(stages=(one_stage(),), drop_path=0.5)) == [0.0, 0.0]


@pytest.mark.parametrize("name", ["resmlp_12_224", "resmlp_big_24_224"])
def test_resmlp_drops_every_block_at_the_same_rate(name: str) -> None:
    """Its official code: `drop_path=drop_path_rate` for each block."""
    arch = zoo.get(name).model_copy(update={"drop_path": 0.25})
    assert rates_of(arch) == [0.25] * (2 * arch.depth)
    assert rates_of(zoo.get(name)) == [0.0] * (2 * arch.depth)


@pytest.mark.parametrize("part", ["identity", "mlp"])
@pytest.mark.parametrize("layer_scale", [0.25, None])
@pytest.mark.parametrize("res_scale", [0.75, None])
def test_drop_path_takes_a_branch_from_some_images_and_divides_it_by_the_rest(
    part: str, layer_scale: float | None, res_scale: float | None
) -> None:
    """Each image is r x or r x + s part(norm(x)) / (1 - rate), and both come up."""
    torch.manual_seed(0)
    stage = one_stage(layer_scale=layer_scale, res_scale=res_scale, norm=Norm(kind="none"))
    module = nn.Identity() if part == "identity" else ChannelMlp(8, Mlp(ratio=2))
    branch = Branch(module, stage, drop_path=0.5).double()
    x_BCHW = image(6, batch=8, dtype=torch.float64).repeat(1, 3, 1, 1)[:, :8]
    skip_BCHW = x_BCHW * (res_scale or 1.0)
    whole_BCHW = skip_BCHW + 2 * (layer_scale or 1.0) * module(x_BCHW)
    y_BCHW = branch(x_BCHW)
    kept = [torch.allclose(y_CHW, whole_CHW) for y_CHW, whole_CHW in zip(y_BCHW, whole_BCHW, strict=True)]
    assert 0 < sum(kept) < len(kept)
    for y_CHW, whole_CHW, skip_CHW, is_kept in zip(y_BCHW, whole_BCHW, skip_BCHW, kept, strict=True):
        torch.testing.assert_close(y_CHW, whole_CHW if is_kept else skip_CHW)


def test_gradient_checkpointing_gives_the_same_gradients() -> None:
    torch.manual_seed(0)
    model = build(small("caformer_s18")).train()
    stage, x_BCHW = model.stages[0], image(32)
    plain = torch.autograd.grad(stage(x_BCHW).square().sum(), list(stage.parameters()))
    again = torch.autograd.grad(checkpoint(stage, x_BCHW, use_reentrant=False).square().sum(), list(stage.parameters()))
    torch.testing.assert_close(again, plain, rtol=0, atol=0)


def test_drop_path_acts_in_training_only() -> None:
    torch.manual_seed(0)
    arch = Architecture(resolution=16, stages=(one_stage(depth=2, layer_scale=1.0),), drop_path=0.9)
    model = build(arch)
    x_BCHW = image(16, batch=8)
    assert not torch.equal(model(x_BCHW), model(x_BCHW))
    model.eval()
    assert torch.equal(model(x_BCHW), model(x_BCHW))


def test_initial_weights_are_those_the_paper_states() -> None:
    """Truncated normal of 0.02 and zero biases for linear layers, norms 1 and 0, LayerScale and positions as set."""
    torch.manual_seed(0)
    model = build("metaformer_ppaa_s12_224")
    for path, module in model.named_modules():
        if isinstance(module, nn.Linear):
            assert float(module.weight.detach().std()) == pytest.approx(0.02, rel=0.02), path
            assert module.bias is None or not module.bias.any(), path
    for path, parameter in model.named_parameters():
        if path.endswith(("norm.weight", "norm.bias")):
            assert (parameter == float(path.endswith("weight"))).all(), path
        if path.endswith("scale.scale"):
            assert (parameter == 1e-5).all(), path
    assert not model.stages[2].position.pos_embed.any()
    assert isinstance(model.stages[3].position, nn.Identity)


def test_positions_are_added_after_the_downsampling_and_before_the_blocks() -> None:
    """The block here doubles what comes in: positions added after it would not be doubled."""
    doubling = one_stage(position_embedding=True, norm=Norm(kind="none"), mlp=None, layer_scale=None)
    stage = build(Architecture(resolution=16, stages=(doubling,))).stages[0]
    nn.init.normal_(stage.position.pos_embed)
    torch.testing.assert_close(stage(image(16)), 2 * (stage.embed(image(16)) + stage.position.pos_embed))


def test_the_stem_takes_as_many_channels_as_it_states() -> None:
    arch = Architecture(resolution=16, stem=Stem(in_channels=1), stages=(one_stage(mixer=PoolSpec()),))
    assert build(arch)(torch.zeros(1, 1, 16, 16)).shape == (1, 1000)


def test_the_same_seed_gives_the_same_weights() -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(build(small("metaformer_random_s12_224")).state_dict())
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=0)


def test_a_model_is_built_from_a_value_a_name_or_a_file(tmp_path: Path) -> None:
    arch = small("poolformer_s12")
    path = tmp_path / "mine.yaml"
    path.write_text(arch.to_yaml(), encoding="utf-8")
    bare = tmp_path / "bare"
    bare.write_text(arch.to_yaml(), encoding="utf-8")
    assert zoo.resolve(arch) is arch
    assert zoo.resolve("poolformer_s24") == zoo.get("poolformer_s24")
    assert zoo.resolve(path) == zoo.resolve(str(path)) == zoo.resolve(str(bare)) == arch
    assert build(path).arch == arch


def test_an_unknown_model_is_refused_with_the_nearest_names_first() -> None:
    with pytest.raises(ArchitectureError, match=r"^model: unknown name 'poolformer_s122'; .*first: poolformer_s12, "):
        build("poolformer_s122")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArchitectureError, match=r"^architecture: must be a readable YAML file, got '.*none.yaml'"):
        build(str(tmp_path / "none.yaml"))
