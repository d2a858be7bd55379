"""Causal attention over queries, keys and values that are already projected and split into heads.

Shape suffixes: B rows, H heads, Q queries, K keys, E width of a head.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F


def attend(q_BHQE: torch.Tensor, k_BHKE: torch.Tensor, v_BHKE: torch.Tensor) -> torch.Tensor:
    """The values mixed by causal attention, (B, H, Q, E); the queries belong to the last Q of the K positions."""
    queries, keys = q_BHQE.shape[2], k_BHKE.shape[2]
    if queries == keys:
        return F.scaled_dot_product_attention(q_BHQE, k_BHKE, v_BHKE, is_causal=True)
    mask = causal_mask(queries, keys, q_BHQE.device)
    return F.scaled_dot_product_attention(q_BHQE, k_BHKE, v_BHKE, attn_mask=mask)


def causal_mask(queries: int, keys: int, device: torch.device) -> torch.Tensor:
    """(queries, keys) bool: which keys each of the last `queries` positions may look at."""
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)
