"""Tables and states for the terminal, with rich."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from rung.results.budget import run_rows
from rung.results.confirmation import Confirmation, read_confirmation
from rung.results.damage import damaged_files
from rung.results.disk import disk_usage
from rung.results.fitting import fits, render_blocks
from rung.results.retention import checkpoint_folders, policy_of
from rung.results.text import quantity
from rung.results.verdict import verdict
from rung.results.views import dicts

if TYPE_CHECKING:
    from rung.results.query import StudyResults
    from rung.results.tables import ConfigurationSummary

_STATUS_STYLE = {
    "completed": "green",
    "running": "cyan",
    "stopped": "dim",
    "diverged": "yellow",
    "failed": "red",
}


_WIDE_ONLY = ("runs", "rung", "steps", "seconds")
"""Columns of the summary that a terminal of less than 120 columns has no room for."""

_SEEDS = ("search seeds", "fresh seeds")
"""Single seeds of both phases, for which most terminals have no room; exports and report have them."""

_MARKS = {
    "*": "stopped by the scheduler: the values belong to a smaller budget",
    "\u2026": "not all runs have come to their end yet: the values are those of the last reports",
}
"""What is put behind a configuration's n."""

_LEAST_FOR_SEEDS = 12
"""Columns for single seeds, at least: one value."""

_FOLDED = ("seeds", "reason", "message", "error")
"""Columns whose text is broken where the terminal ends; the others stay in one piece."""


def render_summary(results: StudyResults, width: int = 120) -> RenderableType:
    """The configurations of a study as the search orders them, with the study's metric in the title; below them
    those that were confirmed, search and fresh seeds side by side; at last what that says. For `width` columns."""
    study = results.study
    metric = study["metric"]
    title = f"{study['study']}: {metric['name']} ({metric['select'].replace('_', ' ')}, {metric['mode']})"
    entries, confirm = results.summary(), results.summary("confirm")
    rows = [{"id": entry.config_id, **entry.as_text()} for entry in entries]
    marks = [_mark(entry) for entry in entries]
    for row, mark in zip(rows, marks, strict=True):
        row["n"] += mark
    if width < 120:
        rows = [{name: text for name, text in row.items() if name not in _WIDE_ONLY} for row in rows]
    if not rows:
        return Text("no configuration has started yet")
    pieces = [_table_or_blocks(rows, title, width)]
    pieces += [Text(f"{mark} {text}", style="dim") for mark, text in _MARKS.items() if mark in marks]
    confirmation = read_confirmation(study, entries, confirm)
    if confirmation is not None and (confirmation.entries or confirmation.earlier):
        pieces += [Text(), _confirmed_table(confirmation, width)]
    sentences = verdict(study, entries, confirmation, live=results.live())
    said = Text(sentences[0], "bold"), *map(Text, sentences[1:])
    return Group(*pieces, Text(), *said, *_damaged(results))


def _confirmed_table(confirmation: Confirmation, width: int) -> RenderableType:
    rows = [{"id": entry.config_id, **entry.as_text()} for entry in (*confirmation.entries, *confirmation.earlier)]
    hidden = () if width >= 200 else ("id", *_SEEDS) if width >= 120 else ("id", "search n", *_SEEDS)
    shown = [{name: text for name, text in row.items() if name not in hidden} for row in rows]
    title = f"confirmation: {confirmation.done} of {confirmation.planned} runs on fresh seeds are done"
    return render_rows(shown, title) if fits(shown, width) else render_blocks(shown, title, width, "configuration")


def _table_or_blocks(rows: Sequence[Mapping[str, Any]], title: str, width: int) -> RenderableType:
    """A table that may break its last columns of single seeds, or blocks where even that has no room."""
    rigid = [{name: value for name, value in row.items() if name != "seeds"} for row in rows]
    room = width - 2 - _LEAST_FOR_SEEDS if "seeds" in rows[0] else width
    return render_rows(rows, title) if fits(rigid, room) else render_blocks(rows, title, width, "configuration")


def _mark(entry: ConfigurationSummary) -> str:
    if entry.stopped:
        return "*"
    return "\u2026" if entry.running or entry.begun < entry.planned else ""


def render_rows(
    rows: Sequence[Mapping[str, Any]], title: str | None = None, folded: Sequence[str] = _FOLDED
) -> RenderableType:
    """Rows as a plain table; the columns are those of the first row, those of `folded` broken where need be."""
    if not rows:
        return Text("no rows")
    table = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for name in rows[0]:
        numeric = all(isinstance(row[name], int | float | None) for row in rows)
        table.add_column(
            Text(name), justify="right" if numeric else "left", overflow="fold", no_wrap=name not in folded
        )
    for row in rows:
        # Text: nothing that a user wrote is taken for markup.
        table.add_row(*(Text("" if value is None else str(value)) for value in row.values()))
    return table


def render_records(rows: Sequence[Mapping[str, Any]], width: int) -> RenderableType:
    """Rows as a table, or one under the other where a terminal of `width` columns cannot hold them side by side."""
    cells = [{name: "" if value is None else str(value) for name, value in row.items()} for row in rows]
    widest = [max(len(name), *(len(row[name]) for row in cells)) for name in (cells[0] if cells else ())]
    if sum(widest) + 2 * len(widest) <= width:
        return render_rows(rows)
    label = max(len(name) for name in cells[0])
    lines = []
    for number, row in enumerate(cells, start=1):
        lines.append(f"row {number}")
        lines += [f"  {name:<{label}}  {value}" for name, value in row.items()]
    return Text("\n".join(lines))


def render_status(results: StudyResults, *, decisions: bool = False, width: int = 120) -> RenderableType:
    """How far a study has come: runs by status, rungs, what happened last; with `decisions`, why who was
    stopped. For `width` columns."""
    study = results.study
    runs = run_rows(results)
    search, confirm = results.summary(), results.summary("confirm")
    confirmation = read_confirmation(study, search, confirm)
    counts = Counter(run["status"] for run in runs if run["phase"] == "search")
    counts["not started"] = sum(entry.planned for entry in search) - counts.total()
    is_live = results.live()
    live = "running now" if is_live else "not running"
    if not is_live and counts["running"]:
        counts["interrupted"] = counts.pop("running")
    head = Text.assemble((study["study"], "bold"), f"  {live}  {results.directory}")
    states = Text("runs: ")
    for status, count in counts.items():
        if count:
            states.append(f"{count} {status}  ", style=_STATUS_STYLE.get(status, ""))
    pieces: list[RenderableType] = [head, states]
    if confirmation is not None:
        pieces.append(Text(f"confirmation: {confirmation.done} of {confirmation.planned} runs done"))
    pieces += [Text(_position(results)), Text(_disk(results)), *_launches(results)]
    if counts["interrupted"] or (not is_live and _is_half_confirmed(confirmation)):
        pieces.append(Text(f"go on with: {_last_command(results)}", style="cyan"))
    rungs = _rung_rows(results)
    if rungs:
        pieces += [Text(), render_rows(rungs, "rungs")]
    if decisions:
        pieces += [Text(), render_blocks(_decision_rows(results), "decisions", width, "configuration")]
    pieces += [Text(), render_rows(_event_rows(results), "last events")]
    troubles = [run for run in runs if run["status"] in ("failed", "diverged")]
    pieces += [_trouble(run) for run in troubles[:10]]
    return Group(*pieces, *_damaged(results))


def _is_half_confirmed(confirmation: Confirmation | None) -> bool:
    """Whether runs of phase confirm have begun that are still to be trained."""
    return confirmation is not None and any(entry.confirm.running for entry in confirmation.entries)


def _damaged(results: StudyResults) -> list[Text]:
    """A line about what has been set aside as damaged, if anything has."""
    paths = damaged_files(results.directory)
    if not paths:
        return []
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    text = f"damaged and set aside: {paths[0].relative_to(results.directory)}{more}; see the events of kind *_set_aside"
    return [Text(text, style="yellow")]


def _disk(results: StudyResults) -> str:
    """Bytes of the study's parts, and how many of the checkpoints are kept when it is over."""
    usage = disk_usage(results.directory)
    keep = policy_of(results.study)
    text = f"disk: {', '.join(f'{part} {quantity(size)}B' for part, size in usage.items() if size)}"
    if not usage["checkpoints"]:
        return text
    kept = sum(folder.bytes for folder in checkpoint_folders(results, keep) if folder.is_kept)
    return f"{text}; of the checkpoints {quantity(kept)}B are kept as it stands (checkpoints.keep: {keep})"


def _launches(results: StudyResults) -> list[Text]:
    """How often the study was launched, and the code of the last time."""
    launches = _launch_records(results)
    try:
        last = launches[-1]
        commit = f"commit {last['commit'][:12]}" if last["commit"] else "no commit"
        changes = " with uncommitted changes" if last["dirty"] else ""
        code = f", code in {last['code']['folder']}" if "code" in last else ""
        return [Text(f"launches: {len(launches)}; the last: {commit}{changes}{code}")]
    except (LookupError, TypeError):
        return []


def _launch_records(results: StudyResults) -> list[Any]:
    try:
        return list(json.loads((results.directory / "provenance.json").read_text())["launches"])
    except (OSError, ValueError, LookupError, TypeError):
        return []


def _last_command(results: StudyResults) -> str:
    """The command of the last launch, as the user gave it."""
    try:
        return shlex.join(["rung", *_launch_records(results)[-1]["command"][1:]])
    except (LookupError, TypeError):
        return "the same command as before"


def _position(results: StudyResults) -> str:
    sql = """
        SELECT count(*) AS rows, sum(steps) AS steps, max(latest) AS latest
        FROM (SELECT run_id, max(step) AS steps, max(reported_at) AS latest FROM metrics GROUP BY run_id)
    """
    row = dicts(results.query(sql))[0]
    if not row["rows"]:
        return "no report yet"
    ago = (datetime.now(UTC) - row["latest"]).total_seconds()
    return f"{int(row['steps']):,} steps in {row['rows']} runs; last report {_ago(ago)} ago"


def _rung_rows(results: StudyResults) -> list[dict[str, Any]]:
    sql = """
        SELECT bracket, level, count(*) AS decided, count(*) FILTER (decision = 'continue') AS "went on",
               count(*) FILTER (decision = 'stop') AS stopped, any_value(scheduler) AS scheduler
        FROM decisions GROUP BY bracket, level ORDER BY bracket, level
    """
    return dicts(results.query(sql))


def _decision_rows(results: StudyResults) -> list[dict[str, Any]]:
    sql = """
        SELECT d."order" AS "#", d.level, d.config_id AS id, c.label AS configuration, d.decision, d.reason
        FROM decisions d LEFT JOIN configurations c USING (config_id) ORDER BY d."order"
    """
    return dicts(results.query(sql))


def _event_rows(results: StudyResults, last: int = 6) -> list[dict[str, Any]]:
    sql = f"SELECT time, kind, config_id AS id, message FROM events ORDER BY time DESC LIMIT {last}"
    rows = dicts(results.query(sql))[::-1]
    return [{**row, "time": row["time"].astimezone().strftime("%H:%M:%S")} for row in rows]


def _trouble(run: Mapping[str, Any]) -> Text:
    if run["status"] == "diverged":
        return Text(f"{run['run_id']} diverged at step {run['diverged_step']}", style="yellow")
    last_line = (run["error"] or "").strip().splitlines()[-1:] or ["no text"]
    return Text(f"{run['run_id']} failed: {last_line[0]}", style="red")


def _ago(seconds: float) -> str:
    for limit, size, unit in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{max(0, seconds) / size:.0f} {unit}"
    return f"{seconds / 86400:.0f} days"
