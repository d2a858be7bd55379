"""Comparisons that one odd run cannot upset: interquartile mean, probability of improvement, bootstrap.

For larger n than a mean with its interval (Agarwal et al. 2021, Deep Reinforcement Learning at the Edge of the
Statistical Precipice, arXiv 2108.13264). What the intervals cover is measured in docs/statistics.md.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rung.results.statistics import MeanInterval, Mode, Values, farthest, known_values, mean_interval

FEWEST_FOR_BOOTSTRAP = 20
"""Percentile intervals of fewer values are too narrow: of 95 % they cover 75 % at n = 3, 90 % at n = 10."""

Statistic = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]
"""Samples along the last axis, which it reduces: (..., n) to (...)."""


@dataclass(frozen=True, slots=True)
class Improvement:
    """How likely a run of one configuration is to be better than a run of another."""

    n: tuple[int, int]
    """Runs on either side."""
    probability: float | None
    """None if a side has no run."""
    low: float | None
    high: float | None


def interquartile_means(samples: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The mean of the middle half of each sample along the last axis: floor(n / 4) values are cut at either end."""
    n = samples.shape[-1]
    cut = n // 4
    middle: npt.NDArray[np.float64] = np.sort(samples, axis=-1)[..., cut : n - cut].mean(axis=-1)
    return middle


def interquartile_mean(values: Values, confidence: float = 0.95) -> MeanInterval:
    """The mean of the middle half of the values with the t interval of a trimmed mean (Tukey and McLaughlin 1963,
    Sankhya A 25, 331-352).

    Of n values g = floor(n / 4) are cut at either end. The spread s_w is that of the values after those cut have been
    set to the outermost ones kept (winsorised). With h = n - 2 g half the interval is
    t(h - 1, (1 + confidence) / 2) s_w sqrt((n - 1) / (h (h - 1))). Below n = 4 nothing is cut: the mean's own interval.
    """
    known = np.sort(known_values(values))
    n, cut = len(known), len(known) // 4
    kept = n - 2 * cut
    if cut == 0 or kept < 2:
        return mean_interval(known, confidence)
    from scipy.special import stdtrit

    center = float(known[cut : n - cut].mean())
    winsorised = np.clip(known, known[cut], known[n - cut - 1])
    error = float(winsorised.std(ddof=1)) * math.sqrt((n - 1) / (kept * (kept - 1)))
    half = float(stdtrit(kept - 1, (1 + confidence) / 2)) * error
    return MeanInterval(n, center, center - half, center + half)


def probability_of_improvement(first: Values, second: Values, mode: Mode, confidence: float = 0.95) -> Improvement:
    """How likely a run of `first` is to be better than a run of `second`, a tie counting half.

    The share of all n_a n_b pairs of runs (Mann and Whitney 1947; `probability of improvement` in Agarwal et al. 2021),
    with the interval of Newcombe (2006, doi 10.1002/sim.2324, method 5): all theta with |theta - share| <= z sqrt(V),
    V = theta (1 - theta) / (n_a n_b) (1 + m (1 - theta) / (2 - theta) + m theta / (1 + theta)),
    m = (n_a + n_b) / 2 - 1. Like Wilson's it stays within 0 and 1 and is not empty where one side wins every time.
    Infinite values are values: a run that diverged may stand as -inf (`max`) or inf (`min`).
    """
    a, b = known_values(first), known_values(second)
    if not len(a) or not len(b):
        return Improvement((len(a), len(b)), None, None, None)
    wins = (a[:, None] > b) if mode == "max" else (a[:, None] < b)
    share = float(wins.mean() + (a[:, None] == b).mean() / 2)
    low, high = _newcombe_interval(share, len(a), len(b), confidence)
    return Improvement((len(a), len(b)), share, low, high)


def _newcombe_interval(share: float, n: int, m: int, confidence: float) -> tuple[float, float]:
    from scipy.special import ndtri

    z = float(ndtri((1 + confidence) / 2))
    inner = (n + m) / 2 - 1

    def too_far(theta: float) -> bool:
        variance = theta * (1 - theta) * (1 + inner * (1 - theta) / (2 - theta) + inner * theta / (1 + theta)) / (n * m)
        return (theta - share) ** 2 > z * z * variance

    return farthest(too_far, share, 0.0), farthest(too_far, share, 1.0)


def bootstrap_interval(
    values: npt.NDArray[np.float64],
    statistic: Statistic,
    generator: np.random.Generator,
    confidence: float = 0.95,
    resamples: int = 9_999,
) -> tuple[float, float]:
    """The percentile bootstrap interval of a statistic (Efron 1979, doi 10.1214/aos/1176344552).

    Args:
        values: (n,) or, to draw the entries of several rows together, (rows, n).
        statistic: of (resamples, n) or (rows, resamples, n); gives (resamples,).

    Raises ValueError for fewer than `FEWEST_FOR_BOOTSTRAP` entries, where the interval would be far too narrow.
    """
    n = values.shape[-1]
    if n < FEWEST_FOR_BOOTSTRAP:
        raise ValueError(
            f"a bootstrap of {n} values covers far less than it says; it takes {FEWEST_FOR_BOOTSTRAP}. "
            "Student's t interval holds for fewer"
        )
    drawn = statistic(values[..., generator.integers(0, n, size=(resamples, n))])
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
