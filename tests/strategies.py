"""Values for property tests, drawn by Hypothesis. Every strategy draws valid values only."""

from hypothesis import strategies as st

from metaformer.architecture import Architecture
from metaformer.specs import (
    AttentionSpec,
    DepthwiseConvSpec,
    Downsample,
    Head,
    IdentitySpec,
    MixerSpec,
    Mlp,
    Norm,
    PoolSpec,
    RandomSpec,
    SpatialMlpSpec,
    Stage,
    Stem,
)

ODD_SIZES = st.sampled_from([1, 3, 5, 7, 9])
LAYER_SCALES = st.none() | st.sampled_from([1e-6, 1e-5, 1.0]) | st.floats(1e-8, 2.0)
DROP_PATHS = st.sampled_from([0.0, 0.1]) | st.floats(0.0, 0.9)


def norms() -> st.SearchStrategy[Norm]:
    """Every kind of norm, with common and odd eps."""
    kinds = st.sampled_from(["mln", "layer_norm", "batch_norm", "none"])
    return st.builds(Norm, kind=kinds, eps=st.sampled_from([1e-5, 1e-6, 1e-3]))


def mlps() -> st.SearchStrategy[Mlp | None]:
    """A channel MLP of ratio 1 to 4, or none."""
    return st.none() | st.builds(Mlp, ratio=st.integers(1, 4), activation=st.sampled_from(["gelu", "relu", "silu"]))


def mixers(width: int) -> st.SearchStrategy[MixerSpec]:
    """Every kind of mixer that a stage of this width can hold."""
    head_sizes = st.sampled_from([size for size in (1, 4, 8, 16, 32, width) if width % size == 0])
    return st.one_of(
        st.builds(PoolSpec, size=ODD_SIZES),
        st.builds(AttentionSpec, head_size=head_sizes),
        st.just(SpatialMlpSpec()),
        st.builds(DepthwiseConvSpec, size=ODD_SIZES),
        st.just(IdentitySpec()),
        st.just(RandomSpec()),
    )


@st.composite
def stems(draw: st.DrawFn) -> Stem:
    """A stem whose map keeps at least one token at 16 pixels and at most 32 x 32 at 64."""
    return Stem(
        kernel=draw(st.integers(1, 7)),
        stride=draw(st.integers(2, 4)),
        padding=draw(st.integers(0, 2)),
        in_channels=draw(st.sampled_from([1, 3, 4])),
    )


@st.composite
def downsamples(draw: st.DrawFn, side: int) -> Downsample | None:
    """A downsampling that leaves a map of `side` tokens at least one, or none."""
    fitting = [
        Downsample(kernel=kernel, stride=stride, padding=padding)
        for kernel in (1, 2, 3)
        for stride in (1, 2, 3)
        for padding in (0, 1)
        if side + 2 * padding >= kernel
    ]
    return draw(st.none() | st.just(Downsample()) | st.sampled_from(fitting))


@st.composite
def architectures(draw: st.DrawFn) -> Architecture:
    """Any small architecture: 1 to 4 stages of 1 to 3 blocks, all mixers and norms, 16 to 64 pixels."""
    resolution = draw(st.integers(16, 64))
    stem = draw(stems())
    side = stem.out_side(resolution)
    stages: list[Stage] = []
    for index in range(draw(st.integers(1, 4))):
        downsample = draw(downsamples(side)) if index else None
        side = downsample.out_side(side) if downsample else side
        changes_width = index == 0 or downsample is not None
        width = draw(st.integers(1, 6)) * 8 if changes_width else stages[-1].width
        stages.append(
            Stage(
                depth=draw(st.integers(1, 3)),
                width=width,
                mixer=draw(mixers(width)),
                downsample=downsample,
                position_embedding=draw(st.booleans()),
                norm=draw(norms()),
                mlp=draw(mlps()),
                layer_scale=draw(LAYER_SCALES),
                residual=draw(st.booleans()),
            )
        )
    return Architecture(
        resolution=resolution,
        stem=stem,
        stages=tuple(stages),
        head=Head(
            order=draw(st.sampled_from(["norm_then_pool", "pool_then_norm"])),
            norm=draw(norms()),
            num_classes=draw(st.integers(1, 20)),
        ),
        drop_path=draw(DROP_PATHS),
    )
