"""Starting from an earlier search: how far it is believed, what it changes, and that it is part of the study."""

import random
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from metaformer.cost import count_cost
from metaformer.errors import UserError
from nas.data import open_dataset
from nas.make_study import make_study
from nas.record.record import Record
from nas.record.storage import IN_MEMORY
from nas.results.results import Results
from nas.session.pareto import HypervolumeScale
from nas.session.proposers import make_proposer
from nas.session.proposers.earlier import agreement, does_agree, slope
from nas.study.lease import Report
from nas.study.objectives import DEFAULT, choose
from nas.study.prior import Prior, PriorModel
from nas.study.request import Request
from nas.study.study import Study
from search_spaces.space import Genes, Limits, SearchSpace
from tests.nas.runs import made_up_accuracy, make_run
from tests.nas.runs import make_study as a_study

GOALS = choose(DEFAULT)
LIMITS = Limits(max_macs=1_500_000)


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return a_study().make_space()


def accuracy_of(space: SearchSpace, genes: Genes) -> float:
    arch = space.decode(genes)
    return made_up_accuracy(arch, random.Random(arch.digest))


def prior_of(space: SearchSpace, number: int, *, inverted: bool = False) -> Prior:
    """Random architectures with the accuracies of the search, at another level; or with the order turned around."""
    rng, bounded = random.Random(0), space.within(LIMITS)
    found = [space.encode(bounded.sample(rng)) for _ in range(number)]
    sign = -0.5 if inverted else 0.5
    models = [PriorModel(genes=genes, val_accuracy=0.5 + sign * accuracy_of(space, genes)) for genes in found]
    return Prior(run="runs/earlier", models=tuple(models))


def search(space: SearchSpace, prior: Prior | None, *, seed: int, num_trials: int, restarts: bool = False) -> Record:
    record = Record(IN_MEMORY, space, GOALS, writes=True)
    proposer = make_proposer("exact_cost", space, GOALS, prior, per_trial=True)
    for number in range(num_trials):
        if restarts:
            proposer = make_proposer("exact_cost", space, GOALS, prior, per_trial=True)
        genes = proposer.propose(record.trials, limits=LIMITS, seed=1000 * seed + number)
        assert genes is not None
        arch = space.decode(genes)
        assert count_cost(arch).macs <= LIMITS.max_macs
        trial = record.start(arch)
        trial.add_epoch(Report(epoch=1, val_accuracy=accuracy_of(space, genes), train_loss=1.0, checkpoint="1.pt"))
        record.end(trial, "complete")
    assert len({trial.digest for trial in record}) == num_trials
    return record


def volume(record: Record, number: int) -> float:
    scale = HypervolumeScale.of(record.space, GOALS)
    return scale.hypervolume([GOALS.values(trial) for trial in record.trials[:number]])


def test_an_earlier_search_is_believed_as_far_as_it_agrees() -> None:
    earlier = np.linspace(-1.7, 1.7, 40)
    noise = np.random.default_rng(0).normal(size=40)
    whole, half, none = slope(earlier, 3 * earlier), slope(earlier, earlier + noise), slope(earlier, -earlier)
    assert whole == pytest.approx(3, rel=0.1)
    assert 0 < half < whole
    assert none == 0.0
    assert slope(earlier[:1], earlier[:1]) > 0  # before anything is seen
    assert does_agree(earlier, earlier + noise)
    assert not any(does_agree(earlier, other) for other in (noise, -earlier, 0 * earlier))
    assert not does_agree(earlier[:4], earlier[:4])  # too few


def test_with_one_that_agrees_a_short_search_finds_more(space: SearchSpace) -> None:
    """And with one that has everything the wrong way round hardly less than with none."""
    means = [
        np.mean([volume(search(space, prior, seed=seed, num_trials=20), 20) for seed in range(5)])
        for prior in (None, prior_of(space, 60), prior_of(space, 60, inverted=True))
    ]
    alone, helped, misled = means
    assert helped > alone + 0.05
    assert misled > alone - 0.01


def test_a_search_that_begins_anew_at_each_trial_proposes_alike(space: SearchSpace) -> None:
    prior = prior_of(space, 30)
    whole, anew = (search(space, prior, seed=1, num_trials=24, restarts=restarts) for restarts in (False, True))
    assert [trial.digest for trial in whole] == [trial.digest for trial in anew]


@pytest.mark.parametrize(("inverted", "low", "high"), [(False, 0.5, 1.0), (True, -1.0, -0.5)])
def test_agreement_is_the_order_of_what_was_expected(
    space: SearchSpace, inverted: bool, low: float, high: float
) -> None:
    record = search(space, None, seed=3, num_trials=20)
    prior = prior_of(space, 60, inverted=inverted)
    found = agreement(space, GOALS, prior, record.complete)
    assert found is not None
    assert low < found.tau <= high
    assert found.num_trials == 20
    assert agreement(space, GOALS, prior, record.complete[:4]) is None


# As a part of the study


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    make_run(tmp_path / "earlier", max_trials=12).record.close()
    return tmp_path / "earlier"


def study_with(prior: Path, fields: dict[str, object] | None = None, **asked: str) -> Study:
    info = open_dataset("digits", resolution=32).info
    return make_study(Request(prior=str(prior), budget="6cpu-minutes", **asked), fields or {}, info)


def test_a_study_holds_what_it_starts_from(earlier: Path) -> None:
    study = study_with(earlier)
    assert study.prior is not None
    assert len(study.prior.models) >= 12
    assert study == Study.model_validate(study.model_dump(mode="json"))
    assert study.sampler == "exact_cost"


def test_a_study_that_goes_on_keeps_it_though_the_earlier_run_has_grown(tmp_path: Path) -> None:
    make_run(tmp_path / "earlier", max_trials=12).record.close()
    first = study_with(tmp_path / "earlier")
    make_run(tmp_path / "earlier", max_trials=16).record.close()
    again = study_with(tmp_path / "earlier", first.model_dump(mode="json"))
    again.check_continues(first, tmp_path)
    assert again == first


def test_a_study_without_one_does_not_get_one(tmp_path: Path, earlier: Path) -> None:
    first = study_with(earlier)
    with pytest.raises(UserError, match="prior: must be None, as the study in") as refused:
        first.check_continues(first.model_copy(update={"prior": None}), tmp_path)
    assert len(str(refused.value)) < 400


def test_a_run_says_how_far_it_agrees(tmp_path: Path, earlier: Path) -> None:
    prior = study_with(earlier).model_dump(mode="json")["prior"]
    run = make_run(tmp_path / "later", sampler="exact_cost", prior=prior)
    with closing(run.record):
        found = Results(run).prior_agreement
    assert found is not None
    assert found.num_trials == len(run.record.complete)
    assert -1 <= found.tau <= 1


def test_what_cannot_be_started_from_is_one_line(tmp_path: Path, earlier: Path) -> None:
    make_run(tmp_path / "short", max_trials=1, references=()).record.close()
    for asked, message in (
        (study_of(tmp_path / "nothing"), "prior: run: must be a folder with a study.yaml"),
        (study_of(tmp_path / "short"), "prior: must have trained 5 architectures to the end, got"),
        (study_of(earlier, space="isotropic"), "prior: must be a search of isotropic, got one of hybrid_stages"),
        (study_of(earlier, sampler="tpe"), "prior: must go with the sampler exact_cost, got 'tpe'"),
    ):
        with pytest.raises(UserError, match=message):
            make_study(asked, {}, open_dataset("digits", resolution=32).info)


def study_of(prior: Path, **asked: str) -> Request:
    return replace(Request(prior=str(prior), budget="6cpu-minutes"), **asked)


def test_a_study_file_has_a_line_for_each_earlier_model_and_reads_as_it_was(space: SearchSpace, tmp_path: Path) -> None:
    study = a_study().model_copy(update={"prior": prior_of(space, 40)})
    written = tmp_path / "study.yaml"
    written.write_text(study.to_yaml(), encoding="utf-8")
    assert sum("val_accuracy" in line and "mixer_1" in line for line in study.to_yaml().splitlines()) == 40
    assert Study.from_file(written) == study
