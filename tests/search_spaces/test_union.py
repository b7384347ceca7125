"""Unions: several spaces as one, each architecture once."""

import random
from collections.abc import Mapping

import pytest

import search_spaces
from metaformer import zoo
from metaformer.architecture import Architecture
from metaformer.errors import UserError
from metaformer.specs import Head, IdentitySpec, MixerSpec, PoolSpec, Stage, Stem
from search_spaces import Choice, Limits, SearchSpace, SpaceError, SpaceSettings
from search_spaces.enumeration import architectures_within
from search_spaces.space import Gene, Genes, Union, register_space

SMALL = SpaceSettings(
    resolution=32, num_classes=10, stem=Stem(kernel=3, stride=2, padding=1), width_scale=0.25, limits=Limits()
)
FIRST, SECOND = "hybrid_stages", "convmixer"


class Depths(SearchSpace):
    """Models of one stage that differ in their depth, up to four blocks."""

    name = "depths"
    mixer: MixerSpec = PoolSpec()
    choices = (Choice("depth", (1, 2, 3, 4)),)
    size = 4

    def decode(self, genes: Mapping[str, Gene]) -> Architecture:
        stage = Stage(depth=int(genes["depth"]), width=8, mixer=self.mixer)
        return Architecture(resolution=16, stem=Stem(kernel=4, padding=0), stages=(stage,), head=Head(num_classes=10))

    def encode(self, arch: Architecture) -> Genes:
        return self._checked({"depth": arch.stages[0].depth}, arch)

    def references(self) -> dict[str, Architecture]:
        return {}


class Deeper(Depths):
    """Two of them, and two more."""

    name = "deeper"
    choices = (Choice("depth", (3, 4, 5, 6)),)

    def num_shared(self, other: SearchSpace) -> int | None:
        return 2 if type(other) is Depths else super().num_shared(other)


class OfIdentities(Depths):
    name = "of_identities"
    mixer = IdentitySpec()

    def num_shared(self, other: SearchSpace) -> int | None:
        return 0 if isinstance(other, Depths) else super().num_shared(other)


@pytest.fixture(scope="module")
def union() -> Union:
    found = search_spaces.get(f"{FIRST}+{SECOND}", SMALL)
    assert isinstance(found, Union)
    return found


def test_the_genes_are_the_family_and_then_those_of_each_space_under_its_name(union: Union) -> None:
    own = [
        f"{name}.{choice.name}" for name in (FIRST, SECOND) for choice in search_spaces.get(name, own_of(name)).choices
    ]
    assert [choice.name for choice in union.choices] == ["family", *own]
    assert union.choices[0].values == (FIRST, SECOND)
    assert union.name == f"{FIRST}+{SECOND}"


def own_of(name: str) -> SpaceSettings:
    return SMALL if name == FIRST else SMALL.model_copy(update={"stem": Stem()})


def test_each_family_has_the_architectures_of_its_space_and_the_stem_goes_to_the_one_that_takes_it(
    union: Union,
) -> None:
    rng = random.Random(0)
    assert union.takes_stem
    for name in (FIRST, SECOND):
        alone = search_spaces.get(name, own_of(name))
        for _ in range(20):
            arch = alone.sample(rng)
            genes = union.encode(arch)
            assert genes["family"] == union.family_of(arch) == name
            assert {key: genes[f"{name}.{key}"] for key in alone.encode(arch)} == alone.encode(arch)
            assert union.decode(genes) == arch


def test_genes_of_other_families_have_one_canonical_value(union: Union) -> None:
    rng = random.Random(1)
    for name in (FIRST, SECOND):
        drawn = [
            {choice.name: rng.choice(choice.values) for choice in union.choices} | {"family": name} for _ in range(20)
        ]
        canonical = [union.encode(union.decode(genes)) for genes in drawn]
        others = [[genes[key] for key in genes if not key.startswith(name) and key != "family"] for genes in canonical]
        assert all(other == others[0] for other in others)
        for genes, found in zip(drawn, canonical, strict=True):
            assert union.decode(found).digest == union.decode(genes).digest
            assert union.encode(union.decode(found)) == found


def test_hand_designed_models_of_all_families_take_part_and_one_of_several_once() -> None:
    union = search_spaces.get("isotropic+convmixer")
    alone = [search_spaces.get(name).references() for name in ("isotropic", "convmixer")]
    shared = set(alone[0]) & set(alone[1])
    assert shared == {"convmixer_1024_20_ks9_p14"}
    assert union.references() == alone[0] | alone[1]
    assert union.encode(zoo.get("convmixer_1024_20_ks9_p14"))["family"] == "isotropic"
    assert union.encode(zoo.get("convmixer_1536_20"))["family"] == "convmixer"


def test_the_size_counts_what_two_spaces_share_once() -> None:
    """The oracle for the shared part: all combinations at a width and a depth that both have, and one of one alone."""
    settings = SpaceSettings(resolution=16, num_classes=10, width_scale=0.0625)
    isotropic, convmixer = (search_spaces.get(name, settings) for name in ("isotropic", "convmixer"))
    union = search_spaces.get("isotropic+convmixer", settings)
    values = {choice.name: choice.values for choice in convmixer.choices}
    widths, depths = (
        set(values[name]) & {value for choice in isotropic.choices if choice.name == name for value in choice.values}
        for name in ("width", "depth")
    )
    shared: dict[int, set[str]] = {256: set(), 1152: set()}
    for width, found in shared.items():
        genes: list[Genes] = [{}]
        for name, every in {**values, "width": (width,), "depth": (8,)}.items():
            genes = [{**some, name: value} for some in genes for value in every]
        found |= {arch.digest for arch in map(convmixer.decode, genes) if isotropic.contains(arch)}
    assert not shared[1152]
    number = len(shared[256]) * len(widths) * len(depths)
    assert number == isotropic.num_shared(convmixer)
    assert union.size == isotropic.size + convmixer.size - number
    assert union.size_is_exact
    assert search_spaces.get("convmixer+isotropic", settings).size == union.size


@pytest.mark.parametrize(
    ("spaces", "size", "is_exact"),
    [
        ((Depths, Deeper), 6, True),
        ((Depths, OfIdentities), 8, True),
        ((Deeper, OfIdentities, Depths), 10, True),
        ((Depths, type("Same", (Depths,), {"name": "same"})), 8, False),
    ],
)
def test_the_size_says_whether_it_is_exact_and_the_walk_meets_each_once(
    spaces: tuple[type[SearchSpace], ...], size: int, is_exact: bool
) -> None:
    union = Union(spaces, SpaceSettings())
    assert (union.size, union.size_is_exact) == (size, is_exact)
    digests = [arch.digest for arch in architectures_within(union, Limits())]
    assert len(digests) == len(set(digests)) <= size
    assert (len(digests) == size) == is_exact


def test_stages_of_different_number_are_never_the_same_architecture() -> None:
    union = search_spaces.get(f"{FIRST}+{SECOND}")
    assert union.size == search_spaces.get(FIRST).size + search_spaces.get(SECOND).size
    assert union.size_is_exact


def test_draws_within_limits_are_of_the_families_that_have_some() -> None:
    settings = SMALL.model_copy(update={"width_scale": 1.0})
    union = search_spaces.get(f"{FIRST}+{SECOND}", settings)
    assert isinstance(union, Union)
    costs = {
        name: space.cost_of(space.encode(space.smallest("params")), "params") for name, space in union.families.items()
    }
    first, second = sorted(costs, key=costs.__getitem__)
    bounded = union.within(Limits(max_params=costs[second] - 1))
    assert isinstance(bounded, Union)
    assert {bounded.family_of(bounded.sample(random.Random(seed))) for seed in range(10)} == {first}
    assert {union.family_of(union.sample(random.Random(seed))) for seed in range(10)} == {first, second}
    assert union.cost_of(union.encode(union.smallest("params")), "params") == costs[first]


def test_a_mutation_changes_an_architecture_and_reaches_every_family(union: Union) -> None:
    rng = random.Random(3)
    genes = union.encode(union.sample(rng))
    families, new = set(), 0
    for _ in range(300):
        changed = union.mutate(genes, rng)
        new += union.decode(changed).digest != union.decode(genes).digest
        families.add(str(changed["family"]))
        genes = union.encode(union.decode(changed))
    assert families == {FIRST, SECOND}
    assert new > 200  # a gene may do nothing, but none of another family is touched


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("convmixer+", r"^space: must have a name on both sides of \+, got 'convmixer\+'$"),
        ("convmixer+convmixr", "^space: unknown name 'convmixr'; known, nearest first: convmixer,"),
        ("convmixer+isotropic+convmixer", r"^space: must have each name of a union once, got 'convmixer\+isotropic"),
    ],
)
def test_a_union_of_nothing_of_the_unknown_or_of_one_twice_is_refused(name: str, message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        search_spaces.get(name)


def test_what_is_of_no_family_is_refused_with_the_reason_of_each(union: Union) -> None:
    with pytest.raises(SpaceError, match=r"^architecture: must be of .*, got one not of hybrid_stages \(.*\)$"):
        union.encode(zoo.get("pvt_tiny"))
    with pytest.raises(SpaceError, match="^family: unknown name 'convmixr'"):
        union.decode({**union.encode(union.sample(random.Random(0))), "family": "convmixr"})


def test_a_stem_is_refused_where_no_family_takes_one() -> None:
    with pytest.raises(SpaceError, match=r"^settings\.stem: must be left out"):
        search_spaces.get("isotropic+convmixer", SMALL)


def test_a_name_with_a_plus_is_not_registered() -> None:
    with pytest.raises(UserError, match=r"^space: must be registered without \+, which joins spaces, got 'a\+b'$"):
        register_space("a+b")
