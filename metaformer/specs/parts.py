"""What stands around a mixer, as values: norms, activations, channel MLPs, stems, downsampling; and what each costs.

Nothing here needs torch. `side` is the side of a square map in tokens (pixels for a stem), `width` its number of
channels C. Multiply-accumulates (MACs) are those of convolutions, linear layers and matrix products for one image.
"""

from dataclasses import dataclass
from math import prod
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from metaformer.errors import shown, unknown_name


def _odd(size: int) -> int:
    if size % 2 == 0:
        raise ValueError("must be odd, so that the window has a centre")
    return size


def _even(size: int) -> int:
    if size % 2:
        raise ValueError("must be even, since there are half as many random features")
    return size


LARGEST_SIDE = 8192  # of an image, in pixels
# What is written down has the type it should have: no text, no yes or no in the place of a number. The bounds are far
# beyond any model, so that what is larger was mistyped.
PositiveInt = Annotated[int, Field(strict=True, gt=0, le=10**6)]
NonNegativeInt = Annotated[int, Field(strict=True, ge=0, le=10**6)]
PositiveFloat = Annotated[float, Field(strict=True, gt=0)]
Flag = Annotated[bool, Field(strict=True)]
Side = Annotated[int, Field(strict=True, gt=0, le=LARGEST_SIDE)]  # of an image, in pixels


def _version(value: object) -> object:
    if type(value) is not int:  # True equals 1
        raise ValueError(f"must be a whole number, got {shown(value)}")
    return value


Version = Annotated[Literal[1], BeforeValidator(_version)]
OddSize = Annotated[PositiveInt, AfterValidator(_odd)]
Dropout = Annotated[float, Field(strict=True, ge=0, lt=1)]
NormKind = Literal["mln", "layer_norm", "batch_norm", "affine", "none"]
Activation = Literal["gelu", "relu", "silu", "star_relu", "squared_relu"]


@dataclass(slots=True, unsafe_hash=True)  # not frozen: that makes sums, dozens a model, three times as slow
class PartCost:
    """Trainable parameters, frozen parameters and MACs of one part; nothing changes one."""

    params: int = 0
    frozen_params: int = 0
    macs: int = 0

    def __add__(self, other: "PartCost") -> "PartCost":
        return PartCost(self.params + other.params, self.frozen_params + other.frozen_params, self.macs + other.macs)

    def __mul__(self, times: int) -> "PartCost":
        return PartCost(self.params * times, self.frozen_params * times, self.macs * times)


class TokenMap(NamedTuple):
    """The tokens of a stage: `side` by `side`, and perhaps a class token in front."""

    side: int
    class_token: bool = False

    @property
    def num_tokens(self) -> int:
        return self.side**2 + self.class_token

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the map; with a class token it is one column."""
        return (self.num_tokens, 1) if self.class_token else (self.side, self.side)


class Spec(BaseModel):
    """A value that is written down: frozen, and no field is ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Norm(Spec):
    """A normalisation with affine weight and, by choice, bias per channel.

    `mln` takes its statistics over channels and positions of an image (GroupNorm with one group: PoolFormer's modified
    layer norm), `layer_norm` over the channels of each position, `batch_norm` over the batch; `affine` takes none, it
    is weight and bias alone (ResMLP, arXiv:2105.03404, eq. 1); `none` changes nothing.
    """

    kind: NormKind = "mln"
    eps: PositiveFloat = 1e-5
    bias: Flag = True

    def cost(self, width: int) -> PartCost:
        return PartCost() if self.kind == "none" else PartCost(params=width * (1 + self.bias))


def activation_cost(activation: Activation | None) -> PartCost:
    """StarReLU learns one scale and one bias (arXiv:2210.13452, eq. 7); the others learn nothing."""
    return PartCost(params=2) if activation == "star_relu" else PartCost()


class Conv(Spec):
    """A norm, a dense convolution with bias, an activation, a norm: in this order, each but the convolution optional.

    `padding` is added on each side.
    """

    kernel: PositiveInt
    stride: PositiveInt
    padding: NonNegativeInt
    pre_norm: Norm | None = None
    activation: Activation | None = None
    post_norm: Norm | None = None

    def out_side(self, side: int) -> int:
        """Side of the output map in tokens; below 1 where the kernel does not fit."""
        return (side + 2 * self.padding - self.kernel) // self.stride + 1

    def cost(self, in_width: int, width: int, in_side: int) -> PartCost:
        weights = in_width * width * self.kernel**2
        total = PartCost(params=weights + width, macs=weights * self.out_side(in_side) ** 2)
        if self.pre_norm:
            total += self.pre_norm.cost(in_width)
        if self.post_norm:
            total += self.post_norm.cost(width)
        return total + activation_cost(self.activation) if self.activation else total


class Stem(Conv):
    """The convolution that turns the image into the first stage's tokens."""

    kind: Literal["conv"] = "conv"
    kernel: PositiveInt = 7
    stride: PositiveInt = 4
    padding: NonNegativeInt = 2
    in_channels: PositiveInt = 3


class Downsample(Conv):
    """The convolution between two stages; it also changes the width."""

    kernel: PositiveInt = 3
    stride: PositiveInt = 2
    padding: NonNegativeInt = 1


class SoftSplit(Spec):
    """Overlapping windows of a map, each unfolded into one token; `padding` is added on each side."""

    kernel: PositiveInt
    stride: PositiveInt
    padding: NonNegativeInt

    def out_side(self, side: int) -> int:
        """Side of the map of tokens; below 1 where the kernel does not fit."""
        return (side + 2 * self.padding - self.kernel) // self.stride + 1


def _some(splits: tuple[SoftSplit, ...]) -> tuple[SoftSplit, ...]:
    if not splits:
        raise ValueError("must hold at least one soft split")
    return splits


SOFT_SPLITS = (
    SoftSplit(kernel=7, stride=4, padding=2),
    SoftSplit(kernel=3, stride=2, padding=1),
    SoftSplit(kernel=3, stride=2, padding=1),
)


class TokensToToken(Spec):
    """T2T-ViT's stem (arXiv:2101.11986, section 3.1): soft splits, the paper's three, and a token layer after each.

    A token layer is one attention to `token_width` channels and a channel MLP of ratio 1. After the last split a linear
    layer to the width of the first stage takes its place. The attention is a `performer` with frozen random features
    (arXiv:2009.14794) or a `transformer` with one head.
    """

    kind: Literal["tokens_to_token"] = "tokens_to_token"
    attention: Literal["performer", "transformer"] = "performer"
    token_width: Annotated[PositiveInt, AfterValidator(_even)] = 64
    dropout: Dropout = 0.0  # behind the attention and behind the MLP
    splits: Annotated[tuple[SoftSplit, ...], AfterValidator(_some)] = SOFT_SPLITS
    in_channels: PositiveInt = 3

    @property
    def stride(self) -> int:
        """Pixels between neighbouring tokens."""
        return prod(split.stride for split in self.splits)

    @property
    def num_features(self) -> int:
        """Random features of a performer."""
        return self.token_width // 2

    def out_side(self, side: int) -> int:
        """Side of the map of tokens; 0 where the kernel of one of the splits does not fit."""
        for split in self.splits:
            side = split.out_side(side)
            if side < 1:
                return 0
        return side

    def cost(self, in_width: int, width: int, in_side: int) -> PartCost:
        total, channels, side = PartCost(), in_width, in_side
        for split in self.splits[:-1]:
            side = split.out_side(side)
            total += self._layer_cost(channels * split.kernel**2, side**2)
            channels = self.token_width
        weights = channels * self.splits[-1].kernel ** 2 * width
        return total + PartCost(params=weights + width, macs=weights * self.out_side(in_side) ** 2)

    def _layer_cost(self, in_width: int, num_tokens: int) -> PartCost:
        width, features = self.token_width, self.num_features
        weights = 3 * in_width * width + 3 * width**2  # query, key and value; projection and the two layers of the MLP
        params = weights + 2 * in_width + 2 * width + 3 * width  # with the two norms and three biases
        if self.attention == "transformer":
            return PartCost(params=params, macs=weights * num_tokens + 2 * num_tokens**2 * width)
        products = 4 * width * features + features  # features of q and k, the two products with v, the denominator
        return PartCost(
            params=params + 3 * width, frozen_params=width * features, macs=(weights + products) * num_tokens
        )


_STEMS: dict[str, type[Stem | TokensToToken]] = {"conv": Stem, "tokens_to_token": TokensToToken}


def _stem(value: object) -> object:
    """Find the class of a stem that comes as a mapping, by its `kind`; a convolution where it has none."""
    if isinstance(value, Stem | TokensToToken):
        return value
    if not isinstance(value, dict):
        return Stem.model_validate(value)
    kind = str(value.get("kind", "conv"))
    if kind not in _STEMS:
        raise ValueError(unknown_name("kind", kind, _STEMS))
    for key in value:
        if kind != "conv" and key not in _STEMS[kind].model_fields:  # `explain` knows the fields of the usual stem
            raise ValueError(unknown_name(f"field of {kind}", str(key), _STEMS[kind].model_fields))
    return _STEMS[kind].model_validate(value)


AnyStem = Annotated[Stem | TokensToToken, BeforeValidator(_stem)]


class Mlp(Spec):
    """Channel MLP: linear to `ratio` times the width, activation, linear back; both with bias or both without.

    With `ghost` the first layer gives the first `width` of the hidden channels alone; the others are those, activated,
    times a learned factor each, activated again (Ghost operations, arXiv:1911.11907; here as in T2T-ViT-Ghost,
    arXiv:2101.11986, section 3.2, whose depthwise convolutions have kernel 1).
    """

    ratio: PositiveInt = 4
    activation: Activation = "gelu"
    bias: Flag = True
    ghost: Flag = False

    @model_validator(mode="after")
    def _check_ghost(self) -> Self:
        if self.ghost and self.ratio == 1:
            raise ValueError("ghost: must be false at ratio 1, where no hidden channel is left to it, got true")
        return self

    def cost(self, width: int, num_tokens: int) -> PartCost:
        hidden = self.ratio * width
        computed = width if self.ghost else hidden  # by the first layer
        weights = width * (computed + hidden)
        biases = computed + width if self.bias else 0
        params = weights + biases + hidden - computed
        return PartCost(params=params, macs=weights * num_tokens) + activation_cost(self.activation)


def _some_groups(groups: tuple[int, ...]) -> tuple[int, ...]:
    if not groups:
        raise ValueError("must hold at least one number of blocks")
    return groups


class Dense(Spec):
    """Dense connections (arXiv:1608.06993), as in T2T-ViT-Dense (arXiv:2101.11986, section 3.2).

    A linear layer takes what a block gives to `growth` channels, which join the block's input behind its own. `groups`
    are the numbers of blocks between two transitions: a linear layer to half the width, and GELU. All have biases.
    """

    growth: PositiveInt
    groups: Annotated[tuple[PositiveInt, ...], AfterValidator(_some_groups)]

    def widths(self, width: int, *, multiple: int = 1) -> tuple[int, ...]:
        """Channels before each block and after the last; a transition rounds half of them up to a `multiple`."""
        widths = [width]
        for index, num_blocks in enumerate(self.groups):
            first = widths[-1]
            widths += [first + self.growth * (block + 1) for block in range(num_blocks)]
            if index < len(self.groups) - 1:
                widths[-1] = multiple * -(-widths[-1] // (2 * multiple))
        return tuple(widths)

    def cost(self, width: int, out_width: int, num_tokens: int) -> PartCost:
        """Of the layers behind one block, from the channels before it to those before the next."""
        joined = width + self.growth
        weights = width * self.growth
        params = weights + self.growth
        if out_width != joined:  # a transition, which leaves fewer
            weights += joined * out_width
            params += joined * out_width + out_width
        return PartCost(params=params, macs=weights * num_tokens)
