"""Carries a search through: check, measure, plan, run, evaluate, report."""

import json
import shutil
import sys
import threading
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

from rich.console import Console

from nas.budget import Budget, Ledger, parse_duration
from nas.checkpoint_files import NO_ROOM, check_place
from nas.data import DataInfo, open_dataset
from nas.devices import Wanted
from nas.driver import Hold, hold_study
from nas.export import replace_text
from nas.forecast import fit_speed, forecast, representative
from nas.halving import make_stopper
from nas.lease import Speed
from nas.plan import Request, data_and_resolution, make_study
from nas.progress import Progress, make_console, print_plan, print_summary
from nas.ray_backend import LEASE_SECONDS, RayBackend
from nas.record import IN_MEMORY, check_storage, is_journal
from nas.report import summarise, write_report
from nas.run import Run, RunFolder, open_record, open_run
from nas.session import Session
from nas.study import Study, StudyError, read_mapping

_SPEED, _PEAK_BYTES = "speed", "peak_bytes"  # noted in the study
_MOST_NAMES = 10  # of images, in a line


def launch(
    request: Request,
    *,
    name: str | None,
    runs: Path,
    loaders: int | None,
    ray_address: str | None,
    deadline: str | None,
    plan_only: bool,
    as_json: bool,
) -> None:
    """Begin the study that was asked for, or go on with it, until its budget is spent or somebody stops it.

    Nothing is written before everything that can be checked has been, nor where only the plan is asked for.

    Raises:
        UserError: Something asked for cannot be done.
    """
    console = make_console(as_json=as_json)
    seconds = parse_duration("deadline", deadline) if deadline else None
    if request.extend:
        request = _extended(request, RunFolder(runs / (name or _default_name(request.space, request.data))))
    fields = read_mapping(request.study) if request.study else {}
    data_name, resolution = data_and_resolution(request, fields)
    info = open_dataset(data_name, resolution=resolution).info
    study = make_study(request, fields, info)
    folder = RunFolder(runs / (name or _default_name(study.space, study.data)), study.checkpoints)
    study = _named_in_storage(study, folder)
    if study.storage is not None:
        check_storage(study.storage)
    if study.checkpoints is not None:
        check_place(study.checkpoints, is_new=not folder.study_file.exists())
    budget = Budget.parse(study.budget)
    wanted = Wanted(
        kind=budget.device,
        cpus=study.cpus_per_trial,
        gpus=study.gpus_per_trial,
        workers=study.workers,
        loaders=loaders,
        bad_images=study.bad_images,
    )
    scratch = folder.path.resolve() / ".ray"
    backend = RayBackend(info, wanted=wanted, address=ray_address, scratch=scratch)
    console.print("starting workers …", style="dim")
    with _room_needed(folder.path), backend:
        around = _Around(folder, backend, budget, info, console)
        measured = None if folder.study_file.exists() else _measure(study, backend, console)
        if plan_only:
            _preview(study, around, measured).show_plan(as_json)
            return
        _make_folder(folder.path)
        with folder.lock(), _shared(study) as hold:
            shutil.rmtree(scratch, ignore_errors=True)  # of a driver that was killed; under the lock, so of no live one
            replace_text(folder.study_file, study.to_yaml())
            search = _Search(study, around, measured)
            if hold is not None:
                hold.on_lost = search.give_up
            try:
                search.run(seconds)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    with _room_needed(folder.path):
        search.report(as_json)


class _Costs(NamedTuple):
    """What training takes of a device, as measured."""

    speed: Speed
    peak_bytes: int  # of the architecture that takes the most memory
    spent: float  # device-seconds that measuring took


class _Around(NamedTuple):
    """What a search works with, beside its study."""

    folder: RunFolder
    backend: RayBackend
    budget: Budget
    info: DataInfo
    console: Console


class _Search:
    """One driver's work on one study."""

    def __init__(self, study: Study, around: _Around, measured: _Costs | None, *, spent: float = 0.0) -> None:
        self._folder, self._backend, self._budget, self._info, self._console = around
        space = study.make_space()
        self._record = open_record(study, self._folder, space, writes=True)
        self._run = Run(self._folder, study, space, self._record)
        num_images = {str(split): number for split, number in self._info.num_images.items()}
        self._record.note("num_images", num_images)
        speed = self._speed(measured)
        self._session = Session(
            study,
            self._record,
            Ledger(self._budget.seconds, spent=spent + self._record.spent_seconds),
            space=space,
            speed=speed,
            num_images=num_images,
            num_workers=self._backend.num_workers,
            checkpoints=self._folder.checkpoints,
            on_drop=self._folder.drop_checkpoints,
            stopper=make_stopper(study, space),
            lease_seconds=LEASE_SECONDS * self._backend.devices.count,
        )

    def run(self, deadline_seconds: float | None) -> None:
        """Carry out leases until the session has no more, or the deadline has come."""
        session, console = self._session, self._console
        self.show_plan()
        progress = Progress(session, self._budget, console)
        with progress.live(), _deadline(session, deadline_seconds):
            self._backend.run(session, on_event=progress.on_event)
        for note in [*session.notes, *_left_out_note(session.left_out)]:
            console.print(note, style="yellow", markup=False)

    def show_plan(self, as_json: bool = False) -> None:
        """Say what is about to happen."""
        peak_bytes = self._record.noted(_PEAK_BYTES)
        plan = forecast(self._session, peak_bytes=peak_bytes if isinstance(peak_bytes, int) else 0)
        count = self._backend.devices.count
        print_plan(self._console, self._session, plan, budget=self._budget, info=self._info, devices_per_trial=count)
        if as_json:
            sys.stdout.write(json.dumps(asdict(plan), indent=2) + "\n")

    def give_up(self) -> None:
        """End soon: another driver took this one for dead and goes on with the study."""
        self._session.problem = "storage: another driver has taken the study over, since this one gave no sign of life"
        self._session.stop()

    def report(self, as_json: bool) -> None:
        """Write the report and say what came out."""
        with self._folder.report_lock():
            write_report(self._run)
        print_summary(self._console, self._session, self._folder, self._budget)
        if as_json:
            sys.stdout.write(json.dumps(summarise(self._run), indent=2) + "\n")
        if self._session.problem:
            raise StudyError(self._session.problem)

    def _speed(self, measured: _Costs | None) -> Speed:
        """Seconds per image on these devices, measured once a study, and what that took, charged."""
        noted, peak_bytes = self._record.noted(_SPEED), self._record.noted(_PEAK_BYTES)
        if noted is not None and isinstance(peak_bytes, int):
            self._backend.pack(peak_bytes)
            return Speed.model_validate(noted)
        costs = measured or _measure(self._run.study, self._backend, self._console)
        self._record.note(_SPEED, costs.speed.model_dump(mode="json"))
        self._record.note(_PEAK_BYTES, costs.peak_bytes)
        self._record.add_overhead(costs.spent)
        self._backend.pack(costs.peak_bytes)
        return costs.speed


def _left_out_note(images: Collection[str]) -> list[str]:
    """A line about images that could not be read, where there are any; the study's notes have all their names."""
    if not images:
        return []
    shown = ", ".join(sorted(images)[:_MOST_NAMES]) + (", …" if len(images) > _MOST_NAMES else "")
    number = "1 image" if len(images) == 1 else f"{len(images)} images"
    return [f"{number} could not be read and took no part: {shown}"]


def _shared(study: Study) -> AbstractContextManager[Hold | None]:
    """The study's row in a database that other drivers may reach; None where only its folder leads to it."""
    if study.storage is None or study.storage_name is None or is_journal(study.storage):
        return nullcontext()
    return hold_study(study.storage, study.storage_name)


def _measure(study: Study, backend: RayBackend, console: Console) -> _Costs:
    """What training takes of these devices."""
    console.print("measuring the speed of a few architectures …", style="dim")
    archs = representative(study.make_space())
    measured, spent = backend.measure(archs, study.recipe)
    speed = fit_speed(archs, [step.seconds_per_image for step in measured])
    return _Costs(speed, max(step.peak_bytes for step in measured), spent)


def _preview(study: Study, around: _Around, measured: _Costs | None) -> _Search:
    """The search as it would go on from where the run stands, on a record that ends with this process."""
    spent = 0.0
    references = study.references
    if around.folder.study_file.exists():
        earlier = open_run(around.folder.path)
        spent = earlier.record.spent_seconds
        tried = {trial.architecture.digest for trial in earlier.record}
        known = earlier.space.references()
        references = tuple(name for name in references if known[name].digest not in tried)
        noted, peak_bytes = earlier.record.noted(_SPEED), earlier.record.noted(_PEAK_BYTES)
        if noted is not None and isinstance(peak_bytes, int):
            measured = _Costs(Speed.model_validate(noted), peak_bytes, 0.0)
    copy = study.model_copy(update={"storage": IN_MEMORY, "references": references})
    return _Search(copy, around, measured, spent=spent)


@contextmanager
def _room_needed(path: Path) -> Iterator[None]:
    """Turn a disk that is full into one line; what was being written is as it was before."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise StudyError(
            f"runs: must have room, got {str(path)!r} ({error.strerror}); the same command goes on when it has"
        ) from None


@contextmanager
def _deadline(session: Session, seconds: float | None) -> Iterator[None]:
    """Stop the session when so many seconds have passed, unless the block ends before."""

    def come() -> None:
        session.notes.append("the deadline has come; the same command goes on")
        session.stop()

    timer = threading.Timer(seconds or 0.0, come)
    timer.daemon = True
    if seconds is not None:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _extended(request: Request, folder: RunFolder) -> Request:
    """What was asked for, on the study of a run and with a budget that is larger by what `--extend` says.

    Raises:
        StudyError: There is no such run, or a whole budget was given too.
    """
    if request.budget is not None:
        raise StudyError(f"extend: must not be given beside --budget, got {request.extend!r}")
    earlier = open_run(folder.path).study
    budget = Budget.parse(earlier.budget).extended(Budget.parse(str(request.extend)))
    return replace(request, study=request.study or folder.study_file, budget=budget)


def _named_in_storage(study: Study, folder: RunFolder) -> Study:
    """The study with the name that it has, or will have, in its storage.

    Raises:
        StudyError: The folder holds another study.
    """
    if folder.study_file.exists():
        earlier = Study.from_file(folder.study_file)
        study.check_continues(earlier, folder.path)
        return study.model_copy(update={"storage_name": earlier.storage_name})
    shared_name = f"{folder.path.name}-{uuid4().hex[:8]}" if study.storage else None
    return study.model_copy(update={"storage_name": shared_name})


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StudyError(
            f"runs: must be a folder that can be written to, got {str(path)!r} ({error.strerror})"
        ) from None


def _default_name(space: str | None, data: str | None) -> str:
    """The space and the data, so that the same command finds its run again."""
    kind, _, path = (data or "digits").partition(":")
    return f"{space or 'hybrid_stages'}-{Path(path).name or kind}"
