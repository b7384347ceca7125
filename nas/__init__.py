"""Search of architectures; `open_run` and `run_search` are for Python and notebooks, the programs for a shell.

They are loaded when they are first asked for, and so is `ExactCostSampler`, for studies of Optuna's own.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nas.from_python import OpenedRun, open_run, run_search
    from nas.session.proposers.exact_cost_sampler import ExactCostSampler

__all__ = ["ExactCostSampler", "OpenedRun", "open_run", "run_search"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from_sampler = name == "ExactCostSampler"
    module = "nas.session.proposers.exact_cost_sampler" if from_sampler else "nas.from_python"
    return getattr(import_module(module), name)
