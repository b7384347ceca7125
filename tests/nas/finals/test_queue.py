"""A study of finals: which trainings come, with which seeds, and what is kept of them."""

from pathlib import Path

import pytest

from metaformer.errors import UserError
from nas.record.run_folder import open_run
from nas.record.trials import TrialState
from nas.session.session import Session
from nas.study.lease import Lease
from nas.study.study import Study
from tests.nas.finals.runs import study_of_finals
from tests.nas.runs import fill, open_folder


def session_in(path: Path, study: Study) -> Session:
    return open_folder(path, study)[1]


def leases(session: Session, number: int) -> list[Lease]:
    """The next leases, which all run at once."""
    found = []
    for _ in range(number):
        lease = session.next()
        assert lease is not None
        found.append(lease)
    return found


def test_each_model_is_trained_once_before_any_a_second_time(tmp_path: Path) -> None:
    study = study_of_finals()
    given = leases(session_in(tmp_path, study), 6)
    digests = [lease.architecture.digest for lease in given]
    assert [lease.seed for lease in given] == [1, 1, 1, 2, 2, 2]
    assert digests[:3] == digests[3:]
    space = study.make_space()
    assert study.finals is not None
    assert digests[:3] == [space.decode(model.genes).digest for model in study.finals.models]


def test_nothing_else_is_trained_and_all_that_is_complete_is_tested(tmp_path: Path) -> None:
    session = session_in(tmp_path, study_of_finals())
    fill(session, fail_every=100)
    assert session.finished
    assert len(session.record.trials) == 6
    assert all(trial.state is TrialState.COMPLETE for trial in session.record)
    assert all(trial.test_accuracy is not None for trial in session.record)
    assert session.ledger.spent > 0


def test_what_was_read_again_has_its_seeds(tmp_path: Path) -> None:
    session = session_in(tmp_path, study_of_finals())
    fill(session, fail_every=100)
    session.record.close()
    assert [trial.seed for trial in open_run(tmp_path).record] == [1, 1, 1, 2, 2, 2]


def test_an_interrupted_one_goes_on_and_none_is_begun_twice(tmp_path: Path) -> None:
    study = study_of_finals()
    first = session_in(tmp_path, study)
    begun = leases(first, 4)
    first.record.close()  # its driver is gone
    second = session_in(tmp_path, study)
    again = leases(second, 6)
    assert [(lease.trial, lease.attempt) for lease in again[:4]] == [(lease.trial, 2) for lease in begun]
    assert [lease.seed for lease in again] == [1, 1, 1, 2, 2, 2]
    assert len(second.record.trials) == 6


def test_more_seeds_add_to_what_is_there(tmp_path: Path) -> None:
    fewer, more = study_of_finals(num_seeds=1), study_of_finals(num_seeds=3)
    more.check_continues(fewer, tmp_path)
    session = session_in(tmp_path, fewer)
    fill(session, fail_every=100)
    session.record.close()
    session = session_in(tmp_path, more)
    fill(session, fail_every=100)
    assert [trial.seed for trial in session.record] == [1, 1, 1, 2, 2, 2, 3, 3, 3]


def test_other_models_are_another_study(tmp_path: Path) -> None:
    study = study_of_finals()
    assert study.finals is not None
    finals = study.finals.model_copy(update={"models": study.finals.models[:2]})
    with pytest.raises(UserError, match=r"^finals\.models: must be"):
        study.model_copy(update={"finals": finals}).check_continues(study, tmp_path)


def test_what_the_budget_does_not_pay_for_is_not_begun_and_waits(tmp_path: Path) -> None:
    session = session_in(tmp_path, study_of_finals(budget="1cpu-seconds"))
    fill(session, fail_every=100)
    assert 0 < len(session.record.trials) < 6
    begun = len(session.record.trials)
    session.record.close()
    session = session_in(tmp_path, study_of_finals(budget="9cpu-hours"))
    fill(session, fail_every=100)
    assert begun < len(session.record.trials)
    assert len({(trial.architecture.digest, trial.seed) for trial in session.record}) == 6
