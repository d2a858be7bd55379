"""Layers that are initialised from a passed `torch.Generator`, never from torch's global one.

The device of the generator is the device of the parameters. Leaves out everything that torch's own layers
already do without drawing random numbers (`nn.LayerNorm`).

Shape suffixes: B rows, S positions, D width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Prefix:
    """The beginnings that rows of a batch share, so that a causal model computes each of them once.

    On a CPU this halves the work of modular arithmetic, where 481 rows begin with one of 31 `BOS a +`. The
    outputs are those of the plain computation but for the order of summation in the gradients. Dropout would
    be shared as well, which is another distribution: pass no prefix to a model that is trained with dropout.
    """

    tokens: torch.Tensor
    """(prefixes, length) int64: the distinct beginnings."""
    index: torch.Tensor
    """(B,) int64: which of them each row begins with."""

    @property
    def length(self) -> int:
        """Positions that a prefix covers."""
        return self.tokens.shape[1]


def linear(inputs: int, outputs: int, *, bias: bool, generator: torch.Generator) -> nn.Linear:
    """A linear layer with torch's default initialisation: weight and bias from U(-b, b), b = 1/sqrt(inputs)."""
    # On the meta device torch's own initialisation draws nothing; `to_empty` then makes room for ours.
    layer = nn.Linear(inputs, outputs, bias=bias, device="meta").to_empty(device=generator.device)
    bound = 1 / math.sqrt(inputs)
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=generator)
        if bias:
            layer.bias.uniform_(-bound, bound, generator=generator)
    return layer


def embedding(size: int, width: int, *, padding: int | None, generator: torch.Generator) -> nn.Embedding:
    """A token embedding drawn from N(0, 1); the row of `padding` is zero and gets no gradient from here."""
    table = torch.empty(size, width, device=generator.device).normal_(generator=generator)
    if padding is not None:
        table[padding] = 0
    return nn.Embedding(size, width, padding_idx=padding, _weight=table)


class Dropout(nn.Module):
    """Inverted dropout whose masks come from its own generator (the run's, which the engine checkpoints)."""

    def __init__(self, probability: float, generator: torch.Generator) -> None:
        super().__init__()
        self.probability = probability
        self.generator = generator

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Any shape; the identity in evaluation mode."""
        if not self.training or self.probability == 0:
            return x
        keep = 1 - self.probability
        return x * torch.empty_like(x).bernoulli_(keep, generator=self.generator).div_(keep)


def sinusoidal_positions(length: int, width: int, device: torch.device) -> torch.Tensor:
    """Fixed position vectors (length, width): sin at even, cos at odd i of pos / 10000^(2 (i // 2) / width).

    Vaswani et al. 2017 (arXiv 1706.03762), section 3.5.
    """
    position = torch.arange(length, dtype=torch.float64)[:, None]
    i = torch.arange(width)
    angle = position / 10_000.0 ** (2 * (i // 2) / width)
    return torch.where(i % 2 == 0, angle.sin(), angle.cos()).to(device=device, dtype=torch.float32)
