"""What the report's page says in sentences: what was run, what stopping saved, what failed (`verdict.py` the rest).

Texts are as users wrote them; the template escapes them. Nothing heavy is imported.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from rung.results.budget import progress
from rung.results.confirmation import Confirmation
from rung.results.export import number_text
from rung.results.report_table import MISSING
from rung.results.report_tables import cores, cost_of
from rung.results.rungs import STATUSES, configuration_state, selection_in_words
from rung.results.snapshot import Row, Snapshot
from rung.results.verdict import plural

_TEXT_LIMIT = 8000
"""Letters of an error's text."""
_TROUBLE_RUNS = 12
"""Runs that are named with the text they share."""
_LONG_LIST = 12
"""Values up to which a list is written out."""


@dataclass(frozen=True, slots=True)
class Fact:
    """A term and what is to be said about it."""

    term: str
    text: str


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
    if snapshot.confirmation is not None:
        facts.append(Fact("Confirmation", _confirmation(snapshot.confirmation)))
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
    seeds, start = len(study["seeds"]), study.get("seeds_at_start")
    configurations, runs = f"{product}{plural(planned, 'configuration')}", plural(planned * seeds, "run")
    if start is None:
        return f"{configurations}, × {plural(seeds, 'seed')} = {runs}"
    return f"{configurations}, × {start} to {plural(seeds, 'seed')} (racing over seeds) = at most {runs}"


def latest_row(snapshot: Snapshot) -> str:
    """When the newest row was written; empty before the first. Not now: the same rows give the same page."""
    times = [row["updated_at"] for row in snapshot.runs] or [row["created_at"] for row in snapshot.configurations]
    known = [time for time in times if isinstance(time, datetime)]
    return f"{max(known).astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if known else ""


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
    if isinstance(value, list) and len(value) > _LONG_LIST:
        return f"{', '.join(map(_value, value[:3]))}, …, {_value(value[-1])} ({len(value)} values)"
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
    if snapshot.confirmation is None:
        return text
    entries = [entry.confirm for entry in snapshot.confirmation.entries]
    confirming = [status for entry in entries for status in STATUSES for _ in range(getattr(entry, status))]
    confirming += ["not started"] * (snapshot.confirmation.planned - len(confirming))
    return f"{text}; to confirm: {_tally(confirming)}"


def _confirmation(confirmation: Confirmation) -> str:
    seeds = confirmation.seeds
    return (
        f"{plural(confirmation.top, 'configuration')} × {plural(len(seeds), 'fresh seed')} ({seeds[0]:,} to "
        f"{seeds[-1]:,}) = {plural(confirmation.planned, 'run')}, of which {confirmation.done:,} are done"
    )


def _tally(words: Iterable[str]) -> str:
    counts = Counter(words)
    return ", ".join(f"{count:,} {word}" for word, count in counts.most_common()) or "none"


def savings(snapshot: Snapshot) -> str:
    """What stopping early saved against training every run to the budget, in a sentence; empty if it stopped none."""
    budget = snapshot.study["budget"]
    stopped = [run for run in snapshot.runs if run["phase"] == "search" and run["status"] == "stopped"]
    begun = [run for run in stopped if progress(run, budget) > 0]
    if not begun:
        return ""
    steps = hours = 0.0
    for run in begun:
        left = max(0.0, budget["amount"] / progress(run, budget) - 1)
        steps += left * run["step"]
        hours += left * run["wall_seconds"] * cores(run) / 3600
    spent = cost_of([run for run in snapshot.runs if run["phase"] == "search"])
    share = hours / (hours + spent.core_hours) if hours else steps / (steps + spent.steps)
    return (
        f"Stopping {plural(len(begun), 'run')} early saved about {number_text(hours, 3)} core-hours and "
        f"{steps:,.0f} steps, {100 * share:.0f}\u00a0% of what training every run to the budget would have cost. "
        "Estimated from each stopped run's own pace; runs that never began are not counted."
    )


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
