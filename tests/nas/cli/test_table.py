"""The program that records learning curves: what a row has, and that it goes on where it was ended."""

import csv
import fcntl
import math
import subprocess
import sys
from pathlib import Path

import pytest

from nas.execution.curves import Curve, CurveFile, CurveTable, Training
from nas.study.study import Study, StudyError
from nas.table import _architectures
from search_spaces.space import Limits, SearchSpace, SpaceSettings, get
from tests.nas.programs import ROOT
from tests.nas.runs import make_study
from tests.search_spaces.tiny import FewModels

SMALL = ("--epochs", "1", "--batch-size", "256", "--resolution", "16", "--width-scale", "0.0625", "--max-macs", "200k")


def program(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nas.table", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two architectures, one of them with two seeds."""
    out = tmp_path_factory.mktemp("tables") / "digits.csv"
    done = program(out, *SMALL, "--number", 2, "--replicas", 1)
    assert done.returncode == 0, done.stderr
    return out


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


@pytest.mark.slow
def test_a_row_has_costs_genes_seed_and_the_whole_curve(table: Path) -> None:
    study = Study.from_file(table.with_suffix(".yaml"))
    curves = CurveTable(table, study.make_space())
    assert len(curves.architectures) == 2
    assert sorted(row["seed"] for row in rows(table)) == ["0", "0", "1"]
    for row in rows(table):
        assert 0 <= float(row["epoch_1"]) <= 1
        assert 0 <= float(row["test"]) <= 1
        assert float(row["epoch_seconds"]) > 0
    for architecture in curves.architectures:
        cost = study.make_space().cost(architecture)
        found = [row for row in rows(table) if row["digest"] == architecture.digest]
        assert {(int(row["params"]), int(row["macs"])) for row in found} == {(cost.params, cost.macs)}
    assert sorted(len(curves.by_seed(arch)) for arch in curves.architectures) == [1, 2]


@pytest.mark.slow
def test_the_same_architectures_are_trained_by_another_seed(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "longer.csv"
    study = table.with_suffix(".yaml")
    done = program(out, "--study", study, "--epochs", 2, "--number", 2, "--replicas", 0, "--train-seed", 5)
    assert done.returncode == 0, done.stderr
    assert {row["digest"] for row in rows(out)} == {row["digest"] for row in rows(table)}
    assert [row["seed"] for row in rows(out)] == ["5", "5"]
    assert "epoch_2" in rows(out)[0]


@pytest.mark.slow
def test_the_same_command_trains_what_is_missing_and_nothing_twice(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "again.csv"
    lines = table.read_text(encoding="utf-8").splitlines(keepends=True)
    out.write_text("".join(lines[:-1]) + lines[-1][:40], encoding="utf-8")  # killed within the last row
    out.with_suffix(".yaml").write_bytes(table.with_suffix(".yaml").read_bytes())
    done = program(out, *SMALL, "--number", 2, "--replicas", 1)
    assert done.returncode == 0, done.stderr
    assert out.read_text(encoding="utf-8").splitlines()[:-1] == [line.rstrip("\n") for line in lines[:-1]]
    without_time = [{**row, "epoch_seconds": ""} for row in rows(table)]
    assert [{**row, "epoch_seconds": ""} for row in rows(out)] == without_time


@pytest.mark.slow
def test_another_recipe_does_not_go_on_with_a_table(table: Path) -> None:
    before = table.read_bytes()
    done = program(table, *SMALL, "--number", 2, "--replicas", 1, "--epochs", 2)
    assert done.returncode == 2
    assert done.stderr.startswith("error: recipe.epochs: must be 1, as the study in ")
    assert table.read_bytes() == before


def test_two_programs_do_not_write_one_table(tmp_path: Path) -> None:
    space = make_study().make_space()
    with (tmp_path / "out.csv").open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with (
            pytest.raises(StudyError, match=r"^out: must not be at work in another process"),
            CurveFile(tmp_path / "out.csv", space),
        ):
            pass


@pytest.fixture
def space() -> SearchSpace:
    return make_study().make_space()


def test_what_is_no_table_is_not_written_to(tmp_path: Path, space: SearchSpace) -> None:
    path = tmp_path / "out.csv"
    path.write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(StudyError, match=r"^out: must be a table of learning curves, got "), CurveFile(path, space):
        pass
    assert path.read_text(encoding="utf-8") == "a,b\n1,2\n"


def test_written_rows_are_read_again(tmp_path: Path, space: SearchSpace) -> None:
    arch = space.smallest("params")
    curves = {seed: Curve(0.5, (0.25, 0.5 + seed / 4), test_accuracy=0.5) for seed in (0, 1)}
    for seed, curve in curves.items():
        with CurveFile(tmp_path / "out.csv", space) as file:
            file.add(Training(arch, seed), curve)
    table = CurveTable(tmp_path / "out.csv", space)
    assert table.by_seed(arch) == curves
    assert table.curve(arch) == curves[0]
    assert table.architectures == [arch]


@pytest.mark.slow
def test_architectures_fill_the_costs_evenly_and_none_comes_twice(space: SearchSpace) -> None:
    bounded = space.within(Limits(max_macs=2_000_000))
    found = list(_architectures(bounded, 30, 0))
    assert len({arch.digest for arch in found}) == 30
    macs = [bounded.cost(arch).macs for arch in found]
    assert max(macs) <= 2_000_000
    least, most = math.log(min(macs)), math.log(2_000_000)
    thirds = [int(3 * (math.log(count) - least) / (most - least + 1e-9)) for count in macs]
    assert min(thirds.count(third) for third in range(3)) >= 5


def test_a_space_that_has_fewer_gives_all() -> None:
    few = get(FewModels.name, SpaceSettings())
    assert len(list(_architectures(few, 1000, 0))) == few.size
