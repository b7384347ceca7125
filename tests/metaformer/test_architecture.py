"""Architectures as values: round trips, digests, and one clear line for whatever is wrong."""

import copy
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from metaformer import Architecture, ArchitectureError, zoo
from metaformer.specs import AttentionSpec, Downsample, PoolSpec, SpatialMlpSpec, Stage
from tests.strategies import architectures

GOLDEN = Path(__file__).parents[1] / "golden" / "digests.json"


@given(architectures())
def test_a_yaml_round_trip_changes_nothing(arch: Architecture) -> None:
    again = Architecture.from_yaml(arch.to_yaml())
    assert again == arch
    assert again.digest == arch.digest
    assert again.to_yaml() == arch.to_yaml()


@given(architectures())
def test_a_json_round_trip_changes_nothing(arch: Architecture) -> None:
    again = Architecture.model_validate_json(arch.model_dump_json())
    assert again == arch
    assert again.digest == arch.digest


@pytest.mark.parametrize("name", zoo.names())
def test_a_zoo_model_survives_a_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.yaml"
    path.write_text(zoo.get(name).to_yaml(), encoding="utf-8")
    assert Architecture.from_file(path) == zoo.get(name)


def test_fields_left_out_take_their_defaults() -> None:
    arch = Architecture.from_yaml("stages: [{depth: 1, width: 8, mixer: {kind: pool}}]")
    assert arch == Architecture(stages=(Stage(depth=1, width=8, mixer=PoolSpec(size=3)),))


def test_an_architecture_cannot_be_changed_and_can_be_a_key() -> None:
    arch = zoo.get("poolformer_s12")
    with pytest.raises(ValidationError, match="frozen"):
        arch.drop_path = 0.5  # type: ignore[misc]
    assert len({arch, Architecture.from_yaml(arch.to_yaml()), zoo.get("poolformer_s24")}) == 2


@given(architectures())
def test_a_digest_is_16_hexadecimal_digits(arch: Architecture) -> None:
    assert len(arch.digest) == 16
    assert set(arch.digest) <= set("0123456789abcdef")


@given(architectures(), st.integers(65, 500))
def test_the_resolution_enters_the_digest_only_where_something_fixes_it(arch: Architecture, resolution: int) -> None:
    other = Architecture.model_validate(arch.model_dump() | {"resolution": resolution})
    assert (other.digest == arch.digest) == (not arch.fixes_resolution)


REFERENCE = """
resolution: 64
drop_path: 0.1
stages:
- {depth: 1, width: 16, mixer: {kind: attention, head_size: 8}, position_embedding: true}
- {depth: 1, width: 16, mixer: {kind: pool}, downsample: {}}
- {depth: 1, width: 16, mixer: {kind: dwconv}}
"""
CONVMIXER_BLOCK = {"mlp": None, "layer_scale": None, "post_activation": "gelu"}
OTHER_KIND = {
    "mln": "layer_norm",
    "gelu": "relu",
    "norm_then_pool": "pool_then_norm",
    "learned": "sinusoidal",
    "linear": "constant",
    "poolformer": "transformer",
    "pool": "dwconv",
    "dwconv": "pool",
}


def leaves(part: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Path and value of everything in nested mappings and lists that is neither."""
    if not isinstance(part, dict | list):
        yield path, part
        return
    for key, value in part.items() if isinstance(part, dict) else enumerate(part):
        yield from leaves(value, (*path, key))


def with_leaf(raw: dict[str, Any], path: tuple[Any, ...], value: object) -> dict[str, Any]:
    """A copy of `raw` with another value at `path`."""
    copied: dict[str, Any] = copy.deepcopy(raw)
    holder: Any = copied
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    return copied


# There is one version; the test itself changes the others.
UNTRIED = {"version", "width", "pool", "class_token", "post_activation", "interleaved", "dense"}
FROM_NOTHING: dict[str, list[object]] = {  # other values of fields that are null or zero
    "pre_norm": [{}, {"kind": "layer_norm"}],
    "post_norm": [{}, {"kind": "layer_norm"}],
    "activation": ["relu", "star_relu"],
    "position_embedding": ["learned", "sinusoidal"],
    "res_scale": [0.1, 0.2],
    "dropout": [0.1, 0.2],
    "hidden_ratio": [1, 2],
    "se_reduction": [1, 2],
}


def other_values(path: tuple[Any, ...], value: object) -> list[object]:
    """Other values that the field at `path` may take."""
    others: list[object]
    match path[-1], value:
        case (name, _) if name in UNTRIED or value in ("attention", "conv"):
            others = []
        case (name, None | 0.0) if name in FROM_NOTHING:
            others = FROM_NOTHING[name]
        case "downsample", None:
            others = [{"stride": 1}] if path[1] > 0 else []
        case "layer_scale", float():
            others = [None, value / 2, value / 4]
        case "head_size", int():
            others = [value // 2, value // 4]
        case "size", int():
            others = [value + 2, value + 4]
        case _, bool():
            others = [not value]
        case _, str():
            others = [OTHER_KIND[value]]
        case _, int() | float():
            others = [value * 2, value * 4]
        case _:
            raise AssertionError(f"no other value known for {path}")
    return others


def test_every_field_enters_the_digest() -> None:
    """Each field of a reference architecture in turn takes other values: no two digests are equal."""
    raw = Architecture.from_yaml(REFERENCE).model_dump(mode="json")
    others = [with_leaf(raw, path, other) for path, value in leaves(raw) for other in other_values(path, value)]
    others += [
        with_leaf(raw, ("stages", 0, "mlp"), None),
        with_leaf(raw, ("stages", 0, "mixer"), {"kind": "identity"}),
        with_leaf(raw, ("stages",), raw["stages"][:1]),
        *(
            with_leaf(raw, ("stages", 2), raw["stages"][2] | {"depth": 3, "interleaved": interleaved})
            for interleaved in (
                None,
                {"every": 2, "mixer": {"kind": "identity"}},
                {"every": 3, "mixer": {"kind": "identity"}},
                {"every": 2, "mixer": {"kind": "random"}},
            )
        ),
        *(
            with_leaf(raw, ("stages", 2), raw["stages"][2] | {"depth": 3, "dense": dense})
            for dense in (
                {"growth": 16, "groups": [3]},
                {"growth": 8, "groups": [3]},
                {"growth": 16, "groups": [1, 2]},
                {"growth": 16, "groups": [2, 1]},
            )
        ),
        with_leaf(raw, ("stem",), {"kind": "tokens_to_token"}),
        with_leaf(raw, ("stem",), {"kind": "tokens_to_token", "attention": "transformer"}),
        with_leaf(raw, ("stem",), {"kind": "tokens_to_token", "splits": [{"kernel": 4, "stride": 4, "padding": 0}]}),
        with_leaf(raw, ("stages",), [stage | CONVMIXER_BLOCK for stage in raw["stages"]]),
        with_leaf(raw, ("stages",), [raw["stages"][0] | {"class_token": True}]),
        with_leaf(raw, ("stages",), [raw["stages"][0] | {"class_token": True}]) | {"head": {"pool": "class_token"}},
        with_leaf(raw, ("stages",), [stage | {"width": 24} for stage in raw["stages"]]),
    ]
    digests = {Architecture.model_validate(each).digest for each in (raw, *others)}
    assert len(digests) == len(others) + 1


def test_a_changed_copy_has_a_digest_of_its_own() -> None:
    arch = zoo.get("poolformer_s12")
    assert arch.digest != arch.model_copy(update={"drop_path": 0.5}).digest


def digests_elsewhere(texts: list[str], *, hash_seed: str) -> list[str]:
    """Digests of architectures given as YAML, computed in a process of its own."""
    code = (
        "import json, sys; from metaformer import Architecture;"
        "print(json.dumps([Architecture.from_yaml(text).digest for text in json.load(sys.stdin)]))"
    )
    process = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(texts),
        env={"PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    digests: list[str] = json.loads(process.stdout)
    return digests


@settings(max_examples=3)
@given(st.lists(architectures(), min_size=10, max_size=10), st.sampled_from(["0", "1"]))
def test_digests_are_the_same_in_another_process(archs: list[Architecture], hash_seed: str) -> None:
    digests = digests_elsewhere([arch.to_yaml() for arch in archs], hash_seed=hash_seed)
    assert digests == [arch.digest for arch in archs]


def test_digests_of_the_zoo_are_those_of_earlier_versions() -> None:
    """A guard against drift, not an oracle: the table holds our own digests as of version 1.

    A study keeps digests on disk; if one changes here, old studies no longer know what they have trained.
    """
    assert {name: zoo.get(name).digest for name in zoo.names()} == json.loads(GOLDEN.read_text(encoding="utf-8"))


def test_digests_of_the_zoo_are_distinct() -> None:
    assert len({zoo.get(name).digest for name in zoo.names()}) == len(zoo.names())


@given(architectures())
def test_sides_shrink_to_no_less_than_one_token(arch: Architecture) -> None:
    assert len(arch.sides()) == len(arch.stages)
    assert min(arch.sides()) >= 1
    assert arch.depth == sum(stage.depth for stage in arch.stages)


def test_poolformer_has_strides_4_8_16_32() -> None:
    arch = zoo.get("poolformer_s12")
    assert arch.sides() == (56, 28, 14, 7)
    assert arch.sides(448) == (112, 56, 28, 14)
    assert not arch.fixes_resolution


@pytest.mark.parametrize(
    ("fields", "fixes"),
    [({}, False), ({"position_embedding": True}, True), ({"mixer": SpatialMlpSpec()}, True)],
)
def test_positions_and_matrices_over_tokens_fix_the_resolution(fields: dict[str, object], fixes: bool) -> None:
    stage = Stage.model_validate({"depth": 1, "width": 32, "mixer": AttentionSpec(), **fields})
    arch = Architecture(resolution=64, stages=(stage,))
    assert arch.fixes_resolution == fixes
    assert arch.sides(64) == (16,)
    if fixes:
        with pytest.raises(ArchitectureError, match=r"^resolution: must be 64, which .* fixes, got 96$"):
            arch.sides(96)
    else:
        assert arch.sides(96) == (24,)


STAGE = "{depth: 1, width: 32, mixer: {kind: pool}}"
MIXED = "interleaved: {every: 2, mixer: {kind: attention}}"
ATTENTION = "{depth: 1, width: 32, mixer: {kind: attention}}"
BAD_TEXTS = {
    # the file as a whole
    "stages: [": r"^architecture: must be YAML: .*line 1",
    "stages: 2020-99-99": r"^architecture: must be YAML: month must be in 1..12$",
    "stages: !!bool perhaps": r"^architecture: must be YAML: 'perhaps'$",
    "stages: !!timestamp never": r"^architecture: must be YAML: ",
    "[" * 5000: r"^architecture: must be YAML: must have at most 50 levels",
    "": r"^architecture: must be a mapping of fields, got NoneType$",
    f"[{STAGE}]": r"^architecture: must be a mapping of fields, got list$",
    "!!python/object/apply:os.getcwd []": r"^architecture: must be YAML: could not determine a constructor for the tag",
    "stages: !!python/name:os.system": r"^architecture: must be YAML: could not determine a constructor for the tag",
    f"{{version: 2, stages: [{STAGE}]}}": r"^version: input should be 1, got 2$",
    "{resolution: 224}": r"^stages: must be given$",
    "stages: []": r"^stages: must hold at least one stage, got none$",
    "stages: many": r"^stages: input should be a valid tuple, got 'many'$",
    f"{{stages: [{STAGE}], 3: 4}}": r"^3: keys should be strings, got 3$",
    # unknown fields and kinds, the nearest known name first
    f"{{resolutoin: 64, stages: [{STAGE}]}}": r"^resolutoin: unknown name 'resolutoin'; known, .*first: resolution, ",
    f'{{"drop\\npath": 1, stages: [{STAGE}]}}': r"^drop path: unknown name 'drop.npath'; .* first: drop_path, ",
    f"{{stem: {{kernal: 3}}, stages: [{STAGE}]}}": r"^stem.kernal: unknown name 'kernal'; known, .*first: kernel, ",
    f"{{head: {{norm: {{epsilon: 1}}}}, stages: [{STAGE}]}}": r"^head.norm.epsilon: unknown .*first: eps, kind, bias$",
    "stages: [{depth: 1, widht: 8}]": r"^stages.0.width: must be given \(and 2 more\)$",
    "stages: [{depth: 1, width: 8, mixer: {kind: pool}, widht: 8}]": r"^stages.0.widht: unknown name .*first: width, ",
    "stages: [{depth: 1, width: 8, mixer: {kind: pool}, mlp: {raito: 8}}]": r"^stages.0.mlp.raito: .*first: ratio, act",
    "stages: [{depth: 1, width: 8, mixer: {kind: atention}}]": r"^stages.0.mixer.kind: unknown .*first: attention, ",
    "stages: [{depth: 1, width: 8, mixer: {kind: pool, sise: 3}}]": r"^stages.0.mixer: field of pool: .*'sise'; .*",
    "stages: [{depth: 1, width: 8, mixer: {kind: pool}, norm: {kind: mlm}}]": r"^stages.0.norm.kind: .*, got 'mlm'$",
    # values that break a rule
    "stages: [{depth: 1, width: -8, mixer: {kind: pool}}]": r"^stages.0.width: input should be greater than 0, got -8$",
    "stages: [{depth: 0, width: 8, mixer: {kind: pool}}]": r"^stages.0.depth: input should be greater than 0, got 0$",
    "stages: [{depth: 1, width: 8, mixer: pool}]": r"^stages.0.mixer: input should be .* MixerSpec, got 'pool'$",
    "stages: [{depth: 1, width: 8, mixer: {kind: pool, size: 4}}]": r"^stages.0.mixer.size: must be odd, .*, got 4$",
    "stages: [{depth: 1, width: 8, mixer: {kind: dwconv, size: -3}}]": r"^stages.0.mixer.size: .*than 0, got -3$",
    f"{{drop_path: 1.0, stages: [{STAGE}]}}": r"^drop_path: input should be less than 1, got 1.0$",
    f"{{drop_path: .nan, stages: [{STAGE}]}}": r"^drop_path: input should be a finite number, got nan$",
    # parts that do not fit together
    "stages: [{depth: 1, width: 40, mixer: {kind: attention}}]": (
        r"^stages.0.width: must be a multiple of 32, for the heads of its attention, got 40$"
    ),
    "stages: [{depth: 1, width: 8, mixer: {kind: pool}, downsample: {}}]": (
        r"^stages.0.downsample: must be null, since the stem feeds the first stage$"
    ),
    f"stages: [{STAGE}, {{depth: 1, width: 64, mixer: {{kind: pool}}}}]": (
        r"^stages.1.width: must stay 32 where there is no downsampling, got 64$"
    ),
    "stages: [{depth: 1, width: 8, mixer: {kind: pool}, class_token: true}]": (
        r"^stages.0.class_token: must be false, since pool needs a square map, got true$"
    ),
    f"stages: [{ATTENTION[:-1]}, class_token: true}}, {ATTENTION}]": (
        r"^stages.0.class_token: must be false but in the last stage, got true$"
    ),
    f"stages: [{{depth: 1, width: 32, mixer: {{kind: pool}}, {MIXED}}}]": (
        r"^stages.0.interleaved.every: must be at most the depth 1, or no block has its mixer, got 2$"
    ),
    f"stages: [{{depth: 2, width: 32, mixer: {{kind: attention}}, {MIXED}}}]": (
        r"^stages.0.interleaved.mixer: must be another than that of the other blocks, got attention twice$"
    ),
    f"stages: [{{depth: 2, width: 40, mixer: {{kind: pool}}, {MIXED}}}]": (
        r"^stages.0.width: must be a multiple of 32, for the heads of its attention, got 40$"
    ),
    f"stages: [{{depth: 2, width: 32, mixer: {{kind: pool}}, class_token: true, {MIXED}}}]": (
        r"^stages.0.class_token: must be false, since pool needs a square map, got true$"
    ),
    "stages: [{depth: 2, width: 8, mixer: {kind: pool}, interleaved: {every: 1, mixer: {kind: identity}}}]": (
        r"^stages.0.interleaved.every: input should be greater than or equal to 2, got 1$"
    ),
    "stages: [{depth: 2, width: 8, mixer: {kind: pool}, interleaved: {every: 2, mixer: {kind: poool}}}]": (
        r"^stages.0.interleaved.mixer.kind: unknown name 'poool'; known, nearest first: pool, "
    ),
    "stages: [{depth: 1, width: 9, mixer: {kind: attention, head_size: 3, ghost: true}}]": (
        r"^stages.0.width: must be a multiple of 6, for the heads of its attention, got 9$"
    ),
    f"stages: [{STAGE[:-1]}, mlp: {{ratio: 1, ghost: true}}}}]": (
        r"^stages.0.mlp.ghost: must be false at ratio 1, where no hidden channel is left to it, got true$"
    ),
    f"stages: [{STAGE[:-1]}, se_reduction: 0}}]": r"^stages.0.se_reduction: input should be greater than 0, got 0$",
    f"stages: [{STAGE[:-1]}, dense: {{growth: 8, groups: []}}}}]": (
        r"^stages.0.dense.groups: must hold at least one number of blocks, got \[\]$"
    ),
    f"stages: [{STAGE[:-1]}, dense: {{growth: 8, groups: [1, 2]}}}}]": (
        r"^stages.0.dense.groups: must add up to the depth 1, got 3$"
    ),
    f"stages: [{ATTENTION[:-1]}, dense: {{growth: 8, groups: [1]}}}}]": (
        r"^stages.0.dense.growth: must be a multiple of 32, for the heads of its attention, got 8$"
    ),
    f"stages: [{STAGE[:-1]}, dense: {{growth: 8, groups: [1]}}}}, {STAGE}]": (
        r"^stages.1.width: must stay 40 where there is no downsampling, got 32$"
    ),
    f"{{head: {{pool: class_token}}, stages: [{ATTENTION}]}}": (
        r"^head.pool: must be mean where the last stage has no class token, got class_token$"
    ),
    f"stages: [{ATTENTION[:-1]}, residual: false, res_scale: 1.0}}]": (
        r"^stages.0.res_scale: must be null without a residual, got 1.0$"
    ),
    f"stages: [{STAGE[:-1]}, post_activation: gelu}}]": (
        r"^stages.0.mlp: must be null in blocks with post_activation, got .*ratio=4"
    ),
    f"stages: [{STAGE[:-1]}, post_activation: gelu, mlp: null}}]": (
        r"^stages.0.layer_scale: must be null in blocks with post_activation, got 1e-05$"
    ),
    "{resolution: 16, stages: [{depth: 1, width: 64, mixer: {kind: reduced_attention, reduction: 8}}]}": (
        r"^resolution: must leave stage 0 a map of side 8 for its reduced_attention, got 4 at 16 pixels$"
    ),
    "stages: [{depth: 1, width: 64, mixer: {kind: reduced_attention, reduction: 1}}]": (
        r"^stages.0.mixer.reduction: input should be greater than or equal to 2, got 1$"
    ),
    f"{{stem: {{kind: token_to_token}}, stages: [{STAGE}]}}": (
        r"^stem.kind: unknown name 'token_to_token'; .*first: tokens_to_token, conv$"
    ),
    f"{{stem: {{kind: tokens_to_token, kernel: 7}}, stages: [{STAGE}]}}": (
        r"^stem: field of tokens_to_token: unknown name 'kernel'; known, nearest first: "
    ),
    f"{{stem: {{kind: tokens_to_token, splits: []}}, stages: [{STAGE}]}}": (
        r"^stem\.splits: must hold at least one soft split, got "
    ),
    "{resolution: 32, stem: {kind: tokens_to_token, splits: [{kernel: 40, stride: 4, padding: 0}, "
    f"{{kernel: 3, stride: 2, padding: 4}}]}}, stages: [{STAGE}]}}": (  # the second split would have a token again
        r"^resolution: stage 0 would have no token left at 32 pixels; take more pixels$"
    ),
    f"{{stem: {{kind: tokens_to_token, token_width: 7}}, stages: [{STAGE}]}}": (
        r"^stem.token_width: must be even, since .*, got 7$"
    ),
    f"{{stem: 7, stages: [{STAGE}]}}": r"^stem: input should be .*, got 7$",
    f"{{resolution: 2, stages: [{STAGE}]}}": r"^resolution: stage 0 would have no token left at 2 pixels; take more",
    f"{{resolution: 16, stages: [{STAGE}, {STAGE[:-1]}, downsample: {{kernel: 7, padding: 0}}}}]}}": (
        r"^resolution: stage 1 would have no token left at 16 pixels; take more pixels$"
    ),
}


@pytest.mark.parametrize(("text", "message"), BAD_TEXTS.items(), ids=lambda text: text[:60])
def test_bad_text_is_refused_in_one_clear_line(text: str, message: str) -> None:
    with pytest.raises(ArchitectureError, match=message) as caught:
        Architecture.from_yaml(text)
    assert len(str(caught.value).splitlines()) == 1


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 9),
    st.sampled_from([10**30, -(10**30), float("nan"), float("inf"), 1e-320, "pool", "a\nb", "\u2028"]),
    st.text(max_size=5),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=5) | st.integers(), st.integers(), max_size=2),
)


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """YAML of an architecture with one value replaced, one key taken away or one added, anywhere."""
    raw: dict[str, Any] = draw(architectures()).model_dump(mode="json")
    holders: list[dict[Any, Any]] = []
    todo: list[object] = [raw]
    while todo:
        part = todo.pop()
        if isinstance(part, dict):
            holders.append(part)
            todo.extend(part.values())
        elif isinstance(part, list):
            todo.extend(part)
    holder = draw(st.sampled_from(holders))
    key = draw(st.sampled_from(list(holder)) | st.text(max_size=5) | st.integers())
    if key in holder and draw(st.booleans()):
        del holder[key]
    else:
        holder[key] = draw(JUNK)
    return yaml.safe_dump(raw)


def read(text: str) -> Architecture | str:
    """The architecture, or the message that refuses it."""
    try:
        return Architecture.from_yaml(text)
    except ArchitectureError as error:
        return str(error)


@settings(max_examples=100)
@given(damaged())
def test_damaged_text_is_read_or_refused_in_one_line(text: str) -> None:
    result = read(text)
    if isinstance(result, str):
        assert len(result.splitlines()) == 1
    else:
        assert read(result.to_yaml()) == result


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArchitectureError, match=r"^architecture: must be a readable YAML file, got '.*/none.yaml' \("):
        Architecture.from_file(tmp_path / "none.yaml")


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(ArchitectureError, match=r"^architecture: must be a readable YAML file, got '.*png' .*utf-8"):
        Architecture.from_file(path)


def test_an_error_in_a_file_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("stages: []", encoding="utf-8")
    with pytest.raises(ArchitectureError, match=r"mine.yaml: stages: must hold at least one stage, got none$"):
        Architecture.from_file(path)


def test_the_width_may_stay_where_there_is_no_downsampling_and_change_where_there_is() -> None:
    first = Stage(depth=1, width=8, mixer=PoolSpec())
    stays = Stage(depth=1, width=8, mixer=PoolSpec(size=5))
    changes = Stage(depth=1, width=24, mixer=PoolSpec(), downsample=Downsample())
    assert Architecture(resolution=32, stages=(first, stays, changes)).sides() == (8, 8, 4)


@pytest.mark.parametrize(
    ("changes", "idle"),
    [
        ({"drop_path": 0.3, "depth": 1}, {"drop_path": 0.0}),
        ({"drop_path": 0.3, "residual": False}, {"drop_path": 0.0}),
        ({"eps": 1e-3, "norm": "none"}, {"eps": 1e-6}),
        ({"eps": 1e-3, "norm": "affine"}, {"eps": 1e-6}),
        ({"order": "pool_then_norm", "norm": "none"}, {"order": "norm_then_pool"}),
    ],
)
def test_fields_that_do_nothing_do_not_enter_the_digest(changes: dict[str, object], idle: dict[str, object]) -> None:
    def make(fields: dict[str, object]) -> Architecture:
        norm = {"kind": fields.get("norm", "mln"), "eps": fields.get("eps", 1e-5)}
        stage = {"depth": fields.get("depth", 2), "residual": fields.get("residual", True), "norm": norm}
        head = {"norm": norm, "order": fields.get("order", "norm_then_pool")}
        stages = [{**stage, "width": 8, "mixer": {"kind": "pool"}}]
        return Architecture.model_validate({"stages": stages, "head": head, "drop_path": fields.get("drop_path", 0.0)})

    assert make(changes).digest == make(changes | idle).digest
    rest = {field: value for field, value in changes.items() if field in idle}  # what made the field idle is gone
    assert make(rest).digest != make(rest | idle).digest


def test_parts_that_do_nothing_do_not_enter_the_digest() -> None:
    """A norm of kind none beside a convolution, and the order of a layer norm and taking the class token."""
    plain, bare = ({"stem": stem, "stages": [yaml.safe_load(STAGE)]} for stem in ({}, {"post_norm": {"kind": "none"}}))
    assert Architecture.model_validate(plain).digest == Architecture.model_validate(bare).digest
    stages = [yaml.safe_load(ATTENTION) | {"class_token": True}]
    digests = {}
    for pool in ("mean", "class_token"):
        for order in ("norm_then_pool", "pool_then_norm"):
            head = {"pool": pool, "order": order, "norm": {"kind": "layer_norm"}}
            digests[pool, order] = Architecture.model_validate({"stages": stages, "head": head}).digest
    assert digests["class_token", "norm_then_pool"] == digests["class_token", "pool_then_norm"]
    assert len(set(digests.values())) == 3


def test_a_key_given_twice_is_refused() -> None:
    with pytest.raises(ArchitectureError, match="architecture: must be YAML: .*the key 'depth' is given twice"):
        Architecture.from_yaml("stages: [{depth: 2, depth: 3, width: 8, mixer: {kind: pool}}]")


def test_a_mixer_without_kind_is_refused() -> None:
    with pytest.raises(ArchitectureError, match=r"stages.0.mixer.kind: must be given, one of pool, attention"):
        Architecture.from_yaml("stages: [{depth: 2, width: 8, mixer: {size: 3}}]")


@pytest.mark.parametrize(
    ("changed", "to", "message"),
    [
        ("version: 1", "version: true", "version: must be a whole number, got True"),
        ("version: 1", "version: 1.0", "version: must be a whole number, got 1.0"),
        ("version: 1", "version: '1'", "version: must be a whole number, got '1'"),
        ("resolution: 224", "resolution: .nan", "resolution: input should be a valid integer, got nan"),
        ("resolution: 224", "resolution: true", "resolution: input should be a valid integer, got True"),
        ("resolution: 224", "resolution: 100000", "resolution: input should be less than or equal to 8192, got 100000"),
        ("width: 64", "width: '64'", "stages.0.width: input should be a valid integer, got '64'"),
        ("width: 64", "width: 64.0", "stages.0.width: input should be a valid integer, got 64.0"),
        ("depth: 2", "depth: 1000001", "stages.0.depth: input should be less than or equal to 1000000, got 1000001"),
        ("residual: true", "residual: 'yes'", "stages.0.residual: input should be a valid boolean, got 'yes'"),
        ("residual: true", "residual: 1", "stages.0.residual: input should be a valid boolean, got 1"),
        ("drop_path: 0.1", "drop_path: '0.1'", "drop_path: input should be a valid number, got '0.1'"),
        ("drop_path: 0.1", "drop_path: .nan", "drop_path: "),
        ("drop_path: 0.1", "drop_path: false", "drop_path: input should be a valid number, got False"),
    ],
)
def test_a_field_of_another_type_or_beyond_reason_is_refused(changed: str, to: str, message: str) -> None:
    arch = zoo.get("poolformer_s12").model_copy(update={"drop_path": 0.1})
    text = arch.to_yaml()
    assert changed in text
    with pytest.raises(ArchitectureError, match=f"^{re.escape(message)}"):
        Architecture.from_yaml(text.replace(changed, to, 1))


def test_a_changed_copy_has_a_digest_of_its_own_and_the_digest_is_no_field() -> None:
    arch = zoo.get("poolformer_s12")
    before = arch.model_dump()
    wider = arch.model_copy(update={"drop_path": 0.5})
    assert len({arch.digest, wider.digest, wider.model_copy(update={"drop_path": 0.25}).digest}) == 3
    assert arch.model_dump() == before
    assert wider.model_copy(update={"drop_path": arch.drop_path}) == arch
