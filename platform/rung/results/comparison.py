"""What can be concluded about two configurations: paired differences, tests, effect size, and one plain sentence.

`compare.py` says which configurations are compared; docs/statistics.md says what every number means.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rung.results.conclusions import conclusion, improvement_text, p_text, place_text, without_number_text
from rung.results.export import interval_text
from rung.results.pairing import Pairing, Side, pair
from rung.results.robust import (
    FEWEST_FOR_BOOTSTRAP,
    Improvement,
    bootstrap_interval,
    interquartile_means,
    probability_of_improvement,
)
from rung.results.schema import Phase
from rung.results.significance import (
    ALPHA,
    SignFlipTest,
    holm,
    paired_differences,
    paired_interval,
    seeds_needed,
    sign_flip_test,
)
from rung.results.statistics import DifferenceInterval, MeanInterval, welch_interval

Verdict = Literal["better", "worse", "equal", "not told apart", "too few seeds", "diverged", "no pairs"]
Telling = Literal["told apart", "not told apart", "too few seeds"]
"""Whether a difference can be told from chance; with too few seeds no difference can."""
Difference = tuple[str, Any, Any]
"""Dotted path of the configuration, value of the first side, value of the second; None where there is none."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One configuration against another. Differences are first - second, in the metric's own units."""

    first: Side
    second: Side
    pairing: Pairing
    difference: MeanInterval
    """Mean over the pairs with its 95 % Student-t interval."""
    unpaired: DifferenceInterval
    """Of the means of all runs on either side, as if they were independent: Welch's interval."""
    test: SignFlipTest
    p_adjusted: float
    """Holm's, over `tests`."""
    tests: int
    """Comparisons that were made, or that choosing the first side amounts to."""
    improvement: Improvement
    """How likely a run of the first is to be better than one of the second; all runs on either side."""
    needed: int | None
    """Pairs that would tell, with 80 % power, if the difference is as observed."""

    @property
    def metric(self) -> str:
        return str(self.first.study["metric"]["name"])

    @property
    def lead(self) -> float | None:
        """How much better the first side is; negative if it is worse."""
        sign = 1 if self.first.study["metric"]["mode"] == "max" else -1
        return None if self.difference.mean is None else sign * self.difference.mean

    @property
    def differing(self) -> tuple[Difference, ...]:
        """The fields in which the resolved configurations differ."""
        one, other = self.first.config, self.second.config
        paths = dict.fromkeys([*one, *other])
        return tuple((path, one.get(path), other.get(path)) for path in paths if one.get(path) != other.get(path))

    @property
    def unbounded(self) -> tuple[int, int]:
        """Diverged runs on either side that count as worse than any number, so that no mean can hold them."""
        first, second = (
            sum(math.isinf(value) for value in side.values.values())
            for side in (self.pairing.first, self.pairing.second)
        )
        return first, second

    @property
    def verdict(self) -> Verdict:
        """What the first side is. `diverged`: its lead over the second is one of survivors only."""
        if self.difference.n == 0:
            return "no pairs"
        if self.difference.low == self.difference.high == 0:
            return "equal"
        lead = self.lead or 0.0
        if (self.unbounded[0] and lead >= 0) or (self.unbounded[1] and lead <= 0):
            return "diverged"
        telling = tells_apart(self.test, self.p_adjusted, self.tests)
        if telling != "told apart":
            return telling
        return "better" if lead > 0 else "worse"

    @property
    def interquartile(self) -> MeanInterval | None:
        """First minus second, of the means of the middle halves, with its 95 % bootstrap interval over pairs; from 20
        pairs on, else None."""
        return _interquartile(self.pairing)

    def as_row(self) -> dict[str, object]:
        """Every number in full precision; values by seed, and the differing fields as a mapping."""
        iqm = self.interquartile
        row: dict[str, object] = {
            "study": self.first.study_name,
            "config_id": self.first.config_id,
            "label": self.first.label,
            "other_study": self.second.study_name,
            "other_config_id": self.second.config_id,
            "other_label": self.second.label,
            "metric": self.metric,
            "mode": self.first.study["metric"]["mode"],
            "phase": self.pairing.phase,
            "unit": self.pairing.unit,
            "level": self.pairing.level,
            "n": self.difference.n,
            "difference": self.difference.mean,
            "low": self.difference.low,
            "high": self.difference.high,
            "p": self.test.p if self.test.n else None,
            "p_smallest": self.test.smallest if self.test.n else None,
            "p_adjusted": self.p_adjusted if self.test.n else None,
            "tests": self.tests,
            "improvement": self.improvement.probability,
            "improvement_low": self.improvement.low,
            "improvement_high": self.improvement.high,
            "iqm_difference": iqm and iqm.mean,
            "iqm_low": iqm and iqm.low,
            "iqm_high": iqm and iqm.high,
            "seeds_needed": self.needed,
            "verdict": self.verdict,
            "conclusion": conclusion(self),
            "seeds": list(self.pairing.seeds),
            "values": self.pairing.pairs[0],
            "other_values": self.pairing.pairs[1],
        }
        for name, side in (("", self.pairing.first), ("other_", self.pairing.second)):
            row |= {f"{name}{kind}": len(getattr(side, kind)) for kind in ("diverged", "failed", "missing")}
        return row | {"differing": {path: [one, other] for path, one, other in self.differing}}

    def as_text(self) -> dict[str, str]:
        """Both labels, n, difference with interval, p values, probability of improvement, where, verdict."""
        return {
            "configuration": self.first.label,
            "against": self.second.label,
            "n": str(self.difference.n),
            "difference [95 % interval]": interval_text(self.difference),
            "p": p_text(self.test.p) if self.test.n else "",
            "p (Holm)": p_text(self.p_adjusted) if self.test.n else "",
            "P(better)": improvement_text(self.improvement),
            "without a number": without_number_text(self.pairing.first),
            "against, without a number": without_number_text(self.pairing.second),
            "compared": f"{place_text(self)}, {self.pairing.phase}",
            "verdict": self.verdict,
        }


def compare_sides(first: Side, second: Side, phase: Phase | None = None) -> Comparison:
    """One configuration against another, as the only comparison that is made; see `pair` for what is compared.

    Raises RungError if the two cannot be compared.
    """
    pairing = pair(first, second, phase)
    one, other = pairing.first, pairing.second
    differences = paired_differences(*pairing.pairs)
    # Signs are drawn for more than 20 pairs only; from a fixed seed, so that the same tables give the same text.
    test = sign_flip_test(differences, np.random.default_rng(0))
    return Comparison(
        first=first,
        second=second,
        pairing=pairing,
        difference=paired_interval(*pairing.pairs),
        unpaired=welch_interval(list(one.finite.values()), list(other.finite.values())),
        test=test,
        p_adjusted=test.p,
        tests=1,
        improvement=probability_of_improvement(
            list(one.values.values()), list(other.values.values()), first.study["metric"]["mode"]
        ),
        needed=seeds_needed(differences, ALPHA),
    )


def tells_apart(test: SignFlipTest, p_adjusted: float, tests: int) -> Telling:
    """What may be claimed of a difference, anywhere in rung: by the permutation test, adjusted for `tests` tests."""
    if test.smallest * tests > ALPHA:
        return "too few seeds"
    return "told apart" if p_adjusted <= ALPHA else "not told apart"


def tests_of_best(count: int) -> int:
    """To how many tests comparing the best of `count` configurations amounts that it was picked from: all pairs."""
    return count * (count - 1) // 2


def adjusted(comparisons: Sequence[Comparison], tests: int | None = None) -> list[Comparison]:
    """The comparisons of one family with Holm's p values; `tests` where choosing amounts to more than were made."""
    many = len(comparisons) if tests is None else tests
    p_values = holm([comparison.test.p for comparison in comparisons], many)
    return [_adjusted(one, p, many) for one, p in zip(comparisons, p_values, strict=True)]


def _adjusted(comparison: Comparison, p: float, tests: int) -> Comparison:
    needed = seeds_needed(paired_differences(*comparison.pairing.pairs), ALPHA / tests)
    return replace(comparison, p_adjusted=p, tests=tests, needed=needed)


def _interquartile(pairing: Pairing) -> MeanInterval | None:
    pairs = np.array(pairing.pairs)
    n = pairs.shape[-1]
    if n < FEWEST_FOR_BOOTSTRAP:
        return None

    def difference(samples: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        middle: npt.NDArray[np.float64] = np.subtract(*interquartile_means(samples))
        return middle

    low, high = bootstrap_interval(pairs, difference, np.random.default_rng(0))
    return MeanInterval(n, float(difference(pairs)), low, high)
