"""Rows on narrow terminals: every character of them is there, and no line is too long."""

from __future__ import annotations

from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from rung.results.fitting import fits, render_blocks

ROWS = [
    {
        "id": "c0123456789ab",
        "configuration": "learning_rate=0.05, weight_decay=0.3",
        "n": "2/2",
        "mean": "0.0188 [-0.0810, 0.1187]",
    },
    {"id": "c1123456789ab", "configuration": "base", "n": None, "mean": "1"},
]


def shown(width: int, rows: list[dict[str, str | None]]) -> list[str]:
    console = Console(file=(out := StringIO()), width=width, highlight=False)
    console.print(render_blocks(rows, "title", width, "configuration"))
    return out.getvalue().splitlines()


def test_a_table_fits_where_its_columns_do() -> None:
    assert fits(ROWS, 13 + 36 + 3 + 24 + 8)
    assert not fits(ROWS, 13 + 36 + 3 + 24 + 7)
    assert fits([], 1)


def test_a_block_has_its_label_first_and_the_rest_by_name() -> None:
    assert shown(60, ROWS) == [
        "title",
        "learning_rate=0.05, weight_decay=0.3",
        "  c0123456789ab  n 2/2  mean 0.0188 [-0.0810, 0.1187]",
        "base",
        "  c1123456789ab  mean 1",
    ]


@pytest.mark.parametrize("width", [20, 40, 80])
@given(st.lists(st.text("abc=0.5, ", min_size=1, max_size=200), min_size=3, max_size=3))
def test_nothing_is_cut_off_and_no_line_is_too_long(width: int, values: list[str]) -> None:
    row = dict(zip(("configuration", "reason", "seeds"), values, strict=True))
    lines = shown(width, [row])
    assert max(map(len, lines)) <= width
    letters = "".join("".join(lines).split())
    for value in values:
        assert "".join(value.split()) in letters
