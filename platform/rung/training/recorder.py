"""Writes a run's reports into the table `metrics`, what its model wrote into `generations`, and its checkpoints."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from rung.results.store import TableWriter
from rung.training.assignment import Assignment
from rung.training.checkpoints import save_checkpoint
from rung.training.loop import generations
from rung.training.run import Report, Run


class RunWriters:
    """Writers of the tables that a training process writes, under one name and with one number of attempt."""

    def __init__(self, directory: Path, writer: str) -> None:
        self.metrics = TableWriter(directory, "metrics", writer)
        self.attempt = self.metrics.attempt
        self.generations = TableWriter(directory, "generations", writer, self.attempt)

    def flush(self) -> None:
        """Puts on disk what waits. Raises StorageError."""
        self.metrics.flush()
        self.generations.flush()


class TableRecorder:
    """Writes one run's rows and checkpoints.

    Rows are on disk before the checkpoint that follows them, so that a resumed run never misses one.
    """

    def __init__(
        self,
        assignment: Assignment,
        run: Run,
        writers: RunWriters,
        on_report: Callable[[Run, Report], None] | None,
    ) -> None:
        self._assignment = assignment
        self._writers = writers
        self._on_report = on_report
        self._fixed = {
            "study": assignment.study,
            "config_id": assignment.config_id,
            "run_id": run.run_id,
            "seed": run.trainable.seed,
            "phase": assignment.phase,
            "attempt": writers.attempt,
        }
        self._checkpoints = assignment.checkpoints(run.trainable.seed)
        self._last_checkpoint = self._left = time.monotonic()
        self._saved_seconds = run.progress.wall_seconds  # it is new, or has just been loaded
        # A run may have been saved after its last step and before the evaluation that follows it.
        is_evaluated = run.progress.evaluated_step == run.progress.step
        self._position = run.position() if is_evaluated else 0.0

    def report(self, run: Run, report: Report) -> None:
        self.log(run, report)
        before, self._position = self._position, run.position()
        at_rung = any(before < rung <= self._position for rung in self._assignment.rungs)
        is_over = run.has_ended or run.is_used_up()
        is_wanted = report.scheduled and run.config.evaluation.generations == "every"
        if (at_rung or is_over or is_wanted) and run.progress.status != "diverged":
            self._write_generations(run, report.step)
        if self._on_report is not None:
            self._on_report(run, report)

    def log(self, run: Run, report: Report) -> None:
        self._writers.metrics.add(
            {
                **self._fixed,
                "launch": self._assignment.launch,
                "step": report.step,
                "epoch": report.epoch,
                "tokens": report.tokens,
                "wall_seconds": report.wall_seconds,
                "reported_at": datetime.now(UTC),
                **{name: report.finite(name) for name in report.metrics},
            }
        )

    def _write_generations(self, run: Run, step: int) -> None:
        now = datetime.now(UTC)
        for index, generation in enumerate(generations(run)):
            row = {**self._fixed, "step": step, "index": index, **dataclasses.asdict(generation), "reported_at": now}
            self._writers.generations.add(row)

    def after_step(self, run: Run) -> None:
        every = self._assignment.checkpoint_seconds
        if every is not None and time.monotonic() - self._last_checkpoint >= every:
            self.checkpoint(run)

    def enter(self) -> None:
        """Called when the run goes on: the time in which others were trained is none of its own."""
        self._last_checkpoint += time.monotonic() - self._left

    def leave(self, run: Run) -> None:
        """Called when others are trained before this run goes on: saves what has ended, or what would be too much to
        lose, so that all runs left so far lose no more than `checkpoint_seconds` together. Saving waits for the disk,
        for tens of milliseconds."""
        every = self._assignment.checkpoint_seconds
        unsaved = run.progress.wall_seconds - self._saved_seconds
        if every is not None and (run.has_ended or unsaved >= every / len(self._assignment.seeds)):
            self.checkpoint(run)
        self._left = time.monotonic()

    def checkpoint(self, run: Run) -> None:
        """Saves a run as it stands, unless the assignment wants no checkpoints."""
        if self._assignment.checkpoint_seconds is not None:
            self._writers.flush()
            save_checkpoint(run, self._checkpoints)
            self._last_checkpoint = self._left = time.monotonic()
            self._saved_seconds = run.progress.wall_seconds

    def is_saved(self, run: Run) -> bool:
        """Whether the last checkpoint holds the run as it stands."""
        return run.progress.wall_seconds == self._saved_seconds
