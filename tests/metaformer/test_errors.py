"""The one form of error messages."""

import pytest
from pydantic import BaseModel, ValidationError, field_validator

from metaformer.errors import explain, nearest_first, one_line, printable, shown, unknown_name


def test_the_nearest_names_come_first_and_none_is_lost() -> None:
    assert nearest_first("atention", ["pool", "attention", "identity"]) == ["attention", "identity", "pool"]
    assert nearest_first("zzz", ["pool", "attention"]) == ["pool", "attention"]


def test_a_long_list_of_names_is_cut_after_twelve() -> None:
    text = unknown_name("model", "x", (f"name_{i}" for i in range(15)))
    assert text.endswith("name_11 and 3 more")


class Inner(BaseModel, extra="forbid"):
    size: int = 1

    @field_validator("size")
    @classmethod
    def _check(cls, size: int) -> int:
        if size < 0:
            raise ValueError("must not be negative")
        return size


class Outer(BaseModel, extra="forbid"):
    inner: Inner | None = None
    many: dict[str, Inner] = {}


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        ({"inner": {"size": -1}}, "inner.size: must not be negative, got -1"),
        ({"inner": {"sise": 1}}, "inner.sise: unknown name 'sise'; known, nearest first: size"),
        ({"innr": 1}, "innr: unknown name 'innr'; known, nearest first: inner, many"),
        ({"inner": {"size": "x"}, "other": 1}, "inner.size: input should be a valid integer,"),
    ],
)
def test_a_broken_rule_is_one_line_with_path_rule_and_value(raw: dict[str, object], line: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(raw)
    text = explain(caught.value, Outer)
    assert text.startswith(line)
    assert "\n" not in text
    assert text.endswith("(and 1 more)") == (len(raw) > 1)


@pytest.mark.parametrize(
    "value",
    ["x" * 10**6, 10**5000, list(range(10**5)), {"a": {"b": {"c": {"d": ["e"] * 99}}}}, "a\x1b[31m\nb", b"\0" * 999],
    ids=str.split("text number list depth controls bytes"),
)
def test_a_value_of_any_size_is_shown_in_a_hundred_printable_characters(value: object) -> None:
    text = shown(value)
    assert len(text) <= 100
    assert text.isprintable()


def test_a_short_value_is_shown_whole() -> None:
    assert shown("poolformer_s12") == "'poolformer_s12'"
    assert shown([1, 2.5, None]) == "[1, 2.5, None]"


def test_a_long_line_keeps_its_beginning_and_its_end() -> None:
    line = one_line("field: must be so, " + "x" * 1000 + " got this")
    assert len(line) == 300
    assert line.startswith("field: must be so, xxx")
    assert line.endswith("xxx got this")


@pytest.mark.parametrize("char", ["\x1b", "\x07", "\x9b", "\u202e", "\u200b", "\udcff"])
def test_what_a_terminal_would_act_on_is_escaped(char: str) -> None:
    assert printable(f"a{char}b\nc").isascii()
    assert printable("größe 寸\n") == "größe 寸\n"


def test_a_name_that_is_long_costs_neither_time_nor_a_long_line() -> None:
    names = [f"a_name_of_some_length_{i}" for i in range(500)]
    assert len(unknown_name("model", "x" * 10**6, names)) < 300
