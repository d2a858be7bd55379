"""Writes a corpus of valid and invalid items to tune on, in JSON lines.

    python -m trainables.arithmetic.generate_instruction_corpus_mixed --num-samples 20000 --max-depth 4

It has --num-samples lines, of which the share --invalid-rate is invalid. It is what `generate_corpus
--instruction-only` writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trainables.arithmetic.corpus_command import INSTRUCTION, add_split, corpus_parser, corpus_settings, write_jsonl
from trainables.language.command_line import guarded

SAMPLES = 20_000
"""Lines, where it is not said."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = corpus_parser("generate_instruction_corpus_mixed", __doc__)
    add_split(parser)
    output = Path("data/instruction_corpus.jsonl")
    parser.add_argument("--output-mixed", type=Path, default=output, metavar="FILE", help=f"({output})")
    options = parser.parse_args(arguments)
    settings = corpus_settings(options, num_samples=SAMPLES)
    write_jsonl(options.output_mixed, settings, options.split, INSTRUCTION)
    return 0


if __name__ == "__main__":
    guarded(main)
