"""Which expressions are asked in reinforcement learning: those of a corpus, or expressions without end. No torch.

Both are of the training part of all expressions, and those that are asked to see how far it has come of the validation
part (`generator.part_of`), so that none of them is ever one of a test set.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice

from rung.errors import RungError
from trainables.arithmetic.corpus_config import CorpusConfig, Format
from trainables.arithmetic.generator import MOST_TRIES, Item, Part, items
from trainables.arithmetic.grpo_config import ArithmeticGrpoConfig
from trainables.arithmetic.tokenizer import Tokenizer
from trainables.arithmetic.trace import prompt
from trainables.rl.problems import Problem

_STREAMS = 2**32
"""Seeds of endless streams begin here, apart from those of corpora."""


def is_asked(item: Item, config: ArithmeticGrpoConfig) -> bool:
    """Whether an expression is valid and of a size that is asked."""
    most = config.most_operators
    is_small = most is None or item.operators <= most
    return item.answer is not None and item.operators >= config.least_operators and is_small


def corpus_items(config: ArithmeticGrpoConfig) -> Sequence[Item]:
    """The items of the corpus that are asked while the model learns, in its order."""
    return _of_corpus(config.corpus, config.least_operators, config.most_operators)


@lru_cache(maxsize=4)
def _of_corpus(corpus: CorpusConfig, least: int, most: int | None) -> Sequence[Item]:
    asked = ArithmeticGrpoConfig(corpus=corpus, least_operators=least, most_operators=most)
    return [item for item in items(corpus, "train", 0, corpus.samples) if is_asked(item, asked)]


def validation_items(config: ArithmeticGrpoConfig) -> Sequence[Item]:
    """The first held-out expressions that are asked, as many as `evaluation_items`.

    Raises:
        RungError: hardly any expression is of a size that is asked.
    """
    return list(islice(_endless(config, "validation", config.corpus.seed), config.evaluation_items))


class ItemStream:
    """Expressions without end: a number (0, 1, 2, ...) to the item of that number.

    Args:
        config: says which are asked.
        seed: of the stream.
    """

    def __init__(self, config: ArithmeticGrpoConfig, seed: int) -> None:
        self._config = config
        self._seed = _STREAMS + seed

    def __call__(self, number: int) -> Item:
        """The item of a number, a pure function of it.

        Raises:
            RungError: hardly any expression is of a size that is asked.
        """
        # Each number has draws of its own, so that none depends on how many were refused before it.
        return next(_endless(self._config, "train", self._seed, number * MOST_TRIES))


def _endless(config: ArithmeticGrpoConfig, part: Part, seed: int, begin: int = 0) -> Iterator[Item]:
    """Expressions that are asked, drawn as those of the corpus are."""
    drawn = config.corpus.model_copy(update={"invalid_rate": 0.0, "node_error_rate": None, "seed": seed})
    refused = 0
    for index in range(begin, begin + 2**62):
        item = next(items(drawn, part, index, index + 1))
        if is_asked(item, config):
            refused = 0
            yield item
        elif (refused := refused + 1) == MOST_TRIES:
            most = "more" if config.most_operators is None else config.most_operators
            raise RungError(
                f"hardly any expression of depth {config.corpus.max_depth} (corpus.max_depth) has "
                f"{config.least_operators} to {most} operators (least_operators, most_operators): ask for other sizes"
            )


def problem_of(item: Item, tokenizer: Tokenizer, format: Format) -> Problem:
    """An item as the policy is asked for it.

    Raises:
        RungError: its expression has characters that the tokenizer does not know.
    """
    text = prompt(item.expression, format)
    return Problem(tokens=[tokenizer.begin, *tokenizer.encode(text)], prompt=text, answer=str(item.answer))
