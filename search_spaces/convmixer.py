"""Patches and convolutions: the space in which the ConvMixers are points (arXiv:2201.09792).

Genes: patch size, kernel of the depthwise convolutions, whether a skip leads around them, norm, activation, width and
depth. The norm and the activation are those behind the patches too. Positions, a channel MLP, LayerScale and drop path
are left out, as in the paper.
"""

from collections.abc import Mapping
from functools import cached_property

from metaformer.architecture import Architecture
from metaformer.specs import DepthwiseConvSpec, Norm
from metaformer.specs.parts import Activation
from metaformer.zoo.convmixer import convmixer
from search_spaces.one_stage import PATCH, OneStageSpace, useful_size
from search_spaces.space import Choice, Gene, Genes, SpaceError, SpaceSettings, register_space

KERNELS = tuple(range(3, 16, 2))
RESIDUALS = ("yes", "no")
NORMS = ("batch_norm", "layer_norm")
ACTIVATIONS: dict[str, Activation] = {"gelu": "gelu", "relu": "relu"}
WIDTHS = tuple(range(128, 1537, 128))
DEPTHS = tuple(range(4, 33, 4))
LARGE = ("convmixer_1536_20", "convmixer_768_32", "convmixer_1024_20_ks9_p14")
SMALL = ("convmixer_256_8_p1_k9", "convmixer_256_8_p2_k5", "convmixer_256_16_p1_k9")  # for CIFAR


@register_space("convmixer")
class ConvMixer(OneStageSpace):
    """Patches, then equal blocks of a depthwise and a pointwise convolution."""

    def __init__(self, settings: SpaceSettings) -> None:
        super().__init__(settings)
        self.choices = (
            Choice(PATCH, self.patches),
            Choice("kernel", KERNELS),
            Choice("residual", RESIDUALS),
            Choice("norm", NORMS),
            Choice("activation", tuple(ACTIVATIONS)),
            Choice("width", WIDTHS),
            Choice("depth", DEPTHS),
        )

    def decode(self, genes: Mapping[str, Gene]) -> Architecture:
        patch = int(genes[PATCH])
        return convmixer(
            self.scaled(int(genes["width"])),
            int(genes["depth"]),
            patch=patch,
            kernel=useful_size(int(genes["kernel"]), self.sides[patch]),
            activation=ACTIVATIONS[str(genes["activation"])],
            norm=Norm.model_validate({"kind": genes["norm"]}),
            residual=genes["residual"] == "yes",
            resolution=self.settings.resolution,
            num_classes=self.settings.num_classes,
        )

    def encode(self, arch: Architecture) -> Genes:
        stage, stem = self.stage_and_stem(arch)
        if not isinstance(stage.mixer, DepthwiseConvSpec):
            raise SpaceError(f"mixer: must be dwconv in {self.name}, got {stage.mixer.kind}")
        genes: Genes = {
            PATCH: str(stem.kernel),
            "kernel": stage.mixer.size,
            "residual": "yes" if stage.residual else "no",
            "norm": stage.norm.kind,
            "activation": str(stage.post_activation),
            "width": self.width_gene(stage),
            "depth": stage.depth,
        }
        return self._checked(genes, arch)

    @cached_property
    def size(self) -> int:
        kernels = sum(len({useful_size(kernel, side) for kernel in KERNELS}) for side in self.sides.values())
        return kernels * len(RESIDUALS) * len(NORMS) * len(ACTIVATIONS) * len(WIDTHS) * len(DEPTHS)

    def reference_names(self) -> tuple[str, ...]:
        return SMALL if self.is_small else LARGE
