"""How images are prepared for each model; the figures are those of the official repositories."""

import pytest
from pydantic import ValidationError

from metaformer import ArchitectureError, zoo
from metaformer.zoo import Preprocessing

CROPS = {
    "poolformer_s12": 0.9,
    "poolformer_s24": 0.9,
    "poolformer_s36": 0.9,
    "poolformer_m36": 0.95,
    "poolformer_m48": 0.95,
    "metaformer_id_s12": 0.9,
    "metaformer_pppa_s12_224": 0.95,
    "metaformer_ppaa_s12_224": 0.95,
    "metaformer_pppf_s12_224": 0.9,
    "metaformer_ppff_s12_224": 0.95,
    "identityformer_m48": 1.0,
    "caformer_b36": 1.0,
    "deit_base_patch16_224": 0.875,
    "mixer_b16_224": 0.875,
    "resmlp_24_224": 0.9,
    "pvt_large": 0.875,
    "convmixer_1024_20_ks9_p14": 0.96,
    "t2t_vit_t_24": 0.9,
    "convmixer_256_8_p1_k9": 1.0,
}


@pytest.mark.parametrize(("name", "crop_pct"), CROPS.items())
def test_the_crop_is_that_of_the_official_evaluation(name: str, crop_pct: float) -> None:
    assert zoo.preprocessing(name).crop_pct == crop_pct


def test_every_model_has_one_at_its_own_resolution() -> None:
    for name in zoo.names():
        assert zoo.preprocessing(name).resolution == zoo.get(name).resolution


def test_mixers_see_values_around_zero_and_cifar_models_its_colours() -> None:
    for name in zoo.names():
        found = zoo.preprocessing(name)
        if name.startswith("mixer"):
            assert (found.mean, found.std) == ((0.5,) * 3, (0.5,) * 3)
        elif found.resolution == 32:
            assert (found.mean, found.std) == ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616))
        else:
            assert (found.mean, found.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_an_architecture_of_your_own_has_the_defaults_at_its_resolution() -> None:
    arch = zoo.get("poolformer_m36").model_copy(update={"resolution": 96})
    assert zoo.preprocessing(arch) == Preprocessing(resolution=96)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ArchitectureError, match="^model: unknown name 'poolformer_s13'"):
        zoo.preprocessing("poolformer_s13")
    with pytest.raises(ValidationError, match="less than or equal to 1"):
        Preprocessing(crop_pct=1.1)
