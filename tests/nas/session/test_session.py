"""The session against a real record in SQLite, with made-up learning curves and a made-up clock."""

import itertools
import random
from pathlib import Path

import optuna
import pytest

from metaformer import count_cost
from nas.record.notes import EventKind
from nas.record.run_folder import RunFolder, open_record, open_run
from nas.record.trials import StopReason, TrialState
from nas.session.pareto import dominates
from nas.session.session import MAX_ATTEMPTS, MAX_FAILURES, MAX_NODES_LOST, Decision, Session
from nas.study.lease import Lease, LossCause, Measurement, Report
from nas.study.study import Study, StudyError
from search_spaces.space import CostName, SpaceSettings
from tests.nas.runs import NUM_IMAGES, fill, make_study, open_folder
from tests.search_spaces.tiny import TwoModels
from tests.thorough import thorough

COSTS: tuple[CostName, ...] = ("params", "macs")


def session_in(path: Path, study: Study | None = None, **changes: object) -> Session:
    return open_folder(path, study or make_study(**changes))[1]


def next_lease(session: Session) -> Lease:
    lease = session.next()
    assert lease is not None
    return lease


def train(session: Session, lease: Lease, *, seconds: float, epochs: int | None = None, accuracy: float = 0.5) -> None:
    """Report `epochs` further epochs of a lease (all that are left by default), and finish it when it is stopped."""
    first = session.record.trials[lease.trial].num_epochs
    last = lease.epochs if epochs is None else first + epochs
    for epoch in range(first + 1, last + 1):
        report = Report(epoch=epoch, val_accuracy=accuracy, train_loss=1.0, checkpoint=f"epoch-{epoch:04d}.pt")
        used = seconds * (epoch - first) / (last - first)
        if session.report(lease.name, report, device_seconds=used) is Decision.STOP:
            session.finish(lease.name, device_seconds=used)
            return


def states(path: Path) -> list[optuna.trial.TrialState]:
    """What Optuna itself reads from the run's database."""
    study = optuna.load_study(study_name="search", storage=f"sqlite:///{path / 'study.db'}")
    return [trial.state for trial in study.trials]


def test_references_come_first_and_those_beyond_the_limits_are_left_out(tmp_path: Path) -> None:
    session = session_in(tmp_path)
    names = []
    for _ in range(4):
        lease = next_lease(session)
        names.append(session.record.trials[lease.trial].reference)
        train(session, lease, seconds=1.0)
    first = ["poolformer_s12", "metaformer_ppaa_s12_224", "metaformer_id_s12"]
    assert names == [*first, None]  # poolformer_m48 has more MACs than the limit


def test_references_that_are_the_same_network_here_are_trained_once(tmp_path: Path) -> None:
    study = make_study(references=("poolformer_s12", "poolformer_s12_pool7", "poolformer_s12_pool9"))
    tiny = study.settings.model_copy(update={"resolution": 4})  # maps of 2, 1, 1 and 1 token
    session = session_in(tmp_path, study.model_copy(update={"settings": tiny}))
    (planned,) = session.queue.planned
    assert planned.references == study.references
    assert planned.architecture.digest == session.space.references()["poolformer_s12"].digest


def test_every_trial_is_new_within_limits_and_ends(tmp_path: Path) -> None:
    session = session_in(tmp_path, max_trials=40)
    fill(session)
    digests = [trial.architecture.digest for trial in session.record]
    assert len(digests) == len(set(digests)) == 43
    limits = session.study.settings.limits
    assert all(limits.allow(count_cost(trial.architecture)) for trial in session.record)
    assert TrialState.RUNNING not in {trial.state for trial in session.record}
    assert optuna.trial.TrialState.RUNNING not in states(tmp_path)
    assert session.finished
    assert session.next() is None


def test_the_values_told_to_optuna_are_accuracy_parameters_and_macs(tmp_path: Path) -> None:
    session = session_in(tmp_path)
    fill(session)
    study = optuna.load_study(study_name="search", storage=f"sqlite:///{tmp_path / 'study.db'}")
    assert study.metric_names == ["val_accuracy", "params", "macs"]
    for told, kept in zip(study.trials, session.record, strict=True):
        cost = count_cost(kept.architecture)
        if kept.state is TrialState.COMPLETE:
            assert told.values == [kept.progress.curve[-1].val_accuracy, cost.params, cost.macs]
        else:
            assert (told.state, told.values) == (optuna.trial.TrialState.FAIL, None)
            assert told.user_attrs["reason"] == kept.reason


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", *thorough(["nsga2", "random"])])
def test_the_same_seed_gives_the_same_trials_also_across_restarts(tmp_path: Path, sampler: str) -> None:
    """One search in one go, the other opened anew every few leases."""
    study = make_study(sampler=sampler, max_trials=25, references=("poolformer_s12",))
    whole = session_in(tmp_path / "whole", study)
    fill(whole, fail_every=1000)
    accuracies = {trial.number: trial.progress.curve for trial in whole.record}
    broken = session_in(tmp_path / "broken", study)
    rng = random.Random(0)
    while not broken.finished:
        lease = broken.next()
        if lease is None:
            break
        if lease.task == "test":
            broken.tested(lease.name, 0.5, device_seconds=0.01)
            continue
        for report in accuracies[lease.trial]:
            decision = broken.report(lease.name, report, device_seconds=0.1 * report.epoch)
        assert decision is Decision.STOP
        broken.finish(lease.name, device_seconds=0.3)
        if rng.random() < 0.3:
            broken = session_in(tmp_path / "broken", study)
    assert [t.architecture for t in broken.record] == [t.architecture for t in whole.record]
    assert [t.number for t in broken.front] == [t.number for t in whole.front]


def test_another_seed_gives_other_trials(tmp_path: Path) -> None:
    sessions = [session_in(tmp_path / str(seed), seed=seed, references=()) for seed in (0, 1)]
    for session in sessions:
        fill(session)
    first, second = ([trial.architecture for trial in session.record] for session in sessions)
    assert first[0] == second[0]  # the cheapest architecture
    assert first[1:] != second[1:]


def test_the_ends_of_the_front_are_trained_before_the_sampler_is_asked(tmp_path: Path) -> None:
    session = session_in(tmp_path, references=())
    least = {count_cost(session.space.smallest(cost)).total for cost in COSTS}
    fill(session, fail_every=1000)
    first = [count_cost(trial.architecture).total for trial in session.record][: len(least)]
    assert set(first) == least
    assert first[0].params == min(trial.params for trial in session.front)


def test_a_lease_that_a_dead_driver_left_goes_on_from_its_last_checkpoint(tmp_path: Path) -> None:
    session = session_in(tmp_path)
    lease = next_lease(session)
    train(session, lease, seconds=2.0, epochs=2)
    reopened = session_in(tmp_path)
    again = next_lease(reopened)
    assert (again.trial, again.attempt, again.checkpoint) == (lease.trial, 2, "epoch-0002.pt")
    train(reopened, again, seconds=1.0)
    trial = reopened.record.trials[lease.trial]
    assert trial.state is TrialState.COMPLETE
    assert [report.epoch for report in trial.progress.curve] == [1, 2, 3]
    assert [(c.attempt, c.end) for c in trial.progress.leases] == [(1, "interrupted"), (2, "complete")]
    assert trial.device_seconds == pytest.approx(3.0)
    assert reopened.record.spent_seconds == pytest.approx(3.0)


def test_a_driver_that_dies_between_the_last_report_and_the_end_loses_nothing(tmp_path: Path) -> None:
    session = session_in(tmp_path)
    lease = next_lease(session)
    for epoch in (1, 2, 3):
        report = Report(epoch=epoch, val_accuracy=0.5, train_loss=1.0, checkpoint="x.pt")
        session.report(lease.name, report, device_seconds=epoch)
    Path(lease.folder).mkdir(parents=True)
    reopened = session_in(tmp_path)
    assert reopened.record.trials[lease.trial].state is TrialState.COMPLETE
    assert Path(lease.folder).exists()  # its weights, which the test split still needs
    assert next_lease(reopened).trial != lease.trial


def test_a_driver_that_dies_before_an_end_keeps_what_another_trial_goes_on_from(tmp_path: Path) -> None:
    session = session_in(tmp_path)
    ended, begun = next_lease(session), next_lease(session)
    for lease, epochs in ((ended, 3), (begun, 2)):
        Path(lease.folder).mkdir(parents=True)
        for epoch in range(1, epochs + 1):
            report = Report(epoch=epoch, val_accuracy=0.5, train_loss=1.0, checkpoint="x.pt")
            session.report(lease.name, report, device_seconds=epoch)
    reopened = session_in(tmp_path)
    assert Path(begun.folder).exists()
    again = next_lease(reopened)
    assert (again.trial, again.checkpoint) == (begun.trial, "x.pt")


def test_a_trial_that_a_killed_driver_had_half_written_is_ended_and_changes_nothing(tmp_path: Path) -> None:
    study = make_study(references=())
    half = session_in(tmp_path / "half", study)
    asked = optuna.load_study(study_name="search", storage=half.record.url).ask()
    asked.suggest_categorical("mixer_1", ["pool", "attention", "spatial_mlp", "dwconv", "identity"])
    reopened = session_in(tmp_path / "half", study)
    assert len(reopened.record.trials) == 0
    assert states(tmp_path / "half") == [optuna.trial.TrialState.FAIL]
    assert reopened.record.discarded == session_in(tmp_path / "half", study).record.discarded == [asked.number]
    untouched = session_in(tmp_path / "whole", study)
    assert next_lease(reopened).architecture == next_lease(untouched).architecture


def test_stopping_ends_running_trials_at_their_next_report_and_they_go_on_later(tmp_path: Path) -> None:
    session = session_in(tmp_path)
    lease = next_lease(session)
    session.stop()
    assert session.next() is None
    assert not session.finished
    train(session, lease, seconds=1.0, epochs=1)
    assert session.next() is None
    assert session.finished
    assert session.record.trials[lease.trial].state is TrialState.RUNNING
    again = next_lease(session_in(tmp_path))
    assert (again.trial, again.checkpoint) == (lease.trial, "epoch-0001.pt")


def test_a_lost_worker_is_tried_again_a_bounded_number_of_times(tmp_path: Path) -> None:
    session = session_in(tmp_path)
    for attempt in range(1, MAX_ATTEMPTS + 1):
        lease = next_lease(session)
        assert (lease.trial, lease.attempt) == (0, attempt)
        session.fail(lease.name, "the worker died", device_seconds=1.0, lost=LossCause.WORKER)
    trial = session.record.trials[0]
    assert (trial.state, trial.reason) == (TrialState.FAILED, "the worker died")
    assert trial.device_seconds == pytest.approx(float(MAX_ATTEMPTS))
    assert next_lease(session).trial == 1


def test_lost_machines_use_up_no_attempt_of_a_trial_but_are_bounded_too(tmp_path: Path) -> None:
    session = session_in(tmp_path)
    for attempt in range(1, MAX_NODES_LOST + 1):
        assert session.record.trials == [] or session.record.trials[0].state is TrialState.RUNNING
        lease = next_lease(session)
        assert (lease.trial, lease.attempt) == (0, attempt)
        session.fail(lease.name, "the node died", device_seconds=1.0, lost=LossCause.NODE)
    trial = session.record.trials[0]
    assert trial.state is TrialState.FAILED
    assert {lease.end for lease in trial.progress.leases[:-1]} == {"node lost"}
    assert trial.device_seconds == pytest.approx(float(MAX_NODES_LOST))


def test_a_restarted_driver_uses_up_no_attempt_of_a_trial(tmp_path: Path) -> None:
    for _ in range(MAX_ATTEMPTS + 1):
        session = session_in(tmp_path)
        assert next_lease(session).trial == 0
    lease = next_lease(session_in(tmp_path))
    session = session_in(tmp_path)
    lease = next_lease(session)
    session.fail(lease.name, "the worker died", device_seconds=1.0, lost=LossCause.WORKER)
    assert session.record.trials[0].state is TrialState.RUNNING


def test_a_failed_trial_keeps_its_reason_and_the_search_goes_on(tmp_path: Path) -> None:
    session = session_in(tmp_path)
    session.fail(next_lease(session).name, "loss: must stay finite, got nan", device_seconds=1.0)
    assert session.record.trials[0].reason == "loss: must stay finite, got nan"
    assert states(tmp_path) == [optuna.trial.TrialState.FAIL]
    assert next_lease(session).trial == 1


def test_a_trial_that_fell_back_to_an_earlier_checkpoint_has_each_epoch_once(tmp_path: Path) -> None:
    session = session_in(tmp_path)
    train(session, next_lease(session), seconds=2.0, epochs=2)
    reopened = session_in(tmp_path)
    lease = next_lease(reopened)
    note = "checkpoint epoch-0002.pt could not be read (gone); went on from epoch-0001.pt"
    for epoch, told in ((2, note), (3, None)):
        report = Report(epoch=epoch, val_accuracy=0.75, train_loss=1.0, checkpoint=f"{epoch}.pt", note=told)
        decision = reopened.report(lease.name, report, device_seconds=epoch - 1.0)
    assert decision is Decision.STOP
    reopened.finish(lease.name, device_seconds=2.0)
    [trial] = session_in(tmp_path).record.complete
    assert [(report.epoch, report.val_accuracy, report.note) for report in trial.progress.curve] == [
        (1, 0.5, None),
        (2, 0.75, None),
        (3, 0.75, None),
    ]
    assert trial.device_seconds == pytest.approx(2.0 + 2.0)
    assert [(event.kind, event.text, event.trial) for event in reopened.events] == [(EventKind.CHECKPOINT, note, 0)]
    assert session_in(tmp_path).record.notes.events == tuple(reopened.events)  # kept with the study


def test_what_every_trial_would_meet_stops_the_session_and_costs_no_trial(tmp_path: Path) -> None:
    session = session_in(tmp_path)
    first, second = next_lease(session), next_lease(session)
    train(session, first, seconds=1.0, epochs=1)
    session.halt(first.name, "checkpoints: must have room", device_seconds=2.0)
    assert session.problem == "checkpoints: must have room"
    assert session.next() is None
    assert not session.finished  # the other trial has not reported yet
    session.halt(second.name, "checkpoints: must have room for this one too", device_seconds=1.0)
    assert session.next() is None
    assert session.finished
    assert session.problem == "checkpoints: must have room"
    reopened = session_in(tmp_path)
    assert reopened.problem is None
    assert reopened.record.spent_seconds == pytest.approx(3.0)
    again = [next_lease(reopened), next_lease(reopened)]
    assert [(lease.trial, lease.attempt, lease.checkpoint) for lease in again] == [
        (0, 2, "epoch-0001.pt"),
        (1, 2, None),
    ]


def test_a_test_that_what_every_trial_would_meet_has_ended_is_made_later(tmp_path: Path) -> None:
    session = session_in(tmp_path, references=(), max_trials=1)
    train(session, next_lease(session), seconds=1.0)
    session.halt(next_lease(session).name, "image: must be readable", device_seconds=1.0)
    assert session.next() is None
    assert session.finished
    assert next_lease(session_in(tmp_path, references=(), max_trials=1)).task == "test"


def test_images_left_out_are_kept_with_the_study(tmp_path: Path) -> None:
    session = session_in(tmp_path)
    session.leave_out([])
    assert session.record.notes.images_left_out == ()
    for names in (["b.jpg", "a.jpg"], ["b.jpg", "c.jpg"]):
        session.leave_out(names)
    assert session_in(tmp_path).record.notes.images_left_out == ("a.jpg", "b.jpg", "c.jpg")


@pytest.mark.slow
def test_a_study_on_a_full_disk_is_named_in_one_line_and_goes_on_where_there_is_room(small_disk: Path) -> None:
    session = session_in(small_disk)
    lease = next_lease(session)
    ballast = small_disk / "ballast"
    with pytest.raises(OSError, match="No space left"):
        ballast.write_bytes(bytes(2**21))
    with pytest.raises(
        StudyError, match="^storage: must be writable and have room, got '.*'; the same command"
    ) as caught:
        fill(session)
    assert "\n" not in str(caught.value)
    ballast.unlink()
    reopened = session_in(small_disk)
    assert next_lease(reopened).trial == lease.trial
    train(reopened, next(iter(reopened._leases._open.values())).lease, seconds=1.0)
    assert reopened.record.complete


@pytest.mark.parametrize("kilobytes", [0, 8, 64, 128])
def test_a_study_that_finds_no_room_to_begin_is_refused_in_one_line(small_disk: Path, kilobytes: int) -> None:
    study = make_study()
    (small_disk / "ballast").write_bytes(bytes(2**21 - kilobytes * 2**10))
    with pytest.raises(StudyError, match="^storage: must be .*(full|disk I/O|unable to open)") as caught:
        open_record(study, RunFolder(small_disk), study.make_space(), writes=True)
    assert "\n" not in str(caught.value)


def test_a_session_in_which_everything_fails_stops_and_says_why(tmp_path: Path) -> None:
    session = session_in(tmp_path)
    fill(session, fail_every=1)
    assert len(session.record.trials) == MAX_FAILURES
    assert session.problem is not None
    rule = "search: must have trials that work"
    assert session.problem.startswith(f"{rule}; {MAX_FAILURES} trials failed one after another, the last with: loss")


def test_nothing_is_begun_that_the_budget_cannot_finish(tmp_path: Path) -> None:
    session = session_in(tmp_path, budget="3cpu-seconds", max_trials=None, references=("poolformer_s12",))
    fill(session, fail_every=1000)
    assert session.ledger.left >= 0
    smallest = session.expected_seconds(session.space.smallest("macs"), epochs=session.study.recipe.epochs)
    assert session.ledger.left < 2 * smallest  # and what could be used has been
    assert {trial.state for trial in session.record} == {TrialState.COMPLETE}


def test_a_trial_that_takes_longer_than_predicted_is_stopped_when_the_budget_is_gone(tmp_path: Path) -> None:
    session = session_in(tmp_path, budget="10cpu-seconds")
    lease = next_lease(session)
    train(session, lease, seconds=30.0)
    trial = session.record.trials[lease.trial]
    assert (trial.state, trial.stop_reason, trial.num_epochs) == (TrialState.STOPPED, StopReason.BUDGET, 1)
    assert states(tmp_path) == [optuna.trial.TrialState.PRUNED]
    assert session.next() is None
    assert session.finished


def test_more_budget_takes_up_what_had_to_be_stopped_where_it_stood(tmp_path: Path) -> None:
    session = session_in(tmp_path, budget="10cpu-seconds", references=("poolformer_s12",))
    train(session, next_lease(session), seconds=30.0)
    Path(tmp_path / "checkpoints" / "00000").mkdir(parents=True)
    extended = session_in(tmp_path, budget="10cpu-minutes", references=("poolformer_s12",))
    lease = next_lease(extended)
    trial = extended.record.trials[lease.trial]
    assert (trial.number, trial.checkpoint_trial, trial.reference, trial.num_epochs) == (1, 0, "poolformer_s12", 1)
    assert (lease.checkpoint, Path(lease.folder).name, lease.attempt) == ("epoch-0001.pt", "00000", 1)
    train(extended, lease, seconds=5.0)
    assert [report.epoch for report in trial.progress.curve] == [1, 2, 3]
    assert extended.record.spent_seconds == pytest.approx(10.0 + 5.0)
    assert Path(lease.folder).exists()
    again = session_in(tmp_path, budget="10cpu-minutes", references=("poolformer_s12",))
    assert next_lease(again).task == "test" or again.record.trials[-1].reference is None  # nothing is taken up twice


def test_an_interrupted_trial_that_the_budget_no_longer_affords_is_ended_and_goes_on_with_more(tmp_path: Path) -> None:
    session = session_in(tmp_path, budget="10cpu-seconds", references=())
    lease = next_lease(session)
    session.stop()
    train(session, lease, seconds=9.99, epochs=1)
    poor = session_in(tmp_path, budget="10cpu-seconds", references=())
    assert poor.next() is None
    assert poor.finished
    assert states(tmp_path) == [optuna.trial.TrialState.PRUNED]
    rich = session_in(tmp_path, budget="10cpu-minutes", references=())
    again = next_lease(rich)
    assert (again.architecture, again.checkpoint) == (lease.architecture, "epoch-0001.pt")


def test_one_lease_waits_while_another_has_reserved_what_is_left(tmp_path: Path) -> None:
    session = session_in(tmp_path, budget="2cpu-minutes", references=(), max_trials=None)
    session.costs.speed = session.costs.speed.model_copy(update={"base": 0.03, "per_gmac": 0.0})
    first = next_lease(session)  # about 115 of 120 seconds
    assert session.next() is None
    assert not session.finished
    train(session, first, seconds=20.0)  # far less than it had reserved
    assert next_lease(session).trial == 1


def test_trials_side_by_side_wait_for_the_first_ones_speed_where_the_budget_pays_for_few(tmp_path: Path) -> None:
    """Two that were each twice as slow as one alone had been measured were both ended before their last epoch."""
    study = make_study(budget="72cpu-seconds", references=(), max_trials=None)
    session = open_folder(tmp_path, study, num_workers=2, start_seconds=9.0)[1]
    session.costs.speed = session.costs.speed.model_copy(update={"base": 0.0042, "per_gmac": 0.0})
    first = next_lease(session)
    assert session.ledger.reserved == pytest.approx(9.0 + session.expected_seconds(first.architecture, epochs=3))
    assert session.next() is None
    used, report = 19.0, Report(epoch=1, val_accuracy=0.5, train_loss=1.0, checkpoint="1.pt")
    session.report(first.name, report, device_seconds=used)
    assert session.next() is None  # what the first epoch took holds a start
    session.report(first.name, report.model_copy(update={"epoch": 2}), device_seconds=used + 5.5)
    second = next_lease(session)
    session.report(first.name, report.model_copy(update={"epoch": 3}), device_seconds=used + 11)
    session.finish(first.name, device_seconds=used + 11)
    train(session, second, seconds=9 + 3 * 5.5)
    assert [trial.state for trial in session.record] == [TrialState.COMPLETE] * 2


def test_they_begin_at_once_where_it_pays_for_more(tmp_path: Path) -> None:
    study = make_study(budget="5cpu-minutes", references=(), max_trials=None)
    session = open_folder(tmp_path, study, num_workers=2, start_seconds=9.0)[1]
    session.costs.speed = session.costs.speed.model_copy(update={"base": 0.0042, "per_gmac": 0.0})
    assert {next_lease(session).trial, next_lease(session).trial} == {0, 1}


def test_a_running_trial_reserves_what_its_own_epochs_take(tmp_path: Path) -> None:
    session = open_folder(tmp_path, make_study(budget="10cpu-minutes", references=()))[1]
    train(session, next_lease(session), seconds=30.0)
    slow = next_lease(session)
    session.report(slow.name, Report(epoch=1, val_accuracy=0.5, train_loss=1.0, checkpoint="1.pt"), device_seconds=50.0)
    assert session.ledger.reserved == pytest.approx(2 * 50.0)


@pytest.mark.parametrize("budget", [6, 9])
def test_models_that_take_a_fifth_longer_than_others_leave_what_the_tests_need(tmp_path: Path, budget: int) -> None:
    session = session_in(tmp_path, budget=f"{budget}cpu-seconds", references=(), max_trials=None)
    slowness = itertools.cycle([1.0, 0.9, 1.2])
    while lease := session.next():
        macs = session.record.trials[lease.trial].macs
        if lease.task == "test":
            session.tested(lease.name, 0.5, device_seconds=session.costs.test_seconds(macs))
        else:
            num_images = NUM_IMAGES["train"] + NUM_IMAGES["val"] / 3
            measured = session.place.speed.seconds_per_image(macs) * num_images * lease.epochs
            train(session, lease, seconds=measured * next(slowness))
    assert len(session.record.complete) > 5
    assert [trial.number for trial in session.front if trial.test_accuracy is None] == []
    assert 0 <= session.ledger.left < 1


def test_expectations_follow_what_trials_really_took(tmp_path: Path) -> None:
    session = session_in(tmp_path)
    lease = next_lease(session)
    predicted = session.expected_seconds(lease.architecture, epochs=3)
    train(session, lease, seconds=4 * predicted)
    assert session.expected_seconds(lease.architecture, epochs=3) == pytest.approx(4 * predicted)


def test_the_front_is_what_no_trial_dominates_and_only_its_checkpoints_and_references_are_kept(tmp_path: Path) -> None:
    session = session_in(tmp_path)
    folder = tmp_path / "checkpoints"
    while lease := session.next():
        if lease.task == "test":
            session.tested(lease.name, 0.5, device_seconds=0.0)
            continue
        Path(lease.folder).mkdir(parents=True)
        train(session, lease, seconds=1.0, accuracy=random.Random(lease.trial).random())
    complete = session.record.complete
    goals = session.objectives
    points = {trial.number: goals.values(trial) for trial in complete}
    front = [number for number, p in points.items() if not any(dominates(o, p, goals) for o in points.values())]
    assert sorted(t.number for t in session.front) == front
    references = {trial.number for trial in complete if trial.reference}
    assert {int(path.name) for path in folder.iterdir()} == set(front) | references


def test_the_test_split_is_looked_at_once_after_all_training(tmp_path: Path) -> None:
    session = session_in(tmp_path)
    tasks = []
    while lease := session.next():
        tasks.append(lease.task)
        if lease.task == "test":
            assert lease.checkpoint == "weights.pt"
            session.tested(lease.name, 0.25, device_seconds=2.0)
        else:
            train(session, lease, seconds=1.0)
    assert tasks == ["train"] * tasks.count("train") + ["test"] * tasks.count("test")
    tested = {trial.number for trial in session.record if trial.test_accuracy == 0.25}
    assert tested == {t.number for t in session.front} | {t.number for t in session.record if t.reference}
    assert session.record.notes.overhead_device_seconds == pytest.approx(2.0 * len(tested))
    reopened = session_in(tmp_path)
    assert {trial.number for trial in reopened.record if trial.test_accuracy == 0.25} == tested
    assert reopened.next() is None


def test_a_model_that_cannot_be_tested_is_named_and_not_asked_for_again(tmp_path: Path) -> None:
    session = session_in(tmp_path, references=(), max_trials=1)
    train(session, next_lease(session), seconds=1.0)
    lease = next_lease(session)
    session.fail(lease.name, "checkpoint: must be readable", device_seconds=1.0)
    assert [str(event) for event in session.events] == ["trial 0: could not be tested: checkpoint: must be readable"]
    assert session.record.trials[0].state is TrialState.COMPLETE
    assert session.next() is None
    assert session.finished


def test_a_space_in_which_all_is_known_ends_the_search(tmp_path: Path) -> None:
    study = make_study(space=TwoModels.name, references=(), max_trials=None, settings=SpaceSettings().model_dump())
    session = session_in(tmp_path, study)
    fill(session)
    assert session.finished
    assert session.queue.is_exhausted
    assert [trial.state for trial in session.record] == [TrialState.COMPLETE] * 2
    assert {trial.architecture.digest for trial in session.record} == {
        session.space.decode({"which": which}).digest for which in ("slim", "coarse")
    }


def test_an_exhausted_study_that_is_opened_again_writes_no_further_trial(tmp_path: Path) -> None:
    study = make_study(space=TwoModels.name, references=(), max_trials=None, settings=SpaceSettings().model_dump())
    fill(session_in(tmp_path, study))
    for _ in range(3):
        again = session_in(tmp_path, study)
        assert again.next() is None
        assert again.finished
    assert len(states(tmp_path)) == 2


def test_running_trials_that_report_do_not_make_an_exhausted_session_ask_again(tmp_path: Path) -> None:
    study = make_study(space=TwoModels.name, references=(), max_trials=None, settings=SpaceSettings().model_dump())
    session = session_in(tmp_path, study)
    leases = [next_lease(session), next_lease(session)]
    for lease in leases:
        assert session.next() is None
        train(session, lease, seconds=0.1)
    assert len(session.record.trials) == 2
    assert session.queue.is_exhausted


def test_two_studies_in_one_storage_do_not_see_each_other(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'shared.db'}"
    first = session_in(tmp_path / "a", storage=storage, storage_name="a", references=())
    train(first, next_lease(first), seconds=1.0)
    second = session_in(tmp_path / "b", storage=storage, storage_name="b", references=(), seed=1)
    assert len(second.record.trials) == 0
    assert session_in(tmp_path / "a", storage=storage, storage_name="a", references=()).record.complete


def test_a_journal_file_holds_a_study_too(tmp_path: Path) -> None:
    storage = f"journal:{tmp_path / 'study.log'}"
    session = session_in(tmp_path / "run", storage=storage, max_trials=4, references=("poolformer_s12",))
    fill(session, fail_every=1000)
    again = session_in(tmp_path / "run", storage=storage, max_trials=4, references=("poolformer_s12",))
    assert [trial.number for trial in again.front] == [trial.number for trial in session.front]
    assert len(again.record.complete) == 5


def test_a_reader_leaves_alone_a_trial_that_the_driver_is_writing_down(tmp_path: Path) -> None:
    study = make_study(references=())
    driver = session_in(tmp_path, study)
    asked = optuna.load_study(study_name="search", storage=driver.record.url).ask()
    assert len(open_run(tmp_path).record.trials) == 0
    assert states(tmp_path) == [optuna.trial.TrialState.RUNNING]
    study.make_space().suggest(asked)
    assert len(open_run(tmp_path).record.trials) == 1


def test_a_database_that_is_damaged_is_refused_in_one_line(tmp_path: Path) -> None:
    session_in(tmp_path)
    for beside in tmp_path.glob("study.db*"):
        beside.unlink()
    (tmp_path / "study.db").write_bytes(b"no database at all, but long enough to be read as one" * 100)
    for open_it in (open_run, session_in):
        with pytest.raises(StudyError, match="storage: must be a database that can be opened"):
            open_it(tmp_path)


def test_a_study_goes_on_with_the_kind_of_device_it_began_with(tmp_path: Path) -> None:
    study = make_study()
    make_study(budget="9cpu-minutes").check_continues(study, tmp_path)
    with pytest.raises(StudyError, match="budget: must be CPU time, as the study in .* has it, got '1gpu-days'"):
        make_study(budget="1gpu-days").check_continues(study, tmp_path)
    with pytest.raises(StudyError, match=r"recipe.epochs: must be 3, as the study in .* has it, got 4"):
        study.model_copy(update={"recipe": study.recipe.model_copy(update={"epochs": 4})}).check_continues(
            study, tmp_path
        )


def test_the_hypervolume_never_falls(tmp_path: Path) -> None:
    session = session_in(tmp_path)
    before = 0.0
    while lease := session.next():
        if lease.task == "test":
            break
        train(session, lease, seconds=1.0, accuracy=random.Random(lease.trial).random())
        assert session.hypervolume >= before
        before = session.hypervolume
    assert before > 0


def measurement(lease: Lease, *, ms: float, device: str = "a device") -> Measurement:
    return Measurement(values=dict.fromkeys(lease.measure, ms), device=device)


def test_measured_objectives_are_asked_for_once_an_architecture_and_told_to_optuna(tmp_path: Path) -> None:
    session = session_in(tmp_path, objectives=("accuracy", "latency"))
    lease = next_lease(session)
    assert lease.measure == ("latency",)
    assert session.measured(lease.name, measurement(lease, ms=2.5), device_seconds=0.5) is Decision.CONTINUE
    train(session, lease, seconds=1.0, epochs=1)
    reopened = session_in(tmp_path, objectives=("accuracy", "latency"))
    again = next_lease(reopened)
    assert (again.trial, again.measure) == (lease.trial, ())
    train(reopened, again, seconds=1.0)
    told = optuna.load_study(study_name="search", storage=f"sqlite:///{tmp_path / 'study.db'}")
    assert told.metric_names == ["val_accuracy", "latency_ms"]
    assert told.trials[0].values == [0.5, 2.5]


def test_a_model_beyond_a_measured_limit_is_not_trained(tmp_path: Path) -> None:
    session = session_in(tmp_path, objectives=("accuracy", "latency"), measured_limits={"latency": 3.0})
    lease = next_lease(session)
    assert session.measured(lease.name, measurement(lease, ms=3.5), device_seconds=0.5) is Decision.STOP
    session.finish(lease.name, device_seconds=0.5)
    trial = session_in(tmp_path, objectives=("accuracy", "latency"), measured_limits={"latency": 3.0}).record.trials[
        lease.trial
    ]
    assert (trial.state, trial.stop_reason, trial.num_epochs) == (TrialState.STOPPED, StopReason.LIMIT, 0)
    assert trial.reason == "latency must be at most 3, got 3.5 on a device"
    assert trial.device_seconds == pytest.approx(0.5)


def test_a_driver_that_dies_between_a_measurement_and_the_stop_stops_the_trial_when_it_is_back(tmp_path: Path) -> None:
    changes = {"objectives": ("accuracy", "latency"), "measured_limits": {"latency": 3.0}}
    session = session_in(tmp_path, **changes)
    lease = next_lease(session)
    session.measured(lease.name, measurement(lease, ms=3.5), device_seconds=0.5)
    trial = session_in(tmp_path, **changes).record.trials[lease.trial]
    assert (trial.state, trial.stop_reason, trial.num_epochs) == (TrialState.STOPPED, StopReason.LIMIT, 0)


def test_a_study_measured_on_two_kinds_of_device_is_refused(tmp_path: Path) -> None:
    session = session_in(tmp_path, objectives=("accuracy", "latency"))
    first, second = next_lease(session), next_lease(session)
    session.measured(first.name, measurement(first, ms=1.0), device_seconds=0.1)
    other = measurement(second, ms=1.0, device="another device")
    assert session.measured(second.name, other, device_seconds=0.1) is Decision.STOP
    session.finish(second.name, device_seconds=0.1)
    assert session.problem == (
        "objectives: latency must be measured on one kind of device, a device in this study, got another device"
    )
    assert session.next() is None
    assert session.record.trials[second.trial].state is TrialState.RUNNING  # it goes on where the device is right


def test_a_study_that_goes_on_with_other_objectives_is_refused(tmp_path: Path) -> None:
    study = make_study()
    with pytest.raises(StudyError, match=r"objectives: must be \['accuracy', 'params', 'macs'\], as the study in"):
        make_study(objectives=("accuracy", "latency")).check_continues(study, tmp_path)


def test_epochs_that_took_no_time_at_all_teach_nothing(tmp_path: Path) -> None:
    session = session_in(tmp_path)
    lease = next_lease(session)
    expected = session.expected_seconds(lease.architecture, epochs=3)
    train(session, lease, seconds=0.0)
    assert session.expected_seconds(lease.architecture, epochs=3) == expected
    assert session.next() is not None


def test_what_was_learned_of_the_speed_survives_a_restart(tmp_path: Path) -> None:
    session = session_in(tmp_path)
    lease = next_lease(session)
    train(session, lease, seconds=4 * session.expected_seconds(lease.architecture, epochs=3))
    expected = session.expected_seconds(lease.architecture, epochs=3)
    assert session_in(tmp_path).expected_seconds(lease.architecture, epochs=3) == pytest.approx(expected)
