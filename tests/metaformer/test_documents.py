"""Reading documents: size, depth and aliases are limited, and only regular files are read."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from metaformer import zoo
from metaformer.architecture import Architecture
from metaformer.documents import parse_mapping, read_text
from metaformer.errors import ArchitectureError, UserError


@pytest.fixture(autouse=True)
def no_hanging() -> Iterator[None]:
    """A pipe that is waited for, or a bomb that is written out, ends the test rather than the machine."""
    signal.alarm(30)
    yield
    signal.alarm(0)


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (BOMB, r"must be YAML: must have at most 20,000 values, aliases written out, line \d+, column \d+$"),
        ("a: &a [*a]", "must be YAML: an alias must not stand within what it names, line 1, column 8$"),
        ("a: " + "[" * 60 + "]" * 60, "must be YAML: must have at most 50 levels, line 1"),
        ("a:\n" + "".join(" " * i + "- \n" for i in range(1, 80)), "must be YAML: "),
        ("a: " + "x" * 300_000, "must have at most 262,144 characters, got 300,003$"),
        ("a: " + "9" * 5000, "must be YAML: Exceeds the limit"),
        ("? " + "k" * 900 + "\n: 1\n? " + "k" * 900 + "\n: 2", "must be YAML: the key 'kkk.* is given twice, line 3"),
    ],
    ids=["bomb", "recursion", "brackets", "dashes", "size", "digits", "long key"],
)
def test_a_document_larger_than_a_person_writes_is_one_short_line(text: str, rule: str) -> None:
    with pytest.raises(UserError, match=f"^study: {rule}") as caught:
        parse_mapping(text, "study", error=UserError)
    assert len(str(caught.value)) < 300


def test_an_alias_is_read_as_what_it_names() -> None:
    assert parse_mapping("a: &a {b: 1}\nc: *a\nd: [*a, *a]", "study", error=UserError) == {
        "a": {"b": 1},
        "c": {"b": 1},
        "d": [{"b": 1}, {"b": 1}],
    }


@pytest.mark.parametrize(("text", "number"), [("1e-5", 1e-5), ("-2E3", -2e3), ("1.e+2", 100.0), ("1.5e-05", 1.5e-5)])
def test_a_power_of_ten_is_a_number_with_and_without_a_point(text: str, number: float) -> None:
    assert parse_mapping(f"a: {text}", "study", error=UserError) == {"a": number}


def test_a_bomb_in_the_place_of_a_number_is_shown_in_part(tmp_path: Path) -> None:
    path = tmp_path / "arch.yaml"
    path.write_text("".join(BOMB.splitlines(keepends=True)[:4]) + "stages: *a3\n", encoding="utf-8")
    with pytest.raises(ArchitectureError) as caught:
        Architecture.from_file(path)
    assert len(str(caught.value)) < 600


def _pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


def _loop(path: Path) -> Path:
    path.symlink_to(path)
    return path


def _huge(path: Path) -> Path:
    with path.open("wb") as file:
        file.truncate(2**24 + 1)
    return path


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_pipe, "is no regular file"),
        (_loop, "Too many levels of symbolic links"),
        (_huge, "has more than 16 MiB"),
        (lambda _: Path("/dev/zero"), "is no regular file"),
        (lambda path: path.parent, "Is a directory"),
        (lambda path: path.with_name("x" * 5000), "File name too long"),
        (lambda path: path.with_name("a\0b"), "embedded null"),
    ],
    ids=["pipe", "loop", "huge", "device", "folder", "long name", "nul"],
)
def test_only_regular_files_are_read(tmp_path: Path, make: Callable[[Path], Path], reason: str) -> None:
    with pytest.raises(UserError, match=rf"^study: must be a readable YAML file, got .*{reason}.*\)$") as caught:
        read_text(make(tmp_path / "a.yaml"), "study", error=UserError)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "a/" * 3000])
def test_a_name_that_no_file_can_have_is_an_unknown_model(name: str) -> None:
    with pytest.raises(ArchitectureError, match="^model: unknown name"):
        zoo.resolve(name)
