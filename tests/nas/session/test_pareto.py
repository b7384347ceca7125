"""The front, the hypervolume and the knee, against their definitions written out."""

import math
import random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from metaformer.cost import count_cost
from nas.record.trials import Progress, TrialRecord, TrialState
from nas.session.pareto import Gains, HypervolumeScale, dominates, front, front_of, knee, ranks
from nas.study.lease import Report
from nas.study.objectives import DEFAULT, Point, choose
from search_spaces.space import Limits, SpaceSettings, get

GOALS = choose(DEFAULT)
MIXED = choose(("latency", "accuracy", "params", "macs"))  # accuracy is not the first, and there are four
SCALE = HypervolumeScale(GOALS, (None, (10, 1000), (100, 100_000)))
# Few values, so that many points are equal in some objectives or in all.
CROWDED = st.lists(st.tuples(st.integers(0, 4).map(lambda k: k / 4), st.integers(10, 14), st.integers(100, 104)))
SPREAD = st.lists(st.tuples(st.floats(0, 1), st.integers(10, 1000), st.integers(100, 100_000)))
POINTS = CROWDED | SPREAD
FEW = st.lists(st.tuples(*[st.integers(0, 2).map(float)] * 4), max_size=12)  # of MIXED


def beats(first: Point, second: Point) -> bool:
    """Dominance as a textbook has it: nowhere worse and somewhere better."""
    worse = (first[0] < second[0], first[1] > second[1], first[2] > second[2])
    better = (first[0] > second[0], first[1] < second[1], first[2] < second[2])
    return not any(worse) and any(better)


def box(point: Point) -> tuple[float, float, float]:
    """Sides of the box that one point dominates in the unit cube."""
    accuracy, params, macs = point
    return accuracy, 1 - math.log(params / 10) / math.log(100), 1 - math.log(macs / 100) / math.log(1000)


@given(POINTS)
def test_dominance_agrees_with_its_definition(points: list[Point]) -> None:
    for first in points[:8]:
        for second in points[:8]:
            assert dominates(first, second, GOALS) == beats(first, second)


@given(POINTS)
def test_the_front_is_exactly_the_points_that_none_dominates(points: list[Point]) -> None:
    expected = [i for i, point in enumerate(points) if not any(beats(other, point) for other in points)]
    assert front(points, GOALS) == expected  # equal points are all in it


@given(POINTS)
def test_every_point_off_the_front_is_dominated_by_a_member(points: list[Point]) -> None:
    members = front(points, GOALS)
    for i in set(range(len(points))) - set(members):
        assert any(beats(points[member], points[i]) for member in members)


@given(POINTS, st.randoms(use_true_random=False))
def test_the_front_does_not_depend_on_the_order_of_the_points(points: list[Point], rng: random.Random) -> None:
    shuffled = rng.sample(points, len(points))
    assert sorted(points[i] for i in front(points, GOALS)) == sorted(shuffled[i] for i in front(shuffled, GOALS))


def test_tied_points_all_stay_on_the_front() -> None:
    assert front([(0.9, 10, 100), (0.8, 20, 200), (0.9, 10, 100)], GOALS) == [0, 2]


def test_no_points_have_an_empty_front_without_volume() -> None:
    assert front([], GOALS) == []
    assert SCALE.hypervolume([]) == 0


@given(st.tuples(st.floats(0, 1), st.integers(10, 1000), st.integers(100, 100_000)))
def test_one_point_dominates_a_box(point: Point) -> None:
    assert SCALE.hypervolume([point]) == pytest.approx(math.prod(box(point)), abs=1e-12)


@given(SPREAD.filter(lambda points: len(points) >= 2))
def test_two_points_dominate_their_boxes_less_what_both_cover(points: list[Point]) -> None:
    first, second = box(points[0]), box(points[1])
    both = math.prod(min(sides) for sides in zip(first, second, strict=True))
    expected = math.prod(first) + math.prod(second) - both
    assert SCALE.hypervolume(points[:2]) == pytest.approx(expected, abs=1e-12)


@given(POINTS, POINTS)
def test_more_points_never_dominate_less(points: list[Point], more: list[Point]) -> None:
    before, after = SCALE.hypervolume(points), SCALE.hypervolume(points + more)
    assert 0 <= before <= after + 1e-12
    assert after <= 1 + 1e-12


@given(POINTS)
def test_the_front_dominates_all_that_the_points_dominate(points: list[Point]) -> None:
    members = [points[i] for i in front(points, GOALS)]
    assert SCALE.hypervolume(members) == pytest.approx(SCALE.hypervolume(points), abs=1e-12)


def test_costs_at_or_beyond_the_upper_bound_add_nothing() -> None:
    assert SCALE.hypervolume([(1.0, 1000, 100), (1.0, 10, 100_000), (1.0, 5000, 10**9)]) == 0


def test_bounds_that_leave_one_size_count_accuracy_alone() -> None:
    scale = HypervolumeScale(GOALS, (None, (10, 10), (100, 100)))
    assert scale.hypervolume([(0.75, 10, 100)]) == pytest.approx(0.75)


def test_the_scale_of_a_space_reaches_from_its_smallest_to_its_largest_or_to_the_limit() -> None:
    space = get("hybrid_stages", SpaceSettings(limits=Limits(max_macs=2_000_000_000)))
    bounds = HypervolumeScale.of(space, GOALS).bounds
    assert bounds[0] is None
    params, macs = bounds[1:]
    assert params
    assert macs
    rng = random.Random(0)
    costs = [count_cost(space.sample(rng)) for _ in range(50)]
    assert macs[1] == 2_000_000_000
    assert all(params[0] <= cost.params <= params[1] for cost in costs)
    assert all(macs[0] <= cost.macs <= macs[1] for cost in costs)


@given(POINTS)
def test_the_knee_is_on_the_front(points: list[Point]) -> None:
    assume(points)
    assert knee(points, GOALS) in front(points, GOALS)


def test_the_knee_is_the_member_nearest_to_the_ideal_corner() -> None:
    """Scaled to [0, 1] the middle point is (0.2, 0.5, 0.5) away from the corner, each other one 1 in some objective."""
    assert knee([(0.5, 10, 100), (0.9, 100, 1000), (1.0, 1000, 10_000)], GOALS) == 1


def test_a_knee_needs_points() -> None:
    with pytest.raises(ValueError, match="points: must hold at least one, got none"):
        knee([], GOALS)


def beats_mixed(first: Point, second: Point) -> bool:
    """Dominance of latency, accuracy, parameters and MACs; of these only accuracy is better when it is higher."""
    worse = (first[0] > second[0], first[1] < second[1], first[2] > second[2], first[3] > second[3])
    return not any(worse) and first != second


@given(FEW)
def test_the_objectives_say_what_is_better(points: list[Point]) -> None:
    """In another order and number than usual."""
    expected = [i for i, point in enumerate(points) if not any(beats_mixed(other, point) for other in points)]
    assert front(points, MIXED) == expected
    for first in points:
        for second in points:
            assert dominates(first, second, MIXED) == beats_mixed(first, second)


@given(FEW.filter(bool))
def test_ranks_are_those_of_fronts_taken_away_one_after_another(points: list[Point]) -> None:
    found = ranks(points, MIXED)
    left = list(range(len(points)))
    for rank in range(len(points)):
        members = [left[i] for i in front([points[i] for i in left], MIXED)]
        assert [i for i in left if found[i] == rank] == members
        left = [i for i in left if i not in members]


@given(FEW.filter(bool))
def test_the_knee_of_other_objectives_is_on_their_front(points: list[Point]) -> None:
    assert knee(points, MIXED) in front(points, MIXED)


def test_two_objectives_dominate_an_area() -> None:
    scale = HypervolumeScale(choose(("latency", "accuracy")), ((0.1, 10.0), None))
    assert scale.hypervolume([(1.0, 0.8)]) == pytest.approx(0.5 * 0.8)
    assert scale.hypervolume([(1.0, 0.8), (0.1, 0.4)]) == pytest.approx(0.5 * 0.8 + 0.5 * 0.4)


def gains_of(points: list[Point]) -> Gains:
    return Gains([SCALE.in_cube(point) for point in points], num_objectives=3)


@given(SPREAD, SPREAD)
def test_a_gain_is_what_a_point_adds_to_the_hypervolume(points: list[Point], more: list[Point]) -> None:
    before = SCALE.hypervolume(points)
    front = gains_of(points)
    assert [front.of(SCALE.in_cube(point)) for point in more] == pytest.approx(
        [SCALE.hypervolume([*points, point]) - before for point in more], abs=1e-9
    )


@given(SPREAD.filter(bool), st.tuples(st.floats(0, 1), st.integers(10, 1000), st.integers(100, 100_000)))
def test_a_point_that_stands_in_for_another_adds_to_the_rest(points: list[Point], point: Point) -> None:
    rest = SCALE.hypervolume(points[1:])
    gain = gains_of(points).of(SCALE.in_cube(point), replacing=0)
    assert gain == pytest.approx(SCALE.hypervolume([*points[1:], point]) - rest, abs=1e-9)


@given(SPREAD, SPREAD, SPREAD)
def test_a_gain_that_is_kept_is_the_same_beside_the_new_points(
    before: list[Point], after: list[Point], more: list[Point]
) -> None:
    old, new = gains_of(before), gains_of(after)
    places = [SCALE.in_cube(point) for point in more]
    for place, is_kept in zip(places, new.keeps(old, places), strict=True):
        assert not is_kept or new.of(place) == pytest.approx(old.of(place), abs=1e-12)
    assert gains_of([*before, *before]).keeps(old, places).all()


def test_measured_objectives_have_the_bounds_that_the_study_has_noted() -> None:
    space = get("hybrid_stages", SpaceSettings())
    scale = HypervolumeScale.of(space, choose(("accuracy", "latency")), {"latency": (0.5, 20.0)})
    assert scale.bounds == (None, (0.5, 20.0))
    with pytest.raises(KeyError, match="latency"):
        HypervolumeScale.of(space, choose(("accuracy", "latency")))


def test_the_front_of_trials_has_complete_ones_only_by_rising_parameters() -> None:
    space = get("hybrid_stages", SpaceSettings())
    arch = space.smallest("macs")

    def trial(number: int, accuracy: float, params: int, state: TrialState) -> TrialRecord:
        curve = (Report(epoch=1, val_accuracy=accuracy, train_loss=1.0, checkpoint="1.pt"),)
        return TrialRecord(number, arch, params, 100, number, state=state, progress=Progress(curve=curve))

    trials = [
        trial(0, 0.9, 20, TrialState.COMPLETE),
        trial(1, 0.8, 10, TrialState.COMPLETE),
        trial(2, 0.7, 10, TrialState.COMPLETE),  # dominated
        trial(3, 1.0, 5, TrialState.RUNNING),
        trial(4, 0.8, 10, TrialState.COMPLETE),  # a tie stays
    ]
    assert [member.number for member in front_of(trials, GOALS)] == [1, 4, 0]
