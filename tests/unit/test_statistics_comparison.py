"""Tests of differences, effect sizes and bootstrap: against scipy.stats, published numbers and hand calculation."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from rung.results.robust import (
    bootstrap_interval,
    interquartile_mean,
    interquartile_means,
    probability_of_improvement,
)
from rung.results.significance import (
    fewest_pairs,
    holm,
    paired_differences,
    paired_interval,
    paired_power,
    seeds_needed,
    sign_flip_test,
)
from rung.results.statistics import MeanInterval, mean_interval
from tests.benchmarks.coverage import SIZES, coverage

NAN = float("nan")
numbers = st.floats(-100, 100).map(lambda value: round(value, 3))


# ------------------------------------------------------------------------------------- paired differences


def test_the_paired_interval_is_scipys() -> None:
    generator = np.random.default_rng(0)
    a, b = generator.normal(1, 1, 7), generator.normal(0, 1, 7)
    expected = scipy.stats.ttest_rel(a, b).confidence_interval()
    found = paired_interval(a, b)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-12)


def test_student_s_sleep_data() -> None:
    # Student 1908 (Biometrika 6, 1-25), illustration I: additional hours of sleep by the two drugs; R's t.test of them
    # gives a mean difference of -1.58 with the interval [-2.4598858, -0.7001142].
    first = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    second = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    found = paired_interval(first, second)
    assert (found.mean, found.low, found.high) == pytest.approx((-1.58, -2.4598858, -0.7001142), abs=1e-7)


def test_a_missing_value_takes_its_pair_with_it() -> None:
    assert list(paired_differences([1.0, None, 3.0, 4.0], [0.5, 1.0, NAN, 2.0])) == [0.5, 2.0]
    assert paired_interval([1.0, None], [0.5, 1.0]) == MeanInterval(1, 0.5, None, None)
    with pytest.raises(ValueError, match="got 2 and 1"):
        paired_differences([1.0, 2.0], [1.0])


# -------------------------------------------------------------------------------------------- sign flips


@pytest.mark.parametrize("n", [2, 3, 6, 9, 12])
@pytest.mark.parametrize("shift", [0.0, 0.7])
def test_the_exact_test_is_scipys(n: int, shift: float) -> None:
    differences = np.random.default_rng(n).normal(shift, 1, n)
    expected = scipy.stats.permutation_test(
        (differences,), lambda x, axis: x.mean(axis), permutation_type="samples", vectorized=True, n_resamples=np.inf
    )
    # scipy doubles the smaller tail, which for this symmetric distribution is the same.
    assert sign_flip_test(differences).p == pytest.approx(min(1.0, expected.pvalue))


@given(st.lists(numbers, min_size=1, max_size=9))
def test_the_exact_test_counts_all_signs(differences: list[float]) -> None:
    whole = [round(value * 1000) for value in differences]  # in integers, where ties are ties
    sums = [
        abs(sum(s * x for s, x in zip(signs, whole, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(whole))
    ]
    found = sign_flip_test(differences)
    assert found.p == pytest.approx(np.mean([value >= abs(sum(whole)) for value in sums]))
    assert found.smallest == 2 / 2 ** len(differences)
    assert found.p >= found.smallest


def test_darwin_s_maize() -> None:
    # Fisher 1935, The Design of Experiments, section 21: Darwin's fifteen pairs of maize, in eighths of an inch. Of the
    # 32768 sums of signed differences 863 are at least as large as the 314 seen, so 2 * 863 in both directions.
    differences = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
    assert sum(differences) == 314
    assert sign_flip_test(differences).p == 2 * 863 / 32768


def test_equal_values_and_too_few_of_them() -> None:
    assert sign_flip_test([]).p == 1.0
    assert sign_flip_test([None, NAN]).n == 0
    assert sign_flip_test([3.0]).p == 1.0
    assert sign_flip_test([0.0, 0.0, 0.0]).p == 1.0
    assert sign_flip_test([0.1, 0.2, 0.3]).p == 0.25
    assert sign_flip_test([0.1, 0.1, 0.1, None]).p == 0.25  # sums that differ by rounding are ties
    assert sign_flip_test([0.0, 0.1, 0.2, 0.3]).p == 0.25  # an equal pair says nothing


def test_many_pairs_are_drawn_and_never_give_zero() -> None:
    differences = np.random.default_rng(0).normal(0.4, 1, 40)
    found = sign_flip_test(differences, np.random.default_rng(1))
    assert found.p == pytest.approx(scipy.stats.ttest_1samp(differences, 0).pvalue, abs=0.005)
    assert found == sign_flip_test(differences, np.random.default_rng(1))
    certain = sign_flip_test(np.full(30, 1.0), np.random.default_rng(1), draws=999)
    assert certain.p == certain.smallest == 0.001
    with pytest.raises(ValueError, match="takes a generator"):
        sign_flip_test(differences)


def test_the_drawn_test_is_the_exact_one_but_for_luck(monkeypatch: pytest.MonkeyPatch) -> None:
    differences = np.random.default_rng(3).normal(0.5, 1, 14)
    exact = sign_flip_test(differences).p
    monkeypatch.setattr("rung.results.significance.EXACT_PAIRS", 10)
    assert sign_flip_test(differences, np.random.default_rng(0)).p == pytest.approx(exact, abs=0.003)


# -------------------------------------------------------------------------------------------------- Holm


def test_holm_on_a_worked_example() -> None:
    # By hand: 0.01 x 4, 0.02 x 3, then 0.03 x 2 and 0.04 x 1, which may not fall below what came before.
    assert holm([0.01, 0.04, 0.03, 0.02]) == pytest.approx([0.04, 0.06, 0.06, 0.06])
    assert holm([0.01, 0.02], tests=6) == pytest.approx([0.06, 0.1])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_between_nothing_and_bonferroni(p_values: list[float]) -> None:
    found = holm(p_values)
    for p, adjusted in zip(p_values, found, strict=True):
        assert p <= adjusted <= min(1.0, p * len(p_values)) + 1e-12
    # The definition: the i-th smallest counts m - i + 1 times, and the largest of those up to it is taken.
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    running = 0.0
    for place, index in enumerate(order):
        running = max(running, min(1.0, p_values[index] * (len(p_values) - place)))
        assert found[index] == pytest.approx(running)


def test_holm_refuses_what_is_no_p_value() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([0.5, 1.5])
    with pytest.raises(ValueError, match="cannot come from 1 tests"):
        holm([0.5, 0.5], tests=1)


# ------------------------------------------------------------------------------------------ seeds needed


def with_effect(effect: float) -> list[float]:
    """Three differences whose mean is `effect` standard deviations."""
    return [effect - 1, effect, effect + 1]


@pytest.mark.parametrize(("effect", "n"), [(0.2, 199), (0.5, 34), (0.8, 15)])
def test_seeds_needed_are_those_of_the_published_tables(effect: float, n: int) -> None:
    # Cohen's small, medium and large effect, two-sided 5 %, power 80 %: G*Power 3 (Faul et al. 2007), paired t test.
    assert seeds_needed(with_effect(effect)) == seeds_needed(with_effect(-effect)) == n


@pytest.mark.parametrize(("effect", "n", "alpha"), [(0.5, 34, 0.05), (1.0, 5, 0.05), (0.0, 10, 0.05), (2.0, 3, 0.01)])
def test_power_is_that_of_the_noncentral_t(effect: float, n: int, alpha: float) -> None:
    critical = scipy.stats.t.ppf(1 - alpha / 2, n - 1)
    noncentral = scipy.stats.nct(n - 1, effect * math.sqrt(n))
    assert paired_power(effect, n, alpha) == pytest.approx(
        noncentral.sf(critical) + noncentral.cdf(-critical), abs=1e-9
    )


def test_the_number_of_seeds_is_the_smallest_that_has_the_power() -> None:
    for effect in (0.3, 0.9, 1.3):
        n = seeds_needed(with_effect(effect))
        assert n is not None
        assert paired_power(effect, n) >= 0.8 > paired_power(effect, n - 1)


def test_seeds_needed_where_it_is_clear_or_cannot_be_said() -> None:
    assert seeds_needed([5.0, 5.1, 4.9]) == fewest_pairs() == 6  # fewer cannot reach 0.05 by sign flips
    assert seeds_needed([1.0, 1.0]) == 6
    assert seeds_needed([1.0, 1.0], alpha=0.05 / 15) == 10
    assert seeds_needed([1.0]) is None
    assert seeds_needed([-1.0, 1.0]) is None
    assert seeds_needed(with_effect(0.001)) is None
    assert seeds_needed([1.0, None, 3.0, NAN, 2.0]) == seeds_needed([1.0, 3.0, 2.0])
    with pytest.raises(ValueError, match="power lies between"):
        seeds_needed([1.0, 2.0], power=1.0)


def test_the_fewest_pairs_are_those_whose_smallest_p_reaches_alpha() -> None:
    for alpha in (0.05, 0.5, 0.01, 0.05 / 45, 1 / 1024):
        n = fewest_pairs(alpha)
        assert 2.0 ** (1 - n) <= alpha < 2.0 ** (2 - n)


# ------------------------------------------------------------------------------------ interquartile mean


@pytest.mark.parametrize("n", [3, 4, 7, 8, 20, 21])
def test_the_interquartile_mean_is_scipys_trimmed_mean(n: int) -> None:
    values = np.random.default_rng(n).lognormal(size=n)
    expected = scipy.stats.trim_mean(values, 0.25)
    assert interquartile_mean(values).mean == pytest.approx(expected)
    assert interquartile_means(np.stack([values, values[::-1] + 1])) == pytest.approx([expected, expected + 1])


@pytest.mark.parametrize("n", [4, 5, 8, 11, 20])
def test_its_interval_is_that_of_yuens_test(n: int) -> None:
    values = np.random.default_rng(n).lognormal(size=n)
    found = interquartile_mean(values)
    # scipy has Yuen's test for two samples; one that does not vary leaves the statistic of the other alone.
    expected = scipy.stats.ttest_ind(values, np.zeros(n), equal_var=False, trim=0.25)
    assert found.mean is not None
    assert found.high is not None
    quantile = scipy.stats.t.ppf(0.975, expected.df)
    assert (found.high - found.mean) / quantile == pytest.approx(found.mean / expected.statistic)
    assert expected.df == pytest.approx(n - 2 * (n // 4) - 1)


def test_few_values_are_not_trimmed() -> None:
    assert interquartile_mean([1.0, 2.0, 6.0]) == mean_interval([1.0, 2.0, 6.0])
    assert interquartile_mean([1.0, None]) == MeanInterval(1, 1.0, None, None)
    assert interquartile_mean([]).mean is None
    outlier = interquartile_mean([1.0, 1.1, 0.9, 1.0, 1e9])
    assert outlier.high is not None
    assert outlier.high < 2


# ---------------------------------------------------------------------------- probability of improvement


@pytest.mark.parametrize(("n", "m"), [(3, 3), (5, 8), (20, 20)])
def test_the_share_is_that_of_mann_and_whitney(n: int, m: int) -> None:
    generator = np.random.default_rng(n)
    a, b = generator.integers(0, 5, n).astype(float), generator.integers(0, 4, m).astype(float)  # with ties
    expected = scipy.stats.mannwhitneyu(a, b).statistic / (n * m)
    assert probability_of_improvement(a, b, "max").probability == pytest.approx(expected)
    assert probability_of_improvement(a, b, "min").probability == pytest.approx(1 - expected)


@pytest.mark.parametrize(("n", "m", "share"), [(3, 3, 1.0), (4, 3, 0.5), (8, 4, 0.75), (20, 20, 0.9)])
def test_the_interval_solves_newcombes_equation(n: int, m: int, share: float) -> None:
    """The borders are roots of a polynomial of degree 4: multiplied out and solved here in another way."""
    wins = round(share * n * m)
    a = np.full(n, wins // n, float)
    a[: wins % n] += 1  # run i of a beats the first a[i] runs of b
    found = probability_of_improvement(a, np.arange(m) + 0.5, "max")
    assert found.probability == pytest.approx(share)
    theta, h = np.polynomial.Polynomial([0, 1]), (n + m) / 2 - 1
    z = scipy.stats.norm.ppf(0.975)
    below, above = 2 - theta, 1 + theta
    spread = theta * (1 - theta) * (below * above + h * (1 - theta) * above + h * theta * below)
    roots = ((theta - share) ** 2 * below * above - z**2 / (n * m) * spread).roots()
    real = sorted(root.real for root in roots if abs(root.imag) < 1e-9 and -1e-9 <= root.real <= 1 + 1e-9)
    assert (found.low, found.high) == pytest.approx((real[0], real[-1]), abs=1e-6)


def test_the_interval_holds_at_the_ends_and_turns_with_the_sides() -> None:
    always = probability_of_improvement([1.0, 2.0, 3.0], [0.0, 0.5, 0.7], "max")
    assert (always.probability, always.high) == (1.0, 1.0)
    assert always.low is not None
    assert 0.4 < always.low < 0.6
    never = probability_of_improvement([0.0, 0.5, 0.7], [1.0, 2.0, 3.0], "max")
    assert (never.probability, never.low) == (0.0, 0.0)
    assert never.high == pytest.approx(1 - always.low)
    ties = probability_of_improvement([1.0, 1.0], [1.0, 1.0], "max")
    assert ties.probability == 0.5
    assert ties.low == pytest.approx(1 - (ties.high or 0))


def test_a_diverged_run_loses_to_any_number_and_a_missing_one_counts_nothing() -> None:
    found = probability_of_improvement([0.1, -math.inf], [0.0, -math.inf, None], "max")
    assert found.n == (2, 2)
    assert found.probability == (1 + 1 + 0 + 0.5) / 4
    assert probability_of_improvement([0.1, math.inf], [0.2], "min").probability == 0.5
    assert probability_of_improvement([None], [0.2], "min").probability is None


# --------------------------------------------------------------------------------------------- bootstrap


def means(samples: np.ndarray) -> np.ndarray:
    return samples.mean(axis=-1)


def test_the_bootstrap_interval_is_scipys() -> None:
    values = np.random.default_rng(0).lognormal(size=30)
    found = bootstrap_interval(values, means, np.random.default_rng(1), resamples=20_000)
    expected = scipy.stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(2)
    ).confidence_interval
    assert found == pytest.approx((expected.low, expected.high), rel=0.02)
    assert found == bootstrap_interval(values, means, np.random.default_rng(1), resamples=20_000)


def test_rows_are_drawn_together() -> None:
    pairs = np.random.default_rng(0).normal(size=(2, 25))
    pairs[1] = pairs[0] - 1

    def difference(samples: np.ndarray) -> np.ndarray:
        return samples[0].mean(axis=-1) - samples[1].mean(axis=-1)

    assert bootstrap_interval(pairs, difference, np.random.default_rng(0), resamples=99) == pytest.approx((1.0, 1.0))


def test_a_bootstrap_of_few_values_is_refused() -> None:
    with pytest.raises(ValueError, match="takes 20"):
        bootstrap_interval(np.arange(19.0), means, np.random.default_rng(0))


# --------------------------------------------------------------------------------------- the coverage study


def test_the_coverage_study_has_the_formulas_of_the_package() -> None:
    """It raises if its formulas for arrays give anything else than the functions that rung prints with."""
    covered = coverage(np.random.default_rng(0), 200)
    for n in SIZES:
        assert covered["mean, Student-t", "normal", n] == pytest.approx(0.95, abs=0.06)  # 4 standard errors
        assert covered["mean, Student-t", "failing", 3] < 0.65
