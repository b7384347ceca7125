"""Seconds that a forward pass takes on the device of the search.

B batch, C channels, H height, W width.
"""

import time
from statistics import median
from typing import TYPE_CHECKING

from nas.study.objectives.base import MeasuredObjective, register_objective
from nas.study.objectives.units import parse_quantity

if TYPE_CHECKING:
    import torch

    from metaformer.network.model import MetaFormer

_BATCH = 32  # images of the larger batch
_WARM_UPS = 3
_FEWEST, _MOST = 5, 50  # timed passes
_SECONDS = 1.0  # after which no further pass is begun, once there are `_FEWEST`


class _Latency(MeasuredObjective):
    """Milliseconds an image in float32: the median of timed forward passes after warm ones."""

    batch_size: int

    def measure(self, model: "MetaFormer", *, resolution: int, device: "torch.device") -> float:
        import torch

        x_BCHW = torch.randn(self.batch_size, 3, resolution, resolution, device=device)
        x_BCHW = x_BCHW.contiguous(memory_format=torch.channels_last)

        def seconds() -> float:
            start = time.perf_counter()
            model(x_BCHW)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            return time.perf_counter() - start

        with torch.inference_mode():
            for _ in range(_WARM_UPS):
                seconds()
            times: list[float] = []
            while len(times) < _FEWEST or (sum(times) < _SECONDS and len(times) < _MOST):
                times.append(seconds())
        return 1e3 * median(times) / self.batch_size

    def text(self, value: float) -> str:
        return f"{value:.3g} ms"

    def parse_limit(self, text: str) -> float:
        return parse_quantity(f"max_{self.name}", text, {"ms": 1.0, "us": 1e-3, "s": 1e3}, example="3ms")


@register_objective("latency")
class Latency(_Latency):
    """Milliseconds for one image alone."""

    metric = "latency_ms"
    title = "latency of one image (ms)"
    batch_size = 1


@register_objective("batch_latency")
class BatchLatency(_Latency):
    """Milliseconds an image where 32 are computed together."""

    metric = f"latency_batch_{_BATCH}_ms"
    title = f"latency an image in a batch of {_BATCH} (ms)"
    batch_size = _BATCH
