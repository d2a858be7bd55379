"""A trainable small enough to train in milliseconds, and able to misbehave on request. Used by many tests.

A linear model learns a fixed random teacher on batches drawn from (seed, position).
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import Field

from rung.errors import RungError, StorageError
from rung.settings import OptimizerConfig, StrictModel, TrainableConfig
from rung.trainable import Loss, Metric, Trainable, Workload

if TYPE_CHECKING:
    import torch
    from torch import nn


class ToyModelConfig(StrictModel):
    """The toy's model."""

    width: int = Field(default=4, gt=0)
    """Inputs of the linear model."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of inputs that are dropped in training."""


class ToyConfig(TrainableConfig):
    """A linear model that learns a random teacher."""

    model: ToyModelConfig = ToyModelConfig()
    """The model."""
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=0.05)
    """Optimizer and its constants."""
    batch_size: int = Field(default=8, gt=0)
    """Items of a batch."""
    noise: float = Field(default=0.1, ge=0)
    """Standard deviation of the labels' noise."""
    seconds_per_step: float = Field(default=0.0, ge=0)
    """Makes a step slow, for tests that interrupt."""
    raise_for_seed: int | None = None
    """The run with this seed raises at step 3, unless the environment variable TOY_IS_MENDED is set."""
    fill_disk_at: int | None = None
    """At this step, writing fails for every run."""
    blow_up_for_seed: int | None = None
    """The weights of the run with this seed become infinite in the last update before step 10."""
    diverge_for_seed: int | None = None
    """The run with this seed meets a NaN at step 3."""


@dataclass(frozen=True)
class Batch:
    """Inputs (batch, width), labels (batch,), and the position they were drawn for."""

    x: torch.Tensor
    y: torch.Tensor
    position: int


class Toy(Trainable[ToyConfig, Batch]):
    """The toy trainable."""

    Config = ToyConfig

    @classmethod
    def metrics(cls, config: ToyConfig) -> Mapping[str, Metric]:
        return {
            "validation/loss": Metric("min", "mean squared error on held-out items"),
            "validation/accuracy": Metric("max", "share of items predicted within 0.1", worst=0.0),
        }

    @classmethod
    def workload(cls, config: ToyConfig) -> Workload:
        return Workload(
            parameters=config.model.width + 1,
            tokens_per_step=config.batch_size,
            flops_per_step=6.0 * config.batch_size * config.model.width,
            steps_per_epoch=10,
        )

    @classmethod
    def packing_obstacle(cls, config: ToyConfig) -> str | None:
        return "dropout draws its masks run by run" if config.model.dropout else None

    @classmethod
    def inherited(cls, config: ToyConfig) -> Mapping[str, Any]:
        return {"model": {"width": config.model.width}}

    def model(self, generator: torch.Generator) -> nn.Module:
        return _build(self.config.model, generator)

    def batches(self) -> Toy:
        return self

    def at(self, position: int, policy: nn.Module) -> Batch:
        broken = self.config.raise_for_seed == self.seed and "TOY_IS_MENDED" not in os.environ
        if broken and position == 3:
            raise ArithmeticError(f"the toy raises for seed {self.seed}")
        if self.config.fill_disk_at == position:
            raise StorageError("the toy's disk is full")
        x, y = self._draw(self.seed * 1_000_003 + position + 1, self.config.batch_size)
        if self.config.diverge_for_seed == self.seed and position == 3:
            y = y * float("nan")
        return Batch(x, y, position)

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        if self.config.seconds_per_step:
            time.sleep(self.config.seconds_per_step)
        error = (model(batch.x) - batch.y).square().mean()
        if self.config.blow_up_for_seed == self.seed and batch.position == 9:
            model.weight.data.fill_(math.inf)
            return Loss(model.bias.square(), tokens=len(batch.y))
        return Loss(error, tokens=len(batch.y), metrics={"mse": error})

    def parts(self, batch: Batch, count: int) -> Sequence[tuple[Batch, float]]:
        if count > len(batch.y):
            raise RungError(f"a batch of {len(batch.y)} items has no {count} parts")
        pieces = zip(batch.x.tensor_split(count), batch.y.tensor_split(count), strict=True)
        return [(Batch(x, y, batch.position), len(y) / len(batch.y)) for x, y in pieces]

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        x, y = self._draw(2**40 + self.seed, 64)
        error = model(x) - y
        return {
            "validation/loss": error.square().mean().item(),
            "validation/accuracy": (error.abs() < 0.1).double().mean().item(),
        }

    def _draw(self, seed: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        import torch

        width = self.config.model.width
        teacher = torch.randn(width, generator=torch.Generator().manual_seed(1234))
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(count, width, generator=generator)
        return x, x @ teacher + self.config.noise * torch.randn(count, generator=generator)


def _build(config: ToyModelConfig, generator: torch.Generator) -> nn.Module:
    import torch
    from torch import nn

    class Linear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(config.width, generator=generator))
            self.bias = nn.Parameter(torch.zeros(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.training and config.dropout:
                x = x * (torch.rand(x.shape, generator=generator) >= config.dropout)
            return x @ self.weight + self.bias

    return Linear()
