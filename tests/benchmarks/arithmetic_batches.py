"""What it takes to turn arithmetic items into token ids, and what the three ways of making batches cost in training.

    python -m tests.benchmarks.arithmetic_batches [--items 10000] [--turns 5] [--steps 10]    about a minute

Token ids: `trainables.arithmetic` looks words up and asks `tokenizers` for new ones only; against it stands
`tokenizers` with the same file, a text at a time and in one batch, on one thread all. They must agree on every token.

Training: the first steps of a pass over items of depth 4, by a decoder of 2 layers of width 64, forward and backward.
`padded` is what a data loader makes that pads each batch to its longest item. About as many items a step in all three.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from functools import partial
from typing import get_args

os.environ["TOKENIZERS_PARALLELISM"] = "false"

import torch

from tests.benchmarks.measure import alternate, parser, print_machine, print_table, ratio_text
from trainables.arithmetic.batches import SequenceStream
from trainables.arithmetic.config import Batching, TokenizerConfig
from trainables.arithmetic.corpus import solution_of
from trainables.arithmetic.corpus_config import CorpusConfig
from trainables.arithmetic.generator import items
from trainables.arithmetic.preparation import both_formats, learnt_tokenizer
from trainables.arithmetic.sequences import Sequences, encoded, pair
from trainables.arithmetic.tokenizer import Tokenizer
from trainables.language.losses import language_loss
from trainables.models.decoder import Decoder
from trainables.models.decoder_config import DecoderConfig

KINDS: tuple[Batching, ...] = get_args(Batching)
BATCH, ENCODED = 16, 2_000
MODEL = DecoderConfig(layers=2, width=64, heads=4, positions="rope")
Pairs = list[tuple[str, str]]


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--items", type=int, default=10_000)
    options.add_argument("--turns", type=int, default=5)
    options.add_argument("--steps", type=int, default=10)
    given = options.parse_args()
    torch.set_num_threads(1)
    print_machine(1)
    drawn = items(CorpusConfig(max_depth=4), "train", 0, given.items)
    lines = [(item.expression, solution_of(item)) for item in drawn]
    tokenizer = learnt_tokenizer(both_formats(lines), TokenizerConfig())
    pairs = [pair(*line, format="v2", is_instruction=True) for line in lines]
    measure_encoding(tokenizer, pairs[:ENCODED], given)
    measure_training(tokenizer, encoded(tokenizer, pairs), given)


def measure_encoding(tokenizer: Tokenizer, pairs: Pairs, given: argparse.Namespace) -> None:
    """Prints tokens a second."""
    texts = ["".join(each) for each in pairs]
    ids = [tokenizer.encode(text) for text in texts]
    assert [each.ids for each in tokenizer.inner.encode_batch(texts)] == ids
    tokens = sum(map(len, ids))
    cases = {
        "tokenizers, a text at a time": lambda: _seconds(lambda: [tokenizer.inner.encode(text).ids for text in texts]),
        "tokenizers, one batch": lambda: _seconds(lambda: [each.ids for each in tokenizer.inner.encode_batch(texts)]),
        "here": lambda: _seconds(lambda: [tokenizer.encode_array(text) for text in texts]),
    }
    samples = alternate(cases, given.turns)
    base = next(iter(samples.values()))
    rows = [(name, f"{tokens / sample.median / 1e6:.2f}", ratio_text(sample, base)) for name, sample in samples.items()]
    print_table((f"{tokens:,} tokens", "million tokens a second", "times as fast"), rows)


def measure_training(tokenizer: Tokenizer, sequences: Sequences, given: argparse.Namespace) -> None:
    """Prints what a token costs in training."""
    longest, tokens = int(sequences.positions.max()), int(sequences.positions.sum())
    rows_of_packed = max(1, round(BATCH * tokens / len(sequences) / longest))
    streams = {
        kind: SequenceStream(
            sequences,
            batching=kind,
            batch_size=rows_of_packed if kind == "packed" else BATCH,
            context=longest,
            only_solutions=True,
            seed=0,
        )
        for kind in KINDS
    }
    generator = torch.Generator().manual_seed(0)
    model = Decoder(MODEL, vocabulary=tokenizer.size, length=longest, generator=generator)
    cases = {kind: partial(_seconds_a_token, model, stream, given.steps) for kind, stream in streams.items()}
    samples = alternate(cases, given.turns, warm_up=0)
    rows = [
        (
            kind,
            f"{stream.layout.batches:,}",
            f"{1 - tokens / stream.layout.positions:.1%}",
            f"{1 / samples[kind].median:,.0f}",
            ratio_text(samples[kind], samples["padded"]),
        )
        for kind, stream in streams.items()
    ]
    header = (f"{len(sequences):,} items", "steps a pass", "padding", "tokens a second", "times as fast")
    print_table(header, rows)


def _seconds_a_token(model: Decoder, stream: SequenceStream, steps: int) -> float:
    """Of the first steps; padding is no token."""
    batches = [stream.at(position) for position in range(steps)]
    tokens = sum(int((batch.targets_BS != stream.pad).sum()) for batch in batches)

    def train() -> None:
        for batch in batches:
            model.zero_grad()
            language_loss(model(batch.inputs_BS), batch).backward()

    return _seconds(train) / tokens


def _seconds(work: Callable[[], object]) -> float:
    """Of the processor, which other work on the machine does not change much."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


if __name__ == "__main__":
    main()
