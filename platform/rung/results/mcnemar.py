"""The same questions answered twice: what changed, whether that is more than chance, and how large the difference is.

Each question counts once, as right or wrong on either side. The sides are called before and after; they may as well be
two models. What the interval covers and how often the tests err is measured in docs/statistics.md.
"""

import math
from dataclasses import dataclass
from functools import cached_property

from rung.results.statistics import MeanInterval, farthest, wilson_interval


@dataclass(frozen=True)
class PairedAnswers:
    """How many questions were answered right and wrong, before and after."""

    both_right: int
    gained: int
    """Wrong before, right after."""
    lost: int
    """Right before, wrong after."""
    both_wrong: int

    @property
    def n(self) -> int:
        """Questions answered on both sides."""
        return self.both_right + self.gained + self.lost + self.both_wrong

    @property
    def right_before(self) -> int:
        """Questions answered right before."""
        return self.both_right + self.lost

    @property
    def right_after(self) -> int:
        """Questions answered right after."""
        return self.both_right + self.gained

    @property
    def before(self) -> MeanInterval:
        """Part of the questions answered right before, with its 95 % Wilson interval."""
        return _share(self.right_before, self.n)

    @property
    def after(self) -> MeanInterval:
        """Part of the questions answered right after, with its 95 % Wilson interval."""
        return _share(self.right_after, self.n)

    @cached_property
    def difference(self) -> MeanInterval:
        """After minus before, with the 95 % interval of `paired_difference_interval`; empty without a question."""
        if not self.n:
            return MeanInterval(0, None, None, None)
        low, high = paired_difference_interval(self.gained, self.lost, self.n)
        return MeanInterval(self.n, (self.gained - self.lost) / self.n, low, high)

    @property
    def p(self) -> float:
        """Of McNemar's exact test."""
        return mcnemar(self.gained, self.lost)

    @property
    def mid_p(self) -> float:
        """Of McNemar's mid-p test."""
        return mcnemar_mid(self.gained, self.lost)


def _share(right: int, n: int) -> MeanInterval:
    return MeanInterval(n, right / n, *wilson_interval(right, n)) if n else MeanInterval(0, None, None, None)


def mcnemar(gained: int, lost: int) -> float:
    """The two-sided p of McNemar's test (1947, doi 10.1007/BF02295996) by the exact binomial distribution.

    Questions that did not change say nothing. If a change is as likely to be for the better as for the worse, the
    smaller k of the two counts is from X ~ Binomial(gained + lost, 1/2): p = min(1, 2 P(X <= k)). 1 if nothing changed.
    Raises ValueError for a negative count.
    """
    below, at = _tail(gained, lost)
    return min(1.0, 2 * (below + at))


def mcnemar_mid(gained: int, lost: int) -> float:
    """The two-sided mid-p of McNemar's test, 2 P(X < k) + P(X = k) with `mcnemar`'s X and k.

    The exact test errs less often than it may, since counts are whole; this one comes closer to its word and sees more,
    at the price of erring a little too often in rare cases (Fagerland, Lydersen and Laake 2013,
    doi 10.1186/1471-2288-13-91). Raises ValueError for a negative count.
    """
    below, at = _tail(gained, lost)
    return min(1.0, 2 * below + at)


def _tail(gained: int, lost: int) -> tuple[float, float]:
    """P(X < k) and P(X = k)."""
    if min(gained, lost) < 0:
        raise ValueError(f"counts of changed answers are not negative, got {gained} and {lost}")
    from scipy.special import bdtr, gammaln

    n, k = gained + lost, min(gained, lost)
    log_ways = float(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1))
    return float(bdtr(k - 1, n, 0.5)) if k else 0.0, math.exp(log_ways - n * math.log(2))


def paired_difference_interval(gained: int, lost: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The score interval of the difference of two paired proportions (Tango 1998,
    doi 10.1002/(SICI)1097-0258(19980430)17:8<891::AID-SIM780>3.0.CO;2-B).

    All d with |gained - lost - n d| <= z sqrt(n (2 q + d - d^2)). There q is the likeliest probability of a loss if the
    difference is d: the larger root of 2 n q^2 - (gained + lost - d (2 n - gained + lost)) q - lost d (1 - d) = 0.
    At d = 0 this is McNemar's test without continuity correction, so that test and interval go together. Like
    Wilson's it stays within -1 and 1 and is not empty where nothing changed.

    Raises ValueError unless 0 <= gained, 0 <= lost and gained + lost <= n, n > 0.
    """
    if min(gained, lost) < 0 or gained + lost > n or n == 0:
        raise ValueError(f"{gained} and {lost} changed answers of {n} are not possible")
    from scipy.special import ndtri

    z = float(ndtri((1 + confidence) / 2))

    def too_far(d: float) -> bool:
        linear = gained + lost - d * (2 * n - gained + lost)
        q = (linear + math.sqrt(max(0.0, linear * linear + 8 * n * lost * d * (1 - d)))) / (4 * n)
        return (gained - lost - n * d) ** 2 > z * z * n * max(0.0, 2 * q + d - d * d)

    observed = (gained - lost) / n
    return farthest(too_far, observed, -1.0), farthest(too_far, observed, 1.0)
