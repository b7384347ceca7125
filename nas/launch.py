"""Carries a search through: check, measure, plan, run, evaluate, report."""

import json
import shutil
import sys
from pathlib import Path
from uuid import uuid4

from rich.console import Console

from nas.budget import Budget, Ledger
from nas.data import DataInfo, open_dataset
from nas.export import replace_text
from nas.halving import make_stopper
from nas.lease import Speed
from nas.plan import Request, data_and_resolution, fit_speed, make_plan, make_study, representative
from nas.progress import Progress, make_console, print_plan, print_summary
from nas.ray_backend import RayBackend, Wanted
from nas.record import check_storage
from nas.report import summarise, write_report
from nas.run import Run, RunFolder, open_record
from nas.session import Session
from nas.study import Study, StudyError, read_mapping

_SPEED = "speed"  # noted in the study


def launch(
    request: Request, *, name: str | None, runs: Path, loaders: int | None, ray_address: str | None, as_json: bool
) -> None:
    """Begin the study that was asked for, or go on with it, until its budget is spent or somebody stops it.

    Nothing is written before everything that can be checked has been.

    Raises:
        UserError: Something asked for cannot be done.
    """
    console = make_console(as_json=as_json)
    fields = read_mapping(request.study) if request.study else {}
    data_name, resolution = data_and_resolution(request, fields)
    info = open_dataset(data_name, resolution=resolution).info
    study = make_study(request, fields, info)
    folder = RunFolder(runs / (name or _default_name(study)))
    if folder.study_file.exists():
        earlier = Study.from_file(folder.study_file)
        study.check_continues(earlier, folder.path)
        study = study.model_copy(update={"storage_name": earlier.storage_name})
    else:
        shared_name = f"{folder.path.name}-{uuid4().hex[:8]}" if study.storage else None
        study = study.model_copy(update={"storage_name": shared_name})
    if study.storage is not None:
        check_storage(study.storage)
    budget = Budget.parse(study.budget)
    wanted = Wanted(kind=budget.device, cpus=study.cpus_per_trial, workers=study.workers, loaders=loaders)
    scratch = folder.path.resolve() / ".ray"
    backend = RayBackend(info, wanted=wanted, address=ray_address, scratch=scratch)
    console.print("starting workers …", style="dim")
    with backend:
        measured = None if folder.study_file.exists() else _measure(study, backend, console)
        _make_folder(folder.path)
        with folder.lock():
            shutil.rmtree(scratch, ignore_errors=True)  # of a driver that was killed; under the lock, so of no live one
            replace_text(folder.study_file, study.to_yaml())
            search = _Search(study, folder, backend, budget, info, console, measured)
            try:
                search.run()
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    search.report(as_json)


class _Search:
    """One driver's work on one study."""

    def __init__(
        self,
        study: Study,
        folder: RunFolder,
        backend: RayBackend,
        budget: Budget,
        info: DataInfo,
        console: Console,
        measured: tuple[Speed, float] | None,
    ) -> None:
        self._folder = folder
        self._backend = backend
        self._budget = budget
        self._info = info
        self._console = console
        space = study.make_space()
        self._record = open_record(study, folder, space, writes=True)
        self._run = Run(folder, study, space, self._record)
        num_images = {str(split): number for split, number in info.num_images.items()}
        self._record.note("num_images", num_images)
        speed = self._speed(measured)
        self._session = Session(
            study,
            self._record,
            Ledger(budget.seconds, spent=self._record.spent_seconds),
            space=space,
            speed=speed,
            num_images=num_images,
            num_workers=backend.num_workers,
            checkpoints=folder.checkpoints.resolve(),
            on_drop=folder.drop_checkpoints,
            stopper=make_stopper(study, space),
        )

    def run(self) -> None:
        """Carry out leases until the session has no more."""
        session, console = self._session, self._console
        plan = make_plan(session)
        print_plan(
            console, session, plan, budget=self._budget, info=self._info, devices_per_trial=self._backend.devices.count
        )
        progress = Progress(session, self._budget, console)
        with progress.live():
            self._backend.run(session, on_event=progress.on_event)
        for note in session.notes:
            console.print(f"[yellow]{note}[/]")

    def report(self, as_json: bool) -> None:
        """Write the report and say what came out."""
        with self._folder.report_lock():
            write_report(self._run)
        print_summary(self._console, self._session, self._folder, self._budget)
        if as_json:
            sys.stdout.write(json.dumps(summarise(self._run), indent=2) + "\n")
        if self._session.problem:
            raise StudyError(f"search: must have trials that work; {self._session.problem}")

    def _speed(self, measured: tuple[Speed, float] | None) -> Speed:
        """Seconds per image on these devices, measured once a study, and what that took, charged."""
        noted = self._record.noted(_SPEED)
        if noted is not None:
            return Speed.model_validate(noted)
        speed, spent = measured or _measure(self._run.study, self._backend, self._console)
        self._record.note(_SPEED, speed.model_dump(mode="json"))
        self._record.add_overhead(spent)
        return speed


def _measure(study: Study, backend: RayBackend, console: Console) -> tuple[Speed, float]:
    """Seconds per image on these devices, and device-seconds spent on finding out."""
    console.print("measuring the speed of a few architectures …", style="dim")
    archs = representative(study.make_space())
    seconds, spent = backend.measure(archs, study.recipe)
    return fit_speed(archs, seconds), spent


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StudyError(
            f"runs: must be a folder that can be written to, got {str(path)!r} ({error.strerror})"
        ) from None


def _default_name(study: Study) -> str:
    """The space and the data, so that the same command finds its run again."""
    kind, _, path = study.data.partition(":")
    return f"{study.space}-{Path(path).name or kind}"
