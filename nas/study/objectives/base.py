"""What an objective is, the list of a study's objectives, and the objectives that are known by name.

A candidate is a trial or anything else that has costs and, once it has been trained or measured, the rest.
"""

import importlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Protocol

from metaformer.architecture import Architecture
from metaformer.cost import Cost
from metaformer.errors import UserError, check_new_name, check_subclass, unknown_name
from search_spaces.space import CostName, SearchSpace

if TYPE_CHECKING:
    import torch

    from metaformer.network.model import MetaFormer

Point = tuple[float, ...]  # one value for each objective of a study, in the study's order
ACCURACY = "accuracy"
_MODULES = ("trained", "costs", "latency", "memory")  # of this folder; each registers objectives


class Candidate(Protocol):
    """What objectives are read from."""

    @property
    def architecture(self) -> Architecture: ...
    @property
    def params(self) -> int: ...
    @property
    def macs(self) -> int: ...
    @property
    def val_accuracy(self) -> float | None: ...
    @property
    def measured(self) -> Mapping[str, float]: ...


class Objective(ABC):
    """One number by which architectures are compared. A subclass says what the class variables are."""

    name: ClassVar[str]  # in studies and on the command line; set by `register_objective`
    metric: ClassVar[str]  # in tables, CSV files and the Optuna study, with its unit
    title: ClassVar[str]  # of a chart's axis
    is_maximised: ClassVar[bool] = False
    is_logarithmic: ClassVar[bool] = True  # on axes and in the hypervolume

    @property
    def noun(self) -> str:
        """Its name inside a sentence or above a column: `batch latency`."""
        return self.name.replace("_", " ")

    @abstractmethod
    def value(self, candidate: Candidate) -> float | None:
        """The number; None while it is not known."""

    @abstractmethod
    def text(self, value: float) -> str:
        """The number as people read it, with its unit."""


class ExactObjective(Objective):
    """A cost that is known in closed form before anything is trained."""

    cost_name: ClassVar[CostName]

    @abstractmethod
    def of(self, cost: Cost) -> int:
        """The number, from the cost of an architecture."""

    def bounds(self, space: SearchSpace) -> tuple[float, float]:
        """The least and the most in a space, or its limit where it has one."""
        return self.of(space.cost(space.smallest(self.cost_name))), space.largest_cost(self.cost_name)


class MeasuredObjective(Objective):
    """A number that a trial's device measures before the first epoch, once for each architecture."""

    def value(self, candidate: Candidate) -> float | None:
        return candidate.measured.get(self.name)

    @abstractmethod
    def measure(self, model: "MetaFormer", *, resolution: int, device: "torch.device") -> float:
        """The number of a model in evaluation mode that lies on the device.

        Raises:
            UserError: This device cannot measure it.
        """

    @abstractmethod
    def parse_limit(self, text: str) -> float:
        """A limit as written on the command line, such as `3ms`.

        Raises:
            UserError: The text has another form.
        """


@dataclass(frozen=True)
class Objectives:
    """The objectives of a study, in its order."""

    members: tuple[Objective, ...]

    def __iter__(self) -> Iterator[Objective]:
        return iter(self.members)

    def __len__(self) -> int:
        return len(self.members)

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(objective.name for objective in self.members)

    @cached_property
    def is_maximised(self) -> list[bool]:
        return [objective.is_maximised for objective in self.members]

    @cached_property
    def measured(self) -> tuple[MeasuredObjective, ...]:
        """Those that a device measures."""
        return tuple(objective for objective in self.members if isinstance(objective, MeasuredObjective))

    def values(self, candidate: Candidate, *, accuracy: float | None = None) -> Point:
        """The candidate's value of each objective.

        Args:
            accuracy: Takes the place of the candidate's own, as where a stopper asks what an accuracy would be worth.
        Raises:
            ValueError: One is not known yet.
        """
        point = []
        for objective in self.members:
            value = accuracy if accuracy is not None and objective.name == ACCURACY else objective.value(candidate)
            if value is None or not math.isfinite(value):
                raise ValueError(f"{objective.name}: must be known and finite, got {value}")
            point.append(value)
        return tuple(point)


_REGISTRY: dict[str, Objective] = {}


def register_objective(name: str) -> Callable[[type[Objective]], type[Objective]]:
    """Make a class the objective called `name`.

    Raises:
        UserError: The name is taken, or what is registered is no objective.
    """
    check_new_name("objective", name, _REGISTRY)

    def register(make: type[Objective]) -> type[Objective]:
        check_subclass("objective", make, Objective)
        make.name = name
        _REGISTRY[name] = make()
        return make

    return register


def names() -> list[str]:
    """Names of all objectives."""
    for module in _MODULES:
        importlib.import_module(f"nas.study.objectives.{module}")
    return list(_REGISTRY)


def measured_names() -> list[str]:
    """Names of the objectives that a device measures."""
    return [name for name in names() if isinstance(_REGISTRY[name], MeasuredObjective)]


def find(name: str) -> Objective:
    """The objective of that name.

    Raises:
        UserError: There is none.
    """
    known = names()
    if name not in known:
        raise UserError(unknown_name("objectives", name, known))
    return _REGISTRY[name]


def choose(asked: Sequence[str]) -> Objectives:
    """The objectives of these names.

    Raises:
        UserError: One is unknown or named twice, accuracy is missing, or it is the only one.
    """
    chosen = Objectives(tuple(find(name) for name in asked))
    if len(set(asked)) != len(asked):
        raise UserError(f"objectives: must name each objective once, got {','.join(asked)}")
    if ACCURACY not in asked or len(asked) < 2:
        raise UserError(f"objectives: must be {ACCURACY} and at least one more, got {','.join(asked) or 'none'}")
    return chosen
