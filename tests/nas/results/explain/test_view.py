"""Comparisons as they are written on the command line."""

import pytest

import search_spaces
from metaformer.errors import UserError
from nas.results.explain.view import parse_comparison

CHOICES = search_spaces.get("t2t_vit").choices


def test_both_sides_are_read_with_the_types_of_the_genes() -> None:
    first, second = parse_comparison("stem=performer, depth=4 : stem=patches,depth=24", CHOICES)
    assert first == {"stem": "performer", "depth": 4}
    assert second == {"stem": "patches", "depth": 24}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stem=patches", "compare: must be GENE=VALUE,… : GENE=VALUE,…, got 'stem=patches'"),
        ("stem:stem=patches", "compare: must be GENE=VALUE,… : GENE=VALUE,…, got 'stem'"),
        ("stm=patches:stem=patches", "compare: unknown name 'stm'; known, nearest first: stem,"),
        ("depth=4:depth=40", "compare: depth: unknown name '40'; known, nearest first: 4,"),
    ],
)
def test_what_is_no_comparison_is_told_in_one_line(text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_comparison(text, CHOICES)
    assert str(caught.value).startswith(message)
