"""From a search to the study of its finals: on which images they train."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from metaformer.errors import UserError
from nas.data import open_dataset
from nas.make_finals import Asked, order_finals
from nas.record.run_folder import Run
from nas.results.comparison.comparison import Comparison
from nas.session.session import Decision
from nas.study.lease import Report
from nas.study.request import Request
from nas.study.splitting import Splitting
from nas.study.study import StudyError
from tests.nas.finals.runs import RESOLUTION, make_search
from tests.nas.runs import NUM_IMAGES, open_folder

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


def test_finals_train_every_model_also_of_a_search_that_ended_when_little_was_left_to_find(tmp_path: Path) -> None:
    search = make_search(tmp_path / "search", until="converged")
    with closing(search.record):
        assert order_finals(search, Asked(), Request(budget=BUDGET)).study.until == "budget"


def test_finals_train_as_long_as_the_search_would_have_without_its_budget(tmp_path: Path) -> None:
    search = make_search(tmp_path / "search")
    whole = search.study.recipe.model_copy(update={"epochs": 7 * search.study.recipe.epochs, "batch_size": 48})
    with closing(search.record):
        search.record.note(whole_recipe=whole.model_dump())
        order = order_finals(search, Asked(), Request(budget=BUDGET))
        assert (order.study.recipe.epochs, order.study.recipe.batch_size) == (whole.epochs, 48)
        assert order.recipe_source == "that of the search before its budget shortened it"
        asked = order_finals(search, Asked(), Request(budget=BUDGET, epochs=3))
        assert asked.study.recipe.epochs == 3


def test_a_search_of_a_proxy_and_its_finals_stand_side_by_side_but_no_other_proxy(tmp_path: Path) -> None:
    search = search_of_a_proxy(tmp_path / "search")
    known = search.study.model_copy(update={"identity": "0123456789abcdef"})
    search = replace(search, study=known)
    study = order_finals(search, Asked(), Request(budget=BUDGET)).study
    assert study.finals is not None
    finals, session = open_folder(search.folder.path / "finish", study)
    while lease := session.next():
        if lease.task == "test":
            session.tested(lease.name, 0.8, device_seconds=0.01)
            continue
        for epoch in range(1, lease.epochs + 1):
            report = Report(epoch=epoch, val_accuracy=0.8, train_loss=1.0, checkpoint=f"{epoch}.pt")
            if session.report(lease.name, report, device_seconds=0.1 * epoch) is Decision.STOP:
                break
        session.finish(lease.name, device_seconds=0.1 * lease.epochs)
    for run in (search, finals):
        run.record.note(num_images=NUM_IMAGES)
    comparison = Comparison([search, finals])
    assert [row.values for row in comparison.differences if row.field == "splitting.images_per_class"] == [(20, None)]
    assert comparison.uncertainty is not None
    assert comparison.uncertainty.num_replicates == len(finals.record.complete) - len(study.finals.models)
    with pytest.raises(UserError, match="data: must be"):
        Comparison([finals, make_search(tmp_path / "other")])


def test_images_that_are_no_longer_those_of_the_search_are_refused(tmp_path: Path) -> None:
    search = search_of_a_proxy(tmp_path / "search", data_fingerprint="0123456789abcdef")
    with closing(search.record), pytest.raises(StudyError, match="data: must hold what the study was made with"):
        order_finals(search, Asked(), Request(budget=BUDGET))
