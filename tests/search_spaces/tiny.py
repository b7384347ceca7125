"""A space of two architectures, for what happens at its edges."""

from collections.abc import Mapping

from metaformer import zoo
from metaformer.architecture import Architecture
from metaformer.specs import Stem
from search_spaces import Choice, SearchSpace
from search_spaces.space import Gene, Genes, register_space


@register_space("two_models")
class TwoModels(SearchSpace):
    """S12 without channel MLPs and S12 with a coarse stem: one has fewer parameters, the other fewer MACs."""

    choices = (Choice("which", ("slim", "coarse")),)
    size = 2

    def decode(self, genes: Mapping[str, Gene]) -> Architecture:
        if genes["which"] == "slim":
            return zoo.get("poolformer_s12_no_channel_mlp")
        return zoo.get("poolformer_s12").model_copy(update={"stem": Stem(kernel=16, stride=16, padding=0)})

    def encode(self, arch: Architecture) -> Genes:
        return {"which": "slim" if arch.stages[0].mlp is None else "coarse"}

    def references(self) -> dict[str, Architecture]:
        return {}
