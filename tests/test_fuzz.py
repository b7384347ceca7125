"""What others may write: documents and rows changed at random are read, or refused in one line of the project's own."""

import copy
import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metaformer import Architecture, count_cost, zoo
from metaformer.checkpoints.files import read_checkpoint
from metaformer.errors import CheckpointError, UserError
from nas.record.run_folder import open_run
from nas.results.report_files import summarise
from nas.study.budget import Budget, parse_duration
from nas.study.request import parse_count
from nas.study.study import Study, StudyError
from tests.nas.runs import make_run, make_study

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

MANY = settings(max_examples=800, suppress_health_check=list(HealthCheck))
FEW = settings(max_examples=200, suppress_health_check=list(HealthCheck))  # each copies a database
ODD_NUMBERS = [0, -1, 1, 2**31, 2**63, 10**30, -(2**63), float("nan"), float("inf"), 1e308, 5e-324, 0.5, 1.5]
SCALARS = st.none() | st.booleans() | st.sampled_from(ODD_NUMBERS) | st.integers() | st.floats() | st.text(max_size=30)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4)
)
STUDY = yaml.safe_load(make_study().to_yaml())
ARCHITECTURES = [
    yaml.safe_load(zoo.get(name).to_yaml()) for name in ("poolformer_s12", "pvt_tiny", "t2t_vit_7", "caformer_s18")
]


def places(part: object) -> list[tuple[Any, ...]]:
    """Paths of everything in nested mappings and lists."""
    if not isinstance(part, dict | list):
        return []
    items = part.items() if isinstance(part, dict) else enumerate(part)
    return [path for key, value in items for path in [(key,), *((key, *below) for below in places(value))]]


@st.composite
def changed(draw: st.DrawFn, document: dict[str, Any]) -> dict[str, Any]:
    """A document with one to three of its parts replaced, left out or added to."""
    result = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        found = places(result)
        if not found:
            return result
        *above, last = draw(st.sampled_from(found))
        holder: Any = result
        for key in above:
            holder = holder[key]
        what = draw(st.sampled_from(["replace", "replace", "drop", "add"]))
        if what == "replace":
            holder[last] = draw(VALUES)
        elif what == "drop":
            del holder[last]
        elif isinstance(holder, dict):
            holder[draw(st.text(max_size=12))] = draw(VALUES)
        else:
            holder.append(draw(VALUES))
    return result


def check_refusal(call: Callable[[], object], kind: type[UserError] = UserError) -> object:
    """What comes out, or None where it is refused in a line of the project's own."""
    refused = ""
    try:
        return call()
    except kind as error:
        refused = str(error)
    assert refused
    assert len(refused) < 2000
    return None


@MANY
@given(st.sampled_from(ARCHITECTURES).flatmap(changed))
def test_architectures_that_were_changed(document: dict[str, Any]) -> None:
    text = yaml.safe_dump(document)
    arch = check_refusal(lambda: Architecture.from_yaml(text))
    if isinstance(arch, Architecture):
        assert Architecture.from_yaml(arch.to_yaml()) == arch
        assert count_cost(arch).params >= 0


@MANY
@given(changed(STUDY))
def test_studies_that_were_changed(tmp_path_factory: pytest.TempPathFactory, document: dict[str, Any]) -> None:
    path = tmp_path_factory.getbasetemp() / "changed.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8", errors="surrogatepass")
    study = check_refusal(lambda: Study.from_file(path))
    if isinstance(study, Study):
        check_refusal(study.make_space)


@MANY
@given(st.text(max_size=200) | st.text("{}[]&*!|>:-,'\"\n ab01#%@`?\t", max_size=200))
def test_any_text(text: str) -> None:
    check_refusal(lambda: Architecture.from_yaml(text))
    check_refusal(lambda: Budget.parse(text))
    check_refusal(lambda: parse_duration("deadline", text))
    check_refusal(lambda: parse_count("max_macs", text))


@MANY
@given(st.binary(max_size=300), st.sampled_from([".pt", ".safetensors", ".yaml"]))
def test_any_bytes(tmp_path_factory: pytest.TempPathFactory, content: bytes, suffix: str) -> None:
    path = tmp_path_factory.getbasetemp() / f"bytes{suffix}"
    path.write_bytes(content)
    if suffix == ".yaml":
        check_refusal(lambda: Architecture.from_file(path))
        check_refusal(lambda: Study.from_file(path), StudyError)
    else:
        check_refusal(lambda: read_checkpoint(path), CheckpointError)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "good"
    make_run(path, max_trials=3).record.close()
    return path


CELLS = [
    ("trial_user_attributes", "value_json"),
    ("study_user_attributes", "value_json"),
    ("study_system_attributes", "value_json"),
    ("trial_params", "distribution_json"),
    ("trial_params", "param_value"),
    ("trial_params", "param_name"),
    ("trial_values", "value"),
    ("trial_values", "value_type"),
    ("trials", "state"),
    ("trials", "number"),
    ("trials", "datetime_complete"),
    ("study_directions", "direction"),
    ("studies", "study_name"),
]


@st.composite
def cell_values(draw: st.DrawFn) -> object:
    """JSON, text that is none, numbers and nothing, as a cell of a table may hold them."""
    value = draw(VALUES)
    form = draw(st.sampled_from(["json", "text", "number", "nothing"]))
    if form == "json":
        return json.dumps(value)
    if form == "number":
        return draw(st.integers(-(2**63), 2**63 - 1) | st.floats())
    return draw(st.text(st.characters(exclude_categories=["Cs"]), max_size=20)) if form == "text" else None


@FEW
@given(st.sampled_from(CELLS), cell_values(), st.integers(0, 5))
def test_rows_that_were_changed(run: Path, cell: tuple[str, str], value: object, number: int) -> None:
    table, column = cell
    other = run.with_name("changed")
    shutil.rmtree(other, ignore_errors=True)
    shutil.copytree(run, other)
    with closing(sqlite3.connect(other / "study.db")) as connection, connection:
        try:
            connection.execute(
                f"UPDATE {table} SET {column} = ? WHERE rowid = "  # noqa: S608
                f"(SELECT rowid FROM {table} LIMIT 1 OFFSET ? % (SELECT COUNT(*) FROM {table}))",
                (value, number),
            )
        except sqlite3.IntegrityError:  # the table itself refuses it
            return
    check_refusal(lambda: summarise(open_run(other)), StudyError)
