"""Items of the corpus: the expression of a number, a pure function of (configuration, split, index). Imports no torch.

    item(ExpressionConfig(max_depth=4), "train", 17)

Trees are drawn from the root: a node is a number with probability 0.3, and always at the greatest depth; otherwise it
is `+` or `-`, equally likely, with two nodes below it. Of the items, `invalid_rate` are then broken in one of seven
ways at one of their operators, both equally likely; a bare number has none, so a broken item has at least one.

A hash of the text decides which split an expression belongs to, and an item is drawn anew until it belongs to its own:
no expression of one split ever occurs in another one, whatever the seeds and the configurations.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import Literal, NamedTuple, get_args

from rung.errors import RungError
from trainables.arithmetic.corpus_config import ExpressionConfig
from trainables.arithmetic.expressions import InvalidExpression, parse

Part = Literal["train", "validation", "test"]

ErrorKind = Literal[
    "missing_right", "missing_left", "doubled_plus", "doubled_minus", "unclosed", "unopened", "arbitrary", "several"
]
"""What is wrong with an invalid item; `several`: with `node_error_rate`, more than one."""

KINDS: tuple[ErrorKind, ...] = get_args(ErrorKind)[:-1]
"""The seven ways to break an operator."""

NUMBER = 0.3
"""Probability that a node above the greatest depth is a number."""

HELD_OUT = 0.1
"""Share of all expressions in each of the parts test and validation."""

MOST_TRIES = 10_000
"""Draws of an item before it is given up: so many are missed only where hardly any expression belongs to the part."""

MOST_TABLED = 50
"""Different numbers up to which all shallow trees are written down beforehand, to be drawn in one go."""

RANGE = 2**32
"""A draw is a whole number from 0 to before this. A choice among n is off equal likelihood by at most n / RANGE."""

_BLOCK = struct.Struct("<16I")
_COUNTER = struct.Struct("<QQ")


class Item(NamedTuple):
    """An expression and its value."""

    expression: str
    """Its text; canonical if it is valid."""
    answer: int | None
    """Its value; None: it is invalid."""
    error: ErrorKind | None
    """What is wrong with it; None: nothing."""
    depth: int
    """Of its tree; if it is invalid, of the tree that was broken."""
    operators: int
    """In its tree, likewise."""


def item(config: ExpressionConfig, split: Part, index: int) -> Item:
    """The item of that number.

    Raises:
        RungError: hardly any expression of the configuration belongs to the split.
    """
    return next(items(config, split, index, index + 1))


def items(config: ExpressionConfig, split: Part, begin: int, end: int) -> Iterator[Item]:
    """The items with the numbers from `begin` to before `end`; errors as of `item`."""
    source = _source(ExpressionConfig(**{name: getattr(config, name) for name in ExpressionConfig.model_fields}), split)
    return map(source.item, range(begin, end))


def part_of(expression: str) -> Part:
    """Which split a text belongs to: that of its canonical form, if it is a valid expression."""
    place = int.from_bytes(blake2b(expression.encode(), digest_size=4).digest(), "little")
    if place >= 2 * _SHARE:
        return "train"
    return "test" if place < _SHARE else "validation"


_SHARE = int(HELD_OUT * RANGE)

_LEAF = int(NUMBER * RANGE)
_SUM = _LEAF + (RANGE - _LEAF) // 2

_TOKEN = re.compile(r"[^ ()]+|\)")

_BROKEN: Mapping[ErrorKind, str] = {
    "missing_right": "{begin}{left} {operator}{end}",
    "missing_left": "{begin}{operator} {right}{end}",
    "doubled_plus": "{begin}{left} ++ {right}{end}",
    "doubled_minus": "{begin}{left} -- {right}{end}",
    "unclosed": "({left} {operator} {right}",
    "unopened": "{left} {operator} {right})",
}
"""What stands in place of an operation; the root has no brackets to begin and end with."""


Draw = Callable[[], int]
"""A whole number from 0 to before `RANGE`."""

_Tree = tuple[str, int, int]
"""Text, in brackets unless it is a number, depth and value."""


class _Source:
    """Draws the items of a configuration's split."""

    def __init__(self, config: ExpressionConfig, split: Part) -> None:
        self._config = config
        self._split = split
        self._hash = blake2b(f"{config.seed} {split}".encode())
        self._smallest = config.smallest
        self._count = config.largest - config.smallest + 1
        self._shallow = self._shallow_trees() if self._count <= MOST_TABLED else []
        self._invalid = 0 if config.node_error_rate is not None else round(config.invalid_rate * RANGE)
        self._node_errors = round((config.node_error_rate or 0) * RANGE)

    def item(self, index: int) -> Item:
        draw = self._draws(index).__next__
        is_broken = draw() < self._invalid
        for _ in range(MOST_TRIES):
            text, depth, value = self._tree(draw, self._config.max_depth)
            if depth:
                text = text[1:-1]
            whole = Item(text, value, None, depth, text.count("+") + text.count("-"))
            made = self._broken(draw, whole) if is_broken or self._node_errors else whole
            if made is not None and part_of(made.expression) == self._split:
                return made
        raise RungError(
            f"hardly any expression of depth {self._config.max_depth} with numbers from {self._config.smallest} to "
            f"{self._config.largest} belongs to the {self._split} part, which is chosen by a hash of the expression: "
            "allow deeper ones or more numbers"
        )

    def _draws(self, index: int) -> Iterator[int]:
        """Draws without end: a hash of seed, split, index and a counter."""
        block = 0
        while True:
            state = self._hash.copy()
            state.update(_COUNTER.pack(index, block))
            yield from _BLOCK.unpack(state.digest())
            block += 1

    def _tree(self, draw: Draw, room: int) -> _Tree:
        """A tree of at most the depth `room`."""
        if room == 1 and self._shallow:
            return self._shallow[draw() * len(self._shallow) >> 32]
        drawn = draw()
        if drawn < _LEAF or room == 0:
            # Where in its range the draw lies is as even as a new one.
            number = self._smallest + drawn * self._count // (_LEAF if room else RANGE)
            return str(number), 0, number
        left, depth, value = self._tree(draw, room - 1)
        right, other_depth, other_value = self._tree(draw, room - 1)
        depth = 1 + (depth if depth > other_depth else other_depth)
        if drawn < _SUM:
            return f"({left} + {right})", depth, value + other_value
        return f"({left} - {right})", depth, value - other_value

    def _shallow_trees(self) -> list[_Tree]:
        """The trees of depth 0 and 1, each as often as makes a uniform choice right; most nodes are in such ones."""
        values = range(self._smallest, self._smallest + self._count)
        numbers: list[_Tree] = [(str(a), 0, a) for a in values]
        sums: list[_Tree] = [(f"({a} + {b})", 1, a + b) for a in values for b in values]
        differences: list[_Tree] = [(f"({a} - {b})", 1, a - b) for a in values for b in values]
        # NUMBER = 0.3: of 20 n^2 entries n numbers fill 6 n^2, and 2 n^2 operations the other 14 n^2.
        return numbers * (6 * self._count) + (sums + differences) * 7

    def _broken(self, draw: Draw, whole: Item) -> Item | None:
        """The item after errors; unchanged if none is drawn, which only `node_error_rate` can do.

        None: it has no operator to break, or errors that make up for one another.
        """
        kinds = self._kinds(draw, whole.operators)
        if kinds:
            text = self._rewritten(draw, whole, kinds)
            error: ErrorKind = "several" if len(kinds) > 1 else next(iter(kinds.values()))
        elif self._node_errors:
            return whole
        elif self._config.max_depth == 0:
            text, error = self._arbitrary(draw), "arbitrary"
        else:
            return None
        # One error of another kind cannot be made good.
        if error in ("arbitrary", "several") and _is_valid(text):
            return None
        return Item(text, None, error, whole.depth, whole.operators)

    def _kinds(self, draw: Draw, operators: int) -> dict[int, ErrorKind]:
        """Which operators are broken, counted in post-order, and how."""
        if self._node_errors:
            broken = [place for place in range(operators) if draw() < self._node_errors]
        else:
            broken = [_below(draw, operators)] if operators else []
        return {place: KINDS[_below(draw, len(KINDS))] for place in broken}

    def _rewritten(self, draw: Draw, whole: Item, kinds: Mapping[int, ErrorKind]) -> str:
        """The text with those operators broken."""
        waiting: list[str] = []
        place = 0
        for token in _TOKEN.findall(f"{whole.expression})"):
            if token != ")":
                waiting.append(token)
                continue
            right, operator, left = waiting.pop(), waiting.pop(), waiting.pop()
            begin, end = ("(", ")") if place < whole.operators - 1 else ("", "")
            kind = kinds.get(place)
            place += 1
            if kind is None:
                waiting.append(f"{begin}{left} {operator} {right}{end}")
            elif kind == "arbitrary":
                waiting.append(self._arbitrary(draw))
            else:
                form = _BROKEN[kind]
                waiting.append(form.format(begin=begin, left=left, operator=operator, right=right, end=end))
        return waiting[0]

    def _arbitrary(self, draw: Draw) -> str:
        """2 to 20 operators, brackets and numbers in any order."""
        tokens = []
        for _ in range(2 + _below(draw, 19)):
            kind = _below(draw, len(_SIGNS) + 1)
            tokens.append(_SIGNS[kind] if kind < len(_SIGNS) else str(self._smallest + _below(draw, self._count)))
        return " ".join(tokens)


def _is_valid(text: str) -> bool:
    try:
        parse(text)
    except InvalidExpression:
        return False
    return True


def _below(draw: Draw, count: int) -> int:
    """One of 0 ... count - 1."""
    return draw() * count >> 32


_SIGNS = "+-()"


@lru_cache(maxsize=16)
def _source(config: ExpressionConfig, split: Part) -> _Source:
    """The last few sources are kept for whoever asks for items one by one."""
    return _Source(config, split)
