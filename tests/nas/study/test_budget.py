"""Budgets as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.study.budget import Budget, BudgetError, format_device_time, parse_duration


@pytest.mark.parametrize(
    ("text", "device", "seconds"),
    [
        ("64gpu-days", "gpu", 64 * 86400),
        ("36gpu-hours", "gpu", 36 * 3600),
        ("90cpu-minutes", "cpu", 5400),
        ("1gpu-day", "gpu", 86400),
        ("0.5gpu-hours", "gpu", 1800),
        (" 20cpu-seconds ", "cpu", 20),
    ],
)
def test_a_budget_is_a_number_a_device_and_a_unit(text: str, device: str, seconds: float) -> None:
    assert Budget.parse(text) == (device, seconds)


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("64gpu-weeks", "64gpu-days"),
        ("-3gpu-days", "3gpu-days"),
        ("0", "1gpu-days"),
        ("0gpu-hours", "1gpu-hours"),
        ("64 days of gpu", "64gpu-days"),
        ("6cpuminutes", "6cpu-minutes"),
        ("5cpu", "5cpu-minutes"),
        ("", "1gpu-days"),
        ("1e3gpu-days", "1gpu-days"),
    ],
)
def test_what_is_no_budget_is_refused_with_the_nearest_that_is(text: str, nearest: str) -> None:
    with pytest.raises(BudgetError) as caught:
        Budget.parse(text)
    message = str(caught.value)
    assert message.startswith("budget: must be a number above 0 and a unit such as 64gpu-days")
    assert message.endswith(f"got {text!r}; nearest: {nearest}")
    assert Budget.parse(nearest).seconds > 0


@given(st.floats(0.01, 1e9), st.sampled_from(["cpu", "gpu"]))
def test_a_formatted_device_time_reads_back_to_a_hundredth(seconds: float, device: str) -> None:
    text = format_device_time(seconds, "cpu" if device == "cpu" else "gpu")
    budget = Budget.parse(text) if not text.startswith("0cpu") and not text.startswith("0gpu") else None
    if budget is not None:
        assert budget.device == device
        assert budget.seconds == pytest.approx(seconds, rel=0.006, abs=0.006)


@pytest.mark.parametrize(
    ("text", "seconds"), [("12h", 43_200), ("90m", 5400), ("2d", 172_800), ("30s", 30), (" 0.5h ", 1800)]
)
def test_a_duration_is_a_number_and_a_unit(text: str, seconds: float) -> None:
    assert parse_duration("deadline", text) == seconds


@pytest.mark.parametrize("text", ["", "12", "h", "-1h", "0h", "1 hour", "1w"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(BudgetError, match=r"^deadline: must be a number above 0 and a unit such as 12h, 90m or 2d, "):
        parse_duration("deadline", text)


@given(st.integers(1, 10**9), st.integers(1, 10**9))
def test_an_extended_budget_reads_back_as_the_sum(milliseconds: int, more: int) -> None:
    text = Budget("gpu", milliseconds / 1000).extended(Budget("gpu", more / 1000))
    assert Budget.parse(text).seconds == pytest.approx((milliseconds + more) / 1000, abs=1e-6)


@pytest.mark.parametrize(
    "text", ["٣cpu-minutes", "３gpu-days", "1²cpu-minutes", "9" * 5000 + "cpu-minutes", "x" * 10**6]
)
def test_a_budget_in_other_digits_or_of_any_length_is_one_short_line(text: str) -> None:
    with pytest.raises(BudgetError, match="^budget: must be a number above 0") as caught:
        Budget.parse(text)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("999999999d", "must be at most 36500d"),
        ("36501d", "must be at most 36500d"),
        ("٣h", "must be a number above 0"),
    ],
)
def test_a_duration_beyond_a_life_or_in_other_digits_is_refused(text: str, rule: str) -> None:
    with pytest.raises(BudgetError, match=f"^deadline: {rule}.*, got '{text}'$"):
        parse_duration("deadline", text)
