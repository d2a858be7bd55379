"""Loss and accuracy of modular arithmetic: only the tokens after `=` count, which are the result and EOS.

Shape suffixes: B items, T positions scored, V vocabulary.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch.nn import functional as F

Reduction = Literal["none", "mean", "sum"]


def item_losses(
    logits_BTV: torch.Tensor, targets_BT: torch.Tensor, weights_BT: torch.Tensor | None = None
) -> torch.Tensor:
    """Negative log-likelihood (B,) of each item in nats: the mean over its scored tokens.

    `weights_BT` gives what each token counts, summing to 1 for an item; None: all count alike.
    """
    flat = F.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten(), reduction="none")
    losses_BT = flat.view_as(targets_BT)
    return losses_BT.mean(dim=1) if weights_BT is None else (losses_BT * weights_BT).sum(dim=1)


def negative_log_likelihood(
    logits_BTV: torch.Tensor,
    targets_BT: torch.Tensor,
    weights_BT: torch.Tensor | None = None,
    reduction: Reduction = "mean",
) -> torch.Tensor:
    """`item_losses`, over the items: as they are (B,), their mean or their sum (scalars)."""
    losses_B = item_losses(logits_BTV, targets_BT, weights_BT)
    if reduction == "none":
        return losses_B
    return losses_B.mean() if reduction == "mean" else losses_B.sum()


def item_correct(
    logits_BTV: torch.Tensor, targets_BT: torch.Tensor, weights_BT: torch.Tensor | None = None
) -> torch.Tensor:
    """Whether every scored token of an item is the most likely one, (B,) bool."""
    right_BT = logits_BTV.argmax(dim=-1) == targets_BT
    if weights_BT is not None:
        right_BT = right_BT | (weights_BT == 0)
    return right_BT.all(dim=1)
