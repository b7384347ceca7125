"""The front, the hypervolume and the knee, against their definitions written out."""

import math
import random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from metaformer.cost import count_cost
from nas.pareto import HypervolumeScale, Objectives, dominates, front, knee
from search_spaces.space import Limits, SpaceSettings, get

SCALE = HypervolumeScale(params=(10, 1000), macs=(100, 100_000))
# Few values, so that many points are equal in some objectives or in all.
CROWDED = st.lists(st.tuples(st.integers(0, 4).map(lambda k: k / 4), st.integers(10, 14), st.integers(100, 104)))
SPREAD = st.lists(st.tuples(st.floats(0, 1), st.integers(10, 1000), st.integers(100, 100_000)))
POINTS = CROWDED | SPREAD


def beats(first: Objectives, second: Objectives) -> bool:
    """Dominance as a textbook has it: nowhere worse and somewhere better."""
    worse = (first[0] < second[0], first[1] > second[1], first[2] > second[2])
    better = (first[0] > second[0], first[1] < second[1], first[2] < second[2])
    return not any(worse) and any(better)


def box(point: Objectives) -> tuple[float, float, float]:
    """Sides of the box that one point dominates in the unit cube."""
    accuracy, params, macs = point
    return accuracy, 1 - math.log(params / 10) / math.log(100), 1 - math.log(macs / 100) / math.log(1000)


@given(POINTS)
def test_dominance_agrees_with_its_definition(points: list[Objectives]) -> None:
    for first in points[:8]:
        for second in points[:8]:
            assert dominates(first, second) == beats(first, second)


@given(POINTS)
def test_the_front_is_exactly_the_points_that_none_dominates(points: list[Objectives]) -> None:
    expected = [i for i, point in enumerate(points) if not any(beats(other, point) for other in points)]
    assert front(points) == expected  # equal points are all in it


@given(POINTS)
def test_every_point_off_the_front_is_dominated_by_a_member(points: list[Objectives]) -> None:
    members = front(points)
    for i in set(range(len(points))) - set(members):
        assert any(beats(points[member], points[i]) for member in members)


@given(POINTS, st.randoms(use_true_random=False))
def test_the_front_does_not_depend_on_the_order_of_the_points(points: list[Objectives], rng: random.Random) -> None:
    shuffled = rng.sample(points, len(points))
    assert sorted(points[i] for i in front(points)) == sorted(shuffled[i] for i in front(shuffled))


def test_tied_points_all_stay_on_the_front() -> None:
    assert front([(0.9, 10, 100), (0.8, 20, 200), (0.9, 10, 100)]) == [0, 2]


def test_no_points_have_an_empty_front_without_volume() -> None:
    assert front([]) == []
    assert SCALE.hypervolume([]) == 0


@given(st.tuples(st.floats(0, 1), st.integers(10, 1000), st.integers(100, 100_000)))
def test_one_point_dominates_a_box(point: Objectives) -> None:
    assert SCALE.hypervolume([point]) == pytest.approx(math.prod(box(point)), abs=1e-12)


@given(SPREAD.filter(lambda points: len(points) >= 2))
def test_two_points_dominate_their_boxes_less_what_both_cover(points: list[Objectives]) -> None:
    first, second = box(points[0]), box(points[1])
    both = math.prod(min(sides) for sides in zip(first, second, strict=True))
    expected = math.prod(first) + math.prod(second) - both
    assert SCALE.hypervolume(points[:2]) == pytest.approx(expected, abs=1e-12)


@given(POINTS, POINTS)
def test_more_points_never_dominate_less(points: list[Objectives], more: list[Objectives]) -> None:
    before, after = SCALE.hypervolume(points), SCALE.hypervolume(points + more)
    assert 0 <= before <= after + 1e-12
    assert after <= 1 + 1e-12


@given(POINTS)
def test_the_front_dominates_all_that_the_points_dominate(points: list[Objectives]) -> None:
    members = [points[i] for i in front(points)]
    assert SCALE.hypervolume(members) == pytest.approx(SCALE.hypervolume(points), abs=1e-12)


def test_costs_at_or_beyond_the_upper_bound_add_nothing() -> None:
    assert SCALE.hypervolume([(1.0, 1000, 100), (1.0, 10, 100_000), (1.0, 5000, 10**9)]) == 0


def test_bounds_that_leave_one_size_count_accuracy_alone() -> None:
    scale = HypervolumeScale(params=(10, 10), macs=(100, 100))
    assert scale.hypervolume([(0.75, 10, 100)]) == pytest.approx(0.75)


def test_the_scale_of_a_space_reaches_from_its_smallest_to_its_largest_or_to_the_limit() -> None:
    space = get("hybrid_stages", SpaceSettings(limits=Limits(max_macs=2_000_000_000)))
    scale = HypervolumeScale.of(space)
    rng = random.Random(0)
    costs = [count_cost(space.sample(rng)) for _ in range(50)]
    assert scale.macs[1] == 2_000_000_000
    assert all(scale.params[0] <= cost.params <= scale.params[1] for cost in costs)
    assert all(scale.macs[0] <= cost.macs <= scale.macs[1] for cost in costs)


@given(POINTS)
def test_the_knee_is_on_the_front(points: list[Objectives]) -> None:
    assume(points)
    assert knee(points) in front(points)


def test_the_knee_is_the_member_nearest_to_the_ideal_corner() -> None:
    """Scaled to [0, 1] the middle point is (0.2, 0.5, 0.5) away from the corner, each other one 1 in some objective."""
    assert knee([(0.5, 10, 100), (0.9, 100, 1000), (1.0, 1000, 10_000)]) == 1


def test_a_knee_needs_points() -> None:
    with pytest.raises(ValueError, match="points: must hold at least one, got none"):
        knee([])
