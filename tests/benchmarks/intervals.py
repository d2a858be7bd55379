"""The intervals and tests of rung.results for whole arrays of samples, which its own functions take one by one.

For `tests.benchmarks.coverage`, which checks that both give the same. Samples are along the last axis.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri, stdtr, stdtrit

from rung.results.robust import interquartile_means

Array = npt.NDArray[np.float64]
Ends = tuple[Array, Array]

CONFIDENCE = 0.95
ALL_SIGNS = 12
"""Up to so many pairs all signs are tried."""
DRAWN_SIGNS = 4_000
"""Random signs beyond that, the same for all samples."""


def student(x: Array) -> Ends:
    """As `statistics.mean_interval`, for samples (..., n)."""
    n = x.shape[-1]
    half = stdtrit(n - 1, (1 + CONFIDENCE) / 2) * x.std(axis=-1, ddof=1) / math.sqrt(n)
    return x.mean(axis=-1) - half, x.mean(axis=-1) + half


def welch(a: Array, b: Array) -> Ends:
    """As `statistics.welch_interval`."""
    n, m = a.shape[-1], b.shape[-1]
    u, v = a.var(axis=-1, ddof=1) / n, b.var(axis=-1, ddof=1) / m
    degrees = (u + v) ** 2 / (u**2 / (n - 1) + v**2 / (m - 1))
    half = stdtrit(degrees, (1 + CONFIDENCE) / 2) * np.sqrt(u + v)
    difference = a.mean(axis=-1) - b.mean(axis=-1)
    return difference - half, difference + half


def trimmed(x: Array) -> Ends:
    """As `robust.interquartile_mean`."""
    n = x.shape[-1]
    cut = n // 4
    kept, ordered = n - 2 * cut, np.sort(x, axis=-1)
    if cut == 0:
        return student(x)
    center = ordered[..., cut : n - cut].mean(axis=-1)
    winsorised = np.clip(ordered, ordered[..., cut : cut + 1], ordered[..., n - cut - 1 : n - cut])
    error = winsorised.std(axis=-1, ddof=1) * math.sqrt((n - 1) / (kept * (kept - 1)))
    half = stdtrit(kept - 1, (1 + CONFIDENCE) / 2) * error
    return center - half, center + half


def percentile_bootstrap(x: Array, generator: np.random.Generator, resamples: int = 1_000) -> Ends:
    """What rung does not print below n = 20: quantiles of the means of resamples."""
    ends = []
    for sample in x:
        means = sample[generator.integers(0, len(sample), (resamples, len(sample)))].mean(axis=-1)
        ends.append(np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]))
    low, high = np.array(ends).T
    return low, high


def interquartile_bootstrap(a: Array, b: Array, generator: np.random.Generator, resamples: int = 500) -> Ends:
    """As `robust.bootstrap_interval` of the difference of interquartile means, over pairs."""
    ends = []
    n = a.shape[-1]
    for pair in np.stack([a, b], axis=1):
        middle = interquartile_means(pair[:, generator.integers(0, n, (resamples, n))])
        ends.append(np.quantile(middle[0] - middle[1], [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]))
    low, high = np.array(ends).T
    return low, high


def improvement_share(a: Array, b: Array) -> Array:
    """The share of pairs in which a is larger, a tie counting half."""
    wins, ties = a[..., :, None] > b[..., None, :], a[..., :, None] == b[..., None, :]
    share: Array = wins.mean(axis=(-1, -2)) + ties.mean(axis=(-1, -2)) / 2
    return share


def improvement(a: Array, b: Array) -> Ends:
    """As `robust.probability_of_improvement`: Newcombe's method 5."""
    share, n, m = improvement_share(a, b), a.shape[-1], b.shape[-1]
    z, inner = ndtri((1 + CONFIDENCE) / 2), (n + m) / 2 - 1

    def border(outside: Array) -> Array:
        inside = share
        for _ in range(50):
            middle = (inside + outside) / 2
            variance = middle * (1 - middle) / (n * m)
            variance *= 1 + inner * (1 - middle) / (2 - middle) + inner * middle / (1 + middle)
            far = (middle - share) ** 2 > z**2 * variance
            inside, outside = np.where(far, inside, middle), np.where(far, middle, outside)
        return inside

    return border(np.zeros_like(share)), border(np.ones_like(share))


def wilson(successes: Array, n: int) -> Ends:
    """As `statistics.wilson_interval`."""
    z = ndtri((1 + CONFIDENCE) / 2)
    rate, weight = successes / n, z * z / n
    center = (rate + weight / 2) / (1 + weight)
    half = z / (1 + weight) * np.sqrt(rate * (1 - rate) / n + weight / (4 * n))
    return np.where(successes == 0, 0, center - half), np.where(successes == n, 1, center + half)


def sign_flip_p(differences: Array, generator: np.random.Generator) -> Array:
    """As `significance.sign_flip_test` for each row; from drawn signs where there are more than `ALL_SIGNS` pairs."""
    n = differences.shape[-1]
    if n <= ALL_SIGNS:
        signs = np.array(list(itertools.product((1.0, -1.0), repeat=n - 1)))
        signs = np.column_stack([np.ones(len(signs)), signs])
    else:
        signs = generator.integers(0, 2, (DRAWN_SIGNS, n)) * 2.0 - 1
    extreme = []
    for block in np.array_split(differences, max(1, len(differences) // 500)):
        seen = np.abs(block.sum(axis=-1)) - 1e-12 * np.abs(block).sum(axis=-1)
        extreme.append((np.abs(block @ signs.T) >= seen[:, None]).sum(axis=-1))
    counts = np.concatenate(extreme)
    return counts / len(signs) if n <= ALL_SIGNS else (counts + 1) / (len(signs) + 1)


def t_p(differences: Array) -> Array:
    """The two-sided p of the paired t test for each row."""
    n = differences.shape[-1]
    t = differences.mean(axis=-1) / (differences.std(axis=-1, ddof=1) / math.sqrt(n))
    p: Array = 2 * stdtr(n - 1, -np.abs(t))
    return p
