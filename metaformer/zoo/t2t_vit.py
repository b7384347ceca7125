"""T2T-ViT: overlapping patches by tokens-to-token, then a deep and narrow ViT (arXiv:2101.11986, Table 1)."""

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
    stage = Stage(
        depth=depth,
        width=width,
        mixer=AttentionSpec(head_size=64),
        class_token=True,
        position_embedding="sinusoidal",
        norm=LAYER_NORM,
        mlp=Mlp(ratio=ratio),
        layer_scale=None,
    )
    head = Head(pool="class_token", norm=LAYER_NORM)
    return Architecture(stem=stem, stages=(stage,), head=head, drop_path=0.1)


MODELS: dict[str, Architecture] = {
    **{f"t2t_vit_{depth}": t2t_vit(depth, PERFORMER) for depth in SIZES},
    **{f"t2t_vit_t_{depth}": t2t_vit(depth, TRANSFORMER) for depth in (14, 19, 24)},
}
