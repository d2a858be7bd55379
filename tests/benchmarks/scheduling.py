"""What early stopping does to sweeps with seeds: simulated sweeps on a virtual clock, with rung's own schedulers.

    python -m tests.benchmarks.scheduling                     about 4 minutes on one core
    python -m tests.benchmarks.scheduling --sweeps 40         half a minute, rough
    python -m tests.benchmarks.scheduling --sweeps 2500       about 25 minutes; standard errors of 1 % and less

Against what: one trial per (configuration, seed), each stopped by itself, as Tune does with a seed among the
hyperparameters; and no early stopping with fewer seeds. Every number is an average over simulated sweeps, the same for
all strategies, with its standard error.

`tradeoff`: every strategy with several numbers of seeds and rungs, and the best of each at equal compute. `rules`: the
rules and `confidence` at the same rungs. `growth`: how fast seeds join. `noise` and `many`: `tradeoff` again, over the
spread of seeds and with 64 configurations in place of 16, with a quarter of the sweeps.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, PercentFormatter

from rung.results.figure_style import COLOURS, FAINT, WIDTH, png_bytes, settle, styled
from tests.benchmarks.measure import parser, print_table
from tests.learning_curves import Array, Family, Grokking, PowerLaw, Tabulated
from tests.scheduling_strategies import SETTINGS, Outcome, Rungs, SimulatedSweep, Strategy, every_level

FAMILIES: Mapping[str, Family] = {
    "crossing power laws": PowerLaw(),
    "grokking": Grokking(),
    "trained runs": Tabulated(),
}
MEASURES = tuple(field.name for field in fields(Outcome))
TOGETHER = tuple(measure for measure in MEASURES if measure != "alive")
"""Where all runs of a configuration are kept or none."""
HEADERS = {
    "found": "ends with the best",
    "kept": "its runs kept",
    "alive": "at least one",
    "regret": "regret",
    "steps": "steps",
    "clock": "time, 4 workers",
}
FIFO = Rungs(2, 1)
"""Stands where nothing is compared."""


@dataclass(frozen=True)
class Line:
    """A strategy with all its variants, one line of the picture."""

    name: str
    strategies: tuple[Strategy, ...]
    colour: str
    reading: str = "mean"
    marker: str = "o"
    is_dashed: bool = False

    @property
    def cases(self) -> list[Case]:
        """Every variant with every setting of the rungs."""
        return [
            Case(strategy, rungs)
            for strategy in self.strategies
            for rungs in ((FIFO,) if strategy.rule == "fifo" else SETTINGS)
        ]


class Case(NamedTuple):
    """A strategy at some rungs."""

    strategy: Strategy
    rungs: Rungs

    @property
    def text(self) -> str:
        """In a table."""
        start = self.strategy.start
        full = "1 seed" if self.strategy.seeds == 1 else f"{self.strategy.seeds} seeds"
        seeds = full if start is None else f"{start} to {full}"
        if self.strategy.rule == "fifo":
            return seeds
        return f"{seeds}, 1/{self.rungs.divisor}, factor {self.rungs.factor}"


FULL = 8
"""Most seeds; all of them without a stop are the full compute."""
SEEDWISE = tuple(Strategy(seeds, seedwise=True) for seeds in (2, 4, FULL))
LINES = (
    Line("no early stopping", tuple(Strategy(n, rule="fifo") for n in (1, 2, 3, 4, 6, FULL)), FAINT, marker="s"),
    Line("a trial per seed, best run", SEEDWISE, COLOURS[4], reading="run", marker="v"),
    Line("a trial per seed, best mean of what is left", SEEDWISE, COLOURS[1], marker="^"),
    Line("all seeds together", tuple(Strategy(n) for n in (2, 4, FULL)), COLOURS[0]),
    Line("racing over seeds", tuple(Strategy(FULL, n) for n in (1, 2, 4)), COLOURS[2], marker="D"),
    Line(
        "all seeds together, synchronous",
        tuple(Strategy(n, rule="synchronous_halving") for n in (2, 4, FULL)),
        COLOURS[0],
        is_dashed=True,
    ),
    Line(
        "racing over seeds, synchronous",
        tuple(Strategy(FULL, n, "synchronous_halving") for n in (1, 2, 4)),
        COLOURS[2],
        marker="D",
        is_dashed=True,
    ),
)
LIMITS = (0.05, 0.1, 0.2, 0.4)
"""Parts of the full compute at which strategies are compared."""


class Point(NamedTuple):
    """Averages over sweeps, with their standard errors."""

    case: Case
    mean: dict[str, float]
    error: dict[str, float]


def main() -> None:
    options = _options()
    print(f"{options.sweeps:,} sweeps of each kind of curves, seeded\n")
    for part in options.parts:
        PARTS[part](argparse.Namespace(**vars(options)))


def _options() -> argparse.Namespace:
    arguments = parser(__doc__)
    arguments.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    arguments.add_argument("--sweeps", type=int, default=400)
    arguments.add_argument("--processes", type=int, default=1)
    arguments.add_argument("--picture", type=Path, help="file that `tradeoff` draws")
    return arguments.parse_args()


# Simulating.


def measured(family: Family, cases: Iterable[Case], options: argparse.Namespace) -> dict[tuple[Case, str], Point]:
    """Every case over the same sweeps; by case and by how the winner is read off."""
    cases = tuple(dict.fromkeys(cases))
    chunks = np.array_split(np.arange(options.sweeps), options.processes * 8)
    work = partial(_simulated, family, cases)
    if options.processes == 1:
        parts = [work(chunk.tolist()) for chunk in chunks]
    else:
        with ProcessPoolExecutor(options.processes) as pool:
            parts = list(pool.map(work, [chunk.tolist() for chunk in chunks]))
    return {
        key: _point(key[0], np.concatenate([part[key] for part in parts if key in part]))
        for key in dict.fromkeys(key for part in parts for key in part)
    }


def _simulated(family: Family, cases: Sequence[Case], sweeps: Sequence[int]) -> dict[tuple[Case, str], Array]:
    levels = every_level(family.budget, [case.rungs for case in cases])
    outcomes: dict[tuple[Case, str], list[tuple[float, ...]]] = {}
    for number in sweeps:
        sweep = SimulatedSweep.draw(family, number, levels)
        for case in cases:
            for reading, outcome in sweep.run(*case).items():
                row = tuple(getattr(outcome, name) for name in MEASURES)
                outcomes.setdefault((case, reading), []).append(row)
    return {key: np.array(rows) for key, rows in outcomes.items()}


def _point(case: Case, outcomes: Array) -> Point:
    means = outcomes.mean(axis=0)
    errors = outcomes.std(axis=0, ddof=1) / len(outcomes) ** 0.5
    return Point(
        case, dict(zip(MEASURES, map(float, means), strict=True)), dict(zip(MEASURES, map(float, errors), strict=True))
    )


# The trade-off between compute and finding the best.


def _tradeoff(options: argparse.Namespace) -> None:
    points = {name: _lines(family, LINES, options) for name, family in FAMILIES.items()}
    for name, lines in points.items():
        print(f"{name}: the best variant of each strategy that takes at most so much of the full compute\n")
        _print_equal(lines)
    for name, lines in points.items():
        print(f"{name}: 8 seeds, first rung at 1/9 of the budget, factor 3\n")
        _print_cases(
            (line.name, point)
            for line in LINES
            for point in lines[line.name]
            if point.case.strategy.seeds == FULL
            and point.case.rungs in (Rungs(3, 9), FIFO)
            and point.case.strategy.start in (None, 2)
        )
    if options.picture is not None:
        options.picture.write_bytes(png_bytes(_picture(points)))


def _lines(family: Family, lines: Sequence[Line], options: argparse.Namespace) -> dict[str, list[Point]]:
    points = measured(family, [case for line in lines for case in line.cases], options)
    return {line.name: [points[case, line.reading] for case in line.cases] for line in lines}


def _print_equal(lines: Mapping[str, Sequence[Point]]) -> None:
    """The share of sweeps that end with the best configuration."""
    rows = []
    for name, points in lines.items():
        cells = [name]
        for limit in LIMITS:
            affordable = [point for point in points if point.mean["steps"] <= limit]
            best = max(affordable, key=lambda point: point.mean["found"], default=None)
            cells.append("-" if best is None else f"{_with_error(best, 'found')} ({best.case.text})")
        rows.append(cells)
    print_table(("strategy", *(f"at most {limit:.0%}" for limit in LIMITS)), rows)


def _print_cases(rows: Iterable[tuple[str, Point]], measures: Sequence[str] = MEASURES) -> None:
    headers = ("strategy", *(HEADERS[measure] for measure in measures))
    print_table(headers, [(name, *(_with_error(point, measure) for measure in measures)) for name, point in rows])


def _with_error(point: Point, measure: str) -> str:
    return f"{point.mean[measure]:.3f} ± {point.error[measure]:.3f}"


def frontier(points: Iterable[Point], measure: str) -> list[Point]:
    """Those that no cheaper one equals."""
    best: list[Point] = []
    for point in sorted(points, key=lambda point: point.mean["steps"]):
        if not best or point.mean[measure] > best[-1].mean[measure]:
            best.append(point)
    return best


# The picture.


def _picture(points: Mapping[str, Mapping[str, Sequence[Point]]]) -> Figure:
    with styled():
        figure = Figure(figsize=(WIDTH, 5.2), layout="constrained")
        grid = figure.subplots(2, len(points), sharex=True, sharey="row", squeeze=False)
        for column, (name, lines) in enumerate(points.items()):
            grid[0, column].set_title(name)
            _panel(grid[0, column], lines, "found")
            _panel(grid[1, column], lines, "kept")
            grid[1, column].set_xlabel("steps trained, part of all")
        grid[0, 0].set_ylabel("ends with the best configuration")
        grid[1, 0].set_ylabel(f"runs of the best kept, of {FULL} seeds")
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3)
    settle(figure)
    return figure


def _panel(axes: Axes, lines: Mapping[str, Sequence[Point]], measure: str) -> None:
    for line in LINES:
        if measure == "kept" and line.reading == "run":
            continue  # the other reading keeps the same
        points = lines[line.name]
        if measure == "kept":
            points = [point for point in points if point.case.strategy.seeds == FULL]
        best = frontier(points, measure)
        axes.errorbar(
            [point.mean["steps"] for point in best],
            [point.mean[measure] for point in best],
            [1.96 * point.error[measure] for point in best],
            label=line.name,
            color=line.colour,
            linestyle=(0, (3, 1.5)) if line.is_dashed else "-",
            marker=line.marker,
            markersize=3.4,
            markerfacecolor="white" if line.is_dashed else line.colour,
            linewidth=1.1,
            elinewidth=0.6,
            capsize=0,
        )
    axes.set_xscale("log")
    axes.set_xticks([0.05, 0.1, 0.2, 0.5, 1])
    axes.set_xlim(0.03, 1.2)
    axes.set_ylim(0, 1.03)
    axes.xaxis.set_minor_locator(NullLocator())
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))


# The rules at the same rungs.


def _rules(options: argparse.Namespace) -> None:
    rungs = Rungs(3, 9)
    cases = {
        "no early stopping": Case(Strategy(8, rule="fifo"), FIFO),
        **{rule: Case(Strategy(8, rule=rule), rungs) for rule in ("asha", "synchronous_halving", "median_stopping")},
        "hyperband": Case(Strategy(8, rule="hyperband"), rungs),
        "asha, 2 to 8 seeds": Case(Strategy(8, 2), rungs),
        "synchronous_halving, 2 to 8 seeds": Case(Strategy(8, 2, "synchronous_halving"), rungs),
        **{f"asha, confidence {c}": Case(Strategy(8, confidence=c), rungs) for c in (0.5, 0.8, 0.95)},
        **{f"asha, 4 seeds{_of(c)}": Case(Strategy(4, confidence=c), rungs) for c in (None, 0.5, 0.8)},
        **{f"asha, 2 to 8 seeds, confidence {c}": Case(Strategy(8, 2, confidence=c), rungs) for c in (0.5, 0.8)},
    }
    for name, family in FAMILIES.items():
        points = measured(family, cases.values(), options)
        print(f"{name}: first rung at 1/9 of the budget, factor 3; 8 seeds unless said\n")
        _print_cases([(label, points[case, "mean"]) for label, case in cases.items()], TOGETHER)


def _of(confidence: float | None) -> str:
    return "" if confidence is None else f", confidence {confidence}"


# Where racing wins and where it loses.


def _noise(options: argparse.Namespace) -> None:
    _fewer(options)
    for noise in (0.25, 0.5, 2.0):
        print(f"crossing power laws, seeds spread by {noise} of the spread of configurations\n")
        _print_equal(_lines(PowerLaw(seed_noise=noise), LINES, options))


def _many(options: argparse.Namespace) -> None:
    _fewer(options)
    lines = [line for line in LINES if line.strategies != SEEDWISE]
    families: Mapping[str, Family] = {
        "crossing power laws": PowerLaw(configurations=64),
        "grokking": Grokking(configurations=64),
    }
    for name, family in families.items():
        print(f"{name}, 64 configurations\n")
        _print_equal(_lines(family, lines, options))


def _fewer(options: argparse.Namespace) -> None:
    options.sweeps = max(2, options.sweeps // 4)
    print(f"{options.sweeps:,} sweeps\n")


def _growth(options: argparse.Namespace) -> None:
    growths = {
        "by the same factor (rung)": Strategy(8, 2),
        "by the same number": Strategy(8, 2, growth=_linear),
        "all after the first rung": Strategy(8, 2, growth=_early),
        "all after the last rung": Strategy(8, 2, growth=_late),
    }
    for name, family in FAMILIES.items():
        cases = {label: Case(strategy, Rungs(3, 9)) for label, strategy in growths.items()}
        points = measured(family, cases.values(), options)
        print(f"{name}: from 2 to 8 seeds, first rung at 1/9 of the budget, factor 3\n")
        _print_cases([(label, points[case, "mean"]) for label, case in cases.items()], TOGETHER)


def _linear(start: int, full: int, rungs: int) -> tuple[int, ...]:
    return (*(round(start + (full - start) * rung / rungs) for rung in range(rungs)), full)


def _early(start: int, full: int, rungs: int) -> tuple[int, ...]:
    return (*([start] * min(1, rungs)), *([full] * max(0, rungs - 1)), full)


def _late(start: int, full: int, rungs: int) -> tuple[int, ...]:
    return (*([start] * rungs), full)


PARTS = {"tradeoff": _tradeoff, "rules": _rules, "growth": _growth, "noise": _noise, "many": _many}


if __name__ == "__main__":
    main()
