"""Statistics over the seeds of a configuration and over the steps of a run.

First per run (`best`, `first_step_reaching`), then over seeds (`mean_interval`, `spread`, `wilson_interval`). A value
that is missing is None or NaN, is left out, and shows in the returned n. scipy.special is imported where it is used:
scipy.stats would take a second.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Mode = Literal["min", "max"]
AcrossSeeds = Literal["mean", "median", "worst", "best"]
Values = Sequence[float | None] | npt.NDArray[np.floating] | npt.NDArray[np.integer]
"""One value per seed or per report; None and NaN are missing."""


@dataclass(frozen=True, slots=True)
class MeanInterval:
    """A mean over `n` values with its confidence interval; no mean for n = 0, no interval for n = 1."""

    n: int
    mean: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class DifferenceInterval:
    """The difference of two means with its confidence interval.

    No difference while a side has no value; no interval while a side has only one.
    """

    n: tuple[int, int]
    """Values on either side."""
    mean: float | None
    """Mean of the first minus mean of the second."""
    low: float | None
    high: float | None
    degrees: float | None
    """Degrees of freedom of the t distribution that the interval is of."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A mean over `n` values with their sample standard deviation (n - 1), which takes two values."""

    n: int
    mean: float | None
    std: float | None


def mean_interval(values: Values, confidence: float = 0.95) -> MeanInterval:
    """The mean and its Student-t interval, mean +- t(n - 1, (1 + confidence) / 2) s / sqrt(n).

    Right on average for normal values at any n >= 2; percentile bootstrap covers 75 % instead of 95 % at n = 3.
    """
    _check_confidence(confidence)
    known = known_values(values)
    center = spread(known)
    if center.mean is None or center.std is None:
        return MeanInterval(center.n, center.mean, None, None)
    from scipy.special import stdtrit

    half = float(stdtrit(center.n - 1, (1 + confidence) / 2)) * center.std / math.sqrt(center.n)
    return MeanInterval(center.n, center.mean, center.mean - half, center.mean + half)


def welch_interval(first: Values, second: Values, confidence: float = 0.95) -> DifferenceInterval:
    """The difference of the means of two independent samples, whose spreads may differ, with its t interval.

    mean(a) - mean(b) +- t(nu, (1 + confidence) / 2) sqrt(v_a + v_b), v = s^2 / n, with the degrees of freedom
    nu = (v_a + v_b)^2 / (v_a^2 / (n_a - 1) + v_b^2 / (n_b - 1)) of Welch (1947, doi 10.1093/biomet/34.1-2.28) and
    Satterthwaite (1946, doi 10.2307/3002019). For runs that share seeds there is `significance.paired_interval`.
    """
    _check_confidence(confidence)
    a, b = spread(first), spread(second)
    if a.mean is None or b.mean is None:
        return DifferenceInterval((a.n, b.n), None, None, None, None)
    difference = a.mean - b.mean
    if a.std is None or b.std is None:
        return DifferenceInterval((a.n, b.n), difference, None, None, None)
    shares = np.array([a.std**2 / a.n, b.std**2 / b.n])
    total = float(shares.sum())
    if total == 0:  # no spread on either side: the quotient below would be 0 / 0
        return DifferenceInterval((a.n, b.n), difference, difference, difference, float(a.n + b.n - 2))
    from scipy.special import stdtrit

    # Shares of the whole, whose squares cannot underflow together.
    degrees = float(1 / ((shares / total) ** 2 / np.array([a.n - 1, b.n - 1])).sum())
    half = float(stdtrit(degrees, (1 + confidence) / 2)) * math.sqrt(total)
    return DifferenceInterval((a.n, b.n), difference, difference - half, difference + half, degrees)


def spread(values: Values) -> Spread:
    """The mean and the sample standard deviation."""
    known = known_values(values)
    if not len(known):
        return Spread(0, None, None)
    return Spread(len(known), float(known.mean()), float(known.std(ddof=1)) if len(known) > 1 else None)


def wilson_interval(successes: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The score interval of a success rate (Wilson 1927, doi 10.1080/01621459.1927.10502953), without continuity
    correction.

    Unlike the textbook p +- z sqrt(p (1 - p) / n) it is not empty at 0 or n successes. Where each of n things has a
    rate of its own, their sum may stand for successes: the interval is then wider than it need be, since rates vary
    less than zeros and ones. Raises ValueError unless 0 <= successes <= n and n > 0.
    """
    _check_confidence(confidence)
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"{successes} successes of {n} are not possible")
    from scipy.special import ndtri

    z = float(ndtri((1 + confidence) / 2))
    rate, weight = successes / n, z * z / n
    center = (rate + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(rate * (1 - rate) / n + weight / (4 * n))
    # At the ends the bound is exact; subtracting two equal terms would leave a rounding error.
    low = 0.0 if successes == 0 else center - half
    high = 1.0 if successes == n else center + half
    return low, high


def aggregate(values: Values, rule: AcrossSeeds, mode: Mode) -> float | None:
    """One number for a configuration from those of its runs; None if none of them has one."""
    known = known_values(values)
    if not len(known):
        return None
    match rule:
        case "mean":
            return float(known.mean())
        case "median":
            return float(np.median(known))
        case "worst":
            return float(known.min() if mode == "max" else known.max())
        case "best":
            return float(known.max() if mode == "max" else known.min())
    raise ValueError(f"across_seeds must be mean, median, worst or best, not {rule!r}")


def best(steps: Sequence[int] | npt.NDArray[np.integer], values: Values, mode: Mode) -> tuple[float, int] | None:
    """The best value of a run and the first step that has it; None if the run has no value."""
    series = _series(steps, values)
    if not len(series):
        return None
    at = int(np.argmax(series[:, 1]) if mode == "max" else np.argmin(series[:, 1]))  # the first of equals
    return float(series[at, 1]), int(series[at, 0])


def first_step_reaching(
    steps: Sequence[int] | npt.NDArray[np.integer], values: Values, threshold: float, mode: Mode
) -> int | None:
    """The first step whose value is at least (`max`) or at most (`min`) the threshold.

    None is a censored time: not reached as far as the run went, which is not the same as never.
    """
    series = _series(steps, values)
    reached = series[:, 1] >= threshold if mode == "max" else series[:, 1] <= threshold
    return int(series[np.argmax(reached), 0]) if reached.any() else None


def known_values(values: Values) -> npt.NDArray[np.float64]:
    """The values that are there, as doubles."""
    array = np.asarray(values, dtype=np.float64)  # None becomes NaN
    return array[~np.isnan(array)]


def farthest(too_far: Callable[[float], bool], inside: float, outside: float) -> float:
    """The end of a score interval: the last value from `inside` (in it) to `outside` that is not too far."""
    for _ in range(60):  # halves down to the last bit of a double
        middle = (inside + outside) / 2
        inside, outside = (inside, middle) if too_far(middle) else (middle, outside)
    return inside


def _series(steps: Sequence[int] | npt.NDArray[np.integer], values: Values) -> npt.NDArray[np.float64]:
    """Rows (step, value) in the order of the steps, without those that have no value; steps are exact below 2^53."""
    series = np.column_stack([np.asarray(steps, np.float64), np.asarray(values, np.float64)])
    series = series[~np.isnan(series[:, 1])]
    ordered: npt.NDArray[np.float64] = series[np.argsort(series[:, 0], kind="stable")]
    return ordered


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence lies between 0 and 1, not at {confidence}")
