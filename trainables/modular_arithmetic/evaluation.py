"""Loss and accuracy over whole sets of items, and the norm of a model's parameters."""

from __future__ import annotations

import math

import torch
from torch import nn

from trainables.modular_arithmetic.data import Items
from trainables.modular_arithmetic.losses import item_correct, item_losses


def totals(model: nn.Module, items: Items, batch_size: int) -> tuple[float, float]:
    """Sum of losses and number of items answered right, `batch_size` items at a time, summed in float64."""
    device = items.inputs_BS.device
    loss = torch.zeros((), dtype=torch.float64, device=device)
    correct = torch.zeros((), dtype=torch.int64, device=device)
    for begin in range(0, len(items), batch_size):
        chunk = items.at(slice(begin, begin + batch_size))
        logits = model(chunk.inputs_BS, chunk.start, chunk.prefix)
        loss += item_losses(logits, chunk.targets_BT, chunk.weights_BT).double().sum()
        correct += item_correct(logits, chunk.targets_BT, chunk.weights_BT).sum()
    return loss.item(), float(correct.item())


def parameter_norm(model: nn.Module) -> float:
    """L2 norm over all parameters together, summed in float64."""
    return math.sqrt(sum(parameter.detach().double().square().sum().item() for parameter in model.parameters()))
