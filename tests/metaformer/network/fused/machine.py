"""Where kernels run in these tests: on CPU where Triton interprets them, otherwise on a GPU if there is one."""

import importlib.util
import os

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")


def skip_unless_kernels_run() -> None:
    """Skip the module that calls this where there is neither a GPU nor Triton's interpreter."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed", allow_module_level=True)
    if not (INTERPRETED or torch.cuda.is_available()):
        pytest.skip("needs a CUDA device; test_interpreted.py runs it on CPU", allow_module_level=True)
