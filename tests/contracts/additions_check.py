"""What CONTRIBUTING.md says of additions, tried: one of each kind, and a search that uses all of them.

`test_additions.py` runs this file in a process of its own, since what is registered stays so.
"""

from pathlib import Path

import pytest
import torch

from metaformer import zoo
from metaformer.cost import count_cost
from metaformer.network.model import build
from nas.data import default_recipe, open_dataset
from nas.execution.backend import tell
from nas.execution.devices import Devices
from nas.execution.worker import Data, Worker
from nas.make_study import make_study
from nas.record.run_folder import RunFolder, open_record, open_run
from nas.record.trials import TrialState
from nas.results.baselines import simple_classifiers
from nas.results.page import render
from nas.results.report_files import summarise
from nas.results.results import Results
from nas.session.leases import Place
from nas.session.session import Decision, open_session
from nas.study.lease import Speed
from nas.study.request import Request
from search_spaces.space import SpaceError, SpaceSettings, Union, get
from tests.contracts import additions

REQUEST = Request(
    space="scales",
    budget="900cpu-seconds",
    data=additions.__name__,
    sampler="in_order",
    objectives="accuracy,macs,largest_output",
    stopper="none",
)


@pytest.fixture
def one_thread() -> None:
    torch.set_num_threads(1)


def test_a_new_mixer_is_built_and_costs_what_it_says() -> None:
    space = make_study(REQUEST, {}, open_dataset(additions.__name__, resolution=8).info).make_space()
    for name in ("params", "macs"):
        arch = space.smallest(name)
        parameters = sum(parameter.numel() for parameter in build(arch).parameters())
        assert count_cost(arch).params == parameters


def test_a_new_space_is_searched_beside_another() -> None:
    union = get("scales+convmixer", SpaceSettings(resolution=32, num_classes=10))
    assert isinstance(union, Union)
    for family, space in union.families.items():
        assert union.encode(space.smallest("params"))["family"] == family
    with pytest.raises(SpaceError, match=r"^architecture: must be of one of the spaces of scales\+convmixer, got "):
        union.encode(zoo.get("poolformer_s12"))


@pytest.mark.usefixtures("one_thread")
def test_a_search_uses_a_new_mixer_space_dataset_objective_and_proposer(tmp_path: Path) -> None:
    """All but Ray is real: the worker opens the data, measures and trains."""
    info = open_dataset(additions.__name__, resolution=8).info
    study = make_study(REQUEST, {}, info)
    folder = RunFolder(tmp_path)
    folder.study_file.write_text(study.to_yaml(), encoding="utf-8")
    record = open_record(study, folder, study.make_space(), writes=True)
    record.note(bounds={"largest_output": (0.1, 100.0)}, num_images=dict(info.num_images))
    place = Place(
        speed=Speed(base=1e-4, per_gmac=0.1),
        num_images={str(split): number for split, number in info.num_images.items()},
        num_workers=1,
        checkpoints=folder.checkpoints,
    )
    session = open_session(study, record, place, on_drop=folder.drop_checkpoints)
    worker = Worker(Data.of(info, num_loaders=0, bad_images="stop"), Devices(kind="cpu", cpus=1))
    while lease := session.next():
        worker.begin(lease)
        seconds = 0.1
        while tell(session, lease.name, worker.step(), device_seconds=seconds) is Decision.CONTINUE:
            seconds += 0.1
    assert session.queue.is_exhausted
    assert [trial.state for trial in record] == [TrialState.COMPLETE] * 6
    assert all(trial.measured["largest_output"] > 1 for trial in record)
    run = open_run(tmp_path)
    found = summarise(run)
    assert found["objectives"] == ["accuracy", "macs", "largest_output"]
    assert "largest output" in render(Results(run))
    assert all(trial.test_accuracy is not None for trial in session.front)


def test_the_new_dataset_is_told_apart_by_simple_classifiers() -> None:
    dataset = open_dataset(additions.__name__, resolution=8)
    found = simple_classifiers(dataset, default_recipe(additions.__name__))
    assert set(found) == {"1-nearest neighbour", "logistic regression"}
    assert all(accuracy == 1 for pair in found.values() for accuracy in pair)
