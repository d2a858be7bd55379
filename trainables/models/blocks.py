"""The parts that every transformer here is made of: normalisation, attention projections, and the block around them.

Shape suffixes: B rows, S positions, D width, F width of the MLP's hidden layer, H heads, E = D / H.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from trainables.models.decoder_config import DecoderConfig
from trainables.models.initialisation import Initialiser
from trainables.models.layers import Dropout


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + epsilon) * weight over the last dimension, in fp32 whatever comes in.

    Zhang & Sennrich 2019, arXiv 1910.07467.
    """

    def __init__(self, width: int, epsilon: float, device: torch.device) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.ones(width, device=device))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Any shape that ends in the width; the type of `x`."""
        precise = x.to(self.weight.dtype)
        return F.rms_norm(precise, self.weight.shape, self.weight, self.epsilon).to(x.dtype)


def norm(config: DecoderConfig, device: torch.device) -> nn.Module:
    """The normalisation that a configuration asks for; the identity where it asks for none."""
    if config.norm == "none":
        return nn.Identity()
    if config.norm_kind == "rms":
        return RMSNorm(config.width, config.norm_epsilon, device)
    return nn.LayerNorm(config.width, eps=config.norm_epsilon, bias=config.bias, device=device)


class Projections(nn.Module):
    """The weights of causal self-attention: one stacked projection to Q, K and V, and one from the mixed values."""

    def __init__(self, config: DecoderConfig, draw: Initialiser) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = draw.linear(config.width, 3 * config.width, bias=config.bias, stacked=3)
        self.output = draw.linear(config.width, config.width, bias=config.bias, residual=True)


class Block(nn.Module):
    """Attention and MLP around the residual stream, normalised before (pre), after each sum (post) or never.

    Args:
        config: the decoder that it belongs to.
        attention: its attention, made before the rest so that it is drawn first.
        draw: makes the layers; its generator draws the dropout masks too.
        mlp_bias: whether the MLP has biases.
    """

    def __init__(self, config: DecoderConfig, attention: nn.Module, draw: Initialiser, mlp_bias: bool) -> None:
        super().__init__()
        device, width, hidden = draw.generator.device, config.width, config.hidden
        self.order, self.mlp_kind = config.norm, config.mlp
        self.attention = attention
        self.attention_norm = norm(config, device)
        self.expand = draw.linear(width, hidden, bias=mlp_bias)
        self.gate = draw.linear(width, hidden, bias=mlp_bias) if config.mlp == "swiglu" else None
        self.contract = draw.linear(hidden, width, bias=mlp_bias, residual=True)
        self.dropout = Dropout(config.dropout, draw.generator)
        self.mlp_norm = norm(config, device)

    def attention_input(self, x_BSD: torch.Tensor) -> torch.Tensor:
        """What the attention of this block reads, from the block's input."""
        return self.attention_norm(x_BSD) if self.order == "pre" else x_BSD

    def forward(self, x_BSD: torch.Tensor, attended_BSD: torch.Tensor) -> torch.Tensor:
        """The block's output (B, S, D), from its input and the output of its attention at the same positions."""
        x_BSD = x_BSD + attended_BSD
        if self.order == "post":
            x_BSD = self.attention_norm(x_BSD)
            return self.mlp_norm(x_BSD + self.dropout(self._mlp(x_BSD)))
        return x_BSD + self.dropout(self._mlp(self.mlp_norm(x_BSD)))

    def _mlp(self, x_BSD: torch.Tensor) -> torch.Tensor:
        hidden_BSF = self.expand(x_BSD)
        if self.gate is not None:
            hidden_BSF = F.silu(self.gate(x_BSD)) * hidden_BSF
        elif self.mlp_kind == "silu":
            hidden_BSF = F.silu(hidden_BSF)
        else:
            hidden_BSF = F.gelu(hidden_BSF)
        return self.contract(hidden_BSF)
