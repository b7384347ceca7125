"""What is said of models that were trained several times."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from nas.record.replicates import by_architecture, mean_trial
from nas.record.run_folder import Run
from nas.results.comparison.comparison import Comparison
from nas.results.exports.card import card_text
from nas.results.exports.subject import Subject
from nas.results.finish.finals import Spread, finals_of, rank_correlation
from nas.results.finish.view import finals_lines, print_finals, standing_lines
from nas.results.picks import pick_trial
from nas.results.report_files import summarise, write_report
from nas.results.results import Results
from nas.session.session import Decision, Session
from nas.study.lease import Report
from nas.study.study import Study
from tests.nas.finals.runs import study_of_finals
from tests.nas.runs import NUM_IMAGES, make_run, open_folder

# Of each model, by seed: the cheapest two are ordered otherwise by their best seeds than by their means.
VAL = [(0.60, 0.90), (0.80, 0.82), (0.85, 0.87)]
TEST = [(0.61, 0.89), (0.78, 0.80), (0.84, 0.84)]


def carry_out(session: Session, study: Study) -> None:
    """Carry out all leases with the accuracies above."""
    assert study.finals is not None
    place = {study.make_space().decode(model.genes).digest: i for i, model in enumerate(study.finals.models)}
    while lease := session.next():
        row = place[lease.architecture.digest]
        if lease.task == "test":
            session.tested(lease.name, TEST[row][lease.seed - 1], device_seconds=0.01)
            continue
        for epoch in range(1, lease.epochs + 1):
            accuracy = VAL[row][lease.seed - 1] * epoch / lease.epochs
            report = Report(epoch=epoch, val_accuracy=accuracy, train_loss=1.0, checkpoint=f"{epoch}.pt")
            if session.report(lease.name, report, device_seconds=0.1 * epoch) is Decision.STOP:
                break
        session.finish(lease.name, device_seconds=0.1 * lease.epochs)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    study = study_of_finals()
    run, session = open_folder(tmp_path_factory.mktemp("runs") / "finish", study)
    carry_out(session, study)
    run.record.note(num_images=NUM_IMAGES)
    return run


def test_trainings_of_one_architecture_are_one_model_with_their_mean(run: Run) -> None:
    groups = by_architecture(run.record.complete)
    assert [[trial.seed for trial in group] for group in groups] == [[1, 2]] * 3
    for group, val, test in zip(groups, VAL, TEST, strict=True):
        mean = mean_trial(group)
        assert mean.number == group[0].number
        assert mean.val_accuracy == pytest.approx(sum(val) / 2)
        assert mean.test_accuracy == pytest.approx(sum(test) / 2)
        assert [report.val_accuracy for report in mean.progress.curve] == pytest.approx(
            [sum(val) / 2 * epoch / 3 for epoch in (1, 2, 3)]
        )


def test_one_training_is_its_own_mean_and_an_untested_one_takes_no_part_in_that_of_test(run: Run) -> None:
    first, second = by_architecture(run.record.complete)[0]
    assert mean_trial([first]) is first
    assert mean_trial([first, replace(second, test_accuracy=None)]).test_accuracy == first.test_accuracy


def test_the_front_is_that_of_means(run: Run) -> None:
    results = Results(run)
    assert len(results.complete) == 3
    assert [trial.val_accuracy for trial in results.front] == pytest.approx([0.75, 0.81, 0.86])
    best_seed = max(run.record.complete, key=lambda trial: trial.val_accuracy or 0.0)
    assert best_seed.val_accuracy == 0.9
    assert results.best is not None
    assert results.best.val_accuracy == pytest.approx(0.86)


def test_each_model_has_means_spreads_and_its_probability_of_membership(run: Run) -> None:
    finals = finals_of(Results(run))
    assert [final.name for final in finals] == ["#4", "#7", "poolformer_s12"]
    for final, val, test in zip(finals, VAL, TEST, strict=True):
        assert final.is_on_front
        assert final.val is not None
        assert final.test is not None
        assert (final.val.mean, final.val.sd) == pytest.approx((sum(val) / 2, abs(val[1] - val[0]) / 2**0.5))
        assert final.test.mean == pytest.approx(sum(test) / 2)
        assert final.estimate is not None
        assert final.estimate.low < final.val.mean < final.estimate.high
        assert 0 <= final.estimate.p_on_front <= 1


def test_a_spread_needs_two() -> None:
    assert Spread.of([]) is None
    assert Spread.of([0.5]) == Spread(0.5, None)
    assert str(Spread.of([0.5])) == "50.00 %"
    assert str(Spread.of([0.4, 0.6])) == "50.00 ± 14.14 %"


def test_ranks_are_compared_where_there_are_five_models(run: Run) -> None:
    finals = finals_of(Results(run))
    assert rank_correlation(finals) is None
    accuracies = [0.5, 0.6, 0.7, 0.8, 0.9, 0.95]
    order = [0.5, 0.6, 0.8, 0.7, 0.9, 0.95]
    many = [
        replace(
            finals[0],
            model=finals[0].model.model_copy(update={"val_accuracy": seen}),
            test=Spread(reached, None),
        )
        for seen, reached in zip(accuracies, order, strict=True)
    ]
    found = rank_correlation(many)
    assert found is not None
    assert found.tau == pytest.approx(13 / 15)  # one pair of 15 is the other way round
    assert found.low <= found.tau <= found.high <= 1
    worst = rank_correlation(
        [replace(final, test=Spread(1 - seen, None)) for final, seen in zip(many, accuracies, strict=True)]
    )
    assert worst is not None
    assert [worst.tau, worst.low, worst.high] == pytest.approx([-1, -1, -1])


def test_the_console_the_page_the_table_and_the_json_say_the_same(run: Run) -> None:
    path = write_report(run)
    results = Results(run)
    finals = finals_of(results)
    with (console := Console(width=200)).capture() as capture:
        print_finals(console, results)
    page, printed = path.read_text(encoding="utf-8"), capture.get()
    frame = pd.read_csv(run.folder.finals_csv)
    summary = json.loads(json.dumps(summarise(run)))
    table = re.search(r'<table class="sortable" id="finals">.*?</table>', page, re.DOTALL)
    assert table is not None
    for final, row, plain in zip(finals, frame.to_dict("records"), summary["finals"], strict=True):
        assert str(final.val) in printed
        assert str(final.test) in table[0]
        assert row["model"] == final.name
        assert row["seeds"] == 2
        assert final.val is not None
        assert row["val_mean"] == pytest.approx(final.val.mean)
        assert plain["val_mean"] == pytest.approx(final.val.mean)
        assert plain["seeds"] == [1, 2]
        assert plain["search_val_accuracy"] == final.model.val_accuracy
    assert "Too few models" in page
    assert summary["rank_correlation"] is None
    trials = pd.read_csv(run.folder.trials_csv)
    assert list(trials["seed"]) == [1, 1, 1, 2, 2, 2]
    assert trials["on_front"].all()


def test_hand_designed_models_stand_to_the_found_ones_by_their_names_in_the_search(run: Run) -> None:
    results = Results(run)
    [line] = standing_lines(results, finals_of(results))
    [reference] = results.references
    assert line.startswith(f"poolformer_s12: {reference.verdict}")
    found = {f"#{final.model.trial}" for final in finals_of(results) if not final.model.references}
    assert set(re.findall(r"#\d+", line)) <= found
    assert len(re.findall(r"#\d+ \(p [=<>] [\d.]+\)", line)) == len(reference.rivals) > 0


def test_trainings_that_are_missing_are_counted(tmp_path: Path) -> None:
    run, session = open_folder(tmp_path, study_of_finals())
    assert session.next() is not None
    results = Results(run)
    finals = finals_of(results)
    assert [final.val for final in finals] == [None] * 3
    assert "6 trainings of 6 did not complete." in finals_lines(results, finals)
    assert write_report(run).exists()


def test_a_search_says_nothing_of_finals(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    assert finals_of(Results(run)) == []
    assert "finals" not in summarise(run)
    assert "Trained to the end" not in write_report(run).read_text(encoding="utf-8")
    assert not run.folder.finals_csv.exists()
    assert "seed" not in pd.read_csv(run.folder.trials_csv).columns


def test_the_card_of_an_export_tells_of_all_trainings(run: Run) -> None:
    trial = pick_trial(run, "best")
    text = card_text(Subject(run, trial, "python -m nas.export"))
    assert "| Trainings | 2 with seeds of their own" in text
    assert "86.00 ± 1.41 %" in text
    assert "| Seed | 1 |" in text


def test_picks_are_by_means_and_name_the_first_of_the_trainings(run: Run) -> None:
    best = pick_trial(run, "best")
    assert (best.number, best.seed, best.val_accuracy) == (2, 1, 0.85)  # the luckiest of all is another one, with 0.9
    least = min(trial.params for trial in run.record)
    assert pick_trial(run, f"max_params={least}").number == 0


def test_a_search_and_its_finals_stand_side_by_side_and_every_training_counts(run: Run, tmp_path: Path) -> None:
    comparison = Comparison([make_run(tmp_path / "search"), run])
    assert comparison.uncertainty is not None
    assert comparison.uncertainty.num_replicates == 6  # the search has trained the three models by the same recipe
    means = {trial.number: trial.val_accuracy for trial in Results(run).complete}
    members = [member.trial for member in comparison.front if member.run == 1]
    assert members
    assert all(trial.val_accuracy == means[trial.number] for trial in members)
    assert {standing.num_members for standing in comparison.standings if standing.second == 1} == {3}
