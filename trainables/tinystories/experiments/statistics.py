"""The numbers of an experiment's `summary.json`, from the rows of its `metrics.csv`. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from trainables.tinystories.experiments.metrics_file import MetricRow, merged


def statistics(rows: Iterable[MetricRow], step: int = 0) -> dict[str, Any]:
    """What the rows come to, and `step`: optimizer steps known to be done, should no row be of the last one.

        {"total_steps", "total_wallclock_time" (s), "total_wallclock_hours",
         "train_loss": {"min", "max", "mean", "final", "initial"},
         "val_loss": {"min", "max", "mean", "final", "best", "best_step"},
         "tokens_per_sec": {"mean", "final"}}

    `total_steps` is the last optimizer step. A quantity without a single value is left out. `best` is the lowest
    loss, at its first step; `mean` is the mean over rows, not over steps. For two runs that logged at other steps only
    `final` and `best` can be compared.
    """
    ordered = merged(rows)
    seconds = ordered[-1].wallclock_time if ordered else 0.0
    found: dict[str, Any] = {
        "total_steps": max(step, ordered[-1].step if ordered else 0),
        "total_wallclock_time": seconds,
        "total_wallclock_hours": seconds / 3600,
    }
    train = [row.train_loss for row in ordered if row.train_loss is not None]
    if train:
        found["train_loss"] = {**_range(train), "initial": train[0]}
    validation = [(row.val_loss, row.step) for row in ordered if row.val_loss is not None]
    if validation:
        best, best_step = min(validation)
        found["val_loss"] = {**_range([loss for loss, _ in validation]), "best": best, "best_step": best_step}
    rates = [row.tokens_per_sec for row in ordered if row.tokens_per_sec is not None]
    if rates:
        found["tokens_per_sec"] = {"mean": _mean(rates), "final": rates[-1]}
    return found


def _range(values: Sequence[float]) -> dict[str, float]:
    return {"min": min(values), "max": max(values), "mean": _mean(values), "final": values[-1]}


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
