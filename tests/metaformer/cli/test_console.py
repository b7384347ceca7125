"""Text on a console is plain, whatever is in it."""

from pathlib import Path

import pytest
from rich.table import Table

from metaformer import zoo
from metaformer.cli.console import make_console
from tests.metaformer.cli.test_cli import metaformer

ODD = "m[/b]x [bold]y :smile: \x1b[31m\x07 \u202ez"


def test_markup_and_control_characters_are_printed_as_they_are_written(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(title=ODD)
    table.add_column(ODD)
    table.add_row(ODD)
    console = make_console()
    for what in (ODD, table):
        console.print(what)
    out = capsys.readouterr().out
    assert out.count("m[/b]x [bold]y :smile: \\x1b[31m\\x07 \\u202ez") == 4
    assert out.replace("\n", "").isprintable()


def test_markup_in_the_name_of_a_file_is_no_markup(tmp_path: Path) -> None:
    path = tmp_path / "m[bold]x.yaml"
    path.write_text(zoo.get("poolformer_s24").to_yaml(), encoding="utf-8")
    done = metaformer("compare", "poolformer_s12", str(path))
    assert done.returncode == 0
    assert "m[bold]x.yaml" in done.stdout
    assert metaformer("compare", str(path), str(tmp_path / "x[/b].yaml")).returncode == 2
