"""Keeps the files of a training command's run while it runs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from rung.training.checkpoints import save_checkpoint, save_weights
from rung.training.run import Report, Run
from trainables.arithmetic.model_folder import BEST, FINAL
from trainables.arithmetic.training_folder import (
    CHECKPOINTS,
    METRICS,
    STEP,
    SUMMARY,
    Measures,
    best_row,
    has_stalled,
    last_of,
    write_json,
)
from trainables.arithmetic.training_plan import Plan
from trainables.language.metrics_csv import MetricsCsv, Row
from trainables.rl.reference import without_reference

CHECKPOINT_SECONDS = 30.0
"""Seconds between two checkpoints to go on from: what a kill may cost."""


class Recorder:
    """Keeps a run's files (`rung.training.loop.Recorder`); all that it knows stands in metrics.csv."""

    def __init__(self, made: Plan, run: Run, folder: Path) -> None:
        self._made, self._settings, self._folder, self._measures = made, made.settings, folder, made.measures
        progress, measures = run.progress, made.measures
        standing = (progress.step, progress.evaluated_step)
        self._csv = MetricsCsv(folder / METRICS, measures.columns, measures.best_by, standing)
        self._rows: list[Row] = list(self._csv.kept)
        self._last_checkpoint = time.monotonic()

    def log(self, run: Run, report: Report) -> None:
        """Nothing: `after_step` sees every step."""

    def after_step(self, run: Run) -> None:
        """A row, and weights now and then."""
        measured: Row = {column: _number(run.step_metrics.get(name)) for column, name in self._measures.steps.items()}
        self._add(run, measured | {"learning_rate": run.optimizer.param_groups[0]["lr"]})
        self._made.say_step(self._rows)
        if run.progress.step % self._settings.save_every == 0:
            self._save(run, f"checkpoint_step_{run.progress.step}.safetensors")
        if time.monotonic() - self._last_checkpoint >= CHECKPOINT_SECONDS:
            self._checkpoint(run)

    def report(self, run: Run, report: Report) -> None:
        """A row with an evaluation; the weights are kept if they are the best so far."""
        self._add(run, {column: report.finite(name) for column, name in self._measures.evaluated.items()})
        best = best_row(self._rows, self._measures)
        if best is not None and best[STEP] == report.step:
            self._save(run, BEST)
        epoch = report.step / self._made.steps_per_epoch
        print(f"step {report.step:,} (epoch {epoch:.2f}): {self._made.shown(self._rows[-1])}", flush=True)
        if report.step % self._made.steps_per_epoch == 0:
            self._write_log()
        patience, by = self._settings.early_stopping_patience, self._settings.early_stopping_min_delta
        stalled = patience is not None and has_stalled(self._rows, patience, by, self._measures)
        if stalled and not run.has_ended:
            run.progress.end("completed", "early_stopping")

    def finish(self, run: Run) -> None:
        """The last checkpoint, the weights alone, and what came out."""
        self._checkpoint(run)
        self._save(run, FINAL)
        self._write_log()
        write_json(self._folder / SUMMARY, summary(run, self._rows, self._made.steps_per_epoch, self._measures))

    def close(self) -> None:
        """Lets go of the file."""
        self._csv.close()

    def _save(self, run: Run, name: str) -> None:
        save_weights(without_reference(run.trainable.kept(run.model)), self._folder / name)

    def _write_log(self) -> None:
        write_json(self._folder / self._measures.log, self._made.log(self._rows))

    def _checkpoint(self, run: Run) -> None:
        save_checkpoint(run, self._folder / CHECKPOINTS)
        self._last_checkpoint = time.monotonic()

    def _add(self, run: Run, measured: Row) -> None:
        progress = run.progress
        row: Row = {STEP: progress.step, "wall_seconds": progress.wall_seconds, "tokens": progress.tokens, **measured}
        self._csv.add(row)
        self._rows.append(row)


def summary(run: Run, rows: Sequence[Row], steps_per_epoch: int, measures: Measures) -> dict[str, Any]:
    """The content of training_summary.json."""
    progress, best = run.progress, best_row(rows, measures)
    return {
        "status": progress.status,
        "ended_by": progress.ended_by,
        "total_steps": progress.step,
        "total_epochs": progress.step / steps_per_epoch,
        "wall_seconds": progress.wall_seconds,
        "tokens": progress.tokens,
        "tokens_per_second": progress.tokens / progress.wall_seconds if progress.wall_seconds else None,
        "trainable_parameters": run.parameters,
        "parameters": sum(weight.numel() for weight in without_reference(dict(run.model.named_parameters())).values()),
        f"best_{measures.best_by}": best and best[measures.best_by],
        "best_step": best and best[STEP],
        "final": {name: last_of(rows, name) for name in measures.evaluated},
    }


def _number(value: torch.Tensor | float | None) -> float | None:
    return None if value is None else float(value)
