"""A status on a console: refreshed in place on a terminal, block after block elsewhere."""

from collections.abc import Callable
from dataclasses import replace
from io import StringIO

import pytest

from metaformer.cli.console import PlainConsole
from nas.results.status.status import RunState, Status, read_status
from nas.results.status.view import watch
from nas.study.study import StudyError
from tests.nas.runs import make_run


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Status:
    run = make_run(tmp_path_factory.mktemp("runs") / "run", max_trials=2)
    (run.folder.path / "run.log").write_text(f"{'a long line of the log, ' * 5}to its end\n", encoding="utf-8")
    return read_status(run)


def looks(*seen: Status | StudyError) -> Callable[[], Status]:
    """What is read, look by look."""
    following = iter(seen)

    def read() -> Status:
        found = next(following)
        if isinstance(found, StudyError):
            raise found
        return found

    return read


def test_a_terminal_shows_it_in_one_place_and_cuts_nothing_off(ended: Status) -> None:
    out = StringIO()
    console = PlainConsole(file=out, force_terminal=True, width=60, height=80, soft_wrap=True)
    running = replace(ended, state=RunState.RUNNING)
    assert watch(looks(running, ended), console, seconds=0.001) is ended
    text = out.getvalue()
    assert text.count("Pareto front") >= 2
    assert "\x1b[1A" in text  # up again
    assert "to its end" in " ".join(text.split())


def test_elsewhere_it_is_one_block_after_another(ended: Status) -> None:
    out = StringIO()
    running = replace(ended, state=RunState.RUNNING)
    watch(looks(running, running, ended), PlainConsole(file=out, width=132, soft_wrap=True), seconds=0.001)
    blocks = out.getvalue().strip().split("\n\n")
    assert [block.split()[0] for block in blocks] == ["running", "running", "ended"]
    assert "\x1b" not in out.getvalue()


def test_a_study_that_cannot_be_read_for_a_moment_is_read_again(ended: Status) -> None:
    running, broken = replace(ended, state=RunState.RUNNING), StudyError("storage: must be a database")
    console = PlainConsole(file=StringIO())
    assert watch(looks(running, broken, running, broken, ended), console, seconds=0.001) is ended
    with pytest.raises(StudyError, match="must be a database"):
        watch(looks(running, broken, broken, ended), console, seconds=0.001)
    with pytest.raises(StudyError, match="must be a database"):
        watch(looks(broken, ended), console, seconds=0.001)


def test_a_search_that_has_ended_says_so_and_why(ended: Status) -> None:
    out = StringIO()
    watch(looks(ended), PlainConsole(file=out, width=132, soft_wrap=True), seconds=0.001)
    assert out.getvalue().startswith("ended    its driver has ended; nothing more can be begun\n")
    ended.run.record.notes = ended.run.record.notes.model_copy(update={"overhead_device_seconds": 400.0})
    watch(looks(ended), PlainConsole(file=out, width=132, soft_wrap=True), seconds=0.001)
    assert "ended    its driver has ended; the budget is spent, --extend adds to it\n" in out.getvalue()
