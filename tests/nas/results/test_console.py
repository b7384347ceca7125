"""What a search prints, on names that would be markup."""

from pathlib import Path

import pytest

from nas.data import DataInfo
from nas.record.run_folder import RunFolder
from nas.record.trials import TrialRecord
from nas.results.console import make_console, print_plan, print_summary, running_line
from nas.session.forecast import forecast
from nas.study.budget import Budget
from nas.study.lease import Sign
from nas.study.splitting import Splitting
from tests.nas.runs import make_run, make_study, open_folder

ODD = "m[/b]x[bold]:smile:"


def test_a_plan_and_a_summary_print_odd_names_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run", max_trials=3)
    _, session = open_folder(tmp_path / "run", run.study)
    budget = Budget.parse(make_study().budget)
    info = DataInfo(f"folder:/{ODD}\x1b[31m", 10, tuple("0123456789"), 32, {"train": 10, "val": 1, "test": 1}, "0" * 16)
    plan = forecast(session, peak_bytes=0)
    console = make_console(as_json=False)
    print_plan(
        console,
        session,
        plan,
        budget=budget,
        info=info,
        why_resolution=f"as {ODD}",
        recipe_source=ODD,
        devices_per_trial=1.0,
    )
    print_summary(console, session, RunFolder(Path(ODD)), budget)
    out = capsys.readouterr().out
    assert f"on folder:/{ODD}\\x1b[31m: " in out
    assert f"images   as {ODD}; " in out
    assert f"report   {ODD}/report.html" in out
    assert f"python -m nas.export {ODD} --pick knee" in out


def test_a_plan_tells_of_splits_that_are_not_the_default(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    splitting = Splitting(images_per_class=100, seed=3)
    run, session = open_folder(tmp_path / "run", make_study(splitting=splitting))
    info = DataInfo("digits", 10, tuple("0123456789"), 32, {"train": 1000, "val": 359, "test": 359}, "0" * 16)
    print_plan(
        make_console(as_json=False),
        session,
        forecast(session, peak_bytes=0),
        budget=Budget.parse(run.study.budget),
        info=info,
        why_resolution="as asked for",
        recipe_source="the default",
        devices_per_trial=1.0,
    )
    said = "digits: 1,000 train, 359 val, 359 test images (at most 100 images of a class to train on, split seed 3), 10"
    assert said in " ".join(capsys.readouterr().out.split())


def test_a_running_trial_says_how_far_it_is_within_an_epoch() -> None:
    trial = TrialRecord(7, make_study().make_space().smallest("macs"), 1, 1, checkpoint_trial=7)
    assert running_line(trial, 30).endswith(", epoch 0 of 30")
    trial.add_sign(Sign(step=42, num_steps=100))
    assert running_line(trial, 30).endswith(", epoch 0.4 of 30")
