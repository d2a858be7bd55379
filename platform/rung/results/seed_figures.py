"""What single seeds reached in every configuration, and how configurations survived the rungs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from rung.results.export import interval_text
from rung.results.figure_style import (
    FAINT,
    INK,
    WIDTH,
    Look,
    Looks,
    Picture,
    clean,
    count_text,
    short_label,
    value_text,
)
from rung.results.snapshot import Row, Snapshot
from rung.results.tables import ConfigurationSummary

MAX_ROWS = 40
"""Configurations in the strip plot; the table of configurations has all."""

_LOG_SPAN = 100.0
"""Positive values that span such a factor are drawn on a logarithmic axis."""
_NOT_VALUED = ("diverged", "failed", "running")

# ------------------------------------------------------------------------------------------------- seeds


def seed_picture(snapshot: Snapshot, looks: Looks) -> Picture | None:
    """Every seed's value, one row per configuration, best first; None while no run has a value."""
    entries = snapshot.search[:MAX_ROWS]
    values = [value for entry in entries for value in entry.values if value is not None]
    if not values:
        return None
    figure = Figure((WIDTH, 0.7 + _row_height(len(entries)) * len(entries)), layout="constrained")
    axes = figure.subplots()
    limits, log = _value_axis(axes, values)
    for row, entry in enumerate(entries):
        _draw_row(axes, row, entry, looks.of[entry.config_id], limits)
    _label_rows(axes, entries)
    metric = snapshot.study["metric"]
    axes.set_xlabel(f"{clean(metric['name'])}, {selection_in_words(metric)}")
    best = entries[0]
    return Picture(
        name="seeds",
        title="Seeds",
        caption=_seed_caption(snapshot, entries, looks, log),
        summary=f"{clean(metric['name'])} of every seed in {len(entries)} configurations. The best is "
        f"{clean(best.label)}: {interval_text(best.interval)}, n = {best.n}.",
        figure=figure,
    )


def selection_in_words(metric: Row) -> str:
    """Which evaluation is a run's value."""
    match metric.get("select", "last"):
        case "last":
            return "last evaluation of each run"
        case "best":
            return "best evaluation of each run"
        case "mean_of_last":
            return f"mean of each run's last {metric.get('window', 5)} evaluations"
        case other:
            return f"{clean(other)} of each run"


def _row_height(rows: int) -> float:
    return 0.36 if rows <= 12 else 0.27


def _value_axis(axes: Axes, values: Sequence[float]) -> tuple[tuple[float, float], bool]:
    """Limits that show every seed with room around: an interval over two seeds would take all of it."""
    low, high = min(values), max(values)
    log = low > 0 and high / low >= _LOG_SPAN
    if log:
        margin = (high / low) ** 0.2
        limits = low / margin, high * margin
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(numticks=8))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(value_text))
    else:
        margin = 0.2 * (high - low) or 0.1 * abs(high) or 1.0
        limits = low - margin, high + margin
        axes.xaxis.set_major_locator(MaxNLocator(7))
    axes.set_xlim(*limits)
    return limits, log


def _draw_row(
    axes: Axes, row: int, entry: ConfigurationSummary, look: Look, limits: tuple[float, float]
) -> None:
    values = [value for value in entry.values if value is not None]
    if row % 2:
        axes.axhspan(row - 0.5, row + 0.5, color="#F5F5F5", zorder=0, linewidth=0)
    filled = "none" if entry.stopped else look.colour
    axes.scatter(
        values,
        [row + place for place, value in zip(_places(entry), entry.values, strict=True) if value is not None],
        s=16,
        facecolors=filled,
        edgecolors=look.colour,
        linewidths=0.9,
        alpha=0.75,
        zorder=3,
    )
    interval = entry.interval
    if interval.mean is None or interval.n == 1:
        return
    level = row + 0.28
    if interval.low is not None and interval.high is not None:
        ends = float(np.clip(interval.low, *limits)), float(np.clip(interval.high, *limits))
        axes.plot(ends, [level, level], color=look.colour, linewidth=1.6, solid_capstyle="butt", zorder=3)
        for end, true_end, arrow in zip(ends, (interval.low, interval.high), "<>", strict=True):
            if end != true_end:
                axes.plot(
                    [end], [level], marker=arrow, color=look.colour, markersize=4.5, clip_on=False, zorder=4
                )
    axes.plot(
        [interval.mean],
        [level],
        marker="D",
        markersize=4,
        color=look.colour,
        markeredgecolor="white",
        markeredgewidth=0.6,
        zorder=5,
    )


def _places(entry: ConfigurationSummary) -> list[float]:
    """Each seed has its own height within the row: equal values stay visible, and a seed is found again."""
    if len(entry.seeds) == 1:
        return [0.0]
    return [float(place) for place in np.linspace(-0.36, 0.08, len(entry.seeds))]


def _label_rows(axes: Axes, entries: Sequence[ConfigurationSummary]) -> None:
    axes.set_ylim(len(entries) - 0.5, -0.5)
    axes.yaxis.set_major_locator(FixedLocator(range(len(entries))))
    axes.set_yticklabels([_row_label(entry) for entry in entries])
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    axes.spines["left"].set_visible(False)
    for row, entry in enumerate(entries):
        axes.text(
            1.015,
            row,
            _row_value(entry),
            transform=axes.get_yaxis_transform(),
            va="center",
            fontsize=7.5,
            color=INK,
        )


def _row_label(entry: ConfigurationSummary) -> str:
    """The configuration, and below it how many of its runs tell no value."""
    counts = [f"{count} {status}" for status in _NOT_VALUED if (count := getattr(entry, status))]
    label = short_label(entry.label, 44)
    return f"{label}\n{', '.join(counts)}" if counts else label


def _row_value(entry: ConfigurationSummary) -> str:
    if entry.interval.mean is None:
        return "no value"
    stopped = f", stopped at {count_text(entry.level)}" if entry.stopped and entry.level is not None else ""
    return f"{interval_text(entry.interval)}\nn = {entry.n}{stopped}"


def _seed_caption(
    snapshot: Snapshot, entries: Sequence[ConfigurationSummary], looks: Looks, log: bool
) -> str:
    sentences = ["Best configuration first. Circles are single seeds, in each row from top to bottom."]
    if any(entry.interval.low is not None for entry in entries):
        sentences.append(
            "Diamonds are means and bars their 95 % Student-t intervals, cut with an arrow where they go on."
        )
    if any(entry.stopped for entry in entries):
        sentences.append("Hollow: stopped by the scheduler, so the value belongs to a smaller budget.")
    if any(entry.diverged or entry.failed for entry in entries):
        sentences.append("Runs that diverged or failed stand under the configuration's name.")
    if log:
        sentences.append("The axis is logarithmic.")
    if len(snapshot.search) > len(entries):
        sentences.append(f"The best {len(entries)} of {len(snapshot.search)} configurations are shown.")
    sentences.append(looks.in_words())
    return " ".join(filter(None, sentences))


# ------------------------------------------------------------------------------------------------- rungs


def rung_picture(snapshot: Snapshot) -> Picture | None:
    """How many configurations reached each rung, went on and were stopped; None if nothing was decided."""
    rungs = rung_rows(snapshot)
    if not rungs:
        return None
    figure = Figure((WIDTH, 2.5), layout="constrained")
    axes = figure.subplots()
    bottom = np.zeros(len(rungs))
    for kind, style in _RUNG_STYLES.items():
        _stack(axes, kind, [row[kind] for row in rungs], bottom, style)
    axes.set_xlim(-0.6, len(rungs) - 0.4)
    axes.xaxis.set_major_locator(FixedLocator(range(len(rungs))))
    axes.set_xticklabels([row["title"] for row in rungs])
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel("configurations")
    axes.set_xlabel(f"rung ({clean(snapshot.study['budget']['unit'])})")
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.grid(False, axis="x")
    figure.legend(loc="outside right upper")
    return Picture(
        name="rungs",
        title="Rungs",
        caption=_rung_caption(rungs),
        summary="; ".join(_rung_in_words(row) for row in rungs) + ".",
        figure=figure,
    )


_RUNG_STYLES: dict[str, dict[str, Any]] = {
    "went on": {"color": "#4F7CAC"},
    "completed": {"color": "#1F3A5F"},
    "not decided": {"color": "#FFFFFF", "edgecolor": FAINT, "linestyle": "--"},
    "stopped": {"color": "#E3E3E3", "edgecolor": "#8A8A8A", "hatch": "////"},
}
"""Greys and blues, which stand for no configuration."""


def _stack(axes: Axes, kind: str, counts: Sequence[int], bottom: Any, style: dict[str, Any]) -> None:
    """Put one layer of bars with their numbers on those that are there, whose heights are `bottom`."""
    there = np.flatnonzero(counts)
    if not len(there):
        return
    heights = np.asarray(counts)[there]
    bars = axes.bar(there, heights, bottom=bottom[there], width=0.5, label=kind, linewidth=0.6, **style)
    ink = "white" if kind in ("went on", "completed") else INK
    for text in axes.bar_label(bars, label_type="center", color=ink, fontsize=7.5):
        if kind == "stopped":
            text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1.2})
    bottom[there] += heights


def rung_rows(snapshot: Snapshot) -> list[Row]:
    """One row per bracket and rung, and a last one for the budget; empty if nothing was decided.

    `reported` = `went on` + `stopped` (+ `not decided`, for one that has got there and waits).
    """
    brackets = sorted({row["bracket"] for row in snapshot.decisions})
    rows = []
    for bracket, level in sorted({(row["bracket"], row["level"]) for row in snapshot.decisions}):
        here = [row for row in snapshot.decisions if (row["bracket"], row["level"]) == (bracket, level)]
        stopped = sum(row["decision"] == "stop" for row in here)
        waiting = _waiting(snapshot, level) if len(brackets) == 1 else 0
        prefix = f"bracket {bracket}\n" if len(brackets) > 1 else ""
        rows.append(
            {
                "bracket": bracket,
                "level": level,
                "title": f"{prefix}{count_text(level)}",
                "reported": len(here) + waiting,
                "went on": len(here) - stopped,
                "stopped": stopped,
                "not decided": waiting,
                "completed": 0,
            }
        )
    return [*rows, _budget_row(snapshot)] if rows else []


def _waiting(snapshot: Snapshot, level: int) -> int:
    """Configurations that have reached a rung where nothing was decided about them yet."""
    judged = {row["config_id"] for row in snapshot.decisions if row["level"] >= level}
    return sum(
        entry.running > 0
        and entry.level is not None
        and entry.level >= level
        and entry.config_id not in judged
        for entry in snapshot.search
    )


def _budget_row(snapshot: Snapshot) -> Row:
    amount = snapshot.study["budget"]["amount"]
    completed = sum(is_through(entry) for entry in snapshot.search)
    counts = {"reported": completed, "went on": 0, "stopped": 0, "not decided": 0, "completed": completed}
    return {"bracket": None, "level": amount, "title": f"{count_text(amount)}\n(budget)", **counts}


def is_through(entry: ConfigurationSummary) -> bool:
    """Whether all of a configuration's runs have come to an end of their own, at least one by completing."""
    return entry.completed > 0 and entry.completed + entry.diverged + entry.failed == entry.planned


def _rung_caption(rungs: Sequence[Row]) -> str:
    sentences = ["Configurations that reached each rung, and what the scheduler decided about them."]
    if any(row["bracket"] for row in rungs):
        sentences.append("A bracket compares its own configurations only.")
    if any(row["not decided"] for row in rungs):
        sentences.append("Not decided: got there and waits for others.")
    return " ".join(sentences)


def _rung_in_words(row: Row) -> str:
    where = str(row["title"]).replace("\n", " ")
    if row["completed"]:
        return f"{row['completed']} completed at {where}"
    return f"{row['reported']} reached {where}, of which {row['went on']} went on and {row['stopped']} were stopped"
