"""The training loop, the only one: every run of every trainable goes through `train`.

Each turn has the same order: now and then evaluate and act on what was seen; stop if it is time (`goes_on`); one step
of training; note where the run stands. Runs in a pack share `goes_on` and take their steps together (`packed.py`).
Several processes that train one run together (`team.py`) each go through the same loop.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from rung.trainable import Generation
from rung.training.gradients import backward
from rung.training.run import Progress, Report, Run
from rung.training.team import Alone, Team


class Recorder(Protocol):
    """Where a run's reports go, and who decides when it is checkpointed."""

    def report(self, run: Run, report: Report) -> None:
        """Called after every evaluation."""

    def log(self, run: Run, report: Report) -> None:
        """Called where the configuration asks for a row without evaluation (`evaluation.log_every`)."""

    def after_step(self, run: Run) -> None:
        """Called after every optimizer step. What it takes, like `report`, is not counted as training time."""


class NullRecorder:
    """Keeps nothing."""

    def report(self, run: Run, report: Report) -> None:
        """Keeps nothing."""

    def log(self, run: Run, report: Report) -> None:
        """Keeps nothing."""

    def after_step(self, run: Run) -> None:
        """Keeps nothing."""


def train(run: Run, level: float, recorder: Recorder) -> None:
    """Trains `run` until it stands at `level` (in the unit of its goal) or has ended, and evaluates it there.

    On return the run has either ended (`run.progress.ended_by`) or can be taken further by another call: many
    short calls give the same numbers as one long call, bit for bit on a CPU.
    """
    # Only where seconds end a run must all processes go by the same clock; agreeing costs a message at every step.
    by_clock = run.goal.unit == "wall_clock" or run.goal.wall_clock is not None
    progress, clock = run.progress, Clock(run.progress, run.team if by_clock else None)
    while goes_on(run, level, recorder, clock):
        # One step of training.
        with run.precision:
            batch = run.stream.at(progress.step, run.model)
        for group in run.optimizer.param_groups:
            group["lr"] = run.learning_rate()
        run.draw_apart()
        run.optimizer.zero_grad(set_to_none=True)
        loss = backward(run, batch)
        if not math.isfinite(value := loss.value.item()):
            progress.end("diverged", "divergence")
            break
        run.step_metrics = {f"batch/{name}": metric.detach() for name, metric in loss.metrics.items()}
        run.scaling.unscale(run.optimizer)
        run.gradient_filter.apply(parameter.grad for parameter in run.model.parameters())
        if run.config.gradient_clip is not None:
            norm = torch.nn.utils.clip_grad_norm_(run.model.parameters(), run.config.gradient_clip)
            run.step_metrics["gradient_norm"] = norm
        run.scaling.step(run.optimizer)

        # Note where the run stands.
        progress.step += 1
        progress.tokens += loss.tokens
        clock.read()
        if run.config.evaluation.is_logged(progress.step):
            recorder.log(run, log(run, value))
        recorder.after_step(run)
        clock.restart()


def goes_on(run: Run, level: float, recorder: Recorder, clock: Clock) -> bool:
    """The first half of a turn: evaluation and what follows from it. Returns whether a step of training comes next."""
    progress = run.progress
    if run.has_ended or (level <= progress.level and progress.evaluated_step >= 0):  # a budget may be 0 steps
        return False

    # Now and then: evaluate, and act on what was seen.
    arrived, last = run.position() >= level, run.is_used_up()
    scheduled = run.config.evaluation.is_due(progress.step)
    if progress.evaluated_step != progress.step and (scheduled or arrived or last):
        report = evaluate(run, scheduled=scheduled)
        clock.read()
        _observe(run, report, last=last)
        recorder.report(run, report)
        clock.restart()  # what the recorder took is no training time
        arrived, last = run.position() >= level, run.is_used_up()  # an evaluation takes time, too

    # Stop if it is time.
    if not run.has_ended and last:
        progress.end("completed", "budget" if run.position() >= run.goal.amount else "wall_clock")
    elif not run.has_ended and arrived:
        progress.level = level
    return not (last or arrived or run.has_ended)


def evaluate(run: Run, *, scheduled: bool) -> Report:
    """Evaluates a run as it stands, without disturbing its training."""
    run.model.eval()
    with torch.no_grad(), run.precision:
        metrics = run.team.first(lambda: dict(run.trainable.evaluate(run.model)))
    run.model.train()
    return _report(run, metrics, scheduled=scheduled)


def generations(run: Run) -> Sequence[Generation]:
    """Texts that a run's model writes as it stands, without disturbing its training."""
    run.model.eval()
    with torch.no_grad(), run.precision:
        written = list(run.trainable.generations(run.model))
    run.model.train()
    return written


def log(run: Run, loss: float) -> Report:
    """What is known of a run without evaluating it, after a step with that loss."""
    return _report(run, {"batch/loss": loss}, scheduled=False)


def _report(run: Run, metrics: dict[str, float], *, scheduled: bool) -> Report:
    metrics["learning_rate"] = run.learning_rate()
    metrics.update({name: float(value) for name, value in run.step_metrics.items()})
    progress = run.progress
    return Report(
        step=progress.step,
        epoch=run.epoch,
        tokens=progress.tokens,
        wall_seconds=progress.wall_seconds,
        metrics=metrics,
        scheduled=scheduled,
    )


def _observe(run: Run, report: Report, *, last: bool) -> None:
    """What an evaluation changes: value and best, plateau, early stopping, target, divergence.

    An evaluation that only a rung asked for gives the rung its value and changes nothing else, or else the scheduler
    of a sweep would change a run's numbers.
    """
    progress, goal = run.progress, run.goal
    progress.evaluated_step = report.step
    if last and not report.scheduled:
        progress.before_end = (progress.best, progress.best_step, progress.recent)
    _update_value(run, report, counts=report.scheduled or last)
    if goal.metric in report.metrics and report.finite(goal.metric) is None:
        progress.end("diverged", "divergence")
        return
    if report.scheduled:
        schedule = run.config.schedule
        if schedule.kind == "plateau" and report.step > 0:
            progress.plateau.observe(schedule, report.finite(schedule.metric))
        if _is_flat(run, report):
            progress.end("completed", "early_stopping")
    reached = goal.target is not None and goal.target.is_reached(report.finite(goal.target.metric))
    if reached and (report.scheduled or last):
        progress.end("completed", "target")


def _update_value(run: Run, report: Report, *, counts: bool) -> None:
    """The run's value by its selection rule; best and recent values change only where the evaluation `counts`."""
    progress, goal = run.progress, run.goal
    value = report.finite(goal.metric)
    if value is None:
        progress.value = None
        return
    sign = 1 if goal.mode == "max" else -1
    is_best = progress.best is None or sign * value > sign * progress.best
    recent = [*progress.recent, value][-goal.window :]
    if goal.select == "last":
        progress.value = value
    elif goal.select == "best":
        progress.value = value if is_best else progress.best
    else:
        progress.value = math.fsum(recent) / len(recent)
    if counts:
        progress.recent = recent
        if is_best:
            progress.best, progress.best_step = value, report.step


def _is_flat(run: Run, report: Report) -> bool:
    """Whether slope-based early stopping ends the run at this scheduled evaluation."""
    config, progress = run.config.early_stopping, run.progress
    value = report.finite(config.metric) if config is not None else None
    if config is None or value is None:
        return False
    progress.observed += 1
    progress.watched = [*progress.watched, value][-config.window :]
    if progress.observed <= config.warmup or len(progress.watched) < config.window:
        return False
    slope = float(np.polyfit(np.arange(config.window), np.asarray(progress.watched), 1)[0])
    progress.flat = progress.flat + 1 if abs(slope) < config.min_delta else 0
    return bool(progress.flat >= config.patience)


class Clock:
    """Adds the seconds that a run is at work to its progress; a team goes by the clock of its rank 0."""

    def __init__(self, progress: Progress, team: Team | None = None) -> None:
        self._progress = progress
        self._team = team or Alone()
        self.restart()

    def restart(self) -> None:
        """Leaves out what has passed since the last reading."""
        self._start = time.perf_counter()

    def read(self, shared_by: int = 1) -> None:
        """Adds what has passed since the last reading, or its share if so many runs were at work together."""
        now = time.perf_counter()
        seconds = self._progress.wall_seconds + (now - self._start) / shared_by
        self._progress.wall_seconds = self._team.agree(seconds)
        self._start = now
