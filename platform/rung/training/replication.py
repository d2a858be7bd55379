"""Serial replication: the runs of one configuration, one seed after another, rung by rung, in this process.

A run that raises is recorded as failed and a run that diverges as diverged; the others go on. Storage that cannot
be written ends everything, because results would be lost.
"""

from __future__ import annotations

import logging
import platform
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import torch

from rung.configuration import run_id
from rung.errors import RungError, StorageError
from rung.locks import FileLock
from rung.results.store import TableWriter
from rung.trainable import find_trainable
from rung.training.checkpoints import latest_checkpoint, load_checkpoint, save_checkpoint
from rung.training.loop import train
from rung.training.run import Goal, Progress, Report, Run

log = logging.getLogger(__name__)

WAIT_FOR_PREDECESSOR = 120.0
"""Seconds after which a process that still holds a configuration is an error."""


@dataclass(frozen=True)
class Assignment:
    """All that a process needs to know to train the runs of one configuration. Pickles small, for Ray."""

    directory: str
    """The study's directory."""
    study: str
    trainable: str
    config_id: str
    config: Mapping[str, Any] = field(hash=False)
    """The complete resolved configuration, as JSON values."""
    seeds: tuple[int, ...]
    goal: Goal
    phase: Literal["search", "confirm"] = "search"
    device: str = "cpu"
    checkpoint_seconds: float | None = 30.0
    """Seconds between two checkpoints of a run; None: no checkpoints at all."""

    def run_id(self, seed: int) -> str:
        """The id of the run with this seed."""
        return run_id(self.config_id, seed, self.phase)

    def checkpoints(self, seed: int) -> Path:
        """The directory of a run's checkpoints."""
        return Path(self.directory) / "checkpoints" / self.run_id(seed)


class SerialReplication:
    """The runs of one configuration, taken together from rung to rung.

    Args:
        assignment: what to train, and where the rows go.
        on_report: called after every evaluation, for showing it.
        catch: whether a run that raises is recorded as failed; otherwise the exception goes on to the caller.

    Raises:
        StorageError: the study's directory cannot be written.
        RungError: another process trains this configuration.
        RungError: the trainable cannot be found.
    """

    def __init__(
        self,
        assignment: Assignment,
        on_report: Callable[[Run, Report], None] | None = None,
        catch: bool = True,
    ) -> None:
        self.assignment = assignment
        self._on_report = on_report
        self._catch = catch
        self._trainable = find_trainable(assignment.trainable)
        self._config = self._trainable.Config.model_validate(assignment.config)
        # The process of a killed driver may live for some seconds more, and must not write beside this one.
        lock = Path(assignment.directory) / "checkpoints" / f"{assignment.config_id}.lock"
        self._lock = FileLock(lock, wait=WAIT_FOR_PREDECESSOR)
        self._writer = TableWriter(Path(assignment.directory), "metrics", assignment.config_id)
        self._runs: dict[int, Run] = {}
        self._failed: dict[int, Progress] = {}

    @property
    def has_ended(self) -> bool:
        """Whether no run of the configuration can go on."""
        return all(seed in self._failed or self._ended(seed) for seed in self.assignment.seeds)

    def advance(self, level: float) -> list[dict[str, object]]:
        """Takes every run that has not ended to `level`, and returns one row of the table `runs` for each."""
        for seed in self.assignment.seeds:
            if seed not in self._failed:
                try:
                    self._advance_run(seed, level)
                except StorageError:
                    raise
                except Exception as error:
                    self._fail(seed, error)
                    if not self._catch:
                        raise
        self._writer.flush()
        return self.rows()

    def rows(self) -> list[dict[str, object]]:
        """One row of the table `runs` for each run that has begun."""
        begun = self._runs.keys() | self._failed.keys()
        return [self._row(seed) for seed in self.assignment.seeds if seed in begun]

    @property
    def failed(self) -> dict[int, str]:
        """Seeds whose runs have failed, with the texts of their errors."""
        return {seed: progress.error or "" for seed, progress in self._failed.items()}

    def give_up(self, failed: Mapping[int, str]) -> None:
        """Does not try these seeds again: they have failed before, in this sweep."""
        for seed, error in failed.items():
            self._failed[seed] = Progress(status="failed", ended_by="error", error=error)

    def close(self) -> None:
        """Writes what is still in memory and lets the models go."""
        try:
            self._writer.close()
        finally:
            self._runs.clear()
            self._lock.release()

    def _advance_run(self, seed: int, level: float) -> None:
        run = self._runs.get(seed) or self._open(seed)
        self._runs[seed] = run
        if run.has_ended:
            return
        recorder = _TableRecorder(self.assignment, seed, self._writer, self._on_report)
        train(run, level, recorder)
        recorder.checkpoint(run)

    def _open(self, seed: int) -> Run:
        assignment = self.assignment
        trainable = self._trainable(self._config, seed, assignment.device)
        run = Run(trainable, assignment.run_id(seed), assignment.goal)
        checkpoint = latest_checkpoint(assignment.checkpoints(seed))
        if checkpoint is not None:
            load_checkpoint(run, checkpoint)
        return run

    def _fail(self, seed: int, error: Exception) -> None:
        progress = self._runs[seed].progress if seed in self._runs else Progress()
        text = str(error) if isinstance(error, RungError) else traceback.format_exc()
        progress.end("failed", "error", text)
        self._failed[seed] = progress
        self._runs.pop(seed, None)
        log.warning("run %s failed: %s", self.assignment.run_id(seed), error)

    def _ended(self, seed: int) -> bool:
        return seed in self._runs and self._runs[seed].has_ended

    def _row(self, seed: int) -> dict[str, object]:
        assignment, run = self.assignment, self._runs.get(seed)
        progress = self._failed[seed] if run is None else run.progress
        return {
            "study": assignment.study,
            "config_id": assignment.config_id,
            "run_id": assignment.run_id(seed),
            "seed": seed,
            "phase": assignment.phase,
            "status": progress.status,
            "ended_by": progress.ended_by,
            "error": progress.error,
            "attempt": self._writer.attempt,
            "step": progress.step,
            "epoch": None if run is None else run.epoch,
            "tokens": progress.tokens,
            "wall_seconds": progress.wall_seconds,
            "value": None if progress.status in ("diverged", "failed") else progress.value,
            "best": progress.best,
            "best_step": progress.best_step,
            "diverged_step": progress.step if progress.status == "diverged" else None,
            "parameters": None if run is None else run.parameters,
            "replication": "serial",
            "threads": torch.get_num_threads(),
            "device": assignment.device,
            "host": platform.node(),
            "updated_at": datetime.now(UTC),
        }


class _TableRecorder:
    """Writes one run's reports into the table `metrics`, and its checkpoints.

    Rows are on disk before the checkpoint that follows them, so that a resumed run never misses one.
    """

    def __init__(
        self,
        assignment: Assignment,
        seed: int,
        writer: TableWriter,
        on_report: Callable[[Run, Report], None] | None,
    ) -> None:
        self._assignment = assignment
        self._writer = writer
        self._on_report = on_report
        self._fixed = {
            "study": assignment.study,
            "config_id": assignment.config_id,
            "run_id": assignment.run_id(seed),
            "seed": seed,
            "phase": assignment.phase,
            "attempt": writer.attempt,
        }
        self._checkpoints = assignment.checkpoints(seed)
        self._last_checkpoint = time.monotonic()

    def report(self, run: Run, report: Report) -> None:
        self._writer.add(
            {
                **self._fixed,
                "step": report.step,
                "epoch": report.epoch,
                "tokens": report.tokens,
                "wall_seconds": report.wall_seconds,
                "reported_at": datetime.now(UTC),
                **{name: report.finite(name) for name in report.metrics},
            }
        )
        if self._on_report is not None:
            self._on_report(run, report)

    def after_step(self, run: Run) -> None:
        every = self._assignment.checkpoint_seconds
        if every is not None and time.monotonic() - self._last_checkpoint >= every:
            self.checkpoint(run)

    def checkpoint(self, run: Run) -> None:
        if self._assignment.checkpoint_seconds is not None:
            self._writer.flush()
            save_checkpoint(run, self._checkpoints)
            self._last_checkpoint = time.monotonic()
