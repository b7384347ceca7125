"""What a trial takes of the driver does not grow with the number of trials; counted, not timed."""

import sqlite3
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType

import pytest
from sqlalchemy import Engine, event

from nas.session.session import Session
from nas.study.lease import Lease, Report
from tests.nas.runs import make_study, open_folder

EARLY, LATE = range(40, 90), range(350, 400)  # trials


@pytest.fixture(scope="module")
def statements() -> Iterator[list[str]]:
    """The SQL statements that are executed from here on."""
    found: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        found.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    yield found
    event.remove(Engine, "before_cursor_execute", note)


@contextmanager
def counted(calls: Counter[int], trial: int) -> Iterator[None]:
    """Add the calls of Python functions to those of a trial; of each round of a generator, too."""

    def note(_frame: FrameType, kind: str, _argument: object) -> None:
        calls[trial] += kind == "call"

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(before)


def train(session: Session, lease: Lease) -> None:
    """All epochs of a lease; accuracy is a made-up number that differs from trial to trial."""
    accuracy = 0.1 + (lease.trial * 7919 % 997) / 2000
    for epoch in range(1, lease.epochs + 1):
        session.report(
            lease.name,
            Report(epoch=epoch, val_accuracy=accuracy, train_loss=1.0, checkpoint="x"),
            device_seconds=0.01 * epoch,
        )
    session.finish(lease.name, device_seconds=0.01 * lease.epochs)


def test_late_trials_take_no_more_calls_and_statements_than_early_ones(tmp_path: Path, statements: list[str]) -> None:
    study = make_study(max_trials=LATE.stop, references=(), budget="9cpu-hours")
    run, session = open_folder(tmp_path / "run", study)
    calls: Counter[int] = Counter()
    queries: dict[int, list[str]] = {}
    for trial in range(LATE.stop):
        statements.clear()
        with counted(calls, trial):
            lease = session.next()
            assert lease
            train(session, lease)
        queries[trial] = [*statements]
    early, late = (sum(calls[trial] for trial in trials) for trials in (EARLY, LATE))
    assert late < 1.2 * early  # the front grows a little
    early, late = (sum(len(queries[trial]) for trial in trials) for trials in (EARLY, LATE))
    assert late <= early
    with closing(sqlite3.connect(run.folder.database)) as connection:
        for query in {query for trial in LATE for query in queries[trial]}:
            plan = connection.execute(f"EXPLAIN QUERY PLAN {query}", [None] * query.count("?")).fetchall()
            assert not [step for *_, step in plan if step.startswith("SCAN ") and "CONSTANT" not in step], query
