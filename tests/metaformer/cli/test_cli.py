"""python -m metaformer, as a person types it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from metaformer import count_cost, zoo


def metaformer(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "metaformer", *arguments], capture_output=True, text=True, check=False)


def test_list_names_every_model_with_its_cost() -> None:
    rows = json.loads(metaformer("list", "--json").stdout)
    assert [row["name"] for row in rows] == zoo.names()
    assert {row["name"]: (row["params"], row["macs"]) for row in rows} == {
        name: (count_cost(zoo.get(name)).params, count_cost(zoo.get(name)).macs) for name in zoo.names()
    }
    lines = metaformer("list").stdout.splitlines()
    [line] = [line for line in lines if " metaformer_ppaa_s12_224 " in line]
    assert "16,535,592" in line
    assert "81.0 %" in line


def test_show_ends_with_the_architecture_as_yaml(tmp_path: Path) -> None:
    shown = metaformer("show", "poolformer_s12").stdout
    text = shown[shown.index("version: 1") :]
    (tmp_path / "arch.yaml").write_text(text, encoding="utf-8")
    assert zoo.resolve(str(tmp_path / "arch.yaml")) == zoo.get("poolformer_s12")
    again = json.loads(metaformer("show", str(tmp_path / "arch.yaml"), "--json").stdout)
    assert again == zoo.get("poolformer_s12").model_dump(mode="json")


def test_cost_of_the_parts_adds_up_at_any_resolution() -> None:
    counted = json.loads(metaformer("cost", "poolformer_s12", "--resolution", "384", "--json").stdout)
    parts = [*(part for stage in counted["stages"] for part in stage.values()), counted["head"]]
    assert sum(part["macs"] for part in parts) == counted["macs"]
    assert counted["macs"] == count_cost(zoo.get("poolformer_s12"), resolution=384).macs


def test_compare_names_the_fields_that_differ() -> None:
    differing = json.loads(metaformer("compare", "poolformer_s12", "poolformer_s12_pool5", "--json").stdout)
    assert differing == {f"stages.{i}.mixer.size": [3, 5] for i in range(4)}
    assert "They are the same." in metaformer("compare", "poolformer_s12", "poolformer_s12").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("show", "poolformer_s13"), "model: unknown name 'poolformer_s13'; known, nearest first: poolformer"),
        (("cost", "metaformer_ppaa_s12_224", "--resolution", "192"), "resolution: must be 224"),
        (("cost", "poolformer_s12", "--resolution", "2"), "resolution: stage 0 would have no token left"),
        (("show", "missing.yaml"), "architecture: must be a readable YAML file, got 'missing.yaml'"),
    ],
)
def test_what_is_asked_wrongly_is_one_line_and_code_2(arguments: tuple[str, ...], message: str) -> None:
    done = metaformer(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {message}")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("width: 64", "width: -64"),
        ("depth: 2", "depht: 2"),
        ("kind: pool, size: 3", "kind: attention, head_size: 48"),
        ("resolution: 224", "resolution: 2"),
    ],
)
def test_an_architecture_file_that_breaks_a_rule_is_one_line_and_code_2(
    tmp_path: Path, changed: str, message: str
) -> None:
    text = zoo.get("poolformer_s12").to_yaml()
    assert changed in text
    path = tmp_path / "arch.yaml"
    path.write_text(text.replace(changed, message, 1), encoding="utf-8")
    done = metaformer("cost", str(path))
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {path}: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("show",), "model: must be given"),
        (("cost", "poolformer_s12", "--resolution", "big"), "resolution: input should be a valid integer"),
        (
            ("cost", "poolformer_s12", "--resolutoin", "64"),
            "option: unknown name '--resolutoin'; known, nearest first:",
        ),
        (("shw", "poolformer_s12"), "arguments: No such command 'shw'"),
        (("show", "a\x1b[31mb" + "x" * 5000), "model: unknown name 'a\\x1b[31mbxxx"),
    ],
)
def test_wrong_arguments_are_one_short_printable_line_and_code_2(arguments: tuple[str, ...], message: str) -> None:
    done = metaformer(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {message}")
    assert len(done.stderr) <= 301
    assert done.stderr.rstrip("\n").isprintable()
