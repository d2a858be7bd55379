"""Writes a corpus to pretrain on as plain text, each problem with its solution.

    python -m trainables.arithmetic.generate_foundational_plaintext --num-samples 100000 --max-depth 4 \\
        --invalid-rate 0.05 --output-txt data/foundational_corpus.txt

With format v1 an item is one line; with v2 it is a line with the problem and the lines of the solution, as a model that
is trained with v2 reads and writes it. `--split-lines` puts problems and solutions on lines of their own and shuffles
them, as the system that this one grew out of does; nobody can say then which belong together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import get_args

from trainables.arithmetic.corpus import PIECE, solution_of
from trainables.arithmetic.corpus_command import CorpusSettings, corpus_parser, corpus_settings, write_whole
from trainables.arithmetic.corpus_config import ExpressionConfig, Format
from trainables.arithmetic.generator import Item, item, items
from trainables.arithmetic.pieces import in_pieces
from trainables.arithmetic.trace import foundational_text, one_line, problem
from trainables.language.command_line import guarded


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = corpus_parser("generate_foundational_plaintext", __doc__)
    output = Path("data/foundational_corpus.txt")
    parser.add_argument("--output-txt", type=Path, default=output, metavar="FILE", help=f"({output})")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--format", choices=get_args(Format), default="v1", help="how an item is written (v1)")
    how.add_argument("--split-lines", action="store_true", help="problems and solutions apart, in random order")
    options = parser.parse_args(arguments)
    settings = corpus_settings(options)
    made = plain_text(settings, options.format, is_split=options.split_lines)
    if options.split_lines:
        made = [_shuffled(made, settings.seed)]
    write_whole(options.output_txt, made)
    return 0


def plain_text(settings: CorpusSettings, format: Format, *, is_split: bool) -> Iterable[bytes]:
    """The items in pieces of the text."""
    config = settings.expressions
    item(config, "train", 0)  # errors here rather than in another process
    return in_pieces(partial(_piece, config, format, is_split), settings.num_samples, PIECE, settings.workers)


def _piece(config: ExpressionConfig, format: Format, is_split: bool, numbers: range) -> bytes:
    drawn = items(config, "train", numbers.start, numbers.stop)
    return "".join(f"{_text(item, format, is_split)}\n" for item in drawn).encode()


def _text(item: Item, format: Format, is_split: bool) -> str:
    if is_split:
        return f"{problem(item.expression)}\n{one_line(solution_of(item))}"
    return foundational_text(item.expression, solution_of(item), format)


def _shuffled(pieces: Iterable[bytes], seed: int) -> bytes:
    """The lines in the order of a hash of their numbers."""
    lines = b"".join(pieces).splitlines(keepends=True)
    order = sorted(range(len(lines)), key=lambda number: blake2b(f"{seed} {number}".encode()).digest())
    return b"".join(lines[number] for number in order)


if __name__ == "__main__":
    guarded(main)
