"""README.md and docs/: each command that they print is one that its program accepts, and their code is tested code."""

import ast
import importlib
import re
import shlex
import tomllib
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
import typer
from typer.main import get_command

import search_spaces
from metaformer import __main__ as models
from nas.session import proposers
from nas.study.budget import Budget
from nas.study.recipe_files import find_recipe

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(?:<!-- needs: ([^\n]+) -->\s*)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ELSEWHERE = {"ray"}  # programs that a block which needs a cluster may call
OF_MODELS: dict[str, Callable[..., object]] = {
    "list": models.list_models,
    "show": models.show,
    "cost": models.cost,
    "compare": models.compare,
    "validate": models.validate,
}
BLOCKS = [(page.name, *found.groups()) for page in PAGES for found in BLOCK.finditer(page.read_text(encoding="utf-8"))]


def commands() -> list[tuple[str, str | None, str]]:
    """Page, what it needs that is not here, and the command, each in one line."""
    return [
        (page, needs, line)
        for page, needs, language, text in BLOCKS
        if language == "bash"
        for line in text.replace("\\\n", " ").splitlines()
        if line.strip()
    ]


def test_every_block_says_what_it_is() -> None:
    assert {language for _, _, language, _ in BLOCKS} == {"bash", "python", "text"}


@pytest.mark.parametrize(("page", "needs", "line"), commands())
def test_a_command_is_one_that_its_program_accepts(page: str, needs: str | None, line: str) -> None:
    words = shlex.split(line, comments=True)
    while "&&" in words:
        check(words[: words.index("&&")], needs)
        words = words[words.index("&&") + 1 :]
    check(words, needs)


def check(words: list[str], needs: str | None) -> None:
    match words:
        case ["make", target]:
            assert re.search(rf"^{target}:.*##", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        case ["source", path]:
            assert path == ".venv/bin/activate"
        case ["pip", "install", name]:
            extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
            assert name.split("[")[1].rstrip("]") in extras["optional-dependencies"]
        case ["python", "-c", code]:
            ast.parse(code)
        case ["python", "-m", "metaformer", name, *arguments]:
            parse(OF_MODELS[name], arguments)
        case ["python", "-m", module, *arguments] if module.startswith("nas."):
            values = parse(getattr(importlib.import_module(module), module.rsplit(".", 1)[1]), arguments)
            check_names(values)
        case [program, *_]:
            assert program in ELSEWHERE
            assert needs


def parse(command: Callable[..., object], arguments: list[str]) -> dict[str, object]:
    """The options as the program's own parser reads them."""
    app = typer.Typer(add_completion=False)
    app.command()(command)
    if arguments[-1:] == ["--watch"]:
        arguments = [*arguments, "2"]  # the program has a number for it
    return dict(get_command(app).make_context("program", list(arguments)).params)


def check_names(values: dict[str, object]) -> None:
    known: dict[str, Callable[[str], object]] = {
        "recipe": find_recipe,
        "space": search_spaces.get,
        "budget": Budget.parse,
    }
    for name, find in known.items():
        if values.get(name):
            find(str(values[name]))
    assert values.get("sampler") in {None, *proposers.names()}


@pytest.mark.parametrize("name", ["add_mixer.md", "add_space.md", "add_objective.md"])
def test_an_addition_is_the_one_that_the_contracts_try(name: str) -> None:
    source = (ROOT / "tests" / "contracts" / "additions.py").read_text(encoding="utf-8")
    parts = [text for page, _, language, text in BLOCKS if page == name and language == "python" and "class " in text]
    assert parts
    assert all(part.strip() in source for part in parts)


def test_the_readme_counts_the_architectures_of_every_space() -> None:
    counts = dict(re.findall(r"^\| `(\w+)` \|.*\| ([\d,]+) \|$", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE))
    spaces = [search_spaces.get(name) for name in search_spaces.names()]
    ours = [
        space for space in spaces if type(space).__module__.startswith("search_spaces.")
    ]  # other tests register their own
    assert counts == {space.name: f"{space.size:,}" for space in ours}


def test_benchmarks_that_the_documents_name_exist_with_their_options() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    found = re.findall(r"`python (?:-m )?(benchmarks[./]\w+)(?:\.py)?([^`]*)`", text)
    assert found
    for name, options in found:
        path = ROOT / name.replace(".", "/")
        source = (path / "__main__.py" if path.is_dir() else path.with_suffix(".py")).read_text(encoding="utf-8")
        for option in re.findall(r"--([\w-]+)", options):
            assert f"--{option}" in source or f"{option.replace('-', '_')}:" in source


def test_the_sampler_of_your_own_study_does_what_the_page_shows() -> None:
    [code] = [text for page, _, language, text in BLOCKS if page == "python.md" and "ExactCostSampler" in text]
    names: dict[str, object] = {}
    exec(compile(code, "docs/python.md", "exec"), names)  # noqa: S102  our own page
    study = names["study"]
    assert isinstance(study, optuna.Study)
    assert all(trial.params["activation"] == "gelu" for trial in study.best_trials[-3:])
