"""New seeds of trials whose place on the front is in doubt: what they cost, which they are, and what they change."""

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from nas.execution.curves import Curve
from nas.execution.simulator import Simulator
from nas.record.storage import IN_MEMORY
from nas.record.trials import TrialRecord, TrialState
from nas.session.certainty.front import choose, draw_fronts, membership
from nas.session.certainty.noise import Posterior, fit
from nas.session.forecast import forecast
from nas.session.pareto import front_of
from nas.session.session import Decision, Session
from nas.study.finals import MOST_SEEDS
from nas.study.lease import Lease, LossCause, Report
from nas.study.recipe import Recipe
from nas.study.study import Study
from tests.nas.execution.test_simulator import MadeUp, session_of
from tests.nas.runs import fill, made_up_accuracy, make_study, open_folder
from tests.thorough import strikes, thorough


def confirming(**changes: object) -> Study:
    """A study of about 20 trials and, for a fifth of its budget, new seeds."""
    return make_study(**{"budget": "10cpu-seconds", "max_trials": None, "confirm": "20%", "references": ()} | changes)


def again(session: Session) -> list[TrialRecord]:
    """Trainings with further seeds."""
    return [trial for trial in session.record if trial.seed is not None]


def noisy(lease: Lease) -> float:
    """An accuracy that differs by architecture and by seed, the same at every call."""
    return made_up_accuracy(lease.architecture, random.Random(f"{lease.architecture.digest} {lease.seed}"))


def carry_out(session: Session, lease: Lease) -> None:
    if lease.task == "test":
        session.tested(lease.name, noisy(lease), device_seconds=0.01)
        return
    seconds = session.expected_seconds(lease.architecture, epochs=lease.epochs)
    done = session.record.trials[lease.trial].num_epochs
    for epoch in range(done + 1, lease.epochs + 1):
        report = Report(epoch=epoch, val_accuracy=noisy(lease), train_loss=1.0, checkpoint=f"{epoch}.pt")
        used = seconds * (epoch - done) / lease.epochs
        if session.report(lease.name, report, device_seconds=used) is Decision.STOP:
            session.finish(lease.name, device_seconds=used)
            return


# ---------------------------------------------------------------------- which training


def two_alike(*, gap: float, counts: tuple[int, int] = (1, 1)) -> Posterior:
    """Two architectures of one cost, of whose true logits as much is known as of two in many."""
    rng = np.random.default_rng(0)
    accuracy = 1 / (1 + np.exp(-(2 + 0.3 * rng.standard_normal(60))))
    groups = np.concatenate([np.arange(60), *(np.full(count - 1, g) for g, count in enumerate(counts))])
    posterior = fit(accuracy[groups], np.ones((len(groups), 1)), groups, num_images=400)
    posterior.mean_HG[:, 0] = posterior.mean_HG[:, 1] + gap
    posterior.mean_HG[:, 2:] -= 50  # the others are far behind
    return posterior


@pytest.mark.parametrize("gap", [0.0, 0.1, 0.3])
def test_the_expected_change_is_nearly_what_the_closed_form_says(gap: float) -> None:
    """p = Phi(gap / s), and after a training the gap is normal with a known variance; 2,048 draws, and linear."""
    posterior = two_alike(gap=gap)
    found = draw_fronts(posterior, np.ones((60, 1))).expected_changes(np.zeros(60, dtype=np.int64))
    taken_H = posterior.explained(np.array([0]), np.array([1]))[:, 0] * posterior.var_HG[:, 0]
    sd_H = np.sqrt(posterior.var_HG[:, :2].sum(axis=1))
    points = norm.ppf((np.arange(400) + 0.5) / 400)
    left_H = np.sqrt(sd_H**2 - taken_H)
    after_H400 = norm.cdf((gap + np.sqrt(taken_H)[:, None] * points) / left_H[:, None])
    exact = 2 * float(((after_H400 - norm.cdf(gap / sd_H)[:, None]) ** 2).mean())  # both change, by as much
    assert 0.6 * exact < found[0] < 1.15 * exact
    assert found[2:].max() == 0


def test_what_is_pending_or_known_well_is_worth_less() -> None:
    costs, nothing = np.ones((60, 1)), np.zeros(60, dtype=np.int64)
    drawn = draw_fronts(two_alike(gap=0.0), costs)
    pending = nothing.copy()
    pending[0] = 1
    assert 0 < drawn.expected_changes(pending)[0] < drawn.expected_changes(nothing)[0]
    worn = draw_fronts(two_alike(gap=0.0, counts=(4, 1)), costs).expected_changes(nothing)
    assert worn[0] < worn[1]


def test_the_cheaper_of_two_in_doubt_is_chosen_and_only_what_is_allowed() -> None:
    drawn, nothing = draw_fronts(two_alike(gap=0.0), np.ones((60, 1))), np.zeros(60, dtype=np.int64)
    seconds, is_allowed = np.ones(60), np.ones(60, dtype=bool)
    seconds[0] = 3.0

    def chosen() -> int | None:
        return choose(drawn, num_pending_G=nothing, seconds_G=seconds, is_allowed_G=is_allowed)

    assert chosen() == 1
    is_allowed[1] = False
    assert chosen() == 0
    is_allowed[0] = False
    assert chosen() is None  # the others change nothing


def test_more_trainings_make_the_front_surer() -> None:
    """Which of two is better is told by many trainings of both, as far as the split can tell it."""
    doubt = []
    for count in (1, 8):
        groups = np.concatenate([np.arange(60), np.zeros(count - 1, dtype=int), np.ones(count - 1, dtype=int)])
        logits = 2 + 0.3 * np.random.default_rng(0).standard_normal(60)
        logits[:2] = 3.1, 3.0
        accuracy = 1 / (1 + np.exp(-logits[groups]))
        p = membership(
            fit(accuracy, np.ones((len(groups), 1)), groups, num_images=2000), np.ones((60, 1)), np.arange(60)
        )
        doubt.append(float(np.minimum(p, 1 - p).sum()))
    assert doubt[1] < 0.8 * doubt[0]


# ---------------------------------------------------------------------- a search


def test_a_fifth_of_the_budget_goes_to_new_seeds_of_what_is_in_doubt(tmp_path: Path) -> None:
    _run, session = open_folder(tmp_path, confirming())
    plan = forecast(session, peak_bytes=0)
    assert plan.confirm_seconds == pytest.approx(2.0)
    while lease := session.next():
        carry_out(session, lease)
    trials = again(session)
    assert trials
    dearest = max(trial.device_seconds for trial in session.record)
    assert 2.0 - dearest < sum(trial.device_seconds for trial in trials) <= 2.0 + 1e-9
    assert session.record.confirm_seconds == sum(trial.device_seconds for trial in trials)
    assert session.ledger.left >= 0
    keys = Counter((trial.architecture.digest, trial.seed) for trial in session.record)
    assert set(keys.values()) == {1}
    assert all(trial.seed > MOST_SEEDS for trial in trials)
    first = {trial.architecture.digest for trial in session.record if trial.seed is None}
    assert {trial.architecture.digest for trial in trials} <= first
    members = {trial.architecture.digest for trial in front_of(session.record.complete, session.objectives)}
    assert any(trial.architecture.digest in members for trial in trials)
    assert session.finished
    tested = {trial.architecture.digest for trial in session.record if trial.test_accuracy is not None}
    assert tested == {trial.architecture.digest for trial in session.front}
    assert all(trial.test_accuracy is not None for trial in session.front)


def test_without_it_no_architecture_is_trained_twice(tmp_path: Path) -> None:
    _, session = open_folder(tmp_path, confirming(confirm="off"))
    fill(session)
    assert not again(session)
    assert forecast(session, peak_bytes=0).confirm_seconds == 0


def test_new_seeds_do_not_count_for_the_limit_of_trials_and_are_not_stopped_early(tmp_path: Path) -> None:
    recipe = Recipe(epochs=8, warmup_epochs=1, batch_size=64)
    study = confirming(max_trials=12, stopper="hypervolume", recipe=recipe, budget="20cpu-seconds")
    _, session = open_folder(tmp_path, study)
    while lease := session.next():
        carry_out(session, lease)
    assert sum(trial.is_suggested for trial in session.record) == 12
    assert {trial.state for trial in again(session)} == {TrialState.COMPLETE}


@pytest.mark.parametrize("num_kills", [strikes(30)])
def test_killed_drivers_change_no_decision(tmp_path: Path, num_kills: int) -> None:
    """One search in one go, the other killed in the middle of leases and opened anew."""
    study = confirming(budget="8cpu-seconds", references=("poolformer_s12",))
    _, whole = open_folder(tmp_path / "whole", study)
    while lease := whole.next():
        carry_out(whole, lease)
    rng = random.Random(0)
    _, broken = open_folder(tmp_path / "broken", study)
    total = len(whole.record.trials)
    killed_at = set(rng.sample(range(total), min(num_kills, total))) | {again(whole)[0].number, total - 1}
    while lease := broken.next():
        if lease.task == "train" and lease.trial in killed_at and lease.attempt == 1:
            seconds = broken.expected_seconds(lease.architecture, epochs=lease.epochs)
            report = Report(epoch=1, val_accuracy=noisy(lease), train_loss=1.0, checkpoint="1.pt")
            broken.report(lease.name, report, device_seconds=seconds / lease.epochs)
            _, broken = open_folder(tmp_path / "broken", study)
            continue
        carry_out(broken, lease)
    assert [(t.architecture.digest, t.seed) for t in broken.record] == [
        (t.architecture.digest, t.seed) for t in whole.record
    ]
    assert [t.number for t in broken.front] == [t.number for t in whole.front]
    assert {trial.state for trial in broken.record} == {TrialState.COMPLETE}


@pytest.mark.parametrize("sampler", ["random", *thorough(["tpe", "exact_cost", "nsga2", "regularized_evolution"])])
def test_more_budget_searches_on_and_keeps_a_fifth_of_all_for_new_seeds(tmp_path: Path, sampler: str) -> None:
    for seconds in (5, 10):
        _, session = open_folder(tmp_path, confirming(budget=f"{seconds}cpu-seconds", sampler=sampler))
        before = sum(trial.is_suggested for trial in session.record)
        while lease := session.next():
            carry_out(session, lease)
        assert sum(trial.is_suggested for trial in session.record) > before
        assert 0.1 * seconds < session.record.confirm_seconds <= 0.2 * seconds + 1e-9


def test_what_cannot_be_trained_again_is_left_alone(tmp_path: Path) -> None:
    _, session = open_folder(tmp_path, confirming(max_trials=12))
    while lease := session.next():
        if lease.task == "train" and lease.seed:
            session.fail(lease.name, "loss: must be finite, got nan", device_seconds=0.01)
        else:
            carry_out(session, lease)
    digests = [trial.architecture.digest for trial in again(session)]
    assert len(digests) == len(set(digests)) > 0


def test_a_seed_whose_worker_is_lost_is_tried_again_with_the_same_seed(tmp_path: Path) -> None:
    _, session = open_folder(tmp_path, confirming(max_trials=12))
    seeds = []
    while lease := session.next():
        if lease.task == "train" and lease.seed and len(seeds) < 2:
            seeds.append((lease.trial, lease.seed))
            if len(seeds) == 1:
                session.fail(lease.name, "the worker died", device_seconds=0.0, lost=LossCause.WORKER)
                continue
        carry_out(session, lease)
    assert seeds[0] == seeds[1]


class BySeed(MadeUp):
    """Curves whose ends change with every training."""

    def curve(self, architecture: object) -> Curve:
        self._seed += 1
        return super().curve(architecture)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [0, *thorough(range(1, 5))])
def test_many_devices_share_the_part_and_the_budget_holds(seed: int) -> None:
    """New seeds begin while the last new architectures are still running; nothing waits, and nothing is overdrawn."""
    study = confirming(budget="15cpu-seconds", seed=seed)
    session = session_of(study, IN_MEMORY, num_devices=7)
    curves = BySeed(epochs=study.recipe.epochs, slowness=1.3, seed=seed)
    simulation = Simulator(curves, num_devices=7).begin(session)
    epochs = 0.0
    while simulation.step():
        epochs = max(epochs, *(running.step_seconds for running in simulation.running), 0.0)
    trials = again(session)
    assert trials
    assert session.ledger.spent <= 15 + 7 * epochs
    assert sum(trial.device_seconds for trial in trials) <= 3 + 7 * 3 * epochs
    assert max(Counter((t.architecture.digest, t.seed) for t in session.record).values()) == 1
    assert simulation.result.busy_seconds == pytest.approx(session.ledger.spent)


def test_a_mean_that_falls_leaves_the_front_and_what_it_dominated_comes_back(tmp_path: Path) -> None:
    study = make_study(confirm="50%", references=("poolformer_s12", "poolformer_s24"), max_trials=1)
    _, session = open_folder(tmp_path, study)
    accuracies = {"poolformer_s12": [0.9, 0.5], "poolformer_s24": [0.8]}
    folders = {}
    for _ in range(2):
        lease = session.next()
        assert lease is not None
        trial = session.record.trials[lease.trial]
        folders[trial.reference] = Path(lease.folder)
        _train_to(session, lease, accuracies[str(trial.reference)][0])
    assert [trial.reference for trial in session.front] == ["poolformer_s12"]
    first = session.record.trials[0]
    replicate = session.record.start(first.architecture, references=first.references, seed=101)
    lease = session._train(replicate)
    _train_to(session, lease, accuracies["poolformer_s12"][1])
    assert [(t.reference, t.val_accuracy) for t in session.front] == [
        ("poolformer_s12", pytest.approx(0.7)),
        ("poolformer_s24", 0.8),
    ]


def _train_to(session: Session, lease: Lease, accuracy: float) -> None:
    for epoch in range(1, lease.epochs + 1):
        report = Report(epoch=epoch, val_accuracy=accuracy, train_loss=1.0, checkpoint=f"{epoch}.pt")
        if session.report(lease.name, report, device_seconds=0.1) is Decision.STOP:
            session.finish(lease.name, device_seconds=0.1)


def test_weights_are_kept_as_long_as_a_trial_may_come_back_to_the_front(tmp_path: Path) -> None:
    kept = {}
    for confirm in ("off", "20%"):
        path = tmp_path / confirm
        _run, session = open_folder(path, confirming(confirm=confirm, max_trials=30, budget="20cpu-seconds"))
        while lease := session.next():
            if lease.task == "train":
                Path(lease.folder).mkdir(parents=True, exist_ok=True)
            carry_out(session, lease)
        kept[confirm] = {int(folder.name) for folder in (path / "checkpoints").iterdir()}
        members = {trial.architecture.digest for trial in session.front}
        on_front = {trial.number for trial in session.record.complete if trial.architecture.digest in members}
        assert on_front <= kept[confirm]
    assert on_front < kept["20%"]
    assert {trial.number for trial in session.confirmation.in_doubt()} & kept["20%"] > on_front
    assert len(kept["20%"]) < len(session.record.trials)
