"""The one form of error messages."""

import pytest
from pydantic import BaseModel, ValidationError, field_validator

from metaformer.errors import explain, nearest_first, unknown_name


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
