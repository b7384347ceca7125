"""How far early accuracies rank as late ones do."""

import random

import pytest

from benchmarks.fidelity import agreement, difference, shortened
from tests.nas.runs import make_study

LATE = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]


def test_the_same_order_agrees_and_the_opposite_one_does_not() -> None:
    assert agreement([2 * each for each in LATE], LATE) == pytest.approx((1.0, 1.0, 1.0))
    assert agreement(LATE[::-1], LATE) == pytest.approx((-1.0, -1.0, -1.0))


def test_intervals_hold_what_is_seen_and_a_difference_has_its_sign() -> None:
    near, far = [0.1, 0.2, 0.4, 0.3, 0.5, 0.6, 0.8, 0.7], random.Random(0).sample(LATE, len(LATE))
    found = agreement(near, LATE)
    assert found.low <= found.tau <= found.high
    gap = difference(near, far, LATE)
    assert gap.tau == agreement(near, LATE).tau - agreement(far, LATE).tau > 0
    assert difference(near, near, LATE) == (0.0, 0.0, 0.0)


def test_a_short_training_has_a_schedule_of_its_own() -> None:
    study = make_study()
    short = shortened(study, 2)
    assert (short.recipe.epochs, short.recipe.warmup_epochs) == (2, min(1, study.recipe.warmup_epochs))
    assert short.recipe.model_copy(update={"epochs": study.recipe.epochs}) == study.recipe.model_copy(
        update={"warmup_epochs": short.recipe.warmup_epochs}
    )
