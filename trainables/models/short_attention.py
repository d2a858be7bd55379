"""Causal attention over short sequences on a CPU, with a backward pass of its own.

Torch's kernel is made for long sequences and spends its time on overhead when there are six positions. Here the
products are batched over rows and heads, and the softmax runs over a layout whose innermost dimension is long.

Shape suffixes: B rows, S positions of the rows' own, L positions of a shared beginning, K = L + S keys, Q queries (the
last Q positions), D width, H heads, E = D / H, P distinct beginnings, N = B H.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from trainables.models.attention import split_heads

LONGEST, NARROWEST = 12, 8
"""Keys up to which, and width of a head from which, this is faster than `scaled_dot_product_attention`."""


def is_short(keys: int, width: int) -> bool:
    """Whether attention over so many keys, with heads so wide, is faster here."""
    return keys <= LONGEST and width >= NARROWEST


class ShortAttention(torch.autograd.Function):
    """softmax(Q K^T / sqrt(E)) V with a causal mask.

    Args:
        q_BQD: queries of the last Q positions.
        kv_BS2D: keys and values, side by side, of the rows' own positions.
        past_PL2D: those of the beginnings; None: there are none.
        index_B: which beginning each row has.
        heads: H.

    Returns:
        The mixed values (B, Q, D).
    """

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.float32)  # never in bf16, which gains nothing here
    def forward(
        ctx: Any,
        q_BQD: torch.Tensor,
        kv_BS2D: torch.Tensor,
        past_PL2D: torch.Tensor | None,
        index_B: torch.Tensor | None,
        heads: int,
    ) -> torch.Tensor:
        k_NKE, v_NKE = _keys_and_values(kv_BS2D, past_PL2D, index_B, heads)
        queries, (keys, width) = q_BQD.shape[1], k_NKE.shape[1:]
        q_NQE = _padded(q_BQD, heads, keys).mul_(1 / math.sqrt(width))
        weights_QKN = _causal_softmax(torch.bmm(q_NQE, k_NKE.transpose(1, 2)), queries)
        weights_NQK = weights_QKN.permute(2, 0, 1).contiguous()
        ctx.save_for_backward(q_NQE, k_NKE, v_NKE, weights_QKN, weights_NQK, index_B)
        ctx.heads, ctx.queries, ctx.past_shape = heads, queries, None if past_PL2D is None else past_PL2D.shape
        return _rows(torch.bmm(weights_NQK, v_NKE)[:, :queries], heads)

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[misc]
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(ctx: Any, grad_BQD: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        q_NQE, k_NKE, v_NKE, weights_QKN, weights_NQK, index_B = ctx.saved_tensors
        heads, scale = ctx.heads, 1 / math.sqrt(q_NQE.shape[-1])
        grad_NQE = _padded(grad_BQD, heads, k_NKE.shape[1])
        grad_weights_QKN = torch.bmm(grad_NQE, v_NKE.transpose(1, 2)).permute(1, 2, 0).contiguous()
        scores_QKN = torch._softmax_backward_data(grad_weights_QKN, weights_QKN, 1, weights_QKN.dtype)
        scores_NQK = scores_QKN.permute(2, 0, 1).contiguous()
        q_BQD = _rows(torch.bmm(scores_NQK, k_NKE)[:, : ctx.queries].mul_(scale), heads)
        k_NKE = torch.bmm(scores_NQK.transpose(1, 2), q_NQE)  # the queries are scaled already
        v_NKE = torch.bmm(weights_NQK.transpose(1, 2), grad_NQE)
        length = 0 if ctx.past_shape is None else ctx.past_shape[1]
        own_BS2D = _side_by_side(k_NKE[:, length:], v_NKE[:, length:], heads)
        if ctx.past_shape is None:
            return q_BQD, own_BS2D, None, None, None
        past_BL2D = _side_by_side(k_NKE[:, :length], v_NKE[:, :length], heads)
        past_PL2D = past_BL2D.new_zeros(ctx.past_shape).index_add_(0, index_B, past_BL2D)
        return q_BQD, own_BS2D, past_PL2D, None, None


def _padded(x_BQD: torch.Tensor, heads: int, keys: int) -> torch.Tensor:
    """(N, Q or more, E) and contiguous, with rows of zeros behind.

    Batched products of fewer than 400 multiplications a matrix go to a kernel that is several times slower.
    """
    rows, queries, width = x_BQD.shape
    enough = -(-400 // (keys * (width // heads)))
    padded = x_BQD.new_zeros(rows, heads, max(queries, enough), width // heads)
    padded[:, :, :queries] = split_heads(x_BQD, heads)
    return padded.flatten(0, 1)


def _rows(x_NSE: torch.Tensor, heads: int) -> torch.Tensor:
    """(B, S, D), the inverse of `split_heads`."""
    return x_NSE.unflatten(0, (-1, heads)).transpose(1, 2).flatten(2)


def _keys_and_values(
    kv_BS2D: torch.Tensor, past_PL2D: torch.Tensor | None, index_B: torch.Tensor | None, heads: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values, each (N, K, E) and contiguous, those of the beginning first."""
    parts = [kv_BS2D]
    if past_PL2D is not None and index_B is not None:
        parts.insert(0, past_PL2D.index_select(0, index_B))
    rows, width = len(kv_BS2D), kv_BS2D.shape[-1] // 2
    both = kv_BS2D.new_empty(2, rows, heads, sum(part.shape[1] for part in parts), width // heads)
    begin = 0
    for part in parts:
        end = begin + part.shape[1]
        for which, half in enumerate(part.split(width, dim=-1)):
            both[which, :, :, begin:end] = split_heads(half, heads)
        begin = end
    k_NKE, v_NKE = both.flatten(1, 2)
    return k_NKE, v_NKE


def _side_by_side(k_NSE: torch.Tensor, v_NSE: torch.Tensor, heads: int) -> torch.Tensor:
    """Keys and values as they came, (B, S, 2 D)."""
    both = torch.stack([k_NSE, v_NSE], dim=1)  # (N, 2, S, E)
    return both.unflatten(0, (-1, heads)).permute(0, 3, 2, 1, 4).flatten(2)


def _causal_softmax(scores_NQK: torch.Tensor, queries: int) -> torch.Tensor:
    """The weights as (Q, K, N): the sum runs over a dimension that is not the innermost, so N is vectorised over."""
    keys, scores_QKN = scores_NQK.shape[2], scores_NQK.permute(1, 2, 0).contiguous()
    for query in range(queries - 1):
        scores_QKN[query, keys - queries + query + 1 :] = -math.inf
    return scores_QKN.softmax(dim=1)
