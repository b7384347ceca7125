"""A search space of hand-designed models alone."""

from collections.abc import Mapping, Sequence

from metaformer.architecture import Architecture
from metaformer.errors import unknown_name
from search_spaces.hybrid_stages import REFERENCES, HybridStages
from search_spaces.space import Choice, Gene, Genes, SearchSpace, SpaceError, SpaceSettings

DEFAULT = (
    "poolformer_s12",
    "metaformer_id_s12",
    "metaformer_pppa_s12_224",
    "metaformer_ppaa_s12_224",
    "poolformer_s12_pool5",
    "poolformer_s12_pool7",
    "poolformer_s12_layer_norm",
    "poolformer_s12_batch_norm",
)
SPACE = "listed"


def make_listed(names: Sequence[str]) -> type[SearchSpace]:
    """A space of these hand-designed models of `hybrid_stages` alone; a search that has tried all is at its end.

    Raises:
        SpaceError: `hybrid_stages` has no such model.
    """
    for name in names:
        if name not in REFERENCES:
            raise SpaceError(unknown_name("models", name, REFERENCES))

    class Listed(SearchSpace):
        """One gene: which model."""

        choices = (Choice("model", tuple(names)),)

        def __init__(self, settings: SpaceSettings) -> None:
            super().__init__(settings)
            known = HybridStages(settings).references()
            self._models = {name: known[name] for name in names}

        def decode(self, genes: Mapping[str, Gene]) -> Architecture:
            return self._models[str(genes["model"])]

        def encode(self, arch: Architecture) -> Genes:
            for name, known in self._models.items():
                if known.digest == arch.digest:
                    return {"model": name}
            raise SpaceError(f"architecture: must be one of {', '.join(names)}, got {arch.digest}")

        @property
        def size(self) -> int:
            return len(names)

        def references(self) -> dict[str, Architecture]:
            return dict(self._models)

    return Listed
