"""Device time between the last report of a lease and the end of its driver, which was killed."""

import html
from pathlib import Path

import pytest

from nas.execution import ray_adapter
from nas.execution.ray_adapter import Adapter
from nas.execution.slots import Slots
from nas.results.console import make_console, print_summary
from nas.results.report_files import summarise, write_report
from nas.session.session import Session
from nas.study.budget import Budget
from nas.study.lease import Lease, Report
from tests.nas.programs import QUICK, read_study, run_here
from tests.nas.runs import fill, make_study, open_folder

REPORT = Report(epoch=1, val_accuracy=0.5, train_loss=1.0, checkpoint="1.pt")


def begin(path: Path) -> tuple[Session, Lease]:
    """A lease that has reported an epoch at 10 device-seconds."""
    session = open_folder(path, make_study())[1]
    lease = session.next()
    assert lease is not None
    session.report(lease.name, REPORT, device_seconds=10.0)
    return session, lease


def test_it_counts_against_the_budget_from_the_drivers_last_sign_of_life_and_once(tmp_path: Path) -> None:
    killed, lease = begin(tmp_path)
    before = killed.ledger.spent
    killed.beat({lease.name: 20.0})
    killed.beat({lease.name: 40.0})
    for _ in range(2):  # it is killed again at once
        session = open_folder(tmp_path, make_study())[1]
        assert (session.ledger.lost, session.ledger.spent) == (30.0, before + 30.0)
        assert session.record.spent_seconds == session.ledger.spent
        [charge] = session.record.trials[0].progress.leases
        assert (charge.device_seconds, charge.lost, charge.end) == (10.0, 30.0, "interrupted")


def test_nothing_is_lost_where_the_last_report_came_after_the_last_sign_of_life(tmp_path: Path) -> None:
    killed, lease = begin(tmp_path)
    killed.beat({lease.name: 5.0})
    assert open_folder(tmp_path, make_study())[1].ledger.lost == 0


def test_it_is_shown_on_the_console_on_the_page_and_to_programs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    killed, lease = begin(tmp_path)
    killed.beat({lease.name: 70.0})
    run, session = open_folder(tmp_path, make_study())
    budget = Budget.parse(run.study.budget)
    said = "of 6cpu-minutes, 1cpu-minutes of it lost with drivers that were killed"
    print_summary(make_console(as_json=False), session, run.folder, budget)
    assert said in capsys.readouterr().out
    assert said in html.unescape(write_report(run).read_text(encoding="utf-8"))
    assert summarise(run)["lost_device_seconds"] == 60.0


def test_a_lease_that_has_ended_is_not_lost(tmp_path: Path) -> None:
    session, lease = begin(tmp_path)
    session.beat({lease.name: 20.0})
    session.fail(lease.name, "it broke", device_seconds=25.0)
    assert session.record.notes.alive == {}
    spent = session.ledger.spent
    again = open_folder(tmp_path, make_study())[1]
    assert (again.ledger.lost, again.ledger.spent) == (0.0, spent)


def test_a_test_that_was_cut_off_is_charged_outside_training(tmp_path: Path) -> None:
    session = open_folder(tmp_path, make_study(max_trials=1))[1]
    fill(session)
    spent = session.ledger.spent
    session.beat({"00000-test": 7.0})
    for _ in range(2):
        assert open_folder(tmp_path, make_study(max_trials=1))[1].ledger.spent == pytest.approx(spent + 7.0)


def test_the_adapter_says_what_each_lease_has_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = open_folder(tmp_path, make_study())[1]
    adapter = Adapter(session, num_devices=2, slots=Slots(lambda: 1, head="-", number=1), on_event=lambda: None)
    lease = adapter.begin("of tune")
    assert lease is not None
    adapter.beat()
    assert session.record.notes.alive == {}  # too soon
    monkeypatch.setattr(ray_adapter, "BEAT_EVERY", 0.0)
    adapter.beat()
    assert list(session.record.notes.alive) == [lease.name]
    assert session.record.notes.alive[lease.name] > 0


@pytest.mark.slow
@pytest.mark.xdist_group("ray_2")
def test_a_search_gives_signs_of_life(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_adapter, "BEAT_EVERY", 0.0)
    arguments = ("--budget", "900cpu-seconds", "--max-trials", 1, "--references", "none", "--epochs", 1)
    outcome = run_here(*QUICK, *arguments, "--name", "x", "--runs", tmp_path, capsys=capsys, monkeypatch=monkeypatch)
    assert outcome.code == 0, outcome.err
    study = read_study(tmp_path / "x")
    assert study.notes["alive"] == {}  # written, and each lease has ended
    assert study.lost == 0
