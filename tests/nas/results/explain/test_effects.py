"""Which gene moves accuracy: found again where it was put, and not where it was not."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import BayesianRidge

from metaformer.errors import UserError
from nas.explain import explain
from nas.record.run_folder import Run
from nas.results.explain.effects import Effect, Explanation, bayesian_ridge, strongest
from nas.results.results import Results
from tests.nas.runs import make_run

# What `tests.nas.runs` adds to accuracy for a mixer in any stage, in points; nothing else beside costs counts there.
TRUE = {"pool": 0.0, "attention": 3.0, "spatial_mlp": 1.0, "dwconv": 2.0, "identity": -5.0}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A search at random of 150 trials with noise of a point."""
    return make_run(tmp_path_factory.mktemp("runs") / "random", max_trials=150, budget="9cpu-hours")


@pytest.fixture(scope="module")
def explanation(run: Run) -> Explanation:
    return Explanation(Results(run))


def true_points(effect: Effect) -> float:
    if not effect.gene.startswith("mixer"):
        return 0.0
    return TRUE[str(effect.value)] - TRUE[str(effect.instead_of)]


def test_what_was_put_in_is_found(explanation: Explanation) -> None:
    mixers = [effect for effect in explanation.effects if effect.gene.startswith("mixer")]
    assert len(mixers) == 16
    assert all(effect.points * true_points(effect) > 0 for effect in mixers if effect.is_clear)
    assert all(effect.is_clear for effect in mixers if abs(true_points(effect)) >= 6)
    held = [abs(effect.points - true_points(effect)) < 1.645 * effect.sd for effect in mixers]
    assert sum(held) >= 12
    assert "identity" in strongest(explanation.effects)[0].text


def test_what_does_nothing_is_seldom_said_to_do_something(explanation: Explanation) -> None:
    others = [effect for effect in explanation.effects if not effect.gene.startswith("mixer")]
    assert len(others) > 20
    assert sum(effect.is_clear for effect in others) <= 0.2 * len(others)


def test_genes_predict_what_was_left_out_better_than_costs_alone(explanation: Explanation) -> None:
    by_costs, by_all = explanation.rank_correlations
    assert by_costs + 0.2 < by_all < 1


def test_values_are_compared_with_the_usual_one_and_numbers_doubled(explanation: Explanation) -> None:
    texts = {effect.text for effect in explanation.effects}
    assert "width_2: twice as large" in texts
    for effect in explanation.effects:
        if effect.value is not None:
            assert effect.num_tried[0] <= effect.num_tried[1]
            assert effect.value != effect.instead_of
        assert 0 <= effect.p_positive <= 1
        assert effect.sd > 0


def test_pairs_differ_in_one_gene_alone(run: Run) -> None:
    results = Results(run)
    space, first = run.space, results.complete[0]
    genes = space.encode(first.architecture)
    twin = space.decode({**genes, "norm_1": next(n for n in ("mln", "layer_norm") if n != genes["norm_1"])})
    report = first.progress.curve[-1].model_copy(update={"val_accuracy": (first.val_accuracy or 0.0) + 0.1})
    progress = first.progress.model_copy(update={"curve": (*first.progress.curve[:-1], report)})
    other = replace(first, number=10_000, architecture=twin, progress=progress)
    results.__dict__["complete"] = [*results.complete, other]
    found = Explanation(results)._pairs
    key = ("norm_1", space.encode(twin)["norm_1"], genes["norm_1"])
    assert found[key] == pytest.approx([0.1])
    assert found["norm_1", key[2], key[1]] == pytest.approx([-0.1])


def test_the_program_prints_both_for_people_and_programs(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    explain(str(run.folder.path))
    printed = capsys.readouterr().out
    assert "at equal parameters and MACs" in printed
    assert "Kendall's tau" in printed
    explain(str(run.folder.path), as_json=True)
    plain = json.loads(capsys.readouterr().out)
    assert plain["num_architectures"] == len(Results(run).complete)
    assert {"gene", "value", "instead_of", "points", "sd", "p_positive"} <= set(plain["effects"][0])


def test_the_fit_is_that_of_scikit_learn() -> None:
    """Also where columns depend on each other, as the indicators of a gene do, which sum to nothing."""
    rng = np.random.default_rng(0)
    z_GJ = rng.normal(size=(200, 6))
    z_GJ[:, 5] = -z_GJ[:, :5].sum(axis=1)
    y_G = z_GJ @ np.array([1.0, 0.0, -0.5, 0.0, 0.2, 0.0]) + rng.normal(scale=0.5, size=200)
    ridge = BayesianRidge(fit_intercept=False, max_iter=1000).fit(z_GJ, y_G)
    mean_J, cov_JJ = bayesian_ridge(z_GJ, y_G)
    np.testing.assert_allclose(mean_J, ridge.coef_, rtol=1e-6)
    np.testing.assert_allclose(cov_JJ, ridge.sigma_, rtol=1e-6, atol=1e-12)


def test_too_few_trials_say_nothing(tmp_path: Path) -> None:
    run = make_run(tmp_path, max_trials=3)
    with pytest.raises(UserError, match=r"^run: must have 12 complete architectures at least, got "):
        Explanation(Results(run))


def test_in_a_union_a_gene_is_told_by_the_trials_of_its_family_alone(tmp_path: Path) -> None:
    names = ("poolformer_s12", "convmixer_256_8_p2_k5")
    run = make_run(tmp_path / "run", space="hybrid_stages+convmixer", references=names, max_trials=60)
    results = Results(run)
    families = [results.families[trial.number] for trial in results.complete]
    effects = {effect.text: effect for effect in Explanation(results).effects}
    depth = next(effect for effect in effects.values() if effect.gene == "convmixer.depth")
    assert depth.num_tried[0] == families.count("convmixer")
    mixers = [effect for effect in effects.values() if effect.gene == "hybrid_stages.mixer_1"]
    assert mixers
    assert all(sum(effect.num_tried) <= families.count("hybrid_stages") for effect in mixers)
    assert any(effect.gene == "family" for effect in effects.values())


def test_several_genes_together_add_what_was_put_in(explanation: Explanation) -> None:
    first, second = {"mixer_3": "attention", "mixer_4": "dwconv"}, {"mixer_3": "pool", "mixer_4": "identity"}
    found, inverse = explanation.compare(first, second), explanation.compare(second, first)
    assert abs(found.points - (TRUE["attention"] + TRUE["dwconv"] - TRUE["identity"])) < 3 * found.sd
    assert found.sd < 3
    assert found.points == pytest.approx(-inverse.points)
    assert explanation.compare({"width_1": 64}, {"width_1": 32}).points == pytest.approx(
        next(effect.points for effect in explanation.effects if effect.gene == "width_1")
    )
    with pytest.raises(UserError, match="compare: must name the same genes on both sides, got mixer_3 and mixer_4"):
        explanation.compare({"mixer_3": "pool"}, {"mixer_4": "pool"})
