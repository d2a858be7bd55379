"""The mean loss of a model over fixed windows, and measures that follow from it."""

from __future__ import annotations

import math

import torch
from torch import nn

from trainables.language.batches import Windows
from trainables.language.losses import token_losses


def mean_losses(model: nn.Module, windows: Windows, rows: int) -> tuple[float, float | None]:
    """The mean over all targets in nats, and over those with a weight; None where there are no weights.

    `rows` windows at a time, summed in float64.
    """
    device = windows.targets_BS.device
    total, weighted, weight = (torch.zeros((), dtype=torch.float64, device=device) for _ in range(3))
    for begin in range(0, len(windows), rows):
        chunk = windows.at(slice(begin, begin + rows))
        losses_BS = token_losses(model(chunk.inputs_BS), chunk.targets_BS).double()
        total += losses_BS.sum()
        if chunk.weights_BS is not None:
            weighted += (losses_BS * chunk.weights_BS).sum()
            weight += chunk.weights_BS.double().sum()
    mean = (total / windows.targets_BS.numel()).item()
    return mean, None if windows.weights_BS is None else (weighted / weight).item()


def mean_loss(model: nn.Module, windows: Windows, rows: int) -> float:
    """The mean over the weighted targets, see `mean_losses`."""
    mean, weighted_mean = mean_losses(model, windows, rows)
    return mean if weighted_mean is None else weighted_mean


def perplexity(loss: float) -> float:
    """exp(loss), infinite where a float has no room for it."""
    return math.exp(loss) if loss < 700 else math.inf


def bits_per_byte(loss: float, tokens: int, text_bytes: int) -> float:
    """A mean loss of `tokens` in nats as bits for each of the `text_bytes` bytes that they stand for.

    Unlike a loss per token it can be compared between tokenizers.
    """
    return loss * tokens / (math.log(2) * text_bytes)
