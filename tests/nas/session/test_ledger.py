"""The ledger: a lease is charged what it has used, once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.session.ledger import Ledger
from nas.study.budget import BudgetError


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


def test_what_a_lease_is_expected_to_use_yet_takes_the_place_of_what_was_reserved() -> None:
    ledger = Ledger(100.0)
    ledger.open("1-1", expected=20.0)
    ledger.open("2-1", expected=10.0)
    ledger.charge("1-1", 8.0)
    ledger.expect("1-1", 30.0)
    assert (ledger.spent, ledger.reserved, ledger.free) == (8.0, 40.0, 52.0)
    ledger.charge("1-1", 40.0)
    ledger.expect("1-1", 0.0)
    assert (ledger.spent, ledger.reserved) == (40.0, 10.0)
    ledger.close("1-1")
    assert (ledger.spent, ledger.reserved) == (40.0, 10.0)


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
