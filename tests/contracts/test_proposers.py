"""What every proposer keeps: canonical genes, within limits, new, repeatable, and None only where nothing is left."""

import random

import pytest

from metaformer import count_cost
from nas.record.record import Record
from nas.record.storage import IN_MEMORY
from nas.record.trials import TrialRecord
from nas.session.proposers import make_proposer, names
from nas.study.lease import Report
from nas.study.objectives import DEFAULT, choose
from search_spaces.space import Genes, Limits, SearchSpace, SpaceSettings, get
from tests.nas.runs import make_study
from tests.search_spaces.tiny import FewModels

LIMITS = Limits(max_macs=1_500_000)
GOALS = choose(DEFAULT)


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return make_study().make_space()


@pytest.fixture(scope="module")
def union() -> SearchSpace:
    return make_study(space="hybrid_stages+convmixer").make_space()


def search(
    space: SearchSpace, name: str, *, num_trials: int, limits: Limits = LIMITS, restart_every: int = 1000
) -> list[Genes]:
    """The proposals of a short search that ends every third trial early and leaves every fifth running for a while."""
    record = Record(IN_MEMORY, space, GOALS, writes=True)
    proposer = make_proposer(name, space, GOALS)
    found = []
    for number in range(num_trials):
        if number % restart_every == restart_every - 1:
            proposer = make_proposer(name, space, GOALS)
        genes = proposer.propose(record.trials, limits=limits, seed=number)
        if genes is None:
            break
        found.append(genes)
        trial = record.start(space.decode(genes))
        report(trial, epoch=1)
        if number % 5 == 4:
            continue
        if number % 3 == 2:
            record.end(trial, "stopped")
        else:
            complete(record, trial)
        if number % 5 == 0 and number:
            complete(record, record.trials[number - 1])
    return found


def report(trial: TrialRecord, *, epoch: int) -> None:
    accuracy = 1 - random.Random(trial.architecture.digest).random() / epoch
    trial.add_epoch(Report(epoch=epoch, val_accuracy=accuracy, train_loss=1.0, checkpoint="x"))


def complete(record: Record, trial: TrialRecord) -> None:
    report(trial, epoch=2)
    record.end(trial, "complete")


def check(space: SearchSpace, found: list[Genes], *, num_trials: int) -> None:
    """Check that all proposals are canonical, within the limits and different."""
    archs = [space.decode(genes) for genes in found]
    assert [space.encode(arch) for arch in archs] == found
    assert all(LIMITS.allow(count_cost(arch)) for arch in archs)
    assert len({arch.digest for arch in archs}) == num_trials


@pytest.mark.parametrize("name", names())
def test_proposals_are_canonical_within_limits_and_never_repeat(space: SearchSpace, name: str) -> None:
    check(space, search(space, name, num_trials=60), num_trials=60)


@pytest.mark.parametrize("name", names())
def test_proposals_in_a_union_are_canonical_new_and_of_each_family(union: SearchSpace, name: str) -> None:
    found = search(union, name, num_trials=30)
    check(union, found, num_trials=30)
    assert {genes["family"] for genes in found} == {"hybrid_stages", "convmixer"}


@pytest.mark.slow
@pytest.mark.parametrize("name", names())
def test_the_same_history_limits_and_seed_give_the_same_genes_also_to_a_proposer_made_anew(
    space: SearchSpace, name: str
) -> None:
    whole = search(space, name, num_trials=32)
    assert search(space, name, num_trials=32, restart_every=7) == whole


@pytest.mark.parametrize("name", names())
def test_every_architecture_is_proposed_before_nothing_is_left(name: str) -> None:
    few = get(FewModels.name, SpaceSettings())
    found = search(few, name, num_trials=100, limits=Limits())
    assert len(found) == len({few.decode(genes).digest for genes in found}) == few.size == 63


@pytest.mark.parametrize("name", names())
def test_tighter_limits_leave_fewer_and_wider_ones_more(name: str) -> None:
    few = get(FewModels.name, SpaceSettings())
    costs = sorted(
        count_cost(few.decode({"mixer": "dwconv", "kernel": kernel, "norm": "mln", "depth": 2})).macs
        for kernel in (3, 5, 7)
    )
    record = Record(IN_MEMORY, few, GOALS, writes=True)
    proposer = make_proposer(name, few, GOALS)
    for limits in (Limits(max_macs=costs[0]), Limits(max_macs=costs[-1]), Limits(max_macs=1), Limits()):
        while genes := proposer.propose(record.trials, limits=limits, seed=len(record.trials)):
            arch = few.decode(genes)
            assert limits.allow(count_cost(arch))
            record.start(arch)
        tried = {trial.architecture.digest for trial in record.trials}
        allowed = {
            arch.digest for arch in (few.decode(genes) for genes in all_genes(few)) if limits.allow(count_cost(arch))
        }
        assert allowed <= tried
    assert len(record.trials) == few.size


def all_genes(few: SearchSpace) -> list[Genes]:
    found: list[Genes] = [{}]
    for choice in few.choices:
        found = [{**genes, choice.name: value} for genes in found for value in choice.values]
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "num_trials"), [("tpe", 40), ("exact_cost", 40), ("nsga2", 90), ("regularized_evolution", 90)]
)
def test_a_proposer_learns_from_the_history(space: SearchSpace, name: str, num_trials: int) -> None:
    """After its start-up it is no longer the uniform draw that random is."""
    assert search(space, name, num_trials=num_trials) != search(space, "random", num_trials=num_trials)
