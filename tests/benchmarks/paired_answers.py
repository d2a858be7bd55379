"""How often McNemar's tests err, what they see, and how often the interval of the difference holds the truth.

    python -m tests.benchmarks.paired_answers                    10,000 tests a cell, about 10 seconds

A test of n questions is answered twice. Half of the questions are answered right before; a question changes to right
and to wrong with the probabilities of the row. Against each other: McNemar's exact test and mid-p, Tango's score
interval and the textbook's (Wald), and what is often done instead: the test of two independent proportions. A share has
a standard error of at most 0.005.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from scipy.special import ndtri

from rung.results.mcnemar import mcnemar, mcnemar_mid, paired_difference_interval
from tests.benchmarks.measure import parser, print_table

SIZES = (20, 100, 1000)
CHANGES = ((0.02, 0.02), (0.1, 0.1), (0.05, 0.02), (0.15, 0.1))
"""Probabilities that a question changes to right and to wrong."""
Z = float(ndtri(0.975))


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--repetitions", type=int, default=10_000, help="tests a cell")
    arguments.add_argument("--seed", type=int, default=0)
    options = arguments.parse_args()
    generator = np.random.default_rng(options.seed)
    rows = [_row(generator, n, *change, options.repetitions) for change in CHANGES for n in SIZES]
    print_table(
        ["questions", "to right", "to wrong", "exact", "mid-p", "unpaired", "Tango covers", "Wald covers"], rows
    )


def _row(generator: np.random.Generator, n: int, to_right: float, to_wrong: float, repetitions: int) -> list[object]:
    """The shares of tests with p <= 0.05, and of intervals that hold the true difference."""
    odds = [to_right, to_wrong, 0.5 - to_wrong, 0.5 - to_right]
    drawn = generator.multinomial(n, odds, size=repetitions).tolist()
    judged = np.array([_judge(*counts[:3], n, to_right - to_wrong) for counts in drawn])
    return [n, f"{to_right:g}", f"{to_wrong:g}", *(f"{share:.3f}" for share in judged.mean(axis=0))]


@cache
def _judge(gained: int, lost: int, both_right: int, n: int, truth: float) -> tuple[bool, ...]:
    low, high = _tango(gained, lost, n)
    d = (gained - lost) / n
    half = Z * math.sqrt((gained + lost) / n - d * d) / math.sqrt(n)
    return (
        mcnemar(gained, lost) <= 0.05,
        mcnemar_mid(gained, lost) <= 0.05,
        _unpaired(both_right + lost, both_right + gained, n),
        low <= truth <= high,
        abs(d - truth) <= half,
    )


@cache
def _tango(gained: int, lost: int, n: int) -> tuple[float, float]:
    return paired_difference_interval(gained, lost, n)


def _unpaired(before: int, after: int, n: int) -> bool:
    """Whether the z test of two proportions, as if other questions had been asked, says that they differ."""
    rate = (before + after) / (2 * n)
    return rate not in (0, 1) and abs(after - before) / n > Z * math.sqrt(2 * rate * (1 - rate) / n)


if __name__ == "__main__":
    main()
