"""How fast a search goes, against what the made-up records say by hand."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest

from nas.record.trials import LeaseCharge, LeaseEnd, Progress, TrialRecord, TrialState
from nas.results.status.rate import Rate, expected_end, measure_rate
from tests.nas.runs import make_study

ARCH = make_study().make_space().smallest("macs")
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def trial(number: int, begun: float, ended: float | None, *leases: tuple[float, LeaseEnd | None]) -> TrialRecord:
    """A trial that began and ended so many seconds after noon, with what its leases were charged and how they ended."""
    charges = tuple(
        LeaseCharge(attempt=i, device_seconds=seconds, end=end) for i, (seconds, end) in enumerate(leases, start=1)
    )
    return TrialRecord(
        number,
        ARCH,
        1,
        1,
        checkpoint_trial=number,
        state=TrialState.RUNNING if ended is None else TrialState.COMPLETE,
        progress=Progress(leases=charges),
        begun_at=at(begun),
        ended_at=None if ended is None else at(ended),
    )


def rates(
    *trials: TrialRecord, since: float | None = None, now: float | None = None, used: Mapping[str, float] | None = None
) -> tuple[float, float, float]:
    rate = measure_rate(
        trials,
        used=used or {},
        since=None if since is None else at(since),
        now=None if now is None else at(now),
    )
    assert rate is not None
    return tuple(rate)


DONE = LeaseEnd.COMPLETE


def test_two_devices_side_by_side_give_two_device_seconds_a_second() -> None:
    side_by_side = [trial(i, 100 * (i // 2), 100 * (i // 2) + 100, (100.0, DONE)) for i in range(6)]
    assert rates(*side_by_side) == pytest.approx((3600 * 6 / 300, 2.0, 300.0))


def test_time_in_which_no_driver_was_at_work_does_not_count() -> None:
    first, second = trial(0, 0, 100, (100.0, DONE)), trial(1, 5000, 5100, (100.0, DONE))
    assert rates(first, second) == pytest.approx((36.0, 1.0, 200.0))


def test_a_share_of_a_device_is_charged_by_the_share() -> None:
    assert rates(*(trial(i, 0, 80, (20.0, DONE)) for i in range(4))) == pytest.approx((180.0, 1.0, 80.0))


def test_a_trial_that_was_interrupted_counts_where_its_leases_were_out() -> None:
    """A driver was killed 40 s into the trial, and the next one began an hour later; each device counts half."""
    whole = trial(0, 0, 100, (50.0, DONE))
    cut = trial(1, 100, 3760, (20.0, LeaseEnd.INTERRUPTED), (30.0, DONE))
    assert rates(whole, cut) == pytest.approx((3600 * 2 / 200, 0.5, 200.0))


def test_a_trial_that_a_later_driver_ended_without_training_it_does_not_stretch_over_the_pause() -> None:
    whole = trial(0, 0, 100, (100.0, DONE))
    ended_later = trial(1, 100, 9000, (50.0, LeaseEnd.INTERRUPTED))
    assert rates(whole, ended_later)[1:] == pytest.approx((1.0, 150.0))


def test_what_runs_counts_up_to_now_by_the_last_sign_of_life() -> None:
    whole = trial(0, 0, 100, (100.0, DONE))
    running = trial(1, 100, None, (10.0, None))
    assert rates(whole, running, now=150, used={"00001-1": 45.0}) == pytest.approx((24.0, 145 / 150, 150.0))


def test_what_a_killed_driver_left_open_counts_as_far_as_it_was_heard_of() -> None:
    whole = trial(0, 0, 100, (100.0, DONE))
    left = trial(1, 100, None, (10.0, None))
    assert rates(whole, left, used={"00001-1": 45.0}) == pytest.approx((3600 / 145, 1.0, 145.0))


def test_what_was_before_the_present_driver_is_left_out() -> None:
    slow = [trial(0, 0, 100, (100.0, DONE))]
    fast = [trial(i, 1000, 1100, (100.0, DONE)) for i in range(1, 5)]
    assert rates(*slow, *fast, since=900, now=1100) == pytest.approx((144.0, 4.0, 100.0))
    across = trial(0, 0, 200, (200.0, DONE))
    assert rates(across, since=150, now=200) == pytest.approx((72.0, 1.0, 50.0))


def test_a_record_without_time_has_no_rate() -> None:
    untimed = TrialRecord(0, ARCH, 1, 1, checkpoint_trial=0)
    for trials in ([], [untimed], [trial(0, 0, None, (0.0, None))], [trial(0, 0, 0, (5.0, DONE))]):
        assert measure_rate(trials, used={}, since=None, now=at(10)) is None


@pytest.mark.parametrize(
    ("left", "num_to_come", "seconds"),
    [
        (100.0, None, 50.0),  # two device-seconds a second
        (100.0, 1, 36.0),  # 100 trials an hour
        (100.0, 10, 50.0),
        (-1.0, None, 0.0),
        (1e12, None, None),  # too far off to tell
    ],
)
def test_the_end_comes_with_the_budget_or_with_the_last_trial(
    left: float, num_to_come: int | None, seconds: float | None
) -> None:
    end = expected_end(NOON, Rate(100.0, 2.0, 10.0), left=left, num_to_come=num_to_come)
    assert end == (None if seconds is None else at(seconds))


def test_no_end_is_told_without_a_rate() -> None:
    assert expected_end(NOON, None, left=1.0, num_to_come=1) is None
    assert expected_end(NOON, Rate(0.0, 0.0, 10.0), left=1.0, num_to_come=1) is None
