"""Objectives that a device measures of an architecture."""

from collections.abc import Sequence

import torch

from metaformer.architecture import Architecture
from metaformer.errors import UserError
from metaformer.network.model import build
from nas.study.lease import Measurement
from nas.study.objectives import MeasuredObjective, find
from nas.training.errors import MeasuringError
from nas.training.state import seed_everything


def measure_objectives(
    arch: Architecture, names: Sequence[str], *, device: torch.device, device_name: str
) -> Measurement:
    """The values of the objectives with these names, of a freshly built model in evaluation mode on the device.

    Raises:
        MeasuringError: The device cannot measure one of them, or lacks memory.
    """
    seed_everything(0, epoch=0)
    try:
        model = build(arch).to(device).eval()
        values = {}
        for name in names:
            objective = find(name)
            if not isinstance(objective, MeasuredObjective):
                raise MeasuringError(f"objectives: must be one that a device measures, got {name!r}")
            values[name] = objective.measure(model, resolution=arch.resolution, device=device)
    except (UserError, torch.OutOfMemoryError) as error:
        raise MeasuringError(f"objectives: must be measurable on {device_name}, got {error}") from None
    return Measurement(values=values, device=device_name)
