"""Signs of life within an epoch: what they are charged, where a lease may end, and from where its trial goes on."""

from pathlib import Path

import pytest

from nas.record.trials import StopReason, TrialState
from nas.session.session import Decision, Session
from nas.study.lease import Lease, Report, Sign
from nas.training.checkpoints import checkpoint_name
from tests.nas.runs import make_study, open_folder


def session_in(path: Path, **changes: object) -> Session:
    return open_folder(path, make_study(**changes))[1]


def next_lease(session: Session) -> Lease:
    lease = session.next()
    assert lease is not None
    return lease


def sign(step: int, *, epoch: int = 0, leaves: bool = True) -> Sign:
    return Sign(step=step, num_steps=100, checkpoint=checkpoint_name(epoch, step) if leaves else None)


def report(epoch: int) -> Report:
    return Report(epoch=epoch, val_accuracy=0.5, train_loss=1.0, checkpoint=checkpoint_name(epoch))


def test_a_sign_is_charged_and_training_goes_on(tmp_path: Path) -> None:
    session = session_in(tmp_path)
    lease = next_lease(session)
    for step, leaves in ((10, False), (20, True), (30, False)):
        assert session.sign(lease.name, sign(step, leaves=leaves), device_seconds=float(step)) is Decision.CONTINUE
    assert session.ledger.spent == 30.0
    trial = session.record.trials[lease.trial]
    assert (trial.num_epochs, trial.device_seconds, trial.checkpoint) == (0, 30.0, checkpoint_name(0, 20))
    assert trial.within == 0.3
    session.report(lease.name, report(1), device_seconds=40.0)
    assert trial.within == 0.0


def test_a_session_that_stops_ends_leases_at_their_next_checkpoint_and_they_go_on_from_there(tmp_path: Path) -> None:
    session = session_in(tmp_path)
    lease = next_lease(session)
    session.report(lease.name, report(1), device_seconds=1.0)
    session.stop()
    assert session.sign(lease.name, sign(10, epoch=1, leaves=False), device_seconds=1.1) is Decision.CONTINUE
    assert session.sign(lease.name, sign(20, epoch=1), device_seconds=1.2) is Decision.STOP
    session.finish(lease.name, device_seconds=1.25)
    reopened = session_in(tmp_path)
    again = next_lease(reopened)
    assert (again.trial, again.attempt, again.checkpoint) == (lease.trial, 2, checkpoint_name(1, 20))
    reopened.report(again.name, report(2), device_seconds=0.5)
    trial = reopened.record.trials[lease.trial]
    assert [item.epoch for item in trial.progress.curve] == [1, 2]
    assert trial.checkpoint == checkpoint_name(2)  # and no longer that within the epoch
    assert reopened.ledger.spent == pytest.approx(1.75)


def test_a_lease_that_a_dead_driver_left_goes_on_from_within_the_epoch(tmp_path: Path) -> None:
    session = session_in(tmp_path)
    lease = next_lease(session)
    session.sign(lease.name, sign(40), device_seconds=4.0)
    reopened = session_in(tmp_path)
    assert next_lease(reopened).checkpoint == checkpoint_name(0, 40)
    assert reopened.ledger.spent == 4.0


def test_a_spent_budget_ends_a_lease_within_its_epoch_and_more_lets_it_go_on(tmp_path: Path) -> None:
    session = session_in(tmp_path, budget="1cpu-minutes", references=())
    lease = next_lease(session)
    assert session.sign(lease.name, sign(10), device_seconds=59.0) is Decision.CONTINUE
    assert session.sign(lease.name, sign(20), device_seconds=61.0) is Decision.STOP
    session.finish(lease.name, device_seconds=61.0)
    trial = session.record.trials[lease.trial]
    assert session.next() is None
    assert (trial.state, trial.stop_reason) == (TrialState.STOPPED, StopReason.BUDGET)
    longer = session_in(tmp_path, budget="10cpu-minutes", references=())
    assert next_lease(longer).checkpoint == checkpoint_name(0, 20)


def test_what_an_epoch_takes_is_learned_from_whole_epochs(tmp_path: Path) -> None:
    """Signs within it are parts of the same epoch; the rest of one that was begun before tells nothing."""
    session = session_in(tmp_path)
    lease = next_lease(session)
    session.report(lease.name, report(1), device_seconds=5.0)  # with the start of its worker
    session.sign(lease.name, sign(50, epoch=1), device_seconds=6.0)
    session.report(lease.name, report(2), device_seconds=8.0)
    assert session.costs.correction.actual == 3.0
    session.sign(lease.name, sign(10, epoch=2), device_seconds=8.5)
    reopened = session_in(tmp_path)
    learned = reopened.costs.correction.actual
    again = next_lease(reopened)
    reopened.report(again.name, report(3), device_seconds=0.1)
    assert reopened.costs.correction.actual == learned


def test_the_study_says_how_often(tmp_path: Path) -> None:
    assert next_lease(session_in(tmp_path / "default")).checkpoint_every == 300.0
    assert next_lease(session_in(tmp_path / "often", checkpoint_every="30s")).checkpoint_every == 30.0
    assert next_lease(session_in(tmp_path / "never", checkpoint_every="never")).checkpoint_every is None
