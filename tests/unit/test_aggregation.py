"""One number for a configuration: hand-worked cases of every policy."""

from __future__ import annotations

from typing import Any

import pytest

from rung.results.aggregation import Aggregation

MAX = Aggregation("max", worst_value=0.0)


def rows(*values: float | str | None) -> list[dict[str, Any]]:
    """A number is a completed run's value; a word is a status without one."""
    return [
        {"value": None, "status": value} if isinstance(value, str) else {"value": value, "status": "completed"}
        for value in values
    ]


@pytest.mark.parametrize(
    ("rule", "mode", "expected"),
    [
        ("mean", "max", 0.5),
        ("median", "max", 0.4),
        ("worst", "max", 0.2),
        ("best", "max", 0.9),
        ("worst", "min", 0.9),
        ("best", "min", 0.2),
    ],
)
def test_rules(rule: Any, mode: Any, expected: float) -> None:
    assert Aggregation(mode, rule).value(rows(0.2, 0.4, 0.9)) == pytest.approx(expected)


def test_a_diverged_run_counts_as_the_worst_value_there_is() -> None:
    assert MAX.value(rows(0.9, 0.9, "diverged")) == pytest.approx(0.6)


def test_without_a_worst_value_one_diverged_run_is_worse_than_any_number() -> None:
    assert Aggregation("min").value(rows(0.1, 0.1, "diverged")) is None


def test_diverged_runs_can_be_declared_to_be_ignored() -> None:
    assert Aggregation("max", diverged="ignore", worst_value=0.0).value(rows(0.9, "diverged")) == 0.9


def test_a_failed_run_is_left_out_while_most_are_there() -> None:
    assert MAX.value(rows(0.4, 0.6, "failed")) == 0.5


@pytest.mark.parametrize("values", [(0.9, "failed"), (0.9, "failed", "failed"), ("failed",), ()])
def test_a_lucky_survivor_of_failures_is_not_judged(values: tuple[Any, ...]) -> None:
    assert MAX.value(rows(*values)) is None


def test_the_margin_is_half_the_width_of_the_t_interval() -> None:
    """t(0.95, 2 degrees) = 2.920 (any table), s = 0.1, n = 3."""
    assert MAX.margin(rows(0.4, 0.5, 0.6), 0.9) == pytest.approx(2.920 * 0.1 / 3**0.5, rel=1e-3)
    assert MAX.margin(rows(0.5, 0.5), 0.9) == 0.0


def test_the_margin_is_that_of_the_values_that_count() -> None:
    assert MAX.margin(rows(0.4, 0.6, "failed"), 0.9) == MAX.margin(rows(0.4, 0.6), 0.9)
    assert MAX.margin(rows(0.4, 0.6, "diverged"), 0.9) == MAX.margin(rows(0.4, 0.6, 0.0), 0.9)


@pytest.mark.parametrize(
    ("aggregation", "values", "confidence"),
    [
        (MAX, (0.4,), 0.9),
        (MAX, (0.4, "failed"), 0.9),
        (MAX, (0.4, 0.6), None),
        (Aggregation("max", "median"), (0.4, 0.6), 0.9),
        (Aggregation("min"), (0.4, 0.6, "diverged"), 0.9),
    ],
)
def test_no_margin_is_known(aggregation: Aggregation, values: tuple[Any, ...], confidence: float | None) -> None:
    assert aggregation.margin(rows(*values), confidence) is None
