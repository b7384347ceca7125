"""Memory that inference takes."""

import weakref
from typing import TYPE_CHECKING, Any

from nas.study.objectives.base import MeasuredObjective, register_objective
from nas.study.objectives.units import parse_quantity

if TYPE_CHECKING:
    import torch

    from metaformer.network.model import MetaFormer

_MIB = 2**20


@register_objective("peak_memory")
class PeakMemory(MeasuredObjective):
    """MiB of weights and activations at the worst moment of one image's forward pass in float32.

    On a GPU what torch's allocator held at most. On a CPU the bytes of all tensors alive at the same time, which is
    exact and the same on every machine; scratch space inside a kernel is not seen there.
    """

    metric = "peak_memory_mib"
    title = "peak memory of inference (MiB)"

    def measure(self, model: "MetaFormer", *, resolution: int, device: "torch.device") -> float:
        import torch

        x_1CHW = torch.zeros(1, 3, resolution, resolution, device=device)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            with torch.inference_mode():
                model(x_1CHW)
            return torch.cuda.max_memory_allocated(device) / _MIB
        return _peak_tensor_bytes(model, x_1CHW) / _MIB

    def text(self, value: float) -> str:
        return f"{value:.3g} MiB"

    def parse_limit(self, text: str) -> float:
        return parse_quantity("max_peak_memory", text, {"MiB": 1.0, "GiB": 1024.0, "KiB": 1 / 1024}, example="200MiB")


def _peak_tensor_bytes(model: "MetaFormer", x_1CHW: "torch.Tensor") -> int:
    """Bytes of the model and of all tensors of a forward pass that are alive at the same time, at most."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
        """Adds up storages from their first use until they are freed."""

        def __init__(self) -> None:
            super().__init__()  # type: ignore[no-untyped-call]
            self.now, self.peak = 0, 0
            self._alive: dict[int, weakref.ref[torch.UntypedStorage]] = {}

        def add(self, tensor: torch.Tensor) -> None:
            storage = tensor.untyped_storage()
            key, size = id(storage), storage.nbytes()
            if key in self._alive:
                return

            def freed(_: object) -> None:
                self.now -= size
                del self._alive[key]

            self._alive[key] = weakref.ref(storage, freed)
            self.now += size
            self.peak = max(self.peak, self.now)

        def __torch_dispatch__(
            self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
        ) -> Any:
            result = func(*args, **(kwargs or {}))
            for leaf in tree_leaves(result):
                if isinstance(leaf, torch.Tensor):
                    self.add(leaf)
            return result

    watch = Watch()
    for tensor in (x_1CHW, *model.parameters(), *model.buffers()):
        watch.add(tensor)
    with torch.no_grad(), watch:
        model(x_1CHW)
    return watch.peak
