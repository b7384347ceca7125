"""How long a report takes: from the study on disk to the file, and from the file to a page in a browser.

Command:   python -m benchmarks.report
Hardware:  two CPU cores, 4 GiB of memory, Debian's chromium; nothing is trained
Time:      about 2 minutes, most of them to make the study
Expected:  at most 5 s from study to file, 2 s from file to the first chart, 15 MB

The study holds random architectures with the made-up learning curves of `benchmarks.scale`: nine of ten trials are
complete, so that they are marks in every chart; of the others most were stopped, and some failed. Reading is measured
beside Optuna's own. The first chart is that of accuracy over parameters. The page sketches it by itself, with all its
marks, before plotly, which takes longer than all else, has begun; that is the moment of the budget. Then plotly draws
it, so that marks say what they are when they are pointed at, and the chart in three dimensions when somebody scrolls to
it; both by WebGL in software.
"""

import json
import os
import random
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Any

import optuna
import typer
from optuna.storages._rdb import models
from rich.console import Console
from rich.table import Table
from sqlalchemy import create_engine, insert

from benchmarks.scale import GrowingWithCost
from metaformer.architecture import Architecture
from metaformer.cost import count_cost
from nas.record.record import STUDY_NAME, Record, distribution
from nas.record.run_folder import RunFolder, identify
from nas.record.storage import close_storage, open_storage, sqlite_url
from nas.record.trials import LeaseCharge, LeaseEnd, Progress
from nas.results.report_files import report_of
from nas.study.lease import Report
from nas.study.recipe import Recipe
from nas.study.study import Study
from search_spaces.space import SearchSpace, get

_EPOCHS = 8
_FIRST_CHART = "params-accuracy"
_MOST_SECONDS = 280  # that a page is waited for
_IMAGES = {"train": 45_000, "val": 5_000, "test": 10_000}
_State = optuna.trial.TrialState
_TABLES = (models.TrialModel, models.TrialParamModel, models.TrialUserAttributeModel, models.TrialValueModel)


def make_study(folder: RunFolder, num_trials: int) -> None:
    """Leave a run in a folder; the rows of all trials are written at once."""
    space = get("hybrid_stages")
    study = Study(
        space=space.name,
        settings=space.settings,
        data="folder:/data/photographs",
        data_fingerprint="0123456789abcdef",
        recipe=Recipe(epochs=_EPOCHS, warmup_epochs=1),
        references=tuple(space.references()),
        sampler="random",
        seed=0,
        budget="100gpu-days",
    )
    url = sqlite_url(folder.database)
    record = Record(url, space, study.goals, writes=True)
    folder.study_file.write_text(identify(study, record, folder).to_yaml(), encoding="utf-8")
    record.note(num_images=_IMAGES)
    record.close()
    trials = [_trial(space, *made, number) for number, made in enumerate(_architectures(space, num_trials))]
    rows: dict[Any, list[dict[str, object]]] = {model: [] for model in _TABLES}
    for number, trial in enumerate(trials):
        key = {"trial_id": number + 1}
        rows[models.TrialModel].append(key | {"study_id": 1, "number": number, "state": trial.state})
        for name, of_name in trial.distributions.items():
            rows[models.TrialParamModel].append(
                key
                | {
                    "param_name": name,
                    "param_value": of_name.to_internal_repr(trial.params[name]),
                    "distribution_json": optuna.distributions.distribution_to_json(of_name),
                }
            )
        for name, value in trial.user_attrs.items():
            rows[models.TrialUserAttributeModel].append(key | {"key": name, "value_json": json.dumps(value)})
        for place, value in enumerate(trial.values or ()):
            kind = models.TrialValueModel.TrialValueType.FINITE
            rows[models.TrialValueModel].append(key | {"objective": place, "value": value, "value_type": kind})
    engine = create_engine(url)
    with engine.begin() as connection:
        for model, of_model in rows.items():
            connection.execute(insert(model.__table__), of_model)
    engine.dispose()


def _architectures(space: SearchSpace, number: int) -> Iterator[tuple[tuple[str, ...], Architecture]]:
    """The hand-designed models with their names, and random architectures, each once."""
    seen = set()
    for names, arch in space.distinct_references(tuple(space.references())).items():
        seen.add(arch.digest)
        yield names, arch
    rng = random.Random(0)
    while len(seen) < number:
        arch = space.sample(rng)
        if arch.digest not in seen:
            seen.add(arch.digest)
            yield (), arch


def _trial(space: SearchSpace, names: tuple[str, ...], arch: Architecture, number: int) -> optuna.trial.FrozenTrial:
    """An ended trial: one of ten is stopped after two epochs, and one of five of these has failed."""
    curve, cost = GrowingWithCost(1.0, epochs=_EPOCHS).curve(arch), count_cost(arch)
    is_complete = bool(names) or number % 10 > 0
    state = _State.COMPLETE if is_complete else _State.FAIL if number % 50 == 0 else _State.PRUNED
    reports = [
        Report(epoch=epoch, val_accuracy=round(accuracy, 4), train_loss=1.0, checkpoint=f"epoch-{epoch:04d}.pt")
        for epoch, accuracy in enumerate(curve.val_accuracies, start=1)
    ]
    kept = tuple(reports if is_complete else reports[:2])
    end = {_State.COMPLETE: LeaseEnd.COMPLETE, _State.FAIL: LeaseEnd.FAILED}.get(state, LeaseEnd.STOPPED)
    lease = LeaseCharge(attempt=1, device_seconds=curve.epoch_seconds * len(kept), end=end)
    attrs: dict[str, Any] = {"progress": Progress(leases=(lease,), curve=kept).model_dump(mode="json")}
    if names:
        attrs["references"] = list(names)
    if state is _State.PRUNED:
        attrs |= {"stop_reason": "stopper", "reason": "could not add to the hypervolume"}
    if state is _State.FAIL:
        attrs["reason"] = "loss: must be finite, got nan"
    return optuna.trial.create_trial(
        state=state,
        params=space.encode(arch),
        distributions={choice.name: distribution(choice) for choice in space.choices},
        user_attrs=attrs,
        values=[kept[-1].val_accuracy, cost.params, cost.macs] if is_complete else None,
    )


def _read_by_optuna(url: str) -> None:
    storage = open_storage(url, once=True)
    optuna.load_study(study_name=STUDY_NAME, storage=storage).get_trials(deepcopy=False)
    close_storage(storage)


def _read_raw(database: Path) -> None:
    """All rows of the tables, as SQLite gives them."""
    with closing(sqlite3.connect(database)) as connection:
        for model in _TABLES:
            connection.execute(f"select * from {model.__tablename__}").fetchall()  # noqa: S608  a name of Optuna's


def _open_page(path: Path) -> dict[str, tuple[float, float]]:
    """Seconds from the file to each thing that a page shows, and processor time of its main thread until then.

    The browser runs already.
    """
    from playwright.sync_api import sync_playwright

    found: dict[str, tuple[float, float]] = {}
    with sync_playwright() as playwright:
        software = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader"]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=software)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(_MOST_SECONDS * 1000)
        devtools = page.context.new_cdp_session(page)
        devtools.send("Performance.enable", {"timeDomain": "threadTicks"})

        def wait(name: str, condition: str, since_ms: float = 0.0) -> None:
            page.wait_for_function(condition)
            metrics = {each["name"]: each["value"] for each in devtools.send("Performance.getMetrics")["metrics"]}
            found[name] = page.evaluate(f"({condition} - {since_ms}) / 1000"), metrics["TaskDuration"]

        def mark(name: str) -> str:
            return f"performance.getEntriesByName('{name}')[0]?.startTime"

        page.goto(path.resolve().as_uri(), wait_until="commit")
        wait("file to page, first chart sketched", mark(f"sketched {_FIRST_CHART}"))
        wait("file to page, loaded", "performance.getEntriesByType('navigation')[0].loadEventEnd")
        wait("file to page, first chart drawn by plotly", mark(f"drawn {_FIRST_CHART}"))
        scrolled_ms = page.evaluate("performance.now()")
        page.locator("#space").scroll_into_view_if_needed()
        wait("three dimensions drawn, from scrolling there", mark("drawn space"), scrolled_ms)
        browser.close()
    return found


class _Watch:
    """Wall time and processor time of steps, for a table."""

    def __init__(self) -> None:
        self.seconds: dict[str, tuple[float, float | None]] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a block."""
        begin = time.perf_counter(), time.process_time()
        yield
        self.seconds[name] = time.perf_counter() - begin[0], time.process_time() - begin[1]


def report(
    trials: Annotated[int, typer.Option(help="Trials of the study.")] = 10_000,
    folder: Annotated[Path | None, typer.Option(help="Keep the run there; one that is there is used again.")] = None,
) -> None:
    """Measure a report of a large study, and say whether it keeps to its budget."""
    with tempfile.TemporaryDirectory() as made:
        place = RunFolder(folder or Path(made))
        place.path.mkdir(parents=True, exist_ok=True)
        if not place.study_file.exists():
            make_study(place, trials)
        watch = _Watch()
        with watch.step("rows read by SQLite alone"):
            _read_raw(place.database)
        with watch.step("trials read by Optuna (peer)"):
            _read_by_optuna(sqlite_url(place.database))
        begin = time.time()
        with watch.step("study to file, tables and architectures"):
            run, path = report_of(place.path)
        watch.seconds["study to file"] = path.stat().st_mtime - begin, None
        page = _open_page(path)
        load = ", ".join(f"{load:.1f}" for load in os.getloadavg())
        table = Table(title=f"report of {len(run.record.trials):,} trials; load {load}", title_justify="left")
        for column in ("what", "measured", "of a core", "budget", ""):
            table.add_column(column, justify="left" if column == "what" else "right")
        budgets = {"study to file": 5.0, "file to page, first chart sketched": 2.0}
        for name, (wall, core) in (*watch.seconds.items(), *page.items()):
            most = budgets.get(name)
            limit = "" if most is None else f"{most:g} s"
            table.add_row(
                name,
                f"{wall:.1f} s",
                "" if core is None else f"{core:.1f} s",
                limit,
                "over the budget" if most and wall > most else "",
            )
        size = path.stat().st_size / 1e6
        table.add_row("size of the file", f"{size:.1f} MB", "", "15 MB", "over the budget" if size > 15 else "")
        Console(width=100).print(table)


if __name__ == "__main__":
    typer.run(report)
