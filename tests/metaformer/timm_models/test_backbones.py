"""Models as backbones of torchvision's feature pyramid, which takes the channels and strides that they tell timm.

B batch, C channels, H height, W width.
"""

from collections import OrderedDict

import pytest
import timm
import torch
from torchvision.ops import FeaturePyramidNetwork

from metaformer import Architecture, timm_models, zoo
from metaformer.specs import Downsample, PoolSpec, Stage, Stem

PYRAMIDS = ("poolformer_s12", "metaformer_ppaa_s12_224", "metaformer_ppff_s12_224", "pvt_tiny", "caformer_s18")
ODD = Architecture(  # strides of 3, 3, 6 and 12: there are maps of one size, and none is a power of two
    resolution=72,
    stem=Stem(kernel=5, stride=3, padding=2),
    stages=(
        Stage(depth=1, width=8, mixer=PoolSpec()),
        Stage(depth=1, width=8, mixer=PoolSpec()),
        Stage(depth=1, width=16, mixer=PoolSpec(), downsample=Downsample()),
        Stage(depth=1, width=24, mixer=PoolSpec(), downsample=Downsample()),
    ),
)


def pyramid_of(model: torch.nn.Module, x_BCHW: torch.Tensor) -> list[torch.Tensor]:
    """The maps of a feature pyramid of 32 channels on those of a backbone, finest first."""
    pyramid = FeaturePyramidNetwork(model.feature_info.channels(), out_channels=32)
    maps = OrderedDict((name, x) for name, x in zip(model.feature_info.module_name(), model(x_BCHW), strict=True))
    return list(pyramid(maps).values())


@pytest.mark.parametrize("name", [*PYRAMIDS, "odd"])
def test_a_feature_pyramid_takes_the_channels_and_strides_of_a_backbone(name: str) -> None:
    arch, side = (ODD, 72) if name == "odd" else (zoo.get(name), 64)
    given = {"architecture": arch} if name == "odd" else {}
    model = timm.create_model("mf_from_file" if given else f"mf_{name}", features_only=True, img_size=side, **given)
    x_BCHW = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    maps = pyramid_of(model, x_BCHW)
    strides = model.feature_info.reduction()
    assert [tuple(x.shape) for x in maps] == [(2, 32, side // stride, side // stride) for stride in strides]
    assert strides == ([3, 3, 6, 12] if name == "odd" else [4, 8, 16, 32])
    sum(x.square().mean() for x in maps).backward()
    head = [path for path, weight in model.named_parameters() if weight.grad is None]
    assert not head  # every weight of a backbone learns


def test_a_backbone_takes_images_of_any_shape_where_its_mixers_do() -> None:
    model = timm.create_model("mf_caformer_s18", features_only=True, out_indices=(1, 2, 3)).eval()
    with torch.no_grad():
        maps = pyramid_of(model, torch.zeros(1, 3, 64, 96))
    assert [tuple(x.shape[2:]) for x in maps] == [(8, 12), (4, 6), (2, 3)]


def test_the_backbone_of_an_isotropic_model_has_maps_of_one_stride() -> None:
    model = timm.create_model("mf_deit_tiny_patch16_224", features_only=True, img_size=64).eval()
    with torch.no_grad():
        maps = pyramid_of(model, torch.zeros(1, 3, 64, 64))
    assert {tuple(x.shape) for x in maps} == {(1, 32, 4, 4)}
    assert timm_models.TimmMetaFormer(zoo.get("deit_tiny_patch16_224")).feature_info[0]["reduction"] == 16
