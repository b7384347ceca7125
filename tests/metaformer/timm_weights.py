"""timm's models on random weights, and the same weights under our names."""

import re
from functools import reduce

import timm
import torch
from torch import Tensor, nn

from metaformer import Architecture, MetaFormer, build

BLOCK = r"^(stages\.\d+\.blocks\.\d+)\."
METAFORMER = [
    (r"^stem\.conv\.", "stages.0.embed.conv."),
    (r"^stem\.norm\.", "stages.0.embed.post_norm."),
    (r"\.downsample\.norm\.", ".embed.pre_norm."),
    (r"\.downsample\.conv\.", ".embed.conv."),
    (BLOCK + r"norm1\.", r"\1.mixer.norm."),
    (BLOCK + r"norm2\.", r"\1.mlp.norm."),
    (BLOCK + r"layer_scale1\.", r"\1.mixer.scale."),
    (BLOCK + r"layer_scale2\.", r"\1.mlp.scale."),
    (BLOCK + r"res_scale1\.", r"\1.mixer.res_scale."),
    (BLOCK + r"res_scale2\.", r"\1.mlp.res_scale."),
    (BLOCK + r"token_mixer\.(qkv|proj)\.", r"\1.mixer.part.mixer.\2."),
    (BLOCK + r"token_mixer\.", r"\1.mixer.part."),
    (BLOCK + r"mlp\.(fc|act)", r"\1.mlp.part.\2"),
    (r"^head\.fc\.fc1\.", "head.hidden.fc."),
    (r"^head\.fc\.norm\.", "head.hidden.norm."),
    (r"^head\.fc\.fc2\.", "head.fc."),
]
BARE_STEM = [(r"\.embed\.conv\.", ".embed.")]  # PoolFormer's convolutions have no norm beside them
ISOTROPIC = [
    (r"^(patch_embed|stem)\.proj\.", "stages.0.embed."),
    (r"^cls_token", "stages.0.class_token.cls_token"),
    (r"^pos_embed", "stages.0.position.pos_embed"),
    (r"^head\.", "head.fc."),
    (r"^norm\.", "head.norm."),
    (r"^blocks\.", "stages.0.blocks."),
    (r"\.alpha$", ".weight"),
    (r"\.beta$", ".bias"),
    (BLOCK + r"norm1\.", r"\1.mixer.norm."),
    (BLOCK + r"norm2\.", r"\1.mlp.norm."),
    (BLOCK + r"(attn|mlp_tokens)\.", r"\1.mixer.part.mixer."),
    (BLOCK + r"linear_tokens\.", r"\1.mixer.part.mixer.fc."),
    (BLOCK + r"mlp(_channels)?\.fc", r"\1.mlp.part.fc"),
    (BLOCK + r"ls1$", r"\1.mixer.scale.scale"),
    (BLOCK + r"ls2$", r"\1.mlp.scale.scale"),
]
CONVMIXER = [
    (r"^stem\.0\.", "stages.0.embed.conv."),
    (r"^stem\.2\.", "stages.0.embed.post_norm."),
    (r"^head\.", "head.fc."),
    (r"^blocks\.", "stages.0.blocks."),
    (BLOCK + r"0\.fn\.0\.", r"\1.mixer.part.conv."),
    (BLOCK + r"0\.fn\.2\.", r"\1.mixer.norm."),
    (BLOCK + r"1\.", r"\1.mlp.part.fc."),
    (BLOCK + r"3\.", r"\1.mlp.norm."),
]


def rules_for(name: str) -> list[tuple[str, str]]:
    """timm's names to ours, as substitutions in turn."""
    if name.startswith("convmixer"):
        return CONVMIXER
    if name.startswith(("deit", "mixer", "resmlp")):
        return ISOTROPIC
    return METAFORMER + (BARE_STEM if name.startswith("poolformer_") else [])


def from_timm(name: str, state: dict[str, Tensor], like: dict[str, Tensor]) -> dict[str, Tensor]:
    """timm's weights under our names, in the shapes of `like`: 1 x 1 convolutions are linear layers of ours."""
    ours = {}
    for theirs, tensor in state.items():
        path = reduce(lambda text, rule: re.sub(*rule, text), rules_for(name), theirs)
        fitted = tensor.mT if path.endswith("pos_embed") else tensor  # BNC there, BCN1 here
        ours[path] = fitted.reshape(like[path].shape) if path in like else fitted
    return ours


def random_like(state: dict[str, Tensor], *, dtype: torch.dtype) -> dict[str, Tensor]:
    """Random weights for every name: scales of 0.5 to 1, so that each block matters; the rest keep the variance."""
    generator = torch.Generator().manual_seed(0)
    drawn = {}
    for name, tensor in state.items():
        is_norm = name.endswith(("alpha", "running_var")) or (tensor.ndim == 1 and name.endswith("weight"))
        if name.endswith("num_batches_tracked"):
            drawn[name] = torch.ones((), dtype=torch.long)
        elif is_norm or name.endswith(("scale", "ls1", "ls2")):
            drawn[name] = 0.5 + 0.5 * torch.rand(tensor.shape, generator=generator, dtype=dtype)
        else:
            inputs = tensor[0].numel() if tensor.ndim > 1 else 16
            drawn[name] = torch.randn(tensor.shape, generator=generator, dtype=dtype) / inputs**0.5
    return drawn


def pair_with_timm(
    name: str, *, dtype: torch.dtype, arch: Architecture | None = None, theirs: nn.Module | None = None
) -> tuple[MetaFormer, nn.Module]:
    """Our model and timm's on the same random weights: of this name, or of an architecture and the like of timm."""
    with torch.device("meta"):
        ours, theirs = build(arch or name), theirs or timm.create_model(name)
    state = random_like(theirs.state_dict(), dtype=dtype)
    theirs.load_state_dict(state, assign=True)
    ours.load_state_dict(from_timm(name, state, ours.state_dict()), assign=True)
    return ours.eval(), theirs.eval()
