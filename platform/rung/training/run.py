"""One run: a model, its optimizer and data, and where it stands. The loop itself is in `loop.py`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from rung.trainable import Shared, Trainable
from rung.training.assignment import Goal
from rung.training.gradient_filters import build_gradient_filter
from rung.training.optimizers import build_optimizer
from rung.training.precision import LossScaling, precision
from rung.training.schedules import PlateauState, learning_rate
from rung.training.team import Alone, Team

Status = Literal["running", "completed", "stopped", "diverged", "failed"]
EndedBy = Literal["budget", "target", "early_stopping", "wall_clock", "scheduler", "divergence", "error"]


@dataclass
class Progress:
    """Where a run stands: all that a checkpoint must hold beside tensors. Every field is plain JSON."""

    step: int = 0
    """Optimizer steps taken; also the position in the stream of batches."""
    tokens: int = 0
    wall_seconds: float = 0.0
    """Seconds of training and evaluation over all attempts, without writing rows and checkpoints."""
    level: float = 0.0
    """The highest rung that the run has come to, in the goal's unit."""
    evaluated_step: int = -1
    """Step of the last evaluation, so that a resumed run does not evaluate the same step twice."""
    value: float | None = None
    """The goal's metric under its `select` rule."""
    best: float | None = None
    best_step: int | None = None
    recent: list[float] = field(default_factory=list)
    """The goal's metric at the last `window` evaluations."""
    before_end: tuple[float | None, int | None, list[float]] | None = None
    """`best`, `best_step` and `recent` without the last evaluation, if only the end of the budget asked for it."""
    plateau: PlateauState = field(default_factory=PlateauState)
    watched: list[float] = field(default_factory=list)
    """Early stopping: its metric at the last scheduled evaluations."""
    observed: int = 0
    """Early stopping: scheduled evaluations so far."""
    flat: int = 0
    """Early stopping: flat evaluations in a row."""
    status: Status = "running"
    ended_by: EndedBy | None = None
    error: str | None = None

    def end(self, status: Status, ended_by: EndedBy, error: str | None = None) -> None:
        """Marks the run as ended."""
        self.status, self.ended_by, self.error = status, ended_by, error


@dataclass(frozen=True)
class Report:
    """One evaluation of a run: a row of the table `metrics`."""

    step: int
    epoch: float | None
    tokens: int
    wall_seconds: float
    metrics: dict[str, float]
    scheduled: bool
    """Whether the configuration's evaluation points ask for it; else it is a rung or the end."""

    def finite(self, metric: str) -> float | None:
        """The value of a metric, or None when it is missing or not finite."""
        value = self.metrics.get(metric)
        return value if value is not None and math.isfinite(value) else None


class Run:
    """One training of one configuration with one seed, in memory.

    Args:
        trainable: built from the configuration and the seed.
        run_id: names it in tables and checkpoints.
        goal: its budget and metric.
        team: the processes that train it together, of which this is one.
    """

    def __init__(self, trainable: Trainable[Any, Any], run_id: str, goal: Goal, team: Team | None = None) -> None:
        self.trainable = trainable
        self.config = trainable.config
        self.run_id = run_id
        self.goal = goal
        self.team = team or Alone()
        self.generator = torch.Generator(device=trainable.device).manual_seed(trainable.seed)
        self.model = trainable.model(self.generator).train()
        self.optimizer = build_optimizer(self.config.optimizer, self.model)
        self.gradient_filter = build_gradient_filter(self.config.optimizer.grokfast)
        self.precision = precision(self.config.precision, trainable.device)
        """Around loss and evaluation; can be entered again and again."""
        self.scaling = LossScaling(self.config.precision, trainable.device)
        self.training_model = self._prepared()
        """What training steps call; has the parameters of `model`, which everything else uses."""
        self.stream = trainable.batches()
        if isinstance(self.stream, Shared):
            self.stream.join(self.team)
        workload = trainable.workload(self.config)
        self.steps_per_epoch, self._tokens_per_step = workload.steps_per_epoch, workload.tokens_per_step
        self.step_metrics: Mapping[str, torch.Tensor | float] = {}
        """Scalars of the last step, reported at the next evaluation; plain numbers after a checkpoint was loaded."""
        self.progress = Progress()

    def _prepared(self) -> nn.Module:
        model: nn.Module = torch.compile(self.model) if self.config.compile else self.model  # type: ignore[assignment]
        return self.team.wrap(model)

    @property
    def has_ended(self) -> bool:
        return self.progress.ended_by is not None

    @property
    def epoch(self) -> float | None:
        """Passes over the training data so far; None for an endless stream."""
        return self.progress.step / self.steps_per_epoch if self.steps_per_epoch else None

    def position(self) -> float:
        """How much of the budget is used up, in the goal's unit."""
        progress = self.progress
        return self.goal.position(
            step=progress.step, epoch=self.epoch, tokens=progress.tokens, wall_seconds=progress.wall_seconds
        )

    def is_used_up(self) -> bool:
        """Whether the budget, or the wall-clock cap beside it, is used up."""
        progress = self.progress
        return self.goal.is_used_up(
            step=progress.step, epoch=self.epoch, tokens=progress.tokens, wall_seconds=progress.wall_seconds
        )

    def reopen(self) -> None:
        """Goes on if the run had come to the end of a budget that has been made longer since, as if the old end had
        never been."""
        progress = self.progress
        if progress.ended_by in ("budget", "wall_clock") and not self.is_used_up():
            progress.status, progress.ended_by = "running", None
            if progress.before_end is not None:
                progress.best, progress.best_step, progress.recent = progress.before_end
                progress.before_end = None

    def learning_rate(self) -> float:
        """The learning rate of the next step."""
        return learning_rate(
            self.config.schedule,
            self.config.optimizer.learning_rate,
            self.progress.step,
            steps_per_epoch=self.steps_per_epoch,
            total_steps=self._total_steps(),
            plateau_factor=self.progress.plateau.factor,
        )

    def draw_apart(self) -> None:
        """Lets the processes of a team draw dropout masks of their own in the next step.

        Only rank 0's generator lives on from step to step, and is checkpointed; the others' start anew at each.
        """
        if self.team.rank:
            words = np.random.SeedSequence([self.trainable.seed, self.progress.step, self.team.rank])
            self.generator.manual_seed(int(words.generate_state(1, np.uint64)[0] >> 1))

    def _total_steps(self) -> int | None:
        if self.goal.unit == "steps":
            return math.ceil(self.goal.amount)
        if self.goal.unit == "tokens":
            return math.ceil(self.goal.amount / self._tokens_per_step)
        if self.goal.unit == "epochs" and self.steps_per_epoch:
            return math.ceil(self.goal.amount * self.steps_per_epoch)
        return None

    @cached_property
    def parameters(self) -> int:
        """Trainable parameters."""
        return sum(parameter.numel() for parameter in self.model.parameters() if parameter.requires_grad)

    def let_go(self) -> None:
        """Frees the memory of a run that has ended and is saved; where it stands can still be asked."""
        _ = self.parameters
        for name in ("model", "training_model", "optimizer", "gradient_filter", "stream"):
            self.__dict__.pop(name, None)
