"""A space of two architectures, for what happens at its edges."""

from collections.abc import Mapping

from metaformer import zoo
from metaformer.architecture import Architecture
from metaformer.specs import DepthwiseConvSpec, Head, IdentitySpec, MixerSpec, Norm, PoolSpec, Stage, Stem
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


@register_space("few_models")
class FewModels(SearchSpace):
    """Small models of one to three blocks with 63 different architectures; the size of an identity does nothing."""

    choices = (
        Choice("mixer", ("pool", "dwconv", "identity")),
        Choice("kernel", (3, 5, 7)),
        Choice("norm", ("layer_norm", "batch_norm", "mln")),
        Choice("depth", (1, 2, 3)),
    )
    size = 7 * 3 * 3

    def decode(self, genes: Mapping[str, Gene]) -> Architecture:
        kernel = int(genes["kernel"])
        mixers: dict[Gene, MixerSpec] = {
            "pool": PoolSpec(size=kernel),
            "dwconv": DepthwiseConvSpec(size=kernel),
            "identity": IdentitySpec(),
        }
        norm = Norm.model_validate({"kind": genes["norm"]})
        stage = Stage(depth=int(genes["depth"]), width=8, mixer=mixers[genes["mixer"]], norm=norm)
        stem = Stem(kernel=4, stride=4, padding=0)
        return Architecture(resolution=16, stem=stem, stages=(stage,), head=Head(norm=norm, num_classes=10))

    def encode(self, arch: Architecture) -> Genes:
        [stage] = arch.stages
        kernel = getattr(stage.mixer, "size", 3)
        return {"mixer": stage.mixer.kind, "kernel": kernel, "norm": stage.norm.kind, "depth": stage.depth}

    def references(self) -> dict[str, Architecture]:
        return {}
