"""Answers of a model to test items: many at once, with a cache of keys and values, greedily unless asked otherwise.

Items are sorted by the length of their solutions, so that the rows of a batch are about as long and end at about the
same time. Greedily, one pass over the taught solution shows how far the model would write it, and it writes by itself
from there on (`models/drafts.py`): a model that is right nearly always is tested in a fraction of the time, with the
same answers. What a row is does not depend on its neighbours but for rounding (`models/generation.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from trainables.arithmetic.answers import Answer, Evaluation, Written, judged
from trainables.arithmetic.corpus_config import Format
from trainables.arithmetic.evaluation_config import DecodingConfig
from trainables.arithmetic.generator import Item
from trainables.arithmetic.questions import Question, question
from trainables.arithmetic.tokenizer import Tokenizer
from trainables.models.decoder import Decoder
from trainables.models.drafts import generate_with_drafts
from trainables.models.generation import generate


def evaluate_items(
    model: Decoder,
    tokenizer: Tokenizer,
    items: Sequence[Item],
    *,
    format: Format,
    decoding: DecodingConfig,
    on_batch: Callable[[int, int], None] = lambda done, all: None,
) -> Evaluation:
    """The answers of a model to some items.

    Args:
        model: evaluated as it is, in the precision around this call; its mode is restored.
        tokenizer: that it was trained with.
        items: what is asked, in any order.
        format: how problem and solution are joined.
        decoding: how answers are written.
        on_batch: told after each batch how many answers of how many are there.

    Raises:
        RungError: an expression has characters that the tokenizer does not know, or the model has diverged.
    """
    questions = [question(item, tokenizer, model.length, format, decoding) for item in items]
    samples = decoding.samples
    numbers = sorted(range(len(questions) * samples), key=lambda number: (questions[number // samples].needed, number))
    asked = [questions[number // samples] for number in numbers]
    write = _greedily if decoding.temperature == 0 else _drawn
    rows = write(model, tokenizer, asked, numbers, decoding, lambda done: on_batch(done, len(numbers)))
    answers = {
        number: _answer(each, row, tokenizer, format) for number, each, row in zip(numbers, asked, rows, strict=True)
    }
    return Evaluation([answers[number] for number in range(len(numbers))], samples)


def _greedily(
    model: Decoder,
    tokenizer: Tokenizer,
    asked: Sequence[Question],
    numbers: Sequence[int],
    decoding: DecodingConfig,
    on_batch: Callable[[int], None],
) -> list[list[int]]:
    """The tokens of each answer."""
    rows: list[list[int]] = generate_with_drafts(
        model,
        [each.tokens for each in asked],
        [each.solution for each in asked],
        max_new_tokens=[each.room for each in asked],
        batch_size=decoding.batch_size,
        stop=(tokenizer.end,),
        forbidden=_never(tokenizer),
        on_batch=on_batch,
    )
    return rows


def _drawn(
    model: Decoder,
    tokenizer: Tokenizer,
    asked: Sequence[Question],
    numbers: Sequence[int],
    decoding: DecodingConfig,
    on_batch: Callable[[int], None],
) -> list[list[int]]:
    """The same; an answer draws by its number among all of them."""
    rows: list[list[int]] = []
    for begin in range(0, len(asked), decoding.batch_size):
        batch = slice(begin, begin + decoding.batch_size)
        rows += generate(
            model,
            [each.tokens for each in asked[batch]],
            max_new_tokens=[each.room for each in asked[batch]],
            temperature=decoding.temperature,
            top_k=decoding.top_k,
            top_p=decoding.top_p,
            stop=(tokenizer.end,),
            forbidden=_never(tokenizer),
            seed=decoding.seed,
            numbers=numbers[batch],
        )
        on_batch(len(rows))
    return rows


def _never(tokenizer: Tokenizer) -> tuple[int, ...]:
    """Tokens that no solution has."""
    return tokenizer.pad, tokenizer.unknown, tokenizer.begin


def _answer(asked: Question, row: Sequence[int], tokenizer: Tokenizer, format: Format) -> Answer:
    has_ended = bool(row) and row[-1] == tokenizer.end
    return judged(asked, Written(tokenizer.decode(row), len(row), has_ended), format)
