"""Random states of our own for libraries that draw from the global generators."""

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nas.data.registry import mix_seed


class PrivateGenerators:
    """Swap in private random states inside `with`; they persist across uses.

    They stand in for Python's, numpy's and torch's global generators.

    timm's transforms, loader and Mixup draw from the global ones. A GPU's generator is left alone: timm draws from it
    only the noise in erased rectangles, in the order of the training steps.
    """

    def __init__(self, *seed: int) -> None:
        self._seed = mix_seed(*seed)
        self._ours: tuple[Any, Any, Tensor] | None = None

    def __enter__(self) -> None:
        self._theirs = get_states()
        if self._ours is not None:
            set_states(*self._ours)
        else:
            random.seed(self._seed)
            np.random.seed(self._seed % 2**32)
            torch.default_generator.manual_seed(self._seed)  # torch.manual_seed would set the GPU's too

    def __exit__(self, *_: object) -> None:
        self._ours = get_states()
        set_states(*self._theirs)


def get_states() -> tuple[Any, Any, Tensor]:
    """Where the global generators of Python, numpy and torch, on the CPU, stand."""
    return random.getstate(), np.random.get_state(), torch.get_rng_state()


def set_states(python: Any, numpy: Any, of_torch: Tensor) -> None:
    """Set them to where they stood."""
    random.setstate(python)
    np.random.set_state(numpy)
    torch.set_rng_state(of_torch)
