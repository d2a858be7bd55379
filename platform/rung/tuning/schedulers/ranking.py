"""Rank and threshold of one value among others: the arithmetic that the halving rules share."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Mode = Literal["min", "max"]


@dataclass(frozen=True)
class Standing:
    """Where a value stands among those it is compared with."""

    rank: int
    """1 is the best; ties share the best rank."""
    compared: int
    """How many were compared, itself included."""
    keep: int
    """How many were to go on; more do when others tie with the last of them."""
    threshold: float | None
    """The value of the last of them; empty if it has none."""
    survives: bool
    """Whether it is usable and at least as good as the threshold."""


def score(value: float | None, mode: Mode) -> float:
    """`value` so that less is better; infinite for a missing value, which is worse than any number."""
    if value is None:
        return math.inf
    return value if mode == "min" else -value


def unscore(scored: float, mode: Mode) -> float | None:
    """The value that `score` took."""
    if math.isinf(scored):
        return None
    return scored if mode == "min" else -scored


def share(count: int, reduction_factor: int) -> int:
    """How many of `count` go on: `count / reduction_factor`, rounded up, so that somebody always does."""
    return -(-count // reduction_factor)


def standing(value: float | None, values: Iterable[float | None], keep: int, mode: Mode) -> Standing:
    """Where `value` stands among `values` (itself included), of which the best `keep` are to go on."""
    sign = 1 if mode == "min" else -1
    scores = sorted([math.inf if other is None else sign * other for other in values])
    rank = 1 + bisect_left(scores, score(value, mode))
    return Standing(
        rank=rank,
        compared=len(scores),
        keep=keep,
        threshold=unscore(scores[keep - 1], mode),
        survives=value is not None and rank <= keep,
    )
