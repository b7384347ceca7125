"""timm's models on random weights, and the same weights under our names."""

import timm
import torch
from torch import Tensor, nn

from metaformer import Architecture, MetaFormer, build
from metaformer.checkpoints import to_ours


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
    ours.load_state_dict(to_ours(state, ours.arch), assign=True)
    return ours.eval(), theirs.eval()
