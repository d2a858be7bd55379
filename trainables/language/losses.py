"""Cross-entropy of the next token. Shape suffixes: B rows, S positions, V vocabulary."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from trainables.language.batches import Windows


def token_losses(logits_BSV: torch.Tensor, targets_BS: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood (B, S) of each target in nats, computed in fp32 whatever the logits' precision."""
    flat = F.cross_entropy(logits_BSV.flatten(0, 1).float(), targets_BS.flatten(), reduction="none")
    return flat.view_as(targets_BS)


def language_loss(logits_BSV: torch.Tensor, windows: Windows) -> torch.Tensor:
    """The mean over the targets, weighted by what each counts (scalar); 0 if none of them counts."""
    if windows.weights_BS is None:
        return F.cross_entropy(logits_BSV.flatten(0, 1).float(), windows.targets_BS.flatten())
    losses_BS = token_losses(logits_BSV, windows.targets_BS)
    total = windows.weights_BS.sum().clamp_min(torch.finfo(torch.float32).tiny)
    return (losses_BS * windows.weights_BS).sum() / total
