"""One architecture of a run, exported and built again."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

import metaformer
from metaformer.errors import UserError
from nas.export import export
from nas.record.run_folder import Run
from nas.record.trials import TrialState
from nas.report import report
from nas.results.picks import architecture_text, pick_trial
from nas.session.pareto import front_of
from nas.study.lease import WEIGHTS, Measurement, Report
from nas.study.objectives.units import short_count
from tests.nas.runs import make_run, make_study, open_folder

write = partial(export, prove=False)  # the proof takes seconds; tests/nas/cli/test_export_formats.py has it


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    made = make_run(tmp_path_factory.mktemp("runs") / "exported", max_trials=10)
    best = pick_trial(made, "best")
    state = metaformer.build(best.architecture).state_dict()
    made.folder.checkpoints_of(best).save(WEIGHTS, partial(torch.save, state), attempt=1)
    return made


def failed_number(run: Run) -> int:
    return next(trial.number for trial in run.record if trial.state is TrialState.FAILED)


def test_the_exported_file_builds_the_model_of_the_trial(run: Run, tmp_path: Path) -> None:
    out, weights = tmp_path / "arch.yaml", tmp_path / "arch.pt"
    write(str(run.folder.path), pick="best", out=out, weights=weights)
    trial = pick_trial(run, "best")
    model = metaformer.build(out)
    model.load_state_dict(torch.load(weights, weights_only=True))
    assert sum(p.numel() for p in model.parameters()) == trial.params
    assert metaformer.Architecture.from_file(out) == trial.architecture


def test_the_exported_file_says_where_it_comes_from(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "arch.yaml"
    write(str(run.folder.path), pick="0", out=out)
    trial = run.record.trials[0]
    val, test = (f"{100 * (accuracy or 0):.2f} %" for accuracy in (trial.val_accuracy, trial.test_accuracy))
    assert out.read_text(encoding="utf-8").splitlines()[:4] == [
        "# run exported, trial 0 (complete, 3 epochs), hand-designed: poolformer_s12",
        f"# validation accuracy {val}, test accuracy {test}",
        f"# {trial.params:,} parameters, {trial.macs:,} MACs per image of 32 pixels",
        f"# build it: import metaformer; model = metaformer.build({str(out)!r})",
    ]


def test_best_is_the_highest_accuracy_and_of_equals_the_lowest_in_the_other_objectives(run: Run) -> None:
    goals = run.study.goals
    accuracy, params, macs = goals.values(pick_trial(run, "best"))
    for trial in run.record.complete:
        other = goals.values(trial)
        assert (-accuracy, params, macs) <= (-other[0], *other[1:])


def test_best_asks_the_objectives_of_the_study_in_their_order(tmp_path: Path) -> None:
    """Two trials of equal accuracy: one has the lower latency, the other has fewer parameters."""
    picked = {}
    for objectives in (("accuracy", "latency", "params"), ("params", "accuracy", "latency")):
        run, _ = open_folder(tmp_path / objectives[0], make_study(objectives=objectives))
        for name, latency in (("poolformer_s12", 2.0), ("poolformer_s24", 1.0)):
            trial = run.record.start(run.space.references()[name], references=(name,))
            trial.add_epoch(Report(epoch=3, val_accuracy=0.9, train_loss=1.0, checkpoint="3.pt"))
            trial.add_measurement(Measurement(values={"latency": latency}, device="one"))
            run.record.end(trial, "complete")
        picked[objectives] = pick_trial(run, "best").reference
    assert list(picked.values()) == ["poolformer_s24", "poolformer_s12"]


@pytest.mark.parametrize(
    "objectives", [("accuracy", "params", "macs"), ("accuracy", "latency")], ids=["usual", "measured"]
)
def test_the_knee_is_on_the_front(tmp_path: Path, objectives: tuple[str, ...]) -> None:
    run = make_run(tmp_path / "run", max_trials=10, objectives=objectives)
    goals = run.study.goals
    picked = goals.values(pick_trial(run, "knee"))
    for trial in run.record.complete:
        accuracy, *costs = goals.values(trial)
        assert (
            (accuracy, *costs) == picked
            or accuracy < picked[0]
            or any(cost > least for cost, least in zip(costs, picked[1:], strict=True))
        )


def test_the_text_of_an_architecture_says_what_was_measured(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", max_trials=1, objectives=("accuracy", "latency", "peak_memory"))
    trial = run.record.trials[0]
    lines = architecture_text(run.name, trial, file="arch.yaml").splitlines()
    latency, memory = trial.measured["latency"], trial.measured["peak_memory"]
    assert lines[3] == f"# latency {latency:.3g} ms, peak memory {memory:.3g} MiB on a made-up device"
    assert lines[4].startswith("# build it: ")


def test_a_trial_that_is_not_complete_is_exported_with_a_word_about_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = open_folder(tmp_path / "run", make_study())
    arch = run.space.references()["poolformer_s12"]
    run.record.end(run.record.start(arch, references=("poolformer_s12",)), "stopped")
    write(str(run.folder.path), pick="0", out=tmp_path / "arch.yaml")
    assert capsys.readouterr().err == "trial 0 is not complete but stopped\n"
    assert metaformer.Architecture.from_file(tmp_path / "arch.yaml") == arch


def test_a_trial_that_failed_is_refused_with_the_reason(run: Run, tmp_path: Path) -> None:
    number = failed_number(run)
    with pytest.raises(UserError, match=rf"^pick: must be a trial that has not failed, got {number} \(loss: must be "):
        write(str(run.folder.path), pick=str(number), out=tmp_path / "arch.yaml")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("cost", ["macs", "params"])
def test_a_limit_means_the_most_accurate_member_of_the_front_within_it(run: Run, cost: str) -> None:
    front = front_of(run.record.complete, run.study.goals)
    assert len(front) > 2
    for member in front:
        most = getattr(member, cost)
        within = [other for other in front if getattr(other, cost) <= most]
        assert pick_trial(run, f"max_{cost}={most}").val_accuracy == max(other.val_accuracy or 0 for other in within)


def test_a_limit_that_no_member_meets_is_refused_with_the_least(run: Run) -> None:
    least = min(member.macs for member in front_of(run.record.complete, run.study.goals))
    said = rf"^pick: must be a limit that a member of the front meets, got .*; the least is {short_count(least)} MACs$"
    with pytest.raises(UserError, match=said):
        pick_trial(run, "max_macs=1")


@pytest.mark.parametrize("pick", ["max_macs=", "max_macs=x", "max_macs=0", "max_latency=3ms", "max_=1"])
def test_a_limit_of_another_form_is_refused(run: Run, pick: str) -> None:
    with pytest.raises(UserError, match="^pick: "):
        pick_trial(run, pick)


@pytest.mark.parametrize("pick", ["99", "-1", "kneee", "1.0", "²", ""])
def test_an_unknown_pick_is_refused_with_what_there_is(run: Run, pick: str) -> None:
    with pytest.raises(UserError, match=r"pick: must be knee, best or the number of a trial, .*; trials are 0 to 12$"):
        pick_trial(run, pick)


def test_a_run_without_complete_trials_has_no_best(tmp_path: Path) -> None:
    run, _ = open_folder(tmp_path / "run", make_study())
    with pytest.raises(UserError, match="pick: must be the number of a trial while none is complete, got 'best'"):
        pick_trial(run, "best")
    with pytest.raises(UserError, match="got '0'; there are no trials yet"):
        pick_trial(run, "0")


def test_an_existing_file_is_kept_unless_forced(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "arch.yaml"
    out.write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match=r"out: must be a new file, or take --force to replace it, got '.*arch\.yaml'"):
        write(str(run.folder.path), out=out)
    assert out.read_text(encoding="utf-8") == "mine"
    write(str(run.folder.path), out=out, force=True)
    assert metaformer.Architecture.from_file(out) == pick_trial(run, "knee").architecture
    assert list(tmp_path.iterdir()) == [out]


def test_a_file_needs_a_folder(run: Run, tmp_path: Path) -> None:
    for out in (tmp_path / "nowhere" / "arch.yaml", tmp_path):
        with pytest.raises(UserError, match="out: must be a file in a folder that exists"):
            write(str(run.folder.path), out=out)


@pytest.mark.parametrize("other", ["same", "linked/same", "../{folder}/same"])
def test_architecture_and_weights_are_two_files(run: Run, tmp_path: Path, other: str) -> None:
    (tmp_path / "linked").symlink_to(tmp_path)
    out, weights = tmp_path / "same", tmp_path / other.format(folder=tmp_path.name)
    with pytest.raises(UserError, match=r"^weights: must be another file than that of the architecture, got .* twice$"):
        write(str(run.folder.path), pick="best", out=out, weights=weights, force=True)
    assert not out.exists()


def test_a_link_in_place_of_the_file_is_replaced_and_not_followed(run: Run, tmp_path: Path) -> None:
    victim, out = tmp_path / "victim", tmp_path / "arch.yaml"
    out.symlink_to(victim)
    with pytest.raises(UserError, match="out: must be a new file"):
        write(str(run.folder.path), out=out)
    victim.write_text("mine", encoding="utf-8")
    write(str(run.folder.path), out=out, force=True)
    assert victim.read_text(encoding="utf-8") == "mine"
    assert metaformer.Architecture.from_file(out) == pick_trial(run, "knee").architecture


def test_weights_that_are_not_kept_are_refused_before_anything_is_written(run: Run, tmp_path: Path) -> None:
    number = next(trial.number for trial in run.record.complete if trial != pick_trial(run, "best"))
    with pytest.raises(UserError, match=r"weights: must have been kept, .*; trial \d+ \(complete\) has no .*weights"):
        write(str(run.folder.path), pick=str(number), out=tmp_path / "arch.yaml", weights=tmp_path / "w.pt")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_program_prints_json_and_writes_into_the_present_folder(run: Run, tmp_path: Path) -> None:
    """The run is named, as it lies in runs/."""
    (tmp_path / "runs").symlink_to(run.folder.path.parent)
    command = [sys.executable, "-m", "nas.export", "exported", "--pick", "best", "--json", "--no-prove"]
    environment = {"PYTHONPATH": str(Path(metaformer.__file__).parents[1])}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    result, trial = json.loads(done.stdout), pick_trial(run, "best")
    assert (result["trial"], result["val_accuracy"], result["params"]) == (
        trial.number,
        trial.val_accuracy,
        trial.params,
    )
    assert metaformer.Architecture.from_file(tmp_path / result["architecture"]) == trial.architecture
    assert not done.stderr


def test_the_program_names_the_next_command(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(str(run.folder.path), pick="0")
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith("trial-00000.yaml: trial 0, val ")
    assert last == """next: python -c "import metaformer; print(metaformer.build('trial-00000.yaml'))\""""
    assert (tmp_path / "trial-00000.yaml").exists()


def test_a_path_is_printed_without_what_acts_on_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    odd = "a\x1b[31m\nb"
    make_run(tmp_path / odd, max_trials=2).record.close()
    write(odd, pick="0", out=Path(f"{odd}.yaml"))
    report(odd)
    out = capsys.readouterr().out
    assert out.replace("\n", "").isprintable()
    assert len(out.splitlines()) == 2 + 5
    assert metaformer.Architecture.from_file(tmp_path / f"{odd}.yaml")
