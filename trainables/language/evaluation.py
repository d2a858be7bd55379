"""The mean loss of a model over fixed windows, and measures that follow from it."""

from __future__ import annotations

import math

import torch
from torch import nn

from trainables.language.batches import Windows
from trainables.language.losses import token_losses


def mean_loss(model: nn.Module, windows: Windows, rows: int) -> float:
    """The mean over the weighted targets in nats, `rows` windows at a time, summed in float64."""
    device = windows.targets_BS.device
    loss = torch.zeros((), dtype=torch.float64, device=device)
    count = torch.zeros((), dtype=torch.float64, device=device)
    for begin in range(0, len(windows), rows):
        chunk = windows.at(slice(begin, begin + rows))
        losses_BS = token_losses(model(chunk.inputs_BS), chunk.targets_BS).double()
        if chunk.weights_BS is None:
            loss += losses_BS.sum()
            count += losses_BS.numel()
        else:
            loss += (losses_BS * chunk.weights_BS).sum()
            count += chunk.weights_BS.double().sum()
    return (loss / count).item()


def perplexity(loss: float) -> float:
    """exp(loss), infinite where a float has no room for it."""
    return math.exp(loss) if loss < 700 else math.inf


def bits_per_byte(loss: float, tokens: int, text_bytes: int) -> float:
    """A mean loss of `tokens` in nats as bits for each of the `text_bytes` bytes that they stand for.

    Unlike a loss per token it can be compared between tokenizers.
    """
    return loss * tokens / (math.log(2) * text_bytes)
