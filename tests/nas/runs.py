"""Runs made in seconds: the real session and record, with learning curves that are made up."""

import math
import random
from pathlib import Path

from metaformer.architecture import Architecture
from metaformer.cost import count_cost
from metaformer.specs import Stem
from nas.record.run_folder import Run, RunFolder, open_record
from nas.session.leases import Place
from nas.session.session import Decision, Session, open_session
from nas.study.lease import Lease, Measurement, Report, Speed
from nas.study.recipe import Recipe
from nas.study.study import Study
from search_spaces.space import Limits, SpaceSettings

NUM_IMAGES = {"train": 1077, "val": 360, "test": 360}
BOUNDS = (0.01, 100.0)  # of every measured objective
FAILURE = "loss: must be finite, got <nan>"  # as text of a web page it has to be escaped
_BONUS = {"pool": 0.0, "attention": 0.03, "spatial_mlp": 0.01, "dwconv": 0.02, "identity": -0.05}


def make_study(**changes: object) -> Study:
    """A study of small images in which a trial takes part of a second of pretended device time."""
    study = Study(
        space="hybrid_stages",
        settings=SpaceSettings(
            resolution=32,
            num_classes=10,
            width_scale=0.125,
            stem=Stem(kernel=3, stride=2, padding=1),
            limits=Limits(max_macs=5_000_000),
        ),
        data="digits",
        data_fingerprint="0123456789abcdef",
        recipe=Recipe(epochs=3, warmup_epochs=1, batch_size=64),
        references=("poolformer_s12", "metaformer_ppaa_s12_224", "metaformer_id_s12", "poolformer_m48"),
        sampler="random",
        seed=0,
        stopper="none",
        budget="6cpu-minutes",
        max_trials=20,
    )
    return study.model_validate(study.model_dump() | changes)


def made_up_accuracy(arch: Architecture, rng: random.Random) -> float:
    """Grows with cost, differs by mixer, is noisy, and moves in steps of one validation image."""
    cost = count_cost(arch)
    size = math.log10(cost.params) / 8 + math.log10(cost.macs) / 20
    mixers = sum(_BONUS.get(stage.mixer.kind, 0.0) for stage in arch.stages)
    accuracy = size - 0.1 + mixers + rng.gauss(0, 0.01)
    return round(min(max(accuracy, 0.0), 1.0) * NUM_IMAGES["val"]) / NUM_IMAGES["val"]


def open_folder(path: Path, study: Study, *, num_workers: int = 1, start_seconds: float = 0.0) -> tuple[Run, Session]:
    """The run in a folder, with its study file, and a session that goes on with it."""
    path.mkdir(parents=True, exist_ok=True)
    folder = RunFolder(path)
    folder.study_file.write_text(study.to_yaml(), encoding="utf-8")
    space = study.make_space()
    record = open_record(study, folder, space, writes=True)
    if study.goals.measured and not record.notes.bounds:
        record.note(bounds={objective.name: BOUNDS for objective in study.goals.measured})
    place = Place(
        speed=Speed(base=1e-4, per_gmac=0.05),
        num_images=NUM_IMAGES,
        num_workers=num_workers,
        checkpoints=folder.checkpoints,
        start_seconds=start_seconds,
    )
    session = open_session(study, record, place, on_drop=folder.drop_checkpoints)
    return Run(folder, study, space, record), session


def made_up_measurement(lease: Lease) -> Measurement:
    """Grows with MACs, in the unit of each objective that the lease asks for."""
    macs = count_cost(lease.architecture).macs
    return Measurement(values=dict.fromkeys(lease.measure, 0.1 + macs / 1000000.0), device="a made-up device")


def fill(session: Session, *, fail_every: int = 7, seed: int = 0) -> None:
    """Carry out every lease until the session has no more; each `fail_every`-th training breaks."""
    rng = random.Random(seed)
    made_up: dict[int, float] = {}
    num_leases = 0
    while lease := session.next():
        if lease.task == "test":
            accuracy = max(0.0, made_up[lease.trial] - rng.choice([0, 1, 2]) / NUM_IMAGES["test"])
            session.tested(lease.name, accuracy, device_seconds=0.01)
            continue
        num_leases += 1
        final = made_up[lease.trial] = made_up_accuracy(lease.architecture, rng)
        if lease.measure:
            measured = made_up_measurement(lease)
            if session.measured(lease.name, measured, device_seconds=0.0) is Decision.STOP:
                session.finish(lease.name, device_seconds=0.0)
                continue
        seconds = session.expected_seconds(lease.architecture, epochs=lease.epochs)
        if num_leases % fail_every == 0:
            session.fail(lease.name, FAILURE, device_seconds=seconds / 10)
            continue
        share = 0.0
        for epoch in range(1, lease.epochs + 1):
            share = epoch / lease.epochs
            report = Report(epoch=epoch, val_accuracy=final * share, train_loss=1.0, checkpoint=f"{epoch}.pt")
            if session.report(lease.name, report, device_seconds=seconds * share) is Decision.STOP:
                break
        session.finish(lease.name, device_seconds=seconds * share)


def make_run(path: Path, *, fail_every: int = 7, **changes: object) -> Run:
    """A run that came to its end; `changes` are of the study."""
    run, session = open_folder(path, make_study(**changes))
    fill(session, fail_every=fail_every)
    run.record.note(num_images=NUM_IMAGES)
    return run
