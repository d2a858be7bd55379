"""The tables of a study that a person reads: configurations over their seeds, and when they learnt and generalised.

Rows are small dataclasses, so that `rung results` needs no pandas; `to_frame` makes a DataFrame of them, `export`
CSV, JSON, Markdown or LaTeX.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rung.results.aggregation import Aggregation
from rung.results.budget import is_asked_for, progress, run_rows
from rung.results.confirmation import ConfirmedSummary, ResultRow, seeds_text
from rung.results.export import TableRow, export, interval_text
from rung.results.grokking import GrokkingRow, ThresholdTime, grokking_table
from rung.results.schema import CONFIG_PREFIX, Phase
from rung.results.statistics import MeanInterval, Mode, mean_interval
from rung.results.success import SuccessRate, success_rate
from rung.results.views import dicts, quote

if TYPE_CHECKING:
    import pandas as pd

    from rung.results.query import StudyResults

__all__ = [
    "ConfigurationSummary",
    "ConfirmedSummary",
    "GrokkingRow",
    "ResultRow",
    "ThresholdTime",
    "export",
    "grokking_table",
    "summary",
    "to_frame",
]

Row = dict[str, Any]

_STATUSES = ("completed", "stopped", "diverged", "failed", "running")
_RUN_COLUMNS = ("config_id", "seed", "phase", "value")
"""Of `runs`, beside those by which a run is judged."""


def to_frame(rows: Sequence[TableRow]) -> "pd.DataFrame":
    """A DataFrame with one row per entry and full precision."""
    import pandas as pd

    return pd.DataFrame([row.as_row() for row in rows])


# --------------------------------------------------------------------------------------------- summary


@dataclass(frozen=True, slots=True)
class ConfigurationSummary:
    """A configuration over its seeds, by the study's metric under its `select` rule."""

    config_id: str
    label: str
    swept: Mapping[str, object]
    """Value of every swept dotted path."""
    planned: int
    """Runs planned; fewer may have begun. For a configuration that the scheduler stopped, those that it had."""
    completed: int
    stopped: int
    diverged: int
    failed: int
    running: int
    level: int | None
    """Highest rung that all runs still in the race have reached, in units of the budget."""
    interval: MeanInterval
    """Mean over the runs that have a value, with a 95 % Student-t interval."""
    score: float | None
    """What it is ranked by: the study's aggregate across seeds. None if a diverged run leaves it none."""
    seeds: tuple[int, ...]
    values: tuple[float | None, ...]
    """Value of each of `seeds`; None while there is none."""
    steps: int
    """Steps of the run that got furthest."""
    wall_seconds: float
    """Training clocks of all runs together."""
    success: SuccessRate | None = None
    """How many runs reached the study's target; None if it has none."""
    diverged_seeds: tuple[int, ...] = ()
    """Those of `seeds` whose runs diverged."""

    @property
    def n(self) -> int:
        """Runs that have a value."""
        return self.interval.n

    @property
    def begun(self) -> int:
        """Runs that have begun."""
        return self.completed + self.stopped + self.diverged + self.failed + self.running

    @property
    def has_ended(self) -> bool:
        """Whether no run is left to train: the scheduler has stopped it, or all have come to an end of their own."""
        return self.stopped > 0 or (self.begun >= self.planned and not self.running)

    @property
    def is_through(self) -> bool:
        """Whether all runs have come to an end of their own, at least one by completing."""
        return self.completed > 0 and self.completed + self.diverged + self.failed == self.planned

    @property
    def mean(self) -> float | None:
        return self.interval.mean

    @property
    def low(self) -> float | None:
        return self.interval.low

    @property
    def high(self) -> float | None:
        return self.interval.high

    def as_row(self) -> Row:
        """Every column; swept values are called `config.<dotted path>`, as in the table `configurations`."""
        return {
            "config_id": self.config_id,
            "label": self.label,
            **{CONFIG_PREFIX + path: value for path, value in self.swept.items()},
            "n": self.n,
            "planned": self.planned,
            **{status: getattr(self, status) for status in _STATUSES},
            "level": self.level,
            "mean": self.mean,
            "low": self.low,
            "high": self.high,
            "score": self.score,
            **(self.success.as_row() if self.success else {}),
            "seeds": list(self.seeds),
            "values": list(self.values),
            "steps": self.steps,
            "wall_seconds": self.wall_seconds,
        }

    def as_text(self) -> dict[str, str]:
        """Label, n of planned, mean with interval, single seeds, statuses, rung and cost."""
        statuses = [f"{count} {status}" for status in _STATUSES if (count := getattr(self, status))]
        return {
            "configuration": self.label,
            "n": f"{self.n}/{self.planned}",
            "mean [95 % interval]": interval_text(self.interval),
            **({"reached target": self.success.text} if self.success else {}),
            "seeds": seeds_text(self),
            "runs": ", ".join(statuses),
            "rung": "" if self.level is None else str(self.level),
            "steps": str(self.steps),
            "seconds": f"{self.wall_seconds:.0f}",
        }


def summary(results: "StudyResults", phase: Phase = "search") -> list[ConfigurationSummary]:
    """One entry per configuration, best first by the study's metric.

    The order is that of `score`, the aggregate that the scheduler compares too. It is not fair across these groups,
    which therefore follow each other: configurations still in the race or through with it; those stopped by the
    scheduler, whose value belongs to a smaller budget; those with a diverged run, whose mean is over the survivors
    only; those without any value. Failed runs are an accident and not a result: they only lower n.

    In phase confirm only configurations that have runs there appear, and a run that is still being trained has no value
    yet: nothing is decided there before its end, and its value would be that of a smaller budget. Runs with seeds that
    the study does not ask for (any more) are left out there. In both phases a run that completed with a smaller budget
    than the study has now counts as running.
    """
    study = results.study
    configurations = _configurations(results, study["swept"])
    rows = [row for row in run_rows(results, _RUN_COLUMNS) if row["phase"] == phase and is_asked_for(row, study)]
    if phase == "confirm":
        rows = [{**row, "value": None} if row["status"] == "running" else row for row in rows]
    runs = _grouped(rows)
    levels = {} if phase == "confirm" else _decided_levels(results)
    entries = [
        _summarise(
            study,
            configuration,
            _planned_seeds(study, phase, runs.get(config_id, [])),
            runs.get(config_id, []),
            levels.get(config_id),
        )
        for config_id, configuration in configurations.items()
        if phase == "search" or config_id in runs
    ]
    return sorted(entries, key=lambda entry: _place(entry, study["metric"]["mode"]))  # stable: ties in plan order


def _summarise(
    study: Row, configuration: Row, planned: Sequence[int], runs: Sequence[Row], decided: int | None
) -> ConfigurationSummary:
    by_seed = {run["seed"]: run for run in runs}
    seeds = tuple(sorted({*planned, *by_seed}))
    values = tuple(by_seed[seed]["value"] if seed in by_seed else None for seed in seeds)
    statuses = [run["status"] for run in runs]
    return ConfigurationSummary(
        config_id=configuration["config_id"],
        label=configuration["label"],
        swept={path: configuration[CONFIG_PREFIX + path] for path in study["swept"]},
        planned=len(seeds),
        **{status: statuses.count(status) for status in _STATUSES},
        level=max((level for level in (decided, _reached_level(study, runs)) if level is not None), default=None),
        interval=mean_interval(values),
        score=_aggregation(study["metric"]).value(runs),
        seeds=seeds,
        values=values,
        diverged_seeds=tuple(seed for seed in seeds if seed in by_seed and by_seed[seed]["status"] == "diverged"),
        steps=max((run["step"] for run in runs), default=0),
        wall_seconds=math.fsum(run["wall_seconds"] for run in runs),
        success=success_rate(study, runs),
    )


def _aggregation(metric: Row) -> Aggregation:
    return Aggregation(**{name: metric[name] for name in Aggregation.__dataclass_fields__ if name in metric})


def _place(entry: ConfigurationSummary, mode: Mode) -> tuple[int, float]:
    if entry.score is not None:
        return (1 if entry.stopped else 0, -entry.score if mode == "max" else entry.score)
    if entry.mean is not None:
        return (2, -entry.mean if mode == "max" else entry.mean)
    return (3, 0.0)


def _reached_level(study: Row, runs: Sequence[Row]) -> int | None:
    """The highest rung that every run has reached which neither diverged nor failed; a completed run is through."""
    budget = study["budget"]
    active = [run for run in runs if run["status"] not in ("diverged", "failed")]
    if not active:
        return None
    done = min(math.inf if run["status"] == "completed" else progress(run, budget) for run in active)
    return max((level for level in study["rungs"] if level <= done), default=None)


def _planned_seeds(study: Row, phase: Phase, runs: Sequence[Row]) -> list[int]:
    """The seeds planned for a configuration with these runs.

    Who was stopped by the scheduler is judged by the seeds that it had: those that join at later rungs in a race over
    seeds, or that the study was extended by, are not planned for it. Nor are they where no run is left to go on.
    """
    if phase == "confirm":
        return list((study.get("confirm") or {}).get("seeds", []))
    seeds, begun, statuses = study["seeds"], {run["seed"] for run in runs}, {run["status"] for run in runs}
    if "stopped" in statuses:
        return [seed for seed in seeds if seed in begun]
    if study.get("seeds_at_start") is not None and begun and statuses <= {"diverged", "failed"}:
        return [seed for place, seed in enumerate(seeds) if place < study["seeds_at_start"] or seed in begun]
    return list(seeds)


def _configurations(results: "StudyResults", swept: Sequence[str]) -> dict[str, Row]:
    relation = results.configurations
    names = [CONFIG_PREFIX + path for path in swept]
    present = [name for name in names if name in relation.columns]
    columns = ", ".join(map(quote, ["config_id", "label", *present]))
    rows = dicts(relation.order("plan_index").select(columns))
    return {row["config_id"]: {**dict.fromkeys(names), **row} for row in rows}


def _decided_levels(results: "StudyResults") -> dict[str, int]:
    """The highest rung at which each configuration was judged."""
    return dict(results.decisions.filter("phase = 'search'").aggregate("config_id, max(level)").fetchall())


# --------------------------------------------------------------------------------------------- helpers


def _grouped(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows by their config_id."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["config_id"], []).append(row)
    return groups
