"""Statistics against scipy.stats, against published values and against what they promise."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from rung.results.statistics import (
    DifferenceInterval,
    MeanInterval,
    Spread,
    aggregate,
    best,
    first_step_reaching,
    mean_interval,
    spread,
    welch_interval,
    wilson_interval,
)

NAN = float("nan")
numbers = st.floats(-1e6, 1e6)


# ---------------------------------------------------------------------------------------------- means


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.99])
@pytest.mark.parametrize("values", [[0.1, 0.5], [3.0, 1.0, 2.0], list(range(30))])
def test_the_interval_of_a_mean_is_scipys(values: list[float], confidence: float) -> None:
    found = mean_interval(values, confidence)
    low, high = scipy.stats.t.interval(confidence, len(values) - 1, loc=np.mean(values), scale=scipy.stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-12)
    assert found.mean == pytest.approx(np.mean(values), rel=1e-15)
    assert found.n == len(values)


def test_the_interval_of_a_mean_uses_the_published_quantiles() -> None:
    # Student's t table, two-sided 95 %: 12.706 for 1 degree of freedom, 4.303 for 2, 2.776 for 4.
    for values, quantile in (([-1.0, 1.0], 12.706), ([-1.0, 0.0, 1.0], 4.303), ([-2.0, -1.0, 0.0, 1.0, 2.0], 2.776)):
        half = quantile * np.std(values, ddof=1) / math.sqrt(len(values))
        assert mean_interval(values).high == pytest.approx(half, rel=2e-4)


def test_the_interval_of_three_seeds_covers_the_truth_as_often_as_it_says() -> None:
    values = np.random.default_rng(0).normal(5.0, 2.0, size=(4000, 3))
    intervals = [mean_interval(row) for row in values]
    covered = [low <= 5.0 <= high for low, high in ((i.low, i.high) for i in intervals) if low and high]
    assert len(covered) == 4000
    assert np.mean(covered) == pytest.approx(0.95, abs=0.012)  # 3.5 standard errors


def test_without_a_second_value_there_is_no_interval() -> None:
    assert mean_interval([0.5]) == MeanInterval(n=1, mean=0.5, low=None, high=None)
    assert mean_interval([]) == MeanInterval(n=0, mean=None, low=None, high=None)
    assert spread([0.5]) == Spread(n=1, mean=0.5, std=None)
    assert spread([None, NAN]) == Spread(n=0, mean=None, std=None)


def test_missing_values_are_left_out_and_show_in_n() -> None:
    assert mean_interval([1.0, None, 3.0, NAN]) == mean_interval([1.0, 3.0])
    assert spread(np.array([1.0, NAN, 3.0])) == Spread(n=2, mean=2.0, std=math.sqrt(2.0))


@given(st.lists(numbers, min_size=2, max_size=20), st.floats(0.01, 0.99))
def test_an_interval_holds_its_mean_and_grows_with_confidence(values: list[float], confidence: float) -> None:
    narrow, wide = mean_interval(values, confidence), mean_interval(values, (1 + confidence) / 2)
    assert narrow.low is not None
    assert narrow.high is not None
    assert wide.low is not None
    assert wide.high is not None
    assert narrow.mean is not None
    assert wide.low <= narrow.low <= narrow.mean <= narrow.high <= wide.high


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0])
def test_an_impossible_confidence_is_refused(confidence: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        mean_interval([1.0, 2.0], confidence)
    with pytest.raises(ValueError, match="between 0 and 1"):
        wilson_interval(1, 2, confidence)


# ---------------------------------------------------------------------------------------------- rates


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    # Newcombe 1998 (Statistics in Medicine 17, 857-872), table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_intervals_are_the_published_ones(successes: int, n: int, low: float, high: float) -> None:
    assert wilson_interval(successes, n) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.5, 0.999))
def test_wilson_intervals_are_scipys(counts: tuple[int, int], confidence: float) -> None:
    expected = scipy.stats.binomtest(*counts).proportion_ci(confidence, method="wilson")
    found = wilson_interval(*counts, confidence)
    assert found == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= found[0] <= counts[0] / counts[1] <= found[1] <= 1


@pytest.mark.parametrize(("successes", "n"), [(1, 0), (0, 0), (3, 2), (-1, 2)])
def test_impossible_counts_are_refused(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="not possible"):
        wilson_interval(successes, n)


# ------------------------------------------------------------------------------------------- aggregates


def test_aggregates_across_seeds() -> None:
    values = [0.2, 0.9, None, 0.4]
    assert aggregate(values, "mean", "max") == pytest.approx(0.5)
    assert aggregate(values, "median", "max") == 0.4
    assert aggregate(values, "worst", "max") == aggregate(values, "best", "min") == 0.2
    assert aggregate(values, "best", "max") == aggregate(values, "worst", "min") == 0.9
    assert aggregate([None], "mean", "max") is None
    with pytest.raises(ValueError, match="mean, median, worst or best"):
        aggregate(values, "mode", "max")  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------- one run


def test_the_best_value_is_found_with_its_first_step() -> None:
    steps, values = [0, 10, 20, 30], [0.1, 0.9, 0.5, 0.9]
    assert best(steps, values, "max") == (0.9, 10)
    assert best(steps, values, "min") == (0.1, 0)
    assert best([30, 10, 20], [0.9, 0.9, 0.1], "max") == (0.9, 10)  # by step, whatever the order
    assert best(steps, [None, NAN, 0.2, None], "max") == (0.2, 20)
    assert best(steps, [None] * 4, "max") is None
    assert best([], [], "min") is None


def test_the_first_step_that_reaches_a_threshold() -> None:
    steps, accuracies = [0, 10, 20, 30], [0.1, 0.95, 0.5, 0.99]
    assert first_step_reaching(steps, accuracies, 0.95, "max") == 10
    assert first_step_reaching(steps, accuracies, 0.96, "max") == 30
    assert first_step_reaching(steps, [2.0, 1.0, 0.5, 0.7], 0.7, "min") == 20
    assert first_step_reaching([30, 20], [0.9, 0.9], 0.9, "max") == 20


def test_a_threshold_that_was_not_reached_is_censored() -> None:
    assert first_step_reaching([0, 10], [0.1, 0.2], 0.9, "max") is None
    assert first_step_reaching([0, 10], [NAN, None], 0.0, "min") is None
    assert first_step_reaching([], [], 0.9, "max") is None


@given(st.lists(st.one_of(st.none(), numbers), max_size=20), st.sampled_from(["min", "max"]))
def test_the_best_value_is_the_hardest_threshold_that_is_reached(values: list[float | None], mode: str) -> None:
    steps = list(range(0, 100 * len(values), 100))
    found = best(steps, values, mode)  # type: ignore[arg-type]
    if found is None:
        assert all(value is None for value in values)
        return
    value, step = found
    harder = np.nextafter(value, math.inf if mode == "max" else -math.inf)
    assert first_step_reaching(steps, values, value, mode) == step  # type: ignore[arg-type]
    assert first_step_reaching(steps, values, harder, mode) is None  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------- independent samples


@pytest.mark.parametrize(("n", "m", "spread_of_b"), [(2, 2, 1.0), (3, 16, 3.0), (16, 3, 0.01), (8, 5, 1.0)])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_the_interval_of_independent_means_is_scipys(n: int, m: int, spread_of_b: float, confidence: float) -> None:
    generator = np.random.default_rng(n)
    a, b = generator.normal(1.0, 1.0, n), generator.normal(0.0, spread_of_b, m)
    expected = scipy.stats.ttest_ind(a, b, equal_var=False)
    found = welch_interval(a, b, confidence)
    assert found.degrees == pytest.approx(expected.df, rel=1e-10)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval(confidence)), rel=1e-10)
    assert found.mean == pytest.approx(a.mean() - b.mean())
    assert found.n == (n, m)


def test_independent_means_without_spread_or_values() -> None:
    assert welch_interval([1.0, 1.0], [3.0, 3.0, 3.0]) == DifferenceInterval((2, 3), -2.0, -2.0, -2.0, 3.0)
    assert welch_interval([1.0], [3.0, 4.0]) == DifferenceInterval((1, 2), -2.5, None, None, None)
    assert welch_interval([None, NAN], [3.0, 4.0]) == DifferenceInterval((0, 2), None, None, None, None)
    one_sided = welch_interval([1.0, 1.0], [1.0, 2.0, None])
    assert one_sided.degrees == 1.0
    assert one_sided.n == (2, 2)


def test_tiny_spreads_do_not_underflow() -> None:
    found, larger = (welch_interval(np.array([1.0, 2.0]) * s, np.array([4.0, 2.0, 5.0]) * s) for s in (1e-150, 1.0))
    assert found.degrees == pytest.approx(larger.degrees)
