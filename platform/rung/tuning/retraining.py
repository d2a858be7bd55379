"""Trains a recorded run again, from its start to where its record ends, and keeps what it reports in memory."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from pydantic import ValidationError

from rung.errors import RungError
from rung.settings import EvaluationConfig
from rung.trainable import Trainable, find_trainable
from rung.training.assignment import Goal
from rung.training.beginning import begin
from rung.training.loop import train
from rung.training.packed import Member, train_together
from rung.training.run import Report, Run
from rung.tuning.run_record import RunRecord

SHOW_EVERY = 30.0
"""Seconds between two lines about how far it is."""


@dataclass
class Replayed:
    """What a replay gave."""

    reports: dict[int, dict[str, Any]] = field(default_factory=dict)
    """By step: metrics, None where one is not finite, and the reserved columns epoch and tokens."""
    states: dict[int, dict[str, Any]] = field(default_factory=dict)
    """The run's row in part, as it stood at each report and, under the step that it came to, at the end."""


def train_again(record: RunRecord, show: Callable[[str], None] = lambda text: None) -> Replayed:
    """Trains the run from its start to the last step on record, with an evaluation wherever there was one.

    `show` is told now and then how far it is.

    Raises:
        RungError: the configuration is none of the trainable as it is here, or the run's device is not here.
    """
    kept, run = _Kept(record, show), _run(record)
    try:
        for level in _levels(record, run.config.evaluation):
            _advance(run, level, kept, packed=record.row["replication"] == "packed")
            if run.progress.ended_by in ("budget", "wall_clock") and run.progress.step < record.reached:
                run.reopen()
            if run.has_ended:
                break
    except Exception as error:  # as in `training.replication`: what a run raises is its result
        run.progress.end("failed", "error", str(error) if isinstance(error, RungError) else traceback.format_exc())
    kept.end(run)
    return kept.replayed


def _levels(record: RunRecord, evaluation: EvaluationConfig) -> list[int]:
    """Where the run is taken one after another: to each report's step, so that it is evaluated there, and to its end.
    Where an error or a value that is not finite has ended it, the trouble lies in the step after. No run is taken to
    step 0: it stands there, and the way to any other begins with an evaluation."""
    metric = record.goal.metric
    logged = {r["step"] for r in record.reports if evaluation.is_logged(r["step"]) and r[metric] is None}
    levels = {int(report["step"]) for report in record.reports} - logged  # without evaluation: the loop gives them
    if record.row["status"] in ("failed", "diverged"):
        levels.add(record.reached + 1)
    elif record.row["status"] in ("completed", "stopped"):
        levels.add(record.reached)
    return sorted(levels - {0}) or [1]


def _advance(run: Run, level: int, kept: _Kept, *, packed: bool) -> None:
    if packed:  # alone: a run's numbers do not depend on who else is in the pack
        train_together([Member(run, kept)], level)
    else:
        train(run, level, kept)


class _Rerun(Run):
    """Counts in steps, whatever its budget counts, and comes to its ends where the recorded run did."""

    def __init__(self, trainable: Trainable[Any, Any], run_id: str, goal: Goal, ends: set[int]) -> None:
        super().__init__(trainable, run_id, goal)
        self._ends = ends

    def position(self) -> float:
        return self.progress.step

    def is_used_up(self) -> bool:
        step = self.progress.step
        return step in self._ends or (self.goal.unit == "steps" and step >= self.goal.amount)

    def reopen(self) -> None:
        """Goes on from the end of a budget that a later launch has made longer."""
        self._ends.discard(self.progress.step)
        super().reopen()


def rerun(record: RunRecord, device: str) -> Run:
    """A recorded run before its first step, on a device.

    Raises:
        RungError: its configuration is none of the trainable as it is here.
    """
    row = record.row
    trainable = find_trainable(record.study["trainable"])
    try:
        config = trainable.Config.model_validate_json(record.config_json)
    except ValidationError as error:
        raise RungError(
            f"the trainable {record.study['trainable']} as it is now refuses the configuration {row['config_id']}; "
            f"in `rung replay` without --present the recorded code is run:\n{error}"
        ) from error
    return _Rerun(trainable(config, row["seed"], device), row["run_id"], record.goal, record.ends())


def _run(record: RunRecord) -> Run:
    device = str(record.row["device"] or "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise RungError(f"{record.row['run_id']} was trained on {device}, and there is none here: other arithmetic")
    run = rerun(record, device)
    begin(run, record.directory, record.row["phase"])
    return run


class _Kept:
    """Keeps reports and states in memory, as a run's recorder."""

    def __init__(self, record: RunRecord, show: Callable[[str], None]) -> None:
        self.replayed = Replayed()
        self._record = record
        self._show = show
        self._shown_at = time.monotonic()

    def report(self, run: Run, report: Report) -> None:
        """Called after every evaluation."""
        self.log(run, report)
        if report.step <= self._record.reached:
            self.replayed.states[report.step] = self._state(run)

    def log(self, run: Run, report: Report) -> None:
        """Called between evaluations."""
        if report.step <= self._record.reached:
            values = {name: report.finite(name) for name in report.metrics}
            metrics = {name: None if value is None else float(value) for name, value in values.items()}
            self.replayed.reports[report.step] = {"epoch": report.epoch, "tokens": report.tokens, **metrics}
        if time.monotonic() - self._shown_at >= SHOW_EVERY:
            self._shown_at = time.monotonic()
            self._show(f"step {report.step:,} of {self._record.reached:,}")

    def after_step(self, run: Run) -> None:
        """Keeps nothing."""

    def end(self, run: Run) -> None:
        """Called once, when the run has been taken as far as it goes."""
        self.replayed.states[run.progress.step] = self._state(run)

    def _state(self, run: Run) -> dict[str, Any]:
        progress = run.progress
        ended_by = progress.ended_by
        if ended_by in ("budget", "wall_clock"):  # which of the two depends on the clock
            ended_by = self._record.row["ended_by"]
        return {
            "status": progress.status,
            "ended_by": ended_by,
            "step": progress.step,
            "tokens": progress.tokens,
            "value": None if progress.status in ("diverged", "failed") else progress.value,
            "best": progress.best,
            "best_step": progress.best_step,
            "diverged_step": progress.step if progress.status == "diverged" else None,
            "error": (progress.error or "").strip().splitlines()[-1:],
        }
