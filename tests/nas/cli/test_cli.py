"""What the programs share: errors as one line, light help, names of runs."""

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import pytest
import typer

from metaformer.errors import ArchitectureError, UserError
from nas.cli import one_line_errors, run, run_path
from nas.search import search
from nas.study.budget import BudgetError
from nas.study.study import StudyError
from search_spaces.space import SpaceError
from tests.nas.runs import make_run


@pytest.mark.parametrize("kind", [ArchitectureError, SpaceError, StudyError, BudgetError, UserError])
def test_what_a_person_can_put_right_is_one_line_and_code_2(
    kind: type[UserError], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended, one_line_errors():
        raise kind("field: must be so,\n got this")
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: field: must be so, got this\n"


def test_other_errors_keep_their_traceback() -> None:
    with pytest.raises(ValueError, match="a bug"), one_line_errors():
        raise ValueError("a bug")


def test_a_bare_name_is_a_run_under_runs_unless_it_is_a_run_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "study.yaml").touch()
    assert run_path("here") == Path("here")
    assert run_path("smoke") == Path("runs/smoke")
    assert run_path("other/smoke") == Path("other/smoke")
    assert run_path("/smoke") == Path("/smoke")


def test_the_prior_of_a_team_is_a_run_under_its_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_run(Path("ours/earlier"), max_trials=1).record.close()
    Path("nas.yaml").write_text("prior: earlier\nruns: ours\ndata: digits\n", encoding="utf-8")
    with pytest.raises(StudyError, match=r"^prior: must have trained \d+ architectures .* in 'ours/earlier'$"):
        search(budget="6cpu-minutes")


def test_an_unknown_run_is_one_line_that_names_the_nearest(tmp_path: Path) -> None:
    for name in ("nothing", "smoke"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "study.yaml").touch()
    asked = tmp_path / "smoked"
    done = subprocess.run([sys.executable, "-m", "nas.report", str(asked)], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"error: run: must be a folder with a study.yaml, got {str(asked)!r}; "
        f"runs in {tmp_path}, nearest first: smoke, nothing"
    ]


@pytest.mark.parametrize("program", ["nas.report", "nas.export", "nas.dashboard", "nas.status", "nas.compare"])
def test_help_has_examples_and_loads_nothing_heavy(program: str) -> None:
    code = (
        "import runpy, sys\n"
        "sys.argv[1:] = ['--help']\n"
        "try:\n"
        f"    runpy.run_module({program!r}, run_name='__main__', alter_sys=True)\n"
        "finally:\n"
        "    print(sorted({'torch', 'ray', 'optuna', 'pandas', 'plotly'} & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert f"Examples:\n    python -m {program} " in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "None False\n"),
        (("--every",), "10.0 False\n"),
        (("--every", "5"), "5.0 False\n"),
        (("--every=5",), "5.0 False\n"),
        (("--every", "-1"), "-1.0 False\n"),
        (("--every", "--flag"), "10.0 True\n"),
    ],
)
def test_an_option_may_be_declared_to_stand_without_its_number(
    arguments: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def program(
        every: Annotated[float | None, typer.Option()] = None,
        flag: Annotated[bool, typer.Option("--flag")] = False,
    ) -> None:
        typer.echo(f"{every} {flag}")

    monkeypatch.setattr(sys, "argv", ["program", *arguments])
    with pytest.raises(SystemExit) as ended:
        run(program, bare={"--every": "10"})
    assert (ended.value.code, capsys.readouterr().out) == (0, said)
