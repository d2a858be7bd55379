"""How often the intervals that rung prints hold the truth, and how often its tests err.

    python -m tests.benchmarks.coverage                                    10,000 samples a cell, about a minute
    python -m tests.benchmarks.coverage --figure docs/images/coverage.png

Samples of n seeds are drawn from known distributions, and intervals of 95 % are counted that hold the true value:

* normal: the easy case;
* skewed: lognormal (sigma = 1), as times to a threshold are;
* failing: accuracies 1 - x, x exponential of mean 0.01, but one seed in five fails and is near 0.05.

A coverage of 0.95 has a standard error of 0.002. The formulas are written out for whole arrays here; the first
samples of every cell are put through the package's own functions too, which must give the same.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rung.results import robust, significance, statistics
from tests.benchmarks import intervals
from tests.benchmarks.measure import parser, print_table

Array = npt.NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, ...]], Array]

SIZES = (3, 5, 10, 20)
FAILING = 0.2
CHECKED = 20
"""Samples of a cell that go through the package's functions too."""


@dataclass(frozen=True)
class Kind:
    """A distribution over seeds, with its true mean and standard deviation."""

    name: str
    draw: Draw
    mean: float
    std: float


def _failing(generator: np.random.Generator, shape: tuple[int, ...]) -> Array:
    fine, broken = 1 - generator.exponential(0.01, shape), generator.normal(0.05, 0.01, shape)
    return np.where(generator.random(shape) < FAILING, broken, fine)


_FAILING_MEAN = (1 - FAILING) * 0.99 + FAILING * 0.05
_FAILING_STD = math.sqrt(1e-4 + FAILING * (1 - FAILING) * 0.94**2)
KINDS = (
    Kind("normal", lambda generator, shape: generator.normal(size=shape), 0.0, 1.0),
    Kind(
        "skewed",
        lambda generator, shape: generator.lognormal(size=shape),
        math.exp(0.5),
        math.sqrt((math.e - 1) * math.e),
    ),
    Kind("failing", _failing, _FAILING_MEAN, _FAILING_STD),
)


def main() -> None:
    options = _options()
    generator = np.random.default_rng(options.seed)
    covered = coverage(generator, options.repetitions)
    _print_coverage(covered)
    _print_success_rates(generator, options.repetitions)
    _print_errors(generator, options.repetitions)
    _print_picked(generator, options.repetitions)
    if options.figure:
        _draw(covered, options.figure)


def _options() -> argparse.Namespace:
    arguments = parser(__doc__)
    arguments.add_argument("--repetitions", type=int, default=10_000, help="samples a cell")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--figure", type=Path, help="draw the coverage into this PNG file", metavar="FILE")
    return arguments.parse_args()


# ------------------------------------------------------------------------------------------------ coverage

Covered = Mapping[tuple[str, str, int], float]
"""By quantity, kind of data and n."""


def coverage(generator: np.random.Generator, repetitions: int) -> Covered:
    """The share of intervals that hold the truth, of everything but rates."""
    covered: dict[tuple[str, str, int], float] = {}
    for kind, n in itertools.product(KINDS, SIZES):
        a, b = kind.draw(generator, (repetitions, n)), kind.draw(generator, (repetitions, n))
        many = kind.draw(generator, (2, 200_000))
        shared = kind.draw(generator, (repetitions, n))  # what a seed does to both sides alike
        middle = float(robust.interquartile_means(many.reshape(1, -1))[0])
        better = a + kind.std
        chance = float((np.sort(many[1] - kind.std).searchsorted(many[0]) / many.shape[1]).mean())
        cells = {
            "mean, Student-t": (intervals.student(a), kind.mean),
            "mean, percentile bootstrap": (intervals.percentile_bootstrap(a, generator), kind.mean),
            "paired difference, sides alike": (intervals.student((a + shared) - (b + shared)), 0.0),
            "paired difference, one side of twice the spread": (intervals.student(2 * a - b), kind.mean),
            "Welch's difference, n against 16": (intervals.welch(a, kind.draw(generator, (repetitions, 16))), 0.0),
            "Welch's difference, one side of twice the spread": (intervals.welch(2 * a, b), kind.mean),
            "interquartile mean": (intervals.trimmed(a), middle),
            "P(better), sides alike": (intervals.improvement(a, b), 0.5),
            "P(better), one side ahead by 1 sd": (intervals.improvement(better, b), chance),
        }
        if n >= robust.FEWEST_FOR_BOOTSTRAP:
            ends = intervals.interquartile_bootstrap(a + shared, b + shared, generator)
            cells["difference of interquartile means, bootstrap"] = (ends, 0.0)
        for quantity, ((low, high), truth) in cells.items():
            covered[quantity, kind.name, n] = float(np.mean((low <= truth + 1e-12) & (truth - 1e-12 <= high)))
        _check_formulas(a[:CHECKED], b[:CHECKED])
    return covered


def _check_formulas(a: Array, b: Array) -> None:
    """Raises ValueError unless the formulas for arrays give what the package's functions give."""
    for x, y in zip(a, b, strict=True):
        improvement = robust.probability_of_improvement(x, y, "max")
        _agree(statistics.mean_interval(x), intervals.student(x))
        _agree(significance.paired_interval(x, y), intervals.student(x - y))
        _agree(statistics.welch_interval(x, y), intervals.welch(x, y))
        _agree(robust.interquartile_mean(x), intervals.trimmed(x))
        _agree(improvement, intervals.improvement(x, y))


def _agree(found: Any, expected: tuple[Array, Array]) -> None:
    if not np.allclose((found.low, found.high), expected, rtol=1e-9, atol=1e-9):
        raise ValueError(f"the package gives {found}, the formula for arrays {expected}")


def _print_coverage(covered: Covered) -> None:
    print("coverage of 95 % intervals:\n")
    quantities = dict.fromkeys(quantity for quantity, _, _ in covered)
    rows = [
        (quantity, kind.name, *(_cell(covered.get((quantity, kind.name, n))) for n in SIZES))
        for quantity, kind in itertools.product(quantities, KINDS)
    ]
    print_table(("interval of", "data", *(f"n = {n}" for n in SIZES)), rows)


def _cell(share: float | None) -> str:
    return "" if share is None else f"{share:.3f}"


def _print_success_rates(generator: np.random.Generator, repetitions: int) -> None:
    rows = []
    for rate in (0.5, 0.8, 0.95, 1.0):
        row = [f"{rate:g}"]
        for n in SIZES:
            successes = generator.binomial(n, rate, repetitions).astype(np.float64)
            low, high = intervals.wilson(successes, n)
            for k, *ends in zip(successes[:CHECKED], low, high, strict=False):
                if not np.allclose(statistics.wilson_interval(int(k), n), ends):
                    raise ValueError(f"Wilson's interval of {k} of {n}: {ends}")
            row.append(f"{np.mean((low <= rate) & (rate <= high)):.3f}")
        rows.append(row)
    print("coverage of the success rate's 95 % interval, Wilson:\n")
    print_table(("true rate", *(f"n = {n}" for n in SIZES)), rows)


def _print_errors(generator: np.random.Generator, repetitions: int) -> None:
    tests = {
        "sign-flip permutation test": lambda d: intervals.sign_flip_p(d, generator),
        "paired t test": intervals.t_p,
    }
    headers = ("test", "data", "truth", *(f"n = {n}" for n in SIZES))
    rows = []
    for (name, test), kind, ahead in itertools.product(tests.items(), KINDS, (0.0, 1.0)):
        row = [name, kind.name, "ahead by 1 sd" if ahead else "no difference"]
        for n in SIZES:
            shape = (repetitions, n)
            differences = kind.draw(generator, shape) - kind.draw(generator, shape) + ahead * kind.std
            row.append(f"{np.mean(test(differences) <= 0.05):.3f}")
        rows.append(row)
    print("share of studies in which a test claims a difference at 5 %:\n")
    print_table(headers, rows)


def _print_picked(generator: np.random.Generator, repetitions: int) -> None:
    """What picking the best does to a comparison with it, and what counting all pairs does against that."""
    rows = []
    for configurations in (2, 3, 5, 10):
        row = [str(configurations)]
        for n in (10, 16):
            values = generator.normal(size=(repetitions, configurations, n))
            best = values[np.arange(len(values)), values.mean(axis=-1).argmax(axis=-1)]
            differences = (best[:, None] - values).reshape(-1, n)
            p = intervals.sign_flip_p(differences, generator).reshape(len(values), configurations)
            smallest = np.sort(p, axis=-1)[:, 0]  # the best against itself has p = 1
            pairs = configurations * (configurations - 1) / 2
            row += [f"{np.mean(smallest * many <= 0.05):.3f}" for many in (configurations - 1, pairs)]
        rows.append(row)
    print("configurations that are all the same, the best against the others: share of studies with a claim:\n")
    print_table(
        ("configurations", *(f"n = {n}, Holm over {many}" for n in (10, 16) for many in ("k - 1", "all pairs"))), rows
    )


# ---------------------------------------------------------------------------------------------- the figure

_DRAWN = {
    "mean, Student-t": ("mean, Student-t", "o", "-"),
    "mean, percentile bootstrap": ("mean, percentile bootstrap (for contrast)", "x", "--"),
    "paired difference, one side of twice the spread": ("paired difference, one side of twice the spread", "s", "-"),
    "Welch's difference, n against 16": ("Welch's difference, n against 16", "D", "-"),
    "interquartile mean": ("interquartile mean", "v", "-"),
    "P(better), one side ahead by 1 sd": ("P(better), one side ahead by one sd", "^", "-"),
}
"""Quantity to its name in the legend, marker and line."""
_TITLES = {
    "normal": "normal data",
    "skewed": "skewed data (lognormal)",
    "failing": "one seed in five fails",
}


def _draw(covered: Covered, path: Path) -> None:
    """Coverage against n, a panel for each kind of data."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, NullLocator

    from rung.results.figure_style import COLOURS, FAINT, WIDTH, png_bytes, styled

    with styled():
        figure = Figure(figsize=(WIDTH, 3.1), layout="constrained")
        panels = figure.subplots(1, len(KINDS), sharey=True)
        for panel, kind in zip(panels, KINDS, strict=True):
            panel.axhline(intervals.CONFIDENCE, color=FAINT, linewidth=1.0, linestyle=":")
            for (quantity, (name, marker, line)), colour in zip(_DRAWN.items(), COLOURS, strict=False):
                values = [covered[quantity, kind.name, n] for n in SIZES]
                look: Any = {"color": colour, "marker": marker, "markersize": 3.5, "linewidth": 1.1, "label": name}
                look["zorder"] = 3 if quantity == "mean, Student-t" else 2
                panel.plot(SIZES, values, line, **look)
            panel.set(title=_TITLES[kind.name], xlabel="seeds, n", xscale="log", ylim=(0.4, 1.0))
            panel.xaxis.set_major_locator(FixedLocator(SIZES))
            panel.xaxis.set_minor_locator(NullLocator())
            panel.set_xticklabels(list(map(str, SIZES)))
            panel.set_yticks([0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0])
        panels[0].set_ylabel("coverage of 95 % intervals")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    path.write_bytes(png_bytes(figure))


if __name__ == "__main__":
    main()
