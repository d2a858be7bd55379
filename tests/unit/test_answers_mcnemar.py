"""McNemar's tests and the interval of the difference: published numbers, brute force, and each other."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import norm

from rung.results.mcnemar import PairedAnswers, mcnemar, mcnemar_mid, paired_difference_interval

Z = float(norm.ppf(0.975))


def test_a_published_example() -> None:
    """Airway hyper-responsiveness before and after stem cell transplantation, in Fagerland, Lydersen and Laake 2013
    (doi 10.1186/1471-2288-13-91): 1, 1, 7 and 12 of 21 pairs."""
    counts = PairedAnswers(both_right=1, gained=1, lost=7, both_wrong=12)
    assert counts.n == 21
    assert counts.p == pytest.approx(0.0703, abs=5e-5)
    assert counts.mid_p == pytest.approx(0.0391, abs=5e-5)
    assert counts.difference.mean == pytest.approx(-6 / 21)
    assert counts.difference.low == pytest.approx(-0.517, abs=5e-4)
    assert counts.difference.high == pytest.approx(-0.026, abs=5e-4)
    assert counts.before.mean == pytest.approx(8 / 21)
    assert counts.after.mean == pytest.approx(2 / 21)


@pytest.mark.parametrize("changed", range(13))
def test_p_values_are_those_of_all_outcomes_counted(changed: int) -> None:
    ways = [math.comb(changed, k) for k in range(changed + 1)]
    for gained in range(changed + 1):
        k = min(gained, changed - gained)
        below, at = Fraction(sum(ways[:k]), 2**changed), Fraction(ways[k], 2**changed)
        assert mcnemar(gained, changed - gained) == pytest.approx(float(min(Fraction(1), 2 * (below + at))))
        assert mcnemar_mid(gained, changed - gained) == pytest.approx(float(2 * below + at))


def test_many_changes_in_one_direction_leave_a_p_that_is_small_and_not_wrong() -> None:
    assert mcnemar(775, 3) == pytest.approx(2 * sum(math.comb(778, k) for k in range(4)) / 2**778, rel=1e-9)
    assert mcnemar(0, 3000) == 0.0  # 2 ** -2999 is below the smallest double


def test_nothing_that_cannot_be_is_counted() -> None:
    with pytest.raises(ValueError, match="not negative, got -1 and 2"):
        mcnemar(-1, 2)
    for counts in ((3, 3, 5), (-1, 0, 5), (0, 0, 0)):
        with pytest.raises(ValueError, match="are not possible"):
            paired_difference_interval(*counts)


def _score(gained: int, lost: int, n: int, d: float) -> float:
    """The score statistic at a difference, its nuisance parameter found by maximising the likelihood numerically."""

    def surprise(q: float) -> float:
        terms = ((gained, q + d), (lost, q), (n - gained - lost, 1 - 2 * q - d))
        return -sum(count * math.log(max(p, 1e-300)) for count, p in terms if count)

    q = minimize_scalar(surprise, bounds=(max(0.0, -d), (1 - d) / 2), method="bounded", options={"xatol": 1e-12}).x
    return float((gained - lost - n * d) / math.sqrt(n * (2 * q + d - d * d)))


@pytest.mark.parametrize(
    ("gained", "lost", "n"), [(15, 2, 1000), (1, 14, 1000), (7, 1, 21), (151, 3, 200), (40, 30, 100)]
)
def test_at_the_ends_of_the_interval_the_score_is_the_quantile(gained: int, lost: int, n: int) -> None:
    low, high = paired_difference_interval(gained, lost, n)
    assert _score(gained, lost, n, low) == pytest.approx(Z, abs=1e-4)
    assert _score(gained, lost, n, high) == pytest.approx(-Z, abs=1e-4)


COUNTS = st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(0, 200)).filter(sum)


@given(COUNTS)
def test_interval_holds_the_difference_and_goes_with_the_test(counts: tuple[int, int, int]) -> None:
    gained, lost, _ = counts
    n = sum(counts)
    low, high = paired_difference_interval(gained, lost, n)
    assert -1 <= low <= (gained - lost) / n <= high <= 1
    assert low < high
    assert paired_difference_interval(lost, gained, n) == (pytest.approx(-high), pytest.approx(-low))
    statistic = (gained - lost) ** 2 - Z * Z * (gained + lost)  # of McNemar's asymptotic test, times gained + lost
    if abs(statistic) > 1e-9:
        assert (low > 0 or high < 0) == (statistic > 0)


def test_nothing_changed_is_not_certainty() -> None:
    low, high = paired_difference_interval(0, 0, 20)
    assert high == pytest.approx(Z**2 / (20 + Z**2))
    assert low == pytest.approx(-high)


def test_interval_covers_what_it_says() -> None:
    """A rough look; tests/benchmarks/paired_answers.py measures it."""
    generator = np.random.default_rng(0)
    draws = generator.multinomial(100, [0.12, 0.05, 0.83], size=500)
    ends = {tuple(each): paired_difference_interval(*each[:2], 100) for each in map(tuple, draws.tolist())}
    inside = np.mean([ends[tuple(each)][0] <= 0.07 <= ends[tuple(each)][1] for each in draws.tolist()])
    assert 0.92 < inside < 0.98


def test_no_questions_no_numbers() -> None:
    nothing = PairedAnswers(0, 0, 0, 0)
    assert (nothing.n, nothing.p, nothing.before.mean, nothing.difference.mean) == (0, 1.0, None, None)
