"""Models of the MetaFormer family from written-down architectures.

`build`, `load`, `MetaFormer`, `register_mixer` need torch, which is loaded when one of them is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from metaformer import zoo
from metaformer.architecture import Architecture
from metaformer.cost import Cost, count_cost
from metaformer.errors import ArchitectureError, CheckpointError

if TYPE_CHECKING:
    from metaformer.checkpoints import load
    from metaformer.network.mixers import register_mixer
    from metaformer.network.model import MetaFormer, build

__all__ = [
    "Architecture",
    "ArchitectureError",
    "CheckpointError",
    "Cost",
    "MetaFormer",
    "build",
    "count_cost",
    "load",
    "register_mixer",
    "zoo",
]

_NEEDS_TORCH = {
    "MetaFormer": "metaformer.network.model",
    "build": "metaformer.network.model",
    "load": "metaformer.checkpoints",
    "register_mixer": "metaformer.network.mixers",
}


def __getattr__(name: str) -> object:
    if name not in _NEEDS_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_NEEDS_TORCH[name]), name)
