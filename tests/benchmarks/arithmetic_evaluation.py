"""How fast test items are answered, against one by one without a cache, which is how the system that this one grew out
of evaluates.

    python -m tests.benchmarks.arithmetic_evaluation [--items 128] [--turns 3]

About four minutes on one core. The weights are random, so that nothing has to be trained first; every answer is as long
as the taught solution of its item, whatever tokens it has. "one by one": the whole sequence through the model for every
new token, with the logits of all positions. "cached": one by one, with the cache. "batches": that many answers at once,
items sorted by the length of their solutions, or in the order of the test set. "drafts": ours, batches of 64 that are
compared with a draft first; so many of the drafts are what the model writes, the others go wrong in their middle. CPU
seconds of the process, one thread; ratios within a turn. "one by one" and "cached" answer every eighth item of the
sorted list.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from tests.benchmarks.measure import alternate, parser, print_machine, print_table, ratio_text

if TYPE_CHECKING:
    from trainables.arithmetic.questions import Question

SHAPES: dict[str, dict[str, Any]] = {
    "4 layers, width 128": {"layers": 4, "width": 128, "heads": 4, "positions": "rope"},
    "6 layers, width 256": {"layers": 6, "width": 256, "heads": 8, "positions": "rope", "bias": True},
}
"""A small model, and the size of the original's."""
EVERY = 8
LENGTH, DEPTH = 512, 4


def main() -> None:
    options = _options()
    import torch

    torch.set_num_threads(1)
    print_machine(threads=1)
    questions, vocabulary = _questions(options.items)
    tokens = sum(each.needed for each in questions)
    print(f"{len(questions)} items of depth {DEPTH} at most, {tokens / len(questions):.0f} tokens an answer\n")
    for name in options.models:
        _compare(name, questions, vocabulary, options)


def _options() -> argparse.Namespace:
    arguments = parser(__doc__)
    arguments.add_argument("--items", type=int, default=128)
    arguments.add_argument("--turns", type=int, default=3)
    arguments.add_argument("--models", nargs="+", choices=tuple(SHAPES), default=tuple(SHAPES))
    return arguments.parse_args()


def _questions(count: int) -> tuple[list[Question], int]:
    """Test items that fit, and the size of the vocabulary."""
    from trainables.arithmetic.corpus import solution_of
    from trainables.arithmetic.corpus_config import TestConfig
    from trainables.arithmetic.evaluation_config import DecodingConfig
    from trainables.arithmetic.questions import question
    from trainables.arithmetic.test_sets import test_set
    from trainables.arithmetic.tokenizer import count_words, train_tokenizer
    from trainables.arithmetic.trace import foundational_text

    items = test_set(TestConfig(max_depth=DEPTH, samples=2 * count))
    texts = (foundational_text(item.expression, solution_of(item), "v2") for item in items)
    tokenizer = train_tokenizer(count_words(texts, "digits"), 1_000)
    asked = [question(item, tokenizer, LENGTH, "v2", DecodingConfig()) for item in items]
    return [each for each in asked if each.solution_fits][:count], tokenizer.size


def _compare(name: str, questions: Sequence[Question], vocabulary: int, options: argparse.Namespace) -> None:
    import torch

    from trainables.models.decoder import Decoder
    from trainables.models.decoder_config import DecoderConfig

    shape = DecoderConfig.model_validate(SHAPES[name])
    generator = torch.Generator().manual_seed(0)
    model = Decoder(shape, vocabulary=vocabulary, length=LENGTH, generator=generator).eval()
    ordered = sorted(questions, key=lambda each: each.needed)
    few = ordered[EVERY // 2 :: EVERY]
    drafts = _answers(model, ordered)
    cases: dict[str, Callable[[], float]] = {
        "one by one": partial(_seconds, _one_by_one, model, few, 1),
        "cached": partial(_seconds, _batches, model, few, 1),
        "batches of 64, not sorted": partial(_seconds, _batches, model, questions, 64),
        **{f"batches of {size}": partial(_seconds, _batches, model, ordered, size) for size in (16, 64, 128)},
        **{
            f"drafts, {right} % right": partial(_seconds, partial(_drafted, _spoilt(drafts, right)), model, ordered, 64)
            for right in (0, 50, 95)
        },
    }
    samples = alternate(cases, options.turns, warm_up=0)
    print(f"{name}: {sum(each.numel() for each in model.parameters()):,} parameters\n")
    rows = [
        (case, f"{1 / sample.median:.2f}", ratio_text(sample, samples["one by one"]))
        for case, sample in samples.items()
    ]
    print_table(("way", "items/s", "times one by one"), rows)


def _seconds(way: Callable[..., None], model: Any, questions: Sequence[Question], size: int) -> float:
    """For an item."""
    begin = time.process_time()
    way(model, questions, size)
    return (time.process_time() - begin) / len(questions)


def _batches(model: Any, questions: Sequence[Question], size: int) -> None:
    from trainables.models.generation import generate

    for begin in range(0, len(questions), size):
        batch = questions[begin : begin + size]
        limits = [each.needed for each in batch]
        generate(model, [each.tokens for each in batch], max_new_tokens=limits, temperature=0.0)


def _answers(model: Any, questions: Sequence[Question]) -> list[list[int]]:
    """What the model writes."""
    from trainables.models.generation import generate

    limits = [each.needed for each in questions]
    answers: list[list[int]] = generate(
        model, [each.tokens for each in questions], max_new_tokens=limits, temperature=0.0
    )
    return answers


def _spoilt(answers: Sequence[Sequence[int]], right: int) -> list[list[int]]:
    """The answers, all but `right` of a hundred with another token in the middle, spread evenly."""
    spoilt = []
    for place, answer in enumerate(answers):
        middle = len(answer) // 2
        is_right = (place + 1) * right // 100 > place * right // 100
        spoilt.append([*answer] if is_right else [*answer[:middle], answer[middle] ^ 1, *answer[middle + 1 :]])
    return spoilt


def _drafted(drafts: Sequence[Sequence[int]], model: Any, questions: Sequence[Question], size: int) -> None:
    from trainables.models.drafts import generate_with_drafts

    limits = [each.needed for each in questions]
    generate_with_drafts(model, [each.tokens for each in questions], drafts, max_new_tokens=limits, batch_size=size)


def _one_by_one(model: Any, questions: Sequence[Question], size: int) -> None:
    import torch

    with torch.no_grad():
        for each in questions:
            tokens = torch.tensor([each.tokens])
            for _ in range(each.needed):
                chosen = model(tokens)[:, -1].argmax(-1)
                tokens = torch.cat([tokens, chosen[:, None]], dim=1)


if __name__ == "__main__":
    main()
