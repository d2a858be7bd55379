"""How fast a corpus of arithmetic is made, against a plain implementation that makes it item by item in one process.

    python -m tests.benchmarks.arithmetic_corpus [--items 100000] [--turns 3]        about a minute

The plain one (`plain_arithmetic.py`) draws a tree with Python's generator and writes the whole expression anew after
each step. Ours draws by counting hashes, so that items can be made in any order, throws away the items of other splits,
and changes the text of the expression in one place at a time. Both write the same lines of JSON, of valid items.
Processes are started within the time that is measured: a second or two, so that they pay for large corpora only.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from tests.benchmarks.measure import alternate, parser, print_machine, print_table, ratio_text
from tests.benchmarks.plain_arithmetic import plain_lines
from trainables.arithmetic.corpus import jsonl
from trainables.arithmetic.corpus_config import ExpressionConfig

WORKERS = 2


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--items", type=int, default=100_000)
    options.add_argument("--turns", type=int, default=3)
    given = options.parse_args()
    print_machine()
    for depth in (4, 5):
        measure(given, depth)


def measure(given: argparse.Namespace, depth: int) -> None:
    """Prints the table of a depth."""
    config = ExpressionConfig(max_depth=depth, invalid_rate=0)
    cases: dict[str, Callable[[], None]] = {
        "plain, one process": lambda: _plain(given.items, depth),
        "here, one process": lambda: _ours(config, given.items, 1),
        f"here, {WORKERS} processes": lambda: _ours(config, given.items, WORKERS),
    }
    samples = alternate(cases, given.turns)
    base = next(iter(samples.values()))
    rows = [
        (name, f"{sample.median:.2f}", f"{given.items / sample.median:,.0f}", ratio_text(sample, base))
        for name, sample in samples.items()
    ]
    print_table((f"depth {depth}, {given.items:,} items", "seconds", "items a second", "times as fast"), rows)


def _plain(items: int, depth: int) -> None:
    "".join(plain_lines(0, items, depth)).encode()


def _ours(config: ExpressionConfig, items: int, workers: int) -> None:
    b"".join(jsonl(config, "train", items, workers=workers))


if __name__ == "__main__":
    main()
