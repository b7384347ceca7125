"""The commands of README.md and docs/, run one after another in one folder, as a reader does.

Searches are cut to a few short trials, and a hundred generated JPEGs stand for CIFAR-10. What needs GPUs, a cluster or
the papers' weights says so above its block and is not run; neither are the test suite and a server that never ends.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.nas.photographs import write_photographs
from tests.nas.programs import PATIENCE, ROOT
from tests.test_documents import BLOCKS

pytestmark = [pytest.mark.services, pytest.mark.xdist_group("commands"), pytest.mark.timeout(3600)]

ORDER = ("first_hour.md", "cifar10.md", "README.md", "run_folder.md", "models.md")  # some use what earlier ones made
HERE = {None, "CIFAR-10"}  # what a block may need
LEFT_OUT = {"make test", "source .venv/bin/activate", "python -m nas.dashboard RUN"}
RUNS = {"RUN_A": "hybrid_stages-digits", "RUN_B": "second", "RUN": "hybrid_stages-digits"}
# A budget for the slowest machine: the number of trials ends a search
OPTIONS = {"budget": "9cpu-hours", "images-per-class": "40"}
FEW = "--epochs 4 --max-trials 9 --stopper none"  # explaining needs 12 complete ones, hand-designed ones included


def steps() -> list[tuple[str, str]]:
    """Language and text of all that can be run here, in order; what two pages have alike once."""
    pages = [*ORDER, *sorted({page for page, *_ in BLOCKS} - set(ORDER))]
    found = [
        (language, step)
        for page in pages
        for name, needs, language, text in BLOCKS
        if name == page and needs in HERE and not name.startswith("add_")  # their code is tested by the contracts
        for step in (_commands(text) if language == "bash" else [text] if language == "python" else [])
    ]
    return list(dict.fromkeys(found))


def _commands(text: str) -> list[str]:
    lines = (re.sub(r"\s+#.*", "", line).strip() for line in text.replace("\\\n", " ").splitlines())
    return [line for line in lines if line and line not in LEFT_OUT]


def test_there_is_something_to_run_on_each_page_of_a_newcomer() -> None:
    commands = [text for language, text in steps() if language == "bash"]
    for program in ("make search", "nas.prepare", "nas.report", "nas.export", "nas.compare", "metaformer cost"):
        assert any(program in command for command in commands), program


def test_commands_and_code_of_the_documents_run_in_their_order(tmp_path: Path) -> None:
    photos = write_photographs(tmp_path / "cifar10", side=32, per_class=50, num_test=10)
    [made] = re.findall(r"^search:.*\n\t\$\(BIN\)/(.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    work = tmp_path / "work"
    work.mkdir()
    for language, text in _with_second_run(steps(), made):
        step = _fitted(text, photos, tmp_path / "fast" / "cifar10")
        command = [sys.executable, "-c", step] if language == "python" else ["bash", "-euo", "pipefail", "-c", step]
        outcome = subprocess.run(
            command, cwd=work, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        assert outcome.returncode == 0, f"{step}\n{outcome.stdout[-2000:]}\n{outcome.stderr[-2000:]}"


def _with_second_run(steps: list[tuple[str, str]], made: str) -> Iterator[tuple[str, str]]:
    """The steps with the command behind `make search`, which is given again, with a seed of its own, for RUN_B."""
    for language, text in steps:
        if "RUN_B" in text:
            yield "bash", f"{made} --seed 1 --name {RUNS['RUN_B']}"
        yield language, made if text == "make search" else text


def _fitted(text: str, photos: Path, prepared: Path) -> str:
    """The command with few trials, on the images and runs that are here."""
    text = text.replace("/data/cifar10", str(photos)).replace("/fast/cifar10", str(prepared))
    for option, value in OPTIONS.items():
        text = re.sub(rf"--{option} \S+", f"--{option} {value}", text)
    for name, run in RUNS.items():
        text = re.sub(rf"\b{name}\b", run, text)
    return f"{text} {FEW}" if "nas.search --space" in text else text
