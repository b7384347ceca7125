"""Names of others to ours and back, and what happens to tensors that do not fit.

B batch, C channels, N tokens, h heads, d channels of a head.
"""

from collections.abc import Mapping
from math import prod

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor

from metaformer import Architecture, CheckpointError, MetaFormer, build, zoo
from metaformer.checkpoints import from_ours, to_ours
from metaformer.checkpoints.names import Convention, conventions, places
from metaformer.specs import AttentionSpec, DepthwiseConvSpec, PoolSpec, Stage, TokensToToken
from metaformer.zoo.poolformer import four_stages
from tests.metaformer.checkpoints.official_names import OFFICIAL

ONE_OF_EACH_FORM = (
    "poolformer_s12",
    "poolformer_s12_layer_norm",
    "poolformer_s12_batch_norm",
    "poolformer_s12_no_norm",
    "metaformer_id_s12",
    "metaformer_pppa_s12_224",
    "metaformer_ppaa_s12_224",
    "metaformer_pppf_s12_224",
    "metaformer_ppff_s12_224",
    "identityformer_s12",
    "randformer_s12",
    "poolformerv2_s12",
    "convformer_s18",
    "caformer_s18",
    "deit_tiny_patch16_224",
    "mixer_s16_224",
    "resmlp_12_224",
    "pvt_tiny",
    "convmixer_256_8_p2_k5",
    "t2t_vit_7",
    "t2t_vit_t_14",
    "t2t_vit_14_se",
)
NO_CODE_RELEASED = {  # ablations that only the paper describes
    "metaformer_random_s12_224",
    "metaformer_dwconv_s12",
    "poolformer_s12_no_residual",
    "poolformer_s12_no_channel_mlp",
}


def on_meta(arch: Architecture) -> dict[str, Tensor]:
    with torch.device("meta"):
        return MetaFormer(arch).state_dict()


def shapes_of(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def shallow(name: str) -> Architecture:
    """A zoo model with two blocks in each stage."""
    arch = zoo.get(name)
    return arch.model_copy(update={"stages": tuple(stage.model_copy(update={"depth": 2}) for stage in arch.stages)})


def numbered(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Tensors in which no number occurs twice."""
    tensors, start = {}, 0
    for name, shape in shapes.items():
        tensors[name] = torch.arange(start, start + prod(shape), dtype=torch.float64).reshape(shape)
        start += prod(shape)
    return tensors


def drawn(arch: Architecture) -> dict[str, Tensor]:
    """The tensors of a fresh model."""
    torch.manual_seed(0)
    return build(arch).state_dict()


SMALL = four_stages(depths=(1, 1, 1, 1), widths=(8, 16, 24, 32))


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_names_and_shapes_are_those_of_the_official_model_classes(name: str) -> None:
    expected, num_params = OFFICIAL[name]
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    assert sum(prod(shape) for path, shape in expected.items() if not path.endswith(statistics)) == num_params
    arch = zoo.get(name)
    assert shapes_of(from_ours(on_meta(arch), arch, "official")) == expected
    state = {path: torch.empty(shape, device="meta") for path, shape in expected.items()}
    assert shapes_of(to_ours(state, arch)) == shapes_of(on_meta(arch))


IN_TIMM = [name for name in zoo.names() if timm.is_model(name)]


@pytest.mark.parametrize("name", [name for name in ONE_OF_EACH_FORM if name in IN_TIMM])
def test_names_and_shapes_for_timm_are_those_of_its_own_model(name: str) -> None:
    with torch.device("meta"):
        theirs = timm.create_model(name).state_dict()
    assert shapes_of(from_ours(on_meta(zoo.get(name)), zoo.get(name), "timm")) == shapes_of(theirs)


def test_every_model_that_timm_has_has_names_of_timm() -> None:
    assert {name for name in IN_TIMM if "timm" not in conventions(zoo.get(name))} == set()


def test_every_model_of_the_zoo_has_official_names_but_those_without_official_code() -> None:
    without = {name for name in zoo.names() if "official" not in conventions(zoo.get(name))}
    in_jax = {"mixer_s16_224", "mixer_b16_224", "mixer_l16_224"}
    assert without == NO_CODE_RELEASED | in_jax | {"t2t_vit_16_ghost"}  # whose ghosts lie otherwise there


@pytest.mark.slow
def test_in_every_model_each_tensor_of_ours_is_filled_once_and_whole() -> None:
    for name in zoo.names():
        arch = zoo.get(name)
        shapes = shapes_of(on_meta(arch))
        for convention in conventions(arch):
            filled: dict[str, list[tuple[int, int]]] = {path: [] for path in shapes}
            found = places(arch, convention, shapes)
            for place in found.values():
                filled[place.path].append(place.thirds)
            assert all(thirds in ([(0, 3)], [(0, 1), (1, 3)]) for thirds in filled.values()), (name, convention)
            elements = sum(prod(place.shape) for place in found.values())
            assert elements == sum(prod(shape) for shape in shapes.values()), (name, convention)


@pytest.mark.parametrize(
    ("name", "convention"),
    [
        pytest.param(name, convention, marks=[pytest.mark.slow] * (place % 3 > 0))
        for place, name in enumerate(ONE_OF_EACH_FORM)
        for convention in conventions(zoo.get(name))
    ],
)
def test_there_and_back_changes_no_number(name: str, convention: Convention) -> None:
    arch = shallow(name)
    ours = numbered(shapes_of(on_meta(arch)))
    theirs = from_ours(ours, arch, convention)
    torch.testing.assert_close(to_ours(theirs, arch), ours, rtol=0, atol=0)
    torch.testing.assert_close(from_ours(to_ours(theirs, arch), arch, convention), theirs, rtol=0, atol=0)


def test_the_form_of_an_architecture_decides_its_names_and_not_its_size_or_channels() -> None:
    assert conventions(SMALL) == ("ours", "official", "timm")
    arch = zoo.get("deit_tiny_patch16_224").model_copy(update={"resolution": 384, "drop_path": 0.0})
    assert conventions(arch) == ("ours", "official", "timm")
    mixed = four_stages(mixers=(PoolSpec(), DepthwiseConvSpec(), PoolSpec(), AttentionSpec()))
    assert conventions(mixed) == ("ours",)


def test_query_and_key_with_value_of_pvt_are_attention_with_two_linear_layers() -> None:
    arch = shallow("pvt_tiny")
    names = shapes_of(from_ours(on_meta(arch), arch, "official"))
    generator = torch.Generator().manual_seed(0)
    state = {name: torch.randn(shape, generator=generator) / 16 for name, shape in names.items()}
    model = build(arch).eval()
    model.load_state_dict(to_ours(state, arch))
    x_BNC = torch.randn(2, 50, 512, generator=generator)

    def linear(name: str, x: Tensor) -> Tensor:
        return F.linear(x, state[f"block4.1.attn.{name}.weight"], state[f"block4.1.attn.{name}.bias"])

    q_BhNd = linear("q", x_BNC).reshape(2, 50, 8, 64).transpose(1, 2)
    k_BhNd, v_BhNd = linear("kv", x_BNC).reshape(2, 50, 2, 8, 64).permute(2, 0, 3, 1, 4)
    y_BhNd = (q_BhNd @ k_BhNd.mT / 8).softmax(-1) @ v_BhNd
    expected_BNC = linear("proj", y_BhNd.transpose(1, 2).reshape(2, 50, 512))
    mixer = model.stages[3].blocks[1].mixer.part
    got_BNC = mixer(x_BNC.mT.unsqueeze(3)).squeeze(3).mT
    torch.testing.assert_close(got_BNC, expected_BNC, rtol=1e-4, atol=1e-5)


def test_positions_of_a_vision_transformer_are_resampled_on_request_and_the_class_token_kept() -> None:
    small = shallow("deit_tiny_patch16_224")
    large = small.model_copy(update={"resolution": 384})
    state = from_ours(drawn(small), small, "official")
    got_BNC = to_ours(state, large, resample_positions=True)["stages.0.position.pos_embed"].flatten(2).mT
    map_BCHW = state["pos_embed"][:, 1:].reshape(1, 14, 14, 192).permute(0, 3, 1, 2)
    expected_BCHW = F.interpolate(map_BCHW, (24, 24), mode="bicubic", align_corners=False)  # DeiT's main.py
    torch.testing.assert_close(got_BNC[:, :1], state["pos_embed"][:, :1], rtol=0, atol=0)
    torch.testing.assert_close(got_BNC[:, 1:], expected_BCHW.flatten(2).mT)


@pytest.mark.parametrize("convention", ["ours", "official"])
def test_positions_in_the_form_of_a_map_are_resampled_too(convention: Convention) -> None:
    small = shallow("metaformer_ppaa_s12_224")
    large = small.model_copy(update={"resolution": 160})
    state = drawn(small)
    state["stages.2.position.pos_embed"].normal_()
    theirs = from_ours(state, small, convention)
    got_BCHW = to_ours(theirs, large, resample_positions=True)["stages.2.position.pos_embed"]
    expected_BCHW = F.interpolate(state["stages.2.position.pos_embed"], (10, 10), mode="bicubic", antialias=True)
    torch.testing.assert_close(got_BCHW, expected_BCHW)


def test_positions_of_t2t_vit_are_resampled_as_its_code_does() -> None:
    small = shallow("t2t_vit_7")
    large = small.model_copy(update={"resolution": 384})
    state = from_ours(drawn(small), small, "official")
    got_BNC = to_ours(state, large, resample_positions=True)["stages.0.position.pos_embed"].flatten(2).mT
    map_BCHW = state["pos_embed"][:, 1:].reshape(1, 14, 14, 256).permute(0, 3, 1, 2)
    torch.testing.assert_close(got_BNC[:, 1:], F.interpolate(map_BCHW, (24, 24), mode="bicubic").flatten(2).mT)


def test_positions_of_pvt_are_resampled_as_its_code_does_in_every_stage() -> None:
    small = shallow("pvt_tiny")
    large = small.model_copy(update={"resolution": 384})
    state = from_ours(drawn(small), small, "official")
    got = to_ours(state, large, resample_positions=True)
    for stage, (side, new_side) in enumerate([(56, 96), (28, 48), (14, 24), (7, 12)]):
        table_1NC, fitted_BCHW = state[f"pos_embed{stage + 1}"], got[f"stages.{stage}.position.pos_embed"]
        num_first = table_1NC.shape[1] - side**2
        map_BCHW = table_1NC[:, num_first:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
        expected_BCHW = F.interpolate(map_BCHW, (new_side, new_side), mode="bilinear")
        torch.testing.assert_close(fitted_BCHW.flatten(2)[:, :, num_first:], expected_BCHW.flatten(2))


def test_positions_of_all_stages_of_pvt_are_resampled_and_the_model_runs() -> None:
    small = shallow("pvt_tiny")
    large = small.model_copy(update={"resolution": 256})
    model = build(large).eval()
    model.load_state_dict(to_ours(from_ours(drawn(small), small, "official"), large, resample_positions=True))
    with torch.inference_mode():
        assert model(torch.zeros(1, 3, 256, 256)).shape == (1, 1000)


def test_positions_that_fit_are_left_alone_by_resampling() -> None:
    arch = shallow("deit_tiny_patch16_224")
    state = drawn(arch)
    torch.testing.assert_close(to_ours(state, arch, resample_positions=True), dict(state), rtol=0, atol=0)


def refused(state: Mapping[str, Tensor], arch: Architecture, *, resample_positions: bool = False) -> str:
    """The one line that says why."""
    with pytest.raises(CheckpointError) as caught:
        to_ours(state, arch, resample_positions=resample_positions)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    return text


RULE = "checkpoint: must have just the tensors of this architecture, here by "


def test_missing_tensors_are_listed() -> None:
    state = from_ours(drawn(SMALL), SMALL, "official")
    del state["head.weight"], state["network.2.0.norm1.bias"]
    assert refused(state, SMALL) == RULE + ("the official names, got 2 missing: network.2.0.norm1.bias, head.weight")


def test_tensors_that_are_too_many_are_listed_and_a_long_list_is_cut() -> None:
    state = from_ours(drawn(SMALL), SMALL, "timm") | {f"extra.{i}": torch.ones(1) for i in range(7)}
    assert refused(state, SMALL) == RULE + (
        "timm's names, got 7 too many: extra.0, extra.1, extra.2, extra.3, extra.4 and 2 more"
    )


def test_a_tensor_of_another_shape_is_listed_with_both_shapes() -> None:
    state = drawn(SMALL)
    state["stages.1.blocks.0.mlp.part.fc1.weight"] = torch.ones(32, 16)
    assert refused(state, SMALL) == RULE + (
        "our names, got 1 of another shape: stages.1.blocks.0.mlp.part.fc1.weight is (32, 16), not (64, 16)"
    )


def test_a_deeper_model_of_the_family_is_told_by_what_is_too_many() -> None:
    deeper = from_ours(on_meta(zoo.get("poolformer_s24")), zoo.get("poolformer_s24"), "official")
    assert refused(deeper, zoo.get("poolformer_s12")).startswith(
        RULE + "the official names, got 120 too many: network.0.2.norm2.weight, "
    )


@pytest.mark.parametrize("name", ["deit_tiny_patch16_224", "convmixer_256_8_p2_k5", "pvt_tiny"])
def test_a_checkpoint_of_another_family_is_refused_by_its_names(name: str) -> None:
    state = from_ours(on_meta(shallow(name)), shallow(name), "official")
    assert refused(state, zoo.get("poolformer_s12")).startswith(
        "checkpoint: must have the names of this architecture (ours or official or timm), got "
    )
    assert refused(state, zoo.get("poolformer_s12")).endswith(": is it of another model?")


def test_an_architecture_of_no_family_has_our_names_alone() -> None:
    stage = Stage(depth=1, width=8, mixer=DepthwiseConvSpec())
    found = Architecture(resolution=32, stages=(stage,))
    assert "(only ours, since neither the papers' code nor timm builds it)" in refused(
        {"norm.weight": torch.ones(8)}, found
    )
    with pytest.raises(
        CheckpointError,
        match=r"^convention: must be one of ours, the only names of this architecture, got 'official'$",
    ):
        from_ours(drawn(found), found, "official")


def test_names_that_two_conventions_share_are_not_enough() -> None:
    arch = shallow("resmlp_12_224")
    state = from_ours(on_meta(arch), arch, "official")
    shared = {name: state[name] for name in ("blocks.0.norm1.alpha", "blocks.1.norm2.beta")}
    assert refused(shared, arch) == (
        "checkpoint: must have names of one kind, got blocks.0.norm1.alpha, blocks.1.norm2.beta: official or timm?"
    )


def test_a_model_must_be_whole_to_be_converted_from_ours() -> None:
    state = drawn(SMALL)
    del state["head.fc.bias"]
    with pytest.raises(CheckpointError, match=r"by our names, got 1 missing: head\.fc\.bias$"):
        from_ours(state, SMALL, "timm")


@pytest.mark.parametrize("name", ["poolformer_s12", "convformer_s18", "deit_tiny_patch16_224", "t2t_vit_7"])
def test_another_number_of_input_channels_is_said(name: str) -> None:
    arch = shallow(name)
    gray = arch.model_copy(update={"stem": arch.stem.model_copy(update={"in_channels": 1})})
    state = from_ours(on_meta(gray), gray, "official")
    assert refused(state, arch).endswith("; in_channels: the checkpoint has 1, the architecture 3")
    num_tensors = 3 if isinstance(arch.stem, TokensToToken) else 1
    assert f"got {num_tensors} of another shape: " in refused(state, arch)


@pytest.mark.parametrize("name", ["poolformer_s12", "caformer_s18"])
def test_another_number_of_classes_is_said(name: str) -> None:
    arch = shallow(name)
    ten = arch.model_copy(update={"head": arch.head.model_copy(update={"num_classes": 10})})
    state = from_ours(on_meta(arch), arch, "timm")
    text = refused(state, ten)
    assert "2 of another shape: head.fc." in text
    assert text.endswith("; num_classes: the checkpoint has 1000, the architecture 10")


def test_positions_of_another_resolution_are_refused_unless_asked_for() -> None:
    arch = shallow("deit_tiny_patch16_224")
    large = arch.model_copy(update={"resolution": 384})
    assert refused(from_ours(on_meta(arch), arch, "timm"), large).endswith(
        "got 1 of another shape: pos_embed is (1, 197, 192), not (1, 577, 192); the position embedding is of another "
        "resolution than 384; resample_positions=True would resample it"
    )


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("metaformer_ppff_s12_224", "spatial_mlp of stage 2 is for another number of tokens than 144"),
        ("mixer_s16_224", "token_mlp of stage 0 is for another number of tokens than 144"),
        ("randformer_s12", "random of stage 3 is for another number of tokens than 36"),
    ],
)
def test_a_mixer_that_fixes_the_resolution_cannot_be_resampled(name: str, kind: str) -> None:
    arch = shallow(name)
    smaller = arch.model_copy(update={"resolution": 192})
    state = from_ours(on_meta(arch), arch, conventions(arch)[1])
    assert f"the {kind} and cannot be resampled; it fixes the resolution" in refused(state, smaller)
    assert f"the {kind} and cannot" in refused(state, smaller, resample_positions=True)


def test_positions_of_a_map_that_is_not_square_are_not_resampled() -> None:
    arch = shallow("deit_tiny_patch16_224")
    state = from_ours(drawn(arch), arch, "official") | {"pos_embed": torch.zeros(1, 1 + 14 * 20, 192)}
    assert refused(state, arch, resample_positions=True) == (
        "checkpoint: pos_embed must be for a square map to be resampled, got 280 tokens"
    )
