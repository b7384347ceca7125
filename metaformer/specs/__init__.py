"""Mixers, stages and the head as values, and what each costs; the smaller parts are in `parts.py`.

Nothing here needs torch. `width` is the number of channels C of a stage's map of tokens.
"""

from abc import abstractmethod
from math import lcm
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from metaformer.errors import unknown_name
from metaformer.specs.parts import (
    LARGEST_SIDE,
    Activation,
    AnyStem,
    Conv,
    Dense,
    Downsample,
    Dropout,
    Flag,
    Mlp,
    Norm,
    NormKind,
    OddSize,
    PartCost,
    PositiveFloat,
    PositiveInt,
    Side,
    SoftSplit,
    Spec,
    Stem,
    TokenMap,
    TokensToToken,
    Version,
    activation_cost,
)

__all__ = [
    "LARGEST_SIDE",
    "Activation",
    "AnyStem",
    "AttentionSpec",
    "Conv",
    "Dense",
    "DepthwiseConvSpec",
    "Downsample",
    "Flag",
    "Head",
    "IdentitySpec",
    "Interleaved",
    "Mixer",
    "MixerSpec",
    "Mlp",
    "Norm",
    "NormKind",
    "OddSize",
    "PartCost",
    "PoolSpec",
    "PositiveFloat",
    "PositiveInt",
    "RandomSpec",
    "ReducedAttentionSpec",
    "SepConvSpec",
    "Side",
    "SoftSplit",
    "SpatialMlpSpec",
    "Spec",
    "Stage",
    "Stem",
    "TokenMap",
    "TokenMlpSpec",
    "TokensToToken",
    "Version",
]


class MixerSpec(Spec):
    """A token mixer as written down. A subclass gives `kind` a default, and is known by that name from then on."""

    fixes_resolution: ClassVar[bool] = False  # its parameters have the shape of one token map
    takes_class_token: ClassVar[bool] = False  # it mixes any set of tokens, not only a square map
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

    @property
    def min_side(self) -> int:
        """The stage's map must have at least this side."""
        return 1

    @abstractmethod
    def cost(self, width: int, tokens: TokenMap) -> PartCost:
        """Parameters and MACs of one mixer on a map of these tokens."""


class PoolSpec(MixerSpec):
    """Average pooling over `size` x `size` tokens."""

    kind: Literal["pool"] = "pool"
    size: OddSize = 3

    def cost(self, width: int, tokens: TokenMap) -> PartCost:
        return PartCost()


class AttentionSpec(MixerSpec):
    """Multi-head self-attention, products scaled by the root of the head size.

    With `ghost` linear layers give half of the channels of query, key and value, and the other half are those times a
    learned factor each (Ghost operations, arXiv:1911.11907; here as in T2T-ViT-Ghost, arXiv:2101.11986, section 3.2,
    whose depthwise convolutions have kernel 1). The first half of the channels is what the layers give.
    """

    takes_class_token: ClassVar[bool] = True
    kind: Literal["attention"] = "attention"
    head_size: PositiveInt = 32
    qkv_bias: Flag = False  # of query, key and value
    proj_bias: Flag = True  # of the output projection
    ghost: Flag = False

    @property
    def width_multiple(self) -> int:
        return lcm(self.head_size, 2) if self.ghost else self.head_size

    def cost(self, width: int, tokens: TokenMap) -> PartCost:
        number = tokens.num_tokens
        computed = 3 * width // (2 if self.ghost else 1)  # channels of query, key and value, by linear layers
        weights = (computed + width) * width
        params = weights + computed * self.qkv_bias + width * self.proj_bias + 3 * width - computed
        return PartCost(params=params, macs=weights * number + 2 * number**2 * width)


class ReducedAttentionSpec(MixerSpec):
    """Self-attention whose keys and values come from a smaller map (PVT, arXiv:2102.12122, section 3.3).

    A convolution of kernel and stride `reduction` and a layer norm (eps 1e-5) make the smaller map. All layers have
    biases.
    """

    kind: Literal["reduced_attention"] = "reduced_attention"
    head_size: PositiveInt = 64
    reduction: Annotated[int, Field(strict=True, ge=2, le=10**6)] = 2

    @property
    def width_multiple(self) -> int:
        return self.head_size

    @property
    def min_side(self) -> int:
        return self.reduction

    def cost(self, width: int, tokens: TokenMap) -> PartCost:
        number, reduced = tokens.num_tokens, (tokens.side // self.reduction) ** 2
        conv = width**2 * self.reduction**2
        macs = 2 * width**2 * number + (conv + 2 * width**2) * reduced + 2 * number * reduced * width
        return PartCost(params=4 * width**2 + conv + 7 * width, macs=macs)


class SpatialMlpSpec(MixerSpec):
    """One linear layer over the positions, shared by all channels (SpatialFC of the MetaFormer paper; ResMLP's)."""

    fixes_resolution: ClassVar[bool] = True
    kind: Literal["spatial_mlp"] = "spatial_mlp"
    bias: Flag = False

    def cost(self, width: int, tokens: TokenMap) -> PartCost:
        number = tokens.num_tokens
        return PartCost(params=number**2 + number * self.bias, macs=number**2 * width)


class TokenMlpSpec(MixerSpec):
    """Two linear layers over the positions with an activation between (MLP-Mixer, arXiv:2105.01601, eq. 1)."""

    fixes_resolution: ClassVar[bool] = True
    kind: Literal["token_mlp"] = "token_mlp"
    hidden: PositiveInt = 256
    activation: Activation = "gelu"

    def cost(self, width: int, tokens: TokenMap) -> PartCost:
        number = tokens.num_tokens
        weights = 2 * number * self.hidden
        return PartCost(params=weights + self.hidden + number, macs=weights * width) + activation_cost(self.activation)


class DepthwiseConvSpec(MixerSpec):
    """Depthwise convolution of `size` x `size` tokens with bias."""

    kind: Literal["dwconv"] = "dwconv"
    size: OddSize = 3

    def cost(self, width: int, tokens: TokenMap) -> PartCost:
        return PartCost(params=width * (self.size**2 + 1), macs=width * self.size**2 * tokens.num_tokens)


class SepConvSpec(MixerSpec):
    """Inverted separable convolution (arXiv:2210.13452, eq. 9): linear to `ratio` times the width, activation,
    depthwise convolution of `size` x `size` tokens, linear back; no biases."""

    kind: Literal["sep_conv"] = "sep_conv"
    size: OddSize = 7
    ratio: PositiveInt = 2
    activation: Activation = "star_relu"

    def cost(self, width: int, tokens: TokenMap) -> PartCost:
        weights = 2 * self.ratio * width**2 + self.ratio * width * self.size**2
        return PartCost(params=weights, macs=weights * tokens.num_tokens) + activation_cost(self.activation)


class IdentitySpec(MixerSpec):
    """No mixing: the normalised tokens themselves."""

    takes_class_token: ClassVar[bool] = True
    kind: Literal["identity"] = "identity"

    def cost(self, width: int, tokens: TokenMap) -> PartCost:
        return PartCost()


class RandomSpec(MixerSpec):
    """A frozen random matrix over the positions, each row a softmax, shared by all channels."""

    fixes_resolution: ClassVar[bool] = True
    kind: Literal["random"] = "random"

    def cost(self, width: int, tokens: TokenMap) -> PartCost:
        return PartCost(frozen_params=tokens.num_tokens**2, macs=tokens.num_tokens**2 * width)


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


class Interleaved(Spec):
    """Another mixer that every `every`-th block of a stage has: the second and the fourth, and so on, for 2."""

    mixer: Mixer
    every: Annotated[int, Field(strict=True, ge=2, le=10**6)]


def _position_embedding(value: object) -> object:
    """Files of earlier versions say true for learned positions and false for none."""
    return {True: "learned", False: None}[value] if isinstance(value, bool) else value


PositionKind = Annotated[Literal["learned", "sinusoidal"] | None, BeforeValidator(_position_embedding)]


class Stage(Spec):
    """`depth` blocks, equal but for an `interleaved` mixer: x + scale * mixer(norm(x)), then x + scale * mlp(norm(x)).

    With `res_scale` the skip has a learned factor per channel too. With `post_activation` the blocks are ConvMixer's
    (arXiv:2201.09792): x + norm(activation(mixer(x))), then norm(activation(linear(x))). With `se_reduction` what a
    mixer gives goes through squeeze-and-excitation (arXiv:1709.01507) of that ratio: each channel is multiplied by the
    sigmoid of two linear layers without bias, ReLU between, of the channels' means over all tokens (T2T-ViT-SE,
    arXiv:2101.11986, section 3.2). With `dense` connections the width grows from block to block.
    """

    depth: PositiveInt
    width: PositiveInt
    mixer: Mixer
    downsample: Downsample | None = None
    class_token: Flag = False  # a learned token that joins in front before the first block
    position_embedding: PositionKind = None  # added to the map, class token included, before the first block
    norm: Norm = Norm()
    mlp: Mlp | None = Mlp()  # None: the second half of the block is left out, with its norm and scale
    layer_scale: PositiveFloat | None = 1e-5  # initial value; None: no LayerScale
    res_scale: PositiveFloat | None = None  # initial value; None: the plain skip
    residual: Flag = True
    post_activation: Activation | None = None
    interleaved: Interleaved | None = None  # another mixer in some of the blocks
    se_reduction: PositiveInt | None = None  # width by that of the hidden layer, at least 1; None: no excitation
    dense: Dense | None = None

    @model_validator(mode="after")
    def _check_parts(self) -> Self:
        for mixer in self.mixers:
            if self.class_token and not mixer.takes_class_token:
                raise ValueError(f"class_token: must be false, since {mixer.kind} needs a square map, got true")
        if self.interleaved and self.interleaved.every > self.depth:
            raise ValueError(
                f"interleaved.every: must be at most the depth {self.depth}, or no block has its mixer, "
                f"got {self.interleaved.every}"
            )
        if self.interleaved and self.interleaved.mixer == self.mixer:
            raise ValueError(
                f"interleaved.mixer: must be another than that of the other blocks, got {self.mixer.kind} twice"
            )
        if self.res_scale is not None and not self.residual:
            raise ValueError(f"res_scale: must be null without a residual, got {self.res_scale}")
        if self.post_activation is not None:
            for field in ("mlp", "layer_scale", "res_scale"):
                if getattr(self, field) is not None:
                    raise ValueError(
                        f"{field}: must be null in blocks with post_activation, got {getattr(self, field)}"
                    )
        if self.dense is not None:
            self._check_dense(self.dense)
        return self

    def _check_dense(self, dense: Dense) -> None:
        if sum(dense.groups) != self.depth:
            raise ValueError(f"dense.groups: must add up to the depth {self.depth}, got {sum(dense.groups)}")
        for multiple in (mixer.width_multiple for mixer in self.mixers):
            if dense.growth % multiple:
                raise ValueError(
                    f"dense.growth: must be a multiple of {multiple}, for the heads of its attention, "
                    f"got {dense.growth}"
                )

    @property
    def mixers(self) -> tuple[MixerSpec, ...]:
        """The one or two mixers of its blocks."""
        return (self.mixer, self.interleaved.mixer) if self.interleaved else (self.mixer,)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels before each block and after the last."""
        if self.dense is None:
            return (self.width,) * (self.depth + 1)
        return self.dense.widths(self.width, multiple=lcm(*(mixer.width_multiple for mixer in self.mixers)))

    @property
    def out_width(self) -> int:
        """Channels after the last block."""
        return self.width if self.dense is None else self.widths[-1]

    @property
    def width_text(self) -> str:
        """The width for people: `128`, or `128 to 584` where blocks have several."""
        return f"{self.width} to {self.out_width}" if self.dense else str(self.width)

    def mixer_of(self, block: int) -> MixerSpec:
        """The mixer of a block, counted from 0."""
        is_other = self.interleaved is not None and (block + 1) % self.interleaved.every == 0
        return self.mixers[is_other]

    @property
    def fixes_resolution(self) -> bool:
        return self.position_embedding is not None or any(mixer.fixes_resolution for mixer in self.mixers)


class Head(Spec):
    """Norm and pooling (in the order stated), then a linear classifier, with `hidden_ratio` after one hidden layer.

    The hidden layer is linear to `hidden_ratio` times the width, squared ReLU and layer norm (arXiv:2210.13452).
    Pooling is the mean over all tokens, or takes the class token.
    """

    order: Literal["norm_then_pool", "pool_then_norm"] = "norm_then_pool"
    pool: Literal["mean", "class_token"] = "mean"
    norm: Norm = Norm()
    hidden_ratio: PositiveInt | None = None
    dropout: Dropout = 0.0  # before the classifier
    zero_init: Flag = False  # the classifier's weights start at zero
    num_classes: PositiveInt = 1000

    @property
    def order_matters(self) -> bool:
        """Whether the two orders compute different things."""
        position_wise = self.pool == "class_token" and self.norm.kind == "layer_norm"
        return not (position_wise or self.norm.kind in {"none", "affine"})

    def cost(self, width: int) -> PartCost:
        total = self.norm.cost(width)
        if self.hidden_ratio:
            hidden = self.hidden_ratio * width
            total += PartCost(params=width * hidden + 3 * hidden, macs=width * hidden)  # with bias and norm
            width = hidden
        weights = width * self.num_classes
        return total + PartCost(params=weights + self.num_classes, macs=weights)
