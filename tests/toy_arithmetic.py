"""A trainable small enough to plan thousands of times: it answers what `plan` asks and trains nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from rung.settings import OptimizerConfig, StrictModel, TrainableConfig
from rung.trainable import Metric, Trainable, Workload


class ToyModel(StrictModel):
    """A model of the toy."""

    kind: Literal["gpt", "lstm"] = "gpt"
    """Which."""
    layers: int = Field(default=2, gt=0)
    """How many."""
    heads: int = Field(default=4, gt=0)
    """`gpt` only."""
    width: int = Field(default=32, gt=0)
    """Of everything."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Probability."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> ToyModel:
        if self.kind == "gpt" and self.width % self.heads:
            raise ValueError(f"{self.heads} heads do not divide a width of {self.width}")
        return self


class ToyConfig(TrainableConfig):
    """A configuration of the toy."""

    modulus: int = Field(default=31, ge=2)
    """Must be prime for `/`."""
    operator: Literal["+", "-", "/"] = "+"
    """What is computed."""
    orders: tuple[Literal[2, 3], ...] = (2,)
    """Number of operands."""
    symmetric: bool = False
    """A switch."""
    endless: bool = False
    """Whether the data has no epochs."""
    note: str = ""
    """A free text."""
    model: ToyModel = ToyModel()
    """The model."""
    optimizer: OptimizerConfig = OptimizerConfig(weight_decay=1.0)
    """With a default of its own."""

    @model_validator(mode="after")
    def _division_needs_a_prime(self) -> ToyConfig:
        if self.operator == "/" and any(self.modulus % divisor == 0 for divisor in range(2, self.modulus)):
            raise ValueError(f"operator / needs a prime modulus, {self.modulus} is none")
        return self


class ToyArithmetic(Trainable[ToyConfig, Any]):
    """Reports the accuracy of each order only where that order is trained."""

    Config = ToyConfig

    @classmethod
    def metrics(cls, config: ToyConfig) -> Mapping[str, Metric]:
        """Loss and accuracy, pooled and per order."""
        metrics = {
            "validation/loss": Metric("min", "nats"),
            "validation/accuracy": Metric("max", "share", worst=0.0),
        }
        orders = {f"validation/order_{order}/accuracy": Metric("max", "share") for order in config.orders}
        return metrics | orders

    @classmethod
    def workload(cls, config: ToyConfig) -> Workload:
        """A million FLOPs a step for each layer."""
        return Workload(
            parameters=1000 * config.model.layers,
            tokens_per_step=100,
            flops_per_step=1e6 * config.model.layers,
            steps_per_epoch=None if config.endless else 10,
            evaluation_flops=1e6,
        )

    def model(self, generator: Any) -> Any:
        """Not for training."""
        raise NotImplementedError

    def batches(self) -> Any:
        """Not for training."""
        raise NotImplementedError

    def loss(self, model: Any, batch: Any) -> Any:
        """Not for training."""
        raise NotImplementedError

    def evaluate(self, model: Any) -> dict[str, float]:
        """Not for training."""
        raise NotImplementedError
