"""All architectures of a space within limits, one after another: what is left where random draws find nothing new."""

from collections.abc import Iterator

from metaformer.architecture import Architecture
from search_spaces.base import CostName, Genes, Limits, SearchSpace, SpaceError
from search_spaces.union import Union


def architectures_within(space: SearchSpace, limits: Limits) -> Iterator[Architecture]:
    """Every architecture of the space within the limits, in the order of its choices.

    A branch is left out where its cheapest architecture is beyond a limit, or where its gene does nothing. The first is
    as exact as `SearchSpace.smallest`; the second needs choices in an order in which what a gene does depends on those
    before it, as `SearchSpace.choices` demands.
    """
    if isinstance(space, Union):
        families = list(space.families.values())
        for place, family in enumerate(families):
            for arch in architectures_within(family, limits):
                if not any(_is_of(earlier, arch) for earlier in families[:place]):
                    yield arch
    else:
        yield from _Walk(space, limits).below({})


def _is_of(space: SearchSpace, arch: Architecture) -> bool:
    try:
        space.encode(arch)
    except SpaceError:
        return False
    return True


class _Walk:
    """A depth-first walk over the genes."""

    def __init__(self, space: SearchSpace, limits: Limits) -> None:
        self._space, self._limits = space, limits
        self._cheapest: dict[CostName, Genes] = {
            name: space.encode(space.smallest(name)) for name in ("params", "macs")
        }
        self._most: dict[CostName, int | None] = {"params": limits.max_params, "macs": limits.max_macs}

    def below(self, prefix: Genes) -> Iterator[Architecture]:
        """Those whose first genes are these."""
        if len(prefix) == len(self._space.choices):
            arch = self._space.decode(prefix)
            if self._limits.allow(self._space.cost(arch)):
                yield arch
            return
        choice = self._space.choices[len(prefix)]
        known: set[str] = set()
        for value in choice.values:
            longer = {**prefix, choice.name: value}
            digest = self._space.decode({**self._cheapest["macs"], **longer}).digest
            if digest not in known and self._may_hold_some(longer):
                known.add(digest)
                yield from self.below(longer)

    def _may_hold_some(self, prefix: Genes) -> bool:
        """Whether the cheapest architecture with these first genes is within each limit."""
        return all(most is None or self._can_cost(prefix, name, most) for name, most in self._most.items())

    def _can_cost(self, prefix: Genes, name: CostName, most: int) -> bool:
        """Whether the other genes can bring a cost down to `most`: gene by gene, until none helps."""
        genes = {**self._cheapest[name], **prefix}
        least = self._space.cost_of(genes, name)
        improved = True
        while least > most and improved:
            improved = False
            for choice in self._space.choices[len(prefix) :]:
                for value in choice.values:
                    candidate = {**genes, choice.name: value}
                    cost = self._space.cost_of(candidate, name)
                    if cost < least:
                        genes, least, improved = candidate, cost, True
        return least <= most
