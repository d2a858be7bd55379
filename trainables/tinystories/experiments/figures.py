"""Figures of experiments: losses by step and by wall clock, learning-rate schedule, several experiments together.

They have the look of the platform's figures: 7.2 inches wide, colours of Okabe and Ito for colour-blind readers, no
user settings, the same bytes for the same rows.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from rung.results.curve_figures import is_log, value_limits
from rung.results.curves import Array, Curve, thin
from rung.results.figure_style import (
    COLOURS,
    INK,
    WIDTH,
    count_text,
    png_bytes,
    settle,
    short_label,
    styled,
    value_text,
)
from rung.results.files import replace_file
from trainables.tinystories.experiments.metrics_file import MetricRow

_TRAIN, _VALIDATION = COLOURS[0], COLOURS[1]
_POINTS = 1000
"""Points of a line at most: more than the picture has columns."""
_MARKED = 40
"""Evaluations up to which each is marked by a dot."""
_DIVERGED: dict[str, Any] = {"marker": "x", "markersize": 6, "markeredgewidth": 1.4, "linestyle": ""}
_LOSS = "loss (nats per token)"
_TIME_UNITS = ((3600.0, "h"), (60.0, "min"), (1.0, "s"))

Read = Callable[[MetricRow], float | None]


@dataclass(frozen=True)
class Line:
    """What one experiment brings into a figure."""

    name: str
    rows: Sequence[MetricRow]
    """One per step, ascending."""
    diverged: bool = False
    """Whether it ended so."""


def write_loss_curves(path: Path, line: Line) -> bool:
    """Writes training and validation loss, by step and by wall clock; False, and no file, if there are none.

    Raises:
        StorageError: the file cannot be written.
    """
    if not _losses(line.rows):
        return False
    with styled():
        figure = Figure((WIDTH, 3.0), layout="constrained")
        for axes, x in _panels(figure, [line]):
            _draw(axes, line.rows, x, _train_loss, color=_TRAIN, linewidth=0.9)
            _draw_validation(axes, line, x, _VALIDATION, dots=_has_few([line]))
        handles = [
            Line2D([], [], color=colour, linewidth=1.5, label=label)
            for colour, label, read in (
                (_TRAIN, "training batch", _train_loss),
                (_VALIDATION, _best_in_words(line.rows), _val_loss),
            )
            if any(read(row) is not None for row in line.rows)
        ]
        if line.diverged:
            handles.append(_divergence_handle())
        figure.legend(handles=handles, loc="outside lower center", ncols=3)
        figure.suptitle(short_label(line.name), fontsize=8.5)
    _write(path, figure)
    return True


def write_learning_rates(path: Path, line: Line) -> bool:
    """Writes the learning rate over the optimizer steps; False, and no file, if there is none. Raises StorageError."""
    steps, rates = _values(line.rows, _step, _learning_rate)
    if not len(steps):
        return False
    with styled():
        figure = Figure((WIDTH / 2, 2.6), layout="constrained")
        axes = figure.subplots()
        kept = thin(steps, rates, _POINTS)
        axes.plot(steps[kept], rates[kept], color=_TRAIN, linewidth=1.4)
        axes.set_ylabel("learning rate")
        axes.set_ylim(0, 1.06 * rates.max())
        axes.yaxis.set_major_formatter(FuncFormatter(value_text))
        _scale_steps(axes, line.rows)
        axes.set_title(short_label(line.name, 40))
    _write(path, figure)
    return True


def write_comparison(path: Path, lines: Sequence[Line]) -> bool:
    """Writes the losses of several experiments, by step and by wall clock; False, and no file, if there are none.

    They may be of different lengths and have been logged at different steps. Raises StorageError.
    """
    lines = [line for line in lines if _losses(line.rows)]
    if not lines:
        return False
    columns = min(len(lines), max(1, int(WIDTH / (0.5 + 0.06 * max(len(short_label(line.name)) for line in lines)))))
    rows = math.ceil(len(lines) / columns) + 1
    with styled():
        figure = Figure((WIDTH, 3.0 + 0.17 * rows), layout="constrained")
        looks = [(COLOURS[n % len(COLOURS)], "-" if n < len(COLOURS) else "--") for n in range(len(lines))]
        for axes, x in _panels(figure, lines):
            for line, (colour, style) in zip(lines, looks, strict=True):
                _draw(axes, line.rows, x, _train_loss, color=colour, linewidth=0.6, alpha=0.35)
                _draw_validation(axes, line, x, colour, style, dots=_has_few(lines))
        handles = [
            Line2D([], [], color=colour, linestyle=style, linewidth=1.6, label=short_label(line.name))
            for line, (colour, style) in zip(lines, looks, strict=True)
        ]
        if any(line.diverged for line in lines):
            handles.append(_divergence_handle())
        figure.legend(handles=handles, loc="outside lower center", ncols=columns)
        figure.suptitle("validation loss (thin and pale: training batches)", fontsize=8.5)
    _write(path, figure)
    return True


# Axes.


def _panels(figure: Figure, lines: Sequence[Line]) -> Iterator[tuple[Axes, Read]]:
    """The panel by step and the one by wall clock, each with what stands on its axis; scaled when they are drawn."""
    by_step, by_time = figure.subplots(1, 2, sharey=True)
    every = [row for line in lines for row in line.rows]
    seconds, unit = _time_unit(max(row.wallclock_time for row in every))
    yield by_step, _step
    yield by_time, lambda row: row.wallclock_time / seconds
    _scale_steps(by_step, every)
    by_time.set_xlabel(f"wall clock ({unit})")
    _scale_across(by_time, max(row.wallclock_time for row in every) / seconds)
    by_step.set_ylabel(_LOSS)
    _scale_losses(by_step, lines)


def _scale_steps(axes: Axes, rows: Sequence[MetricRow]) -> None:
    axes.set_xlabel("optimizer steps")
    _scale_across(axes, max(row.step for row in rows))
    axes.xaxis.set_major_formatter(FuncFormatter(count_text))


def _scale_across(axes: Axes, last: float) -> None:
    axes.set_xlim(-0.015 * (last or 1), 1.02 * (last or 1))
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10], min_n_ticks=3))


def _scale_losses(axes: Axes, lines: Sequence[Line]) -> None:
    curves = [_losses(line.rows) for line in lines]
    flat = [Curve(np.arange(len(values), dtype=np.float64), np.asarray(values)) for values in curves]
    log = is_log("validation/loss", flat)
    low, high = value_limits("validation/loss", flat, log=log)
    if log:
        axes.set_yscale("log")
        narrow = high / low < 30
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 6, 8) if narrow else (1, 2, 5), numticks=12))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(value_text))
    axes.set_ylim(low, high)


def _time_unit(longest: float) -> tuple[float, str]:
    """Seconds of the unit in which a stretch of time is well read, and its sign."""
    return next(((size, sign) for size, sign in _TIME_UNITS if longest >= 3 * size), _TIME_UNITS[-1])


# Lines.


def _draw(axes: Axes, rows: Sequence[MetricRow], x: Read, y: Read, **style: object) -> None:
    across, up = _values(rows, x, y)
    if len(across):
        kept = thin(across, up, _POINTS)
        axes.plot(across[kept], up[kept], **style)  # type: ignore[arg-type]


def _draw_validation(axes: Axes, line: Line, x: Read, colour: str, style: str = "-", *, dots: bool) -> None:
    marker = {"marker": "o", "markersize": 2.6} if dots else {}
    _draw(axes, line.rows, x, _val_loss, color=colour, linewidth=1.5, linestyle=style, **marker)
    if line.diverged:
        last = next(row for row in reversed(line.rows) if _losses([row]))
        axes.plot(x(last), _losses([last])[-1], color=colour, **_DIVERGED)  # type: ignore[arg-type]


def _divergence_handle() -> Line2D:
    return Line2D([], [], color=INK, label="diverged", **_DIVERGED)


def _has_few(lines: Sequence[Line]) -> bool:
    """Whether no line has so many evaluations that their dots would hide it."""
    return max(sum(row.val_loss is not None for row in line.rows) for line in lines) <= _MARKED


def _values(rows: Sequence[MetricRow], x: Read, y: Read) -> tuple[Array, Array]:
    """The points at which there is a `y`."""
    points = [(x(row), value) for row in rows if (value := y(row)) is not None]
    table = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def _losses(rows: Sequence[MetricRow]) -> list[float]:
    both = itertools.chain.from_iterable((row.train_loss, row.val_loss) for row in rows)
    return [value for value in both if value is not None]


def _best_in_words(rows: Sequence[MetricRow]) -> str:
    evaluated = [(row.val_loss, row.step) for row in rows if row.val_loss is not None]
    if not evaluated:
        return "validation"
    best, step = min(evaluated)
    return f"validation (best {best:.4f}, step {step:,})"


def _step(row: MetricRow) -> float:
    return float(row.step)


def _train_loss(row: MetricRow) -> float | None:
    return row.train_loss


def _val_loss(row: MetricRow) -> float | None:
    return row.val_loss


def _learning_rate(row: MetricRow) -> float | None:
    return row.learning_rate


def _write(path: Path, figure: Figure) -> None:
    settle(figure)
    replace_file(path, png_bytes(figure))
