"""Answers before and after: the part that is right on either side, and the questions that changed."""

import textwrap
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from rung.results.answers import ConfigurationChange
from rung.results.answers_words import Names, step_names
from rung.results.export import interval_text
from rung.results.figure_style import FAINT, INK, WIDTH, Picture, short_label
from rung.results.seed_figures import draw_interval, label_rows
from rung.results.text import one_line

MAX_ROWS = 12
"""Configurations in the figure; the table has all."""

_BEFORE, _AFTER = -0.16, 0.16
"""Heights within a row."""
_MEAN = 0.16
"""How far the mean over seeds is from them, outwards."""
_TO_RIGHT, _TO_WRONG = "#0072B2", "#D55E00"
_LINE, _LINES = 24, 3


def answers_picture(changes: Sequence[ConfigurationChange], names: Names | None = None) -> Picture | None:
    """One row per configuration, best first; None without any. `names` as for `conclusions`."""
    shown = changes[:MAX_ROWS]
    if not shown:
        return None
    figure = Figure((WIDTH, 1.0 + 0.52 * len(shown)), layout="constrained")
    shares, changed = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    for row, change in enumerate(shown):
        _draw_shares(shares, row, change)
        _draw_changed(changed, row, change)
    labels = [_label(change) for change in shown]
    label_rows(changed, labels, [_values(change) for change in shown])
    label_rows(shares, labels, [])
    changed.tick_params(axis="y", labelleft=False)
    shares.set_xlim(-0.03, 1.03)
    shares.set_xlabel("part of the questions answered right")
    _finish_changed(changed, shown)
    figure.legend(handles=_legend(names), loc="outside upper left", ncols=4)
    return Picture(
        name="answers",
        title="Answers before and after",
        caption=_caption(changes, names),
        summary=" ".join(_in_words(change, names or step_names(change.runs[0])) for change in shown),
        figure=figure,
    )


def _draw_shares(axes: Axes, row: int, change: ConfigurationChange) -> None:
    if row % 2:
        axes.axhspan(row - 0.5, row + 0.5, color="#F5F5F5", zorder=0, linewidth=0)
    for run in change.runs:
        pair = run.counts.right_before / run.counts.n, run.counts.right_after / run.counts.n
        axes.plot(pair, (row + _BEFORE, row + _AFTER), color=FAINT, linewidth=0.7, zorder=2)
        for value, level, face in zip(pair, (_BEFORE, _AFTER), ("white", INK), strict=True):
            axes.scatter([value], [row + level], s=15, facecolors=face, edgecolors=INK, linewidths=0.8, zorder=4)
    for interval, level, away in ((change.before, row + _BEFORE, -_MEAN), (change.after, row + _AFTER, _MEAN)):
        if change.is_over_seeds:
            draw_interval(axes, level + away, interval, INK, (0.0, 1.0))
        elif interval.low is not None and interval.high is not None:
            axes.plot((interval.low, interval.high), (level, level), color=INK, linewidth=1.2, zorder=3)


def _draw_changed(axes: Axes, row: int, change: ConfigurationChange) -> None:
    """Bars to the right and to the left: parts of the questions, means over runs."""
    if row % 2:
        axes.axhspan(row - 0.5, row + 0.5, color="#F5F5F5", zorder=0, linewidth=0)
    gained, lost = (
        sum(getattr(run.counts, kind) / run.counts.n for run in change.runs) / len(change.runs)
        for kind in ("gained", "lost")
    )
    style: dict[str, Any] = {"height": 0.42, "linewidth": 0, "zorder": 3}
    axes.barh([row], [gained], color=_TO_RIGHT, **style)
    axes.barh([row], [-lost], color=_TO_WRONG, **style)


def _finish_changed(axes: Axes, shown: Sequence[ConfigurationChange]) -> None:
    runs = [run.counts for change in shown for run in change.runs]
    gained, lost = (max(getattr(counts, kind) / counts.n for counts in runs) for kind in ("gained", "lost"))
    least = 0.25 * max(gained, lost) or 0.05  # no side without room: that nothing changed there is to be seen
    axes.set_xlim(-1.1 * max(lost, least), 1.1 * max(gained, least))
    axes.axvline(0, color=FAINT, linewidth=0.8, zorder=4)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{abs(value):g}"))
    axes.set_xlabel("← to wrong · part changed · to right →")


def _label(change: ConfigurationChange) -> str:
    label = short_label(change.label or "base", _LINE * _LINES)
    return "\n".join(textwrap.wrap(label, _LINE, max_lines=_LINES, placeholder=" …"))


def _values(change: ConfigurationChange) -> str:
    counts = change.runs[0].counts
    of = f"{len(change.runs)} seeds" if change.is_over_seeds else f"n = {counts.n:,}"
    return f"{_signed(interval_text(change.difference))}\n{of}"


def _signed(text: str) -> str:
    return text if text.startswith("-") else f"+{text}"


def _legend(names: Names | None) -> list[Any]:
    mark = {"marker": "o", "markersize": 4, "linestyle": "none", "markeredgecolor": INK, "markeredgewidth": 0.8}
    before, after = (f"before: {names.before}", f"after: {names.after}") if names else ("before", "after")
    return [
        Line2D([], [], markerfacecolor="white", label=before, **mark),  # type: ignore[arg-type]
        Line2D([], [], markerfacecolor=INK, label=after, **mark),  # type: ignore[arg-type]
        Patch(color=_TO_RIGHT, label="changed to right"),
        Patch(color=_TO_WRONG, label="changed to wrong"),
    ]


def _caption(changes: Sequence[ConfigurationChange], names: Names | None) -> str:
    sentences = ["The same questions, before (hollow) and after (filled); at the right the difference."]
    if names is None:
        sentences.append("Before and after are the first and the last step at which answers were recorded.")
    if any(change.is_over_seeds for change in changes[:MAX_ROWS]):
        sentences.append(
            "A line is one seed; diamonds and bars are means over seeds with 95\u00a0% Student-t intervals, parts that "
            "changed are means over seeds."
        )
    if not all(change.is_over_seeds for change in changes[:MAX_ROWS]):
        sentences.append(
            "With one seed bars are 95\u00a0% Wilson intervals over the questions, and the difference has the score "
            "interval of paired proportions."
        )
    if len(changes) > MAX_ROWS:
        sentences.append(f"The first {MAX_ROWS} of {len(changes)} configurations are shown.")
    return " ".join(sentences)


def _in_words(change: ConfigurationChange, names: Names) -> str:
    sides = ((names.before, change.before), (names.after, change.after))
    right = ", ".join(f"{names.preposition} {name} {interval_text(interval)}" for name, interval in sides)
    return f"{one_line(change.label) or 'base'}: right {right}."
