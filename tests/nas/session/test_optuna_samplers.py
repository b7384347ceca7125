"""Optuna's samplers in long histories: what TPE is shown, and the generations of NSGA-II beside Optuna's own."""

import random

import optuna
import pytest
from optuna.samplers import NSGAIISampler, TPESampler

from nas.record.record import Record, distribution
from nas.record.storage import IN_MEMORY
from nas.session.pareto import front
from nas.session.proposers.optuna_samplers import _MOST_OF_TPE, _StudyCopy
from nas.study.lease import Report
from nas.study.objectives import DEFAULT, choose
from tests.nas.runs import make_study

GOALS = choose(DEFAULT)


def made_up(num_trials: int) -> Record:
    """A record of random trials, every seventh of which still runs."""
    space = make_study().make_space()
    record, rng = Record(IN_MEMORY, space, GOALS, writes=True), random.Random(0)
    for number in range(num_trials):
        trial = record.start(space.sample(rng))
        trial.add_epoch(Report(epoch=1, val_accuracy=rng.random(), train_loss=1.0, checkpoint="x"))
        if number % 7 != 6:
            record.end(trial, "complete")
    return record


def test_tpe_reads_the_front_and_the_youngest_of_a_long_history() -> None:
    record = made_up(_MOST_OF_TPE + 60)
    copy = _StudyCopy(record.space, GOALS)
    copy.update(record.trials, TPESampler())
    complete = [place for place in range(len(record.trials)) if place % 7 != 6]
    members = front([GOALS.values(record.trials[place]) for place in complete], GOALS)
    read = copy._for_tpe()
    assert len(read) == _MOST_OF_TPE
    assert {complete[index] for index in members} | set(range(_MOST_OF_TPE - 40, len(record.trials))) <= set(read)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_the_generations_of_nsga2_are_those_of_a_study_that_is_read_whole() -> None:
    record, sampler = made_up(60), NSGAIISampler(population_size=8)
    copy = _StudyCopy(record.space, GOALS)
    copy.update(record.trials, sampler)
    study = optuna.create_study(directions=["maximize", "minimize", "minimize"])
    for trial in record.trials:
        frozen = optuna.trial.create_trial(
            state=optuna.trial.TrialState.RUNNING,
            params=record.space.encode(trial.architecture),
            distributions={choice.name: distribution(choice) for choice in record.space.choices},
        )
        trial_id = study._storage.create_new_trial(study._study_id, template_trial=frozen)
        own = optuna.Study(study.study_name, study._storage)
        generation = sampler.get_trial_generation(own, study._storage.get_trial(trial_id))
        assert sampler.get_trial_generation(copy._open(), copy._storage.get_trial(copy._trial_ids[trial.number])) == (
            generation
        )
        if trial.number % 7 != 6:
            study._storage.set_trial_state_values(trial_id, optuna.trial.TrialState.COMPLETE, GOALS.values(trial))
    assert generation > 4
