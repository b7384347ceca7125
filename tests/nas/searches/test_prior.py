"""A search that starts from an earlier one, from the command line to the report."""

import json
from pathlib import Path

import pytest

from nas.study.study import Study
from tests.nas.programs import QUICK, run_program
from tests.nas.runs import make_run

pytestmark = [pytest.mark.xdist_group("ray"), pytest.mark.slow]


def test_it_says_what_it_starts_from_and_how_far_that_agrees_and_goes_on(tmp_path: Path) -> None:
    make_run(tmp_path / "earlier", max_trials=12).record.close()
    arguments = (*QUICK, "--prior", tmp_path / "earlier", "--runs", tmp_path, "--name", "later")
    first = run_program(*arguments, "--max-trials", "4", logs=tmp_path / "logs-1")
    assert first.code == 0, first.err
    assert f"prior    {tmp_path / 'earlier'}: " in first.out
    assert "agrees with Kendall's tau" in first.out
    prior = Study.from_file(tmp_path / "later" / "study.yaml").prior
    assert prior is not None
    make_run(tmp_path / "earlier", max_trials=14).record.close()  # grown meanwhile
    again = run_program(*arguments, "--max-trials", "5", "--json", logs=tmp_path / "logs-2")
    assert again.code == 0, again.err
    said = json.loads(again.out)["prior"]
    assert (said["run"], said["architectures"]) == (prior.run, len(prior.models))
    assert said["agreement"]["num_trials"] == 6  # five and the hand-designed one
    assert "Prior" in (tmp_path / "later" / "report.html").read_text(encoding="utf-8")
