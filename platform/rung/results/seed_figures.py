"""What single seeds reached in every configuration, and how configurations survived the rungs."""

import textwrap
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
    count_text,
    short_label,
    value_text,
)
from rung.results.rungs import RungCount, rung_counts, selection_in_words
from rung.results.snapshot import Snapshot
from rung.results.statistics import MeanInterval
from rung.results.tables import ConfigurationSummary
from rung.results.text import one_line

MAX_ROWS = 30
"""Configurations in the strip plot; the table of configurations has all."""

_LINE = 34
"""Letters on a line of a label."""
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
    height = _row_height(len(entries), max(_row_label(entry).count("\n") for entry in entries) + 1)
    figure = Figure((WIDTH, 0.6 + height * len(entries)), layout="constrained")
    axes = figure.subplots()
    limits, log = value_axis(axes, values)
    for row, entry in enumerate(entries):
        _draw_row(axes, row, entry, looks.of[entry.config_id], limits)
    label_rows(axes, [_row_label(entry) for entry in entries], [_row_value(entry) for entry in entries])
    metric = snapshot.study["metric"]
    axes.set_xlabel(f"{one_line(metric['name'])}, {selection_in_words(metric)}")
    best = entries[0]
    return Picture(
        name="seeds",
        title="Seeds",
        caption=_seed_caption(snapshot, entries, looks, log),
        summary=f"{one_line(metric['name'])} of every seed in {len(entries)} configurations. First is "
        f"{one_line(best.label)}: {interval_text(best.interval)}, n = {best.n}.",
        figure=figure,
    )


def _row_height(rows: int, lines: int) -> float:
    """Inches, for labels of so many lines."""
    return max(0.34 if rows <= 12 else 0.27, 0.06 + 0.11 * lines)


def value_axis(axes: Axes, values: Sequence[float]) -> tuple[tuple[float, float], bool]:
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


def _draw_row(axes: Axes, row: int, entry: ConfigurationSummary, look: Look, limits: tuple[float, float]) -> None:
    values = [value for value in entry.values if value is not None]
    if row % 2:
        axes.axhspan(row - 0.5, row + 0.5, color="#F5F5F5", zorder=0, linewidth=0)
    filled = "none" if entry.stopped else look.colour
    axes.scatter(
        values,
        [row + place for place, value in zip(seed_places(entry), entry.values, strict=True) if value is not None],
        s=16,
        marker="s" if look.dashed else "o",  # where its colour stands for another one too
        facecolors=filled,
        edgecolors=look.colour,
        linewidths=0.9,
        alpha=0.75,
        zorder=3,
    )
    draw_interval(axes, row + 0.28, entry.interval, look.colour, limits)


def draw_interval(axes: Axes, level: float, interval: MeanInterval, colour: str, limits: tuple[float, float]) -> None:
    """The mean over several values as a diamond and its interval as a bar at this height, cut at the limits."""
    if interval.mean is None or interval.n == 1:
        return
    if interval.low is not None and interval.high is not None:
        ends = float(np.clip(interval.low, *limits)), float(np.clip(interval.high, *limits))
        axes.plot(ends, [level, level], color=colour, linewidth=1.6, solid_capstyle="butt", zorder=3)
        for end, true_end, arrow in zip(ends, (interval.low, interval.high), "<>", strict=True):
            marker, size = ("|", 6.0) if end == true_end else (arrow, 4.5)
            axes.plot([end], [level], marker=marker, markersize=size, color=colour, clip_on=False, zorder=4)
    axes.plot(
        [interval.mean],
        [level],
        marker="D",
        markersize=4,
        color=colour,
        markeredgecolor="white",
        markeredgewidth=0.6,
        zorder=5,
    )


def seed_places(entry: ConfigurationSummary, low: float = -0.36, high: float = 0.08) -> list[float]:
    """Each seed has its own height within the row: equal values stay visible, and a seed is found again."""
    if len(entry.seeds) == 1:
        return [0.0 if low < 0 < high else (low + high) / 2]
    return [float(place) for place in np.linspace(low, high, len(entry.seeds))]


def label_rows(axes: Axes, labels: Sequence[str], values: Sequence[str], linespacing: float = 1.05) -> None:
    """Rows 0, 1, ... from the top, each with its label on the left and its values on the right of the axes."""
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.yaxis.set_major_locator(FixedLocator(range(len(labels))))
    axes.set_yticklabels(labels, fontsize=7, linespacing=1.05)
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    axes.spines["left"].set_visible(False)
    right = axes.get_yaxis_transform()
    for row, text in enumerate(values):
        axes.text(1.015, row, text, transform=right, va="center", fontsize=7, linespacing=linespacing, color=INK)


def _row_label(entry: ConfigurationSummary) -> str:
    """The configuration on at most two lines, and below it how many of its runs tell no value."""
    counts = [f"{count} {status}" for status in _NOT_VALUED if (count := getattr(entry, status))]
    lines = textwrap.wrap(short_label(entry.label, 2 * _LINE - 6), _LINE)[:2]
    return "\n".join([*lines, ", ".join(counts)] if counts else lines)


def _row_value(entry: ConfigurationSummary) -> str:
    if entry.interval.mean is None:
        return "no value"
    stopped = f", stopped at {count_text(entry.level)}" if entry.stopped and entry.level is not None else ""
    return f"{interval_text(entry.interval)}\nn = {entry.n}{stopped}"


def _seed_caption(snapshot: Snapshot, entries: Sequence[ConfigurationSummary], looks: Looks, log: bool) -> str:
    squares = any(looks.of[entry.config_id].dashed for entry in entries)
    marks = "Circles (squares where a colour comes again)" if squares else "Circles"
    first = "Best configuration first" if snapshot.confirmation is None else "The values of the search, best first"
    sentences = [f"{first}. {marks} are single seeds, in each row from top to bottom."]
    if any(entry.interval.low is not None for entry in entries):
        sentences.append(
            "Diamonds are means and bars their 95\u00a0% Student-t intervals, cut with an arrow where they go on."
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
    rungs = rung_counts(snapshot)
    if not rungs:
        return None
    figure = Figure((WIDTH, 2.3), layout="constrained")
    axes = figure.subplots()
    bottom = np.zeros(len(rungs))
    for kind, style in _RUNG_STYLES.items():
        _stack(axes, kind, [getattr(rung, kind) for rung in rungs], bottom, style)
    axes.set_xlim(-0.6, len(rungs) - 0.4)
    axes.xaxis.set_major_locator(FixedLocator(range(len(rungs))))
    axes.set_xticklabels([_rung_title(rung, rungs) for rung in rungs])
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel("configurations")
    axes.set_xlabel(f"rung ({one_line(snapshot.study['budget']['unit'])})")
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.grid(False, axis="x")
    figure.legend(loc="outside right upper")
    return Picture(
        name="rungs",
        title="Rungs",
        caption=_rung_caption(rungs),
        summary="; ".join(map(_rung_in_words, rungs)) + ".",
        figure=figure,
    )


_RUNG_STYLES: dict[str, dict[str, Any]] = {
    "went_on": {"color": "#4F7CAC"},
    "completed": {"color": "#1F3A5F"},
    "not_decided": {"color": "#FFFFFF", "edgecolor": FAINT, "linestyle": "--"},
    "stopped": {"color": "#E3E3E3", "edgecolor": "#8A8A8A", "hatch": "////"},
}
"""By the field of RungCount. Greys and blues, which stand for no configuration."""


def _stack(axes: Axes, kind: str, counts: Sequence[int], bottom: Any, style: dict[str, Any]) -> None:
    """Put one layer of bars with their numbers on those that are there, whose heights are `bottom`."""
    there = np.flatnonzero(counts)
    if not len(there):
        return
    heights = np.asarray(counts)[there]
    label = kind.replace("_", " ")
    bars = axes.bar(there, heights, bottom=bottom[there], width=0.5, label=label, linewidth=0.6, **style)
    ink = "white" if kind in ("went_on", "completed") else INK
    for text in axes.bar_label(bars, label_type="center", color=ink, fontsize=7.5):
        if kind == "stopped":
            text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1.2})
    bottom[there] += heights


def _rung_title(rung: RungCount, rungs: Sequence[RungCount]) -> str:
    if rung.bracket is None:
        return f"{count_text(rung.level)} (budget)"
    several = any(other.bracket for other in rungs)
    return f"{count_text(rung.level)}\nbracket {rung.bracket}" if several else count_text(rung.level)


def _rung_caption(rungs: Sequence[RungCount]) -> str:
    sentences = ["Configurations that reached each rung, and what the scheduler decided about them."]
    if any(rung.bracket for rung in rungs):
        sentences.append("A bracket compares its own configurations only.")
    if any(rung.not_decided for rung in rungs):
        sentences.append("Not decided: got there and waits for others.")
    return " ".join(sentences)


def _rung_in_words(rung: RungCount) -> str:
    if rung.bracket is None:
        return f"{rung.completed} completed at {rung.level:,}"
    return f"of {rung.reported} that reached {rung.level:,}, {rung.went_on} went on and {rung.stopped} were stopped"
