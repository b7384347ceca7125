"""Excitation against timm, Ghost operations against plain layers of composed weights, dense connections by hand.

B batch, C channels, H height, W width, N tokens, D hidden channels.
"""

import numpy as np
import pytest
import torch
from timm.layers import SEModule
from torch import Tensor, nn

from metaformer import Architecture, build, count_cost
from metaformer.network.layers import ChannelMlp
from metaformer.network.mixers import AttentionMixer
from metaformer.network.structures import DenseBlock, Excited
from metaformer.specs import AttentionSpec, Dense, Head, Mlp, Stage, Stem

STRUCTURES: dict[str, dict[str, object]] = {
    "se": {"se_reduction": 4},
    "ghost": {"mixer": AttentionSpec(head_size=4, ghost=True), "mlp": Mlp(ratio=3, ghost=True)},
    "dense": {"depth": 5, "dense": Dense(growth=8, groups=(2, 2, 1))},
}


def a_map(*, width: int = 8) -> Tensor:
    return torch.randn(2, width, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def architecture(*, class_token: bool = True, **fields: object) -> Architecture:
    raw = {"depth": 2, "width": 16, "mixer": AttentionSpec(head_size=4), "class_token": class_token, **fields}
    stem, head = Stem(kernel=4, stride=4, padding=0), Head(pool="class_token" if class_token else "mean", num_classes=3)
    return Architecture(resolution=16, stem=stem, stages=(Stage.model_validate(raw),), head=head, drop_path=0.1)


@pytest.mark.parametrize(("reduction", "hidden"), [(4, 2), (16, 1)])
def test_excitation_is_that_of_timm_behind_the_mixer(reduction: int, hidden: int) -> None:
    module = Excited(nn.Conv2d(8, 8, 1), 8, reduction=reduction).double()
    theirs = SEModule(8, rd_channels=hidden, bias=False).double()
    weights = {"fc1": module.fc1.weight, "fc2": module.fc2.weight}
    theirs.load_state_dict({f"{name}.weight": weight[:, :, None, None] for name, weight in weights.items()})
    torch.testing.assert_close(module(a_map()), theirs(module.mixer(a_map())))


@pytest.mark.parametrize("bias", [True, False])
def test_ghosts_of_query_key_and_value_are_plain_attention_of_composed_weights(bias: bool) -> None:
    ghostly = AttentionMixer(8, AttentionSpec(head_size=2, ghost=True, qkv_bias=bias), side=6).double()
    plain = AttentionMixer(8, AttentionSpec(head_size=2, qkv_bias=bias), side=6).double()
    assert ghostly.qkv.weight.shape == (12, 8)
    assert ghostly.ghosts is not None
    state = {"proj.weight": ghostly.proj.weight, "proj.bias": ghostly.proj.bias}
    for name, tensor in ghostly.qkv.named_parameters():
        thirds = tensor.detach().unflatten(0, (3, 4))
        factors = ghostly.ghosts.detach().reshape(3, 4, *[1] * (tensor.dim() - 1))
        state[f"qkv.{name}"] = torch.cat([thirds, thirds * factors], dim=1).flatten(0, 1)
    plain.load_state_dict(state)
    x_BNC = a_map().flatten(2).transpose(1, 2)
    torch.testing.assert_close(ghostly(x_BNC), plain(x_BNC))


def test_ghosts_of_a_hidden_layer_are_activated_channels_times_factors_activated_again() -> None:
    mlp = ChannelMlp(8, Mlp(ratio=3, activation="relu", ghost=True)).double()
    assert mlp.ghosts_GC is not None
    assert (mlp.fc1.weight.shape, mlp.ghosts_GC.shape, mlp.fc2.weight.shape) == ((8, 8), (2, 8), (8, 24))
    weights = {name: tensor.detach().numpy() for name, tensor in mlp.named_parameters()}
    x_BHWC = a_map().permute(0, 2, 3, 1).numpy()
    first = np.maximum(x_BHWC @ weights["fc1.weight"].T + weights["fc1.bias"], 0)
    ghosts = [np.maximum(first * factors, 0) for factors in weights["ghosts_GC"]]
    expected = np.concatenate([first, *ghosts], axis=-1) @ weights["fc2.weight"].T + weights["fc2.bias"]
    np.testing.assert_allclose(mlp(a_map()).detach().permute(0, 2, 3, 1).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("out_width", [12, 6])
def test_a_dense_block_puts_its_growth_behind_its_input_and_a_transition_behind_both(out_width: int) -> None:
    module = DenseBlock(nn.Conv2d(8, 8, 3, padding=1), 8, growth=4, out_width=out_width).double()
    grow = module.grow.fc
    new_BHWC = nn.functional.linear(module.block(a_map()).permute(0, 2, 3, 1), grow.weight, grow.bias)
    joined_BHWC = torch.cat([a_map().permute(0, 2, 3, 1), new_BHWC], dim=3)
    if out_width == 6:
        linear = module.transition[0].fc  # type: ignore[index]
        joined_BHWC = nn.functional.gelu(nn.functional.linear(joined_BHWC, linear.weight, linear.bias))
    torch.testing.assert_close(module(a_map()), joined_BHWC.permute(0, 3, 1, 2))


def test_widths_of_t2t_vit_dense_are_those_of_its_official_code() -> None:
    """Growth 64 from 128 channels, 3, 6, 6 and 4 blocks: transitions to 160, 272 and 328 channels, 584 at the end."""
    widths = Dense(growth=64, groups=(3, 6, 6, 4)).widths(128)
    assert [widths[block] for block in (0, 2, 3, 8, 9, 14, 15, 18, 19)] == [128, 256, 160, 480, 272, 592, 328, 520, 584]


def test_a_transition_leaves_a_width_that_the_heads_divide() -> None:
    assert Dense(growth=8, groups=(1, 1)).widths(16, multiple=8) == (16, 16, 24)
    assert Dense(growth=8, groups=(2, 1)).widths(24, multiple=8) == (24, 32, 24, 32)


@pytest.mark.parametrize("name", STRUCTURES)
def test_a_structure_trains_and_costs_what_its_model_has(name: str) -> None:
    arch = architecture(**STRUCTURES[name])
    assert arch.digest != architecture().digest
    assert Architecture.from_yaml(arch.to_yaml()) == arch
    model = build(arch)
    logits = model(torch.randn(4, 3, 16, 16))
    assert logits.shape == (4, 3)
    logits.square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert count_cost(arch).params == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", STRUCTURES)
def test_a_structure_computes_in_bfloat16_under_autocast(name: str) -> None:
    torch.manual_seed(0)
    model = build(architecture(**STRUCTURES[name])).eval()
    with torch.no_grad():
        expected = model(torch.ones(2, 3, 16, 16))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(torch.ones(2, 3, 16, 16))
    torch.testing.assert_close(logits.float(), expected, atol=0.02, rtol=0.05)


@pytest.mark.parametrize("name", STRUCTURES)
@torch.no_grad()
def test_maps_of_a_structure_stay_in_channels_last_memory(name: str) -> None:
    model = build(architecture(class_token=False, **STRUCTURES[name]))
    [map_BCHW] = model.features(torch.zeros(2, 3, 16, 16))
    assert map_BCHW.is_contiguous(memory_format=torch.channels_last)
