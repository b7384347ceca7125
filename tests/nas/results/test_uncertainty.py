"""Error bars: intervals, probabilities and expectations beside closed forms and simulated truth."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit
from scipy.stats import beta, norm

from metaformer.architecture import Architecture
from nas.record.run_folder import Run, open_run
from nas.record.trials import TrialRecord
from nas.results.console import make_console, print_summary
from nas.results.report_files import summarise, write_report
from nas.results.results import Results
from nas.results.uncertainty import CLEAR, Uncertainty
from nas.results.words import interval_text, probability_text, standing_text
from nas.session.certainty.front import membership
from nas.session.certainty.noise import SEED_SD, Hyperparameters, Posterior, expected_on_test, fit, mean_accuracy
from nas.study.budget import Budget
from nas.study.lease import Report
from tests.nas.results.pages import read_csv, read_page
from tests.nas.runs import NUM_IMAGES, make_run, make_study, open_folder
from tests.nas.searches.test_earlier_version import restore


def posterior_of(means: list[float], variances: list[float]) -> Posterior:
    """Independent normal logits of known means and variances."""
    zeros_G = np.zeros(len(means))
    hyper = Hyperparameters(np.zeros((1, 1)), 0.0, np.ones(1), np.ones(1), np.zeros(1))
    return Posterior(
        mean_HG=np.array([means]),
        var_HG=np.array([variances]),
        split_G=zeros_G,
        training_HG=zeros_G[None] + 1,
        counts_G=np.ones(len(means), dtype=np.int64),
        own_N=zeros_G,
        own_var_G=zeros_G,
        hyper=hyper,
        seed=0,
    )


@pytest.mark.parametrize(("right", "images"), [(200, 400), (360, 400), (45, 50), (390, 400)])
def test_the_interval_of_a_single_trial_is_nearly_that_of_the_binomial(right: int, images: int) -> None:
    """Clopper and Pearson's is the oracle; the spread between seeds comes on top."""
    posterior = fit(np.array([right / images]), np.ones((1, 2)), np.array([0]), num_images=images)
    low, high = (float(end[0]) for end in posterior.interval())
    exact = beta.ppf(0.05, right, images - right + 1), beta.ppf(0.95, right + 1, images - right)
    half = (exact[1] - exact[0]) / 2
    assert (low, high) == (pytest.approx(exact[0], abs=0.25 * half), pytest.approx(exact[1], abs=0.25 * half))


@given(st.floats(-3, 3), st.floats(0.01, 2), st.floats(0.01, 2))
def test_of_two_trials_of_equal_cost_one_is_on_the_front_as_the_closed_form_says(
    gap: float, first: float, second: float
) -> None:
    posterior = posterior_of([1 + gap, 1.0], [first, second])
    p = float(norm.cdf(gap / math.sqrt(first + second)))
    assert posterior.p_greater(np.array([0]), 1)[0] == pytest.approx(p)
    found = membership(posterior, np.ones((2, 2)), np.array([0, 1]))
    assert found == pytest.approx([p, 1 - p], abs=0.05)  # 2,048 draws: more than four standard errors


def test_of_two_trials_the_cheaper_one_is_surely_on_the_front() -> None:
    posterior = posterior_of([0.0, 0.5], [0.5, 0.5])
    cheaper, dearer = membership(posterior, np.array([[1.0, 1.0], [1.0, 2.0]]), np.array([0, 1]))
    assert cheaper == 1
    assert dearer == pytest.approx(norm.cdf(0.5), abs=0.05)
    assert list(membership(posterior, np.array([[1.0, 2.0], [2.0, 1.0]]), np.array([0, 1]))) == [1, 1]


def test_three_alike_are_on_the_front_in_turn() -> None:
    found = membership(posterior_of([1.0] * 3, [0.2] * 3), np.ones((3, 1)), np.arange(3))
    assert found == pytest.approx([1 / 3] * 3, abs=0.05)


def test_trials_of_one_architecture_stay_on_the_front_together() -> None:
    posterior = posterior_of([1.0, 0.0], [0.1, 0.1])
    together = membership(posterior, np.ones((3, 1)), np.array([0, 0, 1]))
    assert together[0] == together[1] == pytest.approx(norm.cdf(1 / math.sqrt(0.2)), abs=0.02)
    latency = np.array([[1.0, 3.0], [1.0, 2.0], [9.0, 9.0]])  # the second time it was measured as faster
    assert list(membership(posterior, latency, np.array([0, 0, 1]))[:2]) == [0, 1]
    assert posterior.p_greater(np.array([0]), 0)[0] == 0


def test_rivals_met_one_by_one_and_the_highest_of_all_give_the_same_members() -> None:
    """A third cost that is the same everywhere changes only the way; some costs are equal, as some trials are."""
    rng = np.random.default_rng(0)
    posterior = posterior_of(rng.normal(size=60).tolist(), (rng.uniform(0.05, 1, 60) ** 2).tolist())
    group_N = np.concatenate([np.arange(60), np.arange(20)])
    costs_NC = rng.integers(1, 12, size=(60, 2)).astype(float)[group_N]
    found = membership(posterior, costs_NC, group_N)
    assert 0 < found.min() + 0.01 < found.max() <= 1
    one_by_one = membership(posterior, np.column_stack([costs_NC, np.ones(80)]), group_N)
    assert list(found) == list(one_by_one)
    first = membership(posterior, costs_NC[:, :1], group_N)
    assert list(first) == list(membership(posterior, np.column_stack([costs_NC[:, [0, 0, 0]]]), group_N))


def test_a_trial_far_behind_is_off_the_front() -> None:
    found = membership(posterior_of([3.0, 0.0], [0.01, 0.01]), np.ones((2, 1)), np.arange(2))
    assert found == pytest.approx([1, 0], abs=1e-9)


@given(st.floats(-4, 6), st.floats(0, 1))
def test_the_mean_accuracy_is_that_of_many_draws(mean: float, sd: float) -> None:
    draws = expit(mean + sd * norm.ppf((np.arange(4000) + 0.5) / 4000))
    assert mean_accuracy(np.array([mean]), np.array([sd**2]))[0] == pytest.approx(draws.mean(), abs=2e-4)


def made_up(
    rng: np.random.Generator, *, trials: int = 40, images: int = 500, spread: float = 0.3
) -> tuple[np.ndarray, ...]:
    """Costs (N, 2), true logits (N,) and accuracies on val (N,)."""
    costs = 10 ** rng.uniform(4, 6, (trials, 2))
    true = 2 + 0.3 * np.log10(costs / 1e5).mean(axis=1) + rng.normal(0, spread, trials)
    own = expit(true + rng.normal(0, SEED_SD, trials))
    return costs, true, rng.binomial(images, own) / images


def test_probabilities_are_true_as_often_as_they_say() -> None:
    """Errors of the split are independent here, the case that is hardest on the assumption that a part is shared."""
    rng = np.random.default_rng(0)
    said, was, seen = [], [], []
    for _ in range(120):
        costs, true, accuracy = made_up(rng)
        no_dearer = (costs[:, None] <= costs).all(axis=2) & ~np.eye(len(costs), dtype=bool)
        said.append(membership(fit(accuracy, costs, np.arange(40), num_images=500), costs, np.arange(40)))
        was.append(~(no_dearer & (true[:, None] > true)).any(axis=0))
        seen.append(~(no_dearer & (accuracy[:, None] >= accuracy)).any(axis=0))
    p, is_member, is_seen = np.concatenate(said), np.concatenate(was), np.concatenate(seen)
    for low, high in ((0.05, 0.3), (0.3, 0.7), (0.7, 0.85), (0.85, 0.95)):
        chosen = (p >= low) & (p < high)
        assert chosen.sum() > 100
        assert is_member[chosen].mean() == pytest.approx(p[chosen].mean(), abs=0.07)
    assert is_member[is_seen].mean() < 0.93  # the front of val itself is less sure than it looks


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    held = []
    for _ in range(60):
        costs, true, accuracy = made_up(rng)
        low, high = fit(accuracy, costs, np.arange(40), num_images=500).interval()
        held.append((low <= expit(true)) & (expit(true) <= high))
    assert 0.86 < np.concatenate(held).mean() < 0.96


def test_the_best_of_many_equal_models_is_not_believed() -> None:
    rng = np.random.default_rng(2)
    drops = []
    for _ in range(20):
        accuracy = rng.binomial(400, 0.9, 100) / 400
        posterior = fit(accuracy, 10 ** rng.uniform(4, 6, (100, 2)), np.arange(100), num_images=400)
        best = int(accuracy.argmax())
        drops.append((accuracy[best] - expected_on_test(posterior, np.arange(100))[best], accuracy[best] - 0.9))
    expected, true = np.mean(drops, axis=0)
    assert true > 0.03
    assert 0.5 * true < expected < 1.1 * true  # errors are independent here, which the model does not assume


def test_replicates_tell_how_much_seeds_vary() -> None:
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(20), 4)
    own = expit(rng.normal(2, 0.3, 20)[groups] + rng.normal(0, 0.3, 80))
    costs = 10 ** rng.uniform(4, 6, (20, 2))[groups]
    learned = fit(rng.binomial(20000, own) / 20000, costs, groups, num_images=20000)
    assert learned.hyper.seed_sd == pytest.approx(0.3, rel=0.25)
    single = fit(own[::4], costs[::4], np.arange(20), num_images=20000)
    assert single.hyper.seed_sd == pytest.approx(SEED_SD, rel=0.5)


@given(st.floats(0, 1))
def test_a_toss_up_is_never_called_dominance(p: float) -> None:
    text = standing_text("#7", "poolformer_s12", p)
    assert ("dominates" in text) == (p >= CLEAR)
    assert ("tied" in text) == (1 - CLEAR < p < CLEAR)


def test_certainty_in_words(tmp_path: Path) -> None:
    assert standing_text("#7", "poolformer_s12", 0.97) == "#7 dominates poolformer_s12 with p = 0.97"
    assert standing_text("#7", "poolformer_s12", 0.5) == "#7 is tied with poolformer_s12 (p = 0.50)"
    assert standing_text("#7", "poolformer_s12", 0.02) == "#7 is worse than poolformer_s12 (p = 0.02)"
    assert standing_text("#7", "poolformer_s12", None) == "#7 is no worse than poolformer_s12 on val"
    assert [probability_text(p) for p in (0.9999, 0.0001, 0.904)] == ["p > 0.99", "p < 0.01", "p = 0.90"]
    results = Results(make_run(tmp_path / "run", max_trials=1, references=()))
    estimate = results.estimate(results.front[0])
    assert estimate is not None
    assert interval_text(replace(estimate, low=0.908, high=0.924)) == "91.6 ± 0.8 %"
    assert interval_text(replace(estimate, low=0.9995, high=0.9999)) == "99.97 ± 0.02 %"
    assert interval_text(None) == "–"


def end(run: Run, architecture: Architecture, accuracy: float, *references: str) -> TrialRecord:
    """A complete trial of that accuracy."""
    trial = run.record.start(architecture, references=references)
    epoch = Report(epoch=3, val_accuracy=accuracy, train_loss=1.0, checkpoint="3.pt")
    trial.progress = trial.progress.model_copy(update={"curve": (epoch,)})
    run.record.end(trial, "complete")
    return trial


@pytest.mark.parametrize(("lead", "verb"), [(0, "is tied with"), (60, "dominates")])
def test_the_page_says_dominates_only_of_what_is_clear(tmp_path: Path, lead: int, verb: str) -> None:
    """A found model with fewer parameters and MACs that is right on `lead` more images."""
    run, _ = open_folder(tmp_path / "run", make_study(references=("poolformer_s24",)))
    run.record.note(num_images=NUM_IMAGES)
    known = run.space.references()
    end(run, known["poolformer_s24"], 260 / 360, "poolformer_s24")
    end(run, known["poolformer_s12"], (260 + lead) / 360)
    page = read_page(write_report(run))
    assert f"#1 {verb} poolformer_s24" in page.tables["references"][1][-1]
    said = "all is dominated by a found one." if lead else "none are dominated by a found one and 1 is tied with one."
    assert f"Of 1 hand-designed model, {said}" in page.text
    assert "They rest on 360 val images and on a prior of the spread between seeds" in page.text


def test_the_same_run_has_the_same_error_bars_each_time(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", max_trials=8)
    first, second = (Results(run) for _ in range(2))
    assert [first.estimate(trial) for trial in first.trials] == [second.estimate(trial) for trial in second.trials]


def test_tables_and_console_have_error_bars(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run", max_trials=8)
    write_report(run)
    results = Results(run)
    for row in read_csv(run.folder.trials_csv):
        estimate = results.estimate(run.record.trials[int(row["trial"])])
        shown = [row[name] for name in ("val_low", "val_high", "p_on_front")]
        if estimate is None:
            assert row["state"] != "complete"
            assert shown == ["", "", ""]
        else:
            assert [float(text) for text in shown] == [estimate.low, estimate.high, estimate.p_on_front]
            assert 0 < estimate.low < estimate.expected < estimate.high < 1
    front = read_csv(run.folder.front_csv)
    assert all(0 <= float(row["p_on_front"]) <= 1 for row in front)
    summary: dict = summarise(run)  # type: ignore[type-arg]
    assert [member["p_on_front"] for member in summary["front"]] == [float(row["p_on_front"]) for row in front]
    assert summary["uncertainty"]["num_val"] == NUM_IMAGES["val"]
    bars = read_page(run.folder.report_html).charts["params-accuracy"]["data"][2]["error_y"]
    assert all(end >= 0 for end in (*bars["array"], *bars["arrayminus"]))
    _, session = open_folder(tmp_path / "run", run.study)
    print_summary(make_console(as_json=False), session, run.folder, Budget.parse(run.study.budget))
    out = capsys.readouterr().out
    assert all(interval_text(results.estimate(trial)) in out for trial in results.front)
    assert "Expected on test: " in out


def test_a_run_of_version_0_1_has_error_bars(tmp_path: Path) -> None:
    run = open_run(restore(tmp_path / "begun"))
    write_report(run)
    front = read_csv(run.folder.front_csv)
    assert front
    assert all(float(row["val_low"]) < float(row["val_high"]) for row in front)


def test_a_run_that_noted_no_number_of_images_opens_without_error_bars(tmp_path: Path) -> None:
    run, _ = open_folder(tmp_path / "run", make_study(references=("poolformer_s12", "poolformer_s24")))
    known = run.space.references()
    end(run, known["poolformer_s24"], 0.8, "poolformer_s24")
    end(run, known["poolformer_s12"], 0.9)
    page = read_page(write_report(run))
    assert "There are no error bars, since the number of val images was not noted." in page.text
    assert "#1 is no worse than poolformer_s24 on val" in page.text
    assert summarise(run)["uncertainty"] is None
    assert [row["p_on_front"] for row in read_csv(run.folder.front_csv)] == [""]


def test_nothing_is_estimated_of_no_trials() -> None:
    goals = make_study().goals
    assert Uncertainty.of([], goals, 360) is None
    with pytest.raises(ValueError, match="trials, num_val: must be at least one, got 0 and 360"):
        Uncertainty([], goals, num_val=360)


def test_accuracies_of_nought_and_one_are_not_taken_as_certain() -> None:
    accuracy = np.array([0.0, 0.5, 1.0])
    low, high = fit(accuracy, np.ones((3, 1)), np.arange(3), num_images=50).interval()
    assert (low < high).all()
    assert low[2] < 0.98
    assert high[0] > 0.02
    assert np.isfinite(logit(low)).all()
