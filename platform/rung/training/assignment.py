"""What a training process is told: how long its runs train, what they are judged by, and which ones they are.

Imports no torch, which takes two seconds: the driver of a sweep makes assignments and trains nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rung.identity import run_id

Unit = Literal["steps", "epochs", "tokens", "wall_clock"]


@dataclass(frozen=True)
class Target:
    """A value of a metric at which a run has done what it was for."""

    metric: str
    value: float
    mode: Literal["min", "max"]

    def is_reached(self, value: float | None) -> bool:
        """Whether `value` is as good as the target."""
        if value is None:
            return False
        return value >= self.value if self.mode == "max" else value <= self.value


@dataclass(frozen=True)
class Goal:
    """How long a run trains, and the metric that it is judged by."""

    unit: Unit
    """What `amount` and the rungs count."""
    amount: float
    """The whole budget; `wall_clock` counts seconds of training and evaluation."""
    metric: str
    mode: Literal["min", "max"]
    select: Literal["last", "best", "mean_of_last"] = "last"
    """Which evaluation is a run's value."""
    window: int = 1
    """Evaluations that `mean_of_last` averages."""
    target: Target | None = None
    wall_clock: float | None = None
    """A cap in seconds beside the budget."""

    def selected(self, values: Sequence[float]) -> float | None:
        """A run's value by the `select` rule, from those of its evaluations in their order; None if there are none."""
        if not values:
            return None
        if self.select == "best":
            return max(values) if self.mode == "max" else min(values)
        recent = values[-(1 if self.select == "last" else self.window) :]
        return math.fsum(recent) / len(recent)

    def position(self, *, step: int, epoch: float | None, tokens: int, wall_seconds: float) -> float:
        """How much of the budget a run has used up that stands there.

        Raises:
            ValueError: the budget counts epochs and the run has none.
        """
        match self.unit:
            case "steps":
                return step
            case "tokens":
                return tokens
            case "wall_clock":
                return wall_seconds
            case "epochs":
                if epoch is None:
                    raise ValueError("the budget counts epochs, but this trainable's data is an endless stream")
                return epoch

    def is_used_up(self, *, step: int, epoch: float | None, tokens: int, wall_seconds: float) -> bool:
        """Whether the budget, or the wall-clock cap beside it, is used up by a run that stands there."""
        if self.wall_clock is not None and wall_seconds >= self.wall_clock:
            return True
        return self.position(step=step, epoch=epoch, tokens=tokens, wall_seconds=wall_seconds) >= self.amount


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
    replication: Literal["serial", "packed"] = "serial"
    """Whether the runs are trained one after another or together."""
    device: str = "cpu"
    checkpoint_seconds: float | None = 30.0
    """Seconds of training that an interruption may cost, see `study.CheckpointPolicy`; None: no checkpoints at all."""
    keep_stopped: bool = False
    """Whether runs that the scheduler stops are saved where they stand."""
    launch: int | None = None
    """Number of the launch in provenance.json, for the rows."""
    rungs: tuple[float, ...] = ()
    """Where configurations are compared, in the goal's unit: texts that the models write are recorded there, and at the
    end."""

    @property
    def name(self) -> str:
        """What the lock and the parts of the process are called that trains this: the configuration's id; in phase
        confirm, where a run may be a trial of its own, the run's."""
        if self.phase == "search":
            return self.config_id
        return self.run_id(self.seeds[0]) if len(self.seeds) == 1 else f"{self.config_id}-{self.phase}"

    def run_id(self, seed: int) -> str:
        """The id of the run with this seed."""
        return run_id(self.config_id, seed, self.phase)

    def checkpoints(self, seed: int) -> Path:
        """The directory of a run's checkpoints."""
        return Path(self.directory) / "checkpoints" / self.run_id(seed)
