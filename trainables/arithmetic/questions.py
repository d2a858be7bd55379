"""What is asked of a model, in tokens, and how much room there is for an answer. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from trainables.arithmetic.corpus import solution_of
from trainables.arithmetic.corpus_config import Format
from trainables.arithmetic.evaluation_config import DecodingConfig
from trainables.arithmetic.expressions import InvalidExpression, OutsideLanguage, parse, render
from trainables.arithmetic.generator import Item
from trainables.arithmetic.tokenizer import Tokenizer
from trainables.arithmetic.trace import prompt, solution_of_canonical, target


@dataclass(frozen=True, slots=True)
class Question:
    """An item as a model is asked for it."""

    item: Item
    prompt: str
    tokens: list[int]
    """Of the prompt."""
    solution: list[int]
    """Tokens of the taught solution, the end token included."""
    room: int
    """Tokens that an answer may have."""

    @property
    def needed(self) -> int:
        """Tokens that the taught solution takes."""
        return len(self.solution)

    @property
    def solution_fits(self) -> bool:
        """Whether the taught solution could be the answer."""
        return self.needed <= self.room


def question(item: Item, tokenizer: Tokenizer, length: int, format: Format, decoding: DecodingConfig) -> Question:
    """An item as a model with so many positions is asked for it.

    Raises:
        RungError: its expression has characters that the tokenizer does not know.
    """
    text = prompt(item.expression, format)
    tokens = [tokenizer.begin, *tokenizer.encode(text)]
    solution = [*tokenizer.encode(target(solution_of(item), format)), tokenizer.end]
    # The last token is written and not read, so it takes no position.
    room = max(0, length + 1 - len(tokens))
    if decoding.tokens is not None:
        room = min(room, decoding.tokens)
    return Question(item, text, tokens, solution, room)


def item_of(text: str) -> Item:
    """An expression that somebody wrote, as an item, in canonical form if it is valid.

    Raises:
        OutsideLanguage: it has characters that no expression has.
    """
    try:
        tree = parse(text)
    except OutsideLanguage:
        raise
    except InvalidExpression:  # the right answer is ERROR; what kind of error it is plays no part
        return Item(text, None, "arbitrary", 0, 0)
    expression = render(tree)
    _, _, value = solution_of_canonical(expression).rpartition(" ")
    return Item(expression, int(value), None, tree.depth, tree.operators)
