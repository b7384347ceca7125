"""The papers' models: their counts and figures are the published ones."""

import pytest
import torch

from metaformer import ArchitectureError, build, count_cost, zoo

# Rows of published.csv that name two counts, and the one that our model has.
CHOSEN = {
    "metaformer_dwconv_s12": "11948456",  # the convolution has a bias
    "poolformer_s12_no_channel_mlp": "2451368",  # the second half of the block is left out, norm and scale too
}


def published_counts() -> dict[str, tuple[int, int]]:
    """Trainable and frozen parameters by model, wherever the official code or the paper gave an exact count."""
    counts = {}
    for name, row in zoo.published().items():
        text = CHOSEN.get(name, row.params_exact)
        assert text in row.params_exact
        if text:
            trainable, _, frozen = text.removesuffix(" frozen").partition(" trainable + ")
            counts[name] = (int(trainable), int(frozen or 0))
    return counts


@pytest.mark.parametrize(("name", "expected"), published_counts().items())
def test_parameters_are_the_published_ones_to_the_last(name: str, expected: tuple[int, int]) -> None:
    cost = count_cost(zoo.get(name))
    assert (cost.params, cost.frozen_params) == expected
    with torch.device("meta"):
        model = build(name)
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    frozen = sum(buffer.numel() for path, buffer in model.named_buffers() if "random_matrix" in path)
    assert (trainable, frozen) == expected


@pytest.mark.parametrize("name", zoo.names())
def test_parameters_and_macs_agree_with_the_figures_as_printed(name: str) -> None:
    """To 0.1 of the printed unit: the paper rounds some figures down, and its MACs include GroupNorm."""
    row, cost = zoo.published()[name], count_cost(zoo.get(name))
    assert row.params_M is not None
    assert row.macs_G is not None
    assert cost.params / 1e6 == pytest.approx(row.params_M, abs=0.1)
    assert cost.macs / 1e9 == pytest.approx(row.macs_G, abs=0.1)


def test_every_model_of_the_zoo_is_published_with_its_accuracy_and_nothing_else_is() -> None:
    rows = zoo.published()
    assert set(rows) == set(zoo.names())
    assert all(row.top1 is not None and row.source for row in rows.values())
    assert {row.resolution for row in rows.values()} == {224}


@pytest.mark.parametrize(
    ("name", "top1"), [("poolformer_s12", 77.2), ("metaformer_ppaa_s12_224", 81.0), ("poolformer_m48", 82.5)]
)
def test_published_accuracy_is_that_of_the_paper(name: str, top1: float) -> None:
    """arXiv:2111.11418v3, Tables 1 and 5."""
    assert zoo.published()[name].top1 == top1


@pytest.mark.parametrize(
    ("name", "depths", "widths"),
    [
        ("poolformer_s24", (4, 4, 12, 4), (64, 128, 320, 512)),
        ("poolformer_m48", (8, 8, 24, 8), (96, 192, 384, 768)),
    ],
)
def test_sizes_follow_the_table_of_the_paper(name: str, depths: tuple[int, ...], widths: tuple[int, ...]) -> None:
    stages = zoo.get(name).stages
    assert tuple(stage.depth for stage in stages) == depths
    assert tuple(stage.width for stage in stages) == widths


@pytest.mark.parametrize(
    ("name", "kinds", "positions"),
    [
        ("metaformer_ppaa_s12_224", ["pool", "pool", "attention", "attention"], [False, False, True, False]),
        ("metaformer_pppa_s12_224", ["pool", "pool", "pool", "attention"], [False, False, False, True]),
        ("metaformer_ppff_s12_224", ["pool", "pool", "spatial_mlp", "spatial_mlp"], [False] * 4),
    ],
)
def test_hybrids_mix_as_their_names_say(name: str, kinds: list[str], positions: list[bool]) -> None:
    """Positions are added once, before the first attention stage (official code)."""
    stages = zoo.get(name).stages
    assert [stage.mixer.kind for stage in stages] == kinds
    assert [stage.position_embedding for stage in stages] == positions


def test_an_unknown_model_is_refused_with_the_nearest_names_first() -> None:
    with pytest.raises(ArchitectureError, match=r"^model: unknown name 'metaformer_ppaa'; .*: metaformer_ppaa_s12"):
        zoo.get("metaformer_ppaa")
