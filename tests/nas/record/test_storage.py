"""Where a study's database lies, and that who only reads it leaves it as it is."""

import re
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from nas.export import export
from nas.record.record import Record
from nas.record.run_folder import open_run
from nas.record.storage import open_storage, sqlite_url
from nas.report import report
from nas.study.study import StudyError
from tests.nas.runs import make_run, make_study, open_folder

STUDY = make_study()


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def closed_run(path: Path) -> Path:
    """A run whose driver has ended."""
    with closing(make_run(path, max_trials=3).record):
        return path


@pytest.mark.parametrize("name", ["a?b", "a#b", "a%41b", "a{x}b", "a&mode=memory", "q'é"])
def test_whatever_a_run_is_called_its_database_lies_in_its_folder(tmp_path: Path, name: str) -> None:
    folder = closed_run(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (folder / "study.db").stat().st_size
    trials = list(open_run(folder).record)
    assert len(trials) >= 3
    assert list(Record(sqlite_url(folder / "study.db"), STUDY.make_space(), STUDY.goals, writes=True)) == trials


def test_readers_change_nothing_but_what_they_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = closed_run(tmp_path / "run")
    before = files(folder)
    assert set(before) == {"study.yaml", "study.db"}
    monkeypatch.chdir(tmp_path)
    export(str(folder), pick="0", prove=False)
    assert files(folder) == before
    report(str(folder))
    after = files(folder)
    assert {name: after[name] for name in before} == before
    assert {name for name in set(after) - set(before) if not name.startswith("front/")} == {
        "report.html",
        "trials.csv",
        "curves.csv",
        "front.csv",
        ".report.lock",
    }


def test_an_empty_database_is_refused_and_no_study_is_made_in_it(tmp_path: Path) -> None:
    folder = closed_run(tmp_path / "run")
    (folder / "study.db").write_bytes(b"")
    said = f"^storage: must be a database that can be opened, got {re.escape(repr(sqlite_url(folder / 'study.db')))} "
    with pytest.raises(StudyError, match=said):
        report(str(folder))
    assert (folder / "study.db").read_bytes() == b""
    assert not (folder / "report.html").exists()


@pytest.mark.parametrize("journal", [False, True])
def test_a_reader_makes_no_database(tmp_path: Path, journal: bool) -> None:
    path = tmp_path / "none"
    with pytest.raises(FileNotFoundError, match="no such file"):
        open_storage(f"journal:{path}" if journal else sqlite_url(path))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_run_on_a_disk_that_cannot_be_written_is_read(tmp_path: Path, small_disk: Path, is_killed: bool) -> None:
    made = make_run(tmp_path / "run", max_trials=3)
    if not is_killed:
        made.record.close()
    shutil.copytree(made.folder.path, small_disk / "run")  # of a killed driver with its log of changes
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    export(str(small_disk / "run"), pick="0", out=tmp_path / "arch.yaml", prove=False)
    assert (tmp_path / "arch.yaml").exists()
    assert list(open_run(small_disk / "run").record) == list(made.record)


def test_a_driver_that_ends_leaves_all_in_one_file(tmp_path: Path) -> None:
    folder = closed_run(tmp_path / "run")
    with closing(sqlite3.connect(folder / "study.db")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert [path.name for path in folder.glob("study.db*")] == ["study.db"]


def test_an_empty_front_replaces_a_full_one_only_where_that_is_asked_for(tmp_path: Path) -> None:
    folder = closed_run(tmp_path / "run")
    report(str(folder))
    before = files(folder)
    assert [name for name in before if name.startswith("front/")]
    for path in folder.glob("study.db*"):
        path.unlink()
    open_folder(folder, STUDY)[0].record.close()  # the same study, from its beginning
    empty = files(folder)
    with pytest.raises(StudyError, match="^report: must have a complete trial where '.*/front' has .* got none of 0 "):
        report(str(folder))
    assert files(folder) == empty
    report(str(folder), force=True)
    assert not list((folder / "front").iterdir())


def test_a_reader_of_a_journal_writes_nothing(tmp_path: Path) -> None:
    url = f"journal:{tmp_path / 'study.journal'}"
    Record(url, STUDY.make_space(), STUDY.goals, writes=True).add_overhead(1.0)
    before = files(tmp_path)
    reader = Record(url, STUDY.make_space(), STUDY.goals)
    assert reader.notes.overhead_device_seconds == 1.0
    with pytest.raises(StudyError, match="a reader writes nothing"):
        reader.add_overhead(1.0)
    assert files(tmp_path) == before
