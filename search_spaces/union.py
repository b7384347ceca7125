"""Several spaces as one, so that one study has one front over all of them."""

import itertools
import random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Self

from metaformer.architecture import Architecture
from metaformer.cost import Cost, count_cost
from metaformer.errors import unknown_name
from metaformer.specs import Stem
from search_spaces.base import Choice, CostName, Gene, Genes, Limits, SearchSpace, SpaceError, SpaceSettings

JOIN = "+"  # between the names of the spaces
FAMILY = "family"  # the gene that says which of them an architecture is of


class Union(SearchSpace):
    """Several spaces as one: the gene `family` names one of them, and then come the genes of all.

    Genes of the other families do nothing. Their canonical value is the middle one. An architecture that is in several
    families is of the first. A stem in the settings is for the families that take one.
    """

    def __init__(self, spaces: Sequence[type[SearchSpace]], settings: SpaceSettings) -> None:
        super().__init__(settings)
        self.takes_stem = any(space.takes_stem for space in spaces)
        no_stem = settings.model_copy(update={"stem": Stem()}) if self.takes_stem else settings
        self.name = JOIN.join(space.name for space in spaces)
        self.families = {space.name: space(settings if space.takes_stem else no_stem) for space in spaces}
        self._idle: Genes = {}
        choices = [Choice(FAMILY, tuple(self.families))]
        for family, space in self.families.items():
            middle = {choice.name: choice.values[len(choice.values) // 2] for choice in space.choices}
            self._idle |= _prefixed(family, space.encode(space.decode(middle)))
            choices += [Choice(f"{family}.{choice.name}", choice.values) for choice in space.choices]
        self.choices = tuple(choices)

    def decode(self, genes: Mapping[str, Gene]) -> Architecture:
        family, space = self._family_of_genes(genes)
        return space.decode(_own(family, space, genes))

    def encode(self, arch: Architecture) -> Genes:
        reasons = []
        for family, space in self._possible(arch).items():
            try:
                return self._joined(family, space.encode(arch))
            except SpaceError as error:
                reasons.append(f"not of {family} ({error})")
        raise SpaceError(f"architecture: must be of one of the spaces of {self.name}, got one {', '.join(reasons)}")

    def family_of(self, arch: Architecture) -> str:
        """The name of the space that an architecture of the union is of."""
        possible = self._possible(arch)
        return next(iter(possible)) if len(possible) == 1 else str(self.encode(arch)[FAMILY])

    @cached_property
    def size(self) -> int:
        spaces, total = list(self.families.values()), 0
        for place, space in enumerate(spaces):
            shared = [_num_shared(space, earlier) or 0 for earlier in spaces[:place]]
            total += space.size - (sum(shared) if self.size_is_exact else max(shared, default=0))
        return total

    @cached_property
    def size_is_exact(self) -> bool:
        """Whether it is known how many architectures any two share, and that no three share one."""
        shared = {
            frozenset((one.name, other.name)): _num_shared(one, other)
            for one, other in itertools.combinations(self.families.values(), 2)
        }
        triples = itertools.combinations(self.families, 3)
        return None not in shared.values() and all(
            any(shared[frozenset(pair)] == 0 for pair in itertools.combinations(triple, 2)) for triple in triples
        )

    def references(self) -> dict[str, Architecture]:
        """Those of all families; a model of several is fitted to the settings as the first has it."""
        found: dict[str, Architecture] = {}
        for space in self.families.values():
            found |= {name: arch for name, arch in space.references().items() if name not in found}
        return found

    def stem_text(self) -> str:
        return ", ".join(f"{space.stem_text()} ({family})" for family, space in self.families.items())

    def cost(self, arch: Architecture) -> Cost:
        tables = any(type(space).cost is not SearchSpace.cost for space in self.families.values())
        return self.families[self.family_of(arch)].cost(arch) if tables else count_cost(arch)

    def within(self, limits: Limits) -> Self:
        bounded = super().within(limits)
        bounded.families = {family: space.within(limits) for family, space in self.families.items()}
        return bounded

    def active_choices(self, genes: Mapping[str, Gene]) -> tuple[Choice, ...]:
        family, space = self._family_of_genes(genes)
        own = {f"{family}.{choice.name}" for choice in space.active_choices(_own(family, space, genes))}
        return tuple(choice for choice in self.choices if choice.name == FAMILY or choice.name in own)

    def mutate(self, genes: Genes, rng: random.Random) -> Genes:
        """The genes with another value for one of them; a family that is new has random genes."""
        changed = super().mutate(genes, rng)
        family, space = self._family_of_genes(changed)
        if family == genes[FAMILY]:
            return changed
        return self._joined(family, {choice.name: rng.choice(choice.values) for choice in space.choices})

    def sample(self, rng: random.Random) -> Architecture:
        """An architecture within the limits, of a family that is drawn first, uniformly among those that have one."""
        self.check_limits()
        return rng.choice(self._affordable()).sample(rng)

    def largest_cost(self, cost_name: CostName) -> int:
        return max(space.largest_cost(cost_name) for space in self.families.values())

    def check_limits(self) -> None:
        if not self._affordable():
            super().check_limits()

    def _find_smallest(self, cost_name: CostName) -> Architecture:
        smallest = [(space.smallest(cost_name), space) for space in self.families.values()]
        costs = [space.cost(arch) for arch, space in smallest]
        least = min(range(len(costs)), key=lambda i: costs[i].params if cost_name == "params" else costs[i].macs)
        return smallest[least][0]

    def _possible(self, arch: Architecture) -> dict[str, SearchSpace]:
        """The families that an architecture with so many token maps may be of; all where it can be of none."""
        maps = 1 + sum(stage.downsample is not None for stage in arch.stages)
        found = {family: space for family, space in self.families.items() if space.num_maps in (None, maps)}
        return found or self.families

    def _affordable(self) -> list[SearchSpace]:
        """The families with an architecture within the limits."""
        found = []
        for space in self.families.values():
            with suppress(SpaceError):
                space.check_limits()
                found.append(space)
        return found

    def _family_of_genes(self, genes: Mapping[str, Gene]) -> tuple[str, SearchSpace]:
        family = str(genes[FAMILY])
        if family not in self.families:
            raise SpaceError(unknown_name(FAMILY, family, self.families))
        return family, self.families[family]

    def _joined(self, family: str, own: Genes) -> Genes:
        genes = {FAMILY: family, **self._idle, **_prefixed(family, own)}
        return {choice.name: genes[choice.name] for choice in self.choices}


def _num_shared(one: SearchSpace, other: SearchSpace) -> int | None:
    """Number of architectures of both, where one of them knows it."""
    known = one.num_shared(other)
    return other.num_shared(one) if known is None else known


def _prefixed(family: str, genes: Genes) -> Genes:
    return {f"{family}.{name}": value for name, value in genes.items()}


def _own(family: str, space: SearchSpace, genes: Mapping[str, Gene]) -> Genes:
    return {choice.name: genes[f"{family}.{choice.name}"] for choice in space.choices}
