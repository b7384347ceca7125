"""Carries a search through: check, measure, plan, run, evaluate, report."""

import errno
import json
import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

from rich.console import Console

from metaformer.cli.console import progress_bar
from metaformer.documents import check_path, exists, is_folder
from metaformer.errors import shown
from nas.data import DataInfo, open_dataset, short_name
from nas.execution.backend import Backend
from nas.execution.devices import Wanted, check_here, gpus_may_be_visible, no_gpus
from nas.execution.ray_backend import RayBackend
from nas.execution.signals import interruptible
from nas.execution.slots import check_address
from nas.make_study import Images, check_extension, describe_recipe, extended, find_images, make_study
from nas.measured import Costs, Shortened, fit_to_budget, known_costs, measure, note_costs
from nas.record.atomic import replace_text
from nas.record.lock import StudyLock, lock_study
from nas.record.notes import EventKind
from nas.record.record import Record
from nas.record.run_folder import MOST_BYTES, Run, RunFolder, check_name, identify, open_record, open_run
from nas.record.run_log import log_to
from nas.record.storage import IN_MEMORY, check_storage, is_journal
from nas.results.baselines import is_small, simple_classifiers
from nas.results.console import ProgressView, make_console, print_plan, print_summary
from nas.results.finish.view import print_finals
from nas.results.report_files import summarise, write_report
from nas.results.results import Results
from nas.results.trackers import check_tracker, tracked
from nas.session.forecast import forecast
from nas.session.leases import Place
from nas.session.session import Session, open_session
from nas.study.budget import Budget, parse_duration
from nas.study.objectives.units import parse_quantity
from nas.study.recipe import BadImages
from nas.study.request import Request, Team, says_how_long
from nas.study.study import MAY_CHANGE, Study, StudyError, read_mapping
from nas.training.checkpoints import NO_ROOM, check_place

_LOG = logging.getLogger(__name__)
_NOT_WRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST)
_MOST_NAMES = 10  # of images, in a line
_MOST_OF_NAME = 200  # characters of a run's name in the name of its study in a shared database
_KEPT = {"budget", "confirm"}  # fields of a run that may change, but stay where nothing is said of them
_CACHE_LIMIT = "100GiB"
_BYTES = {"MiB": 2.0**20, "GiB": 2.0**30, "TiB": 2.0**40}


@dataclass(frozen=True)
class Means:
    """By what a study is carried out, whatever it is; nothing of it is written into the study."""

    loaders: int | None = None
    ray_address: str | None = None
    tracker: str | None = None
    deadline: str | None = None
    plan_only: bool = False
    as_json: bool = False

    def check(self) -> None:
        """Check what can be checked at once.

        Raises:
            UserError: The deadline has another form, or there is no such tracker.
        """
        check_tracker(self.tracker)
        _ = self.deadline_seconds

    @property
    def deadline_seconds(self) -> float | None:
        """Wall time after which running trials end; None: there is no such time."""
        return parse_duration("deadline", self.deadline) if self.deadline else None


class Order(NamedTuple):
    """A study that has been checked, and what people are told of it."""

    study: Study
    folder: RunFolder
    info: DataInfo
    images: Images
    recipe_source: str  # a clause
    said: list[str]  # lines about defaults that were taken
    fits_references: bool = False  # whether the budget decides which hand-designed models take part
    fits_training: bool = False  # whether it decides how long a training is


def launch(
    request: Request,
    *,
    name: str | None,
    runs: Path,
    loaders: int | None,
    ray_address: str | None,
    tracker: str | None,
    cache: Path | None,
    cache_limit: str | None,
    deadline: str | None,
    plan_only: bool,
    as_json: bool,
    team: Team,
) -> Path:
    """The run's folder, after the search that was asked for was begun, or gone on with, until its budget is spent or
    somebody stops it.

    Nothing is written before everything that can be checked has been, nor where only the plan is asked for.

    Raises:
        UserError: Something asked for cannot be done.
    """
    check_path(runs, "runs", error=StudyError)
    means = Means(loaders, ray_address, tracker, deadline, plan_only, as_json)
    means.check()
    console = make_console(as_json=as_json)
    request, fields = _with_defaults(request, name, runs, team)
    named_data = request.data
    if cache is not None:
        request = _decoded(request, fields, _Cached(cache, cache_limit), console, plan_only=plan_only)
    images = find_images(request, fields)
    info = open_dataset(images.data, resolution=images.resolution, splitting=images.splitting).info
    study = make_study(request, fields, info)
    folder = RunFolder(runs / (name or _default_name(study.space, named_data or study.data)), study.checkpoints)
    said, source = _defaults_lines(team, request, fields), describe_recipe(request, fields)
    order = Order(
        study,
        folder,
        info,
        images,
        source,
        said,
        fits_references=request.references is None and "references" not in fields,
        fits_training=not fields and not says_how_long(request),
    )
    return carry_out(order, means)


def carry_out(order: Order, means: Means) -> Path:
    """The run's folder, after its study was begun, or gone on with, until its budget is spent or somebody stops it.

    Raises:
        UserError: Something asked for cannot be done; nothing has been written.
    """
    study, folder, info, images, recipe_source, said, *_ = order
    console = make_console(as_json=means.as_json)
    study = _named_in_storage(study, folder)
    if study.storage is not None:
        check_storage(study.storage)
    if study.checkpoints is not None:
        check_place(study.checkpoints, is_new=not folder.study_file.exists())
    if study.identity is not None:
        open_record(study, folder, study.make_space())  # before anything is started
    if not means.plan_only:
        _check_writable(folder.path)
    check_address(means.ray_address)
    budget = Budget.parse(study.budget)
    if budget.device == "gpu" and means.ray_address is None and not gpus_may_be_visible():
        raise no_gpus()  # at once; a cluster takes a minute to start
    wanted = Wanted(
        kind=budget.device,
        cpus=study.cpus_per_trial,
        gpus=study.gpus_per_trial,
        processes=study.processes,
        workers=study.workers,
        loaders=means.loaders,
        bad_images=study.bad_images,
    )
    if means.ray_address is None:
        check_here(wanted)
    backend = RayBackend(info, wanted=wanted, address=means.ray_address, scratch=_scratch(folder))
    console.print("starting workers …", style="dim")
    with interruptible(), _room_needed(folder.path), backend:
        around = _Around(folder, backend, budget, info, images, recipe_source, console, means.tracker)
        for line in said:
            console.print(line)
        measured = None if folder.study_file.exists() else measure(study, backend, console)
        if measured is not None:
            fitted = fit_to_budget(
                study,
                measured,
                backend,
                info=info,
                budget=budget,
                console=console,
                references=order.fits_references,
                training=order.fits_training,
            )
            study, around = fitted.study, around._replace(info=fitted.info, shortened=fitted.shortened)
        if means.plan_only:
            _preview(study, around, measured).show_plan(means.as_json)
            return folder.path
        _make_folder(folder.path)
        with folder.lock(), log_to(folder.log):
            study = _named_in_storage(study, folder)  # again: before the lock another driver may have begun a study
            search = _run(study, around, measured, means.deadline_seconds)
    with interruptible(), _room_needed(folder.path):
        search.report(means.as_json)
    return folder.path


def _run(study: Study, around: "_Around", measured: Costs | None, deadline_seconds: float | None) -> "_Search":
    """The search after its end; called under the lock of the run's folder."""
    scratch = _scratch(around.folder)
    with _shared(study) as lock:
        shutil.rmtree(scratch, ignore_errors=True)  # of a driver that was killed; under the lock, so of no live one
        record = open_record(study, around.folder, study.make_space(), writes=True)
        study = identify(study, record, around.folder)
        if around.shortened is not None:
            record.note(whole_recipe=around.shortened.whole_recipe.model_dump())
            record.add_event(EventKind.SHORTENED, around.shortened.text)
            _LOG.info("%s", around.shortened.text)
        replace_text(around.folder.study_file, study.to_yaml())
        search = _open_search(study, record, around, measured)
        if lock is not None:
            lock.on_lost = search.give_up
        try:
            search.run(deadline_seconds)
        finally:
            search.close()
            shutil.rmtree(scratch, ignore_errors=True)
    return search


def _scratch(folder: RunFolder) -> Path:
    """Where Ray keeps files of its own while a search runs."""
    return folder.path.resolve() / ".ray"


def _with_defaults(request: Request, name: str | None, runs: Path, team: Team) -> tuple[Request, dict[str, object]]:
    """The request with the team's defaults, and the fields of the study file or run that it goes on from."""
    if name is None and request.study is None:
        request = team.fill(request, ("space", "data"))  # which name the run
    known = RunFolder(runs / (_default_name(request.space, request.data) if name is None else check_name(name)))
    if request.extend:
        request = _extended(request, known)
    fields = _known_fields(request, known)
    if not fields:  # a run keeps what it began with, and a study file says all
        request = team.fill(request)
    return request, fields


class _Cached(NamedTuple):
    """Where decoded copies of datasets are kept, as asked for."""

    folder: Path
    limit: str | None  # on the bytes of all of them, such as 100GiB


def _decoded(
    request: Request, fields: dict[str, object], cached: _Cached, console: Console, *, plan_only: bool
) -> Request:
    """The request with a decoded copy of its dataset in its place.

    It is made in the cache if it is not there, once everything else that was asked for has been checked, since it may
    take hours; for a plan it is not made.
    """
    from nas.data.sources import open_source  # with timm, which takes seconds
    from nas.data.sources.cached import Cache, is_decoded

    most_bytes = parse_quantity("cache_limit", cached.limit or _CACHE_LIMIT, _BYTES, example=_CACHE_LIMIT)
    check_path(cached.folder, "cache", error=StudyError)
    if request.data is None or is_decoded(request.data):
        return request
    images = find_images(request, fields)
    bad_images: BadImages = "stop"
    if not fields:
        info = open_dataset(images.data, resolution=images.resolution, splitting=images.splitting).info
        bad_images = make_study(request, fields, info).bad_images
    elif (request.bad_images or fields.get("bad_images")) == "skip":
        bad_images = "skip"
    cache, source = Cache(cached.folder, most_bytes=int(most_bytes)), open_source(request.data)
    place = cache.place(source, resolution=images.resolution, bad_images=bad_images)
    if plan_only and not place.exists():
        console.print(f"cache    {request.data} will be decoded into {place}", markup=False)
        return request
    with progress_bar() as bar:
        task = bar.add_task("decoding", total=None)
        copy = cache.keep(
            source,
            resolution=images.resolution,
            bad_images=bad_images,
            progress=lambda done, total: bar.update(task, advance=done, total=total),
        )
    console.print(f"cache    {request.data}, decoded once: {copy}", markup=False)
    return replace(request, data=copy)


def _defaults_lines(team: Team, request: Request, fields: dict[str, object]) -> list[str]:
    """What was taken because nothing else was said."""
    lines = [f"team     nas.yaml: {team}"] if str(team) and not fields else []
    if request.data is None and not fields:
        where = "--data, or data in nas.yaml"
        lines.append(f"data     none were named ({where}): the embedded digits, which say nothing of photographs")
    return lines


def _known_fields(request: Request, folder: RunFolder) -> dict[str, object]:
    """The fields of the study file that was asked for, else of the run, which keeps the defaults it began with."""
    if request.study:
        return read_mapping(request.study)
    if not folder.study_file.exists():
        return {}
    fields = Study.from_file(folder.study_file).model_dump(mode="json")
    return {name: value for name, value in fields.items() if name not in MAY_CHANGE or name in _KEPT}


class _Around(NamedTuple):
    """What a search works with, beside its study."""

    folder: RunFolder
    backend: Backend
    budget: Budget
    info: DataInfo
    images: Images
    asked_recipe: str  # where the recipe comes from: a clause for people
    console: Console
    tracker: str | None  # that is told of each epoch, by name
    shortened: Shortened | None = None

    @property
    def recipe_source(self) -> str:
        """Where the recipe comes from: a clause for people."""
        short = self.shortened and self.shortened.recipe
        return f"{short}, for short trainings" if short else self.asked_recipe


class _Search:
    """One driver's work on one study."""

    def __init__(self, run: Run, session: Session, around: _Around) -> None:
        self._run, self._session, self._around = run, session, around
        self._console = around.console

    def run(self, deadline_seconds: float | None) -> None:
        """Carry out leases until the session has no more, or the deadline has come."""
        session = self._session
        self.show_plan()
        _LOG.info("the search begins: %s on %s, %s", self._run.study.space, self._run.study.data, self._around.budget)
        view = ProgressView(session, self._around.budget, self._console)
        folder = self._run.folder.path
        with (
            view.live(),
            tracked(session, self._around.tracker, folder=folder, group=self._run.name) as tell_tracker,
            _deadline(session, deadline_seconds) as deadline_came,
        ):

            def on_event() -> None:
                view.on_event()
                tell_tracker()

            self._around.backend.run(session, on_event=on_event)
        if deadline_came.is_set():
            text = "the deadline has come; the same command goes on"
            session.events.append(self._run.record.add_event(EventKind.DEADLINE, text))
        _LOG.info("the search ends: %d trials, %.0f device-seconds", len(self._run.record.trials), session.ledger.spent)
        for event in session.events:
            if event.kind is not EventKind.IMAGES_LEFT_OUT:
                self._console.print(str(event), style="yellow", markup=False)
        for line in _left_out_line(self._run.record.notes.images_left_out):
            self._console.print(line, style="yellow", markup=False)

    def show_plan(self, as_json: bool = False) -> None:
        """Say what is about to happen."""
        around, session = self._around, self._session
        plan = forecast(session, peak_bytes=self._run.record.notes.peak_bytes or 0)
        print_plan(
            self._console,
            session,
            plan,
            budget=around.budget,
            info=around.info,
            why_resolution=around.images.reason,
            recipe_source=around.recipe_source,
            devices_per_trial=around.backend.devices_per_trial,
        )
        if as_json:
            sys.stdout.write(json.dumps(asdict(plan), indent=2) + "\n")

    def leave_out(self, tried: Collection[tuple[str, int | None]]) -> None:
        """Plan no training that an earlier driver has begun, by digest and seed."""
        self._session.queue.leave_out(tried)

    def give_up(self) -> None:
        """End soon: another driver took this one for dead and goes on with the study."""
        self._session.problem = "storage: another driver has taken the study over, since this one gave no sign of life"
        self._session.stop()

    def close(self) -> None:
        """Leave the database; what is known of the study stays in memory."""
        self._run.record.close()

    def report(self, as_json: bool) -> None:
        """Write the report and say what came out."""
        with self._run.folder.report_lock():
            write_report(self._run)
        if self._run.study.finals is None:
            print_summary(self._console, self._session, self._run.folder, self._around.budget)
        else:
            print_finals(self._console, Results(self._run))
        if as_json:
            sys.stdout.write(json.dumps(summarise(self._run), indent=2) + "\n")
        if self._session.problem:
            raise StudyError(self._session.problem)
        open_record(self._run.study, self._run.folder, self._run.space)  # else what was found is in the report alone


def _open_search(
    study: Study, record: Record, around: _Around, measured: Costs | None, *, spent: float = 0.0
) -> _Search:
    """A search that goes on where its record stands; what has not been measured yet is measured.

    Args:
        spent: Device-seconds that the record does not hold.
    """
    folder, backend = around.folder, around.backend
    num_images = {str(split): number for split, number in around.info.num_images.items()}
    record.note(num_images=num_images)
    costs = known_costs(record.notes)
    if costs is None:
        costs = measured or measure(study, backend, around.console)
        note_costs(record, costs)
    if not record.notes.baselines and is_small(around.info):
        _note_baselines(study, record, around)
    backend.pack(costs.peak_bytes)
    place = Place(
        speed=costs.speed,
        num_images=num_images,
        num_workers=backend.num_workers,
        checkpoints=folder.checkpoints,
        lease_seconds=backend.lease_seconds * backend.devices_per_trial,
        start_seconds=costs.start_seconds,
    )
    session = open_session(study, record, place, on_drop=folder.drop_checkpoints, spent=spent)
    return _Search(Run(folder, study, record.space, record), session, around)


def _note_baselines(study: Study, record: Record, around: _Around) -> None:
    """Note what simple classifiers reach on the same pixels, and charge what that took of a CPU budget."""
    start = time.monotonic()
    dataset = open_dataset(
        study.data,
        resolution=study.settings.resolution,
        bad_images=study.bad_images,
        splitting=study.splitting,
    )
    record.note(baselines=simple_classifiers(dataset, study.recipe))
    if around.budget.device == "cpu":
        record.add_overhead(time.monotonic() - start)


def _preview(study: Study, around: _Around, measured: Costs | None) -> _Search:
    """The search as it would go on from where the run stands, on a record that ends with this process."""
    spent = 0.0
    tried: set[tuple[str, int | None]] = set()
    if around.folder.study_file.exists():
        earlier = open_run(around.folder.path)
        spent = earlier.record.spent_seconds
        tried = {(trial.architecture.digest, trial.seed) for trial in earlier.record}
        measured = known_costs(earlier.record.notes) or measured
    copy = study.model_copy(update={"storage": IN_MEMORY, "identity": None})
    record = open_record(copy, around.folder, copy.make_space(), writes=True)
    search = _open_search(copy, record, around, measured, spent=spent)
    search.leave_out(tried)
    return search


def _left_out_line(images: tuple[str, ...]) -> list[str]:
    """A line about images that could not be read, where there are any; the study's notes have all their names."""
    if not images:
        return []
    shown = ", ".join(images[:_MOST_NAMES]) + (", …" if len(images) > _MOST_NAMES else "")
    number = "1 image" if len(images) == 1 else f"{len(images)} images"
    return [f"{number} could not be read and took no part: {shown}"]


def _shared(study: Study) -> AbstractContextManager[StudyLock | None]:
    """The study's row in a database that other drivers may reach; None where only its folder leads to it."""
    if study.storage is None or study.storage_name is None or is_journal(study.storage):
        return nullcontext()
    return lock_study(study.storage, study.storage_name)


@contextmanager
def _room_needed(path: Path) -> Iterator[None]:
    """Turn a disk that is full, or a folder that cannot be written any more, into one line.

    What was being written is as it was before.
    """
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM:
            rule, later = "have room", "has"
        elif error.errno in _NOT_WRITABLE:
            rule, later = "be a folder that can be written to", "can"
        else:
            raise
        raise StudyError(
            f"runs: must {rule}, got {shown(str(path))} ({error.strerror}); the same command goes on when it {later}"
        ) from None


@contextmanager
def _deadline(session: Session, seconds: float | None) -> Iterator[threading.Event]:
    """Stop the session when so many seconds have passed, unless the block ends before; the event says that it did."""
    came = threading.Event()

    def come() -> None:
        came.set()
        session.stop()

    timer = threading.Timer(seconds or 0.0, come)
    timer.daemon = True
    if seconds is not None:
        timer.start()
    try:
        yield came
    finally:
        timer.cancel()


def _extended(request: Request, folder: RunFolder) -> Request:
    """What was asked for, on the study of a run and with a budget that is larger by what `--extend` says.

    Raises:
        StudyError: There is no such run, or a whole budget was given too.
    """
    check_extension(request)
    return replace(extended(request, open_run(folder.path).study), study=request.study or folder.study_file)


def _named_in_storage(study: Study, folder: RunFolder) -> Study:
    """The study with the name that it has, or will have, in its storage, and with the run's identity.

    Raises:
        StudyError: The folder holds another study.
    """
    if folder.study_file.exists():
        earlier = Study.from_file(folder.study_file)
        if study.recipe.precision == "auto":
            study = study.with_precision(earlier.recipe.precision)
        study.check_continues(earlier, folder.path)
        return study.model_copy(update={"storage_name": earlier.storage_name, "identity": earlier.identity})
    shared_name = f"{folder.path.name[:_MOST_OF_NAME]}-{uuid4().hex[:8]}" if study.storage else None
    return study.model_copy(update={"storage_name": shared_name, "identity": None})


def _check_writable(path: Path) -> None:
    """Check that a run can be kept in a folder, which need not be there yet, before anything is started.

    Raises:
        StudyError: It cannot.
    """
    there = next(above for above in (path.absolute(), *path.absolute().parents) if exists(above))
    if not (is_folder(there) and os.access(there, os.W_OK | os.X_OK)):
        raise StudyError(f"runs: must be a folder that can be written to, got {shown(str(path))}")


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StudyError(
            f"runs: must be a folder that can be written to, got {shown(str(path))} ({error.strerror})"
        ) from None


def _default_name(space: str | None, data: str | None) -> str:
    """The space and the data, so that the same command finds its run again; `check_name` holds whatever they are."""
    name = f"{space or 'hybrid_stages'}-{short_name(data or 'digits')}"
    plain = "".join(letter if letter.isprintable() and letter != "/" else "_" for letter in name)
    return plain.encode()[:MOST_BYTES].decode(errors="ignore")
