"""What a second driver may not do to a run that another one began while it started."""

from pathlib import Path

import pytest
import yaml

from nas.data import open_dataset
from nas.make_study import make_study
from nas.study.request import Request
from tests.nas.programs import QUICK, Program

pytestmark = pytest.mark.xdist_group("ray")


def test_a_study_that_another_driver_began_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    """The first look at the run is long past when the program measures; the lock is taken after that."""
    run = tmp_path / "runs" / "twice"
    with Program(
        *QUICK, "--budget", "900cpu-seconds", "--name", "twice", "--runs", run.parent, logs=tmp_path
    ) as second:
        second.wait_until(lambda: second.says("starting workers"))
        study = make_study(Request(budget="9cpu-minutes", epochs=7), {}, open_dataset("digits", resolution=16).info)
        run.mkdir(parents=True)
        (run / "study.yaml").write_text(yaml.safe_dump(study.model_dump(mode="json")), encoding="utf-8")
        before = (run / "study.yaml").read_bytes()
        outcome = second.wait()
    assert outcome.code == 2
    assert "must be " in outcome.err
    assert f"as the study in {run} has it" in outcome.err
    assert (run / "study.yaml").read_bytes() == before
    assert not (run / "study.db").exists()
