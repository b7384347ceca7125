"""What is read from searches that really trained; the searches themselves are those of other tests."""

from contextlib import closing
from pathlib import Path

import pytest

from benchmarks.real_searches import at, drawn, on_test, reached, spread
from nas.results.comparison.comparison import Comparison
from tests.nas.runs import make_run


def test_the_hypervolume_at_a_moment_is_that_of_what_had_ended() -> None:
    points = [(0.0, 0.0), (10.0, 0.3), (20.0, 0.5)]
    assert [at(points, seconds) for seconds in (5, 10, 15, 99)] == [0.0, 0.3, 0.3, 0.5]


def test_a_search_has_reached_a_hypervolume_at_the_first_moment_that_has_as_much() -> None:
    points = [(0.0, 0.0), (10.0, 0.3), (20.0, 0.5)]
    assert [reached(points, enough) for enough in (0.0, 0.2, 0.3, 0.5, 0.6)] == [0.0, 10.0, 10.0, 20.0, float("inf")]


def test_means_have_their_spread() -> None:
    assert spread([0.5]) == "0.5000"
    assert spread([1.0, 2.0, 3.0], 1) == "2.0 ± 1.0"


def test_accuracies_on_test_take_the_place_of_those_that_chose_the_front(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name, max_trials=20, seed=seed) for seed, name in enumerate("ab")]
    comparison = Comparison(runs)
    with closing(runs[0].record), closing(runs[1].record):
        for trial in comparison.runs[0].front:
            trial.test_accuracy = trial.val_accuracy
        assert on_test(comparison, 0) == pytest.approx(comparison.hypervolume(0))
        for trial in comparison.runs[0].front:
            trial.test_accuracy = (trial.val_accuracy or 0.0) - 0.1
        assert on_test(comparison, 0) < comparison.hypervolume(0)
        for trial in comparison.runs[1].front:
            trial.test_accuracy = None
        assert on_test(comparison, 1) == 0.0


def test_the_picture_has_two_lines_for_each_run_and_one_name_for_each_sampler(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / f"{seed}", max_trials=20, seed=seed) for seed in range(4)]
    comparison = Comparison(runs)
    figure = drawn(comparison, ["one", "other"], 2)
    assert [line.name for line in figure.data] == ["one", "one", "other", "other"] * 2
    assert [line.name for line in figure.data if line.showlegend] == ["one", "other"]
    assert [tuple(line.y)[-1] for line in figure.data[::2]] == [comparison.progress(place)[-1][1] for place in range(4)]
    for run in runs:
        run.record.close()
