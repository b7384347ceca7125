"""Objectives as axes of charts."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.results.charts.axes import Axis, log_ticks
from nas.study.objectives import find

POSITIVE = st.floats(1e-4, 1e12)


def shown(low: float, high: float) -> list[float]:
    """The ticks within a range, with room for rounding."""
    return [tick for tick in log_ticks(low, high) if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]


@given(POSITIVE, st.floats(1.001, 1e6))
def test_every_range_has_a_few_ticks_that_rise(low: float, factor: float) -> None:
    ticks = log_ticks(low, low * factor)
    assert ticks == sorted(set(ticks))
    assert 3 <= len(shown(low, low * factor)) <= 14


@given(POSITIVE)
def test_a_single_value_has_ticks_on_both_sides(value: float) -> None:
    ticks = log_ticks(value, value)
    assert ticks[0] <= value * (1 + 1e-9)  # room for rounding, as above
    assert value * (1 - 1e-9) <= ticks[-1]


def test_ticks_of_milliseconds_are_plain_numbers() -> None:
    axis = Axis(find("latency"))
    texts = [axis.tick_text(tick) for tick in log_ticks(0.05, 3)]
    assert texts == ["0.01", "0.03", "0.1", "0.3", "1", "3", "10", "30"]
    assert [float(text) for text in texts] == pytest.approx(log_ticks(0.05, 3))


def test_ticks_of_counts_have_their_unit() -> None:
    axis = Axis(find("macs"))
    assert [axis.tick_text(tick) for tick in (500, 1500, 2e6, 1_004_000, 3e9)] == [
        "500",
        "1.5 k",
        "2 M",
        "1.004 M",
        "3 G",
    ]


@given(st.floats(1e-4, 1e12), st.floats(1.0, 1e3))
def test_a_tick_is_where_its_text_says(low: float, factor: float) -> None:
    axis = Axis(find("peak_memory"))
    for tick in log_ticks(low, low * factor):
        assert math.isclose(float(axis.tick_text(tick)), tick, rel_tol=1e-5)
