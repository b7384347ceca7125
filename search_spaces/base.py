"""What a search space is: a fixed list of choices, and the way between genes and architectures."""

import copy
import random
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol, Self

from pydantic import Field, model_validator

from metaformer.architecture import Architecture
from metaformer.cost import Cost, count_cost
from metaformer.errors import UserError
from metaformer.specs import PositiveInt, Side, Spec, Stem

Gene = int | str
Genes = dict[str, Gene]
CostLimit = Annotated[int, Field(strict=True, gt=0, le=10**15)]  # a million billion: beyond any model
CostName = Literal["params", "macs"]
HEAD_SIZE = 32  # of every attention in the papers' hybrids; widths are multiples of it
SMALL_IMAGES = 64  # pixels, up to which a space is fitted to small images
SMALL_WIDTHS = 0.25  # factor on all widths for them
_MOST_KEPT = 256  # architectures that were encoded lately
_TRIES = 200  # uniform draws before an architecture is brought below the limits step by step


class SpaceError(UserError):
    """A space, its limits or an architecture in it that cannot be; the message names field, rule and value."""


class Limits(Spec):
    """The most an architecture may cost; None: no limit."""

    max_params: CostLimit | None = None
    max_macs: CostLimit | None = None

    def allow(self, cost: Cost) -> bool:
        """Whether the cost is within every limit."""
        return (self.max_params is None or cost.params <= self.max_params) and (
            self.max_macs is None or cost.macs <= self.max_macs
        )


class SpaceSettings(Spec):
    """What fits a space to a dataset: image size, classes, stem, a common factor on all widths, limits.

    The head size of attention is scaled with the widths, so that a stage keeps its number of heads.
    A space whose genes say the stem leaves the one here at its default.
    """

    resolution: Side = 224
    num_classes: PositiveInt = 1000
    stem: Stem = Stem()
    width_scale: Annotated[float, Field(strict=True, gt=0, le=1)] = 1.0
    limits: Limits = Limits()

    @model_validator(mode="after")
    def _check_width_scale(self) -> Self:
        if (HEAD_SIZE * self.width_scale) % 1:
            raise ValueError(
                f"width_scale: must turn the head size {HEAD_SIZE} into a whole number, got {self.width_scale}"
            )
        return self


@dataclass(frozen=True)
class Choice:
    """One gene: its name and the values it may take, either evenly spaced whole numbers by size or names."""

    name: str
    values: tuple[Gene, ...]

    @property
    def numbers(self) -> range | None:
        """The values as a range where they are numbers, else None.

        Raises:
            SpaceError: The numbers are not evenly spaced.
        """
        first, last = self.values[0], self.values[-1]
        if isinstance(first, str) or isinstance(last, str):
            return None
        numbers = range(first, last + 1, (last - first) // max(len(self.values) - 1, 1) or 1)
        if tuple(numbers) != self.values:
            raise SpaceError(f"{self.name}: must have evenly spaced values, got {self.values}")
        return numbers


class Suggester(Protocol):
    """The part of an Optuna trial that a space uses."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1) -> int: ...
    def suggest_categorical(self, name: str, choices: Sequence[str]) -> str: ...


class SearchSpace(ABC):
    """Architectures as a fixed-length genome without conditional genes.

    Genes that do nothing in an architecture (the kernel size of an attention stage) have one canonical value:
    `encode(decode(genes))` is the canonical form of `genes`. Whether a gene does anything depends on genes before it
    in `choices` alone, so that the space can be walked without meeting an architecture twice.
    """

    name: str
    choices: tuple[Choice, ...]
    takes_stem: bool = True  # whether the stem is that of the settings, not a matter of genes
    num_maps: int | None = None  # token maps of different sides, where all architectures have as many

    def __init__(self, settings: SpaceSettings) -> None:
        self.settings = settings
        self._smallest: dict[CostName, Architecture] = {}
        self._encoded: dict[tuple[Gene, ...], Architecture] = {}  # the last few, by their genes

    @abstractmethod
    def decode(self, genes: Mapping[str, Gene]) -> Architecture:
        """The architecture of these genes."""

    @abstractmethod
    def encode(self, arch: Architecture) -> Genes:
        """The canonical genes of an architecture.

        Raises:
            SpaceError: No genes of this space give this architecture.
        """

    @property
    @abstractmethod
    def size(self) -> int:
        """Number of different architectures, limits aside."""

    @property
    def size_is_exact(self) -> bool:
        """Whether `size` is the number itself, not the most that it can be."""
        return True

    @abstractmethod
    def references(self) -> dict[str, Architecture]:
        """The papers' hand-designed models that the genes can express, by zoo name, fitted to the settings."""

    def num_shared(self, other: "SearchSpace") -> int | None:
        """Number of architectures that another space with the same settings has too; None: not known."""
        return None if None in (self.num_maps, other.num_maps) or self.num_maps == other.num_maps else 0

    def stem_text(self) -> str:
        """What leads into the first stage, as a clause for people."""
        return f"a stem of stride {self.settings.stem.stride}"

    def cost(self, arch: Architecture) -> Cost:
        """What an architecture costs; a space whose costs come from a table says them here."""
        return count_cost(arch)

    def recall(self, genes: Genes) -> Architecture:
        """As `decode`; of genes that were encoded lately it is the same object, whose digest may be known already."""
        return self._encoded.get(tuple(genes[choice.name] for choice in self.choices)) or self.decode(genes)

    def within(self, limits: Limits) -> Self:
        """The same space under other limits."""
        bounded = copy.copy(self)
        bounded.settings = self.settings.model_copy(update={"limits": limits})
        return bounded

    def distinct_references(self, names: Iterable[str]) -> dict[tuple[str, ...], Architecture]:
        """The references of these names, each with all its names: several can be the same network here."""
        known = self.references()
        groups: dict[str, list[str]] = {}
        for name in names:
            groups.setdefault(known[name].digest, []).append(name)
        return {tuple(group): known[group[0]] for group in groups.values()}

    def suggest(self, trial: Suggester) -> Architecture:
        """The architecture that an Optuna trial chooses, gene by gene."""
        genes: Genes = {}
        for choice in self.choices:
            numbers = choice.numbers
            if numbers:
                genes[choice.name] = trial.suggest_int(choice.name, numbers[0], numbers[-1], step=numbers.step)
            else:
                genes[choice.name] = trial.suggest_categorical(choice.name, [str(value) for value in choice.values])
        return self.decode(genes)

    def active_choices(self, genes: Mapping[str, Gene]) -> tuple[Choice, ...]:
        """The choices that may change an architecture of these genes one at a time; the others certainly do not."""
        del genes
        return self.choices

    def mutate(self, genes: Genes, rng: random.Random) -> Genes:
        """The genes with another value for one of them."""
        choice = rng.choice([choice for choice in self.active_choices(genes) if len(choice.values) > 1])
        others = [value for value in choice.values if value != genes[choice.name]]
        return {**genes, choice.name: rng.choice(others)}

    def contains(self, arch: Architecture) -> bool:
        """Whether the genes can express the architecture and the limits allow it."""
        try:
            self.encode(arch)
        except SpaceError:
            return False
        return self.settings.limits.allow(self.cost(arch))

    def sample(self, rng: random.Random) -> Architecture:
        """An architecture within the limits: uniform over genes, or where that meets none soon, one shrunk to fit.

        Raises:
            SpaceError: No architecture satisfies the limits.
        """
        for _ in range(_TRIES):
            arch = self.decode({choice.name: rng.choice(choice.values) for choice in self.choices})
            if self.settings.limits.allow(self.cost(arch)):
                return arch
        self.check_limits()
        return self._shrink(self.encode(arch), rng)

    def smallest(self, cost_name: CostName) -> Architecture:
        """The architecture of least cost: from any start, gene by gene to the value that costs least, until none helps.

        Exact where the best value of a gene does not depend on other genes, as with widths, depths and mixers.
        """
        if cost_name not in self._smallest:
            self._smallest[cost_name] = self._find_smallest(cost_name)
        return self._smallest[cost_name]

    def _find_smallest(self, cost_name: CostName) -> Architecture:
        genes: Genes = {choice.name: choice.values[0] for choice in self.choices}
        best = self.cost_of(genes, cost_name)
        improved = True
        while improved:
            improved = False
            for choice in self.choices:
                for value in choice.values:
                    candidate = {**genes, choice.name: value}
                    cost = self.cost_of(candidate, cost_name)
                    if cost < best:
                        genes, best, improved = candidate, cost, True
        return self.decode(genes)

    def largest_cost(self, cost_name: CostName) -> int:
        """The most that an architecture costs, by the same walk as `smallest`; the limit where there is one."""
        limit = self.settings.limits.max_params if cost_name == "params" else self.settings.limits.max_macs
        if limit is not None:
            return limit
        genes: Genes = {choice.name: choice.values[-1] for choice in self.choices}
        for choice in self.choices:
            costs = {value: self.cost_of({**genes, choice.name: value}, cost_name) for value in choice.values}
            genes[choice.name] = max(costs, key=costs.__getitem__)
        return self.cost_of(genes, cost_name)

    def check_limits(self) -> None:
        """Check that some architecture satisfies the limits.

        Raises:
            SpaceError: None does; the message says how small the smallest is.
        """
        limits = self.settings.limits
        checks: tuple[tuple[CostName, int | None], ...] = (("params", limits.max_params), ("macs", limits.max_macs))
        for cost_name, limit in checks:
            if limit is None:
                continue
            least = self.cost(self.smallest(cost_name))
            cost = least.params if cost_name == "params" else least.macs
            if cost > limit:
                raise SpaceError(
                    f"max_{cost_name}: must be at least {cost:,} ({cost_name} of the smallest architecture of "
                    f"{self.name} here), got {limit:,}"
                )
        if not any(limits.allow(self.cost(self.smallest(cost_name))) for cost_name, _ in checks):
            params, macs = (self.cost(self.smallest(name)) for name, _ in checks)
            raise SpaceError(
                f"max_params, max_macs: must leave an architecture of {self.name}; the one of fewest parameters has "
                f"{params.params:,} and {params.macs:,} MACs, the one of fewest MACs {macs.params:,} and {macs.macs:,}"
            )

    def features(self, arch: Architecture) -> tuple[float, ...]:
        """The canonical genes as numbers for a surrogate model: ordered genes in [0, 1], the others one-hot."""
        genes = self.encode(arch)
        numbers: list[float] = []
        for choice in self.choices:
            index = choice.values.index(genes[choice.name])
            if choice.numbers:
                numbers.append(index / max(len(choice.values) - 1, 1))
            else:
                numbers.extend(float(i == index) for i in range(len(choice.values)))
        return tuple(numbers)

    def cost_of(self, genes: Mapping[str, Gene], cost_name: CostName) -> int:
        """One cost of the architecture of these genes."""
        cost = self.cost(self.decode(genes))
        return cost.params if cost_name == "params" else cost.macs

    def _checked(self, genes: Genes, arch: Architecture) -> Genes:
        """The genes in the order of the choices, if they are those of an architecture.

        Raises:
            SpaceError: A gene has a value that is no choice, or the genes give another architecture.
        """
        genes = {choice.name: genes[choice.name] for choice in self.choices}
        for choice in self.choices:
            if genes[choice.name] not in choice.values:
                raise SpaceError(f"{choice.name}: must be one of {choice.values}, got {genes[choice.name]!r}")
        decoded = self.decode(genes)
        is_equal = decoded == arch  # to compare values takes less than a digest
        if not is_equal and decoded.digest != arch.digest:
            raise SpaceError(
                f"architecture: must follow the rules of {self.name}, got one that differs outside its genes"
            )
        if len(self._encoded) >= _MOST_KEPT:
            self._encoded.clear()
        self._encoded[tuple(genes.values())] = arch if is_equal else decoded
        return genes

    def _shrink(self, genes: Genes, rng: random.Random) -> Architecture:
        """Move random genes towards less cost until the limits are met; the smallest where that gets stuck."""
        limits = self.settings.limits
        for _ in range(_TRIES * len(self.choices)):
            choice = rng.choice(self.choices)
            candidate = {**genes, choice.name: rng.choice(choice.values)}
            now, then = self.cost(self.decode(genes)), self.cost(self.decode(candidate))
            if then.params <= now.params and then.macs <= now.macs:
                genes = candidate
                if limits.allow(then):
                    return self.decode(genes)
        smallest = [self.smallest("params"), self.smallest("macs")]
        return next(arch for arch in smallest if limits.allow(self.cost(arch)))
