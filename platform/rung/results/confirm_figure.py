"""The confirmed configurations on the seeds that chose them and on fresh ones, side by side."""

import textwrap

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rung.results.confirmation import Confirmation, ConfirmedSummary
from rung.results.export import interval_text
from rung.results.figure_style import FAINT, INK, WIDTH, Look, Looks, Picture, count_text, short_label
from rung.results.rungs import selection_in_words
from rung.results.seed_figures import draw_interval, label_rows, seed_places, value_axis
from rung.results.snapshot import Snapshot
from rung.results.tables import ConfigurationSummary
from rung.results.text import one_line

MAX_ROWS = 16
"""Configurations in the figure; the table has all."""

_LINE = 26
"""Letters on a line of a label."""
_LINES = 4
_HEIGHT = 0.78
"""Inches of a configuration."""
_LANES = {"search": (-0.41, -0.21, -0.1), "confirm": (0.03, 0.27, 0.38)}
"""By phase: between which heights of the row its seeds lie, and where its interval does."""


def confirm_picture(snapshot: Snapshot, looks: Looks) -> Picture | None:
    """Single seeds and means of both phases, one row per confirmed configuration; None before phase confirm."""
    confirmation = snapshot.confirmation
    entries = [] if confirmation is None else confirmation.entries[:MAX_ROWS]
    values = [value for entry in entries for each in (entry.search, entry.confirm) for value in each.values]
    known = [value for value in values if value is not None]
    if confirmation is None or not any(entry.confirm.n for entry in entries):
        return None
    figure = Figure((WIDTH, 0.85 + _HEIGHT * len(entries)), layout="constrained")
    axes = figure.subplots()
    limits, log = value_axis(axes, known)
    for row, entry in enumerate(entries):
        _draw_row(axes, row, entry, looks.of[entry.config_id], limits)
    label_rows(axes, [_row_label(entry) for entry in entries], [_row_values(entry) for entry in entries], 1.25)
    figure.legend(handles=_legend(), loc="outside upper left", ncols=3)
    metric = snapshot.study["metric"]
    axes.set_xlabel(f"{one_line(metric['name'])}, {selection_in_words(metric)}")
    return Picture(
        name="confirm",
        title="Search and confirmation",
        caption=_caption(confirmation, len(entries), metric["mode"], log),
        summary=" ".join(map(_in_words, entries)),
        figure=figure,
    )


def _draw_row(axes: Axes, row: int, entry: ConfirmedSummary, look: Look, limits: tuple[float, float]) -> None:
    if row % 2:
        axes.axhspan(row - 0.5, row + 0.5, color="#F5F5F5", zorder=0, linewidth=0)
    for phase, summary in (("search", entry.search), ("confirm", entry.confirm)):
        low, high, bar = _LANES[phase]
        places = seed_places(summary, low, high)
        drawn = [(value, row + y) for value, y in zip(summary.values, places, strict=True) if value is not None]
        axes.scatter(
            [value for value, _ in drawn],
            [height for _, height in drawn],
            s=13,
            marker="s" if look.dashed else "o",
            facecolors="white" if phase == "search" else look.colour,
            edgecolors=look.colour,
            linewidths=0.9,
            alpha=0.8,
            zorder=3,
        )
        draw_interval(axes, row + bar, summary.interval, look.colour, limits)
    comparable = not entry.search.stopped  # else its value in the search belongs to a smaller budget
    if comparable and entry.search.mean is not None and entry.confirm.mean is not None:
        heights = row + _LANES["search"][2], row + _LANES["confirm"][2]
        axes.plot(
            (entry.search.mean, entry.confirm.mean),
            heights,
            color=FAINT,
            linewidth=0.8,
            linestyle=(0, (2, 2)),
            zorder=2,
        )


def _row_label(entry: ConfirmedSummary) -> str:
    label = short_label(entry.label, _LINES * _LINE)
    return "\n".join(textwrap.wrap(label, _LINE, max_lines=_LINES, placeholder=" …"))


def _row_values(entry: ConfirmedSummary) -> str:
    lines = [f"search {_value(entry.search)}", f"fresh {_value(entry.confirm)}"]
    shrinkage = interval_text(entry.shrinkage)
    return "\n".join([*lines, f"shrinkage {shrinkage}"] if shrinkage else lines)


def _value(summary: ConfigurationSummary) -> str:
    if summary.mean is None:
        return "no value"
    missing = "" if summary.n == summary.planned else f" of {summary.planned}"
    stopped = f", stopped at {count_text(summary.level)}" if summary.stopped and summary.level is not None else ""
    return f"{interval_text(summary.interval)}, n = {summary.n}{missing}{stopped}"


def _legend() -> list[Line2D]:
    marks = {"marker": "o", "markersize": 4, "linestyle": "none", "markeredgecolor": INK, "markeredgewidth": 0.9}
    mean = {"marker": "D", "markersize": 4, "markeredgecolor": "white", "markeredgewidth": 0.6, "linewidth": 1.6}
    return [
        Line2D([], [], markerfacecolor="white", label="seeds of the search", **marks),  # type: ignore[arg-type]
        Line2D([], [], markerfacecolor=INK, label="fresh seeds", **marks),  # type: ignore[arg-type]
        Line2D([], [], color=INK, label="mean with 95\u00a0% interval", **mean),  # type: ignore[arg-type]
    ]


def _caption(confirmation: Confirmation, shown: int, mode: str, log: bool) -> str:
    worse = "lower" if mode == "max" else "higher"
    sentences = [
        "Hollow: the seeds that the configuration was chosen by. Filled: fresh seeds, trained after the choice. Best "
        "on fresh seeds first. Diamonds are means, bars their 95\u00a0% Student-t intervals, cut with an arrow where "
        f"they go on. A mean that is {worse} on fresh seeds shows the optimism of the search; the shrinkage is the "
        "difference, with Welch's 95\u00a0% interval.",
    ]
    if not confirmation.is_over:
        sentences.append(f"{confirmation.done} of {confirmation.planned} confirm runs are done.")
    if log:
        sentences.append("The axis is logarithmic.")
    if shown < len(confirmation.entries):
        sentences.append(f"The best {shown} of {len(confirmation.entries)} are shown.")
    return " ".join(sentences)


def _in_words(entry: ConfirmedSummary) -> str:
    return f"{one_line(entry.label)}: search {_value(entry.search)}; fresh seeds {_value(entry.confirm)}."
