"""Learning curves for simulated sweeps: what runs would report, and how good their configurations truly are.

    family = PowerLaw()
    curves = family.draw(np.random.default_rng(0), family.levels)
    curves.values[configuration, seed, level], curves.truth[configuration]

A configuration's truth is the mean of its value at the budget over all seeds there could be, which no sweep sees. More
is better everywhere. Left out: values that diverge, effects of a seed that configurations share.
"""

from __future__ import annotations

import csv
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

TABLE = Path(__file__).parent / "benchmarks" / "curves.csv"
"""Trained runs: validation accuracy at every evaluation. How they were made is said in docs/scheduling.md."""
EVALUATED_EVERY = 50
"""Steps between two of them."""


@dataclass(frozen=True)
class Curves:
    """The runs of one sweep."""

    values: Array
    """What run (configuration, seed) reports at a level: (configurations, seeds, levels)."""
    truth: Array
    """Expected value at the budget, by configuration."""
    speeds: Array
    """Time per step, by configuration."""


class Family(ABC):
    """A way in which learning curves come about."""

    configurations: int
    seeds: int
    budget: int

    @abstractmethod
    def draw(self, rng: np.random.Generator, levels: Sequence[int]) -> Curves:
        """The runs of another sweep, at these levels, the last of which is the budget."""

    def _speeds(self, rng: np.random.Generator) -> Array:
        """Configurations differ in size: the slow half takes about twice as long as the fast half."""
        return np.exp(0.5 * rng.standard_normal(self.configurations))


@dataclass(frozen=True)
class PowerLaw(Family):
    """Curves that rise to an asymptote like a power of the step, each at its own speed, so that they cross.

    value = asymptote - 2 (1 + step / tau)^-1 + offset(seed) + noise(evaluation); asymptotes are normal with standard
    deviation 1, tau is log-normal around a twentieth of the budget with a factor of 3. Seed and evaluation noise are
    therefore given in standard deviations of the configurations.
    """

    configurations: int = 16
    seeds: int = 8
    budget: int = 4320
    seed_noise: float = 1.0
    """Standard deviation of a run's offset, which it keeps."""
    evaluation_noise: float = 0.3
    """Standard deviation of one evaluation."""

    def draw(self, rng: np.random.Generator, levels: Sequence[int]) -> Curves:
        """As in `Family`."""
        shape = (self.configurations, self.seeds, len(levels))
        asymptote = rng.standard_normal((self.configurations, 1, 1))
        tau = self.budget / 20 * np.exp(math.log(3) * rng.standard_normal(asymptote.shape))
        mean = asymptote - 2 / (1 + np.asarray(levels) / tau)
        offset = self.seed_noise * rng.standard_normal((*shape[:2], 1))
        values = mean + offset + self.evaluation_noise * rng.standard_normal(shape)
        return Curves(values, mean[:, 0, -1], self._speeds(rng))


@dataclass(frozen=True)
class Grokking(Family):
    """Accuracies that stand at chance until a run groks, at a step of its own, and then jump to 1; some never do.

    The step is log-normal over seeds (factor 1.5) around a configuration's own, which is log-normal over configurations
    (factor 2) around 60 % of the budget; beside that a part of a configuration's runs, uniform between 0 and 60 %,
    never groks. The jump is a logistic curve whose scale is a tenth of the step. The noise is that of an evaluation on
    200 items.
    """

    configurations: int = 16
    seeds: int = 8
    budget: int = 4320
    chance: float = 0.05

    def draw(self, rng: np.random.Generator, levels: Sequence[int]) -> Curves:
        """As in `Family`."""
        center = 0.6 * self.budget * np.exp(math.log(2) * rng.standard_normal((self.configurations, 1)))
        never = rng.uniform(0, 0.6, center.shape)
        step = center * np.exp(math.log(1.5) * rng.standard_normal((self.configurations, self.seeds)))
        step = np.where(rng.random(step.shape) < never, np.inf, step)
        accuracy = self._accuracy(step[..., None], np.asarray(levels, np.float64))
        values = rng.binomial(200, accuracy) / 200
        quantiles = np.exp(math.log(1.5) * _normal_quantiles(200))
        grokking = self._accuracy(center * quantiles, np.float64(levels[-1])).mean(axis=1)
        truth = never[:, 0] * self.chance + (1 - never[:, 0]) * grokking
        return Curves(values.astype(np.float64), truth, self._speeds(rng))

    def _accuracy(self, step: Array, level: Array | np.float64) -> Array:
        with np.errstate(over="ignore", invalid="ignore"):
            rise = np.where(np.isinf(step), 0.0, 1 / (1 + np.exp(-(level - step) / (0.1 * step))))
        accuracy: Array = self.chance + (1 - self.chance) * rise
        return accuracy


@dataclass(frozen=True)
class Tabulated(Family):
    """Runs that were really trained: a sweep gets a few of each configuration's seeds, in an order of its own.

    The truth is the mean over all of them at the budget. At 1,200 steps, where the table ends, two configurations have
    the same mean, so that there is no best one.
    """

    seeds: int = 8
    budget: int = 1000

    @property
    def configurations(self) -> int:  # type: ignore[override]
        """Those of the table."""
        return len(read_table()[1])

    def draw(self, rng: np.random.Generator, levels: Sequence[int]) -> Curves:
        """As in `Family`; at the nearest evaluation, but not that of the start."""
        table, _ = read_table()
        columns = np.maximum(1, np.round(np.asarray(levels) / EVALUATED_EVERY).astype(int))
        order = rng.permuted(np.tile(np.arange(table.shape[1]), (len(table), 1)), axis=1)[:, : self.seeds]
        values = np.take_along_axis(table, order[..., None], axis=1)[..., columns]
        return Curves(values, table[..., columns[-1]].mean(axis=1), self._speeds(rng))


@cache
def read_table() -> tuple[Array, list[str]]:
    """The trained runs: values (configurations, seeds, evaluations), the labels of the configurations."""
    with TABLE.open() as file:
        rows = list(csv.DictReader(file))
    labels = list(dict.fromkeys(row["label"] for row in rows))
    values = np.array([row["accuracies"].split() for row in rows], np.float64)
    return values.reshape(len(labels), -1, values.shape[1]), labels


@cache
def _normal_quantiles(count: int) -> Array:
    from scipy.special import ndtri

    quantiles: Array = ndtri((np.arange(count) + 0.5) / count)
    return quantiles
