"""What users would write instead: the GPT and the LSTM of modular arithmetic with torch's own layers, and their loop.

Competent and ordinary: `nn.LSTM`, `scaled_dot_product_attention`, whole tensors on the device instead of a DataLoader,
AdamW as it comes, every position computed, the loss taken where the result and EOS are predicted. The same sizes,
data, clipping and learning rate as the default configuration. Leaves out dropout, tying and mixed orders.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from trainables.modular_arithmetic.config import ModularArithmeticConfig
from trainables.modular_arithmetic.data import split, tokenize


class PlainBlock(nn.Module):
    """Post-norm transformer block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.output = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width, bias=False), nn.GELU(), nn.Linear(4 * width, width, bias=False)
        )
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows, length, width = x.shape
        q, k, v = self.qkv(x).view(rows, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = self.norm1(x + self.output(mixed.transpose(1, 2).reshape(rows, length, width)))
        return self.norm2(x + self.mlp(x))


class PlainGPT(nn.Module):
    """Logits of all positions."""

    def __init__(self, vocabulary: int, length: int, layers: int, width: int, heads: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        position = torch.arange(length)[:, None] * torch.exp(-math.log(1e4) * torch.arange(0, width, 2) / width)
        self.register_buffer("positions", torch.stack([position.sin(), position.cos()], dim=-1).flatten(1))
        self.blocks = nn.Sequential(*(PlainBlock(width, heads) for _ in range(layers)))
        self.classifier = nn.Linear(width, vocabulary)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.blocks(self.embedding(tokens) + self.positions))


class PlainLSTM(nn.Module):
    """Logits of all positions."""

    def __init__(self, vocabulary: int, layers: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.lstm = nn.LSTM(width, width, layers, batch_first=True)
        self.classifier = nn.Linear(width, vocabulary)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.lstm(self.embedding(tokens))[0])


def plain_model(config: ModularArithmeticConfig) -> nn.Module:
    """The plain model of a configuration."""
    model = config.model
    if model.kind == "lstm":
        return PlainLSTM(config.vocabulary_size, model.layers, model.width)
    return PlainGPT(config.vocabulary_size, config.length, model.layers, model.width, model.heads)


def plain_step(config: ModularArithmeticConfig, seed: int = 0) -> Callable[[], float]:
    """One step of the plain loop on the training items of order 2; returns the loss, as a loop that prints it would."""
    return plain_training(config, seed)[1]


def plain_training(config: ModularArithmeticConfig, seed: int = 0) -> tuple[nn.Module, Callable[[], float]]:
    """A plain model and the step that trains it."""
    torch.manual_seed(seed)
    model, (training, _) = plain_model(config), split(config, 2, seed)
    tokens = torch.from_numpy(tokenize(config, training))
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.optimizer.learning_rate, weight_decay=config.optimizer.weight_decay
    )
    order = torch.randperm(len(tokens))
    position = 0

    def step() -> float:
        nonlocal order, position
        if position >= len(tokens):
            order, position = torch.randperm(len(tokens)), 0
        batch = tokens[order[position : position + config.batch_size]]
        position += config.batch_size
        logits = model(batch[:, :-1])[:, -2:]
        loss = F.cross_entropy(logits.reshape(-1, logits.shape[-1]), batch[:, -2:].reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        if config.gradient_clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), config.gradient_clip)
        optimizer.step()
        return loss.item()

    return model, step
