"""Reports of runs as curves: read once, averaged over seeds, thinned to what a figure can show.

numpy only; nothing here draws.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rung.results.schema import METRICS
from rung.results.views import quote

if TYPE_CHECKING:
    from rung.results.query import StudyResults

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Curve:
    """One metric of one run: ascending optimizer steps and the values there, none missing."""

    steps: Array
    values: Array


@dataclass(frozen=True, slots=True)
class RunCurves:
    """The curves of one run by metric; a metric that it never reported is absent."""

    run_id: str
    config_id: str
    seed: int
    curves: Mapping[str, Curve]


@dataclass(frozen=True, slots=True)
class Band:
    """Mean over runs and its 95 % Student-t interval at every step that any run reported.

    `runs` counts the runs behind each mean; `low` and `high` are NaN where it is 1.
    """

    steps: Array
    runs: npt.NDArray[np.int64]
    mean: Array
    low: Array
    high: Array


def metric_names(results: "StudyResults") -> list[str]:
    """The metrics that any run has reported, in alphabetical order."""
    reserved = set(METRICS.column_names)
    return [name for name in results.metrics.columns if name not in reserved]


def load_curves(results: "StudyResults", metrics: Sequence[str], phase: str = "search") -> list[RunCurves]:
    """The curves of these metrics, ordered by configuration and seed; runs without a report are absent."""
    columns = ("config_id", "run_id", "seed", "step", *metrics)
    reports = (
        results.metrics.filter(f"phase = '{phase}'")
        .select(", ".join(map(quote, columns)))
        .order("config_id, seed, run_id, step")
        .fetchnumpy()
    )
    run_ids = np.asarray(reports["run_id"], dtype=object)
    if not len(run_ids):
        return []
    steps = np.asarray(reports["step"], np.float64)
    values = {name: np.ma.filled(np.ma.asarray(reports[name], np.float64), np.nan) for name in metrics}
    starts = np.flatnonzero(run_ids[1:] != run_ids[:-1]) + 1
    return [_run_curves(reports, steps, values, rows) for rows in np.split(np.arange(len(run_ids)), starts)]


def _run_curves(
    reports: Mapping[str, Any], steps: Array, values: Mapping[str, Array], rows: npt.NDArray[np.intp]
) -> RunCurves:
    curves = {}
    for name, column in values.items():
        known = rows[np.isfinite(column[rows])]
        if len(known):
            curves[name] = Curve(steps[known], column[known])
    first = rows[0]
    return RunCurves(
        str(reports["run_id"][first]), str(reports["config_id"][first]), int(reports["seed"][first]), curves
    )


def band(curves: Sequence[Curve], *, log: bool = False) -> Band:
    """Mean and 95 % interval over runs, step by step; with `log`, of the logarithms (a geometric mean).

    A run counts from its first to its last report; between two reports it is interpolated, which changes nothing
    where all runs report at the same steps. With `log`, values that are not positive are left out.
    """
    if log:
        curves = [_logarithm(curve) for curve in curves]
    curves = [curve for curve in curves if len(curve.steps)]
    if not curves:
        return Band(*(np.empty(0, kind) for kind in (np.float64, np.int64, *[np.float64] * 3)))
    steps = np.unique(np.concatenate([curve.steps for curve in curves]))
    table = np.full((len(curves), len(steps)), np.nan)
    for row, curve in zip(table, curves, strict=True):
        inside = slice(*np.searchsorted(steps, (curve.steps[0], curve.steps[-1])) + np.array([0, 1]))
        row[inside] = np.interp(steps[inside], curve.steps, curve.values)
    runs, mean, half = _mean_and_half_width(table)
    ends = (mean, mean - half, mean + half)
    return Band(steps, runs, *(np.exp(end) if log else end for end in ends))


def _mean_and_half_width(table: Array) -> tuple[npt.NDArray[np.int64], Array, Array]:
    """Per column of `table` (runs x steps), its NaN left out: how many, their mean, half the t interval."""
    from scipy.special import stdtrit

    runs = np.count_nonzero(~np.isnan(table), axis=0)
    mean = np.nansum(table, axis=0) / runs
    freedom = np.where(runs > 1, runs - 1, np.nan)
    with np.errstate(invalid="ignore"):
        variance = np.nansum((table - mean) ** 2, axis=0) / freedom
        half = stdtrit(freedom, 0.975) * np.sqrt(variance / runs)
    return runs, mean, half


def _logarithm(curve: Curve) -> Curve:
    positive = curve.values > 0
    return Curve(curve.steps[positive], np.log(curve.values[positive]))


def thin(x: Array, y: Array, points: int) -> npt.NDArray[np.intp]:
    """Indices of at most about `points` of the points (x ascending) that draw the same line.

    The lowest and the highest point of every stretch of x stay, so that no spike gets lost, and both ends do.
    """
    if len(x) <= points:
        return np.arange(len(x))
    stretches = max(1, points // 2)
    position = (x - x[0]) / (x[-1] - x[0])
    stretch = np.minimum((position * stretches).astype(np.int64), stretches - 1)
    by_height = np.lexsort((y, stretch))
    starts = np.flatnonzero(np.diff(stretch[by_height], prepend=-1))
    lowest, highest = by_height[starts], by_height[np.append(starts[1:], len(x)) - 1]
    return np.unique(np.concatenate([lowest, highest, [0, len(x) - 1]]))
