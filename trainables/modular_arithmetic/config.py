"""The configuration of a modular-arithmetic run, with everything that can be wrong about one. Imports no torch."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, field_validator, model_validator

from rung.settings import EvaluationConfig, OptimizerConfig, StrictModel, TrainableConfig

Operator = Literal["+", "-", "*", "/"]

MAX_ITEMS = 20_000_000
"""Items that a configuration may ask for: about 2 GB as tensors."""


class ModelConfig(StrictModel):
    """Which model, and how large."""

    kind: Literal["gpt", "lstm"] = "gpt"
    """`gpt`: post-norm transformer with fixed sinusoidal positions. `lstm`: stacked LSTM."""
    layers: int = Field(default=2, gt=0)
    """Blocks or LSTM layers."""
    width: int = Field(default=128, gt=0)
    """Width of embedding and hidden states."""
    heads: int = Field(default=4, gt=0)
    """`gpt` only: attention heads; they divide `width`."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout probability: after each MLP (`gpt`), between layers (`lstm`)."""
    tie_embeddings: bool = False
    """Whether the classifier's weight is the token embedding."""
    classifier_bias: bool = True
    """Whether the classifier has a bias."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> ModelConfig:
        if self.kind == "gpt" and self.width % self.heads:
            fitting = [heads for heads in range(1, self.width + 1) if self.width % heads == 0]
            nearest = min(fitting, key=lambda heads: abs(heads - self.heads))
            raise ValueError(
                f"{self.heads} heads do not divide a width of {self.width}: "
                f"the nearest number of heads that does is {nearest}"
            )
        return self


class ModularArithmeticConfig(TrainableConfig):
    """Modular arithmetic with the defaults of the course homework that it comes from (IFT6135, H2025)."""

    modulus: int = Field(default=31, ge=2)
    """p: all numbers are 0 ... p - 1 and all results are taken mod p."""
    operator: Operator = "+"
    """Operation of the table; `/` is division mod a prime p, built by multiplication."""
    orders: tuple[Literal[2, 3], ...] = (2,)
    """How many operands an item has: 2 (`a + b = r`), 3 (`a + b + c = r`) or both, mixed in training."""
    symmetric: bool = False
    """Keep only items with a <= b <= c; for operators that commute."""
    train_fraction: float = 0.5
    """Part of the items of each order that is trained on, rounded half up; the rest is for validation."""
    data_seed: int | None = Field(default=None, ge=0)
    """Seed of the split and of the order of batches. Empty: the run's own seed, so that the seeds of a
    configuration differ in their split too; an integer fixes the split for all runs."""
    batch_size: int = Field(default=512, gt=0)
    """Items in a training batch. From the number of training items on, every batch is the whole training set."""
    evaluation_batch_size: int = Field(default=4096, gt=0)
    """Items that are evaluated at once; changes speed and memory only."""
    model: ModelConfig = ModelConfig()
    """The model."""
    optimizer: OptimizerConfig = OptimizerConfig(kind="adamw", learning_rate=1e-3, weight_decay=1.0)
    """Optimizer and its constants."""
    gradient_clip: float | None = Field(default=1.0, gt=0)
    """Largest L2 norm of the whole gradient; a larger one is scaled down to it. Empty: no clipping."""
    evaluation: EvaluationConfig = EvaluationConfig(first=100, every=100)
    """Evaluation points."""

    @field_validator("orders")
    @classmethod
    def _orders_are_distinct(cls, orders: tuple[Literal[2, 3], ...]) -> tuple[Literal[2, 3], ...]:
        if not orders:
            raise ValueError("give at least one order: [2], [3] or [2, 3]")
        if len(set(orders)) < len(orders):
            raise ValueError(f"each order may stand once, got {list(orders)}")
        return tuple(sorted(orders))

    @field_validator("train_fraction")
    @classmethod
    def _fraction_leaves_both_sides(cls, fraction: float) -> float:
        if not 0 < fraction < 1:
            raise ValueError(
                f"train_fraction must lie strictly between 0 and 1, got {fraction:g}: "
                "0 leaves nothing to train on, 1 leaves nothing to validate on"
            )
        return fraction

    @model_validator(mode="after")
    def _operator_fits(self) -> ModularArithmeticConfig:
        if self.operator == "/" and not is_prime(self.modulus):
            raise ValueError(
                f"operator / needs a prime modulus, because only then can every number but 0 be divided by; "
                f"{self.modulus} is not prime, {_nearest_prime(self.modulus)} is"
            )
        if self.symmetric and self.operator in ("-", "/"):
            raise ValueError(
                f"symmetric keeps one of a {self.operator} b and b {self.operator} a, which are different "
                "items: it is for + and * only"
            )
        return self

    @model_validator(mode="after")
    def _every_order_has_both_sides(self) -> ModularArithmeticConfig:
        if self.items() > MAX_ITEMS:
            raise ValueError(
                f"modulus {self.modulus} with orders {list(self.orders)} has {self.items():,} items, more "
                f"than the {MAX_ITEMS:,} that are held in memory: take a smaller modulus or leave out order 3"
            )
        for order in self.orders:
            items, train = self.items(order), self.train_items(order)
            if not 0 < train < items:
                side = "train on" if train == 0 else "validate on"
                raise ValueError(
                    f"train_fraction {self.train_fraction:g} of the {items} items of order {order} leaves "
                    f"nothing to {side}: it must lie between {0.5 / items:.3g} and {1 - 0.5 / items:.3g}"
                )
        return self

    def items(self, order: int | None = None) -> int:
        """Items of one order (of all orders when None), training and validation together."""
        if order is None:
            return sum(self.items(each) for each in self.orders)
        if self.symmetric:
            return math.comb(self.modulus + order - 1, order)
        if self.operator == "/":
            return int(self.modulus * (self.modulus - 1) ** (order - 1))
        return int(self.modulus**order)

    def train_items(self, order: int | None = None) -> int:
        """Items of one order (of all orders when None) that are trained on."""
        if order is None:
            return sum(self.train_items(each) for each in self.orders)
        return math.floor(self.items(order) * self.train_fraction + 0.5)

    @property
    def vocabulary_size(self) -> int:
        """p numbers, operator, `=`, BOS, EOS, PAD."""
        return self.modulus + 5

    @property
    def length(self) -> int:
        """Positions S that the model reads of the longest item: BOS, operands, operators, `=` and the result."""
        return 2 * max(self.orders) + 2

    @property
    def steps_per_epoch(self) -> int:
        """Batches in one pass over the training items; the last one may be smaller."""
        return math.ceil(self.train_items() / self.batch_size)


def is_prime(number: int) -> bool:
    """Whether `number` is a prime, by trial division."""
    return number > 1 and all(number % divisor for divisor in range(2, math.isqrt(number) + 1))


def _nearest_prime(number: int) -> int:
    return next(
        candidate
        for distance in range(number + 2)
        for candidate in (number - distance, number + distance)
        if is_prime(candidate)
    )
