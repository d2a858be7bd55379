"""How many seeds train up to each rung."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rung.tuning.schedulers import seeds_at_rungs


@pytest.mark.parametrize(
    ("start", "full", "rungs", "expected"),
    [
        (2, 8, 2, (2, 4, 8)),
        (2, 8, 1, (2, 8)),
        (2, 8, 0, (8,)),
        (2, 16, 3, (2, 4, 8, 16)),
        (1, 5, 2, (1, 2, 5)),
        (3, 3, 2, (3, 3, 3)),
    ],
)
def test_by_hand(start: int, full: int, rungs: int, expected: tuple[int, ...]) -> None:
    assert seeds_at_rungs(start, full, rungs) == expected


@given(st.integers(1, 20), st.integers(0, 50), st.integers(0, 8))
def test_it_starts_and_ends_where_it_should_and_never_falls(start: int, more: int, rungs: int) -> None:
    counts = seeds_at_rungs(start, start + more, rungs)
    assert len(counts) == rungs + 1
    assert counts[-1] == start + more
    assert rungs == 0 or counts[0] == start
    assert all(low <= high for low, high in pairwise(counts))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0, 8, 2), "start must be"), ((4, 3, 2), "full must be .* at least 4, got 3"), ((2, 8, -1), "rungs must be")],
)
def test_what_makes_no_sense_is_refused(arguments: tuple[int, int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        seeds_at_rungs(*arguments)
