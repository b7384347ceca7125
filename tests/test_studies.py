"""The questions in studies/: each file says how it is run, and can be."""

import re
import shutil
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from benchmarks.ablation import CURVES, Ablation, read, table
from metaformer import load
from metaformer.cost import count_cost
from metaformer.zoo import resolve
from nas.data import open_dataset
from nas.make_study import find_images, make_study
from nas.record.run_folder import open_run
from nas.results.explain.effects import Explanation
from nas.results.explain.view import parse_comparison
from nas.results.results import Results
from nas.study.request import Request
from nas.study.study import Study, read_mapping

FOLDER = Path(__file__).parents[1] / "studies"
STUDIES = sorted(FOLDER.glob("*.yaml"))
EMBEDDED = [path for path in STUDIES if ":" not in str(read_mapping(path)["data"])]
ABLATIONS = sorted((FOLDER / "ablations").glob("*.yaml"))
RECORDS = sorted((FOLDER / "records").iterdir())
WINNERS = sorted((FOLDER / "cifar10_hybrid_stages").glob("*.yaml"))
_MOST_BYTES = 20_000_000  # of all that was exported


def curves_of(ablation: Path) -> Path:
    return CURVES / f"{ablation.stem}.csv"


def test_there_are_studies() -> None:
    assert STUDIES


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_study_says_how_it_is_run_and_what_to_expect(path: Path) -> None:
    header = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    assert [line.split()[1] for line in header[1:4]] == ["Command:", "Hardware:", "Expect:"]
    assert f"--study studies/{path.name}" in header[1]
    assert path.with_suffix(".md").exists()


@pytest.mark.parametrize("path", ABLATIONS, ids=lambda path: path.stem)
def test_an_ablation_says_how_it_is_run_and_can_be_read(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    header = [line for line in text.splitlines() if line.startswith("#")]
    assert [line.split()[1] for line in header[1:4]] == ["Command:", "Hardware:", "Expect:"]
    assert f"studies/ablations/{path.name}" in header[1]
    assert Ablation.model_validate(yaml.safe_load(text)).rows


@pytest.mark.parametrize("path", [path for path in ABLATIONS if curves_of(path).exists()], ids=lambda path: path.stem)
def test_the_page_of_an_ablation_that_was_trained_has_the_table_of_its_curves(path: Path) -> None:
    lines = (FOLDER / f"{path.stem}.md").read_text(encoding="utf-8").splitlines()
    said = table(Ablation.model_validate(yaml.safe_load(path.read_text(encoding="utf-8"))), read(curves_of(path)))
    assert [line for line in said if line not in lines] == []


@pytest.mark.parametrize("path", EMBEDDED, ids=lambda path: path.stem)
def test_a_study_of_embedded_data_is_complete(path: Path) -> None:
    request = Request(study=path)
    fields = read_mapping(path)
    images = find_images(request, fields)
    dataset = open_dataset(images.data, resolution=images.resolution, splitting=images.splitting)
    study = make_study(request, fields, dataset.info)
    assert study.model_dump(mode="json") == fields


@pytest.mark.parametrize("record", RECORDS, ids=lambda path: path.name)
def test_what_a_page_says_of_genes_is_what_its_record_says(record: Path, tmp_path: Path) -> None:
    page = record.parents[1] / f"{record.name}.md"
    text = " ".join(page.read_text(encoding="utf-8").split())
    copy = shutil.copytree(record, tmp_path / record.name)
    study = Study.from_file(page.with_suffix(".yaml"))
    kept = Study.from_file(copy / "study.yaml")
    assert study == kept.model_copy(update={"identity": None})
    opened = open_run(copy)
    with closing(opened.record):
        explanation = Explanation(Results(opened))
        asked = re.findall(r'--compare "([^"]+)"', text)
        sides = [parse_comparison(each, opened.space.choices) for each in asked]
    assert asked
    found = [explanation.compare(*both) for both in sides]
    stated = [(each.points, each.sd) for each in found] + [(each.points, each.sd) for each in explanation.effects]
    written = {f"{points:+.2f} ± {1.645 * sd:.2f}".replace("-", "−") for points, sd in stated}
    known = re.findall(r"[+−]\d+\.\d\d ± \d+\.\d\d", text)
    assert [f"{each.points:+.2f} ± {1.645 * each.sd:.2f}".replace("-", "−") in known for each in found]
    assert set(known) - written == set()


def test_exported_winners_stay_small() -> None:
    assert len(WINNERS) >= 3
    assert sum(path.stat().st_size for path in WINNERS[0].parent.iterdir()) <= _MOST_BYTES


@pytest.mark.parametrize("path", WINNERS, ids=lambda path: path.stem)
def test_an_exported_winner_is_that_of_the_page_and_its_weights_of_each_seed_load(path: Path) -> None:
    page = path.parents[1] / f"{path.parent.name}.md"
    arch = resolve(str(path))
    cost = count_cost(arch)
    [row] = [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith(f"| #{path.stem} |")]
    assert f"| {cost.params:,} | {cost.macs:,} |" in row
    weights = sorted(path.parent.glob(f"{path.stem}_seed_*.pt"))
    assert [each.stem.rpartition("_")[2] for each in weights] == ["1", "2", "3"]
    states = [load(arch, each).state_dict() for each in weights]
    name = next(iter(states[0]))
    assert not any(states[0][name].equal(other[name]) for other in states[1:])
