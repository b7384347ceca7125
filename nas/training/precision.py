"""In which precision a device trains."""

from collections.abc import Mapping, Sequence
from statistics import geometric_mean

import torch

from nas.study.lease import Step
from nas.study.recipe import Precision, Recipe

_GAIN = 1.1  # how many times as fast bfloat16 must be for a CPU to train with it


def autocast(device: torch.device, recipe: Recipe) -> torch.autocast:
    """To bfloat16 where the recipe asks for it, or leaves it open and the device is a GPU that has it."""
    if recipe.precision == "auto":
        enabled = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        enabled = recipe.precision == "bfloat16"
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def open_precisions(device: torch.device, recipe: Recipe) -> tuple[Precision, ...]:
    """Those among which measuring chooses, on a CPU that multiplies bfloat16 and where the recipe leaves it open."""
    if recipe.precision != "auto" or device.type != "cpu":
        return ()
    has = torch.cpu.get_capabilities()
    return ("float32", "bfloat16") if has.get("amx_bf16") or has.get("avx512_bf16") else ()


def faster(steps: Mapping[Precision, Sequence[Step]]) -> Precision:
    """That in which a device trains the same models faster: bfloat16 where it wins by a tenth in geometric mean."""
    pairs = zip(steps["float32"], steps["bfloat16"], strict=True)
    gain = geometric_mean([one.seconds_per_image / other.seconds_per_image for one, other in pairs])
    return "bfloat16" if gain >= _GAIN else "float32"
