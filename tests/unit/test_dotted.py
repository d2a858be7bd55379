"""Nested settings as dotted names, and tables of them."""

from __future__ import annotations

from trainables.language.dotted import changes, flat
from trainables.language.markdown import table


def test_flat_names() -> None:
    assert flat({"a": {"b": 1, "c": {}, "e": {"f": None}}, "d": [2]}) == {"a.b": 1, "a.e.f": None, "d": [2]}


def test_what_differs_comes_in_order() -> None:
    before, after = {"z": 1, "a": {"x": 1, "y": 2}, "gone": 0}, {"z": 2, "new": 3, "a": {"y": 2, "x": 0}, "none": None}
    found = changes(before, after)
    assert list(found.items()) == [("z", (1, 2)), ("a.x", (1, 0)), ("gone", (0, None)), ("new", (None, 3))]
    assert not changes(after, after)


def test_a_bar_stays_in_its_cell() -> None:
    assert table(["name", "n"], [["a|b", 1], ["c", None]]) == "| name | n |\n| --- | --- |\n| a\\|b | 1 |\n| c | None |"
