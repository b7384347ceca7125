"""Names and shapes of the official checkpoints, written down from the official model classes, family by family.

C width, D hidden width, N tokens.
"""

from collections.abc import Iterable

Shapes = dict[str, tuple[int, ...]]


def tensor(name: str, *shape: int) -> Shapes:
    """A weight and a bias as long as its first axis."""
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def matrix(name: str, *shape: int) -> Shapes:
    return {f"{name}.weight": shape}


def union(parts: Iterable[Shapes]) -> Shapes:
    found: Shapes = {}
    for part in parts:
        assert not found.keys() & part.keys()
        found |= part
    return found


def poolformer(depths: tuple[int, ...], widths: tuple[int, ...], mixers: str = "pppp") -> Shapes:
    """PoolFormer and its hybrids: p pooling, i identity, a attention, f spatial FC; positions before the first a."""
    parts = [tensor("patch_embed.proj", widths[0], 3, 7, 7)]
    item, first_attention = 0, mixers.find("a")
    for stage, (depth, C, kind) in enumerate(zip(depths, widths, mixers, strict=True)):
        side = 56 // 2**stage
        if stage:
            parts.append(tensor(f"network.{item}.proj", C, widths[stage - 1], 3, 3))
            item += 1
        if stage == first_attention:
            parts.append({f"network.{item}.pos_embed": (1, C, side, side)})
            item += 1
        for block in range(depth):
            at = f"network.{item}.{block}"
            parts += [tensor(f"{at}.norm1", C), tensor(f"{at}.norm2", C)]
            parts.append({f"{at}.layer_scale_1": (C,), f"{at}.layer_scale_2": (C,)})
            parts += [tensor(f"{at}.mlp.fc1", 4 * C, C, 1, 1), tensor(f"{at}.mlp.fc2", C, 4 * C, 1, 1)]
            if kind == "a":
                parts += [matrix(f"{at}.token_mixer.qkv", 3 * C, C), tensor(f"{at}.token_mixer.proj", C, C)]
            if kind == "f":
                parts.append(matrix(f"{at}.token_mixer.fc", side**2, side**2))
        item += 1
    return union([*parts, tensor("norm", widths[-1]), tensor("head", 1000, widths[-1])])


def star_relu(name: str) -> Shapes:
    return {f"{name}.scale": (1,), f"{name}.bias": (1,)}


def baseline(depths: tuple[int, ...], widths: tuple[int, ...], mixers: str) -> Shapes:
    """MetaFormer Baselines: i identity, r random, p pooling, s separable convolution, a attention."""
    parts = [tensor("downsample_layers.0.conv", widths[0], 3, 7, 7), matrix("downsample_layers.0.post_norm", widths[0])]
    for stage, (depth, C, kind) in enumerate(zip(depths, widths, mixers, strict=True)):
        if stage:
            parts.append(matrix(f"downsample_layers.{stage}.pre_norm", widths[stage - 1]))
            parts.append(tensor(f"downsample_layers.{stage}.conv", C, widths[stage - 1], 3, 3))
        for block in range(depth):
            at = f"stages.{stage}.{block}"
            parts += [matrix(f"{at}.norm1", C), matrix(f"{at}.norm2", C), star_relu(f"{at}.mlp.act")]
            parts += [matrix(f"{at}.mlp.fc1", 4 * C, C), matrix(f"{at}.mlp.fc2", C, 4 * C)]
            if stage >= 2:
                parts.append({f"{at}.res_scale1.scale": (C,), f"{at}.res_scale2.scale": (C,)})
            if kind == "a":
                parts += [matrix(f"{at}.token_mixer.qkv", 3 * C, C), matrix(f"{at}.token_mixer.proj", C, C)]
            if kind == "s":
                parts += [matrix(f"{at}.token_mixer.pwconv1", 2 * C, C), star_relu(f"{at}.token_mixer.act1")]
                parts.append(matrix(f"{at}.token_mixer.dwconv", 2 * C, 1, 7, 7))
                parts.append(matrix(f"{at}.token_mixer.pwconv2", C, 2 * C))
            if kind == "r":
                N = (56 // 2**stage) ** 2
                parts.append({f"{at}.token_mixer.random_matrix": (N, N)})
    C = widths[-1]
    head = [tensor("head", 1000, C)]
    if "s" in mixers:
        head = [tensor("head.fc1", 4 * C, C), tensor("head.norm", 4 * C), tensor("head.fc2", 1000, 4 * C)]
    return union([*parts, tensor("norm", C), *head])


def vit_block(at: str, C: int, D: int, *, qkv_bias: bool) -> list[Shapes]:
    qkv = tensor(f"{at}.attn.qkv", 3 * C, C) if qkv_bias else matrix(f"{at}.attn.qkv", 3 * C, C)
    norms = [tensor(f"{at}.norm1", C), tensor(f"{at}.norm2", C)]
    mlp = [tensor(f"{at}.mlp.fc1", D, C), tensor(f"{at}.mlp.fc2", C, D)]
    return [*norms, qkv, tensor(f"{at}.attn.proj", C, C), *mlp]


def deit(C: int) -> Shapes:
    blocks = [part for block in range(12) for part in vit_block(f"blocks.{block}", C, 4 * C, qkv_bias=True)]
    tables: Shapes = {"cls_token": (1, 1, C), "pos_embed": (1, 197, C)}
    return union(
        [tables, tensor("patch_embed.proj", C, 3, 16, 16), *blocks, tensor("norm", C), tensor("head", 1000, C)]
    )


def affine(name: str, C: int) -> Shapes:
    return {f"{name}.alpha": (C,), f"{name}.beta": (C,)}


def resmlp(depth: int, C: int) -> Shapes:
    parts = [tensor("patch_embed.proj", C, 3, 16, 16)]
    for block in range(depth):
        at = f"blocks.{block}"
        parts += [affine(f"{at}.norm1", C), affine(f"{at}.norm2", C), tensor(f"{at}.attn", 196, 196)]
        parts += [tensor(f"{at}.mlp.fc1", 4 * C, C), tensor(f"{at}.mlp.fc2", C, 4 * C)]
        parts.append({f"{at}.gamma_1": (C,), f"{at}.gamma_2": (C,)})
    return union([*parts, affine("norm", C), tensor("head", 1000, C)])


def pvt(depths: tuple[int, ...]) -> Shapes:
    widths, ratios, reductions, patches = (64, 128, 320, 512), (8, 8, 4, 4), (8, 4, 2, 1), (4, 2, 2, 2)
    tokens = (3136, 784, 196, 50)
    parts: list[Shapes] = [{"cls_token": (1, 1, 512)}]
    for stage, (depth, C, ratio, r) in enumerate(zip(depths, widths, ratios, reductions, strict=True)):
        patch = patches[stage]
        parts.append(tensor(f"patch_embed{stage + 1}.proj", C, widths[stage - 1] if stage else 3, patch, patch))
        parts.append(tensor(f"patch_embed{stage + 1}.norm", C))
        parts.append({f"pos_embed{stage + 1}": (1, tokens[stage], C)})
        for block in range(depth):
            at = f"block{stage + 1}.{block}"
            parts += [tensor(f"{at}.norm1", C), tensor(f"{at}.norm2", C)]
            parts += [tensor(f"{at}.attn.{name}", rows * C, C) for name, rows in (("q", 1), ("kv", 2), ("proj", 1))]
            if r > 1:
                parts += [tensor(f"{at}.attn.sr", C, C, r, r), tensor(f"{at}.attn.norm", C)]
            parts += [tensor(f"{at}.mlp.fc1", ratio * C, C), tensor(f"{at}.mlp.fc2", C, ratio * C)]
    return union([*parts, tensor("norm", 512), tensor("head", 1000, 512)])


def batch_norm(name: str, C: int) -> Shapes:
    statistics = {f"{name}.running_mean": (C,), f"{name}.running_var": (C,), f"{name}.num_batches_tracked": ()}
    return tensor(name, C) | statistics


def convmixer(C: int, depth: int, *, patch: int, kernel: int, num_classes: int) -> Shapes:
    parts = [tensor("0", C, 3, patch, patch), batch_norm("2", C)]
    for item in range(3, 3 + depth):
        parts += [tensor(f"{item}.0.fn.0", C, 1, kernel, kernel), batch_norm(f"{item}.0.fn.2", C)]
        parts += [tensor(f"{item}.1", C, C, 1, 1), batch_norm(f"{item}.3", C)]
    return union([*parts, tensor(f"{depth + 5}", num_classes, C)])


def t2t_vit(depth: int, C: int, ratio: int, *, performer: bool, se: bool = False) -> Shapes:
    parts: list[Shapes] = [{"cls_token": (1, 1, C), "pos_embed": (1, 197, C)}]
    for number, wide in ((1, 147), (2, 576)):
        at = f"tokens_to_token.attention{number}"
        parts += [tensor(f"{at}.norm1", wide), tensor(f"{at}.norm2", 64)]
        if performer:
            parts += [{f"{at}.w": (32, 64)}, tensor(f"{at}.kqv", 192, wide), tensor(f"{at}.proj", 64, 64)]
            parts += [tensor(f"{at}.mlp.0", 64, 64), tensor(f"{at}.mlp.2", 64, 64)]
        else:
            parts += [matrix(f"{at}.attn.qkv", 192, wide), tensor(f"{at}.attn.proj", 64, 64)]
            parts += [tensor(f"{at}.mlp.fc1", 64, 64), tensor(f"{at}.mlp.fc2", 64, 64)]
    parts.append(tensor("tokens_to_token.project", C, 576))
    blocks = [p for block in range(depth) for p in vit_block(f"blocks.{block}", C, ratio * C, qkv_bias=False)]
    for block in range(depth if se else 0):
        at = f"blocks.{block}.attn.se_layer.fc"
        blocks += [matrix(f"{at}.0", C // 16, C), matrix(f"{at}.2", C, C // 16)]
    return union([*parts, *blocks, tensor("norm", C), tensor("head", 1000, C)])


_SMALL, _MEDIUM = (64, 128, 320, 512), (96, 192, 384, 768)
_S12, _S18 = (2, 2, 6, 2), (3, 3, 9, 3)

# Names and shapes, and how many parameters the official model class has, frozen ones included.
OFFICIAL: dict[str, tuple[Shapes, int]] = {
    "poolformer_s12": (poolformer(_S12, _SMALL), 11_915_176),
    "poolformer_m48": (poolformer((8, 8, 24, 8), _MEDIUM), 73_473_448),
    "metaformer_id_s12": (poolformer(_S12, _SMALL, "iiii"), 11_915_176),
    "metaformer_pppa_s12_224": (poolformer(_S12, _SMALL, "pppa"), 14_038_440),
    "metaformer_ppaa_s12_224": (poolformer(_S12, _SMALL, "ppaa"), 16_535_592),
    "metaformer_pppf_s12_224": (poolformer(_S12, _SMALL, "pppf"), 11_919_978),
    "metaformer_ppff_s12_224": (poolformer(_S12, _SMALL, "ppff"), 12_150_474),
    "identityformer_s12": (baseline(_S12, _SMALL, "iiii"), 11_891_712),
    "randformer_s12": (baseline(_S12, _SMALL, "iirr"), 11_891_712 + 6 * 196**2 + 2 * 49**2),
    "poolformerv2_s12": (baseline(_S12, _SMALL, "pppp"), 11_891_712),
    "convformer_s18": (baseline(_S18, _SMALL, "ssss"), 26_774_448),
    "caformer_s18": (baseline(_S18, _SMALL, "ssaa"), 26_341_656),
    "deit_tiny_patch16_224": (deit(192), 5_717_416),
    "deit_base_patch16_224": (deit(768), 86_567_656),
    "resmlp_12_224": (resmlp(12, 384), 15_350_872),
    "resmlp_b24_224": (resmlp(24, 768), 115_736_776),
    "pvt_tiny": (pvt((2, 2, 2, 2)), 13_229_288),
    "pvt_small": (pvt((3, 4, 6, 3)), 24_485_864),
    "pvt_large": (pvt((3, 8, 27, 3)), 61_369_320),
    "convmixer_256_8_p1_k9": (convmixer(256, 8, patch=1, kernel=9, num_classes=10), 706_570),
    "convmixer_1536_20": (convmixer(1536, 20, patch=7, kernel=9, num_classes=1000), 51_625_960),
    "t2t_vit_7": (t2t_vit(7, 256, 2, performer=True), 4_310_222),
    "t2t_vit_14": (t2t_vit(14, 384, 3, performer=True), 21_545_550),
    "t2t_vit_14_se": (t2t_vit(14, 384, 3, performer=True, se=True), 21_545_550 + 14 * 2 * 384 * 24),
    "t2t_vit_t_24": (t2t_vit(24, 512, 3, performer=False), 64_101_454),
}
