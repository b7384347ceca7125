"""A run's folder: what lies where, and opening one that exists."""

import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from filelock import FileLock

from metaformer.documents import check_path
from metaformer.errors import check_type, mask_passwords, nearest_first, shown
from nas.record.lock import lock_folder
from nas.record.record import STUDY_NAME, Record
from nas.record.storage import sqlite_url
from nas.record.trials import TrialRecord
from nas.study.study import Study, StudyError
from nas.training.checkpoints import CheckpointFolder, folder_of
from search_spaces.space import SearchSpace

MOST_BYTES = 255  # of a file's name
_MOST_SHOWN = 60  # characters of a wrong name
_PUT_BACK = "put the run's own database back, or begin another run with another --name"


@dataclass(frozen=True)
class RunFolder:
    """Paths of everything a run leaves."""

    path: Path
    place: str | None = None  # of the checkpoints, as the study says it: an absolute path or a URI; None: in the folder

    @property
    def study_file(self) -> Path:
        return self.path / "study.yaml"

    @property
    def database(self) -> Path:
        return self.path / "study.db"

    @property
    def checkpoints(self) -> str:
        """Path or URI of the folder that holds one folder for each trial's checkpoints."""
        return self.place or str((self.path / "checkpoints").resolve())

    @property
    def architectures(self) -> Path:
        return self.path / "front"

    @property
    def trials_csv(self) -> Path:
        return self.path / "trials.csv"

    @property
    def front_csv(self) -> Path:
        return self.path / "front.csv"

    @property
    def finals_csv(self) -> Path:
        return self.path / "finals.csv"

    @property
    def curves_csv(self) -> Path:
        return self.path / "curves.csv"

    @property
    def log(self) -> Path:
        return self.path / "run.log"

    @property
    def report_html(self) -> Path:
        return self.path / "report.html"

    def checkpoints_of(self, trial: TrialRecord) -> CheckpointFolder:
        """The checkpoints of a trial; a completed one of the front, or of a reference, has its weights there."""
        return CheckpointFolder(folder_of(self.checkpoints, trial.checkpoint_trial))

    def drop_checkpoints(self, trial: int) -> None:
        """Remove the checkpoints of a trial, where there are any."""
        CheckpointFolder(folder_of(self.checkpoints, trial)).drop()

    def report_lock(self) -> FileLock:
        """Held while trials are read and written out as a report, so that an older look never replaces a newer one."""
        return FileLock(self.path / ".report.lock")

    def lock(self) -> AbstractContextManager[None]:
        """Held by the one driver that may write here; the system frees it when that process ends, however it ends.

        Raises:
            StudyError: Another driver holds it, on entering.
        """
        return lock_folder(self.path)


@dataclass(frozen=True)
class Run:
    """A run that exists: its folder, its study, its trials."""

    folder: RunFolder
    study: Study
    space: SearchSpace
    record: Record

    @property
    def name(self) -> str:
        return self.folder.path.resolve().name


def check_name(name: str) -> str:
    """The name of a run, which is that of a folder among the runs.

    Raises:
        StudyError: It would be elsewhere, or no file may have that name.
    """
    check_type(name, str, "name: must be text", error=StudyError)
    if name in ("", ".", "..") or "/" in name or not name.isprintable() or len(os.fsencode(name)) > MOST_BYTES:
        shown = name if len(name) <= _MOST_SHOWN else f"{name[:_MOST_SHOWN]}…"
        raise StudyError(
            f"name: must be that of one folder, without / and of at most {MOST_BYTES} bytes, got {shown!r}; "
            "--runs says where it lies"
        )
    return name


def open_record(study: Study, folder: RunFolder, space: SearchSpace, *, writes: bool = False) -> Record:
    """The record of a study, wherever it is kept; it is begun only for a study that has no identity yet.

    Raises:
        StudyError: It cannot be opened, or is that of another run.
    """
    url = study.storage or sqlite_url(folder.database)
    name = study.storage_name or STUDY_NAME
    try:
        record = Record(url, space, study.goals, name=name, writes=writes, begins=study.identity is None)
    except StudyError as error:
        if study.identity is None:
            raise
        raise StudyError(f"{error}; {_PUT_BACK}") from None
    if study.identity not in (None, record.notes.identity):
        raise StudyError(
            f"storage: must hold the study {study.identity}, as {folder.study_file} has it, "
            f"got {record.notes.identity} in {mask_passwords(url)!r}; {_PUT_BACK}"
        )
    return record


def identify(study: Study, record: Record, folder: RunFolder) -> Study:
    """The study with an identity that its record holds as well; called by the driver, before the study is written.

    A driver may have been killed between the two, so a record without trials may have one already.

    Raises:
        StudyError: A run without a study file has trials in its database.
    """
    if study.identity is not None:
        return study
    if record.trials and not folder.study_file.exists():
        raise StudyError(
            f"storage: must hold no trials before a run begins, got {len(record.trials)} in {str(folder.database)!r}; "
            f"put its {folder.study_file.name} back, or begin another run with another --name"
        )
    if record.notes.identity is None:
        record.note(identity=uuid4().hex)
    return study.model_copy(update={"identity": record.notes.identity})


def open_run(path: Path) -> Run:
    """The run in a folder that `python -m nas.search` has made.

    Raises:
        StudyError: There is no run, or it cannot be read.
    """
    check_type(path, (str, Path), "run: must be the path of a folder", error=StudyError)
    check_path(path, "run", error=StudyError)
    path = Path(path)
    folder = RunFolder(path)
    if not folder.study_file.exists():
        beside = [other.parent.name for other in sorted(path.parent.glob("*/study.yaml"))]
        known = (
            f"; runs in {path.parent}, nearest first: {', '.join(nearest_first(path.name, beside))}" if beside else ""
        )
        raise StudyError(f"run: must be a folder with a study.yaml, got {shown(str(path))}{known}")
    study = Study.from_file(folder.study_file)
    if study.storage is None and not folder.database.exists():
        raise StudyError(f"run: must hold {folder.database.name}, got {str(path)!r} without it; {_PUT_BACK}")
    space = study.make_space()
    folder = RunFolder(path, study.checkpoints)
    return Run(folder, study, space, open_record(study, folder, space))
