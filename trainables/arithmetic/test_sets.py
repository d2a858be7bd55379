"""Test sets: expressions of the test part, as varied as the distribution they are drawn from, and none of them twice.

    test_set(TestConfig(max_depth=4, samples=1000))

Items fall into strata by their number of operators and their depth. Each stratum gets its share of the set, by largest
remainder, so that no set has by chance more hard items than another one. A stratum may have fewer expressions than
that: three of the numbers from 1 to 20 are in the test part, although 30 % of all items are bare numbers. It then gives
all it has, and the others share the rest in proportion; `strata` says how many. A set without repetition is for that
reason harder than random draws. Imports no torch.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rung.errors import RungError
from trainables.arithmetic.corpus_config import ExpressionConfig, TestConfig
from trainables.arithmetic.generator import HELD_OUT, NUMBER, Item, items, part_of

MOST_LISTED = 10_000
"""Expressions of a stratum that are written out to see which of them are in the test part. Of a larger stratum at most
half of what must be there is taken: to draw the rest without repetition would take long."""

NEGLIGIBLE = 1e-15
"""Probabilities that are rounding errors."""


class Stratum(NamedTuple):
    """Expressions of a size."""

    operators: int
    depth: int


@dataclass(frozen=True)
class Allotment:
    """What a test set takes from a stratum."""

    stratum: Stratum
    share: float
    """Of valid items as they are drawn."""
    wanted: int
    """Items that are that share of the set."""
    taken: int
    """Items in the set: fewer where there are no more, and more elsewhere in return."""


def test_set(config: TestConfig) -> list[Item]:
    """The items of a test set, in an order that says nothing about them.

    Raises:
        RungError: the test part has fewer expressions than are wanted.
    """
    quotas = {each.stratum: each.taken for each in strata(config) if each.taken}
    chosen = [*_listed(config, quotas), *_drawn(config, quotas), *_invalid(config)]
    return sorted(chosen, key=lambda item: _order(config, item.expression))


test_set.__test__ = False  # type: ignore[attr-defined]  # not a test


def strata(config: TestConfig) -> list[Allotment]:
    """What the valid items of a test set are, stratum by stratum; errors as of `test_set`."""
    samples, shares = config.samples - _invalid_count(config), natural_shares(config)
    wanted, taken = _largest_remainder(samples, shares), _filled(samples, shares, config)
    return [
        Allotment(stratum, share, wanted[stratum], taken[stratum])
        for stratum, share in sorted(shares.items())
        if wanted[stratum] or taken[stratum]
    ]


def natural_shares(config: ExpressionConfig) -> dict[Stratum, float]:
    """The probability of each stratum among the valid items of a configuration, as they are drawn."""
    valid = _valid_probabilities(config)
    total = sum(valid.values())
    return {stratum: share / total for stratum, share in valid.items()}


def _valid_probabilities(config: ExpressionConfig) -> dict[Stratum, float]:
    """The probability that an item is drawn of a stratum and that none of its operators breaks by itself."""
    survival = 1.0 - (config.node_error_rate or 0.0)
    lower, found = np.zeros(1), dict[Stratum, float]()
    for depth in range(config.max_depth + 1):
        at_most = _at_most(config.max_depth, depth)
        exactly = at_most - np.pad(lower, (0, len(at_most) - len(lower)))
        found |= {Stratum(n, depth): float(p) * survival**n for n, p in enumerate(exactly) if p > NEGLIGIBLE}
        lower = at_most
    return found


def _at_most(room: int, depth: int) -> NDArray[np.float64]:
    """Element n: the probability that a node with `room` levels below it has n operators and at most that depth.

    It is a number, or an operator over two such nodes with a level less: a polynomial in x, x standing for an operator.
    """
    if room == 0:
        return np.ones(1)
    if depth == 0:
        return np.full(1, NUMBER)
    below = _at_most(room - 1, depth - 1)
    return np.concatenate([[NUMBER], (1 - NUMBER) * np.convolve(below, below)])


def _largest_remainder(seats: int, shares: Mapping[Stratum, float]) -> Counter[Stratum]:
    """`seats` in proportion to shares: whole parts first, what is left to the largest remainders."""
    total = sum(shares.values())
    exact = {stratum: seats * share / total for stratum, share in shares.items()}
    given = Counter({stratum: int(part) for stratum, part in exact.items()})
    by_remainder = sorted(exact, key=lambda stratum: (given[stratum] - exact[stratum], stratum))
    given.update(by_remainder[: seats - given.total()])
    return given


def _filled(samples: int, shares: Mapping[Stratum, float], config: TestConfig) -> Counter[Stratum]:
    """The same, but no stratum gives more than it has."""
    taken, rest = Counter[Stratum](), dict(shares)
    while rest:
        given = _largest_remainder(samples - taken.total(), rest)
        short = [stratum for stratum in rest if given[stratum] > _room(config, stratum)]
        if not short:
            return taken + given
        for stratum in short:
            taken[stratum] = _room(config, stratum)
            del rest[stratum]
    raise RungError(
        f"a test set of {samples:,} different expressions of depth {config.max_depth} with numbers from "
        f"{config.smallest} to {config.largest} cannot be made: about {taken.total():,} belong to the test part. Take "
        "fewer, or allow deeper ones or more numbers"
    )


def _room(config: TestConfig, stratum: Stratum) -> int:
    """Expressions that a stratum can give to a test set."""
    if _is_listed(config, stratum):
        return len(_members(stratum, _numbers(config)))
    return _how_many(stratum, len(_numbers(config))) // round(2 / HELD_OUT)


def _is_listed(config: TestConfig, stratum: Stratum) -> bool:
    return _how_many(stratum, len(_numbers(config))) <= MOST_LISTED


def _listed(config: TestConfig, quotas: Mapping[Stratum, int]) -> Iterator[Item]:
    """Items of the strata that are small enough to be written out."""
    for stratum, quota in quotas.items():
        if _is_listed(config, stratum):
            members = sorted(_members(stratum, _numbers(config)), key=lambda member: _order(config, member[0]))
            for text, value in members[:quota]:
                yield Item(text, value, None, stratum.depth, stratum.operators)


def _drawn(config: TestConfig, quotas: Mapping[Stratum, int]) -> Iterator[Item]:
    """Items of the other strata, as they come."""
    left = Counter({stratum: quota for stratum, quota in quotas.items() if not _is_listed(config, stratum)})
    valid = config.model_copy(update={"invalid_rate": 0.0, "node_error_rate": None})
    seen: set[str] = set()
    drawn = items(valid, "test", 0, sys.maxsize)
    while left.total():
        item = next(drawn)
        stratum = Stratum(item.operators, item.depth)
        if left[stratum] and item.expression not in seen:
            seen.add(item.expression)
            left[stratum] -= 1
            yield item


def _invalid_count(config: TestConfig) -> int:
    """Invalid items in a set."""
    if config.node_error_rate is None:
        return round(config.samples * config.invalid_rate)
    return round(config.samples * (1 - sum(_valid_probabilities(config).values())))


def _invalid(config: TestConfig) -> Iterator[Item]:
    """The invalid items, as they come."""
    left = _invalid_count(config)
    seen: set[str] = set()
    drawn = items(config.model_copy(update={"invalid_rate": 1.0}), "test", 0, sys.maxsize)
    while len(seen) < left:
        item = next(drawn)
        if item.error and item.expression not in seen:
            seen.add(item.expression)
            yield item


def _numbers(config: ExpressionConfig) -> range:
    return range(config.smallest, config.largest + 1)


def _order(config: ExpressionConfig, expression: str) -> bytes:
    return blake2b(f"{config.seed} {expression}".encode()).digest()


@cache
def _how_many(stratum: Stratum, numbers: int) -> int:
    """Different expressions of a stratum; of many, at least how many."""
    written_alike: int = numbers ** (stratum.operators + 1) * 2**stratum.operators
    if stratum.operators == 0 or written_alike > MOST_LISTED:
        return written_alike
    return 2 * sum(_how_many(left, numbers) * _how_many(right, numbers) for left, right in _halves(stratum))


@cache
def _members(stratum: Stratum, numbers: range) -> list[tuple[str, int]]:
    """Text and value of every expression of a stratum in the test part."""
    return [(text, value) for text, value in _written(stratum, numbers) if part_of(text) == "test"]


def _written(stratum: Stratum, numbers: range) -> Iterator[tuple[str, int]]:
    """Text and value of every expression of a stratum."""
    if stratum.operators == 0:
        yield from ((str(number), number) for number in numbers)
    for left, right in _halves(stratum):
        for (a, x), (b, y) in product(_bracketed(left, numbers), _bracketed(right, numbers)):
            yield f"{a} + {b}", x + y
            yield f"{a} - {b}", x - y


def _bracketed(stratum: Stratum, numbers: range) -> Iterator[tuple[str, int]]:
    written = _written(stratum, numbers)
    return ((f"({text})", value) for text, value in written) if stratum.operators else written


def _halves(stratum: Stratum) -> Iterator[tuple[Stratum, Stratum]]:
    """The strata of the two sides of the root."""
    depths = range(stratum.depth)
    for operators in range(stratum.operators):
        for left, right in product(depths, depths):
            pair = Stratum(operators, left), Stratum(stratum.operators - 1 - operators, right)
            if max(left, right) == stratum.depth - 1 and all(_is_possible(each) for each in pair):
                yield pair


def _is_possible(stratum: Stratum) -> bool:
    """Whether a tree can have so many operators and that depth."""
    return stratum.depth <= stratum.operators < 2**stratum.depth
