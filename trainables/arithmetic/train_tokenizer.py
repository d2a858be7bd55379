"""Learns a tokenizer from a corpus file.

    python -m trainables.arithmetic.train_tokenizer --corpus-path data/foundational_corpus.txt --vocab-size 1000 \\
        --output-dir data/tokenizer

Studies learn theirs by themselves. Writes `tokenizer.json`, which `tokenizers` and transformers read as well.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import get_args

from trainables.arithmetic.config import TokenizerConfig
from trainables.arithmetic.corpus_file import Text, read_texts
from trainables.arithmetic.preparation import both_formats, learnt_tokenizer
from trainables.arithmetic.tokenizer import Numbers
from trainables.language.command_line import guarded


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    chosen = _parser().parse_args(arguments)
    texts = read_texts(chosen.corpus_path)
    config = TokenizerConfig.model_construct(vocabulary=chosen.vocab_size, numbers=chosen.numbers)
    learnt = learnt_tokenizer(_texts(texts), config)
    file = learnt.save(chosen.output_dir)
    print(f"{len(texts):,} items read")
    print(f"{learnt.size:,} tokens, at most {chosen.vocab_size:,} were asked for")
    print(f"written to {file}")
    return 0


def _texts(texts: Iterable[Text]) -> Iterator[str]:
    for text in texts:
        if text.expression:
            yield from both_formats([(text.expression, text.solution)])
        else:
            yield text.solution


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainables.arithmetic.train_tokenizer",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--corpus-path", required=True, type=Path, help="corpus to learn from, plain text or JSONL")
    add("--vocab-size", type=int, default=1000, help="most tokens, all of them counted (default: %(default)s)")
    add("--output-dir", type=Path, default=Path("data/tokenizer"), help="folder to write to (default: %(default)s)")
    add(
        "--numbers",
        choices=get_args(Numbers),
        default="digits",
        help="whether each digit is a token, or frequent numbers are (default: %(default)s)",
    )
    return parser


if __name__ == "__main__":
    guarded(main)
