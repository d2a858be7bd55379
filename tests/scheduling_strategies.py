"""Ways to spend seeds in a sweep, each simulated with the real scheduler, and what is measured of a simulated sweep.

    sweep = SimulatedSweep.draw(PowerLaw(), 0, every_level(PowerLaw().budget))
    sweep.run(Strategy(seeds=8, start=2), Rungs(3, 9))["mean"]

A strategy that trains configurations chooses the best mean over all seeds among those that came to the budget. One that
trains and stops every run by itself (`seedwise`), as plain Tune does with a seed among the hyperparameters, may be
read in two ways: the configuration of the best run (`run`), or the best mean over the seeds that are left (`mean`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

import numpy as np
from scipy.special import stdtrit

from rung.tuning.schedulers import geometric_levels, make_scheduler, seeds_at_rungs
from tests.learning_curves import Array, Curves, Family
from tests.sweep_simulation import Sweep, simulate

WORKERS = 4

Growth = Callable[[int, int, int], tuple[int, ...]]
"""Seeds at each of so many rungs and at the budget, from a first to a full number."""


@dataclass(frozen=True)
class Rungs:
    """Where configurations are compared."""

    factor: int
    divisor: int
    """The first rung is this part of the budget."""

    def levels(self, budget: int) -> tuple[int, ...]:
        """The levels, the budget as the last."""
        return (*geometric_levels(max(1, budget // self.divisor), self.factor, budget), budget)


SETTINGS = (Rungs(2, 4), Rungs(2, 16), Rungs(3, 3), Rungs(3, 9), Rungs(3, 27), Rungs(4, 16))


def every_level(budget: int, settings: Sequence[Rungs] = SETTINGS) -> tuple[int, ...]:
    """All levels that any of the settings has."""
    return tuple(sorted({budget, *(level for rungs in settings for level in rungs.levels(budget))}))


@dataclass(frozen=True)
class Strategy:
    """How a sweep deals with seeds and who goes on."""

    seeds: int
    start: int | None = None
    """Seeds at the first rung, if more join later."""
    rule: str = "asha"
    seedwise: bool = False
    """Every run is stopped by itself."""
    confidence: float | None = None
    growth: Growth = seeds_at_rungs


@dataclass(frozen=True)
class Outcome:
    """What is measured of one sweep."""

    found: float
    """1 if it ends with the truly best configuration."""
    kept: float
    """Part of the truly best configuration's runs that came to the budget: all or none where they are stopped together,
    whose mean is the probability of keeping it."""
    alive: float
    """1 if at least one of them did."""
    regret: float
    """The best truth minus the truth of the chosen configuration."""
    steps: float
    """Of all runs, as a part of those of every seed of every configuration to the budget."""
    clock: float
    """Time with `WORKERS` workers, as a part of that of the same runs without a stop."""


class SimulatedSweep:
    """The runs of one sweep, which any strategy may train.

    Args:
        curves: what the runs would report.
        levels: at which steps, the last of which is the budget.
        order: in which configurations start, and in which runs do where each is by itself.
    """

    def __init__(self, curves: Curves, levels: Sequence[int], rng: np.random.Generator) -> None:
        self.curves = curves
        self.at = {level: index for index, level in enumerate(levels)}
        self.budget = levels[-1]
        count, seeds, _ = curves.values.shape
        self.order = [int(c) for c in rng.permutation(count)]
        self.runs = [(int(run) // seeds, int(run) % seeds) for run in rng.permutation(count * seeds)]
        self.best = int(np.argmax(curves.truth))

    @classmethod
    def draw(cls, family: Family, seed: int, levels: Sequence[int]) -> SimulatedSweep:
        """The sweep of a number."""
        rng = np.random.default_rng(seed)
        return cls(family.draw(rng, levels), levels, rng)

    def run(self, strategy: Strategy, rungs: Rungs) -> dict[str, Outcome]:
        """Simulates a sweep; outcomes by the way in which its winner is read off."""
        levels = rungs.levels(self.budget) if strategy.rule != "fifo" else (self.budget,)
        return self._seedwise(strategy, rungs, levels) if strategy.seedwise else self._together(strategy, rungs, levels)

    def _together(self, strategy: Strategy, rungs: Rungs, levels: Sequence[int]) -> dict[str, Outcome]:
        counts = strategy.growth(strategy.start or strategy.seeds, strategy.seeds, len(levels) - 1)
        seeds = dict(zip(levels, counts, strict=True))
        names = {f"{c}": c for c in self.order}
        means = {level: self.mean(level, seeds[level]) for level in levels}
        margins = None
        if strategy.confidence is not None:
            wide = {level: self.margin(level, seeds[level], strategy.confidence) for level in levels}
            margins = {name: {level: wide[level][c] for level in levels} for name, c in names.items()}
        sweep = self._simulate(strategy, rungs, levels, names, means, seeds, margins)
        left = [names[name] for name in sweep.completed]
        chosen = max(left, key=lambda c: means[self.budget][c])
        return {"mean": self._outcome(chosen, float(self.best in left), sweep)}

    def _seedwise(self, strategy: Strategy, rungs: Rungs, levels: Sequence[int]) -> dict[str, Outcome]:
        runs = {f"{c}/{seed}": (c, seed) for c, seed in self.runs if seed < strategy.seeds}
        values = {level: self.curves.values[..., self.at[level]].tolist() for level in levels}
        scheduler = make_scheduler(
            strategy.rule, levels=levels[:-1], mode="max", configurations=tuple(runs), reduction_factor=rungs.factor
        )
        table = {name: {level: values[level][c][seed] for level in levels} for name, (c, seed) in runs.items()}
        speeds = {name: self._speeds[c] for name, (c, _) in runs.items()}
        sweep = simulate(scheduler, table, self.budget, workers=WORKERS, speeds=speeds)
        left: dict[int, list[float]] = {}
        for name in sweep.completed:
            left.setdefault(runs[name][0], []).append(table[name][self.budget])
        readings = {
            "run": max(left, key=lambda c: max(left[c])),
            "mean": max(left, key=lambda c: fmean(left[c])),
        }
        kept = len(left.get(self.best, ())) / strategy.seeds
        return {reading: self._outcome(chosen, kept, sweep) for reading, chosen in readings.items()}

    def _simulate(
        self,
        strategy: Strategy,
        rungs: Rungs,
        levels: Sequence[int],
        names: Mapping[str, int],
        means: Mapping[int, Sequence[float]],
        seeds: Mapping[int, int],
        margins: Mapping[str, Mapping[int, float | None]] | None,
    ) -> Sweep:
        scheduler = make_scheduler(
            strategy.rule,
            levels=levels[:-1],
            mode="max",
            configurations=tuple(names),
            reduction_factor=rungs.factor,
            confidence=strategy.confidence,
        )
        table = {name: {level: means[level][c] for level in levels} for name, c in names.items()}
        speeds = {name: self._speeds[c] for name, c in names.items()}
        return simulate(scheduler, table, self.budget, workers=WORKERS, speeds=speeds, seeds=seeds, margins=margins)

    def _outcome(self, chosen: int, kept: float, sweep: Sweep) -> Outcome:
        count, seeds, _ = self.curves.values.shape
        truth = self.curves.truth
        return Outcome(
            found=float(chosen == self.best),
            kept=kept,
            alive=float(kept > 0),
            regret=float(truth[self.best] - truth[chosen]),
            steps=sweep.trained / (count * seeds * self.budget),
            clock=sweep.clock * WORKERS / (self.curves.speeds.sum() * seeds * self.budget),
        )

    @cached_property
    def _speeds(self) -> list[float]:
        speeds: list[float] = self.curves.speeds.tolist()
        return speeds

    def mean(self, level: int, seeds: int) -> list[float]:
        """Of the first seeds of every configuration at a level."""
        means: list[float] = self._first(level, seeds).mean(axis=1).tolist()
        return means

    def margin(self, level: int, seeds: int, confidence: float) -> Sequence[float | None]:
        """Half the width of the Student-t interval around that mean, as `Aggregation.margin` has it."""
        if seeds < 2:
            return [None] * len(self.order)
        spread = self._first(level, seeds).std(axis=1, ddof=1)
        margins: list[float | None] = (stdtrit(seeds - 1, (1 + confidence) / 2) * spread / seeds**0.5).tolist()
        return margins

    def _first(self, level: int, seeds: int) -> Array:
        return self.curves.values[:, :seeds, self.at[level]]
