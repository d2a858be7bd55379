"""When configurations learnt their training set and when they generalised: the L / A / t_f / delta-t table.

For any study whose metrics have loss and accuracy under `train/` and `validation/`. Every number is found per run
first and is then a mean and standard deviation over runs: a time taken from the mean curve would have no spread, and
one run that never generalises would spoil it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rung.results.export import spread_text
from rung.results.schema import Phase
from rung.results.statistics import Mode, Spread, best, first_step_reaching, spread
from rung.results.views import quote

if TYPE_CHECKING:
    from rung.results.query import StudyResults

_SPLITS = ("train", "validation")
_MEASURES: tuple[tuple[str, str, Mode], ...] = (("L", "loss", "min"), ("A", "accuracy", "max"))
"""Letter, metric and which end is best."""
_SERIES = tuple(f"{split}/{metric}" for _, metric, _ in _MEASURES for split in _SPLITS)


@dataclass(frozen=True, slots=True)
class ThresholdTime:
    """When runs reached a threshold: the spread is over the `reached` of `n` runs; the others are censored."""

    reached: int
    n: int
    step: Spread

    @property
    def text(self) -> str:
        """ "5650 ± 150", or "5650 ± 150 (not reached 2/4)", or "not reached 4/4"."""
        if self.reached == self.n:
            return spread_text(self.step)
        censored = f"not reached {self.n - self.reached}/{self.n}"
        return f"{spread_text(self.step)} ({censored})" if self.reached else censored


@dataclass(frozen=True, slots=True)
class GrokkingRow:
    """Best loss L and accuracy A of a configuration, the steps t_f that first reach them, and threshold times.

    Everything is found per run first and is then a mean and standard deviation over runs.
    """

    config_id: str
    label: str
    n: int
    """Runs with reports."""
    steps: int
    """Steps of the run that got furthest: no time can be larger, and t_f near it means "still improving"."""
    spreads: Mapping[str, Spread]
    """Of L_<split>, A_<split>, t_f(L)_<split>, t_f(A)_<split>, delta_t(L) and delta_t(A); the last two are
    t_f(validation) - t_f(train) of the same run.
    """
    thresholds: Mapping[float, ThresholdTime]
    """When validation accuracy reached a threshold."""

    def as_row(self) -> dict[str, object]:
        """Every number: `<name>` is a mean, `<name>_std` its standard deviation over the runs."""
        row: dict[str, object] = {
            "config_id": self.config_id,
            "label": self.label,
            "n": self.n,
            "steps": self.steps,
        }
        for name, over_runs in self.spreads.items():
            row |= {name: over_runs.mean, f"{name}_std": over_runs.std}
        for threshold, time in self.thresholds.items():
            name = f"t_{threshold:g}"
            row |= {name: time.step.mean, f"{name}_std": time.step.std, f"{name}_reached": time.reached}
        return row

    def as_text(self) -> dict[str, str]:
        """Means ± standard deviations, and how many runs did not reach a threshold."""
        texts = {"configuration": self.label, "n": str(self.n)}
        texts |= {_heading(name): spread_text(over_runs) for name, over_runs in self.spreads.items()}
        return texts | {f"t(A ≥ {threshold:g})": time.text for threshold, time in self.thresholds.items()}


def grokking_table(
    results: "StudyResults", thresholds: Sequence[float] = (0.9, 0.95, 0.99), phase: Phase = "search"
) -> list[GrokkingRow]:
    """When each configuration learnt its training set and when it generalised, in the order of the plan.

    For any study whose metrics have loss and accuracy under `train/` and `validation/`; empty for others. Runs that
    diverged, failed or were stopped count as far as they went.
    """
    metrics = results.metrics
    if not set(_SERIES) <= set(metrics.columns):
        return []
    columns = ", ".join(map(quote, ("config_id", "run_id", "step", *_SERIES)))
    reports = metrics.filter(f"phase = '{phase}'").order("run_id, step").select(columns).fetchnumpy()
    runs = _split_runs(reports)
    labels = results.configurations.order("plan_index").select("config_id, label").fetchall()
    return [
        _grokking_row(config_id, label, runs[config_id], thresholds) for config_id, label in labels if config_id in runs
    ]


def _split_runs(reports: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Reports sorted by run as arrays per run, listed by configuration; missing values become NaN."""
    series = {name: np.ma.filled(reports[name].astype(np.float64), np.nan) for name in _SERIES}
    starts = np.flatnonzero(reports["run_id"][1:] != reports["run_id"][:-1]) + 1
    runs: dict[str, list[dict[str, Any]]] = {}
    for rows in np.split(np.arange(len(reports["step"])), starts):
        if len(rows):
            run = {"step": reports["step"][rows], **{name: values[rows] for name, values in series.items()}}
            runs.setdefault(reports["config_id"][rows[0]], []).append(run)
    return runs


def _grokking_row(
    config_id: str, label: str, runs: Sequence[Mapping[str, Any]], thresholds: Sequence[float]
) -> GrokkingRow:
    found = [_best_and_when(run) for run in runs]
    return GrokkingRow(
        config_id=config_id,
        label=label,
        n=len(runs),
        steps=max(int(run["step"][-1]) for run in runs),
        spreads={name: spread([one[name] for one in found]) for name in found[0]},
        thresholds={threshold: _threshold_time(runs, threshold) for threshold in thresholds},
    )


def _best_and_when(run: Mapping[str, Any]) -> dict[str, float | None]:
    """L, A, t_f and the delays of one run; None for what it has no values of."""
    bests: dict[str, float | None] = {}
    times: dict[str, float | None] = {}
    for letter, metric, mode in _MEASURES:
        for split in _SPLITS:
            value, step = best(run["step"], run[f"{split}/{metric}"], mode) or (None, None)
            bests[f"{letter}_{split}"], times[f"t_f({letter})_{split}"] = value, step
        learnt, generalised = times[f"t_f({letter})_train"], times[f"t_f({letter})_validation"]
        times[f"delta_t({letter})"] = _difference(generalised, learnt)
    return bests | times


def _difference(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other


def _threshold_time(runs: Sequence[Mapping[str, Any]], threshold: float) -> ThresholdTime:
    steps = [first_step_reaching(run["step"], run["validation/accuracy"], threshold, "max") for run in runs]
    over_runs = spread(steps)
    return ThresholdTime(reached=over_runs.n, n=len(runs), step=over_runs)


def _heading(name: str) -> str:
    """The name of a number as a heading: `t_f(A)_validation` becomes "t_f(A) validation", `delta_t` "Δt"."""
    return name.replace("_train", " train").replace("_validation", " validation").replace("delta_t", "Δt")
