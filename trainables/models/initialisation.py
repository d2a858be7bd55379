"""Initial weights: who draws what for the layers of a model, from a passed `torch.Generator` and nothing else.

The device of the generator is the device of the parameters.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import nn

from trainables.models import layers


class Initialiser(ABC):
    """Makes layers with their initial weights, in the order in which they are asked for."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    @abstractmethod
    def linear(self, inputs: int, outputs: int, *, bias: bool, stacked: int = 1, residual: bool = False) -> nn.Linear:
        """A linear layer.

        Args:
            inputs, outputs: its widths.
            bias: whether it has one.
            stacked: how many matrices of outputs / stacked rows it holds.
            residual: whether its output is added to the residual stream.
        """

    @abstractmethod
    def embedding(self, size: int, width: int) -> nn.Embedding:
        """A vector for each of `size` tokens or positions."""


class Uniform(Initialiser):
    """Torch's defaults: linear layers from U(-b, b) with b = 1/sqrt(inputs), embeddings from N(0, 1)."""

    def linear(self, inputs: int, outputs: int, *, bias: bool, stacked: int = 1, residual: bool = False) -> nn.Linear:
        # Stacked matrices have the same fan-in, so one draw for all is a draw for each.
        return layers.linear(inputs, outputs, bias=bias, generator=self.generator)

    def embedding(self, size: int, width: int) -> nn.Embedding:
        return layers.embedding(size, width, padding=None, generator=self.generator)


class GPT2(Initialiser):
    """N(0, 0.02^2); less for what is added to the residual stream, 2 x `layers` times; biases are zero.

    Radford et al. 2019, section 2.3, as nanoGPT reads it.
    """

    STD = 0.02

    def __init__(self, generator: torch.Generator, layers: int) -> None:
        super().__init__(generator)
        self.layers = layers

    def linear(self, inputs: int, outputs: int, *, bias: bool, stacked: int = 1, residual: bool = False) -> nn.Linear:
        std = self.STD / math.sqrt(2 * self.layers) if residual else self.STD
        return _linear(self._normal(outputs, inputs, std), bias)

    def embedding(self, size: int, width: int) -> nn.Embedding:
        return nn.Embedding(size, width, _weight=self._normal(size, width, self.STD))

    def _normal(self, rows: int, columns: int, std: float) -> torch.Tensor:
        return torch.empty(rows, columns, device=self.generator.device).normal_(std=std, generator=self.generator)


class TruncatedNormal(Initialiser):
    """Linear layers with variance 2 / (inputs + outputs), embeddings with 1, cut at 3 standard deviations; biases are
    zero. Glorot & Bengio 2010, as the handout of Stanford CS336, assignment 1, has it."""

    CUT = 3.0

    def linear(self, inputs: int, outputs: int, *, bias: bool, stacked: int = 1, residual: bool = False) -> nn.Linear:
        return _linear(self._draw(outputs, inputs, math.sqrt(2 / (inputs + outputs // stacked))), bias)

    def embedding(self, size: int, width: int) -> nn.Embedding:
        return nn.Embedding(size, width, _weight=self._draw(size, width, 1.0))

    def _draw(self, rows: int, columns: int, std: float) -> torch.Tensor:
        weight, cut = torch.empty(rows, columns, device=self.generator.device), self.CUT * std
        return nn.init.trunc_normal_(weight, std=std, a=-cut, b=cut, generator=self.generator)


def _linear(weight: torch.Tensor, bias: bool) -> nn.Linear:
    """A linear layer with this weight and a bias of zero."""
    outputs, inputs = weight.shape
    layer = nn.Linear(inputs, outputs, bias=bias, device="meta")
    layer.weight = nn.Parameter(weight)
    if bias:
        layer.bias = nn.Parameter(torch.zeros(outputs, device=weight.device))
    return layer
