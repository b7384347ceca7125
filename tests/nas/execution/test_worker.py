"""What a worker opens is what the driver has."""

import pytest

from nas.data import DataError, open_dataset
from nas.execution.worker import Data
from nas.study.splitting import Splitting


def test_a_worker_opens_the_splits_of_the_driver() -> None:
    splitting = Splitting(images_per_class=12, seed=5)
    info = open_dataset("digits", resolution=16, splitting=splitting).info
    sent = Data.of(info, num_loaders=0, bad_images="stop").model_dump()
    assert Data.model_validate(sent).open().info == info
    assert info.num_images == {"train": 120, "val": 359, "test": 359}
    sent["splitting"]["seed"] = 6
    with pytest.raises(DataError, match="^data: must be the same on every node"):
        Data.model_validate(sent).open()
