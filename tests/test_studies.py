"""The questions in studies/: each file says how it is run, and can be."""

from pathlib import Path

import pytest

from nas.data import open_dataset
from nas.make_study import find_images, make_study
from nas.study.request import Request
from nas.study.study import read_mapping

STUDIES = sorted((Path(__file__).parents[1] / "studies").glob("*.yaml"))


def test_there_are_studies() -> None:
    assert STUDIES


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_study_says_how_it_is_run_and_what_to_expect(path: Path) -> None:
    header = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    assert [line.split()[1] for line in header[1:4]] == ["Command:", "Hardware:", "Expect:"]
    assert f"--study studies/{path.name}" in header[1]
    assert path.with_suffix(".md").exists()


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_study_of_embedded_data_is_complete(path: Path) -> None:
    request = Request(study=path)
    fields = read_mapping(path)
    images = find_images(request, fields)
    dataset = open_dataset(images.data, resolution=images.resolution, splitting=images.splitting)
    study = make_study(request, fields, dataset.info)
    assert study.model_dump(mode="json") == fields
