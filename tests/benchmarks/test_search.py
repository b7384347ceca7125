"""The comparison of samplers on tables: the table as a space, the correction of p-values, and one small run."""

import itertools
import random
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import typer

from benchmarks.attainment import surface
from benchmarks.halving import STUDY, TABLE
from benchmarks.hindsight import search_with_hindsight
from benchmarks.moasha import search_by_moasha
from benchmarks.search import Searched, ask_optuna, ask_proposer, attainment_of, compare, holm, in_virtual_time
from benchmarks.tables import TableSpace
from benchmarks.virtual_time import Reached, settings, study_and_curves
from metaformer.errors import UserError
from nas.record.trials import TrialRecord, TrialState
from nas.session.pareto import HypervolumeScale, front_of
from nas.study.lease import Report
from search_spaces.enumeration import architectures_within
from search_spaces.space import Limits

HEADER = "edges,accuracy_seed0,accuracy_seed1,cell_macs_M,params_M\n"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """24 rows; every third lacks its second seed, and with it the cell."""
    rng = random.Random(0)
    lines = [HEADER]
    for number, edges in enumerate(itertools.product("012", "0123", "01")):
        macs, params = sum(map(int, edges)), 1 + int(edges[1])
        seeds = [f"{60 + 5 * macs + rng.random():.3f}" for _ in range(1 + bool(number % 3))]
        lines.append(",".join(["".join(edges), *seeds, f"{macs}.5", str(params)]) + "\n")
    path = tmp_path / "table.csv"
    path.write_text("".join(lines))
    return path


def test_every_row_of_a_table_is_an_architecture_with_its_costs(table: Path) -> None:
    space = TableSpace(table)
    archs = list(architectures_within(space, Limits()))
    assert sorted(space.row(arch) for arch in archs) == list(range(24))
    assert all(space.decode(space.encode(arch)) == arch for arch in archs)
    [last] = [arch for arch in archs if set(space.encode(arch).values()) == {"2", "3", "1"}]
    assert (space.cost(last).macs, space.cost(last).params) == (6_500_000, 4_000_000)
    assert space.accuracy[space.row(last)] == pytest.approx(0.90, abs=0.01)
    within = list(architectures_within(space, Limits(max_macs=1_500_000)))
    assert {space.cost(arch).macs for arch in within} == {500_000, 1_500_000}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER, "table: must have a row, got none in .*"),
        ("edges,macs\n00,1\n", "table: must have columns of genes, accuracy and macs, got edges, macs"),
        (HEADER + "00,1,1,1,1\n11,1,1,1,1\n", "table: must have one row for each combination of genes, got 2 in .*"),
        (HEADER + "00,1,1,1,1,1\n", "table: must have 5 cells in a row, got 00,1,1,1,1,1"),
    ],
)
def test_a_table_of_another_form_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        TableSpace(path)


@pytest.mark.parametrize("objectives", [("accuracy", "macs"), ("accuracy", "macs", "params")])
def test_exact_cost_tries_every_row_once_and_repeats_itself_for_a_seed(
    table: Path, objectives: tuple[str, ...]
) -> None:
    space = TableSpace(table)
    rows = ask_proposer("exact_cost", space, objectives, trials=100, seed=3)
    assert sorted(rows) == list(range(24))
    assert ask_proposer("exact_cost", space, objectives, trials=100, seed=3) == rows
    assert ask_proposer("exact_cost", space, objectives, trials=100, seed=4) != rows


@pytest.mark.parametrize(("sampler", "trials"), [("optuna_random", 30), ("optuna_gp", 12), ("botorch_qnehvi", 12)])
def test_a_peer_is_asked_for_so_many_trials_and_may_repeat_itself(table: Path, sampler: str, trials: int) -> None:
    if sampler == "botorch_qnehvi":
        pytest.importorskip("optuna_integration.botorch", reason="needs optuna-integration and botorch")
    rows = ask_optuna(sampler, TableSpace(table), ("accuracy", "macs"), trials=trials, seed=0)
    assert len(rows) == trials
    assert set(rows) <= set(range(24))


def test_a_peer_that_is_not_installed_says_what_to_install(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna_integration.botorch", None)
    with pytest.raises(typer.BadParameter, match="botorch_qnehvi needs pip install optuna-integration botorch"):
        ask_optuna("botorch_qnehvi", TableSpace(table), ("accuracy", "macs"), trials=1, seed=0)


def test_holm_multiplies_by_how_many_are_left_and_never_falls() -> None:
    """By hand: 4 x 0.01, 3 x 0.02, 2 x 0.03, and 0.05, which may not be less than the one before it."""
    p = np.array([[0.03, 0.01], [0.05, 0.02]])
    np.testing.assert_allclose(holm(p), [[0.06, 0.04], [0.06, 0.06]])


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_the_comparison_prints_one_table_and_writes_it(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], processes: int
) -> None:
    out = tmp_path / "out.md"
    compare(
        table,
        samplers="exact_cost,optuna_random",
        trials=50,
        seeds=2,
        first_seed=0,
        objectives=3,
        processes=processes,
        out=out,
    )
    text = out.read_text()
    assert text in capsys.readouterr().out
    assert text.splitlines()[2] == "| exact_cost | 1.0000 | 1.0000 | 0 % |"


def test_curves_may_be_those_of_any_table_beside_its_study(tmp_path: Path) -> None:
    lines = TABLE.read_text().splitlines()[:20]
    (tmp_path / "few.csv").write_text("\n".join(lines) + "\n")
    shutil.copy(STUDY, tmp_path / "few.yaml")
    study, curves = study_and_curves(tmp_path / "few.csv")
    assert (study.data, study.sampler, study.max_trials) == ("digits", "random", curves.num_complete)
    assert curves.num_complete == len({line.partition(",")[0] for line in lines[1:]})
    assert curves.num_images == study_and_curves()[1].num_images


def test_hindsight_trains_few_of_what_was_tried_and_comes_as_far() -> None:
    study, curves = study_and_curves()
    rng, space = random.Random(0), study.make_space()
    tried = []
    for number in range(20):
        arch = space.sample(rng)
        cost = space.cost(arch)
        accuracy = curves.curve(arch).val_accuracies[-1]
        report = Report(epoch=study.recipe.epochs, val_accuracy=accuracy, train_loss=1.0, checkpoint="x")
        trial = TrialRecord(number, arch, cost.params, cost.macs, number, state=TrialState.COMPLETE)
        trial.add_epoch(report)
        tried.append(trial)
    scale = HypervolumeScale.of(space, study.goals)
    enough = scale.hypervolume([study.goals.values(trial) for trial in tried])
    found = search_with_hindsight(study, curves, tried, enough=enough)
    assert 0 < found.num_trials < len(front_of(tried, study.goals))
    volumes = [moment.hypervolume for moment in found.progress]
    assert volumes[-2] < enough <= volumes[-1]
    rises = np.diff(volumes) / np.diff([moment.device_seconds for moment in found.progress])
    assert (np.diff(rises) <= 1e-12).all()  # each adds less for its time than the one before
    all_seconds = sum(curves.curve(trial.architecture).epoch_seconds * study.recipe.epochs for trial in tried)
    assert found.progress[-1].device_seconds < all_seconds


def test_moasha_spends_a_budget_in_virtual_time_and_repeats_itself_for_a_seed() -> None:
    pytest.importorskip("syne_tune", reason="needs syne-tune")
    study, curves = study_and_curves()
    asked = study.model_copy(update={"budget": "2cpu-minutes", "seed": 3})
    found = search_by_moasha(asked, curves, num_devices=8)
    assert found == search_by_moasha(asked, curves, num_devices=8)
    assert 0 < found.num_complete < found.num_trials
    assert 120 <= found.progress[-1].device_seconds < 130
    seconds, hypervolumes, _ = zip(*found.progress, strict=True)
    assert list(seconds) == sorted(seconds)
    assert list(hypervolumes) == sorted(hypervolumes)
    assert hypervolumes[-1] > 0
    sooner = search_by_moasha(asked, curves, num_devices=8, enough=hypervolumes[1])
    assert sooner.progress[:2] == found.progress[:2]
    assert sooner.progress[-1].device_seconds == seconds[1]


def test_moasha_says_what_to_install_and_has_one_row_for_each_number_of_devices(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "syne_tune.config_space", None)
    study, curves = study_and_curves()
    with pytest.raises(typer.BadParameter, match="syne_tune_moasha needs pip install syne-tune"):
        search_by_moasha(study, curves, num_devices=1)
    found = settings(["exact_cost", "syne_tune_moasha", "hindsight"], stopper="chance", devices=[8])
    assert [(own.sampler, own.stopper) for own in found] == [
        ("exact_cost", "none"),
        ("exact_cost", "chance"),
        ("syne_tune_moasha", "its own"),
        ("hindsight", "none"),
    ]


def test_a_search_that_never_reaches_tpe_counts_as_one_that_takes_longer() -> None:
    searches = settings(["exact_cost"], stopper="rank", devices=[8])
    soon, never = Reached(0.25, 0.9, 0.9, 30, 100), Reached(np.inf, 0.8, 0.9, 120, 100)
    lines = in_virtual_time(searches, [[soon, never]] * 8).splitlines()
    assert [line.split(" | ")[:6] for line in lines[2:]] == [
        ["| 8", "exact_cost", "none", "0.25", "0.25 to 0.25", "0 of 8"],
        ["| 8", "exact_cost", "rank", "inf", "inf to inf", "8 of 8"],
    ]
    assert [line.split(" | ")[-1] for line in lines[2:]] == ["0.02 |", "0.02 |"]


def test_a_median_surface_is_what_half_of_the_searches_attain() -> None:
    """By hand: of two searches half attain what the better one does, and all what both do."""
    searches = [np.array([[1.0, 0.5], [3.0, 0.1]]), np.array([[2.0, 0.4], [4.0, 0.2]])]
    assert surface(searches, share=0.5).tolist() == [[1.0, 0.5], [2.0, 0.4], [3.0, 0.1]]
    assert surface(searches, share=1.0).tolist() == [[2.0, 0.5], [3.0, 0.4], [4.0, 0.2]]


def test_the_picture_has_a_line_for_each_sampler_and_the_true_front(table: Path) -> None:
    found = {"one": [Searched([], 0.0, [0, 5]), Searched([], 0.0, [7, 3])], "other": [Searched([], 0.0, [1, 2])]}
    drawn = attainment_of(table, found, trials=1)
    assert [line.name for line in drawn.data] == ["one", "other", "true front"]
    space = TableSpace(table)
    assert list(drawn.data[1].x) == [space.macs[1]]
    errors = np.asarray(drawn.data[2].y)
    assert (np.diff(errors) < 0).all()
    assert errors.min() == pytest.approx(100 * (1 - space.accuracy.max()))
