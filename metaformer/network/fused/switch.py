"""Whether a layer computes by a kernel or in PyTorch's own operations."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from subprocess import CalledProcessError

import torch
from torch import Tensor, nn

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_LARGEST_IMAGE = 2**26  # numbers of one image; the kernels count those of its hidden map in 32 bits
# Of the whole process, not of a thread: a checkpointed block is computed again in a thread of autograd's.
_choice: bool | None = None


@contextmanager
def fused_kernels(use: bool) -> Iterator[None]:
    """Within, no layer of this process uses a kernel; or, with True, also those on CPU (for Triton's interpreter)."""
    global _choice  # noqa: PLW0603  one choice for the process, see above
    before, _choice = _choice, use
    try:
        yield
    finally:
        _choice = before


def usable(x: Tensor) -> bool:
    """Whether a kernel may take the map (or any tensor) x, of shape (B, ...)."""
    if torch.compiler.is_compiling() or _choice is False or not (x.is_cuda or _choice):
        return False
    return (
        type(x) in (Tensor, nn.Parameter)
        and x.dtype in _DTYPES
        and not _is_watched()
        and 0 < x.numel() < _LARGEST_IMAGE * len(x)
        and (not x.is_cuda or (_works_on(x.get_device()) and x.get_device() == torch.cuda.current_device()))
    )


def _is_watched() -> bool:
    """Whether operations are traced, counted or transformed, so that they must be PyTorch's own."""
    return (
        torch._C._is_tracing()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._are_functorch_transforms_active()
    )


@cache
def _works_on(device_index: int) -> bool:
    """Whether Triton is there, compiles for that GPU, and gives PyTorch's numbers; tried once, which takes seconds.

    Triton needs a C compiler on the machine.

    Warns:
        UserWarning: Triton is there, and does not compile or gives other numbers.
    """
    device = torch.device("cuda", device_index)
    is_new = torch.version.cuda is not None and torch.cuda.get_device_capability(device) >= (8, 0)
    if not is_new or find_spec("triton") is None:
        return False
    from metaformer.network.fused.self_check import disagreeing

    try:
        with torch.cuda.device(device):
            wrong = disagreeing(device)
    except (RuntimeError, OSError, CalledProcessError) as error:
        problem = f"Triton compiles no kernels here ({type(error).__name__}: {error})"
    else:
        problem = f"kernels give other numbers than PyTorch ({', '.join(wrong)})" if wrong else ""
    if problem:
        warnings.warn(f"{problem}; training is slower without", stacklevel=2)
    return not problem
