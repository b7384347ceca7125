"""Every format of an export: it is read again in a fresh process, gives the trial's model, and says so."""

import re
import runpy
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

import metaformer
from metaformer.errors import UserError
from nas.data import open_dataset
from nas.export import export
from nas.record.run_folder import Run
from nas.record.trials import TrialRecord
from nas.results.exports.writing import KINDS
from nas.results.picks import pick_trial
from nas.study.lease import WEIGHTS
from tests.nas.runs import make_run

SIDE = 32
PROVED = re.compile(r"^proved in a fresh process: parameters and MACs are equal, logits within \d\.\de[-+]\d\d$", re.M)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on the digits; its best trial has weights in the form that training leaves."""
    found = open_dataset("digits", resolution=SIDE).info.fingerprint
    made = make_run(tmp_path_factory.mktemp("runs") / "exported", max_trials=8, data_fingerprint=found)
    save_weights(made, pick_trial(made, "best"))
    return made


def save_weights(run: Run, trial: TrialRecord) -> None:
    torch.manual_seed(trial.number + 1)
    model = metaformer.build(trial.architecture)
    document = {"version": 1, "digest": trial.architecture.digest, "epoch": 3, "model": model.state_dict()}
    run.folder.checkpoints_of(trial).save(WEIGHTS, partial(torch.save, document), attempt=1)


def trained(run: Run) -> metaformer.MetaFormer:
    trial = pick_trial(run, "best")
    checkpoints = run.folder.checkpoints_of(trial)
    model = metaformer.build(trial.architecture).eval()
    model.load_state_dict(torch.load(checkpoints.read(WEIGHTS), weights_only=True)["model"])
    return model


def logits(model: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("name", [*(pytest.param(name, marks=pytest.mark.slow) for name in ("yaml", "json")), "python"])
def test_a_text_with_weights_beside_it_is_proved_and_builds_the_model(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    out, weights = tmp_path / f"a{KINDS[name].suffix}", tmp_path / "below" / "w.pt"
    weights.parent.mkdir()
    export(str(run.folder.path), pick="best", out=out, file_format=name, weights=weights)
    assert PROVED.search(capsys.readouterr().out)
    model = runpy.run_path(str(out))["build"]() if name == "python" else metaformer.load(out, weights).eval()
    torch.testing.assert_close(logits(model), logits(trained(run)), rtol=0, atol=0)


def test_a_python_file_without_weights_builds_the_architecture(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "a.py"
    export(str(run.folder.path), pick="0", out=out, file_format="python", prove=False)
    assert runpy.run_path(str(out))["build"]().arch == run.record.trials[0].architecture


def test_weights_of_another_model_are_refused_and_nothing_is_written(run: Run, tmp_path: Path) -> None:
    trial = run.record.trials[0]
    other = metaformer.build("convmixer_256_8_p2_k5").state_dict()
    run.folder.checkpoints_of(trial).save(WEIGHTS, partial(torch.save, other), attempt=1)
    with pytest.raises(UserError, match=r"^weights: must be readable, got those of trial 0 \("):
        export(str(run.folder.path), pick="0", out=tmp_path / "a.yaml", weights=tmp_path / "w.pt")
    run.folder.checkpoints_of(trial).drop()
    assert not list(tmp_path.iterdir())


def test_the_card_says_what_it_costs_how_accurate_it_is_and_how_it_came_to_be(run: Run, tmp_path: Path) -> None:
    out, trial = tmp_path / "card.md", pick_trial(run, "best")
    export(str(run.folder.path), pick="best", out=out, file_format="card")
    text = out.read_text(encoding="utf-8")
    assert text.startswith("---\nlibrary_name: timm\n")
    for said in (
        f"| Parameters | {trial.params:,} |",
        f"| On val, by which it was chosen | {100 * (trial.val_accuracy or 0):.2f} % of 360 images (",
        f"| On test | {100 * (trial.test_accuracy or 0):.2f} % of 360 images (",
        "| Seed of search and training | 0 |",
        "| Recipe | 3 epochs of AdamW, batch 64,",
        "| Program | MIT, metaformer-nas |",
        "## Command",
        "python -m nas.export",
    ):
        assert said in text
