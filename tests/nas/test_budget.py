"""Budgets as people write them, and the ledger."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.budget import Budget, BudgetError, Ledger, format_device_time, parse_duration


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


def test_what_a_lease_used_is_charged_once_and_stays_spent() -> None:
    ledger = Ledger(100.0, spent=5.0)
    ledger.open("1-1", expected=20.0)
    assert (ledger.spent, ledger.reserved, ledger.free) == (5.0, 20.0, 75.0)
    assert ledger.charge("1-1", 8.0) == 8.0
    assert ledger.charge("1-1", 8.0) == 8.0
    assert ledger.charge("1-1", 3.0) == 8.0  # a late, smaller figure takes nothing back
    assert (ledger.spent, ledger.reserved, ledger.left, ledger.free) == (13.0, 12.0, 87.0, 75.0)
    ledger.charge("1-1", 30.0)
    assert (ledger.spent, ledger.reserved) == (35.0, 0.0)
    ledger.close("1-1")
    assert (ledger.spent, ledger.reserved, ledger.left) == (35.0, 0.0, 65.0)


def test_a_lease_is_opened_once() -> None:
    ledger = Ledger(1.0)
    ledger.open("1-1", expected=1.0)
    with pytest.raises(BudgetError, match="lease: must be opened once, got '1-1' again"):
        ledger.open("1-1", expected=1.0)


_EVENTS = st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 100), st.booleans()), max_size=30)


@given(_EVENTS)
def test_spent_is_the_sum_of_the_largest_charge_of_every_lease(events: list[tuple[str, float, bool]]) -> None:
    ledger = Ledger(1000.0)
    charged: list[float] = []
    is_open: dict[str, int] = {}
    for name, seconds, is_end in events:
        if name not in is_open:
            ledger.open(name, expected=10.0)
            is_open[name] = len(charged)
            charged.append(0.0)
        ledger.charge(name, seconds)
        charged[is_open[name]] = max(charged[is_open[name]], seconds)
        if is_end:
            ledger.close(name)
            del is_open[name]
        assert ledger.spent == pytest.approx(sum(charged))
        assert ledger.left == pytest.approx(1000.0 - sum(charged))
