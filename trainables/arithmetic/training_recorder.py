"""Keeps the files of a training command's run while it runs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rung.training.checkpoints import save_checkpoint, save_model
from rung.training.run import Report, Run
from trainables.arithmetic.model_folder import BEST, FINAL
from trainables.arithmetic.training_folder import (
    CHECKPOINTS,
    COLUMNS,
    EVALUATED,
    LOG,
    METRICS,
    STEP,
    SUMMARY,
    VALIDATION,
    best_row,
    epochs,
    has_stalled,
    write_json,
)
from trainables.arithmetic.training_plan import Plan
from trainables.language.metrics_csv import MetricsCsv, Row

CHECKPOINT_SECONDS = 30.0
"""Seconds between two checkpoints to go on from: what a kill may cost."""


class Recorder:
    """Keeps a run's files (`rung.training.loop.Recorder`); all that it knows stands in metrics.csv."""

    def __init__(self, made: Plan, run: Run, folder: Path) -> None:
        self._settings, self._folder, self._steps_per_epoch = made.settings, folder, made.steps_per_epoch
        progress = run.progress
        self._csv = MetricsCsv(folder / METRICS, COLUMNS, VALIDATION, (progress.step, progress.evaluated_step))
        self._rows: list[Row] = list(self._csv.kept)
        self._last_checkpoint = time.monotonic()

    def log(self, run: Run, report: Report) -> None:
        """Nothing: `after_step` sees every step."""

    def after_step(self, run: Run) -> None:
        """A row, and weights now and then."""
        values = {name: float(value) for name, value in run.step_metrics.items()}
        rate = run.optimizer.param_groups[0]["lr"]
        measured = {"train_loss": values.get("batch/loss"), "gradient_norm": values.get("gradient_norm")}
        self._add(run, measured | {"learning_rate": rate})
        if run.progress.step % self._settings.save_every == 0:
            save_model(run, self._folder / f"checkpoint_step_{run.progress.step}.safetensors")
        if time.monotonic() - self._last_checkpoint >= CHECKPOINT_SECONDS:
            self._checkpoint(run)

    def report(self, run: Run, report: Report) -> None:
        """A row with an evaluation; the weights are kept if they are the best so far."""
        self._add(run, {column: report.finite(name) for column, name in EVALUATED.items()})
        best = best_row(self._rows)
        if best is not None and best[STEP] == report.step:
            save_model(run, self._folder / BEST)
        print(_shown(self._rows[-1], run, self._steps_per_epoch), flush=True)
        if report.step % self._steps_per_epoch == 0:
            write_json(self._folder / LOG, epochs(self._rows, self._steps_per_epoch))
        patience = self._settings.early_stopping_patience
        stalled = patience is not None and has_stalled(self._rows, patience, self._settings.early_stopping_min_delta)
        if stalled and not run.has_ended:
            run.progress.end("completed", "early_stopping")

    def finish(self, run: Run) -> None:
        """The last checkpoint, the weights alone, and what came out."""
        self._checkpoint(run)
        save_model(run, self._folder / FINAL)
        write_json(self._folder / LOG, epochs(self._rows, self._steps_per_epoch))
        write_json(self._folder / SUMMARY, summary(run, self._rows, self._steps_per_epoch))

    def close(self) -> None:
        """Lets go of the file."""
        self._csv.close()

    def _checkpoint(self, run: Run) -> None:
        save_checkpoint(run, self._folder / CHECKPOINTS)
        self._last_checkpoint = time.monotonic()

    def _add(self, run: Run, measured: Row) -> None:
        progress = run.progress
        row: Row = {STEP: progress.step, "wall_seconds": progress.wall_seconds, "tokens": progress.tokens, **measured}
        self._csv.add(row)
        self._rows.append(row)


def summary(run: Run, rows: Sequence[Row], steps_per_epoch: int) -> dict[str, Any]:
    """The content of training_summary.json."""
    progress, best = run.progress, best_row(rows)
    evaluated = [row for row in rows if row.get(VALIDATION) is not None]
    return {
        "status": progress.status,
        "ended_by": progress.ended_by,
        "total_steps": progress.step,
        "total_epochs": progress.step / steps_per_epoch,
        "wall_seconds": progress.wall_seconds,
        "tokens": progress.tokens,
        "tokens_per_second": progress.tokens / progress.wall_seconds if progress.wall_seconds else None,
        "trainable_parameters": run.parameters,
        "parameters": sum(weight.numel() for weight in run.model.parameters()),
        "best_val_loss": best and best[VALIDATION],
        "best_step": best and best[STEP],
        "final": {name: evaluated[-1][name] for name in EVALUATED} if evaluated else None,
    }


def _shown(row: Row, run: Run, steps_per_epoch: int) -> str:
    loss, right = row[VALIDATION], row["val_trace_accuracy"]
    shown = "not finite" if loss is None else f"{loss:.4f}"
    whole = "" if right is None else f", solutions without a mistake {100 * right:.1f} %"
    epoch = run.progress.step / steps_per_epoch
    return f"step {run.progress.step:,} (epoch {epoch:.2f}): validation loss {shown}{whole}"
