"""From a search to the study of its finals: on which images they train."""

from contextlib import closing
from pathlib import Path

import pytest

from nas.data import open_dataset
from nas.make_finals import Asked, order_finals
from nas.record.run_folder import Run
from nas.study.request import Request
from nas.study.splitting import Splitting
from nas.study.study import StudyError
from tests.nas.finals.runs import RESOLUTION, make_search

PROXY = Splitting(images_per_class=20, seed=3)
BUDGET = "6cpu-minutes"


def search_of_a_proxy(path: Path, **changes: object) -> Run:
    info = open_dataset("digits", resolution=RESOLUTION, splitting=PROXY).info
    fields = {"splitting": PROXY.model_dump(mode="json"), "data_fingerprint": info.fingerprint}
    return make_search(path, **{**fields, **changes})


@pytest.mark.parametrize("asked", [None, 50])
def test_finals_of_a_proxy_train_on_all_images_or_on_as_many_as_asked_for(tmp_path: Path, asked: int | None) -> None:
    splitting = PROXY.model_copy(update={"images_per_class": asked})
    info = open_dataset("digits", resolution=RESOLUTION, splitting=splitting).info
    search = search_of_a_proxy(tmp_path / "search")
    with closing(search.record):
        order = order_finals(search, Asked(), Request(budget=BUDGET, images_per_class=asked))
        assert (order.study.splitting, order.images.splitting) == (splitting, splitting)
        assert (order.study.data_fingerprint, order.info.num_images) == (info.fingerprint, info.num_images)
        order.folder.path.mkdir()
        order.folder.study_file.write_text(order.study.to_yaml(), encoding="utf-8")
        again = order_finals(search, Asked(seeds=4), Request())
        assert (again.study.splitting, again.info.num_images) == (splitting, info.num_images)


def test_images_that_are_no_longer_those_of_the_search_are_refused(tmp_path: Path) -> None:
    search = search_of_a_proxy(tmp_path / "search", data_fingerprint="0123456789abcdef")
    with closing(search.record), pytest.raises(StudyError, match="data: must hold what the study was made with"):
        order_finals(search, Asked(), Request(budget=BUDGET))
