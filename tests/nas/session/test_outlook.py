"""What more device time is expected to add, and a search that ends when that is too little."""

from pathlib import Path

import pytest

from nas.record.notes import EventKind
from nas.record.trials import LeaseCharge, LeaseEnd, Progress, TrialRecord, TrialState
from nas.session.certainty.outlook import FEWEST, outlook
from nas.session.pareto import HypervolumeScale
from nas.study.lease import Report
from nas.study.objectives import choose
from tests.nas.runs import fill, make_study, open_folder

GOALS = choose(("accuracy", "macs"))
SCALE = HypervolumeScale(GOALS, (None, (1.0, 100.0)))


def searched(accuracies: list[float]) -> list[TrialRecord]:
    """Complete trials of one cost, in the middle of its range, each of two device-seconds."""
    study = make_study()
    arch = study.make_space().smallest("macs")
    trials = []
    for number, accuracy in enumerate(accuracies):
        report = Report(epoch=1, val_accuracy=accuracy, train_loss=1.0, checkpoint="x")
        lease = LeaseCharge(attempt=1, device_seconds=2.0, end=LeaseEnd.COMPLETE)
        progress = Progress(leases=(lease,), curve=(report,))
        trials.append(TrialRecord(number, arch, 1, 10, number, state=TrialState.COMPLETE, progress=progress))
    return trials


def test_a_gap_that_shrinks_like_one_over_time_is_foreseen() -> None:
    def accuracy(trial: int) -> float:
        return 0.9 - 0.4 / trial

    now = outlook(searched([accuracy(n) for n in range(1, 41)]), SCALE, 40.0)
    assert now is not None
    assert now.expected == pytest.approx((accuracy(60) - accuracy(40)) / accuracy(40))
    assert now.expected < now.most
    later = outlook(searched([accuracy(n) for n in range(1, 401)]), SCALE, 40.0)
    assert later is not None
    assert later.most < 0.1 * now.most


def test_a_search_that_found_nothing_for_long_looks_further_back() -> None:
    accuracies = [0.5 + 0.02 * min(n, 10) for n in range(1, 101)]
    ahead = outlook(searched(accuracies), SCALE, 20.0)
    assert ahead is not None
    assert 0 < ahead.expected < ahead.most < 0.05


def test_of_few_trials_nothing_is_said() -> None:
    assert outlook(searched([0.5] * (FEWEST - 1)), SCALE, 20.0) is None
    assert outlook(searched([0.5] * FEWEST), SCALE, 0.0) is None


def test_a_search_ends_when_the_rest_promises_too_little(tmp_path: Path) -> None:
    study = make_study(until="50%", max_trials=300)
    run, session = open_folder(tmp_path / "until", study)
    fill(session)
    [event] = [event for event in run.record.notes.events if event.kind is EventKind.CONVERGED]
    assert "--until budget spends it" in event.text
    assert FEWEST <= len(run.record.complete) < 60
    assert session.finished
    assert session.ledger.left > 0.5 * session.ledger.total
    run.record.close()

    again, session = open_folder(tmp_path / "until", study)
    num_trials = len(again.record.trials)
    fill(session)
    assert len(again.record.trials) == num_trials
    assert sum(event.kind is EventKind.CONVERGED for event in again.record.notes.events) == 1
    again.record.close()

    to_the_end, session = open_folder(tmp_path / "until", study.model_copy(update={"until": "budget"}))
    fill(session)
    assert len(to_the_end.record.trials) > num_trials
    to_the_end.record.close()
