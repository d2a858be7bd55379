"""Arithmetic expressions: numbers, `+`, `-`, brackets. Text to tree and back. Imports no torch.

    expression = expression ("+" | "-") operand | operand          left-associative, no unary sign
    operand    = digits | "(" expression ")"

    tree = parse("5 + (10 - 3)")        Operation("+", Number(5), Operation("-", Number(10), Number(3)))
    render(tree)                        "5 + (10 - 3)"

`render` writes one text for each tree: every operation but the root in brackets, one space around an operator. That is
the canonical form, which decides what counts as the same expression: `1+2+3` and `(1 + 2) + 3` are. Nothing here
recurses, so an expression may be as long as memory allows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from rung.errors import RungError

Operator = Literal["+", "-"]

CHARACTERS = frozenset("0123456789+-() ")
"""What an expression is written with."""

MOST_DIGITS = 100
"""Of a number; Python itself refuses to read some thousands."""

_TOKEN = re.compile(r"[0-9]+|[+\-()]")
_SIGNED = re.compile(r"(?<![0-9)])-[0-9]+|[0-9]+|[+\-()]")


class InvalidExpression(RungError):
    """The text is no expression; its message says what is wrong where. The right answer to it is ERROR."""


class OutsideLanguage(InvalidExpression):
    """The text has characters or numbers that no expression has, valid or not; no model has seen any."""


@dataclass(frozen=True, slots=True)
class Number:
    """A leaf."""

    value: int
    """Negative only in the middle of an evaluation."""

    @property
    def depth(self) -> int:
        """0."""
        return 0

    @property
    def operators(self) -> int:
        """0."""
        return 0


@dataclass(frozen=True, slots=True)
class Operation:
    """An operator with two operands."""

    operator: Operator
    left: Expression
    right: Expression
    depth: int = field(init=False, compare=False, repr=False)
    """Edges from here to the deepest number."""
    operators: int = field(init=False, compare=False, repr=False)
    """Operators in the tree."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "depth", 1 + max(self.left.depth, self.right.depth))
        object.__setattr__(self, "operators", 1 + self.left.operators + self.right.operators)


Expression: TypeAlias = Number | Operation


def parse(text: str, *, signed: bool = False) -> Expression:
    """The tree of an expression. Brackets that change nothing leave no trace in it.

    Args:
        text: digits, `+`, `-`, `(`, `)` and spaces.
        signed: whether `-7`, written without a space, may stand where a number may, as in a running expression.

    Raises:
        OutsideLanguage: it has other characters, or numbers of more than `MOST_DIGITS` digits.
        InvalidExpression: it has none, but is not well formed.
    """
    refuse_foreign(text)
    reader = _Reader()
    for found in (_SIGNED if signed else _TOKEN).finditer(text):
        reader.read(found.group(), found.start())
    return reader.result(len(text))


def canonical(text: str) -> str:
    """The one way to write the expression of a text; errors as of `parse`."""
    return render(parse(text))


def render(expression: Expression) -> str:
    """The canonical text of a tree; a negative number as `-7`."""
    pieces: list[str] = []
    waiting: list[Expression | str] = [expression]
    while waiting:
        each = waiting.pop()
        if isinstance(each, str):
            pieces.append(each)
        elif isinstance(each, Number):
            pieces.append(str(each.value))
        else:
            inner = (each.left, f" {each.operator} ", each.right)
            waiting.extend(reversed(inner if each is expression else ("(", *inner, ")")))
    return "".join(pieces)


def refuse_foreign(text: str) -> None:
    """Raises OutsideLanguage, naming what in the text no expression has, if there is such."""
    if foreign := sorted(set(text) - CHARACTERS):
        names = ", ".join(map(repr, foreign[:10]))
        raise OutsideLanguage(
            f"an expression has digits, + - ( ) and spaces; it has no {names} "
            f"(the first at character {min(text.index(each) for each in foreign) + 1})"
        )
    longest = max(map(len, re.findall("[0-9]+", text)), default=0)
    if longest > MOST_DIGITS:
        raise OutsideLanguage(f"a number of {longest:,} digits: they may have {MOST_DIGITS}")


class _Reader:
    """Reads tokens from left to right; each open bracket is a level with what stands left of its next operand."""

    def __init__(self) -> None:
        self._levels: list[tuple[Expression | None, Operator | None, int]] = []
        self._left: Expression | None = None  # the level's expression so far
        self._operator: Operator | None = None  # what waits for a right operand
        self._place = 0

    def read(self, token: str, place: int) -> None:
        self._place = place
        if token == "(":
            if self._is_full:
                raise self._problem("an opening bracket, where an operator should be")
            self._levels.append((self._left, self._operator, place))
            self._left = self._operator = None
        elif token == ")":
            self._close()
        elif token in ("+", "-"):
            if not self._is_full:
                before = "another operator" if self._operator else "nothing"
                raise self._problem(f"the operator {token} with {before} on its left")
            self._operator = "+" if token == "+" else "-"
        elif self._is_full:
            raise self._problem(f"the number {token}, where an operator should be")
        else:
            self._take(Number(int(token)))

    def result(self, length: int) -> Expression:
        """The tree, at the end of the text."""
        self._place = length
        if self._levels and self._is_full:
            self._place = self._levels[-1][2]
            raise self._problem("a bracket that is never closed")
        if not self._is_full:
            raise self._problem(f"nothing on the right of {self._operator}" if self._operator else "it has no number")
        assert self._left is not None
        return self._left

    @property
    def _is_full(self) -> bool:
        """Whether an operator or a closing bracket may follow."""
        return self._left is not None and self._operator is None

    def _close(self) -> None:
        if not self._levels:
            raise self._problem("a closing bracket that was never opened")
        if not self._is_full:
            what = f"the operator {self._operator}" if self._operator else "an opening one"
            raise self._problem(f"a closing bracket right after {what}")
        inner = self._left
        assert inner is not None
        self._left, self._operator, _ = self._levels.pop()
        self._take(inner)

    def _take(self, operand: Expression) -> None:
        if self._left is None or self._operator is None:
            self._left = operand
        else:
            self._left, self._operator = Operation(self._operator, self._left, operand), None

    def _problem(self, what: str) -> InvalidExpression:
        return InvalidExpression(f"not an expression: at character {self._place + 1}: {what}")
