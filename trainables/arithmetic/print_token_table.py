"""Prints the tokens of a tokenizer as CSV: id, token, kind. Line ends are written as \\n.

python -m trainables.arithmetic.print_token_table --tokenizer-path data/tokenizer > tokens.csv
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path

from trainables.arithmetic.tokenizer import CONTROL, TAGS, Tokenizer
from trainables.language.command_line import guarded


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    chosen = _parser().parse_args(arguments)
    tokens = Tokenizer.load(chosen.tokenizer_path).tokens
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow(["id", "token", "kind"])
    table.writerows([index, token.replace("\n", "\\n"), kind(token)] for index, token in enumerate(tokens))
    return 0


def kind(token: str) -> str:
    """What a token is: control, tag, blank, number, sign, letters."""
    if token in CONTROL or token in TAGS:
        return "control" if token in CONTROL else "tag"
    text = token.strip()
    if not text:
        return "blank"
    if text.isdecimal():
        return "number"
    return "letters" if text[0].isalpha() else "sign"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainables.arithmetic.print_token_table",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--tokenizer-path", "--tokenizer_path", required=True, type=Path, help="folder with tokenizer.json, or the file"
    )
    return parser


if __name__ == "__main__":
    guarded(main)
