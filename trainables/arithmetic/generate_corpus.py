"""Writes corpora in JSON lines: one to pretrain on, one to tune on, of different items.

    python -m trainables.arithmetic.generate_corpus --num-samples 100000 --max-depth 4 --invalid-rate 0.05
    python -m trainables.arithmetic.generate_corpus --instruction-only --num-samples 1000 --max-depth 4 \\
        --invalid-rate 0 --split test --output-instruction data/instruction_corpus_test.jsonl

A line has `expression`, `problem`, `solution`, `answer` (a number, or "ERROR") and `error` (what is wrong with an
invalid one). The same seed gives the same bytes. Studies make theirs by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trainables.arithmetic.corpus_command import INSTRUCTION, add_split, corpus_parser, corpus_settings, write_jsonl
from trainables.language.command_line import guarded


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = corpus_parser("generate_corpus", __doc__)
    add_split(parser)
    add = parser.add_argument
    foundational, instruction = Path("data/foundational_corpus.jsonl"), Path("data/instruction_corpus.jsonl")
    add("--output-foundational", type=Path, default=foundational, metavar="FILE", help=f"({foundational})")
    add("--output-instruction", type=Path, default=instruction, metavar="FILE", help=f"({instruction})")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--foundational-only", action="store_true", help="write no instruction corpus")
    only.add_argument("--instruction-only", action="store_true", help="write no foundational corpus")
    options = parser.parse_args(arguments)
    settings = corpus_settings(options)
    if not options.instruction_only:
        write_jsonl(options.output_foundational, settings, options.split)
    if not options.foundational_only:
        write_jsonl(options.output_instruction, settings, options.split, INSTRUCTION)
    return 0


if __name__ == "__main__":
    guarded(main)
