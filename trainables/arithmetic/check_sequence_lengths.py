"""How long the items of a corpus are in tokens, and what share of them each context has room for.

    python -m trainables.arithmetic.check_sequence_lengths --corpus-path data/instruction_corpus.jsonl \\
        --tokenizer-path data/tokenizer

A length is the number of positions that a model needs: all tokens of `<bos>` problem, solution `<eos>` but the last.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from rung.errors import RungError
from trainables.arithmetic.corpus_config import Format
from trainables.arithmetic.corpus_file import pairs, read_texts
from trainables.arithmetic.sequences import encoded
from trainables.arithmetic.tokenizer import Tokenizer
from trainables.language.command_line import guarded
from trainables.language.markdown import table

CONTEXTS = (64, 128, 256, 512, 1_024)
PERCENTILES = (25, 50, 75, 90, 95, 99, 99.9)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    chosen = _parser().parse_args(arguments)
    if chosen.max_samples is not None and chosen.max_samples < 1:
        raise RungError(f"--max-samples must be 1 or more, got {chosen.max_samples}")
    texts = islice(read_texts(chosen.corpus_path), chosen.max_samples)
    tokenizer = Tokenizer.load(chosen.tokenizer_path)
    written = pairs(texts, chosen.format, is_instruction=chosen.corpus_type == "instruction")
    print(report(encoded(tokenizer, written).positions))
    return 0


def report(positions: NDArray[np.int64]) -> str:
    """Mean, percentiles and shares of some lengths (N,), as Markdown."""
    ranks = [
        ["mean", f"{positions.mean():,.1f}"],
        ["shortest", f"{positions.min():,}"],
        *([f"{rank} % have at most", f"{np.quantile(positions, rank / 100):,.0f}"] for rank in PERCENTILES),
        ["longest", f"{positions.max():,}"],
    ]
    shares = [
        [f"{context:,}", f"{(positions <= context).mean():.2%}", f"{(positions > context).sum():,}"]
        for context in CONTEXTS
    ]
    title = f"{len(positions):,} sequences, {positions.sum():,} tokens"
    return "\n\n".join([title, table(["length", "tokens"], ranks), table(["context", "fit", "too long"], shares)])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainables.arithmetic.check_sequence_lengths",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--corpus-path", required=True, type=Path, help="corpus, plain text or JSONL")
    add("--tokenizer-path", required=True, type=Path, help="folder with tokenizer.json, or the file")
    add("--max-samples", type=int, help="look at the first so many items only (default: all)")
    add(
        "--corpus-type",
        choices=("instruction", "foundational"),
        default="instruction",
        help="how items become texts; differs with --format v1 only (default: %(default)s)",
    )
    add("--format", choices=get_args(Format), default="v2", help="of the texts (default: %(default)s)")
    return parser


if __name__ == "__main__":
    guarded(main)
