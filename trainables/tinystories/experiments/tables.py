"""The results of experiments as a table: one row each, with the settings in which they differ. Imports no torch."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rung.results.files import replace_file
from rung.results.text import one_line
from trainables.language.dotted import flat
from trainables.tinystories.experiment_config import DESCRIBING
from trainables.tinystories.experiments.directory import Experiment

_NOT_SHOWN = (*DESCRIBING, "log_interval", "eval_interval", "checkpoint_interval")
"""Settings that no result depends on."""

ComparisonRow = dict[str, Any]
"""`experiment`, `status`, the settings in which the compared experiments differ, and results: `steps`, `hours`,
`tokens_per_sec` (mean over rows), `train_loss_final`, `val_loss_final`, `val_loss_best`, `best_step`; None: unknown."""


def comparison_table(experiments: Sequence[Experiment], names: Sequence[str]) -> list[ComparisonRow]:
    """One row per experiment, best validation loss first; those without any come last."""
    settings = [flat(each.config) for each in experiments]
    known = dict.fromkeys(name for each in settings for name in each if name.partition(".")[0] not in _NOT_SHOWN)
    differing = [name for name in known if len({repr(each.get(name)) for each in settings}) > 1]
    rows = [
        {"experiment": name, "status": each.status, **{key: own.get(key) for key in differing}, **_results(each)}
        for name, each, own in zip(names, experiments, settings, strict=True)
    ]
    return sorted(rows, key=lambda row: (row["val_loss_best"] is None, row["val_loss_best"] or 0.0))


def write_csv(path: Path, rows: Sequence[ComparisonRow]) -> None:
    """Writes rows with the same keys as CSV, numbers in full. Raises StorageError."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: "" if value is None else value for name, value in row.items()} for row in rows)
    replace_file(path, text.getvalue().encode())


def text_table(rows: Sequence[ComparisonRow]) -> str:
    """Rows with the same keys as text, for a terminal."""
    columns = [[name, *(shown(row[name]) for row in rows)] for name in rows[0]]
    widths = [max(map(len, column)) for column in columns]
    numeric = [all(isinstance(row[name], int | float | None) for row in rows) for name in rows[0]]
    lines = [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(cells, widths, numeric, strict=True)
        ).rstrip()
        for cells in zip(*columns, strict=True)
    ]
    return "\n".join(lines)


def shown(value: Any) -> str:
    """A value for people: numbers short, nothing as `-`."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if 1000 <= abs(value) < 1e15 else f"{value:.5g}"
    return one_line(value)


def _results(experiment: Experiment) -> dict[str, Any]:
    found = experiment.statistics
    train, validation = found.get("train_loss", {}), found.get("val_loss", {})
    return {
        "steps": found["total_steps"],
        "hours": found["total_wallclock_hours"],
        "tokens_per_sec": found.get("tokens_per_sec", {}).get("mean"),
        "train_loss_final": train.get("final"),
        "val_loss_final": validation.get("final"),
        "val_loss_best": validation.get("best"),
        "best_step": validation.get("best_step"),
    }
