"""What work takes of a device: predicted by split and size."""

import pytest

from nas.session.cost_model import CostModel
from nas.study.lease import Speed

SPEED = Speed(base=1.6e-3, per_gmac=0.3, reading=1e-3)
NUM_IMAGES = {"train": 500, "val": 1000, "test": 2000}


def test_an_image_is_read_in_evaluation_as_in_training_and_passes_forward_alone() -> None:
    model = CostModel(SPEED, NUM_IMAGES)
    macs = 2_000_000  # 0.6 ms in training, as base without reading
    trained, evaluated = 2.2e-3, 1e-3 + 1.2e-3 / 3
    assert model.train_seconds(macs, epochs=3) == pytest.approx(3 * (500 * trained + 1000 * evaluated))
    assert model.test_seconds(macs) == pytest.approx(2000 * evaluated)
    assert model.test_seconds(2 * macs, num_models=2) == pytest.approx(2 * 2000 * evaluated)


@pytest.mark.parametrize("macs", [0, 1_000_000, 3_000_000_000])
def test_the_most_macs_that_are_affordable_are_those_whose_training_and_test_take_as_long(macs: int) -> None:
    model = CostModel(SPEED, NUM_IMAGES, lease_seconds=0.5)
    model.observe_epoch(10**6, 7.0)  # slower than predicted
    seconds = model.train_seconds(macs, epochs=4) + model.test_seconds(macs)
    assert model.affordable_macs(seconds, epochs=4) == pytest.approx(macs, abs=2)
    assert model.affordable_macs(0.1, epochs=4) == 0


def test_where_all_models_take_as_long_any_is_affordable_or_none() -> None:
    model = CostModel(Speed(base=1e-3, per_gmac=0.0), NUM_IMAGES)
    seconds = model.train_seconds(0, epochs=1) + model.test_seconds(0)
    assert model.affordable_macs(seconds, epochs=1) > 10**15
    assert model.affordable_macs(0.9 * seconds, epochs=1) == 0
