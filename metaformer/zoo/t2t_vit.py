"""T2T-ViT: overlapping patches by tokens-to-token, then a deep and narrow ViT (arXiv:2101.11986, Tables 1 and 6)."""

from metaformer.architecture import Architecture
from metaformer.specs import AttentionSpec, Head, Mlp, Norm, Stage, TokensToToken

LAYER_NORM = Norm(kind="layer_norm")
PERFORMER = TokensToToken(dropout=0.1)
TRANSFORMER = TokensToToken(attention="transformer")
SIZES = {  # depth: width and ratio of the channel MLP
    7: (256, 2),
    10: (256, 2),
    12: (256, 2),
    14: (384, 3),
    19: (448, 3),
    24: (512, 3),
}


def t2t_vit(depth: int, stem: TokensToToken) -> Architecture:
    """A class token and frozen sinusoidal positions; heads of 64 channels, query, key and value without bias."""
    width, ratio = SIZES[depth]
    return of_blocks(stem, depth=depth, width=width, mixer=AttentionSpec(head_size=64), mlp=Mlp(ratio=ratio))


def of_blocks(
    stem: TokensToToken, *, depth: int, width: int, mixer: AttentionSpec, mlp: Mlp, se_reduction: int | None = None
) -> Architecture:
    """What is common to all models, around these blocks."""
    stage = Stage(
        depth=depth,
        width=width,
        mixer=mixer,
        class_token=True,
        position_embedding="sinusoidal",
        norm=LAYER_NORM,
        mlp=mlp,
        layer_scale=None,
        se_reduction=se_reduction,
    )
    head = Head(pool="class_token", norm=LAYER_NORM)
    return Architecture(stem=stem, stages=(stage,), head=head, drop_path=0.1)


PLAIN: dict[str, Architecture] = {
    **{f"t2t_vit_{depth}": t2t_vit(depth, PERFORMER) for depth in SIZES},
    **{f"t2t_vit_t_{depth}": t2t_vit(depth, TRANSFORMER) for depth in (14, 19, 24)},
}
# With structures of CNNs (section 3.2), by their names in the official code.
STRUCTURED: dict[str, Architecture] = {
    "t2t_vit_14_se": of_blocks(
        PERFORMER, depth=14, width=384, mixer=AttentionSpec(head_size=64), mlp=Mlp(ratio=3), se_reduction=16
    ),
    "t2t_vit_16_ghost": of_blocks(
        PERFORMER,
        depth=16,
        width=384,
        mixer=AttentionSpec(head_size=64, ghost=True),
        mlp=Mlp(ratio=3, ghost=True),
    ),
}
SPLIT: dict[str, Architecture] = {  # with as many heads as a ResNeXt has groups
    "t2t_vit_14_resnext": of_blocks(
        PERFORMER, depth=14, width=384, mixer=AttentionSpec(head_size=12), mlp=Mlp(ratio=3)
    ),
}
MODELS = PLAIN | STRUCTURED | SPLIT
