"""Every augmentation that a recipe may name runs on every image, at both ends of its range."""

import io
import random
from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps
from timm.data import auto_augment, create_transform
from torchvision.transforms import Compose, v2

from metaformer.images import read_image
from nas.data import DataError
from nas.data.augment import (
    _FORMS,
    _SETS,
    TorchvisionFigures,
    check_augmentation,
    mend,
    put_torchvision,
    read_torchvision,
    timm_notation,
)
from nas.data.generators import PrivateGenerators
from nas.study.recipe import Augmentation
from tests.thorough import every_third

POLICIES = ("original", "originalr", "v0", "v0r", "3a")
NAMED = [
    "rand-m9-mstd0.5-inc1",  # PoolFormer's, the default
    *(f"rand-m{m}-n4-p1-inc{inc}" for m, inc in product((0, 10), (0, 1))),
    "rand-m10-mstd1000-n4-p1-inc1",  # uniform between the ends
    "rand-m10-mstd5-n4-p1",
    "rand-m100-mmax100-n4-p1-inc1",
    "rand-m100-mmax100-n4-p1",
    "rand-m20-mstd1-mmax40-n4-p1-inc1",
    "rand-m10-n15-p1-tweights",
    "rand-m10-n4-p1-t3a",
    "rand-m10-n14-p1-t3aw",
    "rand-n0",
    *POLICIES,
    *(f"{policy}-mstd10" for policy in POLICIES),
    "augmix",
    "augmix-m10-mstd0-w3-d3",
    "augmix-m0-mstd0",
    "augmix-m100-w10-d10",
    "augmix-m10-w1-d1-b1",
    "augmix-m10-mstd3-w4-b1",
    *(f"torchvision-m{m}-n6" for m in (0, 30)),
    "torchvision-m12-n2",  # of the recipe for CIFAR-10
    "torchvision-n0",
    "torchvision",
]
MODES = ("RGB", "L", "P", "LA", "RGBA", "CMYK", "1", "I;16")
SMALL = ((1, 1), (1, 40), (40, 1), (2, 3), (32, 32), (32, 32), (32, 32), (48, 20))


def picture(kind: str, mode: str, size: tuple[int, int], noise: np.random.Generator) -> Image.Image:
    """What is read from a file that holds smooth colours, noise, or one colour."""
    if kind == "smooth":
        few = Image.fromarray(noise.integers(0, 256, (4, 5, 3), dtype=np.uint8))
        image = few.resize(size, Image.Resampling.BICUBIC)
    elif kind == "noise":
        image = Image.fromarray(noise.integers(0, 256, (*size[::-1], 3), dtype=np.uint8))
    else:
        image = Image.new("RGB", size, {"black": 0, "white": 0xFFFFFF, "grey": 0x808080}[kind])
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    elif mode == "LA":
        image = image.convert("RGBA").convert("LA")
    else:
        image = image.convert(mode)
    file = io.BytesIO()
    image.save(file, "TIFF" if mode == "CMYK" else "PNG")
    return read_image(file)


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    noise = np.random.default_rng(0)
    kinds = ("smooth", "smooth", "noise", "black", "white", "grey")
    found = [picture(kind, mode, size, noise) for kind, mode, size in product(kinds, MODES, SMALL)]
    return [*found, *(picture("smooth", mode, (640, 480), noise) for mode in ("RGB", "I;16"))]


def training_transform(notation: str, *, resolution: int = 32) -> Compose:
    """As `Folder` has timm make it."""
    check_augmentation(notation)
    transform = create_transform(
        resolution, is_training=True, auto_augment=timm_notation(notation), color_jitter=None, interpolation="bicubic"
    )
    mend(transform)
    put_torchvision(transform, notation)
    return transform


def augmentation_of(transform: Compose) -> auto_augment.RandAugment:
    """The random augmentation alone, without crop, flip and normalising."""
    kinds = auto_augment.RandAugment | auto_augment.AutoAugment | auto_augment.AugMixAugment | v2.RandAugment
    [found] = [step for step in transform.transforms if isinstance(step, kinds)]
    return found


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    with PrivateGenerators(0):
        yield


@pytest.mark.parametrize("notation", every_third(NAMED))
def test_a_named_augmentation_runs_on_every_image(notation: str, pictures: list[Image.Image]) -> None:
    augment = augmentation_of(training_transform(notation))
    for image in pictures:
        found = augment(image)
        assert (found.mode, found.size) == ("RGB", image.size)


@pytest.mark.parametrize("name", sorted(auto_augment.NAME_TO_OP))
def test_every_operation_of_timm_runs_at_every_magnitude(name: str, pictures: list[Image.Image]) -> None:
    """Those that no notation names are there too: timm may come to use them."""
    options = {"translate_const": 14, "img_mean": (124, 116, 104)}
    magnitudes = ((0, 10), (1e-9, 10), (2.4999, 10), (5, 10), (9.9999, 10), (10, 10), (11, 100), (100, 100))
    for magnitude, most in magnitudes:
        operation = auto_augment.AugmentOp(name, 1.0, magnitude, {**options, "magnitude_max": most})
        mend(Compose([auto_augment.RandAugment([operation])]))
        for image in pictures[:: 7 if magnitude in {0, 10, 100} else 31]:
            assert operation(image).size == image.size


@pytest.mark.slow
@pytest.mark.parametrize("notation", ["rand-m10-n4-p1-inc1", "v0r-mstd10", "augmix-m10-w2", "3a", "torchvision-m30-n4"])
def test_a_large_photograph_and_a_single_pixel_become_what_a_model_sees(notation: str) -> None:
    transform = training_transform(notation)
    for size in ((3000, 2000), (1, 1), (1, 300)):
        for _ in range(2):
            x_CHW = transform(picture("smooth", "RGB", size, np.random.default_rng(0)))
            assert x_CHW.shape == (3, 32, 32)
            assert x_CHW.isfinite().all()


def test_without_the_mend_pillow_refuses_what_timm_asks_for() -> None:
    """When this fails, timm or Pillow has been put right, and `mend` may go."""
    image = Image.new("RGB", (4, 4), 0xFFFFFF)
    for name, magnitude in (("PosterizeIncreasing", 10), ("Posterize", 0), ("Posterize", 2.4)):
        operation = auto_augment.AugmentOp(name, 1.0, magnitude)
        with pytest.raises(ValueError, match="bits must be between or equal to 1 and 8"):
            operation(image)
        mend(Compose([auto_augment.RandAugment([operation])]))
        assert operation(image).tobytes() == ImageOps.posterize(image, 1).tobytes()


def bytes_of(augment: auto_augment.RandAugment, image: Image.Image, *, seed: int) -> bytes | None:
    """The augmented image; None where Pillow refuses to keep no bit."""
    random.seed(seed), np.random.seed(seed)
    try:
        return augment(image).tobytes()
    except ValueError:
        return None


@pytest.mark.parametrize("notation", ["rand-m9-mstd0.5-inc1", "rand-m5-mstd3-n4-p1", *POLICIES, "v0-mstd5", "augmix"])
def test_the_mend_changes_no_image_that_timm_can_make(notation: str, pictures: list[Image.Image]) -> None:
    """timm is the oracle, as far as it runs."""
    plain = create_transform(32, is_training=True, auto_augment=notation, color_jitter=None, interpolation="bicubic")
    theirs, ours = augmentation_of(plain), augmentation_of(training_transform(notation))
    num_same = 0
    for seed, image in enumerate(pictures):
        expected = bytes_of(theirs, image, seed=seed)
        num_same += expected is not None
        found = bytes_of(ours, image, seed=seed)
        assert found is not None
        assert expected in {found, None}
    assert num_same > len(pictures) / 4


def test_the_mend_leaves_the_rest_of_timm_as_it_was() -> None:
    before = dict(auto_augment.NAME_TO_OP), dict(auto_augment.LEVEL_TO_ARG)
    training_transform("rand-m9-mstd0.5-inc1")
    assert before == (auto_augment.NAME_TO_OP, auto_augment.LEVEL_TO_ARG)


def refusal(notation: str) -> str:
    """What the check says; nothing where it allows the augmentation."""
    try:
        check_augmentation(notation)
    except DataError as error:
        return str(error)
    return ""


def notations() -> st.SearchStrategy[str]:
    """Everything that the grammar allows, by the table of what it allows."""

    def of(form: str) -> st.SearchStrategy[str]:
        sections = [
            (st.integers if number.whole else fractions)(number.lowest, number.highest).map(f"{key}{{}}".format)
            for key, number in _FORMS[form].items()
        ]
        if form == "rand":
            sections.append(st.sampled_from(list(_SETS)))
        chosen = st.tuples(*(st.none() | section for section in sections))
        return chosen.map(lambda parts: "-".join([form, *(part for part in parts if part is not None)]))

    return st.sampled_from(list(_FORMS)).flatmap(of)


def fractions(lowest: int, highest: int) -> st.SearchStrategy[str]:
    return st.decimals(lowest, highest, places=2, allow_nan=False, allow_infinity=False).map(str)


@given(notations(), st.integers(0, 2**32 - 1))
def test_what_the_check_allows_timm_torchvision_and_pillow_carry_out(notation: str, seed: int) -> None:
    said = refusal(notation)
    assert "n is at most" in said or not said
    if said:
        return
    augment = augmentation_of(training_transform(notation))
    image = picture("noise", "RGB", (5, 4), np.random.default_rng(seed))
    with PrivateGenerators(seed):
        assert augment(image).size == (5, 4)


@given(
    st.lists(
        st.sampled_from(
            [
                "rand",
                "augmix",
                "v0",
                "torchvision",
                "-",
                "m",
                "mstd",
                "n",
                "t",
                "3a",
                "w",
                "inc",
                "0",
                "9",
                ".",
                "é",
                " ",
            ]
        )
    )
)
def test_any_text_is_allowed_or_refused_in_one_line(parts: list[str]) -> None:
    notation = "".join(parts)
    said = refusal(notation)
    if said:
        assert said.startswith("augmentation.rand_augment: must be in timm's notation, such as ")
        assert len(said) <= 300
        assert len(said.splitlines()) == 1
    else:
        augmentation_of(training_transform(notation))(Image.new("RGB", (3, 2)))


@pytest.mark.parametrize(
    ("notation", "rule"),
    [
        ("", "begins with one of rand, original, originalr, v0, v0r, 3a, augmix, torchvision"),
        ("randaugment", "begins with one of rand, .*"),
        ("v1", "begins with one of rand, .*"),
        ("rand-x3", "rand is followed by mN, mstdN, nN, pN, mmaxN, incN, tweights, t3a, t3aw, not 'x3'"),
        ("rand-", "rand is followed by .*, not ''"),
        ("rand-tweight", "rand is followed by .*, not 'tweight'"),  # timm takes its default for it
        ("rand-mstdinf", "rand is followed by .*, not 'mstdinf'"),  # timm passes over it
        ("rand-p.5", "p is a number from 0 to 1"),  # timm: AssertionError
        ("rand-mstd.5", "mstd is a number from 0 to 1000"),  # timm: AssertionError
        ("rand-mstd1.2.3", "mstd is a number from 0 to 1000"),
        ("rand-m9.5", "m is a whole number from 0 to 100"),  # timm: ValueError
        ("rand-m" + "9" * 5000, "m is a whole number from 0 to 100"),  # timm: ValueError
        ("rand-n1000000", "n is a whole number from 0 to 20"),  # timm: for ever
        ("rand-p9", "p is a number from 0 to 1"),
        ("rand-mmax0", "mmax is a whole number from 1 to 100"),  # timm takes 10
        ("rand-inc2", "inc is a whole number from 0 to 1"),
        ("rand-m9-m5", "says m once"),
        ("rand-n16-tweights", "n is at most 15 with tweights"),  # timm: ValueError at the first image
        ("rand-n15-t3aw", "n is at most 14 with t3aw"),  # timm: ValueError at the first image
        ("v0-m5", "v0 is followed by mstdN, not 'm5'"),
        ("3a-mstd0.5-foo", "3a is followed by mstdN, not 'foo'"),  # timm passes over it
        ("augmix-w0", "w is a whole number from 1 to 10"),  # timm: black images
        ("augmix-d-1", "augmix is followed by mN, mstdN, wN, dN, bN, not 'd'"),  # timm: AssertionError
        ("augmix-a0", "augmix is followed by .*, not 'a0'"),  # timm: ValueError at the first image
        ("torchvision-p1", "torchvision is followed by mN, nN, not 'p1'"),
        ("torchvision-m12-inc1", "torchvision is followed by mN, nN, not 'inc1'"),
        ("torchvision-t3a", "torchvision is followed by mN, nN, not 't3a'"),
        ("torchvision-", "torchvision is followed by mN, nN, not ''"),
        ("torchvision-m31", "m is a whole number from 0 to 30"),  # torchvision: IndexError at the first image
        ("torchvision-m-1", "torchvision is followed by mN, nN, not 'm'"),
        ("torchvision-m4.5", "m is a whole number from 0 to 30"),
        ("torchvision-n21", "n is a whole number from 0 to 20"),
        ("torchvision-n2-n3", "says n once"),
        ("torchvision2", "begins with one of rand, .*, torchvision"),
    ],
)
def test_what_cannot_be_carried_out_as_written_is_refused(notation: str, rule: str) -> None:
    begin = r"^augmentation.rand_augment: must be in timm's notation, such as 'rand-.*', or torchvision-mN-nN"
    form = rf"{begin}: {rule}, got '{notation[:40]}.*'$"  # the middle of a long one is left out
    with pytest.raises(DataError, match=form):
        check_augmentation(notation)


def test_the_default_recipe_passes() -> None:
    notation = Augmentation().rand_augment
    assert notation == NAMED[0]
    check_augmentation(notation)


@pytest.mark.parametrize(
    ("notation", "figures"),
    [
        ("torchvision", (9, 2)),
        ("torchvision-m12-n2", (12, 2)),
        ("torchvision-n3-m0", (0, 3)),
        ("torchvision-n0", (9, 0)),
        ("torchvision-m30", (30, 2)),
    ],
)
def test_torchvisions_form_says_magnitude_and_number_of_operations(notation: str, figures: tuple[int, int]) -> None:
    check_augmentation(notation)
    assert read_torchvision(notation) == TorchvisionFigures(*figures)
    augment = augmentation_of(training_transform(notation))
    assert isinstance(augment, v2.RandAugment)
    assert (augment.magnitude, augment.num_ops, augment.num_magnitude_bins) == (*figures, 31)


def test_torchvisions_own_defaults_are_those_of_its_form() -> None:
    theirs = v2.RandAugment()
    assert TorchvisionFigures() == (theirs.magnitude, theirs.num_ops)


def test_torchvisions_stands_where_timms_stands_and_nothing_else_changes() -> None:
    here, there = (training_transform(notation).transforms for notation in ("torchvision-m12-n2", "rand-m9"))
    kinds_here, kinds_there = ([type(step) for step in steps] for steps in (here, there))
    place = kinds_there.index(auto_augment.RandAugment)
    assert kinds_here == [*kinds_there[:place], v2.RandAugment, *kinds_there[place + 1 :]]


@pytest.mark.parametrize("notation", [None, "rand-m9-mstd0.5-inc1", "rand-n0", "v0", "3a", "augmix-m3"])
def test_timms_augmentations_are_left_to_timm(notation: str | None) -> None:
    assert read_torchvision(notation) is None
    assert timm_notation(notation) == notation
    transform = create_transform(32, is_training=True, auto_augment=notation, color_jitter=None)
    steps = list(transform.transforms)
    put_torchvision(transform, notation)
    assert transform.transforms == steps
