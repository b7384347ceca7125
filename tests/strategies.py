"""Values for property tests, drawn by Hypothesis. Every strategy draws valid values only."""

import itertools
import math

from hypothesis import strategies as st

from metaformer.architecture import Architecture
from metaformer.specs import (
    Activation,
    AttentionSpec,
    Dense,
    DepthwiseConvSpec,
    Downsample,
    Head,
    IdentitySpec,
    Interleaved,
    MixerSpec,
    Mlp,
    Norm,
    PoolSpec,
    RandomSpec,
    ReducedAttentionSpec,
    SepConvSpec,
    SoftSplit,
    SpatialMlpSpec,
    Stage,
    Stem,
    TokenMlpSpec,
    TokensToToken,
)
from metaformer.specs.parts import SOFT_SPLITS

ODD_SIZES = st.sampled_from([1, 3, 5, 7, 9])
SCALES = st.none() | st.sampled_from([1e-6, 1e-5, 1.0]) | st.floats(1e-8, 2.0)
DROP_PATHS = st.sampled_from([0.0, 0.1]) | st.floats(0.0, 0.9)
ACTIVATIONS: st.SearchStrategy[Activation] = st.sampled_from(["gelu", "relu", "silu", "star_relu", "squared_relu"])


def norms() -> st.SearchStrategy[Norm]:
    """Every kind of norm, with common and odd eps."""
    kinds = st.sampled_from(["mln", "layer_norm", "batch_norm", "affine", "none"])
    return st.builds(Norm, kind=kinds, eps=st.sampled_from([1e-5, 1e-6, 1e-3]), bias=st.booleans())


def mlps() -> st.SearchStrategy[Mlp | None]:
    """A channel MLP of ratio 1 to 4, with ghosts or without, or none."""
    kinds = st.sampled_from([(1, False), (2, False), (3, False), (4, False), (2, True), (3, True)])
    return st.none() | kinds.flatmap(
        lambda kind: st.builds(
            Mlp, ratio=st.just(kind[0]), ghost=st.just(kind[1]), activation=ACTIVATIONS, bias=st.booleans()
        )
    )


@st.composite
def denses(draw: st.DrawFn, *, depth: int, used: list[MixerSpec]) -> Dense | None:
    """Dense connections of so many blocks with these mixers; mostly none."""
    if draw(st.integers(0, 4)):
        return None
    ends = {*draw(st.lists(st.integers(1, depth), max_size=2)), depth}
    groups = tuple(end - start for start, end in itertools.pairwise([0, *sorted(ends)]))
    multiple = math.lcm(*(mixer.width_multiple for mixer in used))
    return Dense(growth=multiple * draw(st.integers(1, 3)), groups=groups)


def mixers(width: int, *, side: int, class_token: bool) -> st.SearchStrategy[MixerSpec]:
    """Every kind of mixer that a stage of this width and side can hold."""
    head_sizes = st.sampled_from([size for size in (1, 4, 8, 16, 32, width) if width % size == 0])
    attention = st.builds(
        AttentionSpec,
        head_size=head_sizes,
        qkv_bias=st.booleans(),
        proj_bias=st.booleans(),
        ghost=st.booleans() if width % 2 == 0 else st.just(False),
    )
    if class_token:
        return attention | st.just(IdentitySpec())
    reduced = st.builds(ReducedAttentionSpec, head_size=head_sizes, reduction=st.integers(2, max(2, min(side, 8))))
    return st.one_of(
        st.builds(PoolSpec, size=ODD_SIZES),
        attention,
        reduced if side > 1 else attention,
        st.builds(SpatialMlpSpec, bias=st.booleans()),
        st.builds(TokenMlpSpec, hidden=st.integers(1, 20), activation=ACTIVATIONS),
        st.builds(DepthwiseConvSpec, size=ODD_SIZES),
        st.builds(SepConvSpec, size=ODD_SIZES, ratio=st.integers(1, 3), activation=ACTIVATIONS),
        st.just(IdentitySpec()),
        st.just(RandomSpec()),
    )


def around_conv() -> st.SearchStrategy[dict[str, object]]:
    """What stands around the convolution of a stem or a downsampling; mostly nothing."""
    parts = {"pre_norm": norms(), "activation": ACTIVATIONS, "post_norm": norms()}
    return st.just({}) | st.fixed_dictionaries({}, optional=parts)


@st.composite
def stems(draw: st.DrawFn) -> Stem | TokensToToken:
    """A stem whose map keeps at least one token at 16 pixels and at most 32 x 32 at 64."""
    in_channels = draw(st.sampled_from([1, 3, 4]))
    if draw(st.integers(0, 5)) == 0:
        return TokensToToken(
            attention=draw(st.sampled_from(["performer", "transformer"])),
            token_width=draw(st.sampled_from([2, 8])),
            dropout=draw(st.sampled_from([0.0, 0.1])),
            splits=draw(st.sampled_from([SOFT_SPLITS, SOFT_SPLITS[1:], (SoftSplit(kernel=3, stride=3, padding=0),)])),
            in_channels=in_channels,
        )
    sizes = {"kernel": draw(st.integers(1, 7)), "stride": draw(st.integers(2, 4)), "padding": draw(st.integers(0, 2))}
    return Stem.model_validate({**sizes, "in_channels": in_channels, **draw(around_conv())})


@st.composite
def downsamples(draw: st.DrawFn, side: int) -> Downsample | None:
    """A downsampling that leaves a map of `side` tokens at least one, or none."""
    fitting = [
        {"kernel": kernel, "stride": stride, "padding": padding}
        for kernel in (1, 2, 3)
        for stride in (1, 2, 3)
        for padding in (0, 1)
        if side + 2 * padding >= kernel
    ]
    sizes = draw(st.none() | st.just({}) | st.sampled_from(fitting))
    return None if sizes is None else Downsample.model_validate({**sizes, **draw(around_conv())})


@st.composite
def block_parts(draw: st.DrawFn) -> dict[str, object]:
    """The fields of a stage that say what surrounds the mixer: MetaFormer's block, or seldom ConvMixer's."""
    residual = draw(st.booleans())
    if draw(st.integers(0, 4)) == 0:
        bare: dict[str, object] = {"mlp": None, "layer_scale": None}
        return {**bare, "residual": residual, "post_activation": draw(ACTIVATIONS)}
    return {
        "mlp": draw(mlps()),
        "layer_scale": draw(SCALES),
        "res_scale": draw(SCALES) if residual else None,
        "residual": residual,
    }


@st.composite
def architectures(draw: st.DrawFn) -> Architecture:
    """Any small architecture: 1 to 4 stages of 1 to 3 blocks, all mixers and norms, 16 to 64 pixels."""
    resolution = draw(st.integers(16, 64))
    stem = draw(stems())
    side = stem.out_side(resolution)
    stages: list[Stage] = []
    num_stages = draw(st.integers(1, 4))
    for index in range(num_stages):
        downsample = draw(downsamples(side)) if index else None
        side = downsample.out_side(side) if downsample else side
        changes_width = index == 0 or downsample is not None
        width = draw(st.integers(1, 6)) * 8 if changes_width else stages[-1].out_width
        class_token = index == num_stages - 1 and draw(st.booleans())
        depth = draw(st.integers(1, 3))
        mixer, other = (draw(mixers(width, side=side, class_token=class_token)) for _ in range(2))
        is_mixed = depth > 1 and mixer != other and draw(st.integers(0, 4)) == 0
        fields = {
            "depth": depth,
            "width": width,
            "mixer": mixer,
            "interleaved": Interleaved(mixer=other, every=draw(st.integers(2, depth))) if is_mixed else None,
            "downsample": downsample,
            "class_token": class_token,
            "position_embedding": draw(st.sampled_from([None, "learned", "sinusoidal"])),
            "norm": draw(norms()),
            "se_reduction": draw(st.sampled_from([None, None, 1, 4, 64])),
            "dense": draw(denses(depth=depth, used=[mixer, other] if is_mixed else [mixer])),
        }
        stages.append(Stage.model_validate({**fields, **draw(block_parts())}))
    return Architecture(
        resolution=resolution,
        stem=stem,
        stages=tuple(stages),
        head=draw(heads(class_token=stages[-1].class_token)),
        drop_path=draw(DROP_PATHS),
        init=draw(st.sampled_from(["poolformer", "transformer", "baselines", "pytorch"])),
    )


@st.composite
def heads(draw: st.DrawFn, *, class_token: bool) -> Head:
    """A head that fits behind a last stage with or without a class token."""
    return Head(
        order=draw(st.sampled_from(["norm_then_pool", "pool_then_norm"])),
        pool=draw(st.sampled_from(["mean", "class_token"])) if class_token else "mean",
        norm=draw(norms()),
        hidden_ratio=draw(st.none() | st.integers(1, 3)),
        dropout=draw(st.sampled_from([0.0, 0.5])),
        zero_init=draw(st.booleans()),
        num_classes=draw(st.integers(1, 20)),
    )
