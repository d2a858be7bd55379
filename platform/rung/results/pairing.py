"""Two configurations side by side: the values of their runs at the same place, paired by seed.

What a comparison rests on, without judging it (`comparison.py`): which phase, how far trained, which seeds, and what
became of the runs that have no number.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rung.errors import RungError
from rung.results.budget import PROGRESS, is_asked_for, run_rows
from rung.results.schema import Phase
from rung.results.views import dicts, quote

if TYPE_CHECKING:
    from rung.results.query import StudyResults

Row = Mapping[str, Any]

_HOLDS_TO_THE_END = ("target", "early_stopping")
"""A completed run that ended so has its last value for the rest of the budget."""
_SAME_METRIC = ("name", "mode", "select", "window", "diverged", "worst_value")


@dataclass(frozen=True, eq=False)
class Side:
    """A configuration of a study, to be compared."""

    results: "StudyResults" = field(repr=False)
    study: Row = field(repr=False)
    """study.json."""
    config_id: str
    label: str
    config: Row = field(repr=False)
    """Dotted path to value, of the complete resolved configuration."""
    runs: Mapping[Phase, Mapping[int, Row]] = field(repr=False)
    """Rows of the table `runs` by phase and seed."""

    @property
    def study_name(self) -> str:
        return str(self.study["study"])

    @cached_property
    def reports(self) -> Mapping[Phase, Mapping[int, Sequence[tuple[float, float]]]]:
        """By phase and seed, place (in the unit of the budget) and value of every report with a value, in order."""
        metric, column = self.study["metric"]["name"], PROGRESS[self.study["budget"]["unit"]]
        found: dict[Phase, dict[int, list[tuple[float, float]]]] = {"search": {}, "confirm": {}}
        relation = self.results.metrics
        if metric in relation.columns:
            own = relation.filter(f"config_id = '{self.config_id}'").order("seed, step")
            for phase, seed, place, value in own.select(f"phase, seed, {column}, {quote(metric)}").fetchall():
                if place is not None and value is not None:
                    found[phase].setdefault(seed, []).append((place, value))
        return found


@dataclass(frozen=True, slots=True)
class SideValues:
    """The runs of one side at the place of the comparison."""

    values: Mapping[int, float]
    """By seed. Infinite, on the bad side, for a diverged run where the metric has no worst value."""
    diverged: tuple[int, ...]
    """Seeds of all diverged runs."""
    failed: tuple[int, ...]
    missing: tuple[int, ...]
    """Seeds of runs without a value there, for another reason: not begun, or nothing reported yet."""

    @property
    def finite(self) -> dict[int, float]:
        """The values that are numbers."""
        return {seed: value for seed, value in self.values.items() if math.isfinite(value)}


@dataclass(frozen=True, slots=True)
class Pairing:
    """Two sides at the same place."""

    phase: Phase
    level: float | None
    """Where both are compared, in the unit of the budget; None: each run where it ended, all within the same budget."""
    unit: str
    first: SideValues
    second: SideValues

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds with a number on both sides, ascending."""
        return tuple(sorted(self.first.finite.keys() & self.second.finite.keys()))

    @property
    def pairs(self) -> tuple[list[float], list[float]]:
        """The numbers of either side at `seeds`."""
        first, second = self.first.finite, self.second.finite
        return [first[seed] for seed in self.seeds], [second[seed] for seed in self.seeds]


def sides(results: "StudyResults") -> dict[str, Side]:
    """Every configuration of a study by its id, in the order of the plan."""
    study = results.study
    runs: dict[str, dict[Phase, dict[int, Row]]] = {}
    asked_for = [run for run in run_rows(results) if is_asked_for(run, study)]
    for run in sorted(asked_for, key=lambda row: row["seed"]):
        runs.setdefault(run["config_id"], {"search": {}, "confirm": {}})[run["phase"]][run["seed"]] = run
    rows = dicts(results.configurations.order("plan_index, config_id").select("config_id, label, config_json"))
    return {
        row["config_id"]: Side(
            results,
            study,
            row["config_id"],
            row["label"],
            _flat(json.loads(row["config_json"])),
            runs.get(row["config_id"], {"search": {}, "confirm": {}}),
        )
        for row in rows
    }


def pair(first: Side, second: Side, phase: Phase | None = None) -> Pairing:
    """The values of two configurations at the same place, in the phase that is named; in phase confirm if none is and
    both have values there, else in search.

    If all runs of both have come to an end of their own within the same budget, a run's value is that of the table
    `runs`. Otherwise (one was stopped, is under way, or had a smaller budget) it is the value by the study's `select`
    rule from the reports up to the last place that all runs have reached and reported at. A run that ended by its
    target or by early stopping keeps its value from there on.

    Raises RungError if the studies are judged by different metrics or count their budgets in different units.
    """
    _check_comparable(first.study, second.study)
    both = (first, second)
    if phase is None:
        confirmed = all(any(map(_has_number, side.runs["confirm"].values())) for side in both)
        phase = "confirm" if confirmed else "search"
    runs = [run for side in both for run in side.runs[phase].values() if _has_number(run)]
    budgets = {side.study["budget"]["amount"] for side in both}
    has_ended = len(budgets) == 1 and all(run["status"] == "completed" for run in runs)
    level = None if has_ended else _common_level(both, phase)
    one, other = (_side_values(side, phase, level, has_ended=has_ended) for side in both)
    return Pairing(phase, level, first.study["budget"]["unit"], one, other)


def _flat(config: Row, prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _check_comparable(one: Row, other: Row) -> None:
    for name in _SAME_METRIC:
        a, b = one["metric"].get(name), other["metric"].get(name)
        if a != b and not (name == "window" and one["metric"].get("select") != "mean_of_last"):
            raise RungError(
                f"{one['study']} and {other['study']} are judged differently: metric.{name} is {a} in one and {b} in "
                "the other; compare what both report with `rung query`"
            )
    if one["budget"]["unit"] != other["budget"]["unit"]:
        raise RungError(
            f"the budget of {one['study']} counts {one['budget']['unit']}, that of {other['study']} "
            f"{other['budget']['unit']}: there is no common place to compare at"
        )


def _has_number(run: Row) -> bool:
    """Whether a run counts with a number. In phase confirm it has to come to its end first, as anywhere in rung."""
    is_under_way = run["phase"] == "confirm" and run["status"] == "running"
    return run["status"] not in ("failed", "diverged") and run["value"] is not None and not is_under_way


def _planned(side: Side, phase: Phase) -> Sequence[int]:
    if phase == "confirm":
        return list((side.study.get("confirm") or {}).get("seeds", []))
    seeds = list(side.study["seeds"])
    return seeds[: side.study.get("seeds_at_start") or len(seeds)]


def _side_values(side: Side, phase: Phase, level: float | None, *, has_ended: bool) -> SideValues:
    runs, metric = side.runs[phase], side.study["metric"]
    diverged = tuple(seed for seed, run in runs.items() if run["status"] == "diverged")
    failed = tuple(seed for seed, run in runs.items() if run["status"] == "failed")
    values = {}
    for seed, run in runs.items():
        value = run["value"] if has_ended else _selected(metric, side.reports[phase].get(seed, ()), level)
        if value is not None and _has_number(run):
            values[seed] = float(value)
    if metric.get("diverged", "worst") == "worst":
        worst = metric.get("worst_value")
        worse_than_any = -math.inf if metric["mode"] == "max" else math.inf
        values |= dict.fromkeys(diverged, worse_than_any if worst is None else float(worst))
    missing = tuple(sorted({*_planned(side, phase), *runs} - {*values, *diverged, *failed}))
    return SideValues(dict(sorted(values.items())), diverged, failed, missing)


def _common_level(both: Sequence[Side], phase: Phase) -> float | None:
    """The last place that all runs with a number have reached, and reported at where there is one; None for no run."""
    places = [
        {place for place, _ in side.reports[phase][seed]}
        for side in both
        for seed, run in side.runs[phase].items()
        if _has_number(run) and side.reports[phase].get(seed) and run["ended_by"] not in _HOLDS_TO_THE_END
    ]
    if not places:
        return None
    level = min(map(max, places))
    shared = [place for place in set.intersection(*places) if 0 < place <= level]
    return max(shared, default=level)  # none, as where seconds are counted: the last report before it


def _selected(metric: Row, reports: Sequence[tuple[float, float]], level: float | None) -> float | None:
    """A run's value at a place, by the study's `select` rule. Evaluations that only a rung asked for count too."""
    values = [value for place, value in reports if level is None or place <= level]
    if not values:
        return None
    match metric.get("select", "last"):
        case "best":
            return max(values) if metric["mode"] == "max" else min(values)
        case "mean_of_last":
            recent = values[-metric.get("window", 5) :]
            return math.fsum(recent) / len(recent)
        case _:
            return values[-1]
