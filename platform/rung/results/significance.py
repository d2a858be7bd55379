"""Whether a difference between two configurations can be told from chance: paired by seed, exact where possible.

`paired_interval` and `sign_flip_test` judge the differences of runs that share a seed, `holm` several tests at once,
`seeds_needed` says how many seeds it would take. What their intervals cover and how often the tests err is measured in
docs/statistics.md. No global random numbers: what draws takes a generator.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rung.results.statistics import MeanInterval, Values, known_values, mean_interval

ALPHA = 0.05
"""How often a difference that is not there may be claimed, over all tests of a table together."""
EXACT_PAIRS = 20
"""Up to so many pairs every sign is tried: half a million sums, some milliseconds."""
DRAWS = 99_999
"""Random signs beyond that; the standard error of a p value of 0.05 is then 0.0007."""
MOST_SEEDS = 100_000
"""`seeds_needed` looks no further."""


@dataclass(frozen=True, slots=True)
class SignFlipTest:
    """A sign-flip permutation test of paired differences."""

    n: int
    """Pairs."""
    p: float
    """Two-sided; 1 for no pairs."""
    smallest: float
    """The smallest p that so many pairs can give, whatever their differences are."""


def paired_differences(first: Values, second: Values) -> npt.NDArray[np.float64]:
    """first - second, pair by pair, without pairs of which a side is missing.

    Raises ValueError if the two are not equally long.
    """
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)  # None becomes NaN
    if a.shape != b.shape:
        raise ValueError(f"pairs take as many values on either side, got {len(a)} and {len(b)}")
    difference: npt.NDArray[np.float64] = a - b
    return difference[~np.isnan(difference)]


def paired_interval(first: Values, second: Values, confidence: float = 0.95) -> MeanInterval:
    """The mean of first - second over pairs, with the Student-t interval of one sample of differences (Student 1908,
    doi 10.1093/biomet/6.1.1).

    What a seed does to both sides alike cancels out; where seeds do nothing alike it is a little wider than
    `welch_interval`. A missing value takes its pair with it.
    """
    return mean_interval(paired_differences(first, second), confidence)


def sign_flip_test(
    differences: Values, generator: np.random.Generator | None = None, draws: int = DRAWS
) -> SignFlipTest:
    """The two-sided permutation test of paired differences (Fisher 1935, The Design of Experiments, section 21).

    If the two sides are exchangeable within a pair, every sign of every difference is equally likely: p is the share of
    all 2^n signs whose sum is at least as far from zero as the one seen. No distribution is assumed. Up to
    `EXACT_PAIRS` pairs all signs are tried; beyond that p = (k + 1) / (draws + 1) with k of `draws` random signs
    (Phipson and Smyth 2010, doi 10.2202/1544-6115.1585), never 0.

    Raises ValueError if signs must be drawn and no generator is given.
    """
    values = known_values(differences)
    n = len(values)
    if n == 0:
        return SignFlipTest(0, 1.0, 1.0)
    # Sums of the same numbers in another order differ by rounding; they are ties.
    seen = abs(float(values.sum())) - 1e-12 * float(np.abs(values).sum())
    if n <= EXACT_PAIRS:
        sums = np.array([values[0]])  # one sign is held: the other half of the sums are these, mirrored
        for value in values[1:]:
            sums = np.concatenate([sums + value, sums - value])
        return SignFlipTest(n, float(np.mean(np.abs(sums) >= seen)), 2.0 ** (1 - n))
    if generator is None:
        raise ValueError(f"{n} pairs are more than {EXACT_PAIRS}: signs are drawn, which takes a generator")
    extreme = _count_extreme(values, seen, generator, draws)
    return SignFlipTest(n, (extreme + 1) / (draws + 1), 1 / (draws + 1))


def _count_extreme(values: npt.NDArray[np.float64], seen: float, generator: np.random.Generator, draws: int) -> int:
    """Of `draws` random signs, how many give a sum at least as far from zero as `seen`; a bounded table at a time."""
    extreme, block = 0, max(1, 4_000_000 // len(values))
    for done in range(0, draws, block):
        signs = generator.integers(0, 2, size=(min(block, draws - done), len(values)), dtype=np.int8)
        extreme += int(np.count_nonzero(np.abs((2.0 * signs - 1.0) @ values) >= seen))
    return extreme


def holm(p_values: Sequence[float], tests: int | None = None) -> list[float]:
    """p values adjusted for having made several tests, in the order given (Holm 1979, Scandinavian
    Journal of Statistics 6, 65-70).

    The i-th smallest of m is multiplied by m - i + 1, and none becomes smaller than one before it: rejecting those up
    to 0.05 errs anywhere with a probability of at most 0.05, however the tests depend on each other. `tests` is m where
    more were possible than are given, as when the best of several was picked before it was compared.

    Raises ValueError for a value outside [0, 1] and for fewer `tests` than values.
    """
    p = np.asarray(p_values, np.float64)
    many = len(p) if tests is None else tests
    if many < len(p):
        raise ValueError(f"{len(p)} p values cannot come from {many} tests")
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p values lie between 0 and 1, got {list(p_values)}")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * (many - np.arange(len(p)))))
    return [float(value) for value in adjusted]


def fewest_pairs(alpha: float = ALPHA) -> int:
    """The fewest pairs with which a sign-flip test can reach `alpha` at all: 2^(1 - n) <= alpha."""
    _check_open(alpha, "alpha")
    return max(1, math.ceil(1 - math.log2(alpha)))


def paired_power(effect: float, n: int, alpha: float = ALPHA) -> float:
    """How often a two-sided paired t test of n normal differences sees a true mean of `effect` standard deviations.

    With delta = effect sqrt(n) and the quantile c = t(n - 1, 1 - alpha / 2) it is P(|T| > c) for T noncentral t with
    n - 1 degrees of freedom and noncentrality delta (Cohen 1988, Statistical Power Analysis, chapter 2). 0 for n = 1.
    """
    _check_open(alpha, "alpha")
    if n < 2:
        return 0.0
    from scipy.special import nctdtr, stdtrit

    critical, delta = float(stdtrit(n - 1, 1 - alpha / 2)), abs(effect) * math.sqrt(n)
    if delta > critical + 8:  # as good as certain, and beyond what nctdtr is made for
        return 1.0
    return float(1 - nctdtr(n - 1, delta, critical) + nctdtr(n - 1, delta, -critical))


def seeds_needed(differences: Values, alpha: float = ALPHA, power: float = 0.8) -> int | None:
    """How many pairs it takes to tell a difference from zero if it is what these differences show.

    The smallest n with `paired_power` of at least `power` for mean / standard deviation, and with which a sign-flip
    test can reach `alpha`. A guide to the order of magnitude: it is no better than the mean and the spread that it is
    made from. None where it cannot be said: fewer than two differences, a mean of zero, more than `MOST_SEEDS`.

    Raises ValueError unless 0 < alpha < 1 and 0 < power < 1.
    """
    _check_open(power, "power")
    least = fewest_pairs(alpha)
    known = known_values(differences)
    if len(known) < 2 or known.mean() == 0:
        return None
    std = float(known.std(ddof=1))
    effect = abs(float(known.mean())) / std if std > 0 else math.inf
    if paired_power(effect, least, alpha) >= power:
        return least
    low, high = least, 2 * least
    while paired_power(effect, high, alpha) < power:
        low, high = high, 2 * high
        if low > MOST_SEEDS:
            return None
    while high - low > 1:  # the power grows with n
        middle = (low + high) // 2
        low, high = (low, middle) if paired_power(effect, middle, alpha) >= power else (middle, high)
    return high


def _check_open(value: float, name: str) -> None:
    if not 0 < value < 1:
        raise ValueError(f"{name} lies between 0 and 1, not at {value}")
