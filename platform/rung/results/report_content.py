"""What the report's page says: every table and sentence of it, as plain data that the template lays out.

All text is a user's or computed, and is escaped by the template. Nothing heavy is imported.
"""

import json
import math
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rung.results.export import interval_text, number_text, spread_text
from rung.results.grokking import GrokkingRow
from rung.results.rungs import is_through, rung_rows, selection_in_words
from rung.results.snapshot import Row, Snapshot
from rung.results.statistics import MeanInterval, mean_interval
from rung.results.tables import ConfigurationSummary

MISSING = "–"
_STATUSES = ("completed", "stopped", "diverged", "failed", "running")
_TEXT_LIMIT = 8000
"""Letters of an error's text."""
_TROUBLE_RUNS = 12
"""Runs that are named with the text they share."""

# ------------------------------------------------------------------------------------------------- cells


@dataclass(frozen=True, slots=True)
class Number:
    """A number as it is read, and in full precision."""

    text: str
    value: float | None = None


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a table."""

    text: str = ""
    numbers: tuple[Number, ...] = ()
    """In place of `text`."""
    note: str = ""
    """Small print below."""
    colour: str = ""
    """The configuration's colour in the figures."""
    status: str = ""
    """Shown as a badge."""
    heads_row: bool = False


@dataclass(frozen=True, slots=True)
class Column:
    """A column's heading; neighbours with the same `group` get a common one above."""

    title: str
    numeric: bool = False
    group: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table with its caption. `folded` shows it on demand."""

    id: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    folded: bool = False

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Headings of groups and over how many columns they stand; empty if there are none."""
        runs: list[tuple[str, int]] = []
        for column in self.columns:
            if runs and column.group and runs[-1][0] == column.group:
                runs[-1] = (column.group, runs[-1][1] + 1)
            else:
                runs.append((column.group, 1))
        return runs if any(group for group, _ in runs) else []


@dataclass(frozen=True, slots=True)
class Fact:
    """A term and what is to be said about it."""

    term: str
    text: str


def _number(value: float | None) -> Cell:
    return Cell(numbers=(_as_number(value),))


def _as_number(value: float | None) -> Number:
    return Number(MISSING) if value is None else Number(number_text(value), value)


def _count(value: int) -> Cell:
    return Cell(numbers=(Number(f"{value:,}", value),))


def _interval(interval: MeanInterval) -> Cell:
    return Cell(numbers=(Number(interval_text(interval) or MISSING, interval.mean),))


def _configuration(config_id: str, label: str, colours: Mapping[str, str]) -> Cell:
    return Cell(label or "(no label)", note=config_id, colour=colours.get(config_id, ""), heads_row=True)


# ---------------------------------------------------------------------------------------------- overview


def overview(snapshot: Snapshot) -> list[Fact]:
    """What was run, and how far it has come."""
    study = snapshot.study
    facts = [
        Fact("Trainable", str(study["trainable"])),
        Fact("Metric", _metric_in_words(study["metric"])),
        Fact("Plan", plan_in_words(snapshot)),
        *(Fact(f"Swept: {path}", _dimension(study, path)) for path in study["swept"]),
        Fact("Budget", _budget(study)),
        Fact("Scheduler", _scheduler(study)),
        Fact("Configurations", _tally(configuration_state(entry, live=snapshot.live) for entry in snapshot.search)),
        Fact("Runs", _run_tally(snapshot)),
    ]
    latest = latest_row(snapshot)
    if latest:
        facts.append(Fact("As of", latest))
    return facts


def plan_in_words(snapshot: Snapshot) -> str:
    """`2 × 3 = 6 configurations, × 4 seeds = 24 runs`; the product is left out where it is none."""
    study, planned = snapshot.study, len(snapshot.configurations)
    factors = [len(spec["grid"]) for spec in _dimensions(study).values() if isinstance(spec.get("grid"), list)]
    drawn = len(_dimensions(study)) > len(factors)
    samples = study.get("samples") or 1
    words = [str(factor) for factor in factors] + ([f"{samples} samples"] if drawn else [])
    is_product = len(words) > 1 and math.prod(factors) * (samples if drawn else 1) == planned
    product = f"{' × '.join(words)} = " if is_product else ""
    seeds = len(study["seeds"])
    return (
        f"{product}{_plural(planned, 'configuration')}, × {_plural(seeds, 'seed')} = "
        f"{_plural(planned * seeds, 'run')}"
    )


def configuration_state(entry: ConfigurationSummary, *, live: bool) -> str:
    """One word for a configuration with all its runs."""
    if entry.stopped:
        return "stopped"
    begun = sum(getattr(entry, status) for status in _STATUSES)
    if not begun:
        return "waiting"
    if entry.running or begun < entry.planned:
        return "running" if live else "unfinished"
    if is_through(entry):
        return "completed"
    return "failed" if entry.failed else "diverged"


def latest_row(snapshot: Snapshot) -> str:
    """When the newest row was written; empty before the first. Not now: the same rows give the same page."""
    times = [row["updated_at"] for row in snapshot.runs] or [row["created_at"] for row in snapshot.configurations]
    known = [time for time in times if isinstance(time, datetime)]
    return f"{max(known).astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if known else ""


def verdict(snapshot: Snapshot) -> list[str]:
    """The best configuration and how far that can be trusted, in sentences."""
    entries = snapshot.search
    if not entries or entries[0].mean is None:
        return ["No run has a value yet, so there is no best configuration."]
    best, metric = entries[0], snapshot.study["metric"]
    so_far = "" if _is_over(snapshot) else " so far"
    sentences = [
        f"Best{so_far}: {best.label}, with {metric['name']} {interval_text(best.interval)} "
        f"({_interval_in_words(best.interval)})."
    ]
    if metric.get("across_seeds", "mean") != "mean":
        sentences.append(f"Configurations are ranked by the {metric['across_seeds']} over their seeds.")
    if best.diverged:
        sentences.append(f"{_plural(best.diverged, 'of its runs', 'of its runs')} diverged and is not in this mean.")
    if len(entries) > 1:
        sentences += [*_ahead(snapshot), _optimism(snapshot)]
    return sentences


def _ahead(snapshot: Snapshot) -> list[str]:
    """How far the best is ahead of the second, seed by seed, if both were trained alike."""
    best, second = snapshot.search[:2]
    sign = 1 if snapshot.study["metric"]["mode"] == "max" else -1
    others = dict(zip(second.seeds, second.values, strict=True))
    differences = [
        sign * (value - other)
        for seed, value in zip(best.seeds, best.values, strict=True)
        if value is not None and (other := others.get(seed)) is not None
    ]
    ahead = mean_interval(differences)
    if second.stopped or ahead.low is None or ahead.high is None:
        return []
    verdict = "more than" if ahead.low > 0 else "no more than"
    return [
        f"Paired by seed it is ahead of the second, {second.label}, by {interval_text(ahead)} "
        f"(95 % t interval, n = {ahead.n}): {verdict} chance among these seeds."
    ]


def _optimism(snapshot: Snapshot) -> str:
    confirmed = {entry.config_id: entry for entry in snapshot.confirm}
    best = confirmed.get(snapshot.search[0].config_id)
    chosen = f"This value is that of the best of {len(snapshot.search)}, chosen by the same runs that it is measured on"
    if best is None or best.mean is None:
        return f"{chosen}: it is optimistic until it is confirmed on fresh seeds."
    return f"{chosen}, so it is optimistic; on fresh seeds it is {interval_text(best.interval)} (n = {best.n})."


def _interval_in_words(interval: MeanInterval) -> str:
    if interval.low is None:
        return f"n = {interval.n}, so without an interval: nothing tells it from luck"
    return f"mean with 95 % Student-t interval, n = {interval.n}"


def _is_over(snapshot: Snapshot) -> bool:
    states = {configuration_state(entry, live=snapshot.live) for entry in snapshot.search}
    return not snapshot.live and not states & {"waiting", "unfinished", "running"}


def _metric_in_words(metric: Row) -> str:
    better = "more is better" if metric["mode"] == "max" else "less is better"
    across = metric.get("across_seeds", "mean")
    return f"{metric['name']} ({better}): {selection_in_words(metric)}, {across} over seeds"


def _dimensions(study: Row) -> dict[str, Row]:
    """The search space; a bare list is a grid."""
    space = study.get("space") or {}
    return {path: spec if isinstance(spec, dict) else {"grid": spec} for path, spec in space.items()}


def _dimension(study: Row, path: str) -> str:
    spec = _dimensions(study).get(path, {})
    return "; ".join(f"{word} {_value(value)}" for word, value in spec.items()) or MISSING


def _value(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(_value, value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _budget(study: Row) -> str:
    budget = study["budget"]
    text = f"{budget['amount']:,} {budget['unit']} for each run"
    if budget.get("wall_clock"):
        text += f", at most {budget['wall_clock']:,} seconds"
    target = budget.get("target")
    if isinstance(target, dict):
        text += f", or until {target.get('metric')} reaches {target.get('value')}"
    return text


def _scheduler(study: Row) -> str:
    scheduler = study["scheduler"]
    options = [f"{name} {_value(value)}" for name, value in scheduler.items() if name != "name" and value is not None]
    if scheduler["name"] == "fifo":
        return "fifo: every configuration gets the whole budget"
    rungs = ", ".join(f"{level:,}" for level in study["rungs"])
    return f"{scheduler['name']} ({', '.join(options)}); rungs at {rungs} {study['budget']['unit']}"


def _run_tally(snapshot: Snapshot) -> str:
    runs = [run for run in snapshot.runs if run["phase"] == "search"]
    missing = sum(entry.planned for entry in snapshot.search) - len(runs)
    text = _tally([run["status"] for run in runs] + ["not started"] * missing)
    confirming = [run["status"] for run in snapshot.runs if run["phase"] == "confirm"]
    return f"{text}; to confirm: {_tally(confirming)}" if confirming else text


def _tally(words: Iterable[str]) -> str:
    counts = Counter(words)
    return ", ".join(f"{count:,} {word}" for word, count in counts.most_common()) or "none"


def _plural(count: int, one: str, many: str = "") -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"


# ------------------------------------------------------------------------------------------------ tables


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
        Column("mean [95 % interval]", numeric=True),
        Column(f"seeds {_seed_list(seeds)}"),
        Column("runs"),
        Column(f"rung ({unit})", numeric=True),
        Column("steps", numeric=True),
        Column("parameters", numeric=True),
        Column("hours", numeric=True),
    ]
    rows = [
        [
            _count(place),
            _configuration(entry.config_id, entry.label, colours),
            Cell(status=configuration_state(entry, live=snapshot.live)),
            Cell(f"{entry.n}/{entry.planned}"),
            _interval(entry.interval),
            Cell(numbers=tuple(map(_as_number, entry.values))),
            Cell(_statuses(entry)),
            Cell(MISSING) if entry.level is None else _count(entry.level),
            _count(entry.steps),
            _count(parameters[entry.config_id]) if entry.config_id in parameters else Cell(MISSING),
            _number(entry.wall_seconds / 3600),
        ]
        for place, entry in enumerate(snapshot.search, start=1)
    ]
    metric = snapshot.study["metric"]
    caption = (
        f"Every configuration, best first by {metric['name']} ({selection_in_words(metric)}). n counts the runs "
        "with a value; the interval is Student's t. Those stopped by the scheduler stand behind the others, since "
        "their values belong to a smaller budget, and behind them those with a diverged run, whose mean is that of "
        "the survivors. Hours are the training clocks of all runs together."
    )
    return Table("table-configurations", caption, columns, rows)


def _seed_list(seeds: Sequence[int]) -> str:
    if len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[0] + len(seeds))):
        return f"{seeds[0]} to {seeds[-1]}"
    return ", ".join(map(str, seeds[:8])) + (", …" if len(seeds) > 8 else "")


def _statuses(entry: ConfigurationSummary) -> str:
    counts = [f"{count} {status}" for status in _STATUSES if (count := getattr(entry, status))]
    return ", ".join(counts) or MISSING


def confirm_table(snapshot: Snapshot, colours: Mapping[str, str]) -> Table | None:
    """Values of the search beside those on fresh seeds; None before phase confirm."""
    if not snapshot.confirm:
        return None
    searched = {entry.config_id: entry for entry in snapshot.search}
    columns = [
        Column("configuration"),
        Column("n", numeric=True, group="search"),
        Column("mean [95 % interval]", numeric=True, group="search"),
        Column("n", numeric=True, group="fresh seeds"),
        Column("mean [95 % interval]", numeric=True, group="fresh seeds"),
        Column("change", numeric=True),
    ]
    rows = []
    for entry in snapshot.confirm:
        before = searched[entry.config_id]
        both = entry.mean is not None and before.mean is not None
        rows.append(
            [
                _configuration(entry.config_id, entry.label, colours),
                _count(before.n),
                _interval(before.interval),
                _count(entry.n),
                _interval(entry.interval),
                _number(entry.mean - before.mean if both else None),  # type: ignore[operator]
            ]
        )
    caption = "Chosen configurations on seeds that took no part in choosing them. The change shows the optimism of choice."
    return Table("table-confirm", caption, columns, rows)


_GROKKING_NAMES = (
    ("best loss L", (("train", "L_train"), ("validation", "L_validation"))),
    ("best accuracy A", (("train", "A_train"), ("validation", "A_validation"))),
    ("steps t_f to L", (("train", "t_f(L)_train"), ("validation", "t_f(L)_validation"), ("Δt", "delta_t(L)"))),
    ("steps t_f to A", (("train", "t_f(A)_train"), ("validation", "t_f(A)_validation"), ("Δt", "delta_t(A)"))),
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
            _configuration(row.config_id, row.label, colours),
            _count(row.n),
            _count(row.steps),
            *(Cell(numbers=(Number(spread_text(row.spreads[name]) or MISSING, row.spreads[name].mean),)) for name in names),
            *(Cell(numbers=(Number(time.text, time.step.mean),)) for time in row.thresholds.values()),
        ]
        for row in rows
    ]
    caption = (
        "Found in each run first, then mean ± standard deviation over its n runs. t_f is the first step that reaches "
        "the best value, Δt = t_f(validation) − t_f(train) of the same run; a t_f close to the last step means that "
        "the run was still improving. A threshold that a run did not reach within its steps is censored: the run is "
        "counted as not reached, and the mean is over the others."
    )
    return Table("table-grokking", caption, columns, cells)


def rung_table(snapshot: Snapshot) -> Table | None:
    """How many configurations reached each rung and went on; None if nothing was decided."""
    rungs = rung_rows(snapshot)
    if not rungs:
        return None
    names = ["reported", "went on", "stopped", "not decided", "completed"]
    several = any(row["bracket"] for row in rungs)
    columns = [Column("bracket", numeric=True)] if several else []
    columns += [Column(f"rung ({snapshot.study['budget']['unit']})", numeric=True)]
    columns += [Column(name, numeric=True) for name in names]
    rows = []
    for row in rungs:
        bracket = [Cell(MISSING) if row["bracket"] is None else _count(row["bracket"])] if several else []
        rows.append([*bracket, _count(row["level"]), *(_count(row[name]) for name in names)])
    return Table("table-rungs", "Configurations at each rung; the last row is the budget.", columns, rows)


def decision_table(snapshot: Snapshot, colours: Mapping[str, str]) -> Table | None:
    """Every decision in the order in which they fell; None if nothing was decided."""
    if not snapshot.decisions:
        return None
    labels = snapshot.labels
    titles = ("#", "rung", "configuration", "value", "threshold", "rank", "seeds", "decision", "reason")
    numeric = {"#", "rung", "value", "threshold", "rank", "seeds"}
    rows = [
        [
            _count(row["order"] + 1),
            _count(row["level"]),
            _configuration(row["config_id"], labels.get(row["config_id"], ""), colours),
            _number(row["value"]),
            _number(row["threshold"]),
            Cell(f"{row['rank']} of {row['compared']}"),
            _count(row["seeds"]),
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
    return Table("table-decisions", caption, columns, rows, folded=len(rows) > 24)


# -------------------------------------------------------------------------------------------------- cost


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


_PROGRESS = {"steps": "step", "epochs": "epoch", "tokens": "tokens", "seconds": "wall_seconds"}


def cost_table(snapshot: Snapshot) -> Table | None:
    """What the runs consumed, by how they ended; None before the first run."""
    if not snapshot.runs:
        return None
    statuses = [status for status in _STATUSES if any(run["status"] == status for run in snapshot.runs)]
    parts = [(status, _cost([run for run in snapshot.runs if run["status"] == status])) for status in statuses]
    if len(parts) > 1:
        parts.append(("all", _cost(snapshot.runs)))
    rows = [
        [
            Cell(name, heads_row=True),
            _count(cost.runs),
            _count(round(cost.steps)),
            _count(round(cost.tokens)),
            _number(cost.hours),
            _number(cost.core_hours),
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


def savings(snapshot: Snapshot) -> str:
    """What stopping early saved against training every run to the budget, in a sentence; empty if it stopped none."""
    column, amount = _PROGRESS[snapshot.study["budget"]["unit"]], snapshot.study["budget"]["amount"]
    stopped = [run for run in snapshot.runs if run["phase"] == "search" and run["status"] == "stopped"]
    begun = [run for run in stopped if run[column] > 0]
    if not begun:
        return ""
    steps = hours = 0.0
    for run in begun:
        left = max(0.0, amount / run[column] - 1)
        steps += left * run["step"]
        hours += left * run["wall_seconds"] * run["threads"] / 3600
    spent = _cost([run for run in snapshot.runs if run["phase"] == "search"])
    share = hours / (hours + spent.core_hours) if hours else steps / (steps + spent.steps)
    return (
        f"Stopping {_plural(len(begun), 'run')} early saved about {number_text(hours, 3)} core-hours and "
        f"{steps:,.0f} steps, {100 * share:.0f} % of what training every run to the budget would have cost. "
        "Estimated from each stopped run's own pace; runs that never began are not counted."
    )


def _cost(runs: Sequence[Row]) -> Cost:
    return Cost(
        runs=len(runs),
        steps=math.fsum(run["step"] for run in runs),
        tokens=math.fsum(run["tokens"] for run in runs),
        hours=math.fsum(run["wall_seconds"] for run in runs) / 3600,
        core_hours=math.fsum(run["wall_seconds"] * run["threads"] for run in runs) / 3600,
    )


# ---------------------------------------------------------------------------------------------- failures


@dataclass(frozen=True, slots=True)
class Trouble:
    """Runs that failed or diverged in the same way."""

    status: str
    headline: str
    text: str
    """The whole text, where it is more than the headline."""
    runs: Sequence[str]
    more: int
    """Runs that are not named."""


def troubles(snapshot: Snapshot) -> list[Trouble]:
    """Failed and diverged runs; those of one status and text together, the most frequent first."""
    labels = snapshot.labels
    groups: dict[tuple[str, str], list[str]] = {}
    for run in snapshot.runs:
        if run["status"] in ("failed", "diverged"):
            text = (run["error"] or "").strip()
            where = f"{labels.get(run['config_id'], run['config_id'])}, seed {run['seed']}, step {_trouble_step(run):,}"
            groups.setdefault((run["status"], text), []).append(f"{where} ({run['run_id']})")
    ordered = sorted(groups.items(), key=lambda group: (group[0][0] == "diverged", -len(group[1])))
    return [_trouble(status, text, runs) for (status, text), runs in ordered]


def _trouble(status: str, text: str, runs: Sequence[str]) -> Trouble:
    fallback = "a value was not finite" if status == "diverged" else "no text was recorded"
    headline = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), fallback)
    if len(text) > _TEXT_LIMIT:
        text = f"{text[: _TEXT_LIMIT // 2]}\n[…]\n{text[-_TEXT_LIMIT // 2 :]}"
    return Trouble(
        status=status,
        headline=headline if len(headline) <= 300 else f"{headline[:300]}…",
        text=text if text != headline else "",
        runs=runs[:_TROUBLE_RUNS],
        more=max(0, len(runs) - _TROUBLE_RUNS),
    )


def _trouble_step(run: Row) -> int:
    step = run["diverged_step"]
    return int(run["step"] if step is None else step)


# -------------------------------------------------------------------------------------------- provenance


def launch_table(launches: Sequence[Row]) -> Table | None:
    """One row per launch of the driver; None if none was recorded."""
    if not launches:
        return None
    titles = ("started", "commit", "command", "host", "processor", "cores, threads", "versions")
    rows = [
        [
            Cell(_when(launch.get("started_at")), heads_row=True),
            Cell(_text(launch.get("commit")), note=_changes(launch)),
            Cell(_command(launch.get("command"))),
            Cell(_text(launch.get("host")), note=_text(launch.get("system"), "")),
            Cell(_text(launch.get("processor"))),
            Cell(f"{_text(launch.get('cores'))}, {_text(launch.get('threads'))}"),
            Cell(_versions(launch.get("versions"))),
        ]
        for launch in launches
    ]
    caption = "Every launch of the study, oldest first. Threads are those of one training process."
    return Table("table-launches", caption, [Column(title) for title in titles], rows)


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
