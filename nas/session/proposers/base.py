"""What a proposer is, and what all of them need: genes that are allowed and new."""

import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

from metaformer.architecture import Architecture
from nas.record.trials import TrialRecord
from search_spaces.enumeration import architectures_within
from search_spaces.space import Genes, Limits, SearchSpace, SpaceError

_UNIFORM_DRAWS = 50  # before the space is walked in order


class Proposer(ABC):
    """Says which architecture to try next, before a trial exists.

    What it says depends on the history, the limits and the seed alone, so that a study that goes on continues like one
    that never stopped. It may keep what it has read of a history that only grows.
    """

    @abstractmethod
    def propose(self, history: Sequence[TrialRecord], *, limits: Limits, seed: int) -> Genes | None:
        """Canonical genes of an architecture within the limits that is none of the history's.

        Args:
            history: All trials of the study by number, running ones too; each call has at least those of the last.
            limits: Those of the study, tightened to what the budget affords.
            seed: Of all randomness in this proposal.
        Returns:
            None only where every architecture within the limits has been tried.
        """


class FreshGenes:
    """Genes of a space that are within limits and not in a history."""

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self._digests: set[str] = set()
        self._num_read = 0
        self._walk: tuple[Limits, Iterator[Architecture]] | None = None  # where the walk stands, and its limits

    def read(self, history: Sequence[TrialRecord]) -> None:
        """Take note of the trials that are new in a history."""
        self._digests.update(trial.architecture.digest for trial in history[self._num_read :])
        self._num_read = len(history)

    def accept(self, genes: Genes, limits: Limits) -> Genes | None:
        """The canonical form of genes, or None where their architecture is known or beyond the limits."""
        arch = self.space.decode(genes)
        if arch.digest in self._digests or not limits.allow(self.space.cost(arch)):
            return None
        return self.space.encode(arch)

    def mutate(self, genes: Genes, rng: random.Random) -> Genes:
        """The genes with another value for one of them."""
        return self.space.mutate(genes, rng)

    def draw(self, limits: Limits, rng: random.Random) -> Genes | None:
        """A uniform draw that is new, or the first new one in the space's order; None where none is left."""
        bounded = self.space.within(limits)
        for _ in range(_UNIFORM_DRAWS):
            try:
                arch = bounded.sample(rng)
            except SpaceError:  # nothing satisfies the limits
                return None
            if arch.digest not in self._digests:
                return self.space.encode(arch)
        if self._walk is None or self._walk[0] != limits:
            self._walk = (limits, architectures_within(self.space, limits))
        found = next((arch for arch in self._walk[1] if arch.digest not in self._digests), None)
        return None if found is None else self.space.encode(found)
