"""Learning curves: one thin line per seed, the mean over seeds with its interval, and how runs ended."""

import math
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
    SymmetricalLogLocator,
)

from rung.results.curves import Array, Band, Curve, RunCurves, band, thin
from rung.results.figure_style import (
    FAINT,
    GREY,
    INK,
    WIDTH,
    Look,
    Looks,
    Picture,
    count_text,
    short_label,
    value_text,
)
from rung.results.snapshot import Snapshot
from rung.results.text import one_line

GROUP_PREFIX = "loss_and_accuracy_"

_POINTS = 100_000
"""Points of all lines of all curve figures together: what keeps the report's page below 3 MB."""
_LOSSES = ("loss", "perplexity")
_END_MARKS = {
    "stopped": ("|", 7, "stopped by the scheduler"),
    "diverged": ("x", 6, "diverged"),
    "failed": ("1", 8, "failed"),
}
"""Marker, its size in points and its meaning, by how a run ended before its time."""


_Handle = tuple[str, Line2D]
"""A legend's text and the line that it explains."""

Reference = tuple[str, float]
"""Label and value of a line that theory gives."""


class CurveDrawer:
    """Draws metrics of a study over the optimizer steps, all in the same colours and with the same step axis."""

    def __init__(self, snapshot: Snapshot, looks: Looks, log_steps: bool | None) -> None:
        self._snapshot = snapshot
        self._looks = looks
        self._statuses = snapshot.statuses
        self._runs: dict[str, list[RunCurves]] = {config_id: [] for config_id in looks.of}
        for run in snapshot.curves:
            self._runs.setdefault(run.config_id, []).append(run)
        self._log_steps = self._reports_thin_out() if log_steps is None else log_steps

    def picture(self, name: str, title: str, metrics: Sequence[str]) -> Picture | None:
        """The metrics that were reported, two panels to a row; None if there are none."""
        metrics = [metric for metric in metrics if any(metric in run.curves for run in self._snapshot.curves)]
        if not metrics:
            return None
        figure, panels = self._panels(metrics)
        any_log = False
        for panel, metric in zip(panels, metrics, strict=True):
            # The losses of training and validation are compared, so they have one scale; so have the accuracies.
            curves = [
                curve for other in metrics if _quantity(other) == _quantity(metric) for curve in self._curves(other)
            ]
            log = is_log(metric, curves)
            any_log |= log
            self._draw(panel, metric, log)
            self._scale_steps(panel)
            references = self._references(metric)
            limits = value_limits(metric, [*curves, *_as_curves(references)], log=log)
            limits = _with_room_below(limits, log=log) if references else limits
            _scale_values(panel, metric, limits, log=log)
            _draw_references(panel, metric, references)
        self._explain(figure, panels)
        return Picture(
            name=name,
            title=title,
            caption=self._caption(metrics, any_log),
            summary=self._summary(title, metrics),
            figure=figure,
        )

    # What is drawn.

    def _draw(self, axes: Axes, metric: str, log: bool) -> None:
        # The best last, on top.
        for config_id, look in reversed(list(self._looks.of.items())):
            runs = [run for run in self._runs[config_id] if metric in run.curves]
            if runs:
                self._draw_configuration(axes, look, runs, metric, log)

    def _draw_configuration(self, axes: Axes, look: Look, runs: Sequence[RunCurves], metric: str, log: bool) -> None:
        curves = [run.curves[metric] for run in runs]
        over_runs = band(curves, log=log)
        in_detail = self._is_in_detail(look)
        if in_detail and len(runs) > 1:
            self._draw_band(axes, look, over_runs)
            self._draw_lines(axes, look, curves)
        self._draw_mean(axes, look, over_runs, in_detail)
        if in_detail:
            self._mark_ends(axes, look, runs, metric)

    def _is_in_detail(self, look: Look) -> bool:
        """Whether seeds, interval and ends are drawn, and not the mean alone."""
        return look.highlighted and not (self._looks.is_crowded and self._looks.bar)

    def _draw_lines(self, axes: Axes, look: Look, curves: Iterable[Curve]) -> None:
        lines = [np.column_stack(self._thinned(curve.steps, curve.values)) for curve in curves]
        axes.add_collection(
            LineCollection(lines, colors=look.colour, linewidths=0.6, alpha=0.45, capstyle="round"),
            autolim=False,
        )

    def _draw_band(self, axes: Axes, look: Look, over_runs: Band) -> None:
        there = over_runs.runs > 1
        steps, low, high = over_runs.steps[there], over_runs.low[there], over_runs.high[there]
        if len(steps) > 1:
            kept = np.union1d(self._kept(steps, low), self._kept(steps, high))
            axes.fill_between(steps[kept], low[kept], high[kept], color=look.colour, alpha=0.13, linewidth=0)

    def _draw_mean(self, axes: Axes, look: Look, over_runs: Band, in_detail: bool) -> None:
        """Solid where all runs of the configuration report, dotted where only some of them still do."""
        kept = self._kept(over_runs.steps, over_runs.mean)
        steps, mean, runs = over_runs.steps[kept], over_runs.mean[kept], over_runs.runs[kept]
        whole = int(np.flatnonzero(runs == runs.max())[-1]) + 1
        style: dict[str, Any] = {"color": look.colour, "linewidth": 1.5 if in_detail else 0.8}
        if not look.highlighted:
            style |= {"linewidth": 0.5, "alpha": 0.6, "zorder": 1}
        axes.plot(steps[:whole], mean[:whole], linestyle="--" if look.dashed else "-", **style)
        if whole < len(steps):
            axes.plot(steps[whole - 1 :], mean[whole - 1 :], linestyle=":", **style)

    def _mark_ends(self, axes: Axes, look: Look, runs: Iterable[RunCurves], metric: str) -> None:
        for run in runs:
            status = self._statuses.get(run.run_id, "")
            if status in _END_MARKS:
                marker, size, _ = _END_MARKS[status]
                curve = run.curves[metric]
                axes.plot(
                    curve.steps[-1:],
                    curve.values[-1:],
                    marker=marker,
                    markersize=size,
                    markeredgewidth=1.4,
                    color=look.colour,
                    linestyle="",
                    clip_on=False,
                )

    def _references(self, metric: str) -> list[Reference]:
        """What theory says about a metric: label and value."""
        lines = self._snapshot.study.get("references", {}).get(metric, [])
        return [(str(line["label"]), float(line["value"])) for line in lines]

    # Axes.

    def _panels(self, metrics: Sequence[str]) -> tuple[Figure, list[Axes]]:
        columns = min(2, len(metrics))
        rows = math.ceil(len(metrics) / 2)
        height = 3.6 if columns == 1 else 0.5 + 2.3 * rows
        figure = Figure((WIDTH, height + self._legend_rows * 0.17), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False)
        panels = list(grid.flat)
        for unused in panels[len(metrics) :]:
            unused.remove()
        for panel in panels[max(0, len(metrics) - columns) : len(metrics)]:
            panel.set_xlabel("optimizer steps")
        return figure, panels[: len(metrics)]

    def _scale_steps(self, axes: Axes) -> None:
        last = max(float(curve.steps[-1]) for run in self._snapshot.curves for curve in run.curves.values())
        if self._log_steps:
            axes.set_xscale("symlog", linthresh=1, linscale=0.3)
            axes.xaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=1))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.set_xlim(0, max(last, 1) * 1.1)
        else:
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            axes.set_xlim(-0.01 * max(last, 1), max(last, 1) * 1.02)
            self._draw_rungs(axes)
        axes.xaxis.set_major_formatter(FuncFormatter(count_text))

    def _draw_rungs(self, axes: Axes) -> None:
        """The steps at which configurations were compared, as faint lines."""
        if self._snapshot.study["budget"]["unit"] == "steps":
            for level in sorted({row["level"] for row in self._snapshot.decisions}):
                axes.axvline(level, color=FAINT, linewidth=0.6, linestyle=(0, (1, 3)), zorder=0.5)

    # Legend or colour bar, and words.

    def _explain(self, figure: Figure, panels: Sequence[Axes]) -> None:
        if self._looks.bar is not None:
            bar = self._looks.bar
            scale = figure.colorbar(ScalarMappable(bar.norm, bar.colormap), ax=list(panels), aspect=30, pad=0.02)
            scale.set_label(one_line(bar.path))
            scale.ax.yaxis.set_major_locator(FixedLocator(bar.ticks()))
            scale.ax.yaxis.set_minor_locator(NullLocator())
            scale.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
            scale.ax.yaxis.set_minor_formatter(NullFormatter())
            scale.outline.set_visible(False)
        if self._legend_rows:
            self._legend(figure)

    def _legend(self, figure: Figure) -> None:
        """Row by row, the ways in which runs ended on a row of their own."""
        columns = self._legend_columns
        blank = ("", Line2D([], [], linestyle=""))
        rows = [blank] * (self._legend_rows * columns)
        marks = -(-len(self._handles[0]) // columns) * columns
        rows[: len(self._handles[0])] = self._handles[0]
        rows[marks : marks + len(self._handles[1])] = self._handles[1]
        by_column = [entry for column in range(columns) for entry in rows[column::columns]]
        legend = figure.legend(
            [line for _, line in by_column],
            [" "] * len(by_column),
            loc="outside lower center",
            ncols=columns,
        )
        # Only now, since a label that begins with "_" would be left out.
        for shown, (text, _) in zip(legend.get_texts(), by_column, strict=True):
            shown.set_text(text)

    @cached_property
    def _handles(self) -> tuple[list[_Handle], list[_Handle]]:
        """Configurations, unless a colour bar shows them, and ways to end."""
        return self._configuration_handles(), self._end_handles()

    def _configuration_handles(self) -> list[_Handle]:
        if self._looks.bar is not None:
            return []
        entries = []
        for config_id in self._looks.highlighted:
            look = self._looks.of[config_id]
            line = Line2D([], [], color=look.colour, linewidth=1.8, linestyle="--" if look.dashed else "-")
            entries.append((short_label(self._snapshot.labels.get(config_id, config_id)), line))
        if rest := len(self._looks.of) - len(self._looks.highlighted):
            entries.append((f"{rest} others", Line2D([], [], color=GREY, linewidth=1.2)))
        return entries

    def _end_handles(self) -> list[_Handle]:
        marked = [run for run in self._snapshot.curves if self._is_in_detail(self._looks.of[run.config_id])]
        shown = {self._statuses.get(run.run_id) for run in marked}
        style: dict[str, Any] = {"markeredgewidth": 1.4, "linestyle": "", "color": INK}
        return [
            (meaning, Line2D([], [], marker=marker, markersize=size, **style))
            for status, (marker, size, meaning) in _END_MARKS.items()
            if status in shown
        ]

    @property
    def _legend_columns(self) -> int:
        longest = max((len(text) for part in self._handles for text, _ in part), default=1)
        most = max(map(len, self._handles))
        return max(1, min(most, int(WIDTH / (0.42 + 0.058 * longest))))

    @property
    def _legend_rows(self) -> int:
        return sum(math.ceil(len(part) / self._legend_columns) for part in self._handles)

    def _caption(self, metrics: Sequence[str], any_log: bool) -> str:
        most = max((len(runs) for runs in self._runs.values()), default=0)
        sentences = [f"{_listing(map(one_line, metrics))} over the optimizer steps."]
        crowded = self._looks.is_crowded
        if most < 2:
            sentences.append("One line per configuration, which has one seed: there is no interval.")
        elif crowded and self._looks.bar:
            sentences.append(f"One line per configuration: the mean over its seeds (n = {self._n}).")
        else:
            of = " of the coloured configurations" if crowded and not self._looks.bar else ""
            sentences.append(
                f"Thin lines are single seeds{of}, thick lines their mean, shaded its 95\u00a0% Student-t interval "
                f"(n = {self._n} per configuration)."
            )
            sentences.append("A mean is dotted where some of its runs have ended or not got that far.")
        if any_log and most > 1:
            sentences.append("On a logarithmic axis the mean is geometric.")
        sentences.append(self._looks.in_words())
        if not self._log_steps and self._snapshot.decisions:
            sentences.append("Dotted upright lines are rungs.")
        lines = dict.fromkeys(line for metric in metrics for line in self._references(metric))
        if lines:
            listed = _listing(f"{one_line(label)} {value:.4g}" for label, value in lines)
            sentences.append(f"Dashed level lines are theory: {listed}.")
        return " ".join(filter(None, sentences))

    @property
    def _n(self) -> str:
        counts = sorted(len(runs) for runs in self._runs.values() if runs)
        return f"{counts[0]}" if counts[0] == counts[-1] else f"{counts[0]} to {counts[-1]}"

    def _summary(self, title: str, metrics: Sequence[str]) -> str:
        shown = sum(bool(runs) for runs in self._runs.values())
        return f"{title}: {_listing(map(one_line, metrics))} over optimizer steps for {shown} configurations."

    # Data.

    def _curves(self, metric: str) -> list[Curve]:
        return [run.curves[metric] for run in self._snapshot.curves if metric in run.curves]

    def _reports_thin_out(self) -> bool:
        """Whether half of the reports lie in the first twentieth of the steps."""
        steps = [curve.steps for run in self._snapshot.curves for curve in run.curves.values()]
        last = max((float(each[-1]) for each in steps), default=0.0)
        return bool(steps) and last >= 20 and float(np.median(np.concatenate(steps))) < last / 20

    def _kept(self, steps: Array, values: Array) -> Any:
        # On a logarithmic axis equal stretches are equal ratios.
        return thin(np.log1p(steps) if self._log_steps else steps, values, self._points_per_line)

    def _thinned(self, steps: Array, values: Array) -> tuple[Array, Array]:
        kept = self._kept(steps, values)
        return steps[kept], values[kept]

    @cached_property
    def _points_per_line(self) -> int:
        panels = len({metric for run in self._snapshot.curves for metric in run.curves}) + 1
        lines = len(self._looks.of)
        if not (self._looks.is_crowded and self._looks.bar):
            lines += sum(2 + len(self._runs[config_id]) for config_id in self._looks.highlighted)
        return max(16, min(300, _POINTS // (panels * max(1, lines))))


def _scale_values(axes: Axes, metric: str, limits: tuple[float, float], *, log: bool) -> None:
    axes.set_ylabel(f"{axis_label(metric)}, log scale" if log else axis_label(metric))
    if log:
        axes.set_yscale("log")
        decades = math.log10(limits[1] / limits[0])
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if decades > 3 else (1.0, 2.0, 5.0), numticks=12))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(value_text))
    axes.set_ylim(*limits)


def _draw_references(axes: Axes, metric: str, references: Iterable[Reference]) -> None:
    """Level lines over the whole width, each with its label at the right end, on the side that curves come to last."""
    falls = _quantity(metric) in _LOSSES
    for label, value in references:
        axes.axhline(value, color=GREY, linewidth=0.8, linestyle=(0, (5, 3)), zorder=0.6)
        axes.annotate(
            one_line(label),
            xy=(1, value),
            xycoords=axes.get_yaxis_transform(),
            xytext=(-3, -2 if falls else 2),
            textcoords="offset points",
            ha="right",
            va="top" if falls else "bottom",
            fontsize=6,
            color=INK,
        )


def _with_room_below(limits: tuple[float, float], *, log: bool) -> tuple[float, float]:
    """Limits with room for a label below the lowest line."""
    low, high = limits
    return (low / (high / low) ** 0.05 if log else low - 0.05 * (high - low)), high


def _as_curves(references: Iterable[Reference]) -> list[Curve]:
    return [Curve(np.zeros(1), np.array([value])) for _, value in references]


def axis_label(metric: str) -> str:
    """`validation/order_2/accuracy` as "validation order_2 accuracy (fraction)"."""
    words = one_line(metric).replace("/", " ")
    if metric == "parameter_norm":
        return "L2 norm of the parameters"
    return f"{words} (fraction)" if metric.rpartition("/")[2] == "accuracy" else words


def is_log(metric: str, curves: Iterable[Curve]) -> bool:
    """Whether a metric is drawn on a logarithmic axis: a loss that spans a factor of 4, anything that spans 1000.

    Never if a value is negative. Zeros are left out, as they have no place there.
    """
    values = np.concatenate([curve.values for curve in curves])
    positive = values[values > 0]
    if _quantity(metric) == "accuracy" or not len(positive) or values.min() < 0:
        return False
    return bool(positive.max() / positive.min() >= (4 if _quantity(metric) in _LOSSES else 1000))


def value_limits(metric: str, curves: Iterable[Curve], *, log: bool) -> tuple[float, float]:
    """Limits that show every seed; intervals over few seeds may be far wider and are cut off."""
    values = np.concatenate([curve.values for curve in curves])
    if log:
        positive = values[values > 0]
        margin = (positive.max() / positive.min()) ** 0.04
        return float(positive.min() / margin), float(positive.max() * margin)
    low, high = float(values.min()), float(values.max())
    if _quantity(metric) == "accuracy" and low >= 0 and high <= 1:
        return -0.03, 1.03
    margin = 0.04 * (high - low) or 0.1 * abs(high) or 1.0
    return low - margin, high + margin


def _quantity(metric: str) -> str:
    return metric.rpartition("/")[2]


def _listing(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last
