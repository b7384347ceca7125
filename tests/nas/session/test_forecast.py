"""What a budget is predicted to buy."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaformer.cost import count_cost
from nas.results.console import advice
from nas.session.forecast import Rung, fit_speed, forecast, representative
from nas.study.lease import Speed
from nas.study.recipe import Recipe
from nas.study.request import parse_count
from search_spaces import get
from search_spaces.space import Limits, SpaceSettings
from tests.nas.runs import make_study, open_folder

SPACE = get("hybrid_stages", SpaceSettings(resolution=32, num_classes=10))
ARCHS = representative(SPACE)


@given(base=st.floats(1e-7, 1e-2), per_gmac=st.floats(0, 10))
def test_fitting_recovers_a_line(base: float, per_gmac: float) -> None:
    line = Speed(base=base, per_gmac=per_gmac)
    fitted = fit_speed(ARCHS, [line.seconds_per_image(count_cost(arch).macs) for arch in ARCHS])
    assert fitted.base == pytest.approx(base, rel=1e-6, abs=1e-9)
    assert fitted.per_gmac == pytest.approx(per_gmac, rel=1e-6, abs=1e-6)


@given(
    seconds=st.lists(st.floats(1e-6, 1e-1), min_size=4, max_size=4), base=st.floats(0, 1e-2), per_gmac=st.floats(0, 10)
)
def test_whatever_is_measured_no_other_line_has_smaller_relative_errors(
    seconds: list[float], base: float, per_gmac: float
) -> None:
    def error(speed: Speed) -> float:
        fitted = [speed.seconds_per_image(count_cost(arch).macs) for arch in ARCHS]
        return sum((each / true - 1) ** 2 for each, true in zip(fitted, seconds, strict=True))

    best = fit_speed(ARCHS, seconds)
    assert min(best.base, best.per_gmac) >= 0
    assert error(best) <= error(Speed(base=base, per_gmac=per_gmac)) * (1 + 1e-9) + 1e-9


def test_one_architecture_alone_gives_a_speed_whatever_the_macs() -> None:
    arch = SPACE.smallest("macs")
    speed = fit_speed([arch, arch], [1e-3, 3e-3])
    assert 1e-3 < speed.seconds_per_image(10**9) == speed.seconds_per_image(1) < 3e-3


def test_representatives_span_the_space_and_are_the_same_each_time() -> None:
    macs = [count_cost(arch).macs for arch in ARCHS]
    assert macs == sorted(macs)
    assert macs[-1] > 2 * macs[0]
    assert representative(SPACE) == ARCHS
    assert all(SPACE.contains(arch) for arch in ARCHS)


def test_a_forecast_spends_what_is_left_after_the_references(tmp_path: Path) -> None:
    session = open_folder(tmp_path, make_study(budget="100cpu-seconds"))[1]
    plan = forecast(session, peak_bytes=0)
    epochs = session.study.recipe.epochs
    references = sum(session.expected_seconds(each.architecture, epochs=epochs) for each in session.queue.planned)
    assert plan.reference_seconds == pytest.approx(references)
    used = plan.reference_seconds + plan.num_trials * plan.seconds_per_trial
    assert used <= 100 < used + plan.seconds_per_trial
    assert plan.rungs == (Rung(3, plan.num_trials),)
    assert plan.seconds_per_trial == plan.seconds_to_the_end


def test_early_stopping_halves_the_trials_at_each_rung_and_their_segments_add_up(tmp_path: Path) -> None:
    recipe = Recipe(epochs=8, warmup_epochs=1)
    study = make_study(budget="100cpu-seconds", stopper="rank", references=(), recipe=recipe)
    plan = forecast(open_folder(tmp_path, study)[1], peak_bytes=0)
    assert [rung.epochs for rung in plan.rungs] == [1, 2, 4, 8]
    for above, below in pairwise(plan.rungs):
        assert below.num_trials == pytest.approx(above.num_trials / 2, abs=1)
    epochs = 1 + 1 / 2 + 2 / 4 + 4 / 8  # that a trial is trained for, on average
    assert plan.seconds_per_trial == pytest.approx(plan.seconds_to_the_end * epochs / 8)


def test_the_most_that_an_architecture_may_cost_is_the_limit_where_there_is_one(tmp_path: Path) -> None:
    plan = forecast(open_folder(tmp_path, make_study())[1], peak_bytes=0)
    assert plan.most_macs == 5_000_000
    assert plan.cheapest_seconds < plan.seconds_to_the_end < plan.most_seconds


def test_a_budget_without_time_buys_nothing_and_says_so(tmp_path: Path) -> None:
    plan = forecast(open_folder(tmp_path, make_study(budget="0.001cpu-seconds"))[1], peak_bytes=0)
    assert plan.num_trials == 0
    assert advice(plan, 0.001)[0].startswith("too little for a single full trial, even of the cheapest architecture")


def test_a_limit_at_the_median_buys_as_many_trials_as_is_said(tmp_path: Path) -> None:
    study = make_study(budget="20cpu-seconds", references=())
    plan = forecast(open_folder(tmp_path / "all", study)[1], peak_bytes=0)
    [line] = advice(plan, 20)
    limits = Limits(max_macs=parse_count("max_macs", line.split()[1].rstrip(",")))
    settings = study.settings.model_copy(update={"limits": limits})
    fewer = forecast(open_folder(tmp_path / "less", study.model_copy(update={"settings": settings}))[1], peak_bytes=0)
    assert fewer.num_trials / plan.num_trials == pytest.approx(float(line.split()[6]), rel=0.25)
