"""The parts an architecture is made of: what each is called, what it demands, and what it costs.

Nothing here needs torch. `side` is the side of a stage's square token map in tokens, `width` its number of channels C.
Multiply-accumulates (MACs) are those of convolutions, linear layers and matrix products for one image.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SerializeAsAny,
)

from metaformer.errors import unknown_name


def _odd(size: int) -> int:
    if size % 2 == 0:
        raise ValueError("must be odd, so that the window has a centre")
    return size


OddSize = Annotated[PositiveInt, AfterValidator(_odd)]
NormKind = Literal["mln", "layer_norm", "batch_norm", "none"]
Activation = Literal["gelu", "relu", "silu"]


@dataclass(frozen=True, slots=True)
class PartCost:
    """Trainable parameters, frozen parameters and MACs of one part."""

    params: int = 0
    frozen_params: int = 0
    macs: int = 0

    def __add__(self, other: "PartCost") -> "PartCost":
        return PartCost(self.params + other.params, self.frozen_params + other.frozen_params, self.macs + other.macs)

    def __mul__(self, times: int) -> "PartCost":
        return PartCost(self.params * times, self.frozen_params * times, self.macs * times)


class Spec(BaseModel):
    """A value that is written down: frozen, and no field is ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Norm(Spec):
    """A normalisation with affine weight and bias per channel.

    `mln` takes its statistics over channels and positions of an image (GroupNorm with one group: PoolFormer's modified
    layer norm), `layer_norm` over the channels of each position, `batch_norm` over the batch; `none` changes nothing.
    """

    kind: NormKind = "mln"
    eps: PositiveFloat = 1e-5

    def cost(self, width: int) -> PartCost:
        return PartCost() if self.kind == "none" else PartCost(params=2 * width)


class Conv(Spec):
    """A dense convolution with bias; `padding` is added on each side."""

    kernel: PositiveInt
    stride: PositiveInt
    padding: NonNegativeInt

    def out_side(self, side: int) -> int:
        """Side of the output map in tokens; below 1 where the kernel does not fit."""
        return (side + 2 * self.padding - self.kernel) // self.stride + 1

    def cost(self, in_width: int, width: int, out_side: int) -> PartCost:
        weights = in_width * width * self.kernel**2
        return PartCost(params=weights + width, macs=weights * out_side**2)


class Stem(Conv):
    """The convolution that turns the image into the first stage's tokens."""

    kernel: PositiveInt = 7
    stride: PositiveInt = 4
    padding: NonNegativeInt = 2
    in_channels: PositiveInt = 3


class Downsample(Conv):
    """The convolution between two stages; it also changes the width."""

    kernel: PositiveInt = 3
    stride: PositiveInt = 2
    padding: NonNegativeInt = 1


class Mlp(Spec):
    """Channel MLP: linear to `ratio` times the width, activation, linear back; both with bias."""

    ratio: PositiveInt = 4
    activation: Activation = "gelu"

    def cost(self, width: int, side: int) -> PartCost:
        weights = 2 * self.ratio * width**2
        return PartCost(params=weights + (self.ratio + 1) * width, macs=weights * side**2)


class MixerSpec(Spec):
    """A token mixer as written down. A subclass gives `kind` a default, and is known by that name from then on."""

    fixes_resolution: ClassVar[bool] = False  # its parameters have the shape of one token map
    known: ClassVar[dict[str, type["MixerSpec"]]] = {}

    kind: str

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: object) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        kind = cls.model_fields["kind"].default
        if kind in MixerSpec.known:
            raise ValueError(f"kind: must be new, got {kind!r}, which is {MixerSpec.known[kind].__name__}")
        MixerSpec.known[kind] = cls

    @property
    def width_multiple(self) -> int:
        """The stage's width must be a multiple of this."""
        return 1

    @abstractmethod
    def cost(self, width: int, side: int) -> PartCost:
        """Parameters and MACs of one mixer on a map of `side` by `side` tokens."""


class PoolSpec(MixerSpec):
    """Average pooling over `size` x `size` tokens."""

    kind: Literal["pool"] = "pool"
    size: OddSize = 3

    def cost(self, width: int, side: int) -> PartCost:
        return PartCost()


class AttentionSpec(MixerSpec):
    """Multi-head self-attention: query, key and value without bias, output projection with bias."""

    kind: Literal["attention"] = "attention"
    head_size: PositiveInt = 32

    @property
    def width_multiple(self) -> int:
        return self.head_size

    def cost(self, width: int, side: int) -> PartCost:
        num_tokens = side**2
        products = 2 * num_tokens**2 * width
        return PartCost(params=4 * width**2 + width, macs=4 * width**2 * num_tokens + products)


class SpatialMlpSpec(MixerSpec):
    """One bias-free linear layer over the positions, shared by all channels (the paper's SpatialFC)."""

    fixes_resolution: ClassVar[bool] = True
    kind: Literal["spatial_mlp"] = "spatial_mlp"

    def cost(self, width: int, side: int) -> PartCost:
        return PartCost(params=side**4, macs=side**4 * width)


class DepthwiseConvSpec(MixerSpec):
    """Depthwise convolution of `size` x `size` tokens with bias."""

    kind: Literal["dwconv"] = "dwconv"
    size: OddSize = 3

    def cost(self, width: int, side: int) -> PartCost:
        return PartCost(params=width * (self.size**2 + 1), macs=width * self.size**2 * side**2)


class IdentitySpec(MixerSpec):
    """No mixing: the normalised tokens themselves."""

    kind: Literal["identity"] = "identity"

    def cost(self, width: int, side: int) -> PartCost:
        return PartCost()


class RandomSpec(MixerSpec):
    """A frozen random matrix over the positions, each row a softmax, shared by all channels."""

    fixes_resolution: ClassVar[bool] = True
    kind: Literal["random"] = "random"

    def cost(self, width: int, side: int) -> PartCost:
        return PartCost(frozen_params=side**4, macs=side**4 * width)


def _mixer(value: object) -> object:
    """Find the class of a mixer that comes as a mapping, by its `kind`."""
    if not isinstance(value, dict):
        return value
    if "kind" not in value:
        raise ValueError(f"kind: must be given, one of {', '.join(MixerSpec.known)}, got none")
    kind = str(value["kind"])
    if kind not in MixerSpec.known:
        raise ValueError(unknown_name("kind", kind, MixerSpec.known))
    spec = MixerSpec.known[kind]
    for key in value:
        if key not in spec.model_fields:
            raise ValueError(unknown_name(f"field of {kind}", str(key), spec.model_fields))
    return spec.model_validate(value)


Mixer = Annotated[SerializeAsAny[MixerSpec], BeforeValidator(_mixer)]


class Stage(Spec):
    """`depth` equal blocks: x + scale * mixer(norm(x)), then x + scale * mlp(norm(x))."""

    depth: PositiveInt
    width: PositiveInt
    mixer: Mixer
    downsample: Downsample | None = None
    position_embedding: bool = False  # learned, added to the map before the first block
    norm: Norm = Norm()
    mlp: Mlp | None = Mlp()  # None: the second half of the block is left out, with its norm and scale
    layer_scale: PositiveFloat | None = 1e-5  # initial value; None: no LayerScale
    residual: bool = True

    @property
    def fixes_resolution(self) -> bool:
        return self.position_embedding or self.mixer.fixes_resolution


class Head(Spec):
    """Norm, mean over the positions (in the order stated) and a linear classifier."""

    order: Literal["norm_then_pool", "pool_then_norm"] = "norm_then_pool"
    norm: Norm = Norm()
    num_classes: PositiveInt = 1000

    def cost(self, width: int) -> PartCost:
        weights = width * self.num_classes
        return self.norm.cost(width) + PartCost(params=weights + self.num_classes, macs=weights)
