"""Results in words."""

from pathlib import Path

import pytest

import search_spaces
from nas.results.results import block_text
from nas.results.words import (
    cost_text,
    difference,
    large_number,
    listing,
    objective_text,
    objective_titles,
    splitting_text,
)
from nas.study.objectives import choose, find, names
from nas.study.objectives.units import short_count
from nas.study.splitting import Splitting
from tests.nas.runs import make_run, make_study


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (7, "7"),
        (999, "999"),
        (1000, "1.00 k"),
        (152_330, "152 k"),
        (999_700, "1.00 M"),
        (11_915_176, "11.9 M"),
        (1.8227e9, "1.82 G"),
    ],
)
def test_counts_are_written_in_three_figures(count: float, text: str) -> None:
    assert short_count(count) == text


def test_every_objective_has_a_noun_of_its_own() -> None:
    nouns = {name: find(name).noun for name in names()}
    assert len(set(nouns.values())) == len(nouns)
    assert nouns["params"] == "parameters"
    assert nouns["peak_memory"] == "peak memory"


@pytest.mark.parametrize(("words", "text"), [(["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")])
def test_words_are_listed_as_in_a_sentence(words: list[str], text: str) -> None:
    assert listing(words) == text


@pytest.mark.parametrize(("number", "text"), [(999_999, "999,999"), (2 * 10**11, "2.0 × 10¹¹")])
def test_large_numbers_are_powers_of_ten(number: int, text: str) -> None:
    assert large_number(number) == text


@pytest.mark.parametrize(
    ("splitting", "text"),
    [
        (Splitting(), ""),
        (Splitting(images_per_class=1300), "at most 1,300 images of a class to train on"),
        (Splitting(val=0.25, seed=3), "val 25 % of each class, split seed 3"),
        (
            Splitting(val=0.025, images_per_class=1, seed=1),
            "at most 1 image of a class to train on, val 2.5 % of each class, split seed 1",
        ),
    ],
)
def test_splits_are_told_as_far_as_they_differ_from_the_default(splitting: Splitting, text: str) -> None:
    assert splitting_text(splitting) == text


def test_a_difference_speaks_of_every_objective(tmp_path: Path) -> None:
    goals = choose(("latency", "accuracy", "macs"))
    run = make_run(tmp_path / "run", objectives=goals.names, max_trials=2, fail_every=99)
    first, second = run.record.complete[:2]  # hand-designed ones
    said = difference(second, first, goals).split(", ")
    points = 100 * ((second.val_accuracy or 0) - (first.val_accuracy or 0))
    assert said[1].replace("−", "-") == f"{points:+.2f} points"
    for text, now, before in (
        (said[0], second.measured["latency"], first.measured["latency"]),
        (said[2], second.macs, first.macs),
    ):
        assert float(text.split(" %")[0].replace("−", "-")) == pytest.approx(100 * (now / before - 1), abs=0.51)
    assert [text.split()[-1] for text in said] == ["latency", "points", "MACs"]
    assert difference(first, first, goals) == "same latency, same accuracy, same MACs"


def test_a_cost_names_what_was_measured(tmp_path: Path) -> None:
    goals = choose(("accuracy", "latency"))
    trial = make_run(tmp_path / "run", objectives=goals.names, max_trials=1).record.trials[0]
    assert cost_text(trial, goals).endswith(f" MACs, latency {trial.measured['latency']:.3g} ms")
    assert objective_text(goals.members[1], trial) == f"{trial.measured['latency']:.3g} ms"
    assert objective_text(goals.members[1], None) == "–"


def test_titles_of_objectives_say_their_limits() -> None:
    study = make_study(objectives=("accuracy", "latency"), measured_limits={"latency": 3.0})
    assert objective_titles(study) == "validation accuracy (%); latency of one image (ms), at most 3 ms"


def test_blocks_are_told_with_their_structures() -> None:
    space = search_spaces.get("t2t_structures")
    genes = space.encode(space.references()["t2t_vit_14"])
    texts = {name: block_text(space.decode({**genes, "structure": name})) for name in ("plain", "se", "ghost", "dense")}
    plain = "layer_norm, MLP 3, {}positions, class token, drop path"
    told = {"plain": "", "se": "excitation, ", "ghost": "ghosts, ", "dense": "dense, "}
    assert texts == {name: plain.format(text) for name, text in told.items()}
