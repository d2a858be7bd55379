"""Learning-rate schedules: a pure function of the step, except for `plateau`, whose state is in the run's progress.

Being pure makes resuming exact and lets `rung plan` draw a schedule without training anything.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from rung.settings import ScheduleConfig


@dataclass
class PlateauState:
    """What the `plateau` schedule remembers between evaluations."""

    factor: float = 1.0
    """What the learning rate is multiplied by, so far."""
    best: float | None = None
    """Lowest value of the watched metric that counted as an improvement."""
    flat: int = 0
    """Scheduled evaluations since then."""

    def observe(self, config: ScheduleConfig, value: float | None) -> None:
        """Takes one scheduled evaluation of the watched metric into account; a missing value counts as flat."""
        if value is not None and (self.best is None or value < self.best * (1 - config.threshold)):
            self.best, self.flat = value, 0
            return
        self.flat += 1
        if self.flat > config.patience:
            self.factor, self.flat = self.factor * config.factor, 0


def learning_rate(
    config: ScheduleConfig,
    peak: float,
    step: int,
    *,
    steps_per_epoch: int | None = None,
    total_steps: int | None = None,
    plateau_factor: float = 1.0,
) -> float:
    """The learning rate of optimizer step `step` (0 is the first).

    Args:
        config: the schedule.
        peak: the optimizer's learning rate.
        steps_per_epoch: needed when `config.unit` is `epoch`.
        total_steps: the budget in steps; needed by `cosine` and `linear` when they have no `length` of their own.
        plateau_factor: `PlateauState.factor`.

    Raises:
        ValueError: one of the two numbers is needed and missing.
    """
    per_unit = _steps_per_unit(config, steps_per_epoch)
    time = step // per_unit
    low = config.minimum if config.minimum_fraction is None else config.minimum_fraction * peak
    low = min(low, peak)
    if time < config.warmup:
        return peak * (time / config.warmup if config.warmup_from == "zero" else (time + 1) / (config.warmup + 1))
    if config.kind == "step":
        return peak * float(config.factor ** ((time - config.warmup) // config.every))
    if config.kind in ("cosine", "linear"):
        length = config.length or _whole_budget(config.kind, total_steps, per_unit)
        done = min(1.0, (time - config.warmup) / max(1, length - config.warmup))
        return low + (peak - low) * (0.5 * (1 + math.cos(math.pi * done)) if config.kind == "cosine" else 1 - done)
    if config.kind == "plateau":
        return max(peak * plateau_factor, low)
    return peak


def _steps_per_unit(config: ScheduleConfig, steps_per_epoch: int | None) -> int:
    if config.unit == "step":
        return 1
    if steps_per_epoch is None:
        raise ValueError("schedule.unit is epoch, but this trainable's data is an endless stream: use step")
    return steps_per_epoch


def _whole_budget(kind: str, total_steps: int | None, per_unit: int) -> int:
    if total_steps is None:
        raise ValueError(f"schedule.kind is {kind} and the budget is counted in seconds: give schedule.length")
    return max(1, math.ceil(total_steps / per_unit))
