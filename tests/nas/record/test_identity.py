"""A run folder and its database know each other."""

import re
from pathlib import Path

import pytest

from nas.record.run_folder import Run, RunFolder, identify, open_record, open_run
from nas.study.study import Study, StudyError
from tests.nas.runs import make_run, make_study

PUT_BACK = "; put the run's own database back, or begin another run with another --name$"


def begin(path: Path) -> Run:
    """A run with an identity, and its driver still at it."""
    made = make_run(path, max_trials=3)
    study = identify(made.study, made.record, made.folder)
    made.folder.study_file.write_text(study.to_yaml(), encoding="utf-8")
    return Run(made.folder, study, made.space, made.record)


def end(run: Run) -> RunFolder:
    run.record.close()
    return run.folder


def go_on(folder: RunFolder) -> None:
    """What the same command does."""
    study = Study.from_file(folder.study_file)
    open_record(study, folder, study.make_space(), writes=True)


def test_a_run_has_one_identity_in_both_places(tmp_path: Path) -> None:
    run = begin(tmp_path / "run")
    assert run.study.identity
    assert identify(run.study, run.record, run.folder) == run.study
    end(run)
    assert open_run(run.folder.path).record.notes.identity == run.study.identity


def test_a_run_whose_database_is_gone_is_not_begun_again(tmp_path: Path) -> None:
    folder = end(begin(tmp_path / "run"))
    folder.database.unlink()
    with pytest.raises(StudyError, match=rf"^storage: .* \(no such file\){PUT_BACK}"):
        go_on(folder)
    with pytest.raises(StudyError, match=f"^run: must hold study.db, got .* without it{PUT_BACK}"):
        open_run(folder.path)
    assert not folder.database.exists()


def test_an_empty_database_in_its_place_stays_empty(tmp_path: Path) -> None:
    folder = end(begin(tmp_path / "run"))
    folder.database.write_bytes(b"")
    with pytest.raises(StudyError, match=f"^storage: .*{PUT_BACK}"):
        go_on(folder)


@pytest.mark.parametrize("has_identity", [True, False])
def test_a_foreign_database_is_not_gone_on_with(tmp_path: Path, has_identity: bool) -> None:
    folder = end(begin(tmp_path / "run"))
    foreign = end(begin(tmp_path / "other") if has_identity else make_run(tmp_path / "other", max_trials=3))
    foreign.database.replace(folder.database)
    said = f"^storage: must hold the study [0-9a-f]{{32}}, as {re.escape(str(folder.study_file))} has it, got .*"
    with pytest.raises(StudyError, match=said + PUT_BACK):
        go_on(folder)
    with pytest.raises(StudyError, match=said + PUT_BACK):
        open_run(folder.path)


def test_a_database_with_trials_is_not_taken_for_that_of_a_new_run(tmp_path: Path) -> None:
    run = begin(tmp_path / "run")
    run.folder.study_file.unlink()
    said = "^storage: must hold no trials before a run begins, got [0-9]+ in .*; put its study.yaml back, or begin "
    with pytest.raises(StudyError, match=said):
        identify(make_study(), run.record, run.folder)


def test_a_driver_killed_before_it_wrote_the_study_file_is_gone_on_with(tmp_path: Path) -> None:
    folder, study = RunFolder(tmp_path), make_study()
    record = open_record(study, folder, study.make_space(), writes=True)
    killed = identify(study, record, folder)
    record.close()
    again = open_record(study, folder, study.make_space(), writes=True)
    assert identify(study, again, folder).identity == killed.identity
