"""Losses of a model over fixed windows: of all characters, and of those that belong to answers."""

from __future__ import annotations

import torch
from torch import nn

from trainables.language.batches import Windows
from trainables.language.losses import token_losses


def losses(model: nn.Module, windows: Windows, rows: int) -> tuple[float, float | None]:
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
