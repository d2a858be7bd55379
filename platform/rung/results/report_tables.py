"""The tables of the report's page: configurations, confirmation, learning times, rungs, decisions, cost, launches.

Nothing heavy is imported.
"""

import math
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rung.results.export import number_text, spread_text
from rung.results.grokking import GrokkingRow
from rung.results.report_table import (
    MISSING,
    Cell,
    Column,
    Number,
    Table,
    configuration_cell,
    count_cell,
    interval_cell,
    number,
    number_cell,
)
from rung.results.rungs import STATUSES, configuration_state, rung_counts, selection_in_words
from rung.results.snapshot import Row, Snapshot
from rung.results.statistics import Spread
from rung.results.tables import ConfigurationSummary


def configuration_table(snapshot: Snapshot, colours: Mapping[str, str]) -> Table:
    """All configurations, best first."""
    seeds = snapshot.study["seeds"]
    parameters = {run["config_id"]: run["parameters"] for run in snapshot.runs}
    unit = snapshot.study["budget"]["unit"]
    columns = [
        Column("#", numeric=True),
        Column("configuration"),
        Column("state"),
        Column("n", numeric=True),
        Column("mean [95\u00a0% interval]", numeric=True),
        Column(f"seeds {_seed_list(seeds)}"),
        Column(f"rung ({unit})", numeric=True),
        Column("steps", numeric=True),
        Column("parameters", numeric=True),
        Column("hours", numeric=True),
    ]
    rows = [
        [
            count_cell(place),
            configuration_cell(entry.config_id, entry.label, colours),
            Cell(status=configuration_state(entry, live=snapshot.live), note=_statuses(entry)),
            Cell(f"{entry.n}/{entry.planned}"),
            interval_cell(entry.interval),
            Cell(numbers=tuple(map(number, entry.values))),
            count_cell(entry.level),
            count_cell(entry.steps),
            count_cell(parameters.get(entry.config_id)),
            _hours_cell(entry.wall_seconds / 3600),
        ]
        for place, entry in enumerate(snapshot.search, start=1)
    ]
    metric = snapshot.study["metric"]
    caption = (
        f"Every configuration in the search, best first by {metric['name']} ({selection_in_words(metric)}). n counts "
        "the runs with a value; the interval is Student's t. Those stopped by the scheduler stand behind the others, "
        "since their values belong to a smaller budget, and behind them those with a diverged run, whose mean is "
        "that of the survivors. Hours are the training clocks of all runs together."
    )
    return Table("table-configurations", caption, columns, rows)


def _seed_list(seeds: Sequence[int]) -> str:
    if len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[0] + len(seeds))):
        return f"{seeds[0]} to {seeds[-1]}"
    return ", ".join(map(str, seeds[:8])) + (", …" if len(seeds) > 8 else "")


def _statuses(entry: ConfigurationSummary) -> str:
    """How many runs have which status, if not all the same."""
    counts = [f"{count} {status}" for status in STATUSES if (count := getattr(entry, status))]
    return ", ".join(counts) if len(counts) > 1 else ""


def confirm_table(snapshot: Snapshot, colours: Mapping[str, str]) -> Table | None:
    """Values of the search beside those on fresh seeds; None before phase confirm."""
    confirmation = snapshot.confirmation
    if confirmation is None or not (confirmation.entries or confirmation.earlier):
        return None
    places = {entry.config_id: place for place, entry in enumerate(snapshot.search, start=1)}
    mean = "mean [95\u00a0% interval]"
    columns = [
        Column("#", numeric=True),
        Column("configuration"),
        *(Column(title, numeric=True, group="search") for title in ("place", "n", mean)),
        *(Column(title, numeric=True, group="fresh seeds") for title in ("n", mean)),
        Column("shrinkage [95\u00a0%]", numeric=True),
        *(Column(title, group="single seeds") for title in ("search", "fresh")),
    ]
    rows = [
        [
            count_cell(None if entry.is_earlier else place),
            configuration_cell(entry.config_id, entry.label, colours),
            count_cell(places[entry.config_id]),
            *(*_phase_cells(entry.search), *_phase_cells(entry.confirm, entry.note)),
            interval_cell(entry.shrinkage),
            *(Cell(numbers=tuple(map(number, phase.values))) for phase in (entry.search, entry.confirm)),
        ]
        for place, entry in enumerate((*confirmation.entries, *confirmation.earlier), start=1)
    ]
    caption = (
        "The chosen configurations on the seeds that chose them and on fresh ones "
        f"({_seed_list(confirmation.seeds)}), best on fresh seeds first. The shrinkage is by how much the search's "
        "mean is better than that on fresh seeds, with Welch's interval: where it is positive, so much of the "
        "search's value was the optimism of having chosen. One that the search stopped has none, since its value there "
        "belongs to a smaller budget. A configuration with a diverged run stands behind the others."
    )
    return Table("table-confirm", caption, columns, rows)


def _phase_cells(entry: ConfigurationSummary, note: str = "") -> list[Cell]:
    """n of planned, with how runs ended where not all the same, or a note instead; the mean with its interval."""
    note = (note or _statuses(entry)).replace(", ", "\n") or ("stopped" if entry.stopped else "")
    return [Cell(f"{entry.n}/{entry.planned}", note=note), interval_cell(entry.interval)]


_FOLDED_FROM = 24
"""Rows up to which a long table is shown at once."""
_GROKKING_NAMES = (
    ("best loss L", (("train", "L_train"), ("val.", "L_validation"))),
    ("best accuracy A", (("train", "A_train"), ("val.", "A_validation"))),
    ("steps t_f to L", (("train", "t_f(L)_train"), ("val.", "t_f(L)_validation"), ("Δt", "delta_t(L)"))),
    ("steps t_f to A", (("train", "t_f(A)_train"), ("val.", "t_f(A)_validation"), ("Δt", "delta_t(A)"))),
)


def grokking_table(rows: Sequence[GrokkingRow], colours: Mapping[str, str]) -> Table | None:
    """Best losses and accuracies, when they were first reached, and threshold times with what is censored."""
    if not rows:
        return None
    columns = [Column("configuration"), Column("n", numeric=True), Column("steps", numeric=True)]
    columns += [Column(title, True, group) for group, names in _GROKKING_NAMES for title, _ in names]
    columns += [Column(f"≥ {threshold:g}", True, "steps to validation accuracy") for threshold in rows[0].thresholds]
    names = [name for _, group in _GROKKING_NAMES for _, name in group]
    cells = [
        [
            configuration_cell(row.config_id, row.label, colours),
            count_cell(row.n),
            count_cell(row.steps),
            *(_spread_cell(row.spreads[name]) for name in names),
            *(_spread_cell(time.step, time.n - time.reached, time.n) for time in row.thresholds.values()),
        ]
        for row in rows
    ]
    caption = (
        "Found in each run first, then mean ± standard deviation over its n runs. t_f is the first step that reaches "
        "the best value, Δt = t_f(validation) − t_f(train) of the same run; a t_f close to the last step means that "
        "the run was still improving. A threshold that a run did not reach within its steps is censored: the run is "
        "counted as not reached, and the mean is over the others."
    )
    return Table("table-grokking", caption, columns, cells, folded=len(cells) > _FOLDED_FROM)


def _spread_cell(over_runs: Spread, censored: int = 0, n: int = 0) -> Cell:
    """A mean with its standard deviation below, and how many of n runs did not get there."""
    mean, _, std = spread_text(over_runs).partition(" ± ")
    notes = [f"± {std}"] if std else []
    if censored:
        notes.append(f"not reached\n{censored}/{n}")
    return Cell(numbers=(Number(mean or MISSING, over_runs.mean),), note="\n".join(notes))


def rung_table(snapshot: Snapshot) -> Table | None:
    """How many configurations reached each rung and went on; None if nothing was decided."""
    rungs = rung_counts(snapshot)
    if not rungs:
        return None
    several = any(rung.bracket for rung in rungs)
    titles = ["bracket"] if several else []
    titles += [
        f"rung ({snapshot.study['budget']['unit']})",
        "reported",
        "went on",
        "stopped",
        "not decided",
        "completed",
    ]
    rows = [
        [
            *([count_cell(rung.bracket)] if several else []),
            count_cell(rung.level),
            count_cell(rung.reported),
            *map(count_cell, (rung.went_on, rung.stopped, rung.not_decided, rung.completed)),
        ]
        for rung in rungs
    ]
    caption = "Configurations at each rung; the last row is the budget."
    return Table("table-rungs", caption, [Column(title, numeric=True) for title in titles], rows)


def decision_table(snapshot: Snapshot, colours: Mapping[str, str]) -> Table | None:
    """Every decision in the order in which they fell; None if nothing was decided."""
    if not snapshot.decisions:
        return None
    labels = snapshot.labels
    titles = ("#", "rung", "configuration", "value", "threshold", "rank", "seeds", "decision", "reason")
    numeric = {"#", "rung", "value", "threshold", "rank", "seeds"}
    rows = [
        [
            count_cell(row["order"] + 1),
            count_cell(row["level"]),
            configuration_cell(row["config_id"], labels.get(row["config_id"], ""), colours),
            number_cell(row["value"]),
            number_cell(row["threshold"]),
            Cell(f"{row['rank']} of {row['compared']}"),
            count_cell(row["seeds"]),
            Cell(status="stopped" if row["decision"] == "stop" else "went on"),
            Cell(row["reason"]),
        ]
        for row in snapshot.decisions
    ]
    caption = (
        f"All {len(rows)} decisions, in the order in which they fell. The value is the configuration's over its "
        "seeds at the rung, the threshold the worst value that went on."
    )
    columns = [Column(title, title in numeric) for title in titles]
    return Table("table-decisions", caption, columns, rows, folded=len(rows) > _FOLDED_FROM)


@dataclass(frozen=True, slots=True)
class Cost:
    """What runs consumed."""

    runs: int
    steps: float
    tokens: float
    hours: float
    """Training clocks, evaluation included."""
    core_hours: float
    """Training clocks times the threads of the process."""


def cost_table(snapshot: Snapshot) -> Table | None:
    """What the runs consumed, by how they ended; None before the first run."""
    if not snapshot.runs:
        return None
    parts = list(_cost_parts(snapshot))
    if len(parts) > 1:
        parts.append(("all", cost_of(snapshot.runs)))
    rows = [
        [
            Cell(name, heads_row=True),
            count_cell(cost.runs),
            count_cell(round(cost.steps)),
            count_cell(round(cost.tokens)),
            _hours_cell(cost.hours),
            _hours_cell(cost.core_hours),
        ]
        for name, cost in parts
    ]
    titles = ("runs", "steps", "tokens", "hours", "core-hours")
    columns = [Column("ended"), *(Column(title, numeric=True) for title in titles)]
    caption = (
        "Hours are the training clocks of the runs, evaluation included; core-hours count each thread of a run. "
        "Starting processes and waiting are not in them."
    )
    return Table("table-cost", caption, columns, rows)


def _cost_parts(snapshot: Snapshot) -> Iterator[tuple[str, Cost]]:
    """By how runs ended, the two phases apart."""
    for phase, prefix in (("search", ""), ("confirm", "confirm runs, ")):
        for status in STATUSES:
            runs = [run for run in snapshot.runs if run["phase"] == phase and run["status"] == status]
            if runs:
                yield f"{prefix}{status}", cost_of(runs)


def _hours_cell(hours: float) -> Cell:
    return Cell(numbers=(Number(number_text(hours, 3), hours),))


def cost_of(runs: Sequence[Row]) -> Cost:
    """The sums over these runs."""
    return Cost(
        runs=len(runs),
        steps=math.fsum(run["step"] for run in runs),
        tokens=math.fsum(run["tokens"] for run in runs),
        hours=math.fsum(run["wall_seconds"] for run in runs) / 3600,
        core_hours=math.fsum(run["wall_seconds"] * cores(run) for run in runs) / 3600,
    )


def cores(run: Row) -> int:
    """How many a run was trained on."""
    return (run["threads"] or 1) * (run["workers"] or 1)


def launch_table(launches: Sequence[Row]) -> Table | None:
    """One row per launch of the driver; None if none was recorded."""
    if not launches:
        return None
    titles = ("started", "commit", "command", "host", "processor", "cores, threads", "versions")
    rows = [
        [
            Cell(_when(launch.get("started_at")), note=_number(launch), heads_row=True),
            Cell(_text(launch.get("commit")), note=_code(launch)),
            Cell(_command(launch.get("command"))),
            Cell(_text(launch.get("host")), note=_text(launch.get("system"), "")),
            Cell(_text(launch.get("processor"))),
            Cell(f"{_text(launch.get('cores'))}, {_text(launch.get('threads'))}"),
            Cell(_versions(launch.get("versions"))),
        ]
        for launch in launches
    ]
    caption = "Every launch of the study, oldest first. Threads are those of one training process."
    return Table("table-launches", caption, [Column(title) for title in titles], rows, is_prose=True)


def _number(launch: Row) -> str:
    """What the column `launch` of the tables says of its rows."""
    return f"launch {launch['number']}" if "number" in launch else ""


def _code(launch: Row) -> str:
    """What stands beside the commit: branch, changes, and where the copy of the code lies."""
    code = launch.get("code")
    folder = _text(code.get("folder"), "") if isinstance(code, dict) else ""
    branch = f"branch {_text(launch['branch'])}" if launch.get("branch") else ""
    return ", ".join(filter(None, [branch, _changes(launch), folder and f"copy in {folder}"]))


def _changes(launch: Row) -> str:
    if launch.get("dirty") is None:
        return "changes unknown"
    if not launch["dirty"]:
        return "no uncommitted changes"
    return f"with uncommitted changes, diff sha256 {_text(launch.get('diff_sha256'))[:16]}"


def _when(value: Any) -> str:
    return re.sub(r"T(\d\d:\d\d:\d\d)(\.\d+)?\+00:00$", r" \1 UTC", _text(value))


def _command(value: Any) -> str:
    return shlex.join(map(str, value)) if isinstance(value, list) else _text(value)


def _versions(value: Any) -> str:
    return ", ".join(f"{name} {number}" for name, number in value.items()) if isinstance(value, dict) else MISSING


def _text(value: Any, missing: str = MISSING) -> str:
    return missing if value in (None, "") else str(value)
