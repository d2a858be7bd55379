"""How well the answer of a free text is read, against taking its first or its last number.

    python -m tests.benchmarks.reading_answers FOLDER        about ten seconds

FOLDER holds GSM8K (`python -m trainables.word_problems.prepare gsm8k` makes data/gsm8k). The texts are its solutions
without the line that begins with ####, which says what is right: mostly they end with an equation and its unit. In
training a text is read so only where a response has no <answer>.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

from tests.benchmarks.measure import parser, print_machine, print_table
from trainables.word_problems.dataset import DatasetConfig, load_problems
from trainables.word_problems.normaliser import number_in

_NUMBER = re.compile(r"-?[0-9][0-9,]*(?:\.[0-9]+)?|-?\.[0-9]+")


def main() -> None:
    options = parser(__doc__)
    options.add_argument("folder", type=Path)
    given = options.parse_args()
    print_machine()
    problems = load_problems(DatasetConfig(path=str(given.folder)))
    texts = [(each.solution, number_in(each.answer)) for each in (*problems.train, *problems.test)]
    readers = {"here": number_in, "last number": last_number, "first number": first_number}
    rows = [(name, *_measured(reader, texts)) for name, reader in readers.items()]
    print_table((f"{len(texts):,} texts", "right", "none", "wrong", "microseconds each"), rows)


def first_number(text: str) -> Fraction | None:
    """The first thing that looks like a number."""
    found = _NUMBER.search(text)
    return Fraction(found[0].replace(",", "")) if found else None


def last_number(text: str) -> Fraction | None:
    """The last one."""
    found = _NUMBER.findall(text)
    return Fraction(found[-1].replace(",", "")) if found else None


def _measured(
    reader: Callable[[str], Fraction | None], texts: list[tuple[str, Fraction | None]]
) -> tuple[str, str, str, str]:
    start = time.perf_counter()
    read = [reader(text) for text, _ in texts]
    each = (time.perf_counter() - start) / len(texts)
    counts = Counter(
        "none" if stated is None else "right" if stated == right else "wrong"
        for stated, (_, right) in zip(read, texts, strict=True)
    )
    return (*(f"{counts[name]:,}" for name in ("right", "none", "wrong")), f"{each * 1e6:,.0f}")


if __name__ == "__main__":
    main()
